//! The plan: what is due to whom, as a pure function of rows, policy and the time.
//!
//! `plan(client, sent, policy, now)` looks at every appointment of a client and says of each reminder where it
//! stands: planned, sent, deferred, suppressed and why, withdrawn, failed. The planner announces what is due and
//! withdraws what no longer holds; the API shows the same list to people. Nothing is remembered between two
//! plans: what was sent is on the topic, and what is due follows from the rows of this moment. So an edited
//! policy re-plans what is unsent and repeats nothing.
//!
//! The rules, first that applies:
//! 1. An appointment that is off, over or unknown gets nothing; what was announced for it is withdrawn, unless the
//!    start that it named has passed.
//! 2. A step whose instant lay before the booking (or the reschedule) is not fired late.
//! 3. A step that was announced for this start is sent.
//! 4. A step expires when the next one is due, at the latest at the start. What was not sent by then is dropped.
//! 5. Without a channel that the client agrees to, the step is suppressed. A client who was never asked gets the
//!    configured channels; an empty list or a refusal always wins.
//! 6. In quiet hours (of the client's zone, else the visit's) the step waits for their end, unless it expires
//!    first. A request by hand passes quiet hours, never consent or expiry.

use super::policy::{Policy, Step as Rule};
use crate::event::appointment::Channel;
use crate::event::codec::wall_clock;
use crate::event::{reminder, zone};
use crate::view::client::{Appointment, Asked, Client, REQUEST_EXPIRES_MS, Start, Status as Visit};
use crate::view::sent::{Announced, Sent};
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60 * 1000;
/// The step of a request by hand.
pub const MANUAL: &str = crate::view::sent::BY_HAND;

/// Where a reminder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its time is to come.
    Planned,
    /// It is on the topic.
    Sent,
    /// It is due and waits for the end of quiet hours.
    Deferred,
    /// It will not be sent.
    Suppressed,
    /// It was on the topic and was taken back.
    Withdrawn,
    /// It was due and its time passed before it could be sent.
    Failed,
}

/// A reminder and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reminder {
    /// Deterministic.
    pub reminder_id: String,
    /// The step, or [`MANUAL`].
    pub step: String,
    /// When it is to be sent; when it was, where it was.
    pub due_at_ms: i64,
    /// Where it stands.
    pub status: Status,
    /// Why, where that is not plain.
    pub reason: Option<String>,
}

/// Something to append to the reminders topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Announce a reminder.
    Announce(Announce),
    /// Take one back.
    Withdraw {
        /// Which.
        reminder_id: String,
        /// Of which appointment.
        appointment_id: String,
        /// Why.
        reason: &'static str,
        /// Id of the event that made it void; none for an erased client.
        caused_by: Option<String>,
    },
}

/// A reminder to announce.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Id of the event that placed the visit, or that asked for the reminder.
    pub caused_by: String,
}

/// The plan of one client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to append now.
    pub actions: Vec<Action>,
    /// When something changes by the mere passing of time.
    pub next_at_ms: Option<i64>,
}

/// The rows and rules that a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Whose plan: the key of the client's rows, `tenant:client_id`.
    pub key: &'a str,
    /// The client's row.
    pub client: &'a Client,
    /// What was announced to the client.
    pub sent: &'a Sent,
    /// What is sent when.
    pub policy: &'a Policy,
    /// The present.
    pub now_ms: i64,
}

/// The plan of a client: everything to do now, and when to look again.
pub fn client(context: &Context<'_>) -> Plan {
    let mut plan = Plan::default();
    for (id, appointment) in &context.client.appointments {
        for step in steps(context, id, appointment).into_iter().chain(by_hand(context, id, appointment)) {
            if matches!(step.reminder.status, Status::Planned | Status::Deferred) {
                let at = step.reminder.due_at_ms;
                plan.next_at_ms = Some(plan.next_at_ms.map_or(at, |next| next.min(at)));
            }
            plan.actions.extend(step.announce.map(Action::Announce));
        }
    }
    for (id, announced) in &context.sent.appointments {
        plan.actions.extend(withdrawals(context, id, &announced.list));
    }
    plan
}

/// Every reminder of an appointment and where it stands, for people.
pub fn story(context: &Context<'_>, id: &str) -> Vec<Reminder> {
    let mut story: Vec<_> = context
        .sent
        .of(id)
        .iter()
        .filter(|announced| announced.withdrawn.is_some())
        .map(|announced| Reminder {
            reminder_id: announced.reminder_id.clone(),
            step: announced.step.clone(),
            due_at_ms: announced.at_ms,
            status: Status::Withdrawn,
            reason: announced.withdrawn.clone(),
        })
        .collect();
    if let Some(appointment) = context.client.appointments.get(id) {
        let steps = steps(context, id, appointment).into_iter().chain(by_hand(context, id, appointment));
        story.extend(steps.map(|step| step.reminder));
    }
    story.sort_by(|a, b| (a.due_at_ms, &a.step).cmp(&(b.due_at_ms, &b.step)));
    story
}

/// A reminder and, where it is due now, what to announce.
struct Step {
    reminder: Reminder,
    announce: Option<Announce>,
}

/// What a step is before it is known where it stands.
struct Candidate<'a> {
    appointment_id: &'a str,
    reminder_id: String,
    step: &'a str,
    due_at_ms: i64,
    expires_at_ms: i64,
    channels: Vec<Channel>,
    template: &'a str,
    caused_by: &'a str,
}

impl Candidate<'_> {
    fn at(self, due_at_ms: i64, status: Status, reason: Option<&str>) -> Step {
        let reason = reason.map(str::to_owned);
        let step = self.step.to_owned();
        Step { reminder: Reminder { reminder_id: self.reminder_id, step, due_at_ms, status, reason }, announce: None }
    }

    fn is(self, status: Status, reason: &str) -> Step {
        let due_at_ms = self.due_at_ms;
        self.at(due_at_ms, status, Some(reason))
    }

    fn due(self, start: &Start) -> Step {
        let announce = Announce {
            reminder_id: self.reminder_id.clone(),
            appointment_id: self.appointment_id.to_owned(),
            step: self.step.to_owned(),
            start: start.clone(),
            due_at_ms: self.due_at_ms,
            expires_at_ms: self.expires_at_ms,
            channels: self.channels.clone(),
            template: self.template.to_owned(),
            caused_by: self.caused_by.to_owned(),
        };
        let due_at_ms = self.due_at_ms;
        Step { announce: Some(announce), ..self.at(due_at_ms, Status::Planned, None) }
    }
}

/// The configured steps of an appointment.
fn steps(context: &Context<'_>, id: &str, appointment: &Appointment) -> Vec<Step> {
    let Some(start) = &appointment.start else { return Vec::new() };
    let mut rules: Vec<_> = context.policy.steps.iter().filter(|step| step.is_for_all()).collect();
    let due = |rule: &Rule| rule.due_ms(context.policy, start, appointment.placed_at_ms);
    rules.sort_by_key(|rule| due(rule));
    let local = format!("{}[{}]", wall_clock(start.local()), start.zone);
    let announced = context.sent.of(id);
    let mut steps = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let withdrawn = context.sent.withdrawn(id, &rule.id);
        let candidate = Candidate {
            appointment_id: id,
            reminder_id: reminder::step_id(context.key, id, &local, &rule.id, withdrawn),
            step: &rule.id,
            due_at_ms: due(rule),
            expires_at_ms: rules.get(at + 1).map_or(start.at_ms, |next| due(next)),
            channels: channels(context, &[]),
            template: &context.policy.template_default,
            caused_by: &appointment.placed_by,
        };
        let live = |a: &&Announced| a.step == rule.id && a.withdrawn.is_none() && a.starts_at_ms == start.at_ms;
        steps.push(match announced.iter().find(live) {
            Some(announced) => sent(candidate, announced),
            None => step(context, appointment, start, candidate),
        });
    }
    steps
}

/// Where an unsent step stands.
fn step(context: &Context<'_>, appointment: &Appointment, start: &Start, candidate: Candidate<'_>) -> Step {
    let now_ms = context.now_ms;
    if !appointment.status.is_open() {
        return candidate.is(Status::Suppressed, appointment.status.name());
    }
    if candidate.due_at_ms < appointment.placed_at_ms {
        return candidate.is(Status::Suppressed, "booked_after_step");
    }
    if candidate.channels.is_empty() {
        return candidate.is(Status::Suppressed, "no_consented_channel");
    }
    if now_ms >= candidate.expires_at_ms {
        return candidate.is(Status::Failed, "expired");
    }
    let wanted_ms = candidate.due_at_ms.max(now_ms);
    let send_ms = quiet_until(context, start, wanted_ms).unwrap_or(wanted_ms);
    if send_ms >= candidate.expires_at_ms {
        return candidate.is(Status::Suppressed, "quiet_hours");
    }
    if candidate.due_at_ms > now_ms {
        return candidate.at(send_ms, Status::Planned, None);
    }
    if send_ms > now_ms {
        return candidate.at(send_ms, Status::Deferred, Some("quiet_hours"));
    }
    candidate.due(start)
}

/// The requests by hand for an appointment.
fn by_hand(context: &Context<'_>, id: &str, appointment: &Appointment) -> Vec<Step> {
    appointment.requests.iter().filter_map(|asked| request(context, id, appointment, asked)).collect()
}

fn request(context: &Context<'_>, id: &str, appointment: &Appointment, asked: &Asked) -> Option<Step> {
    let starts_at_ms = appointment.start.as_ref().map_or(i64::MAX, |start| start.at_ms);
    let candidate = Candidate {
        appointment_id: id,
        reminder_id: asked.reminder_id.clone(),
        step: MANUAL,
        due_at_ms: asked.at_ms,
        expires_at_ms: starts_at_ms.min(asked.at_ms + REQUEST_EXPIRES_MS),
        channels: channels(context, &asked.channels),
        template: asked.template.as_deref().unwrap_or(&context.policy.template_default),
        caused_by: &asked.event_id,
    };
    if let Some(announced) = context.sent.of(id).iter().find(|a| a.reminder_id == asked.reminder_id) {
        // A withdrawn one is told of among the withdrawn.
        return announced.withdrawn.is_none().then(|| sent(candidate, announced));
    }
    Some(match &appointment.start {
        None => candidate.is(Status::Suppressed, "unknown_appointment"),
        Some(_) if !appointment.status.is_open() => candidate.is(Status::Suppressed, appointment.status.name()),
        Some(_) if candidate.channels.is_empty() => candidate.is(Status::Suppressed, "no_consented_channel"),
        Some(_) if context.now_ms >= candidate.expires_at_ms => candidate.is(Status::Failed, "expired"),
        Some(_) if candidate.due_at_ms > context.now_ms => {
            let due_at_ms = candidate.due_at_ms;
            candidate.at(due_at_ms, Status::Planned, None)
        }
        Some(start) => candidate.due(start),
    })
}

fn sent(candidate: Candidate<'_>, announced: &Announced) -> Step {
    let candidate = Candidate { reminder_id: announced.reminder_id.clone(), ..candidate };
    candidate.at(announced.at_ms, Status::Sent, None)
}

/// What was announced for a start to come that no longer holds.
fn withdrawals<'a>(
    context: &'a Context<'_>,
    id: &'a str,
    announced: &'a [Announced],
) -> impl Iterator<Item = Action> + 'a {
    let to_come = |a: &&Announced| a.withdrawn.is_none() && a.starts_at_ms > context.now_ms;
    announced.iter().filter(to_come).filter_map(move |announced| {
        let (reason, caused_by) = off(context.client, id, announced)?;
        let (reminder_id, appointment_id) = (announced.reminder_id.clone(), id.to_owned());
        Some(Action::Withdraw { reminder_id, appointment_id, reason, caused_by: caused_by.map(str::to_owned) })
    })
}

/// Why an announcement no longer holds, and by which event. Of an appointment that the row has forgotten nothing can be said, even if
/// something was noted about it since.
fn off<'a>(client: &'a Client, id: &str, announced: &Announced) -> Option<(&'static str, Option<&'a str>)> {
    let placed = client.appointments.get(id).and_then(|a| Some((a, a.start.as_ref()?)));
    let Some((appointment, start)) = placed else {
        return client.erased_at_ms.map(|_| ("erased", None));
    };
    match appointment.status {
        Visit::Cancelled => Some(("cancelled", Some(&appointment.status_by))),
        Visit::Deleted => Some(("deleted", Some(&appointment.status_by))),
        _ if start.at_ms != announced.starts_at_ms => Some(("rescheduled", Some(&appointment.placed_by))),
        _ => None,
    }
}

/// The channels that may be used: those asked for, else the client's own, else the configured ones.
fn channels(context: &Context<'_>, asked_for: &[Channel]) -> Vec<Channel> {
    let Some(consents) = &context.client.channels else {
        return if asked_for.is_empty() { context.policy.channels_default.clone() } else { asked_for.to_vec() };
    };
    let mut agreed = Vec::new();
    for consent in consents {
        // Of two entries for one channel the refusal wins.
        let is_refused = consents.iter().any(|other| other.channel == consent.channel && !other.consent);
        if !is_refused && !agreed.contains(&consent.channel) {
            agreed.push(consent.channel);
        }
    }
    if asked_for.is_empty() {
        return agreed;
    }
    asked_for.iter().copied().filter(|channel| agreed.contains(channel)).collect()
}

/// The end of the quiet hours that `at_ms` lies in, if it lies in any.
fn quiet_until(context: &Context<'_>, start: &Start, at_ms: i64) -> Option<i64> {
    let quiet = context.client.quiet_hours.unwrap_or(context.policy.quiet_hours_default);
    let zone = zone::get(context.client.time_zone.as_deref().unwrap_or(&start.zone))?;
    let local = zone::local(at_ms, &zone);
    let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
    let (from, to) = (quiet.from_minute, quiet.to_minute);
    let overnight = from > to;
    let inside = if overnight { minute >= from || minute < to } else { (from..to).contains(&minute) };
    if !inside {
        return None;
    }
    let date = if overnight && minute >= from { local.date().tomorrow().ok()? } else { local.date() };
    let end_ms = zone::instant_ms(date.at((to / 60) as i8, (to % 60) as i8, 0, 0), &zone);
    if end_ms > at_ms {
        return Some(end_ms);
    }
    // The hour comes twice, and this is the second time: what is left of it is what the clock shows.
    let left_ms = i64::from(to.saturating_sub(minute).max(1)) * MINUTE_MS;
    Some(at_ms.div_euclid(MINUTE_MS) * MINUTE_MS + left_ms)
}
