//! The planner of one partition: which clients a tick evaluates, and what it announces.
//!
//! A client is evaluated when a record about them was appended, when their next planned time has come, and when the
//! hour of one of their visits comes into range. All clients are evaluated when a partition is acquired, when another
//! generation of the views begins to serve, and when a tenant's policy changes. The cost of a tick is therefore
//! proportional to what has changed, not to what is planned.

use super::scan::{self, Candidate, Scan, Span};
use super::tenants::{self, Tenants};
use super::{Planned, ReminderTask, Serving, TickOutcome};
use foretell_domain::address::Family;
use foretell_domain::remind::plan::{self, ReminderStatus};
use foretell_domain::remind::schedule::Schedule;
use foretell_events::Topic;
use foretell_events::time::HOUR_MS;
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{Extent, Fenced};
use foretell_ports::{Error, Kind};
use foretell_telemetry::{meter, trace};
use opentelemetry::Context;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// If more records than this have been appended, the planner does not read which clients they are about, and evaluates
/// all of them.
const CHANGED_RECORDS_MAX: i64 = 100_000;

/// Offsets at the end of a topic among which a record is searched: some are transaction markers.
const LAST_OFFSETS: i64 = 64;

/// The ends of the topics that a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    appointments: i64,
    sent: i64,
    policies: i64,
}

/// The state that is kept in memory between ticks.
#[derive(Clone, Copy)]
struct LastTick {
    serving: Serving,
    ends: Ends,
    /// Visits that start before this time are in the schedule.
    reach_ms: i64,
}

/// Why a client is evaluated.
#[derive(Clone, Copy)]
enum Cause {
    /// Their planned time has come: this one.
    Due(i64),
    /// Something may have changed.
    Changed,
    /// They have not been evaluated since the previous planner stopped, which made its last announcement at this time.
    Acquired(i64),
}

/// The planner of one partition.
pub(super) struct Planner<'a> {
    shared: &'a ReminderTask,
    partition: u32,
    fenced: Box<dyn Fenced>,
    tenants: Tenants,
    schedule: Schedule,
    /// Clients to evaluate regardless of the time.
    pending: BTreeSet<String>,
    /// Finds further ones.
    scan: Option<Scan>,
    /// Whether all clients have been evaluated since the partition was acquired.
    is_settled: bool,
    /// When the previous planner made its last announcement, as far as the end of the topic shows; none: not read.
    silent_since_ms: Option<i64>,
    /// The traces of what was appended about visits.
    traces: trace::Known,
    /// None: nothing in memory can be used.
    seen: Option<LastTick>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(shared: &'a ReminderTask, partition: u32, fenced: Box<dyn Fenced>) -> Self {
        Self {
            shared,
            partition,
            fenced,
            tenants: Tenants::default(),
            schedule: Schedule::default(),
            pending: BTreeSet::new(),
            scan: None,
            is_settled: false,
            silent_since_ms: None,
            traces: trace::Known::default(),
            seen: None,
        }
    }

    /// Evaluates the clients that have to be evaluated, and announces and withdraws what is due.
    pub(super) async fn tick(&mut self, serving: Serving) -> Result<TickOutcome, Error> {
        let ticked = self.work(serving).await;
        if ticked.is_err() {
            // The changes in memory may be incomplete: evaluate all clients again.
            self.seen = None;
        }
        ticked
    }

    async fn work(&mut self, serving: Serving) -> Result<TickOutcome, Error> {
        let began = Instant::now();
        let ends = self.ends().await?;
        let now_ms = self.shared.clock.now_ms();
        let seen = self.seen.filter(|seen| seen.serving == serving);
        if seen.is_some_and(|seen| seen.ends == ends && !self.has_work(seen, now_ms)) {
            return Ok(TickOutcome::Done);
        }
        if !self.reached(serving, ends, began).await? {
            return Ok(TickOutcome::Done);
        }
        self.collect(serving, seen, ends, now_ms).await?;
        let keys = self.next_clients(now_ms).await?;
        let (planned, due) = self.plan(serving, keys, now_ms).await?;
        if let Some(fenced) = self.append(planned).await? {
            return Ok(TickOutcome::Fenced(fenced));
        }
        due.into_iter().for_each(|(key, at_ms)| self.schedule.set(&key, at_ms));
        let is_more = !self.pending.is_empty() || self.scan.is_some() || self.schedule.is_due(now_ms);
        self.is_settled |= !is_more;
        Ok(if is_more { TickOutcome::More } else { TickOutcome::Done })
    }

    async fn ends(&mut self) -> Result<Ends, Error> {
        let log = &self.shared.log;
        Ok(Ends {
            appointments: log.extent(Topic::Appointments, self.partition).await?.end,
            sent: log.extent(Topic::Reminders, self.partition).await?.end,
            policies: log.extent(Topic::Policies, tenants::PARTITION).await?.end,
        })
    }

    fn has_work(&self, seen: LastTick, now_ms: i64) -> bool {
        let is_farther = self.reach_ms(now_ms) > seen.reach_ms;
        is_farther || !self.pending.is_empty() || self.scan.is_some() || self.schedule.is_due(now_ms)
    }

    /// Visits that start before this time may have a reminder due before the hour is over.
    fn reach_ms(&self, now_ms: i64) -> i64 {
        let next_hour_ms = (now_ms.div_euclid(HOUR_MS) + 1) * HOUR_MS;
        next_hour_ms + self.tenants.longest_ms(&self.shared.config.policy)
    }

    /// Waits until all views contain everything below the ends; returns whether they do in time.
    ///
    /// This includes ends that have not moved: a generation that no longer serves is dropped with its checkpoint, and a
    /// planner that has not noticed must not mistake it for a generation without any announcements.
    async fn reached(&mut self, serving: Serving, ends: Ends, began: Instant) -> Result<bool, Error> {
        let (shared, partition) = (self.shared, self.partition);
        let mut views =
            vec![(serving.appointments, partition, ends.appointments), (serving.sent, partition, ends.sent)];
        if ends.policies > 0 {
            let generation = shared.pointers.generation(Family::Policies).await?;
            views.push((generation, tenants::PARTITION, ends.policies));
        }
        for (generation, of, end) in views {
            if !shared.reached(of, generation, end, began).await? {
                tracing::warn!(
                    partition,
                    view = generation.family.name(),
                    end,
                    "reminder tick deferred: views are behind"
                );
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds the clients that have to be evaluated since the last tick.
    async fn collect(
        &mut self,
        serving: Serving,
        seen: Option<LastTick>,
        ends: Ends,
        now_ms: i64,
    ) -> Result<(), Error> {
        let policies = Extent { start: seen.map_or(0, |seen| seen.ends.policies), end: ends.policies };
        let is_edited = self.read_policies(policies).await?;
        let reach_ms = self.reach_ms(now_ms);
        let changed = seen.filter(|_| !is_edited).filter(|seen| {
            let (visits, sent) = (ends.appointments - seen.ends.appointments, ends.sent - seen.ends.sent);
            visits.max(sent) <= CHANGED_RECORDS_MAX
        });
        let Some(seen) = changed else {
            if self.silent_since_ms.is_none() {
                self.silent_since_ms = Some(last_announced_ms(self.shared, self.partition, ends.sent).await?);
            }
            (self.schedule, self.pending) = (Schedule::default(), BTreeSet::new());
            let span = Span { from_ms: now_ms, to_ms: reach_ms };
            let mut scan = Scan::everything(self.shared, serving, self.partition, span).await?;
            if self.tenants.confirm_bookings(&self.shared.config.policy) {
                scan = scan.and_farther(self.shared, serving, self.partition, reach_ms).await?;
            }
            self.scan = Some(scan);
            self.seen = Some(LastTick { serving, ends, reach_ms });
            return Ok(());
        };
        self.changed(Topic::Appointments, seen.ends.appointments, ends.appointments).await?;
        self.changed(Topic::Reminders, seen.ends.sent, ends.sent).await?;
        if reach_ms > seen.reach_ms {
            let mut hours = Scan::of_starts(serving, self.partition, Span { from_ms: seen.reach_ms, to_ms: reach_ms });
            while let Some(keys) = hours.next(self.shared).await? {
                self.pending.extend(keys);
            }
        }
        self.seen = Some(LastTick { serving, ends, reach_ms });
        Ok(())
    }

    async fn read_policies(&mut self, mut span: Extent) -> Result<bool, Error> {
        if span.start >= span.end {
            return Ok(false);
        }
        let log = self.shared.log.as_ref();
        span.start = span.start.max(log.extent(Topic::Policies, tenants::PARTITION).await?.start);
        self.tenants.read(log, &self.shared.policies, span).await
    }

    /// Adds the clients that the records of a topic from `start` to `end` are about.
    async fn changed(&mut self, topic: Topic, start: i64, end: i64) -> Result<(), Error> {
        let log = self.shared.log.as_ref();
        let mut walk = Walk::begin(log, topic, self.partition, Extent { start, end }, "read what has changed").await?;
        while let Some(records) = walk.next().await? {
            if topic == Topic::Appointments {
                records.iter().for_each(|record| self.traces.note(&record.headers));
            }
            let keys = records.iter().filter_map(|record| std::str::from_utf8(record.key.as_deref()?).ok());
            self.pending.extend(keys.map(str::to_owned));
        }
        Ok(())
    }

    /// The clients of this tick: first those whose planned time has come, then the others.
    async fn next_clients(&mut self, now_ms: i64) -> Result<BTreeMap<String, Cause>, Error> {
        let clients_max = self.shared.config.tick_clients_max.max(1);
        let due = self.schedule.due(now_ms, clients_max);
        let mut keys: BTreeMap<_, _> = due.map(|(at_ms, key)| (key.to_string(), Cause::Due(*at_ms))).collect();
        while keys.len() < clients_max {
            if let Some(key) = self.pending.pop_first() {
                let since_ms = self.silent_since_ms.unwrap_or(i64::MIN);
                let cause = if self.is_settled { Cause::Changed } else { Cause::Acquired(since_ms) };
                keys.entry(key).or_insert(cause);
                continue;
            }
            let Some(scan) = &mut self.scan else { break };
            match scan.next(self.shared).await? {
                Some(found) => self.pending.extend(found),
                None => self.scan = None,
            }
        }
        Ok(keys)
    }

    /// Plans clients; returns what to append, and when to evaluate each of them again.
    async fn plan(
        &mut self,
        serving: Serving,
        keys: BTreeMap<String, Cause>,
        now_ms: i64,
    ) -> Result<(Vec<Planned>, Vec<(String, Option<i64>)>), Error> {
        let (mut planned, mut due) = (Vec::new(), Vec::with_capacity(keys.len()));
        let mut causes = keys.values().copied().collect::<Vec<_>>().into_iter();
        let keys: Vec<_> = keys.into_keys().collect();
        for keys in keys.chunks(self.shared.config.clients_max.max(1)) {
            let candidates = scan::candidates(self.shared, serving, self.partition, keys.to_vec()).await?;
            for (candidate, cause) in candidates.into_iter().zip(&mut causes) {
                let plan = self.plan_one(&candidate, now_ms).await;
                plan.unsent.iter().for_each(|step| count(step, cause));
                planned.extend(plan.actions.into_iter().map(|action| {
                    let cause = action.caused_by().map_or_else(Context::new, |id| self.traces.of(id));
                    Planned::of(&candidate, action, now_ms).traced(self.shared, &cause)
                }));
                due.push((candidate.key, plan.next_at_ms));
            }
        }
        Ok((planned, due))
    }

    async fn plan_one(&mut self, candidate: &Candidate, now_ms: i64) -> plan::Plan {
        let Candidate { key, tenant, client, sent, .. } = candidate;
        let risks = self.shared.assess.risks(tenant, client, now_ms).await;
        let policy = self.tenants.policy(&self.shared.config.policy, tenant);
        plan::client(&plan::PlanContext { key, client, sent, policy, risks: &risks, now_ms })
    }

    /// Appends what was planned; returns the error if this owner can no longer append.
    async fn append(&mut self, planned: Vec<Planned>) -> Result<Option<Error>, Error> {
        for batch in planned.chunks(self.shared.config.records_max.max(1)) {
            match self.fenced.append(batch.iter().map(|planned| planned.record.clone()).collect()).await {
                Ok(_) => batch.iter().for_each(Planned::count),
                Err(error) if error.kind == Kind::Fatal => return Ok(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The time of the latest record below `end` in the partition of reminders; `i64::MIN` if its end contains none.
async fn last_announced_ms(shared: &ReminderTask, partition: u32, end: i64) -> Result<i64, Error> {
    let (log, operation) = (shared.log.as_ref(), "read what was announced last");
    let start = log.extent(Topic::Reminders, partition).await?.start.max(end - LAST_OFFSETS);
    let mut walk = Walk::begin(log, Topic::Reminders, partition, Extent { start, end }, operation).await?;
    let mut last_ms = i64::MIN;
    while let Some(records) = walk.next().await? {
        last_ms = records.last().map_or(last_ms, |record| record.timestamp_ms);
    }
    Ok(last_ms)
}

/// Counts a step that was due and is not sent, if it has to be counted in this evaluation.
fn count(step: &plan::UnsentStep, cause: Cause) {
    let reason = step.reason.as_deref().unwrap_or_default();
    if is_counted(step, cause) {
        meter::unsent(step.status.name(), reason);
        tracing::debug!(status = step.status.name(), reason, due_at_ms = step.due_at_ms, "a reminder is not sent");
    }
}

/// A step is counted at its due time; a step that expired while no planner ran is counted by the next owner.
fn is_counted(step: &plan::UnsentStep, cause: Cause) -> bool {
    match cause {
        Cause::Due(at_ms) => step.due_at_ms >= at_ms,
        Cause::Acquired(since_ms) => step.status == ReminderStatus::Failed && step.due_at_ms > since_ms,
        Cause::Changed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_sent_is_told_once() {
        let step = |due_at_ms, status| plan::UnsentStep {
            appointment_id: "a".into(),
            step: "24h".into(),
            due_at_ms,
            status,
            reason: None,
        };
        for (due_at_ms, status, cause, told) in [
            (9, ReminderStatus::Suppressed, Cause::Due(9), true),
            (8, ReminderStatus::Suppressed, Cause::Due(9), false),
            (9, ReminderStatus::Suppressed, Cause::Changed, false),
            (9, ReminderStatus::Failed, Cause::Acquired(8), true),
            (9, ReminderStatus::Failed, Cause::Acquired(i64::MIN), true),
            (8, ReminderStatus::Failed, Cause::Acquired(8), false),
            (9, ReminderStatus::Deferred, Cause::Acquired(8), false),
        ] {
            assert_eq!(is_counted(&step(due_at_ms, status), cause), told, "{due_at_ms} {status:?}");
        }
    }
}
