//! Another partition count for a family: the ports are opened, the topic is exchanged, and the ports are opened again.
//!
//! No process serves meanwhile. On disk the directory belongs to this process. On a cluster the log refuses to begin
//! while another process folds the family, and every process that reads the pointer ends. So this job runs in the
//! command itself, not in an instance.

use crate::app::{self, Ports};
use crate::config::Config;
use async_trait::async_trait;
use foretell_engine::jobs::{Job, JobContext};
use foretell_engine::repartition::{Mover, RepartitionQuery, RepartitionStep, Stage};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use std::sync::Arc;

/// Gives a family another partition count, or continues what an earlier run began.
///
/// It fails where it cannot be done, and then nothing has changed, or where it was interrupted: the next run continues.
#[derive(Clone)]
pub struct Repartition {
    /// Which ports to open.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Job for Repartition {
    const NAME: &'static str = "repartition";
    const OPERATION: &'static str = "re-partition a topic";
    type Query = RepartitionQuery;
    type Item = RepartitionStep;
    type Report = ();

    async fn run(&self, query: RepartitionQuery, context: &JobContext<RepartitionStep>) -> Result<(), Error> {
        let mover = |ports: &Ports| Mover::new(app::verifier(&self.config, ports), query, context.clone());
        let ports = app::open(&self.config, self.clock.clone()).await?;
        let stage = mover(&ports).stage().await?;
        if stage == Stage::Fold {
            return mover(&ports).fold().await;
        }
        copy(ports.log.as_ref(), &mover(&ports), stage).await?;
        // The directory is free again, and the log opens with the topics of the next epoch.
        drop(ports);
        mover(&app::open(&self.config, self.clock.clone()).await?).fold().await
    }
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
