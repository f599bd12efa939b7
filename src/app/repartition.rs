//! Another partition count for a family: the ports are opened, the topic is exchanged, and the ports are opened anew.
//!
//! Nobody serves meanwhile. On disk the directory belongs to this process; on a cluster the log refuses to begin while
//! somebody folds the family, and everyone who looks at the pointer ends.

use crate::app::{self, Ports};
use crate::config::Config;
use foretell_engine::repartition::{Asked, Mover, Stage, Told};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Gives a family another partition count, or goes on with what an earlier attempt began; tells how far it is.
///
/// Errs where it cannot be done, and then nothing has changed, or where it was interrupted: run again, it goes on.
pub async fn repartition(
    config: &Config,
    clock: Arc<dyn Clock>,
    asked: Asked,
    told: mpsc::Sender<Told>,
) -> Result<(), Error> {
    let ports = app::open(config, clock.clone()).await?;
    let mover = |ports: &Ports| Mover::new(app::verifier(config, ports), asked, told.clone());
    let stage = mover(&ports).stage().await?;
    if stage == Stage::Fold {
        return mover(&ports).fold().await;
    }
    copy(ports.log.as_ref(), &mover(&ports), stage).await?;
    // The directory is free again, and the log opens with the topics of the next epoch.
    drop(ports);
    mover(&app::open(config, clock).await?).fold().await
}

/// Makes the topics of the next epoch; what cannot be copied to its end is given up.
async fn copy(log: &dyn Log, mover: &Mover, stage: Stage) -> Result<(), Error> {
    let mut successors = log.successors(&mover.exchange(stage).await?).await?;
    mover.begin().await?;
    if let Err(error) = mover.copy(successors.as_mut()).await {
        successors.discard().await?;
        mover.give_up().await?;
        return Err(error);
    }
    successors.finish().await?;
    mover.copied().await
}
