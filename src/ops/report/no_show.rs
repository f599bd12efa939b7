//! `report no-show`: the outcomes of visits, compared with their predicted risks.

use crate::ops::Error;
use crate::ops::access::Access;
use crate::ops::inspect::Print;
use crate::ops::jobs::{self, Console};
use foretell_domain::report::no_show::{NoShowReport, NoShowReportRow};
use foretell_domain::score::metrics::{Bin, Metrics, wilson};
use foretell_events::codec::rfc3339;
use foretell_lab::report as plot;
use foretell_service::report::reading::{NoShowQuery, NoShowReportJob};
use std::io::{self, Write};
use std::path::Path;

/// Prints a report on visits, and writes the calibration chart to a file if one is named.
pub async fn no_show(
    access: &Access,
    query: &NoShowQuery,
    svg: Option<&Path>,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let report = jobs::run::<NoShowReportJob>(access, query, console, &mut |(), _| Ok(())).await?;
    if let Some(file) = svg {
        let picture = plot::svg(&report.last).map_err(Error::Answer)?;
        std::fs::write(file, picture)
            .map_err(|cause| Error::File(format!("cannot write {}", file.display()), cause))?;
    }
    match console.print {
        Print::Json => console.json(&report)?,
        Print::Table => table(&report, console.out)?,
    }
    Ok(())
}

fn table(report: &NoShowReport, out: &mut dyn Write) -> io::Result<()> {
    let NoShowReportRow { known, missed, late_cancelled, cancelled, unknown, .. } = report.total;
    let from = if report.window.start > 0 { format!("from {} ", rfc3339(report.window.start)) } else { String::new() };
    let (to, rate) = (rfc3339(report.window.end), rated(&report.total));
    writeln!(out, "{known} visits with a known outcome, {from}up to {to}: {missed} missed{rate}")?;
    writeln!(out, "{late_cancelled} cancelled late, {cancelled} cancelled early, {unknown} unknown")?;
    rows("LEAD DAYS", &report.by_lead, out)?;
    rows("LEVEL", &report.by_level, out)?;
    rows("REMINDERS", &report.by_steps, out)?;
    if report.by_steps.len() > 1 {
        writeln!(out, "these groups differ: clients who book late get fewer reminders and come more often,")?;
        writeln!(out, "so the difference between two lines is not the effect of a reminder")?;
    }
    calibration(report, out)?;
    notes(report, out)
}

fn rated(row: &NoShowReportRow) -> String {
    let Some((rate, (low, high))) = row.rate.zip(row.interval) else { return String::new() };
    format!(" ({:.1} %, {:.1} to {:.1})", rate * 100.0, low * 100.0, high * 100.0)
}

fn rows(title: &str, rows: &[NoShowReportRow], out: &mut dyn Write) -> io::Result<()> {
    let heads = ["KNOWN", "MISSED", "RATE", "EXPECTED", "LATE OFF", "EARLY OFF", "UNKNOWN"];
    let [known, missed, rate, expected, late, early, unknown] = heads;
    writeln!(
        out,
        "\n{title:<26}{known:>9}{missed:>8}{rate:>9}  {:<17}{expected:>9}{late:>10}{early:>11}{unknown:>9}",
        "95 %"
    )?;
    for row in rows.iter().filter(|row| row.known + row.late_cancelled + row.cancelled + row.unknown > 0) {
        let NoShowReportRow { known, missed, late_cancelled, cancelled, unknown, .. } = row;
        let (rate, expected) = (share(row.rate), share(row.expected));
        let interval = interval(row.interval);
        let name = printable(&row.name);
        writeln!(
            out,
            "{name:<26}{known:>9}{missed:>8}{rate:>9}  {interval:<17}{expected:>9}{late_cancelled:>10}{cancelled:>11}\
             {unknown:>9}"
        )?;
    }
    Ok(())
}

fn calibration(report: &NoShowReport, out: &mut dyn Write) -> io::Result<()> {
    let [n, said, missed] = ["VISITS", "SAID", "MISSED"];
    writeln!(out, "\n{:<26}{n:>9}{said:>8}{missed:>9}  95 %", "TENTHS OF THE LAST SCORE")?;
    for (tenth, bin) in (1..).zip(&report.last.bins) {
        let Bin { cases, mean_score, rate, .. } = *bin;
        let (said, missed) = (share(Some(mean_score)), share(Some(rate)));
        let interval = interval(Some(wilson(rate, cases as f64)));
        writeln!(out, "{tenth:<26}{cases:>9}{said:>8}{missed:>9}  {interval}")?;
    }
    let [auc, brier, log_loss, ece] = ["ROC AUC", "BRIER", "LOG LOSS", "ECE"];
    writeln!(out, "\n{:<26}{n:>9}{auc:>9}{brier:>9}{log_loss:>10}{ece:>8}", "SCORES")?;
    let by_model = report.by_model.iter().map(|of| (format!("- {}", printable(&of.name)), &of.metrics));
    let first = [("last before the start", &report.last.metrics), ("last that was requested", &report.asked)];
    let first = first.into_iter().map(|(name, metrics)| (name.to_owned(), metrics));
    let last = ("in the last reminder".to_owned(), &report.reminded);
    for (name, metrics) in first.chain(by_model).chain([last]) {
        let Metrics { cases, roc_auc, brier, log_loss, ece, .. } = *metrics;
        let [auc, brier, log_loss, ece] = [roc_auc, brier, log_loss, ece].map(number);
        writeln!(out, "{name:<26}{cases:>9}{auc:>9}{brier:>9}{log_loss:>10}{ece:>8}")?;
    }
    Ok(())
}

fn notes(report: &NoShowReport, out: &mut dyn Write) -> io::Result<()> {
    for (count, what) in [
        (report.unfolded, "records of appointments are not folded yet: their outcomes are missing here"),
        (report.elsewhere, "visits that were scored or got a reminder are not included: moved, deleted or forgotten"),
        (report.forgotten, "outcomes belong to visits that the clients' rows no longer contain, and are not counted"),
        (report.unreadable, "records cannot be read by this version"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    Ok(())
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn interval(interval: Option<(f64, f64)>) -> String {
    interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{:.1} to {:.1} %", low * 100.0, high * 100.0))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// The names of steps are input of tenants: control characters must not reach the terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::report::no_show::{ModelAccuracy, ScoreAccuracy};

    fn words(text: &str, name: &str) -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn printed(report: &NoShowReport) -> String {
        let mut out = Vec::new();
        table(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_says_what_is_known_and_leaves_open_what_is_not() {
        let row = |name: &str, known, missed| NoShowReportRow {
            name: name.into(),
            known,
            missed,
            rate: Some(missed as f64 / known as f64),
            interval: Some(wilson(missed as f64 / known as f64, known as f64)),
            expected: Some(0.3),
            late_cancelled: 2,
            cancelled: 3,
            unknown: 4,
        };
        let metrics =
            Metrics { cases: 40, positives: 10, roc_auc: Some(0.75), ece: Some(0.0123), ..Metrics::default() };
        let report = NoShowReport {
            window: 0..1_772_359_200_000,
            total: row("all", 40, 10),
            by_lead: vec![row("0", 40, 10), NoShowReportRow { name: "1".into(), ..NoShowReportRow::default() }],
            by_level: vec![NoShowReportRow {
                rate: None,
                interval: None,
                expected: None,
                known: 0,
                missed: 0,
                ..row("low", 1, 0)
            }],
            by_steps: vec![row("none", 30, 9), row("a\u{1b}[31m", 10, 1)],
            last: ScoreAccuracy { metrics, bins: vec![Bin { cases: 10, positives: 1, mean_score: 0.2, rate: 0.1 }] },
            elsewhere: 7,
            by_model: vec![ModelAccuracy { name: "counters 1".into(), metrics }],
            ..NoShowReport::default()
        };
        let text = printed(&report);
        assert_eq!(
            text.lines().next().unwrap(),
            "40 visits with a known outcome, up to 2026-03-01T10:00:00.000Z: 10 missed \
             (25.0 %, 14.2 to 40.2)"
        );
        assert!(text.contains("\n2 cancelled late, 3 cancelled early, 4 unknown\n"), "{text}");
        assert_eq!(words(&text, "0 "), "0 40 10 25.0 % 14.2 to 40.2 % 30.0 % 2 3 4");
        assert_eq!(words(&text, "low"), "low 0 0 - - - 2 3 4");
        assert_eq!(words(&text, "a\u{fffd}[31m"), "a\u{fffd}[31m 10 1 10.0 % 1.8 to 40.4 % 30.0 % 2 3 4");
        assert_eq!(
            words(&text, "1 "),
            "1 10 20.0 % 10.0 % 1.8 to 40.4 %",
            "the first tenth; empty buckets are left out"
        );
        assert_eq!(words(&text, "last before the start"), "last before the start 40 0.7500 - - 0.0123");
        assert_eq!(words(&text, "- counters 1"), "- counters 1 40 0.7500 - - 0.0123");
        assert_eq!(words(&text, "in the last reminder"), "in the last reminder 0 - - - -");
        assert!(
            text.contains("not the effect of a reminder") && text.contains("\n7 visits that were scored"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}') && !text.contains("not folded yet"), "{text}");
        let since = NoShowReport { window: 86_400_000..172_800_000, ..NoShowReport::default() };
        let first =
            "0 visits with a known outcome, from 1970-01-02T00:00:00.000Z up to 1970-01-03T00:00:00.000Z: 0 missed";
        assert_eq!(printed(&since).lines().next(), Some(first));
        let alike = NoShowReport { by_steps: vec![row("none", 30, 9)], ..NoShowReport::default() };
        assert!(!printed(&alike).contains("not the effect of a reminder"), "there is nothing to compare");
    }
}
