//! `verify`: the rows against the log, as far as it goes on screen.

use super::Error;
use super::access::Access;
use super::inspect::Print;
use axum::http::Method;
use foretell_engine::verify::{Difference, Summary, Told};
use indicatif::ProgressBar;
use serde::Serialize;
use std::io::Write;

/// Verifies a view, or all of them, and prints every difference to `out`; errs where there is one.
pub async fn verify(
    access: &Access,
    view: Option<&str>,
    bar: &ProgressBar,
    print: Print,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let query: String = view.iter().map(|view| format!("?view={}", super::inspect::urlencoded(view))).collect();
    let mut lines = access.lines(Method::GET, &format!("/admin/verify{query}")).await?;
    while let Some(told) = lines.next::<Told>().await? {
        match told {
            Told::Begun { family, offsets } => {
                bar.reset();
                bar.set_length(offsets);
                bar.set_message(format!("offsets of {}", family.name()));
            }
            Told::Folded { offsets } => bar.inc(offsets),
            Told::Compared { view, .. } => bar.set_message(format!("offsets; comparing {}", view.name())),
            Told::Differs(difference) => bar.suspend(|| tell(&difference, print, out))?,
            Told::Done(summary) => return conclude(summary, print, out),
            Told::Failed { detail } => return Err(Error::Answer(detail)),
        }
    }
    Err(Error::Answer("the answer ended before the last row was compared".into()))
}

pub(super) fn tell(difference: &Difference, print: Print, out: &mut dyn Write) -> Result<(), Error> {
    if print == Print::Json {
        writeln!(out, "{}", json(difference))?;
        return Ok(());
    }
    let Difference { view, bucket, key, source, stored, folded } = difference;
    writeln!(out, "{} {key:?}, bucket {bucket}, partition {source}", view.name())?;
    for (side, row) in [("stored", stored), ("folded", folded)] {
        match row {
            Some(row) => writeln!(out, "  {side}: {}", json(row))?,
            None => writeln!(out, "  {side}: none")?,
        }
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn conclude(summary: Summary, print: Print, out: &mut dyn Write) -> Result<(), Error> {
    let Summary { offsets, rows, moved, differences } = summary;
    match print {
        Print::Json => writeln!(out, "{}", json(&summary))?,
        Print::Table => writeln!(
            out,
            "{rows} rows compared with the fold of {offsets} offsets; {moved} had moved meanwhile and were compared \
             where they stood; {differences} differ"
        )?,
    }
    if differences > 0 {
        let detail =
            format!("{differences} of {rows} rows are not the fold of the log; see docs/operations/upgrade.md");
        return Err(Error::Answer(detail));
    }
    Ok(())
}
