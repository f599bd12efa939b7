//! Announces reminders: takes a partition over, plans from rows and the time, appends what is missing.
//!
//! The reminders topic is the truth of what was sent. Whoever owns a partition of it fences the previous owner,
//! folds the partition into the `sent` view, and at every tick
//! 1. takes the end of the appointments partition and waits until its views have reached it, so that no
//!    cancellation already in the log is overlooked,
//! 2. waits until `sent` has reached the end of the reminders partition, its own last append included,
//! 3. finds candidates in the agenda and the announced, plans each from its rows, and appends what is missing.
//!
//! It does so only while its generation of the `sent` view serves: beside a rebuild there is one planner a partition.
//!
//! A tick that cannot catch up is put off; what expires meanwhile is dropped by the plan, and the story of its
//! appointment says so. Ids are
//! deterministic, so that even a reminder announced twice would be one.

pub mod assess;
pub mod plan;
pub mod policy;
mod scan;

use crate::clock::Clock;
use crate::event::codec::{encode_event, rfc3339, wall_clock};
use crate::event::reminder::{Announcement, Risk, Withdrawal};
use crate::event::{Envelope, Event, Fact, Topic, key};
use crate::log::{Error, Fenced, Kind, Log, NewRecord};
use crate::pipeline::keeper::Companion;
use crate::rows::Pointers;
use crate::store::{Family, Generation, Store};
use crate::telemetry::meter;
use crate::view::client::Client;
use async_trait::async_trait;
use plan::{Action, Announce};
use policy::Policy;
use scan::{Candidate, Scan};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The CloudEvents `source` of what Foretell announces.
pub const SOURCE: &str = "urn:foretell:reminders";

/// Longest pause before another look while a dependency is away.
const RETRY_MS_MAX: u64 = 5_000;

/// Extension attribute: the id of the event that a reminder or a withdrawal comes from.
const CAUSE: &str = "causationid";

/// When and how the planner works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Pause between two ticks.
    pub tick_ms: u64,
    /// How long a tick waits for the views to reach the end of the log before it is put off.
    pub catch_up_ms_max: u64,
    /// Clients planned at a time: at least so many rows are read together, and fewer than twice as many.
    pub clients_max: usize,
    /// Records appended at a time, all or none of them.
    pub records_max: usize,
    /// What is sent when.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self { tick_ms: 500, catch_up_ms_max: 5_000, clients_max: 200, records_max: 500, policy: Policy::default() }
    }
}

/// Says how likely a client is to miss a visit, from rows it reads itself; none where it cannot.
#[async_trait]
pub trait Assess: Send + Sync {
    /// The risk of an appointment of that client.
    async fn risk(&self, tenant: &str, client: &Client, appointment_id: &str) -> Option<Risk>;
}

/// What the planners of all partitions share.
pub struct Reminders {
    /// Where reminders are announced.
    pub log: Arc<dyn Log>,
    /// Where the rows are.
    pub store: Arc<dyn Store>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Which generations serve.
    pub pointers: Arc<Pointers>,
    /// The generation of the `sent` view that the owner folds.
    pub sent: Generation,
    /// Adds the risk to what is announced.
    pub assess: Arc<dyn Assess>,
    /// When and how.
    pub config: Config,
}

#[async_trait]
impl Companion for Reminders {
    async fn accompany(&self, partition: u32) -> Result<std::convert::Infallible, Error> {
        let mut planner = None;
        let mut pause_ms = self.config.tick_ms;
        loop {
            match self.turn(partition, &mut planner).await {
                Ok(Ticked::Done) => pause_ms = self.config.tick_ms,
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

/// What the last complete tick saw: nothing is due until one of these changes.
#[derive(Clone, Copy)]
struct Seen {
    appointments_end: i64,
    sent_end: i64,
    next_at_ms: i64,
}

/// How a tick went.
enum Ticked {
    /// Everything due is announced, or the tick was put off.
    Done,
    /// This owner cannot append any more.
    Fenced(Error),
}

/// What serves at a tick.
#[derive(Clone, Copy)]
struct Serving {
    appointments: Generation,
    sent: Generation,
}

struct Planner<'a> {
    shared: &'a Reminders,
    partition: u32,
    fenced: Box<dyn Fenced>,
    seen: Option<Seen>,
}

impl Planner<'_> {
    async fn tick(&mut self, serving: Serving) -> Result<Ticked, Error> {
        let shared = self.shared;
        let began = Instant::now();
        let appointments_end = shared.log.extent(Topic::Appointments, self.partition).await?.end;
        let sent_end = shared.log.extent(Topic::Reminders, self.partition).await?.end;
        let now_ms = shared.clock.now_ms();
        let unchanged = |seen: Seen| seen.appointments_end == appointments_end && seen.sent_end == sent_end;
        if self.seen.is_some_and(|seen| unchanged(seen) && now_ms < seen.next_at_ms) {
            return Ok(Ticked::Done);
        }
        for (generation, end) in [(serving.appointments, appointments_end), (serving.sent, sent_end)] {
            if !shared.reached(self.partition, generation, end, began).await? {
                tracing::warn!(self.partition, view = generation.family.name(), end, "put a tick off: views lag");
                return Ok(Ticked::Done);
            }
        }
        let mut next_at_ms = scan::next_hour_ms(now_ms);
        let mut appended = 0;
        let mut scan = Scan::new(shared, serving, self.partition, now_ms).await?;
        while let Some(candidates) = scan.next().await? {
            let (planned, next) = shared.plan(&candidates, now_ms).await;
            next_at_ms = next_at_ms.min(next.unwrap_or(i64::MAX));
            appended += planned.len();
            for batch in planned.chunks(shared.config.records_max.max(1)) {
                match self.fenced.append(batch.iter().map(|planned| planned.record.clone()).collect()).await {
                    Ok(_) => batch.iter().for_each(Planned::count),
                    Err(error) if error.kind == Kind::Fatal => return Ok(Ticked::Fenced(error)),
                    Err(error) => return Err(error),
                }
            }
        }
        // What was just appended is not yet in `sent`: the next tick waits for it.
        self.seen = (appended == 0).then_some(Seen { appointments_end, sent_end, next_at_ms });
        Ok(Ticked::Done)
    }
}

/// Something to append, and what it counts as once it is.
struct Planned {
    record: NewRecord,
    /// How long after it was due a reminder is announced; none for a withdrawal.
    delay_ms: Option<i64>,
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
                tracing::info!(partition, "planning reminders");
                planner.insert(Planner { shared: self, partition, fenced, seen: None })
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

    async fn plan(&self, candidates: &[Candidate], now_ms: i64) -> (Vec<Planned>, Option<i64>) {
        let mut planned = Vec::new();
        let mut next_at_ms: Option<i64> = None;
        for candidate in candidates {
            let plan = plan::client(&plan::Context {
                key: &key::of(&candidate.tenant, &candidate.client_id),
                client: &candidate.client,
                sent: &candidate.sent,
                policy: &self.config.policy,
                now_ms,
            });
            next_at_ms = [next_at_ms, plan.next_at_ms].into_iter().flatten().min();
            for action in plan.actions {
                planned.push(self.record(candidate, action, now_ms).await);
            }
        }
        (planned, next_at_ms)
    }

    async fn record(&self, candidate: &Candidate, action: Action, now_ms: i64) -> Planned {
        match action {
            Action::Announce(announce) => {
                let delay_ms = Some(now_ms - announce.due_at_ms);
                let id = &announce.appointment_id;
                let risk = self.assess.risk(&candidate.tenant, &candidate.client, id).await;
                Planned { record: announcement(candidate, announce, risk, now_ms), delay_ms }
            }
            Action::Withdraw { reminder_id, appointment_id, reason, caused_by } => {
                let client_id = candidate.client_id.clone();
                let withdrawal = Withdrawal { reminder_id, appointment_id, client_id, reason: reason.into() };
                let id = format!("{}-withdrawn", withdrawal.reminder_id);
                let fact = Fact::ReminderWithdrawn(withdrawal);
                let extensions: Vec<_> = caused_by.map(|id| (CAUSE.to_owned(), id)).into_iter().collect();
                let event = Event { envelope: envelope(candidate, id, now_ms), fact };
                Planned { record: encode_event(&event, &extensions), delay_ms: None }
            }
        }
    }
}

fn envelope(candidate: &Candidate, id: String, time_ms: i64) -> Envelope {
    Envelope { id, source: SOURCE.into(), tenant: candidate.tenant.clone(), time_ms }
}

fn announcement(candidate: &Candidate, announce: Announce, risk: Option<Risk>, now_ms: i64) -> NewRecord {
    let expires_at = rfc3339(announce.expires_at_ms);
    let extensions = [("expirytime".to_owned(), expires_at.clone()), (CAUSE.to_owned(), announce.caused_by)];
    let envelope = envelope(candidate, announce.reminder_id.clone(), now_ms);
    let fact = Fact::ReminderDue(Box::new(Announcement {
        reminder_id: announce.reminder_id,
        appointment_id: announce.appointment_id,
        client_id: candidate.client_id.clone(),
        starts_at: rfc3339(announce.start.at_ms),
        local_start: wall_clock(announce.start.local()),
        time_zone: announce.start.zone,
        step: announce.step,
        channels: announce.channels,
        template: announce.template,
        risk,
        visits: Vec::new(),
        expires_at,
    }));
    encode_event(&Event { envelope, fact }, &extensions)
}
