//! The state of each reminder of a client: the rules of the plan, by visit and step.

use super::timing::slot;
use super::{Announce, GroupedVisit, PlanContext, PlannedReminder, ReminderStatus, SentReceipt, is_void};
use crate::remind::policy::ReminderStep;
use crate::view::client::{self, Appointment, Received, Start};
use crate::view::sent::Announced;
use foretell_events::appointment::Channel;
use foretell_events::codec::bounds::VISITS_MAX;
use foretell_events::codec::wall_clock;
use foretell_events::reminder;
use foretell_events::time::MINUTE_MS;

/// Time until the next evaluation of a visit whose risk was unknown when a step needed it.
const UNKNOWN_RISK_MS: i64 = MINUTE_MS;

/// Everything that is planned for a client, and the state of what was announced.
#[derive(Default)]
pub(super) struct PlannedSteps {
    pub(super) steps: Vec<PlannedStep>,
    /// When to evaluate the steps for risk levels again that do not apply to a visit now: by then the level may have
    /// changed, or be known.
    pub(super) recheck_ms: Vec<i64>,
    /// Announcements among the steps.
    announced: u32,
}

/// A reminder and, where it is due now, what to announce.
pub(super) struct PlannedStep {
    pub(super) appointment_id: String,
    /// Whether the visit is still expected to take place, according to the events so far.
    pub(super) is_open: bool,
    /// When it is due, even if it is deferred.
    pub(super) due_at_ms: i64,
    pub(super) reminder: PlannedReminder,
    pub(super) announce: Option<Announce>,
}

/// A visit with a start.
#[derive(Clone, Copy)]
struct Placed<'a> {
    id: &'a str,
    visit: &'a Appointment,
    start: &'a Start,
}

/// A reminder that may be announced, now or later.
struct Candidate<'a> {
    placed: Placed<'a>,
    reminder_id: String,
    due_at_ms: i64,
    /// Do not send after it.
    expires_at_ms: i64,
    /// Do not announce it from this time on.
    latest_ms: i64,
    channels: Vec<Channel>,
    /// Other visits that it names, if that is already decided.
    others: Vec<GroupedVisit>,
    caused_by: &'a str,
}

/// The state of a step of a visit.
enum StepStatus<'a> {
    /// It does not apply to the visit.
    NotApplicable,
    /// Its state is final.
    Final(PlannedReminder),
    /// It is grouped with the others of its day.
    Open(Candidate<'a>),
    /// It is announced again, for the visits of the undelivered announcement.
    Again(Candidate<'a>),
}

/// The state of every step of a client's visits.
pub(super) fn all<'a>(context: &PlanContext<'a>) -> PlannedSteps {
    let mut all = PlannedSteps::default();
    let placed = |(id, visit): (_, &'a Appointment)| Some(Placed { id, visit, start: visit.start.as_ref()? });
    let mut visits: Vec<_> = context.client.visits().filter_map(placed).collect();
    visits.sort_by_key(|placed| (placed.start.at_ms, placed.id));
    for rule in &context.policy.steps {
        all.take(context, rule, &visits);
    }
    all
}

impl PlannedSteps {
    /// Adds a step of all visits.
    fn take(&mut self, context: &PlanContext<'_>, rule: &ReminderStep, visits: &[Placed<'_>]) {
        let mut days: Vec<Vec<Candidate<'_>>> = Vec::new();
        for placed in visits {
            match step_status(context, rule, *placed) {
                StepStatus::Final(reminder) => self.push_final(*placed, reminder.due_at_ms, reminder),
                StepStatus::Again(candidate) => self.resolve(context, rule, vec![candidate]),
                StepStatus::NotApplicable => {
                    let again_ms = placed.visit.status.is_open().then(|| recheck_at_ms(context, rule, *placed));
                    self.recheck_ms.extend(again_ms);
                }
                StepStatus::Open(candidate) => {
                    let date = placed.start.local().date();
                    let same_day = |day: &&mut Vec<Candidate<'_>>| {
                        let is_room = context.policy.group_same_day && day.len() < VISITS_MAX;
                        is_room && day.first().is_some_and(|first| first.placed.start.local().date() == date)
                    };
                    match days.iter_mut().rev().find(same_day) {
                        Some(day) => day.push(candidate),
                        None => days.push(vec![candidate]),
                    }
                }
            }
        }
        days.into_iter().for_each(|day| self.resolve(context, rule, day));
    }

    fn push_final(&mut self, placed: Placed<'_>, due_at_ms: i64, reminder: PlannedReminder) {
        self.push(placed, due_at_ms, reminder, None);
    }

    fn push(&mut self, placed: Placed<'_>, due_at_ms: i64, reminder: PlannedReminder, announce: Option<Announce>) {
        let (appointment_id, is_open) = (placed.id.to_owned(), placed.visit.status.is_open());
        self.steps.push(PlannedStep { appointment_id, is_open, due_at_ms, reminder, announce });
    }

    /// Decides about the visits of a day: the first visit with enough time left gets the reminder, which names the
    /// others.
    fn resolve(&mut self, context: &PlanContext<'_>, rule: &ReminderStep, day: Vec<Candidate<'_>>) {
        let mut day = day.into_iter();
        while let Some(leader) = day.next() {
            let wanted_ms = leader.due_at_ms.max(context.now_ms);
            let slot = slot(context, leader.placed.start, wanted_ms, self.announced);
            if slot.at_ms >= leader.latest_ms {
                let reason = slot.reason.unwrap_or("minimum_notice");
                let reminder = leader.reminder(rule, leader.due_at_ms, ReminderStatus::Suppressed, Some(reason));
                self.push_final(leader.placed, leader.due_at_ms, reminder);
                continue;
            }
            let (status, reason) = match (leader.due_at_ms > context.now_ms, slot.at_ms > context.now_ms) {
                (false, true) => (ReminderStatus::Deferred, slot.reason),
                _ => (ReminderStatus::Planned, None),
            };
            let others: Vec<_> = day.collect();
            for other in &others {
                let reminder = leader.reminder(rule, slot.at_ms, status, Some("grouped"));
                self.push_final(other.placed, slot.at_ms, reminder);
            }
            let is_due = leader.due_at_ms <= context.now_ms && slot.at_ms <= context.now_ms;
            let reminder = leader.reminder(rule, if is_due { leader.due_at_ms } else { slot.at_ms }, status, reason);
            let (placed, due_at_ms) = (leader.placed, leader.due_at_ms);
            let announce = is_due.then(|| leader.announce(context, rule, others));
            self.announced += u32::from(is_due);
            self.push(placed, due_at_ms, reminder, announce);
            return;
        }
    }
}

impl Candidate<'_> {
    fn reminder(
        &self,
        rule: &ReminderStep,
        due_at_ms: i64,
        status: ReminderStatus,
        reason: Option<&str>,
    ) -> PlannedReminder {
        let (reminder_id, step) = (self.reminder_id.clone(), rule.id.clone());
        PlannedReminder { reminder_id, step, due_at_ms, status, reason: reason.map(str::to_owned), receipt: None }
    }

    fn announce(self, context: &PlanContext<'_>, rule: &ReminderStep, day: Vec<Candidate<'_>>) -> Announce {
        let named =
            |placed: Placed<'_>| GroupedVisit { appointment_id: placed.id.to_owned(), start: placed.start.clone() };
        let own = named(self.placed);
        let others: Vec<_> = day.into_iter().map(|other| named(other.placed)).chain(self.others).collect();
        let visits = if others.is_empty() { Vec::new() } else { std::iter::once(own).chain(others).collect() };
        Announce {
            reminder_id: self.reminder_id,
            appointment_id: self.placed.id.to_owned(),
            step: rule.id.clone(),
            start: self.placed.start.clone(),
            due_at_ms: self.due_at_ms,
            expires_at_ms: self.expires_at_ms,
            channels: self.channels,
            template: rule.template.clone().unwrap_or_else(|| context.policy.template_default.clone()),
            risk: context.risks.get(self.placed.id).cloned(),
            visits,
            caused_by: self.caused_by.to_owned(),
        }
    }
}

/// The state of a step of a visit, without the other visits of its day.
fn step_status<'a>(context: &PlanContext<'_>, rule: &ReminderStep, placed: Placed<'a>) -> StepStatus<'a> {
    match latest(context, rule, placed) {
        None => unsent(context, rule, placed),
        Some((own, announced)) if own != placed.id => StepStatus::Final(sent(announced, placed.visit, Some("grouped"))),
        Some((_, announced)) => match undelivered(placed.visit, &announced.reminder_id) {
            None => StepStatus::Final(sent(announced, placed.visit, None)),
            Some(failure) => again(context, rule, placed, failure),
        },
    }
}

/// The latest valid announcement of a step that names this start of a visit, and the visit that it was made for.
fn latest<'c>(context: &PlanContext<'c>, rule: &ReminderStep, placed: Placed<'_>) -> Option<(&'c str, &'c Announced)> {
    let names = |(own, announced): &(&str, &Announced)| {
        let is_own = *own == placed.id && announced.starts_at_ms == placed.start.at_ms;
        let is_named = announced.others.iter().any(|other| {
            other.appointment_id == placed.id && other.starts_at_ms == placed.start.at_ms && other.withdrawn.is_none()
        });
        let holds = announced.withdrawn.is_none() && (is_own || !is_void(context, own, announced));
        announced.step == rule.id && holds && (is_own || is_named)
    };
    context.sent.all().filter(names).max_by_key(|(_, announced)| announced.at_ms)
}

/// A reminder that is on the topic, with its most informative receipt.
pub(super) fn sent(announced: &Announced, visit: &Appointment, reason: Option<&str>) -> PlannedReminder {
    let of_reminder = |receipt: &&client::Receipt| receipt.reminder_id == announced.reminder_id;
    let receipts = || visit.receipts.iter().rev().filter(of_reminder);
    let receipt = receipts().find(|receipt| receipt.received != Received::Failed).or_else(|| receipts().next());
    PlannedReminder {
        reminder_id: announced.reminder_id.clone(),
        step: announced.step.clone(),
        due_at_ms: announced.at_ms,
        status: ReminderStatus::Sent,
        reason: reason.map(str::to_owned),
        receipt: receipt.map(|receipt| SentReceipt {
            received: receipt.received,
            channel: receipt.channel,
            at_ms: receipt.at_ms,
            reason: receipt.reason.clone(),
        }),
    }
}

/// The latest failure of a reminder that reached the client over no channel.
pub(super) fn undelivered<'a>(visit: &'a Appointment, reminder_id: &str) -> Option<&'a client::Receipt> {
    let receipts = || visit.receipts.iter().filter(|receipt| receipt.reminder_id == reminder_id);
    let is_reached = receipts().any(|receipt| receipt.received != Received::Failed);
    receipts().next_back().filter(|_| !is_reached)
}

fn unsent<'a>(context: &PlanContext<'_>, rule: &ReminderStep, placed: Placed<'a>) -> StepStatus<'a> {
    let risk = context.risks.get(placed.id);
    if !rule.is_for_all() && !risk.is_some_and(|risk| rule.levels.iter().any(|level| level.name() == risk.level)) {
        return StepStatus::NotApplicable;
    }
    let before = context.sent.withdrawn(placed.id, &rule.id);
    let channels = channels(context, &rule.channels);
    let due_at_ms = rule.due_ms(context.policy, placed.start, placed.visit.placed_at_ms);
    let candidate = candidate(context, rule, placed, before, due_at_ms, channels);
    let status = placed.visit.status;
    let suppressed = match () {
        () if !status.is_open() => Some(status.name()),
        () if rule.skip_confirmed && status == client::AppointmentStatus::Confirmed => Some("confirmed"),
        () if due_at_ms < placed.visit.placed_at_ms => Some("booked_after_step"),
        () => None,
    };
    final_status(context, rule, &candidate, suppressed).map_or(StepStatus::Open(candidate), StepStatus::Final)
}

/// When to evaluate a step again that does not apply to a visit: when it is due, or soon if it is due and the risk is
/// unknown.
fn recheck_at_ms(context: &PlanContext<'_>, rule: &ReminderStep, placed: Placed<'_>) -> i64 {
    let due_at_ms = rule.due_ms(context.policy, placed.start, placed.visit.placed_at_ms);
    let is_unknown = !context.risks.contains_key(placed.id);
    let is_on = context.now_ms < expires_at_ms(context, placed, rule, due_at_ms);
    if is_unknown && is_on { due_at_ms.max(context.now_ms + UNKNOWN_RISK_MS) } else { due_at_ms }
}

/// A step that was announced and did not reach the client.
fn again<'a>(
    context: &PlanContext<'_>,
    rule: &ReminderStep,
    placed: Placed<'a>,
    failure: &client::Receipt,
) -> StepStatus<'a> {
    let is_try = |a: &&Announced| a.step == rule.id && a.withdrawn.is_none() && a.starts_at_ms == placed.start.at_ms;
    let tries: Vec<_> = context.sent.of(placed.id).iter().filter(is_try).collect();
    let mut left = channels(context, &rule.channels);
    for tried in &tries {
        let failures = placed.visit.receipts.iter().filter(|receipt| receipt.reminder_id == tried.reminder_id);
        for failed in failures {
            let place = tried.channels.iter().position(|channel| Some(*channel) == failed.channel);
            // A failure without a channel, or with one that was not announced, counts for all of them.
            let gone = tried.channels.iter().take(place.map_or(usize::MAX, |place| place + 1));
            gone.for_each(|gone| left.retain(|channel| channel != gone));
        }
    }
    let before = context.sent.withdrawn(placed.id, &rule.id) + tries.len() as u32;
    let is_over = tries.len() as u32 > context.policy.fallbacks_max || left.is_empty();
    let mut candidate = candidate(context, rule, placed, before, failure.at_ms, left);
    let status = placed.visit.status;
    if !status.is_open() || is_over {
        let tried = tries.last().map(|tried| sent(tried, placed.visit, None));
        let reason = Some("delivery_failed".to_owned());
        let failed = tried.map(|tried| PlannedReminder { status: ReminderStatus::Failed, reason, ..tried });
        return failed.map_or(StepStatus::NotApplicable, StepStatus::Final);
    }
    candidate.others = tries.last().map(|tried| still_named(context, tried)).unwrap_or_default();
    final_status(context, rule, &candidate, None).map_or(StepStatus::Again(candidate), StepStatus::Final)
}

/// The other visits that an announcement names, if they are still to take place at the start that it named.
fn still_named(context: &PlanContext<'_>, announced: &Announced) -> Vec<GroupedVisit> {
    let others = announced.others.iter().filter(|other| other.withdrawn.is_none());
    let on = others.filter_map(|other| {
        let visit = context.client.appointments.get(&other.appointment_id).filter(|visit| visit.status.is_open())?;
        let start = visit.start.clone().filter(|start| start.at_ms == other.starts_at_ms)?;
        Some(GroupedVisit { appointment_id: other.appointment_id.clone(), start })
    });
    on.collect()
}

/// A reminder of a step, with its times; `before` counts earlier announcements of it that are no longer valid.
fn candidate<'a>(
    context: &PlanContext<'_>,
    rule: &ReminderStep,
    placed: Placed<'a>,
    before: u32,
    due_at_ms: i64,
    channels: Vec<Channel>,
) -> Candidate<'a> {
    let Placed { visit, start, .. } = placed;
    let policy = context.policy;
    let expires_at_ms = expires_at_ms(context, placed, rule, rule.due_ms(policy, start, visit.placed_at_ms));
    Candidate {
        placed,
        reminder_id: unused_id(context, placed, &rule.id, before),
        due_at_ms,
        expires_at_ms,
        latest_ms: expires_at_ms.min(start.at_ms - i64::from(policy.notice_minutes_min) * MINUTE_MS),
        channels,
        others: Vec::new(),
        caused_by: &visit.placed_by,
    }
}

/// When a step that is due at `due_at_ms` is over: when the next step for all levels is due, at the latest at the
/// start.
fn expires_at_ms(context: &PlanContext<'_>, placed: Placed<'_>, rule: &ReminderStep, due_at_ms: i64) -> i64 {
    let Placed { visit, start, .. } = placed;
    let due = |rule: &ReminderStep| rule.due_ms(context.policy, start, visit.placed_at_ms);
    let for_all = context.policy.steps.iter().filter(|other| other.is_for_all());
    let next = for_all.map(due).filter(|at_ms| *at_ms > due_at_ms);
    next.chain(rule.own_end_ms(due_at_ms)).min().unwrap_or(start.at_ms).min(start.at_ms)
}

/// The id of the next announcement of a step, numbered after those that are no longer valid. If other zone rules map
/// the same wall-clock time to another instant, the id with that number may already name the previous announcement.
fn unused_id(context: &PlanContext<'_>, placed: Placed<'_>, step: &str, before: u32) -> String {
    let Placed { id, start, .. } = placed;
    let announced = context.sent.of(id);
    let local = format!("{}[{}]", wall_clock(start.local()), start.zone);
    let mut ids = (before..).map(|n| reminder::step_id(context.key, id, &local, step, n));
    let unused = ids.find(|reminder_id| announced.iter().all(|a| a.reminder_id != *reminder_id));
    unused.unwrap_or_default()
}

/// What is already decided about a candidate: why it is not sent, or that its time has passed.
fn final_status(
    context: &PlanContext<'_>,
    rule: &ReminderStep,
    candidate: &Candidate<'_>,
    suppressed: Option<&'static str>,
) -> Option<PlannedReminder> {
    let (status, reason) = match suppressed {
        Some(reason) => (ReminderStatus::Suppressed, Some(reason)),
        None if candidate.channels.is_empty() => (ReminderStatus::Suppressed, Some("no_consented_channel")),
        None if context.now_ms >= candidate.expires_at_ms => (ReminderStatus::Failed, Some("expired")),
        None if context.now_ms >= candidate.latest_ms => (ReminderStatus::Suppressed, Some("minimum_notice")),
        None => return None,
    };
    Some(candidate.reminder(rule, candidate.due_at_ms, status, reason))
}

/// The channels that may be used: the requested ones, or else the client's own, or else the configured ones. If the
/// client has stored consents, only channels with consent.
pub(super) fn channels(context: &PlanContext<'_>, requested: &[Channel]) -> Vec<Channel> {
    let each_once = |channels: &[Channel], may: &dyn Fn(&Channel) -> bool| {
        let mut once = Vec::new();
        for channel in channels.iter().filter(|channel| may(channel)) {
            if !once.contains(channel) {
                once.push(*channel);
            }
        }
        once
    };
    let Some(consents) = &context.client.channels else {
        let wanted = if requested.is_empty() { &context.policy.channels_default } else { requested };
        return each_once(wanted, &|_| true);
    };
    // Of two entries for one channel, the refusal overrides.
    let refused = |channel: &Channel| consents.iter().any(|other| other.channel == *channel && !other.consent);
    let own: Vec<_> = consents.iter().map(|consent| consent.channel).collect();
    if requested.is_empty() {
        return each_once(&own, &|channel| !refused(channel));
    }
    each_once(requested, &|channel| own.contains(channel) && !refused(channel))
}
