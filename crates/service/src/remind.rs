//! Announces reminders: acquires a partition, plans from rows and the current time, and appends what is missing.
//!
//! The reminders topic is the source of truth for what was sent. The owner of a partition fences the previous owner,
//! folds the partition into the `sent` view, and at every tick
//! 1. reads the ends of the appointments partition and of the policies, and waits until their views have reached them,
//!    so that no cancellation and no edit already in the log is overlooked,
//! 2. waits until `sent` has reached the end of the reminders partition, its own last append included,
//! 3. finds the clients that have to be evaluated ([`planner`]), plans each from their rows, and appends what is
//!    missing.
//!
//! It does so only while its generation of the `sent` view serves, so a partition has one planner even during a
//! rebuild.
//!
//! A tick whose views cannot catch up in time is deferred. Reminders that expire meanwhile are dropped by the plan, and
//! the history of the appointment shows that. Ids are deterministic, so even a reminder that was announced twice would
//! count as one.

pub mod assess;
mod planner;
mod scan;
mod tenants;

use crate::policies::InForce;
use async_trait::async_trait;
use foretell_domain::address::{Family, Generation};
use foretell_domain::remind::plan::{self, ReminderAction, ReminderStatus};
use foretell_domain::remind::{announce, policy::ReminderPolicy};
use foretell_domain::view::client::Client;
use foretell_engine::pipeline::task::PartitionTask;
use foretell_engine::rows::Pointers;
use foretell_events::Topic;
use foretell_events::codec::encode_event;
use foretell_events::record::NewRecord;
use foretell_events::reminder::Risk;
use foretell_ports::clock::Clock;
use foretell_ports::component::{Component, InvalidSetting};
use foretell_ports::log::Log;
use foretell_ports::retry::Backoff;
use foretell_ports::store::Store;
use foretell_ports::{Error, Kind};
use foretell_telemetry::{REMINDER_DELAY_SECONDS, REMINDERS, REMINDERS_UNSENT, meter, trace};
use metrics::{counter, histogram};
use opentelemetry::Context;
use planner::Planner;
use scan::Candidate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::Span;

/// Longest pause before a retry while a dependency is unavailable.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// When and how the planner works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Pause between two ticks.
    #[serde(skip)]
    pub tick_ms: u64,
    /// How long a tick waits for the views to reach the end of the log before it is deferred.
    #[serde(skip)]
    pub catch_up_ms_max: u64,
    /// Clients whose rows are read together.
    #[serde(skip)]
    pub clients_max: usize,
    /// Clients planned per tick, from one state of the views; for further ones the next tick follows at once.
    #[serde(skip)]
    pub tick_clients_max: usize,
    /// Records per append, which succeeds or fails as a whole.
    #[serde(skip)]
    pub records_max: usize,
    /// The reminder policy of tenants that have published none.
    pub policy: ReminderPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tick_ms: 500,
            catch_up_ms_max: 5_000,
            clients_max: 200,
            tick_clients_max: 2_000,
            records_max: 500,
            policy: ReminderPolicy::default(),
        }
    }
}

/// Why a due reminder is not sent, by status.
const UNSENT: [(ReminderStatus, &[&str]); 3] = [
    (ReminderStatus::Failed, &["expired", "delivery_failed"]),
    (ReminderStatus::Deferred, &["quiet_hours", "frequency_cap", "grouped"]),
    (
        ReminderStatus::Suppressed,
        &[
            "cancelled",
            "attended",
            "missed",
            "deleted",
            "booked_after_step",
            "confirmed",
            "no_consented_channel",
            "minimum_notice",
            "quiet_hours",
            "frequency_cap",
            "unknown_appointment",
        ],
    ),
];

impl Component for Config {
    fn section(&self) -> &'static str {
        "reminders"
    }

    fn validate(&self) -> Result<(), InvalidSetting> {
        let invalid = |error: foretell_events::policy::Invalid| {
            InvalidSetting::new(format!("policy{}", error.pointer.replace('/', ".")), error.detail)
        };
        self.policy.validate().map_err(invalid)
    }

    fn register_metrics(&self) {
        for status in [ReminderStatus::Sent, ReminderStatus::Withdrawn] {
            counter!(REMINDERS, "status" => status.name()).increment(0);
        }
        for (status, reasons) in UNSENT {
            for reason in reasons {
                counter!(REMINDERS_UNSENT, "status" => status.name(), "reason" => *reason).increment(0);
            }
        }
        drop(histogram!(REMINDER_DELAY_SECONDS));
    }
}

/// Estimates how likely a client is to miss their visits, from rows that it reads itself.
#[async_trait]
pub trait Assess: Send + Sync {
    /// The risks of the open visits that start after `now_ms`, by appointment; empty if they cannot be computed.
    async fn risks(&self, tenant: &str, client: &Client, now_ms: i64) -> BTreeMap<String, Risk>;
}

/// What the planners of all partitions share.
pub struct ReminderTask {
    /// Where reminders are announced.
    pub log: Arc<dyn Log>,
    /// Full name of the topic of reminders.
    pub topic_name: String,
    /// Where the rows are stored.
    pub store: Arc<dyn Store>,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// Which generations serve.
    pub pointers: Arc<Pointers>,
    /// The generation of the `sent` view that the owner folds.
    pub sent: Generation,
    /// Provides the risk, which determines who gets a step with a level and is included in announcements.
    pub assess: Arc<dyn Assess>,
    /// The policies that tenants have published.
    pub policies: Arc<InForce<ReminderPolicy>>,
    /// Settings of the planner.
    pub config: Config,
}

#[async_trait]
impl PartitionTask for ReminderTask {
    async fn run(&self, partition: u32) -> Result<std::convert::Infallible, Error> {
        let mut planner = None;
        let tick = Duration::from_millis(self.config.tick_ms);
        let longest = tick.max(RETRY_MAX);
        let mut pauses = Backoff::doubling((tick * 2).min(longest), longest).pauses();
        loop {
            let turn = self.turn(partition, &mut planner).await;
            if turn.is_ok() {
                pauses.reset();
            }
            let pause = match turn {
                Ok(TickOutcome::Done) => tick,
                Ok(TickOutcome::More) => continue,
                // Another owner has fenced this one, or the result of the append is unknown: acquire the partition
                // again and read what it contains.
                Ok(TickOutcome::Fenced(error)) => return Err(Error { kind: Kind::Retry, ..error }),
                // What was appended is in the topic, and the next tick waits until `sent` contains it.
                Err(error) if error.kind == Kind::Retry => {
                    meter::retried(error.operation);
                    let pause = pauses.pause();
                    let pause_ms = pause.as_millis() as u64;
                    tracing::warn!(partition, %error, pause_ms, "a reminder tick failed; retrying");
                    pause
                }
                Err(error) => return Err(error),
            };
            sleep(pause).await;
        }
    }
}

/// The result of a tick.
enum TickOutcome {
    /// Everything due is announced, or the tick was deferred.
    Done,
    /// More clients have to be evaluated.
    More,
    /// This owner cannot append any more.
    Fenced(Error),
}

/// The generations that serve at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Serving {
    appointments: Generation,
    sent: Generation,
}

/// A record to append, and what it counts as in metrics.
struct Planned {
    record: NewRecord,
    /// How long after its due time a reminder is announced; none for a withdrawal.
    delay_ms: Option<i64>,
    /// Whether it was requested on demand.
    is_on_demand: bool,
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

impl ReminderTask {
    /// One tick. The planner acquires the partition when its generation begins to serve.
    async fn turn<'a>(&'a self, partition: u32, planner: &mut Option<Planner<'a>>) -> Result<TickOutcome, Error> {
        let sent = self.pointers.generation(Family::Reminders).await?;
        if sent != self.sent {
            *planner = None;
            return Ok(TickOutcome::Done);
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

    /// Waits until the views of a family contain everything below `end`; returns whether they do in time.
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
    fn of(candidate: &Candidate, action: ReminderAction, now_ms: i64) -> Self {
        let delay_ms = match &action {
            ReminderAction::Announce(announce) => Some(now_ms - announce.due_at_ms),
            ReminderAction::Withdraw { .. } => None,
        };
        let is_on_demand = matches!(&action, ReminderAction::Announce(announce) if announce.step == plan::MANUAL);
        let (event, extensions) = announce::event_of(&candidate.tenant, &candidate.client_id, action, now_ms);
        let record = encode_event(&event, &extensions);
        Self { record, delay_ms, is_on_demand, event_id: event.envelope.id, span: Span::none() }
    }

    /// The same, with the trace that it belongs to.
    fn traced(mut self, shared: &ReminderTask, cause: &Context) -> Self {
        let (log, headers) = (shared.log.as_ref(), &mut self.record.headers);
        self.span =
            trace::announcing(log.system(), &shared.topic_name, cause, self.is_on_demand, &self.event_id, headers);
        self
    }
}
