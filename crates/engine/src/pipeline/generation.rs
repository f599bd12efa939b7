//! Runs one generation of a family: joins its consumer group, determines where each partition starts, runs the
//! pipelines.
//!
//! A membership lasts until the shutdown, a lost connection, or a pipeline that must start over. Then all its pipelines
//! are drained, and the keeper joins again after a pause. Nothing is carried over, so there is one way to begin: from
//! the store's checkpoint.

use super::task::{self, Tasks};
use super::{Exit, Pipeline, Shared, retry};
use foretell_domain::address::Generation;
use foretell_domain::view::Fold;
use foretell_events::Topic;
use foretell_ports::log::{Assigned, Log, record_at};
use foretell_ports::retry::Backoff;
use foretell_ports::store::Checkpoint;
use foretell_ports::{Error, Kind};
use foretell_telemetry::meter;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The pause before a group is joined again for the first time.
const REJOIN_FIRST: Duration = Duration::from_millis(100);
/// How much longer than their drain time pipelines are waited for.
const CUT_OFF_MS: u64 = 500;

/// The consumer group of a generation. On a cluster it is prefixed with the prefix of the topics.
pub fn group(generation: Generation) -> String {
    format!("views.{}.g{}", generation.family.name(), generation.number)
}

/// Where a new owner of the partition starts, validated against the log.
pub(crate) async fn resume<F: Fold>(
    shared: &Shared<F>,
    partition: u32,
    committed: Option<i64>,
) -> Result<Checkpoint, Error> {
    const OPERATION: &str = "take over a partition";
    let (topic, name) = (shared.topic(), &shared.topic_name);
    if partition >= shared.partitions {
        let detail = format!(
            "{name} has a partition {partition}, and its views were folded from {} partitions: keys have moved. \
             Partition counts are never changed in place: stop producers, and run `foretell migrate --repartition`",
            shared.partitions
        );
        return Err(Error::fatal(OPERATION, detail));
    }
    let stored = retry(&shared.config, || shared.store.checkpoint(shared.generation, partition)).await?;
    let checkpoint = stored.unwrap_or(Checkpoint { next: 0, last: None });
    if committed.is_some_and(|committed| committed > checkpoint.next) {
        // The group's offset is written after the checkpoint, so it can only be ahead if the store lost a write.
        meter::store_forgot(F::FAMILY.name());
        tracing::error!(topic = %name, partition, checkpoint = checkpoint.next, committed,
            "the store has lost acknowledged writes; folding continues from its checkpoint, rows may be wrong");
    }
    retry(&shared.config, || check(shared.log.as_ref(), topic, partition, &checkpoint)).await?;
    Ok(checkpoint)
}

/// Validates that a checkpoint belongs to this log; Fatal if it does not.
pub async fn check(log: &dyn Log, topic: Topic, partition: u32, checkpoint: &Checkpoint) -> Result<(), Error> {
    const OPERATION: &str = "compare a checkpoint with the log";
    let name = topic.name();
    let extent = log.extent(topic, partition).await?;
    if checkpoint.next < extent.start {
        let detail = format!(
            "{name}/{partition} begins at {} and the checkpoint is {}: records were deleted before they were folded. \
             Set retention.ms=-1 and restore the topic's beginning: rows are the fold of all of it",
            extent.start, checkpoint.next
        );
        return Err(Error::fatal(OPERATION, detail));
    }
    let Some(stand) = checkpoint.last else { return Ok(()) };
    let there = record_at(log, topic, partition, stand.offset).await?;
    if there.is_none() && topic.is_compacted() {
        return Ok(());
    }
    if there.is_none_or(|record| record.digest() != stand.digest) {
        let detail = format!(
            "the record at {name}/{partition}/{} is not the one that the views were folded up to: the topic was \
             re-created or truncated. Restore it, or start with an empty store",
            stand.offset
        );
        return Err(Error::fatal(OPERATION, detail));
    }
    Ok(())
}

/// Folds the views of a generation until `shutdown`; every error that it returns is Fatal.
pub async fn run<F: Fold>(shared: Arc<Shared<F>>, tasks: Tasks, shutdown: CancellationToken) -> Result<(), Error> {
    let tasks = Arc::new(tasks);
    let mut restarts = Restarts::default();
    let longest = Duration::from_millis(shared.config.retry_ms_max.max(1));
    let mut pauses = Backoff::doubling(REJOIN_FIRST, longest).pauses();
    while !shutdown.is_cancelled() {
        let joined = tokio::time::Instant::now();
        match run_member(&shared, &tasks, &shutdown, &mut restarts).await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::Fatal => return Err(error),
            Err(error) => {
                // A membership that lasted this long has left earlier errors behind.
                if joined.elapsed() > Duration::from_millis(shared.config.retry_ms_max) {
                    pauses.reset();
                }
                let pause = pauses.pause();
                let pause_ms = pause.as_millis() as u64;
                tracing::warn!(family = F::FAMILY.name(), %error, pause_ms, "joining the group again");
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }
    Ok(())
}

/// One membership, from joining to leaving.
async fn run_member<F: Fold>(
    shared: &Arc<Shared<F>>,
    tasks: &Arc<Tasks>,
    shutdown: &CancellationToken,
    restarts: &mut Restarts,
) -> Result<(), Error> {
    let mut membership = shared.log.subscribe(&group(shared.generation), shared.topic()).await?;
    let leaving = shutdown.child_token();
    let mut pipelines = JoinSet::new();
    let ended = loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            Some(exit) = pipelines.join_next() => if let Err(error) = restarts.judge(F::FAMILY.name(), exit) {
                break Err(error);
            },
            assigned = membership.next() => match assigned {
                Ok(assigned) => {
                    let (shared, tasks) = (Arc::clone(shared), Arc::clone(tasks));
                    let leaving = leaving.clone();
                    pipelines.spawn(async move {
                        let partition = assigned.partition;
                        let exit = tokio::select! {
                            biased;
                            exit = run_partition(shared, assigned, leaving) => exit,
                            failed = task::run(&tasks, partition) => match failed { Err(error) => Err(error) },
                        };
                        (partition, exit)
                    });
                }
                Err(error) => break Err(error),
            },
        }
    };
    leaving.cancel();
    // A pipeline that waits for a dependency in the middle of a flush does not see the cancellation. It is aborted, as
    // by a crash, which loses nothing.
    let longest = Duration::from_millis(shared.config.drain_ms_max.saturating_add(CUT_OFF_MS));
    let drained = timeout(longest, async { while pipelines.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(
            family = F::FAMILY.name(),
            open = pipelines.len(),
            "aborted pipelines that did not drain in time"
        );
        pipelines.shutdown().await;
    }
    membership.leave().await;
    ended
}

async fn run_partition<F: Fold>(
    shared: Arc<Shared<F>>,
    assigned: Assigned,
    leaving: CancellationToken,
) -> Result<Exit, Error> {
    let Assigned { partition, committed, start, reader } = assigned;
    let checkpoint = tokio::select! {
        biased;
        () = leaving.cancelled() => return Ok(Exit::Revoked),
        checkpoint = resume(&shared, partition, committed) => checkpoint?,
    };
    tracing::debug!(topic = %shared.topic_name, partition, offset = checkpoint.next, "folding");
    if start.send(checkpoint.next).is_err() {
        return Ok(Exit::Revoked);
    }
    Pipeline::new(shared, partition, checkpoint, reader).run(leaving).await
}

/// The checkpoint at which each partition last had to start over.
#[derive(Default)]
struct Restarts(HashMap<u32, i64>);

impl Restarts {
    /// Returns an error if the membership must end. A second restart at one checkpoint is Fatal: the rows are ahead of
    /// every checkpoint in the store, which no healthy store shows.
    fn judge(
        &mut self,
        family: &'static str,
        exit: Result<(u32, Result<Exit, Error>), tokio::task::JoinError>,
    ) -> Result<(), Error> {
        const OPERATION: &str = "fold a partition";
        let (partition, exit) = exit.map_err(|panic| Error::fatal(OPERATION, panic))?;
        let exit = exit.map_err(|error| match error.kind {
            // A rejected operation is rejected again at every replay: waiting for it would stop the partition silently.
            Kind::Reject => Error::fatal(OPERATION, format!("{family} partition {partition}: {error}")),
            _ => error,
        });
        match exit? {
            Exit::Revoked => Ok(()),
            Exit::Restart(at) if self.0.insert(partition, at) == Some(at) => {
                let detail = format!(
                    "rows of {family} partition {partition} are ahead of the checkpoint {at}, twice: the store has \
                     lost a checkpoint. Rebuild its rows with `foretell rebuild {family}`"
                );
                Err(Error::fatal(OPERATION, detail))
            }
            Exit::Restart(at) => {
                meter::restarted(family);
                Err(Error::retry(OPERATION, format!("partition {partition} starts over from its checkpoint, was {at}")))
            }
        }
    }
}
