//! `migrate --repartition`: a family on its way to another partition count, as far as it goes on screen.

use super::Error;
use super::inspect::Print;
use crate::app::{self, repartition};
use crate::config::Config;
use foretell_domain::address::Family;
use foretell_engine::repartition::{Asked, Told};
use foretell_engine::verify;
use foretell_events::topic::full_name;
use foretell_ports::clock::Clock;
use indicatif::ProgressBar;
use std::io::Write;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Gives a family another partition count, and prints what comes of it to `out`; nobody may serve it meanwhile.
pub async fn repartition(
    config: &Config,
    clock: Arc<dyn Clock>,
    asked: Asked,
    (bar, print): (&ProgressBar, Print),
    out: &mut dyn Write,
) -> Result<(), Error> {
    let (tell, mut told) = mpsc::channel(64);
    let listen = async {
        while let Some(told) = told.recv().await {
            bar.suspend(|| say(&told, config, print, out))?;
            watch(&told, bar);
        }
        Ok(())
    };
    let work = async { repartition::repartition(config, clock, asked, tell).await };
    let (done, said) = tokio::join!(work, listen);
    // Why nobody listens is the better reason.
    said.and(done.map_err(Error::from))
}

fn watch(told: &Told, bar: &ProgressBar) {
    match told {
        Told::Copying { offsets, .. } => begin(bar, *offsets, "offsets copied"),
        Told::Passed { offsets } | Told::Verifying { verify: verify::Told::Folded { offsets } } => bar.inc(*offsets),
        Told::Folding { .. } => begin(bar, 0, "offsets folded"),
        Told::Folded { offsets, of } => {
            bar.set_length(*of);
            bar.set_position(*offsets);
        }
        Told::Verifying { verify: verify::Told::Begun { offsets, .. } } => begin(bar, *offsets, "offsets verified"),
        Told::Verifying { verify: verify::Told::Compared { view, .. } } => {
            bar.set_message(format!("offsets; comparing {}", view.name()));
        }
        Told::Copied { .. } | Told::Verifying { .. } | Told::Moved { .. } => {}
        Told::Done { .. } | Told::GivenUp { .. } => {}
    }
}

fn begin(bar: &ProgressBar, total: u64, message: &'static str) {
    bar.reset();
    bar.set_length(total);
    bar.set_message(message);
}

fn say(told: &Told, config: &Config, print: Print, out: &mut dyn Write) -> Result<(), Error> {
    match (told, print) {
        (
            Told::Passed { .. }
            | Told::Folded { .. }
            | Told::Verifying { verify: verify::Told::Folded { .. } | verify::Told::Compared { .. } },
            _,
        ) => {}
        (told, Print::Json) => writeln!(out, "{}", serde_json::to_string(told).unwrap_or_default())?,
        (Told::Verifying { verify: verify::Told::Differs(difference) }, Print::Table) => {
            super::verify::tell(difference, print, out)?;
        }
        (Told::Verifying { .. }, Print::Table) => {}
        (told, Print::Table) => writeln!(out, "{}", sentence(told, config))?,
    }
    out.flush()?;
    Ok(())
}

fn sentence(told: &Told, config: &Config) -> String {
    match told {
        Told::Copying { topic, into, partitions, offsets } => {
            format!("copying {topic} into {into}: {offsets} offsets into {partitions} partitions")
        }
        Told::Copied { topic, records, rejected, letters } => {
            let stay = format!("{rejected} rejected ones stay behind, {letters} of them as new dead letters");
            format!("copied {records} records into {topic}; {stay}")
        }
        Told::Folding { family, generation } => {
            format!("folding generation {generation} of {} from the copy", family.name())
        }
        Told::Moved { family, generation, topic, partitions, rows } => format!(
            "generation {generation} of {} serves, from {topic} with {partitions} partitions; {rows} rows verified",
            family.name()
        ),
        Told::Done { family, epoch, partitions } => {
            let name = family.name();
            let left = epoch.checked_sub(1).map(|epoch| retired(config, *family, epoch));
            let left = left.map(|left| format!("; {left} is left as it was: delete it when nobody wants to go back"));
            format!("done: {name} has {partitions} partitions{}", left.unwrap_or_default())
        }
        Told::GivenUp { family } => format!("given up: {} stays as it was", family.name()),
        Told::Passed { .. } | Told::Folded { .. } | Told::Verifying { .. } => String::new(),
    }
}

/// Where the records of a family's earlier topic are.
fn retired(config: &Config, family: Family, epoch: u8) -> String {
    match app::disk_directory(&config.log) {
        Some(directory) => directory.join("log").join(format!("{}.e{epoch}", family.name())).display().to_string(),
        None => full_name(&config.topics.prefix, family.topic(), epoch),
    }
}
