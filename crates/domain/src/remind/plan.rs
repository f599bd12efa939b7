//! The plan: which reminders are due to a client, as a pure function of rows, policy, risk and time.
//!
//! `plan(client, sent, policy, risks, now)` examines every appointment of a client and determines the state of each
//! reminder: planned, sent, deferred, suppressed and why, withdrawn, failed. The planner announces what is due and
//! withdraws what is no longer valid; the API shows the same list to people. Nothing is remembered between two plans:
//! sent reminders are on the topic, and due reminders follow from the current rows. So an edited policy re-plans what
//! is unsent and repeats nothing.
//!
//! The rules; the first that applies is used:
//! 1. An appointment that is cancelled, over or unknown gets no reminders. Announcements for it are withdrawn, unless
//!    the start that they named has passed.
//! 2. A step that was announced for this start is sent, for any visit of the day that it was announced for. If it could
//!    not be delivered, it is due again for the channels after the failed one, as often as the policy allows.
//! 3. A step for other risk levels does not apply to the visit, and neither does a step for any levels while the risk
//!    is unknown; then the visit is soon evaluated again. The level is checked at each evaluation until the step is
//!    over. A step that skips confirmed visits is suppressed for them.
//! 4. A step whose time was before the booking (or the reschedule) is not sent late.
//! 5. Without a channel that the client agrees to, the step is suppressed. A client without a stored consent gets the
//!    configured channels; an empty list or a refusal always overrides them.
//! 6. A step expires when the next step for all levels is due, at the latest at the start. Reminders that were not sent
//!    by then are dropped, and none is announced closer to the start than the policy's notice.
//! 7. Visits of one local day share a reminder: that of the first visit for which a step is due.
//! 8. In quiet hours (in the client's time zone, or else the visit's) a step waits for their end. After the daily limit
//!    of reminders to a client, it waits for the next day. In both cases it may expire first.
//!
//! An on-demand request ignores risk, notice, quiet hours and the daily limit, but never consent or expiry, and is
//! never grouped.

mod on_demand;
mod step;
mod timing;

use crate::remind::policy::ReminderPolicy;
use crate::view::client::{AppointmentStatus, Client, Received, Start};
use crate::view::sent::{Announced, SentReminders};
use foretell_events::appointment::Channel;
use foretell_events::reminder::Risk;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The step of an on-demand request.
pub const MANUAL: &str = crate::view::sent::MANUAL_STEP;

/// The state of a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReminderStatus {
    /// It is due later.
    Planned,
    /// It is on the topic.
    Sent,
    /// It is due and waits for the end of quiet hours.
    Deferred,
    /// It will not be sent.
    Suppressed,
    /// It was on the topic and was withdrawn.
    Withdrawn,
    /// It was due, and its time passed before it could be sent.
    Failed,
}

impl ReminderStatus {
    /// The name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sent => "sent",
            Self::Deferred => "deferred",
            Self::Suppressed => "suppressed",
            Self::Withdrawn => "withdrawn",
            Self::Failed => "failed",
        }
    }
}

/// A reminder and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedReminder {
    /// Deterministic.
    pub reminder_id: String,
    /// The step, or [`MANUAL`].
    pub step: String,
    /// When it is to be sent, or when it was sent.
    pub due_at_ms: i64,
    /// Its state.
    pub status: ReminderStatus,
    /// Why, if the status alone does not explain it.
    pub reason: Option<String>,
    /// How it was received, if it was sent and a receipt exists.
    pub receipt: Option<SentReceipt>,
}

/// The receipt of a reminder that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SentReceipt {
    /// How it was received.
    pub received: Received,
    /// Over which channel, if reported.
    pub channel: Option<Channel>,
    /// When.
    pub at_ms: i64,
    /// Why it failed, if reported.
    pub reason: Option<String>,
}

/// Something to append to the reminders topic.
#[derive(Debug, Clone, PartialEq)]
pub enum ReminderAction {
    /// Announce a reminder.
    Announce(Announce),
    /// Withdraw one.
    Withdraw {
        /// Which.
        reminder_id: String,
        /// Of which appointment.
        appointment_id: String,
        /// Which appointment it was announced for; another one if the announcement names both and stays valid for that
        /// one.
        announced_for: String,
        /// Why.
        reason: &'static str,
        /// Id of the event that invalidated it; none for an erased client.
        caused_by: Option<String>,
    },
}

impl ReminderAction {
    /// Id of the event that caused it, if known.
    pub fn caused_by(&self) -> Option<&str> {
        match self {
            Self::Announce(announce) => Some(&announce.caused_by),
            Self::Withdraw { caused_by, .. } => caused_by.as_deref(),
        }
    }
}

/// A reminder to announce.
#[derive(Debug, Clone, PartialEq)]
pub struct Announce {
    /// Deterministic.
    pub reminder_id: String,
    /// The appointment.
    pub appointment_id: String,
    /// The step, or [`MANUAL`].
    pub step: String,
    /// When the visit begins.
    pub start: Start,
    /// When it was due.
    pub due_at_ms: i64,
    /// Do not send after it.
    pub expires_at_ms: i64,
    /// In order of preference, at least one.
    pub channels: Vec<Channel>,
    /// Which text.
    pub template: String,
    /// How likely the visit is to be missed, where that is known.
    pub risk: Option<Risk>,
    /// Every visit that it names, the earliest start first; empty if it names only its own.
    pub visits: Vec<GroupedVisit>,
    /// Id of the event that placed the visit, or that requested the reminder.
    pub caused_by: String,
}

/// A visit that a reminder names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupedVisit {
    /// The appointment.
    pub appointment_id: String,
    /// When it begins.
    pub start: Start,
}

/// A step of an open visit that was due and is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsentStep {
    /// Of which appointment.
    pub appointment_id: String,
    /// The step.
    pub step: String,
    /// When it was due.
    pub due_at_ms: i64,
    /// Its state.
    pub status: ReminderStatus,
    /// Why.
    pub reason: Option<String>,
}

/// The plan of one client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to append now.
    pub actions: Vec<ReminderAction>,
    /// When something changes without a new event, because time passes.
    pub next_at_ms: Option<i64>,
    /// What was due and is not sent.
    pub unsent: Vec<UnsentStep>,
}

/// The rows and rules that a plan is computed from.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// Whose plan: the key of the client's rows, `tenant:client_id`.
    pub key: &'a str,
    /// The client's row.
    pub client: &'a Client,
    /// What was announced to the client.
    pub sent: &'a SentReminders,
    /// What is sent when.
    pub policy: &'a ReminderPolicy,
    /// How likely open visits are to be missed, by appointment; it contains only visits with a known risk.
    pub risks: &'a BTreeMap<String, Risk>,
    /// The present.
    pub now_ms: i64,
}

/// The plan of a client: everything to do now, and when to look again.
pub fn client(context: &PlanContext<'_>) -> Plan {
    let mut plan = Plan::default();
    let all = all(context);
    let at_due = all.steps.iter().filter(|step| step.is_open).map(|step| step.due_at_ms);
    let waits =
        |step: &&step::PlannedStep| matches!(step.reminder.status, ReminderStatus::Planned | ReminderStatus::Deferred);
    let at_slot = all.steps.iter().filter(waits).map(|step| step.reminder.due_at_ms);
    let to_come = at_due.chain(at_slot).chain(all.recheck_ms).filter(|at_ms| *at_ms > context.now_ms);
    plan.next_at_ms = to_come.min();
    // Withdrawals of invalid reminders come first, so that a client never has two reminders of a step at a time.
    plan.actions.extend(context.sent.all().flat_map(|(id, announced)| withdrawals(context, id, announced)));
    for step in all.steps {
        let is_unsent = matches!(
            step.reminder.status,
            ReminderStatus::Deferred | ReminderStatus::Suppressed | ReminderStatus::Failed
        );
        // A reminder that could not be delivered was sent, and has a receipt.
        if is_unsent && step.reminder.receipt.is_none() && step.is_open && step.due_at_ms <= context.now_ms {
            let PlannedReminder { step: id, status, reason, .. } = step.reminder;
            let (appointment_id, due_at_ms) = (step.appointment_id, step.due_at_ms);
            plan.unsent.push(UnsentStep { appointment_id, step: id, due_at_ms, status, reason });
        }
        plan.actions.extend(step.announce.map(ReminderAction::Announce));
    }
    plan
}

/// Every reminder of an appointment and its state, for people.
pub fn timeline(context: &PlanContext<'_>, id: &str) -> Vec<PlannedReminder> {
    let withdrawn = |(own, announced): (&str, &Announced)| {
        let named = announced.others.iter().find(|other| other.appointment_id == id);
        let of_named = named.and_then(|other| announced.withdrawn.clone().or(other.withdrawn.clone()));
        let reason = if own == id { announced.withdrawn.clone() } else { of_named };
        reason.map(|reason| PlannedReminder {
            reminder_id: announced.reminder_id.clone(),
            step: announced.step.clone(),
            due_at_ms: announced.at_ms,
            status: ReminderStatus::Withdrawn,
            reason: Some(reason),
            receipt: None,
        })
    };
    // Sent reminders stay sent, even if the policy no longer has their step.
    let kept = |(own, announced): (&str, &Announced)| {
        let visit = context.client.appointments.get(id)?;
        let is_named = announced.others.iter().any(|other| other.appointment_id == id && other.withdrawn.is_none());
        let is_of_policy = announced.step == MANUAL || context.policy.steps.iter().any(|s| s.id == announced.step);
        let is_sent = (own == id || is_named) && announced.withdrawn.is_none() && !is_of_policy;
        is_sent.then(|| step::sent(announced, visit, (own != id).then_some("grouped")))
    };
    let mut story: Vec<_> = context.sent.all().filter_map(withdrawn).collect();
    story.extend(context.sent.all().filter_map(kept));
    let steps = all(context).steps.into_iter().filter(|step| step.appointment_id == id);
    story.extend(steps.map(|step| step.reminder));
    story.sort_by(|a, b| (a.due_at_ms, &a.step).cmp(&(b.due_at_ms, &b.step)));
    story
}

/// The state of everything: the steps, and the on-demand requests.
fn all(context: &PlanContext<'_>) -> step::PlannedSteps {
    let mut all = step::all(context);
    all.steps.extend(on_demand::all(context));
    all
}

/// The withdrawals of an announcement for a future start that is no longer valid: all of it if its own visit is
/// affected, or only the affected visit if it is another that it names.
fn withdrawals<'a>(
    context: &'a PlanContext<'_>,
    id: &'a str,
    announced: &'a Announced,
) -> impl Iterator<Item = ReminderAction> + 'a {
    let withdraw = move |appointment_id: &str, starts_at_ms: i64| {
        if starts_at_ms <= context.now_ms {
            return None;
        }
        let (reason, caused_by) = off(context.client, appointment_id, starts_at_ms)?;
        Some(ReminderAction::Withdraw {
            reminder_id: announced.reminder_id.clone(),
            appointment_id: appointment_id.to_owned(),
            announced_for: id.to_owned(),
            reason,
            caused_by: caused_by.map(str::to_owned),
        })
    };
    let holds = announced.withdrawn.is_none();
    let own = holds.then(|| withdraw(id, announced.starts_at_ms)).flatten();
    // If its own visit is affected, all of it is withdrawn.
    let others = announced.others.iter().filter(move |other| holds && other.withdrawn.is_none());
    let is_whole = own.is_none();
    let others = others.filter(move |_| is_whole);
    own.into_iter().chain(others.filter_map(move |other| withdraw(&other.appointment_id, other.starts_at_ms)))
}

/// Whether this very plan withdraws all of an announcement, so that the other visits that it names need a new one.
fn is_void(context: &PlanContext<'_>, own: &str, announced: &Announced) -> bool {
    announced.starts_at_ms > context.now_ms && off(context.client, own, announced.starts_at_ms).is_some()
}

/// Why an announcement of a start is no longer valid, and by which event. Nothing is known about an appointment that
/// the row has forgotten, even if later events about it were stored.
fn off<'a>(client: &'a Client, id: &str, starts_at_ms: i64) -> Option<(&'static str, Option<&'a str>)> {
    let placed = client.appointments.get(id).and_then(|a| Some((a, a.start.as_ref()?)));
    let Some((appointment, start)) = placed else {
        return client.erased_at_ms.map(|_| ("erased", None));
    };
    match appointment.status {
        AppointmentStatus::Cancelled => Some(("cancelled", Some(&appointment.status_by))),
        AppointmentStatus::Deleted => Some(("deleted", Some(&appointment.status_by))),
        _ if start.at_ms != starts_at_ms => Some(("rescheduled", Some(&appointment.placed_by))),
        _ => None,
    }
}
