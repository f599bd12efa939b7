//! Announces reminders: takes a partition over, plans from rows and the time, appends what is missing.
//!
//! The reminders topic is the truth of what was sent. Whoever owns a partition of it fences the previous owner,
//! folds the partition into the `sent` view, and at every tick
//! 1. takes the ends of the appointments partition and of the policies, and waits until their views have reached them,
//!    so that no cancellation and no edit already in the log is overlooked,
//! 2. waits until `sent` has reached the end of the reminders partition, its own last append included,
//! 3. finds whom there is a reason to look at ([`planner`]), plans each from their rows, and appends what is missing.
//!
//! It does so only while its generation of the `sent` view serves: beside a rebuild there is one planner a partition.
//!
//! A tick that cannot catch up is put off; what expires meanwhile is dropped by the plan, and the story of its
//! appointment says so. Ids are
//! deterministic, so that even a reminder announced twice would be one.

pub mod assess;
mod planner;
mod scan;
mod tenants;

use crate::policies::InForce;
use async_trait::async_trait;
use foretell_domain::address::{Family, Generation};
use foretell_domain::remind::plan::{self, Action};
use foretell_domain::remind::{announce, policy::Policy};
use foretell_domain::view::client::Client;
use foretell_engine::pipeline::task::PartitionTask;
use foretell_engine::rows::Pointers;
use foretell_events::Topic;
use foretell_events::codec::encode_event;
use foretell_events::record::NewRecord;
use foretell_events::reminder::Risk;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use foretell_ports::{Error, Kind};
use foretell_telemetry::{meter, trace};
use opentelemetry::Context;
use planner::Planner;
use scan::Candidate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::Span;

/// The CloudEvents `source` of what Foretell announces.
pub const SOURCE: &str = foretell_events::gate::REMINDERS_SOURCE;

/// Longest pause before another look while a dependency is away.
const RETRY_MS_MAX: u64 = 5_000;

/// When and how the planner works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Pause between two ticks.
    #[serde(skip)]
    pub tick_ms: u64,
    /// How long a tick waits for the views to reach the end of the log before it is put off.
    #[serde(skip)]
    pub catch_up_ms_max: u64,
    /// Clients whose rows are read together.
    #[serde(skip)]
    pub clients_max: usize,
    /// Clients planned by what one tick has seen; for further ones it looks again at once.
    #[serde(skip)]
    pub tick_clients_max: usize,
    /// Records appended at a time, all or none of them.
    #[serde(skip)]
    pub records_max: usize,
    /// What is sent when, for tenants that have published nothing.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tick_ms: 500,
            catch_up_ms_max: 5_000,
            clients_max: 200,
            tick_clients_max: 2_000,
            records_max: 500,
            policy: Policy::default(),
        }
    }
}

/// Says how likely a client is to miss their visits, from rows it reads itself.
#[async_trait]
pub trait Assess: Send + Sync {
    /// The risks of those open visits that start after `now_ms`, by appointment; none where it cannot say.
    async fn risks(&self, tenant: &str, client: &Client, now_ms: i64) -> BTreeMap<String, Risk>;
}

/// What the planners of all partitions share.
pub struct Reminders {
    /// Where reminders are announced.
    pub log: Arc<dyn Log>,
    /// Full name of the topic of reminders.
    pub topic_name: String,
    /// Where the rows are.
    pub store: Arc<dyn Store>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Which generations serve.
    pub pointers: Arc<Pointers>,
    /// The generation of the `sent` view that the owner folds.
    pub sent: Generation,
    /// Says for whom steps of a level are, and adds the risk to what is announced.
    pub assess: Arc<dyn Assess>,
    /// What tenants have decided.
    pub policies: Arc<InForce<Policy>>,
    /// When and how.
    pub config: Config,
}

#[async_trait]
impl PartitionTask for Reminders {
    async fn run(&self, partition: u32) -> Result<std::convert::Infallible, Error> {
        let mut planner = None;
        let mut pause_ms = self.config.tick_ms;
        loop {
            match self.turn(partition, &mut planner).await {
                Ok(Ticked::Done) => pause_ms = self.config.tick_ms,
                Ok(Ticked::More) => {
                    pause_ms = self.config.tick_ms;
                    continue;
                }
                // Somebody has taken over, or nobody knows what became of the append: take over anew, and read what
                // is there.
                Ok(Ticked::Fenced(error)) => return Err(Error { kind: Kind::Retry, ..error }),
                // What was appended is on the topic, and the next tick waits until `sent` knows of it.
                Err(error) if error.kind == Kind::Retry => {
                    meter::retried(error.operation);
                    pause_ms = (pause_ms * 2).min(RETRY_MS_MAX.max(self.config.tick_ms));
                    tracing::warn!(partition, %error, pause_ms, "a tick failed; looking again");
                }
                Err(error) => return Err(error),
            }
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}

/// How a tick went.
enum Ticked {
    /// Everything due is announced, or the tick was put off.
    Done,
    /// There are more clients to look at.
    More,
    /// This owner cannot append any more.
    Fenced(Error),
}

/// What serves at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Serving {
    appointments: Generation,
    sent: Generation,
}

/// Something to append, and what it counts as once it is.
struct Planned {
    record: NewRecord,
    /// How long after it was due a reminder is announced; none for a withdrawal.
    delay_ms: Option<i64>,
    /// Whether somebody asked for it by hand.
    is_asked: bool,
    event_id: String,
    /// Ends when it is appended.
    span: Span,
}

impl Planned {
    fn count(&self) {
        match self.delay_ms {
            Some(delay_ms) => {
                meter::reminded("sent");
                meter::reminder_delay(delay_ms);
            }
            None => meter::reminded("withdrawn"),
        }
    }
}

impl Reminders {
    /// One tick, by a planner that takes the partition over when the generation begins to serve.
    async fn turn<'a>(&'a self, partition: u32, planner: &mut Option<Planner<'a>>) -> Result<Ticked, Error> {
        let sent = self.pointers.generation(Family::Reminders).await?;
        if sent != self.sent {
            *planner = None;
            return Ok(Ticked::Done);
        }
        let appointments = self.pointers.generation(Family::Appointments).await?;
        let planner = match planner {
            Some(planner) => planner,
            None => {
                let fenced = self.log.fence(Topic::Reminders, partition).await?;
                tracing::debug!(partition, "planning reminders");
                planner.insert(Planner::new(self, partition, fenced))
            }
        };
        planner.tick(Serving { appointments, sent }).await
    }

    /// Waits until the views of a family contain everything below `end`; answers whether they do in time.
    async fn reached(&self, partition: u32, generation: Generation, end: i64, began: Instant) -> Result<bool, Error> {
        let longest = Duration::from_millis(self.config.catch_up_ms_max);
        loop {
            let checkpoint = self.store.checkpoint(generation, partition).await?;
            if checkpoint.is_some_and(|checkpoint| checkpoint.next >= end) || end == 0 {
                return Ok(true);
            }
            if began.elapsed() > longest {
                return Ok(false);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Planned {
    fn of(candidate: &Candidate, action: Action, now_ms: i64) -> Self {
        let delay_ms = match &action {
            Action::Announce(announce) => Some(now_ms - announce.due_at_ms),
            Action::Withdraw { .. } => None,
        };
        let is_asked = matches!(&action, Action::Announce(announce) if announce.step == plan::MANUAL);
        let (event, extensions) = announce::said(&candidate.tenant, &candidate.client_id, action, now_ms);
        let record = encode_event(&event, &extensions);
        Self { record, delay_ms, is_asked, event_id: event.envelope.id, span: Span::none() }
    }

    /// The same, with the trace that it belongs to.
    fn traced(mut self, shared: &Reminders, cause: Context) -> Self {
        let (log, headers) = (shared.log.as_ref(), &mut self.record.headers);
        self.span =
            trace::announcing(log.system(), &shared.topic_name, (cause, self.is_asked), &self.event_id, headers);
        self
    }
}
