//! `migrate --repartition`: changes the partition count of a family.

use super::Error;
use super::inspect::Print;
use super::jobs::{self, Console};
use crate::app;
use crate::app::repartition::Repartition;
use crate::config::Config;
use foretell_domain::address::Family;
use foretell_engine::repartition::{RepartitionQuery, RepartitionStep};
use foretell_engine::verify::VerifyFinding;
use foretell_events::topic::full_name;
use foretell_ports::clock::Clock;
use std::sync::Arc;

/// Changes the partition count of a family, and prints each step; no process may serve the family during the change.
pub async fn repartition(
    config: Config,
    clock: Arc<dyn Clock>,
    query: RepartitionQuery,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let config = Arc::new(config);
    let job = Repartition { config: config.clone(), clock };
    let show = &mut |step, console: &mut Console<'_>| print(&step, &config, console);
    jobs::run_here(job, query, console, show).await
}

fn print(step: &RepartitionStep, config: &Config, console: &mut Console<'_>) -> Result<(), Error> {
    match (step, console.print) {
        (step, Print::Json) => console.json(step)?,
        (RepartitionStep::Verifying { verify: VerifyFinding::Begun { .. } }, Print::Table) => {}
        (RepartitionStep::Verifying { verify: VerifyFinding::Differs(difference) }, Print::Table) => {
            super::verify::print(difference, console)?;
        }
        (step, Print::Table) => writeln!(console.out, "{}", sentence(step, config))?,
    }
    console.out.flush()?;
    Ok(())
}

fn sentence(step: &RepartitionStep, config: &Config) -> String {
    match step {
        RepartitionStep::Copying { topic, into, partitions, offsets } => {
            format!("copying {topic} into {into}: {offsets} offsets into {partitions} partitions")
        }
        RepartitionStep::Copied { topic, records, rejected, letters } => {
            let stay = format!("{rejected} rejected records were not copied, {letters} of them are new dead letters");
            format!("copied {records} records into {topic}; {stay}")
        }
        RepartitionStep::Folding { family, generation } => {
            format!("folding generation {generation} of {} from the copy", family.name())
        }
        RepartitionStep::Moved { family, generation, topic, partitions, rows } => format!(
            "generation {generation} of {} serves, from {topic} with {partitions} partitions; {rows} rows verified",
            family.name()
        ),
        RepartitionStep::Done { family, epoch, partitions } => {
            let name = family.name();
            let left = epoch.checked_sub(1).map(|epoch| retired(config, *family, epoch));
            let left = left.map(|left| format!("; {left} is unchanged: delete it when you no longer want to go back"));
            format!("done: {name} has {partitions} partitions{}", left.unwrap_or_default())
        }
        RepartitionStep::GivenUp { family } => format!("cancelled: {} is unchanged", family.name()),
        RepartitionStep::Verifying { .. } => String::new(),
    }
}

/// The location of the records of a family's earlier topic.
fn retired(config: &Config, family: Family, epoch: u8) -> String {
    match app::disk_directory(&config.log) {
        Some(directory) => directory.join("log").join(format!("{}.e{epoch}", family.name())).display().to_string(),
        None => full_name(&config.topics.prefix, family.topic(), epoch),
    }
}
