//! `rebuild`: rebuilds the rows of a family.

use super::Error;
use super::access::Access;
use super::inspect::Print;
use super::jobs::{self, Console};
use foretell_engine::rebuild::{RebuildQuery, RebuildStep, Rebuilder, Rebuilt};
use foretell_engine::verify::VerifyFinding;

/// Rebuilds a family, or cancels a rebuild, and prints each step; fails if the new rows do not serve.
///
/// If no process serves the ports, this one folds the new rows itself; on a cluster it shares the work.
pub async fn rebuild(access: &Access, query: &RebuildQuery, console: &mut Console<'_>) -> Result<(), Error> {
    // Held until the end, because dropping it stops the fold.
    let _folding = access.fold(query.family);
    let family = query.family.name();
    let show = &mut |step, console: &mut Console<'_>| print(&step, family, console);
    let rebuilt = jobs::run::<Rebuilder>(access, query, console, show).await?;
    match console.print {
        Print::Json => console.json(&rebuilt)?,
        Print::Table => {
            let Rebuilt { serving } = rebuilt;
            writeln!(console.out, "done: generation {serving} of {family} serves")?;
        }
    }
    Ok(())
}

fn print(step: &RebuildStep, family: &str, console: &mut Console<'_>) -> Result<(), Error> {
    if console.print == Print::Json {
        return console.json(step);
    }
    let out = &mut console.out;
    match step {
        RebuildStep::Begun { serving, building } => {
            writeln!(out, "folding generation {building} of {family}, while generation {serving} serves")?;
        }
        RebuildStep::Verifying { verify: VerifyFinding::Begun { .. } } => {}
        RebuildStep::Verifying { verify: VerifyFinding::Differs(difference) } => {
            super::verify::print(difference, console)?;
        }
        RebuildStep::Serving { generation, summary } => {
            let verified = summary.map(|summary| format!("; {} rows verified", summary.rows)).unwrap_or_default();
            writeln!(out, "generation {generation} of {family} serves{verified}")?;
        }
        RebuildStep::Dropping { generation } => {
            writeln!(out, "dropping generation {generation} after its last readers")?;
        }
    }
    Ok(())
}
