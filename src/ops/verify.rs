//! `verify`: compares the rows with the log.

use super::Error;
use super::access::Access;
use super::inspect::Print;
use super::jobs::{self, Console};
use foretell_engine::verify::{Difference, Verifier, VerifyFinding, VerifyQuery, VerifySummary};
use serde::Serialize;

/// Verifies a view, or all of them, and prints every difference; fails if there is any.
pub async fn verify(access: &Access, query: &VerifyQuery, console: &mut Console<'_>) -> Result<(), Error> {
    let show = &mut |finding, console: &mut Console<'_>| match finding {
        VerifyFinding::Begun { .. } => Ok(()),
        VerifyFinding::Differs(difference) => print(&difference, console),
    };
    let summary = jobs::run::<Verifier>(access, query, console, show).await?;
    conclude(summary, console)
}

/// Prints a difference.
pub(super) fn print(difference: &Difference, console: &mut Console<'_>) -> Result<(), Error> {
    if console.print == Print::Json {
        return console.json(difference);
    }
    let Difference { view, bucket, key, source, stored, folded } = difference;
    writeln!(console.out, "{} {key:?}, bucket {bucket}, partition {source}", view.name())?;
    for (side, row) in [("stored", stored), ("folded", folded)] {
        match row {
            Some(row) => writeln!(console.out, "  {side}: {}", json(row))?,
            None => writeln!(console.out, "  {side}: none")?,
        }
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn conclude(summary: VerifySummary, console: &mut Console<'_>) -> Result<(), Error> {
    let VerifySummary { offsets, rows, moved, differences } = summary;
    match console.print {
        Print::Json => console.json(&summary)?,
        Print::Table => writeln!(
            console.out,
            "{rows} rows compared with the fold of {offsets} offsets; {moved} had changed in the meantime and were \
             compared as they were read; {differences} differ"
        )?,
    }
    if differences > 0 {
        let detail =
            format!("{differences} of {rows} rows differ from the fold of the log; see docs/operations/upgrade.md");
        return Err(Error::Answer(detail));
    }
    Ok(())
}
