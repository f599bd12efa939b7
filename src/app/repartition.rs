//! Changes the partition count of a family: opens the ports, replaces the topic, and opens the ports again.
//!
//! No process may serve during the change. On disk, this process locks the directory. On a cluster, the log rejects the
//! change while another process folds the family, and every process that reads the pointer ends. So this job runs in
//! the command itself, not in an instance.

use crate::app::{self, Backends};
use crate::config::Config;
use async_trait::async_trait;
use foretell_engine::jobs::{Job, JobContext};
use foretell_engine::repartition::{RepartitionQuery, RepartitionStage, RepartitionStep, Repartitioner};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::LogAdmin;
use std::sync::Arc;

/// Changes the partition count of a family, or continues an interrupted change.
///
/// It fails if the change is not possible, and then nothing has changed, or if it is interrupted, and then the next run
/// continues.
#[derive(Clone)]
pub struct Repartition {
    /// Settings of the ports to open.
    pub config: Arc<Config>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Job for Repartition {
    const NAME: &'static str = "repartition";
    const OPERATION: &'static str = "repartition a topic";
    type Query = RepartitionQuery;
    type Item = RepartitionStep;
    type Report = ();

    async fn run(&self, query: RepartitionQuery, context: &JobContext<RepartitionStep>) -> Result<(), Error> {
        let mover = |backends: &Backends| {
            let verifier = backends.instance(&self.config).verifier();
            Repartitioner::new(verifier, query, context.clone())
        };
        let backends = app::open(&self.config, self.clock.clone()).await?;
        let stage = mover(&backends).stage().await?;
        if stage == RepartitionStage::Fold {
            return mover(&backends).fold().await;
        }
        copy(backends.admin.as_ref(), &mover(&backends), stage).await?;
        // The directory is unlocked again, and the log opens with the topics of the next epoch.
        drop(backends);
        mover(&app::open(&self.config, self.clock.clone()).await?).fold().await
    }
}

/// Creates and fills the topics of the next epoch; cancels the change if they cannot be copied completely.
async fn copy(log: &dyn LogAdmin, mover: &Repartitioner, stage: RepartitionStage) -> Result<(), Error> {
    let mut successors = log.successors(&mover.exchange(stage).await?).await?;
    mover.begin().await?;
    if let Err(error) = mover.copy(successors.as_mut()).await {
        successors.discard().await?;
        mover.cancel().await?;
        return Err(error);
    }
    successors.finish().await?;
    mover.copied().await
}
