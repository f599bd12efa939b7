//! What the pipelines of a generation share: where facts come from, where rows go, and how a failed call is repeated.

use super::misplaced::Misplaced;
use super::tolerance::Shares;
use super::{Config, Memory};
use crate::rows::LiveRows;
use foretell_domain::address::{Generation, RowKey};
use foretell_domain::view::Fold;
use foretell_events::Topic;
use foretell_events::judge::Gate;
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::retry::{self, Backoff};
use foretell_ports::store::{Row, Store};
use foretell_telemetry::meter;
use std::sync::Arc;
use std::time::Duration;

/// The pause before a failed operation is retried for the first time.
const RETRY_FIRST: Duration = Duration::from_millis(10);

/// Which dead letters a pipeline writes. A record that is folded again was rejected before and already has its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterMode {
    /// All of them.
    All,
    /// Those of records that the other generation of the family has not reached yet: it wrote the earlier ones.
    Beyond(Generation),
    /// None: the rows are folded only for inspection.
    None,
}

/// What every pipeline of a generation shares.
pub struct Shared<F> {
    /// How events become rows.
    pub fold: F,
    /// The generation that the rows belong to.
    pub generation: Generation,
    /// Which dead letters are written.
    pub letters: DeadLetterMode,
    /// Which records are checked by the gate as well as by the codec.
    pub gate: Gate,
    /// Partition count of the topic, as stored.
    pub partitions: u32,
    /// Full name of the source topic, for dead letters.
    pub topic_name: String,
    /// Where dead letters go.
    pub log: Arc<dyn Log>,
    /// Where rows go.
    pub store: Arc<dyn Store>,
    /// How many of the generation's records are rejected.
    pub shares: Shares,
    /// Reports which partitioner put records into wrong partitions.
    pub misplaced: Arc<Misplaced>,
    /// Divides the memory among the partitions of the process.
    pub memory: Memory,
    /// The rows that answers of this process have in memory.
    pub live: Arc<LiveRows>,
    /// Bounds.
    pub config: Config,
}

impl<F: Fold> Shared<F> {
    /// The source topic.
    pub fn topic(&self) -> Topic {
        F::FAMILY.topic()
    }

    /// The lowest offset whose record gets a dead letter if it is rejected.
    pub(super) async fn letters_from(&self, partition: u32) -> Result<i64, Error> {
        match self.letters {
            DeadLetterMode::All => Ok(0),
            DeadLetterMode::Beyond(other) => {
                let passed = retry(&self.config, || self.store.checkpoint(other, partition)).await?;
                Ok(passed.map_or(0, |checkpoint| checkpoint.next))
            }
            DeadLetterMode::None => Ok(i64::MAX),
        }
    }

    pub(super) async fn read(&self, partition: u32, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        retry(&self.config, || self.store.read(self.generation, Some(partition), keys)).await
    }
}

/// Runs an operation until it succeeds or fails for good: after an error of kind Retry it waits, longer each time, and
/// tries again.
pub async fn retry<T, Fut>(config: &Config, operation: impl FnMut() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    let longest = Duration::from_millis(config.retry_ms_max.max(1));
    let notify = |error: &Error, pause: Duration| {
        tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "waiting for a dependency");
        meter::retried(error.operation);
    };
    retry::retry(Backoff::doubling(RETRY_FIRST, longest), notify, operation).await
}
