//! `report`: the quality of scores, as tables.

pub mod no_show;

use super::Error;
use super::access::Access;
use super::inspect::Print;
use super::jobs::{self, Console};
use foretell_domain::decision::report::{DecisionReport, DecisionReportRow, OUTCOMES_MAX};
use foretell_service::decisions::reading::{DecisionQuery, DecisionReportJob};
use std::io::Write;

/// Prints a report on login decisions.
pub async fn decisions(access: &Access, query: &DecisionQuery, console: &mut Console<'_>) -> Result<(), Error> {
    let report = jobs::run::<DecisionReportJob>(access, query, console, &mut |(), _| Ok(())).await?;
    match console.print {
        Print::Json => console.json(&report)?,
        Print::Table => table(&report, console.out)?,
    }
    Ok(())
}

fn table(report: &DecisionReport, out: &mut dyn Write) -> std::io::Result<()> {
    let DecisionReportRow { given, labelled, fraud, legitimate, .. } = report.total;
    writeln!(out, "{given} decisions about logins; {labelled} labelled: {fraud} fraud, {legitimate} legitimate")?;
    section("DECISION", &report.by_decision, out)?;
    section("REASON", &report.by_reason, out)?;
    section("IN SHADOW MODE", &report.by_shadow, out)?;
    for (count, what) in [
        (report.unmatched, "labels belong to decisions that are not included"),
        (report.visits, "decisions are about visits: see `foretell report no-show`"),
        (report.unreadable, "records cannot be read as decisions by this version"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    if !report.outcomes {
        writeln!(out, "more than {OUTCOMES_MAX} logins refer to a decision: successes and failures are omitted")?;
    }
    Ok(())
}

fn section(title: &str, rows: &[DecisionReportRow], out: &mut dyn Write) -> std::io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{title:<26}{:>10}{:>10}{:>8}{:>12}{:>11}  {:<13}{:>11}{:>8}{:>9}",
        "GIVEN", "LABELLED", "FRAUD", "LEGITIMATE", "PRECISION", "95 %", "SUCCEEDED", "FAILED", "EFFECT"
    )?;
    for row in rows {
        let DecisionReportRow { given, labelled, fraud, legitimate, succeeded, failed, .. } = row;
        // The codes of rules are input of tenants: control characters must not reach the terminal.
        let name: String = row.name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let precision = row.precision.map_or("-".into(), |precision| format!("{precision:.2}"));
        let interval = row.interval.map_or("-".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
        let effect = row.effect.map_or("-".into(), |effect| format!("{effect:+.2}"));
        writeln!(
            out,
            "{name:<26}{given:>10}{labelled:>10}{fraud:>8}{legitimate:>12}{precision:>11}  {interval:<13}\
             {succeeded:>11}{failed:>8}{effect:>9}"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_known_and_leaves_open_what_is_not() {
        let row = |name: &str, fraud, legitimate| DecisionReportRow {
            name: name.into(),
            given: 12,
            labelled: fraud + legitimate,
            fraud,
            legitimate,
            precision: (fraud + legitimate > 0).then(|| fraud as f64 / (fraud + legitimate) as f64),
            interval: (fraud + legitimate > 0).then_some((0.3, 0.95)),
            effect: Some(1.0986),
            ..DecisionReportRow::default()
        };
        let report = DecisionReport {
            total: row("all", 3, 1),
            by_decision: vec![DecisionReportRow { effect: None, ..row("challenge", 3, 1) }],
            by_reason: vec![row("NEW_DEVICE", 3, 1), row("a\u{1b}[31m", 0, 0)],
            unmatched: 2,
            ..DecisionReport::default()
        };
        let mut out = Vec::new();
        table(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(text.lines().next(), Some("12 decisions about logins; 4 labelled: 3 fraud, 1 legitimate"));
        let known = ["12", "4", "3", "1", "0.75", "0.30", "to", "0.95", "0", "0"];
        assert_eq!(words("NEW_DEVICE")[1..], [&known[..], &["+1.10"]].concat());
        assert_eq!(words("challenge")[1..], [&known[..], &["-"]].concat());
        assert_eq!(words("a\u{fffd}[31m")[1..], ["12", "0", "0", "0", "-", "-", "0", "0", "+1.10"]);
        assert!(!text.contains("SHADOW") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("2 labels belong to decisions that are not included"), "{text}");
        assert!(text.contains("successes and failures are omitted"), "{text}");
    }
}
