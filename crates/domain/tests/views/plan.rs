//! The plan of a client: each rule on both sides of its boundaries.

use crate::build::*;
use foretell_domain::remind::announce;
use foretell_domain::remind::plan::{self, PlanContext, ReminderAction, ReminderStatus};
use foretell_domain::remind::policy::{ReminderPolicy, ReminderStep};
use foretell_domain::view::client::{Client, REQUEST_EXPIRES_MS};
use foretell_domain::view::sent::{self, ReminderFold, SentReminders};
use foretell_events::appointment::{AppointmentFact, Channel, ClientErasure, Consent, FieldUpdate, QuietHours};
use foretell_events::record::{NewRecord, Record};
use foretell_events::reminder::{Feedback, Request, Risk};
use foretell_events::{Envelope, Event, Fact, Position, codec, zone};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(crate) const START: &str = "2026-06-10T12:00:00Z";

pub(crate) fn step(id: &str, before_hours: u32) -> ReminderStep {
    ReminderStep { id: id.into(), before_hours: Some(before_hours), ..ReminderStep::default() }
}

/// A client, the announcements to the client, and the policy.
pub(crate) struct Case {
    events: Vec<(i64, Fact)>,
    sent: Views<ReminderFold>,
    pub(crate) policy: ReminderPolicy,
    pub(crate) risks: BTreeMap<String, Risk>,
}

impl Case {
    /// The visit `a` at [`START`], booked a month before; there are no quiet hours unless a test sets them.
    pub(crate) fn new() -> Self {
        Self::with(vec![(at("2026-05-10T12:00:00Z"), booked("a", at(START)))])
    }

    pub(crate) fn with(events: Vec<(i64, Fact)>) -> Self {
        let quiet_hours_default = QuietHours { from_minute: 0, to_minute: 0 };
        let policy = ReminderPolicy { quiet_hours_default, notice_minutes_min: 0, ..ReminderPolicy::default() };
        Self { events, sent: Views::new(ReminderFold::default(), 1), policy, risks: BTreeMap::new() }
    }

    pub(crate) fn then(self, time: &str, fact: Fact) -> Self {
        self.and(at(time), fact)
    }

    pub(crate) fn and(mut self, time_ms: i64, fact: Fact) -> Self {
        self.events.push((time_ms, fact));
        self
    }

    /// Folds an announcement or a withdrawal.
    pub(crate) fn fold(&mut self, action: &ReminderAction, now_ms: i64) {
        self.sent.fold(&record(action, now_ms));
    }

    pub(crate) fn quiet(mut self, from: u16, to: u16) -> Self {
        self.policy.quiet_hours_default = QuietHours { from_minute: from, to_minute: to };
        self
    }

    fn client(&self) -> Client {
        let mut views = appointments([]);
        for (n, (time_ms, fact)) in self.events.iter().enumerate() {
            // The same ids at every fold: those of manual reminders are derived from them.
            let envelope =
                Envelope { id: format!("e{n}"), source: "urn:test".into(), tenant: "t".into(), time_ms: *time_ms };
            views.fold(&Event { envelope, fact: fact.clone() });
        }
        views.client("c")
    }

    pub(crate) fn announced(&self) -> SentReminders {
        self.sent.rows.owner(&sent::row_key("t", "c")).cloned().unwrap_or_default()
    }

    pub(crate) fn plan(&self, now_ms: i64) -> plan::Plan {
        let (client, sent) = (self.client(), self.announced());
        plan::client(&PlanContext {
            key: "t:c",
            client: &client,
            sent: &sent,
            policy: &self.policy,
            risks: &self.risks,
            now_ms,
        })
    }

    /// Plans and announces; returns the actions, as `+step` and `-reason`.
    pub(crate) fn tick(&mut self, now_ms: i64) -> Vec<String> {
        let actions = self.plan(now_ms).actions;
        actions.iter().for_each(|action| self.fold(action, now_ms));
        let actions_of = |action: &ReminderAction| match action {
            ReminderAction::Announce(announce) => format!("+{}", announce.step),
            ReminderAction::Withdraw { reason, .. } => format!("-{reason}"),
        };
        actions.iter().map(actions_of).collect()
    }

    pub(crate) fn story(&self, now: &str, id: &str) -> Vec<(String, ReminderStatus, Option<String>)> {
        let (client, sent) = (self.client(), self.announced());
        let Self { policy, risks, .. } = self;
        let context = PlanContext { key: "t:c", client: &client, sent: &sent, policy, risks, now_ms: at(now) };
        plan::timeline(&context, id).into_iter().map(|r| (r.step, r.status, r.reason)).collect()
    }
}

/// The event that the planner appends for an action, as its own fold reads it.
fn record(action: &ReminderAction, time_ms: i64) -> Event {
    let (event, extensions) = announce::event_of("t", "c", action.clone(), time_ms);
    let NewRecord { topic, key, value, headers } = codec::encode_event(&event, &extensions);
    let position = Position { topic, partition: 0, offset: 0 };
    let record = Record { position, timestamp_ms: time_ms, key, value, headers };
    let read = codec::decode(&record).expect("what is announced can be folded");
    assert_eq!(read, event);
    read
}

pub(crate) fn requested(id: &str, channels: Vec<Channel>) -> Fact {
    let (appointment_id, client_id) = (id.into(), "c".into());
    AppointmentFact::ReminderRequested(Box::new(Request {
        appointment_id,
        client_id,
        channels,
        template: None,
        reason: None,
        idempotency_digest: None,
    }))
    .into()
}

pub(crate) fn consents(consents: &[(Channel, bool)]) -> Fact {
    let all =
        consents.iter().map(|(channel, consent)| Consent { channel: *channel, consent: *consent, address_ref: None });
    updated(|update| update.channels = FieldUpdate::Set(all.collect()))
}

#[test]
fn an_appointment_of_another_client_has_another_reminder() {
    // Entered for the wrong client, announced, deleted there and booked for the right one, at the same start.
    let case = Case::new();
    let (client, sent, now_ms) = (case.client(), SentReminders::default(), at(START) - 24 * HOUR);
    let ids = ["t:c", "t:d", "u:c"].map(|key| {
        let plan = plan::client(&PlanContext {
            key,
            client: &client,
            sent: &sent,
            policy: &case.policy,
            risks: &case.risks,
            now_ms,
        });
        plan.actions.iter().map(|action| record(action, now_ms).envelope.id).collect::<Vec<_>>()
    });
    assert_eq!(ids[0].len(), 1, "{ids:?}");
    assert!(ids[0] != ids[1] && ids[0] != ids[2], "subscribers know reminders by their ids: {ids:?}");
}

#[test]
fn steps_are_due_at_their_instant_and_expire_when_the_next_one_is() {
    let ms = 1;
    for (before_start_ms, wanted) in [
        (72 * HOUR + ms, vec![]),
        (72 * HOUR, vec!["+72h"]),
        (24 * HOUR + ms, vec!["+72h"]),
        (24 * HOUR, vec!["+24h"]),
        (ms, vec!["+24h"]),
        (0, vec![]),
        (-ms, vec![]),
    ] {
        assert_eq!(Case::new().tick(at(START) - before_start_ms), wanted, "{before_start_ms} ms before");
    }
}

#[test]
fn a_step_before_the_booking_is_not_fired_late() {
    for (booked_before, wanted) in
        [(72 * HOUR, vec!["+72h"]), (72 * HOUR - 1, vec![]), (24 * HOUR, vec!["+24h"]), (HOUR, vec![])]
    {
        let booked_at = at(START) - booked_before;
        let mut case = Case::with(vec![(booked_at, booked("a", at(START)))]);
        assert_eq!(case.tick(booked_at.max(at(START) - 72 * HOUR)), wanted, "{booked_before}");
    }
    let short = Case::with(vec![(at(START) - 24 * HOUR + 1, booked("a", at(START)))]);
    assert!(
        (0..24).all(|hours| short.plan(at(START) - hours * HOUR).actions.is_empty()),
        "less than a day ahead: none"
    );
    let reason = Some("booked_after_step".to_owned());
    assert_eq!(short.story("2026-06-10T10:00:00Z", "a")[1], ("24h".into(), ReminderStatus::Suppressed, reason));
}

#[test]
fn what_was_announced_is_withdrawn_when_it_no_longer_holds_unless_the_start_has_passed() {
    let (due, later) = (at(START) - 72 * HOUR, "2026-06-08T00:00:00Z");
    for (fact, reason) in [
        (cancelled("a", None), "cancelled"),
        (deleted("a"), "deleted"),
        (rescheduled("a", at(START) + 3 * HOUR), "rescheduled"),
        (AppointmentFact::ClientErased(ClientErasure { client_id: "c".into() }).into(), "erased"),
    ] {
        let mut case = Case::new();
        assert_eq!(case.tick(due), ["+72h"]);
        case = case.then(later, fact);
        let taken_back = |case: &Case, now_ms| {
            let actions = case.plan(now_ms).actions;
            actions.iter().filter(|action| matches!(action, ReminderAction::Withdraw { .. })).count()
        };
        assert_eq!(taken_back(&case, at(START)), 0, "{reason}: the announced start has passed");
        assert!(case.tick(at(START) - 1).contains(&format!("-{reason}")), "{reason}");
        assert_eq!(taken_back(&case, at(START) - 1), 0, "{reason}: once");
    }
}

#[test]
fn a_forgotten_or_kept_visit_withdraws_nothing() {
    for fact in [confirmed("a"), attended("a"), missed("a")] {
        let mut case = Case::new();
        case.tick(at(START) - 72 * HOUR);
        case = case.then("2026-06-08T00:00:00Z", fact);
        assert_eq!(case.plan(at("2026-06-08T01:00:00Z")).actions, []);
    }
    let mut case = Case::new();
    case.tick(at(START) - 72 * HOUR);
    // As if the row had dropped the visit, and then another event about it arrived.
    case.events = vec![(at("2026-06-08T00:00:00Z"), confirmed("a"))];
    assert_eq!(case.plan(at("2026-06-08T01:00:00Z")).actions, []);
}

#[test]
fn a_visit_moved_away_and_back_is_announced_again_under_another_id() {
    let mut case = Case::new();
    assert_eq!(case.tick(at(START) - 72 * HOUR), ["+72h"]);
    // Both moves happened before the step and were reported after it.
    case = case.then("2026-06-07T10:00:00Z", rescheduled("a", at(START) + 30 * DAY));
    assert_eq!(case.tick(at("2026-06-07T13:00:00Z")), ["-rescheduled"]);
    case = case.then("2026-06-07T11:00:00Z", rescheduled("a", at(START)));
    assert_eq!(case.tick(at("2026-06-07T14:00:00Z")), ["+72h"]);
    let announced = case.announced();
    let ids: Vec<_> = announced.of("a").iter().map(|a| a.reminder_id.as_str()).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(case.tick(at("2026-06-07T14:00:01Z")), [""; 0]);
}

#[test]
fn an_edited_policy_repeats_nothing_that_was_sent() {
    let mut case = Case::new();
    case.tick(at(START) - 72 * HOUR);
    case.policy.steps = vec![step("72h", 48), step("24h", 12), step("6h", 6)];
    assert_eq!(case.tick(at(START) - 48 * HOUR), [""; 0], "sent, though its offset is another now");
    assert_eq!(case.tick(at(START) - 24 * HOUR), [""; 0], "its time moved");
    assert_eq!(case.tick(at(START) - 12 * HOUR), ["+24h"]);
    assert_eq!(case.tick(at(START) - 6 * HOUR), ["+6h"]);
}

#[test]
fn only_channels_that_the_client_agrees_to_are_used() {
    use Channel::{Call, Email, Sms};
    for (name, profile, requested_at, wanted) in [
        ("no consent", None, vec![], Some(vec![Sms])),
        ("no consent, by name", None, vec![Email, Call], Some(vec![Email, Call])),
        ("own order", Some(vec![(Email, true), (Sms, true)]), vec![], Some(vec![Email, Sms])),
        ("one refused", Some(vec![(Email, false), (Sms, true)]), vec![], Some(vec![Sms])),
        ("all refused", Some(vec![(Email, false)]), vec![], None),
        ("empty list", Some(vec![]), vec![], None),
        ("requested one that is refused", Some(vec![(Email, false), (Sms, true)]), vec![Email], None),
        ("requested two", Some(vec![(Email, true), (Sms, true)]), vec![Sms, Call, Email], Some(vec![Sms, Email])),
    ] {
        let mut case = Case::new();
        if let Some(profile) = &profile {
            case = case.then("2026-05-11T00:00:00Z", consents(profile));
        }
        let now = at(START) - 30 * HOUR;
        case.events.push((now, requested("a", requested_at.clone())));
        let of = |step: &str| {
            case.plan(now).actions.into_iter().find_map(|action| match action {
                ReminderAction::Announce(announce) if announce.step == step => Some(announce.channels),
                _ => None,
            })
        };
        assert_eq!(of(plan::MANUAL), wanted, "{name}, by hand");
        if requested_at.is_empty() {
            assert_eq!(of("72h"), wanted, "{name}");
        }
    }
}

#[test]
fn quiet_hours_put_a_step_off_to_their_end_or_drop_it() {
    let hour = 60_u16;
    // The 72 h step of a visit in Dublin in summer, one hour ahead of UTC; first instant that announces it.
    for (name, from, to, start, wanted) in [
        ("outside", 21 * hour, 8 * hour, "2026-06-10T12:00:00Z", Some("2026-06-07T12:00:00Z")),
        ("late in the evening", 21 * hour, 8 * hour, "2026-06-10T21:00:00Z", Some("2026-06-08T07:00:00Z")),
        ("a minute before", 21 * hour, 8 * hour, "2026-06-10T19:59:00Z", Some("2026-06-07T19:59:00Z")),
        ("as they begin", 21 * hour, 8 * hour, "2026-06-10T20:00:00Z", Some("2026-06-08T07:00:00Z")),
        ("a minute before the end", 21 * hour, 8 * hour, "2026-06-10T06:59:00Z", Some("2026-06-07T07:00:00Z")),
        ("as they end", 21 * hour, 8 * hour, "2026-06-10T07:00:00Z", Some("2026-06-07T07:00:00Z")),
        ("by day", 12 * hour, 14 * hour, "2026-06-10T12:30:00Z", Some("2026-06-07T13:00:00Z")),
        ("equal is none", 9 * hour, 9 * hour, "2026-06-10T08:00:00Z", Some("2026-06-07T08:00:00Z")),
        // Dublin, 29 March 2026: there is no 01:00 to 02:00.
        ("over the gap", 21 * hour, 8 * hour, "2026-03-31T23:00:00Z", Some("2026-03-29T07:00:00Z")),
        // 25 October: 01:00 to 02:00 comes twice, first as 00:00 UTC; quiet to 01:30 holds in both.
        ("over the overlap", 21 * hour, 8 * hour, "2026-10-27T22:00:00Z", Some("2026-10-25T08:00:00Z")),
        ("the second half past one", 23 * hour, hour + 30, "2026-10-28T01:15:00Z", Some("2026-10-25T01:30:00Z")),
    ] {
        let fact = AppointmentFact::Booked(Box::new(booking("a", at(start), Some("Europe/Dublin")))).into();
        let case = Case::with(vec![(at("2026-01-01T00:00:00Z"), fact)]).quiet(from, to);
        let due = at(start) - 72 * HOUR;
        let first = (0..24 * 60).map(|minute| due + minute * 60_000).find(|now| !case.plan(*now).actions.is_empty());
        assert_eq!(first, wanted.map(at), "{name}");
        assert!(
            case.plan(due - 1).next_at_ms.is_some_and(|next| Some(next) <= first),
            "{name}: returns when to plan again"
        );
    }
}

#[test]
fn a_step_that_would_leave_quiet_hours_expired_is_dropped_with_a_reason() {
    let mut case = Case::new().quiet(21 * 60, 8 * 60);
    case.policy.steps = vec![step("2h", 2)];
    case.events = vec![(at("2026-05-10T12:00:00Z"), booked("a", at("2026-06-10T08:00:00Z")))];
    assert!((0..130).all(|minute| case.plan(at("2026-06-10T06:00:00Z") + minute * 60_000).actions.is_empty()));
    let seen = case.story("2026-06-10T06:30:00Z", "a");
    assert_eq!(seen, [("2h".into(), ReminderStatus::Suppressed, Some("quiet_hours".into()))]);
}

#[test]
fn quiet_hours_are_those_of_a_client_abroad() {
    let abroad = updated(|u| {
        u.time_zone = FieldUpdate::Set("America/Sao_Paulo".into());
        u.quiet_hours = FieldUpdate::Set(QuietHours { from_minute: 9 * 60, to_minute: 10 * 60 });
    });
    // 12:00 UTC is 13:00 in Dublin and 09:00 in São Paulo.
    let fact = AppointmentFact::Booked(Box::new(booking("a", at(START), Some("Europe/Dublin")))).into();
    let mut case = Case::with(vec![(at("2026-05-01T00:00:00Z"), fact), (at("2026-05-01T00:00:00Z"), abroad)]);
    assert_eq!(case.tick(at("2026-06-07T12:59:59Z")), [""; 0]);
    assert_eq!(case.tick(at("2026-06-07T13:00:00Z")), ["+72h"]);
}

#[test]
fn hours_are_absolute_over_a_change_of_clocks() {
    for (zone, start, due) in [
        ("Europe/Dublin", "2026-03-30T09:00:00Z", "2026-03-29T09:00:00Z"),
        ("Europe/Dublin", "2026-10-25T10:00:00Z", "2026-10-24T10:00:00Z"),
        ("America/Sao_Paulo", "2018-11-04T13:00:00Z", "2018-11-03T13:00:00Z"),
        ("America/Sao_Paulo", "2018-02-18T13:00:00Z", "2018-02-17T13:00:00Z"),
    ] {
        let fact = AppointmentFact::Booked(Box::new(booking("a", at(start), Some(zone)))).into();
        let mut case = Case::with(vec![(at(due) - 10 * HOUR, fact)]);
        assert_eq!(case.tick(at(due) - 1), [""; 0], "{zone} {start}");
        assert_eq!(case.tick(at(due)), ["+24h"], "{zone} {start}");
    }
}

#[test]
fn a_request_by_hand_passes_quiet_hours_and_never_expiry() {
    let requested_at = at("2026-06-01T02:00:00Z");
    let mut case = Case::new().quiet(21 * 60, 8 * 60);
    case.events.push((requested_at, requested("a", vec![])));
    assert!(case.plan(requested_at - 1).actions.is_empty(), "not before it was requested");
    assert!(!case.plan(requested_at + REQUEST_EXPIRES_MS - 1).actions.is_empty());
    assert!(case.plan(requested_at + REQUEST_EXPIRES_MS).actions.is_empty(), "a day later");
    assert_eq!(case.tick(requested_at), ["+manual"]);
    assert_eq!(case.tick(requested_at + 1), [""; 0]);
    for (name, events) in [
        ("off", vec![(1, booked("a", at(START))), (2, cancelled("a", None))]),
        ("unknown", vec![]),
        ("over", vec![(1, booked("a", requested_at))]),
    ] {
        let case = Case::with(events.into_iter().chain([(requested_at, requested("a", vec![]))]).collect());
        assert_eq!(case.plan(requested_at).actions, [], "{name}");
    }
}

#[test]
fn many_requests_by_hand_do_not_make_a_sent_step_come_again() {
    let mut case = Case::new();
    let mut actions_of = Vec::new();
    for hours in (0..240).step_by(3) {
        let now = at(START) + (hours - 240) * HOUR;
        case.events.push((now, requested("a", vec![])));
        actions_of.extend(case.tick(now));
        assert_eq!(case.tick(now), [""; 0]);
    }
    let count = |what: &str| actions_of.iter().filter(|actions_of| *actions_of == what).count();
    assert_eq!((count("+72h"), count("+24h"), count("+manual"), actions_of.len()), (1, 1, 80, 82), "{actions_of:?}");
    assert_eq!(case.announced().of("a").len(), foretell_domain::view::Limits::default().appointment_reminders_max);
}

/// Bookings, moves, confirmations, consents, requests and failures of a client, with ticks in between.
fn any_history() -> impl Strategy<Value = Vec<(i64, u8, u8, i64, bool)>> {
    prop::collection::vec((0_i64..40, 0_u8..14, 0_u8..3, 0_i64..200, any::<bool>()), 1..60)
}

/// A failure of the latest reminder of a visit, if there is one.
fn failed(sent: &SentReminders, id: &str) -> Fact {
    let reminder_id = sent.of(id).last().map_or_else(|| "unknown".into(), |latest| latest.reminder_id.clone());
    let (appointment_id, client_id, channel) = (id.into(), "c".into(), None);
    AppointmentFact::ReminderFailed(Box::new(Feedback {
        reminder_id,
        appointment_id,
        client_id,
        channel,
        reason: None,
    }))
    .into()
}

/// A step that was announced twice for one start of a visit, although the first did not fail.
fn twice(sent: &SentReminders, client: &Client) -> Option<(String, String)> {
    let mut seen = std::collections::BTreeSet::new();
    for (own, announced) in sent.all().filter(|(_, a)| a.withdrawn.is_none() && a.step != plan::MANUAL) {
        let receipts = client.appointments.get(own).map_or(&[][..], |visit| &visit.receipts);
        if receipts.iter().any(|receipt| receipt.reminder_id == announced.reminder_id) {
            continue;
        }
        let others = announced.others.iter().filter(|other| other.withdrawn.is_none());
        let named = others.map(|other| (other.appointment_id.as_str(), other.starts_at_ms));
        for (id, starts_at_ms) in named.chain([(own, announced.starts_at_ms)]) {
            if !seen.insert((id, starts_at_ms, &announced.step)) {
                return Some((id.to_owned(), announced.step.clone()));
            }
        }
    }
    None
}

/// The largest number of reminders of a day in Dublin, without manual ones.
fn busiest_day(sent: &SentReminders) -> usize {
    let zone = zone::get("Europe/Dublin").unwrap();
    let mut days = BTreeMap::<_, usize>::new();
    for (_, announced) in sent.all().filter(|(_, a)| a.step != plan::MANUAL) {
        *days.entry(zone::local(announced.at_ms, &zone).date()).or_default() += 1;
    }
    days.into_values().max().unwrap_or(0)
}

proptest! {
    #[test]
    fn whatever_happens_announcements_keep_their_promises(history in any_history(), quiet in (0_u16..1440, 0_u16..1440)) {
        let lives_there = updated(|u| u.time_zone = FieldUpdate::Set("Europe/Dublin".into()));
        let mut case = Case::with(vec![(1, lives_there)]).quiet(quiet.0, quiet.1);
        case.policy.client_day_reminders_max = 2;
        let mut now = at("2026-03-20T00:00:00Z");
        let mut ids = std::collections::BTreeSet::new();
        for (hours, kind, a, ahead, flag) in history {
            now += hours * HOUR / 4;
            let (a, starts) = (format!("a{a}"), now + ahead * HOUR);
            case.events.push((now, match kind {
                0..=4 => AppointmentFact::Booked(Box::new(booking(&a, starts, Some("Europe/Dublin")))).into(),
                5..=6 => rescheduled(&a, starts),
                7 => cancelled(&a, None),
                8 => deleted(&a),
                9 => consents(&[(Channel::Email, flag)]),
                10 => requested(&a, vec![]),
                11..=12 => failed(&case.announced(), &a),
                _ => confirmed(&a),
            }));
            let client = case.client();
            for action in case.plan(now).actions {
                let ReminderAction::Announce(announce) = &action else { continue };
                prop_assert!(ids.insert(announce.reminder_id.clone()), "an id comes once");
                prop_assert!(now < announce.start.at_ms && now < announce.expires_at_ms);
                prop_assert!(client.appointments[&announce.appointment_id].status.is_open());
                let agreed = client.channels.as_ref().is_none_or(|all| {
                    announce.channels.iter().all(|one| all.iter().any(|c| c.consent && c.channel == *one))
                });
                prop_assert!(agreed && !announce.channels.is_empty());
                let local = zone::local(now, &zone::get("Europe/Dublin").unwrap());
                let minute = local.hour() as u16 * 60 + local.minute() as u16;
                let (from, to) = quiet;
                let silent = if from > to { minute >= from || minute < to } else { (from..to).contains(&minute) };
                prop_assert!(!silent || announce.step == plan::MANUAL, "{local} in {quiet:?}");
            }
            case.tick(now);
            prop_assert_eq!(twice(&case.announced(), &case.client()), None);
            prop_assert!(busiest_day(&case.announced()) <= case.policy.client_day_reminders_max as usize);
            prop_assert_eq!(case.plan(now).actions, vec![], "a plan that was carried out leaves nothing to do");
        }
    }
}
