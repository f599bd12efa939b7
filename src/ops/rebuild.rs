//! `rebuild`: a family folded anew, as far as it goes on screen.

use super::Error;
use super::access::Access;
use super::inspect::Print;
use axum::http::Method;
use foretell_domain::address::Family;
use foretell_engine::rebuild::{Order, Told};
use foretell_engine::verify;
use indicatif::ProgressBar;
use serde::Serialize;
use std::io::Write;

/// Rebuilds a family, or gives it up, and prints what comes of it to `out`; errs where the new rows do not serve.
///
/// Where nobody serves the ports, this process folds the new rows itself; on a cluster it helps those that do.
pub async fn rebuild(
    access: &Access,
    (family, order): (Family, Order),
    bar: &ProgressBar,
    print: Print,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let word = match order {
        Order::Build => "build",
        Order::Cancel => "cancel",
    };
    // Held until the end: dropped, it stops.
    let _folding = access.fold(family);
    let path = format!("/admin/rebuild?family={}&order={word}", family.name());
    let mut lines = access.lines(Method::POST, &path).await?;
    while let Some(told) = lines.next::<Told>().await? {
        if let Told::Failed { detail } = told {
            return Err(Error::Answer(detail));
        }
        bar.suspend(|| tell(&told, family, print, out))?;
        match told {
            Told::Folded { offsets, of } => {
                bar.set_length(of);
                bar.set_position(offsets);
            }
            Told::Verifying { verify: told } => watch(&told, bar),
            Told::Done { .. } => return Ok(()),
            Told::Begun { .. } | Told::Serving { .. } | Told::Dropping { .. } | Told::Failed { .. } => {}
        }
    }
    Err(Error::Answer("the answer ended before the rebuild did; run it again to go on".into()))
}

fn watch(told: &verify::Told, bar: &ProgressBar) {
    match told {
        verify::Told::Begun { offsets, .. } => {
            bar.reset();
            bar.set_length(*offsets);
            bar.set_message("offsets verified");
        }
        verify::Told::Folded { offsets } => bar.inc(*offsets),
        verify::Told::Compared { view, .. } => bar.set_message(format!("offsets; comparing {}", view.name())),
        verify::Told::Differs(_) | verify::Told::Done(_) | verify::Told::Failed { .. } => {}
    }
}

fn tell(told: &Told, family: Family, print: Print, out: &mut dyn Write) -> Result<(), Error> {
    let family = family.name();
    match (told, print) {
        (
            Told::Folded { .. }
            | Told::Verifying { verify: verify::Told::Folded { .. } | verify::Told::Compared { .. } },
            _,
        ) => {}
        (told, Print::Json) => writeln!(out, "{}", json(told))?,
        (Told::Begun { serving, building }, Print::Table) => {
            writeln!(out, "folding generation {building} of {family}, while generation {serving} serves")?;
        }
        (Told::Verifying { verify: verify::Told::Differs(difference) }, Print::Table) => {
            super::verify::tell(difference, print, out)?;
        }
        (Told::Serving { generation, summary }, Print::Table) => {
            let verified = summary.map(|summary| format!("; {} rows verified", summary.rows)).unwrap_or_default();
            writeln!(out, "generation {generation} of {family} serves{verified}")?;
        }
        (Told::Dropping { generation }, Print::Table) => {
            writeln!(out, "dropping generation {generation}, when nobody reads it any more")?;
        }
        (Told::Done { serving }, Print::Table) => writeln!(out, "done: generation {serving} of {family} serves")?,
        (Told::Verifying { .. } | Told::Failed { .. }, Print::Table) => {}
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
