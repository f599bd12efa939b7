//! What a policy can define for its steps: when, for which visits, grouped with what, how often, and what follows a
//! failure.

use crate::build::*;
use crate::plan::{Case, START, consents, requested, step};
use foretell_domain::remind::plan::{Announce, ReminderAction, ReminderStatus};
use foretell_domain::remind::policy::{ReminderPolicy, ReminderStep};
use foretell_domain::score::RiskLevel;
use foretell_events::Fact;
use foretell_events::appointment::{AppointmentFact, Booking, Channel, StartsAt};
use foretell_events::reminder::{Feedback, Risk};
use serde_json::json;

fn announces(actions: &[ReminderAction]) -> Vec<&Announce> {
    let mut announces = Vec::new();
    for action in actions {
        if let ReminderAction::Announce(announce) = action {
            announces.push(announce);
        }
    }
    announces
}

fn feedback(case: &Case, step: &str, channel: Option<Channel>) -> Box<Feedback> {
    let sent = case.announced();
    let of_step = sent.of("a").iter().filter(|announced| announced.step == step);
    let reminder_id = of_step.max_by_key(|announced| announced.at_ms).unwrap().reminder_id.clone();
    let (appointment_id, client_id) = ("a".into(), "c".into());
    Box::new(Feedback { reminder_id, appointment_id, client_id, channel, reason: Some("no answer".into()) })
}

fn risk(case: &mut Case, id: &str, level: RiskLevel) {
    case.risks.insert(id.into(), Risk { score: 0.5, level: level.name().into() });
}

/// Visits that were booked a month before, with a step a day before each.
fn day_of(visits: &[(&str, &str)]) -> Case {
    let booked = visits.iter().map(|(id, start)| (at("2026-05-10T12:00:00Z"), booked(id, at(start))));
    let mut case = Case::with(booked.collect());
    case.policy.steps = vec![step("24h", 24)];
    case
}

#[test]
fn days_keep_the_time_of_day_and_business_days_pass_over_weekends() {
    // Dublin's clocks go forward on Sunday 29 March 2026. The visit is on Tuesday 31 March, 09:30 local.
    let mut visit = booking("a", 0, None);
    visit.starts_at = StartsAt::Local { local: "2026-03-31T09:30:00".parse().unwrap(), zone: "Europe/Dublin".into() };
    let start_ms = at("2026-03-31T08:30:00Z");
    for (rule, due) in [
        (ReminderStep { before_hours: Some(72), ..ReminderStep::default() }, "2026-03-28T08:30:00Z"),
        (ReminderStep { before_days: Some(3), ..ReminderStep::default() }, "2026-03-28T09:30:00Z"),
        (ReminderStep { before_business_days: Some(1), ..ReminderStep::default() }, "2026-03-30T08:30:00Z"),
        (ReminderStep { before_business_days: Some(3), ..ReminderStep::default() }, "2026-03-26T09:30:00Z"),
    ] {
        let booked = AppointmentFact::Booked(Box::new(visit.clone())).into();
        let mut case = Case::with(vec![(at("2026-03-01T12:00:00Z"), booked)]);
        case.policy.steps = vec![ReminderStep { id: "s".into(), ..rule.clone() }];
        assert_eq!(case.tick(at(due) - 1), [""; 0], "{rule:?}");
        assert_eq!(case.tick(at(due)), ["+s"], "{rule:?}");
        assert!(case.policy.longest_ms() >= start_ms - at(due), "{rule:?}");
    }
}

#[test]
fn a_step_at_the_booking_confirms_it_and_its_moves_for_a_day() {
    let confirmation = ReminderStep { id: "confirmation".into(), at_booking: true, ..ReminderStep::default() };
    let mut case = Case::new();
    case.policy.steps.push(confirmation);
    assert_eq!(case.tick(at("2026-05-10T12:00:00Z")), ["+confirmation"]);
    case = case.then("2026-05-12T12:00:00Z", rescheduled("a", at(START) + DAY));
    assert_eq!(case.tick(at("2026-05-12T12:00:01Z")), ["-rescheduled", "+confirmation"]);
    // One that was booked long ago, and is imported now, is not confirmed.
    let mut late = Case::new();
    late.policy = case.policy.clone();
    assert_eq!(late.tick(at("2026-05-11T12:00:00Z")), [""; 0]);
    assert_eq!(late.tick(at("2026-05-11T11:59:59Z")), ["+confirmation"]);
}

#[test]
fn nightly_restatements_do_not_change_reminders() {
    let booked_ms = at("2026-05-10T12:00:00Z");
    let shown = |is_stated_again: bool| {
        let mut case = Case::new();
        case.policy.steps.push(ReminderStep { id: "confirmation".into(), at_booking: true, ..ReminderStep::default() });
        case = case.then("2026-06-01T12:00:00Z", confirmed("a"));
        let hours = (0..=31 * 24).map(|hour| {
            let now_ms = booked_ms + hour * HOUR;
            if is_stated_again && hour % 24 == 15 {
                case = std::mem::replace(&mut case, Case::new()).and(now_ms, booked("a", at(START)));
            }
            case.tick(now_ms)
        });
        hours.collect::<Vec<_>>()
    };
    let once = shown(false);
    assert_eq!(once.concat(), ["+confirmation", "+24h"], "the one at 72 hours is not for those who have confirmed");
    assert_eq!(shown(true), once);
}

#[test]
fn a_start_in_a_gap_is_announced_as_clocks_show_it_and_not_again_after_an_upgrade() {
    let mut booking = booking("a", 0, None);
    booking.starts_at = StartsAt::Local { local: "2026-03-29T02:30:00".parse().unwrap(), zone: "Europe/Berlin".into() };
    let due_ms = at("2026-03-28T01:30:00Z");
    let case =
        || Case::with(vec![(at("2026-03-01T12:00:00Z"), AppointmentFact::Booked(Box::new(booking.clone())).into())]);
    let actions = case().plan(due_ms).actions;
    let announced = announces(&actions);
    let start = &announced.first().expect("a reminder").start;
    assert_eq!((start.local(), start.at_ms), ("2026-03-29T03:30:00".parse().unwrap(), at("2026-03-29T01:30:00Z")));
    // Earlier versions wrote the booked time, also into the id.
    let mut before = announced[0].clone();
    before.reminder_id = "of the time that was booked".into();
    let mut upgraded = case();
    upgraded.fold(&ReminderAction::Announce(before), due_ms - 1);
    assert_eq!(upgraded.tick(due_ms), [""; 0]);
}

#[test]
fn a_step_for_a_level_is_for_visits_at_that_level_alone() {
    // Three business days before Wednesday 10 June.
    let due = at("2026-06-05T12:00:00Z");
    for (level, wanted) in [(None, vec![]), (Some(RiskLevel::Medium), vec![]), (Some(RiskLevel::High), vec!["+call"])] {
        let mut case = Case::new();
        level.into_iter().for_each(|level| risk(&mut case, "a", level));
        assert_eq!(case.tick(due), wanted, "{level:?}");
        let shown = case.story("2026-06-05T12:00:00Z", "a").iter().any(|(step, ..)| step == "call");
        assert_eq!(shown, level == Some(RiskLevel::High), "a step for others is none of the visit's");
    }
    // A visit at another level may be at this one when the step is due.
    let mut case = Case::new();
    risk(&mut case, "a", RiskLevel::Low);
    assert_eq!(case.plan(at("2026-06-01T00:00:00Z")).next_at_ms, Some(due));
    // If the level is unknown, it is read again until the step expires.
    let unknown = Case::new();
    for (now, next) in
        [(due - HOUR, due), (due, due + HOUR / 60), (at(START) - 72 * HOUR - HOUR / 60, at(START) - 72 * HOUR)]
    {
        assert_eq!(unknown.plan(now).next_at_ms, Some(next), "{now}");
    }
    // It does not end the time of the steps for all levels.
    risk(&mut case, "a", RiskLevel::High);
    assert_eq!(case.tick(at(START) - 72 * HOUR), ["+72h"], "the call's time was over when the next step was due");
}

#[test]
fn confirmed_visits_get_fewer() {
    let mut case = Case::new().then("2026-06-01T00:00:00Z", confirmed("a"));
    assert_eq!(case.tick(at(START) - 72 * HOUR), [""; 0]);
    assert_eq!(case.story("2026-06-07T12:00:00Z", "a")[0].2.as_deref(), Some("confirmed"));
    assert_eq!(case.tick(at(START) - 24 * HOUR), ["+24h"]);
}

#[test]
fn nothing_is_announced_within_the_notice() {
    let mut case = Case::new();
    case.policy.notice_minutes_min = 60;
    let last = at(START) - HOUR;
    assert_eq!(announces(&case.plan(last - 1).actions).len(), 1);
    assert_eq!(case.tick(last), [""; 0]);
    let story = case.story("2026-06-10T11:30:00Z", "a");
    assert_eq!(story[1], ("24h".into(), ReminderStatus::Suppressed, Some("minimum_notice".into())));
}

#[test]
fn visits_of_a_day_share_a_reminder_that_the_first_of_them_carries() {
    let mut case = day_of(&[("b", "2026-06-10T16:00:00Z"), ("a", START), ("z", "2026-06-11T00:00:00Z")]);
    let due = at(START) - 24 * HOUR;
    let actions = case.plan(due).actions;
    let [announce] = announces(&actions)[..] else { panic!("{actions:?}") };
    let named: Vec<_> = announce.visits.iter().map(|visit| visit.appointment_id.as_str()).collect();
    assert_eq!((announce.appointment_id.as_str(), named), ("a", vec!["a", "b"]));
    assert_eq!(case.tick(due), ["+24h"]);
    let shown = |case: &Case, id: &str| case.story("2026-06-09T13:00:00Z", id).pop().unwrap();
    assert_eq!(shown(&case, "b"), ("24h".into(), ReminderStatus::Sent, Some("grouped".into())));
    // Neither its own due time nor a later tick announces it again.
    assert_eq!(case.tick(due + 4 * HOUR), [""; 0]);
    assert_eq!(case.tick(due + 12 * HOUR), ["+24h"], "z is of the next day");
    // A visit that is added to it gets its own reminder, and one that is cancelled is withdrawn alone.
    case = case.then("2026-06-09T01:00:00Z", booked("d", at("2026-06-10T18:00:00Z")));
    case = case.then("2026-06-10T01:00:00Z", cancelled("b", None));
    assert_eq!(case.tick(at("2026-06-10T01:00:00Z")), ["-cancelled", "+24h"]);
    let of_b = case.story("2026-06-10T02:00:00Z", "b");
    assert_eq!(of_b[0], ("24h".into(), ReminderStatus::Withdrawn, Some("cancelled".into())));
    assert_eq!(shown(&case, "a").1, ReminderStatus::Sent);
    // With the visit that carries it all of it is void, and the others are announced again.
    let mut case = day_of(&[("b", "2026-06-10T16:00:00Z"), ("a", START)]);
    assert_eq!(case.tick(due), ["+24h"]);
    case = case.then("2026-06-10T01:00:00Z", cancelled("a", None));
    assert_eq!(case.tick(at("2026-06-10T01:00:00Z")), ["-cancelled", "+24h"]);
    assert_eq!(case.tick(at("2026-06-10T01:00:01Z")), [""; 0]);
    // Separately, if the policy requires it.
    let mut case = day_of(&[("b", "2026-06-10T16:00:00Z"), ("a", START)]);
    case.policy.group_same_day = false;
    assert_eq!(case.tick(due), ["+24h"]);
    assert_eq!(case.tick(due + 4 * HOUR), ["+24h"]);
}

#[test]
fn a_visit_with_no_time_left_does_not_lead_its_day() {
    // The first starts while it is quiet, the second does not.
    let mut case = day_of(&[("a", "2026-06-10T06:00:00Z"), ("b", "2026-06-10T16:00:00Z")]).quiet(20 * 60, 8 * 60);
    case.policy.steps = vec![step("8h", 8)];
    assert_eq!(case.tick(at("2026-06-09T22:00:00Z")), [""; 0]);
    assert_eq!(case.story("2026-06-09T22:00:00Z", "a")[0].2.as_deref(), Some("quiet_hours"));
    assert_eq!(case.tick(at("2026-06-10T08:00:00Z")), ["+8h"]);
}

#[test]
fn a_client_gets_so_many_reminders_a_day_and_the_next_one_another_day() {
    let starts = ["2026-06-10T12:00:00Z", "2026-06-11T11:00:00Z", "2026-06-12T12:00:00Z"];
    let mut case = day_of(&[("a", starts[0]), ("b", starts[1]), ("d", starts[2])]);
    case.policy.steps = vec![step("24h", 24), step("48h", 48), step("30h", 30)];
    case.policy.client_day_reminders_max = 1;
    assert_eq!(case.tick(at("2026-06-09T06:00:00Z")), ["+30h"]);
    assert_eq!(case.tick(at("2026-06-09T12:00:00Z")), [""; 0]);
    let story = case.story("2026-06-09T12:00:00Z", "a");
    assert_eq!(story.last().unwrap(), &("24h".into(), ReminderStatus::Deferred, Some("frequency_cap".into())));
    // Manual reminders are not limited.
    case = case.then("2026-06-09T12:00:00Z", requested("a", vec![]));
    assert_eq!(case.tick(at("2026-06-09T12:00:01Z")), ["+manual"]);
    // The next day has one again, and a visit for which that is too late has none.
    assert_eq!(case.tick(at("2026-06-10T00:00:00Z")), ["+24h"]);
    assert_eq!(case.story("2026-06-10T11:00:00Z", "b").last().unwrap().1, ReminderStatus::Deferred);
    case.policy.notice_minutes_min = 12 * 60;
    assert_eq!(case.story("2026-06-10T11:00:00Z", "b").last().unwrap().2.as_deref(), Some("frequency_cap"));
}

#[test]
fn a_failure_leads_to_the_next_channels_as_often_as_the_policy_allows() {
    let all = [(Channel::Whatsapp, true), (Channel::Sms, true), (Channel::Email, true), (Channel::Call, false)];
    let mut case = Case::new().then("2026-05-11T00:00:00Z", consents(&all));
    let due = at(START) - 24 * HOUR;
    assert_eq!(case.tick(due), ["+24h"]);
    let mut ids = vec![];
    for (minute, wanted) in [(1, vec![Channel::Sms, Channel::Email]), (2, vec![Channel::Email])] {
        let at_text = format!("2026-06-09T12:0{minute}:00Z");
        let channel = case.announced().of("a").last().unwrap().channels[0];
        let failed = feedback(&case, "24h", Some(channel));
        case = case.then(&at_text, AppointmentFact::ReminderFailed(failed).into());
        let actions = case.plan(at(&at_text)).actions;
        let [announce] = announces(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!(announce.channels, wanted);
        ids.push(announce.reminder_id.clone());
        case.tick(at(&at_text));
        assert_eq!(case.tick(at(&at_text) + 1), [""; 0]);
    }
    assert_ne!(ids[0], ids[1]);
    let mut over = case.then("2026-06-09T13:00:00Z", AppointmentFact::ReminderDelivered(by_email(&ids[1])).into());
    assert_eq!(over.tick(at("2026-06-09T13:00:01Z")), [""; 0]);
    over = over.then("2026-06-09T13:10:00Z", AppointmentFact::ReminderFailed(by_email(&ids[1])).into());
    assert_eq!(over.tick(at("2026-06-09T13:10:01Z")), [""; 0]);
    // All remaining channels are refused, or the policy allows no further attempt.
    for (fallbacks_max, channel) in [(0, Some(Channel::Whatsapp)), (2, None)] {
        let mut case = Case::new().then("2026-05-11T00:00:00Z", consents(&all));
        case.policy.fallbacks_max = fallbacks_max;
        case.tick(due);
        let failed = feedback(&case, "24h", channel);
        case = case.then("2026-06-09T12:01:00Z", AppointmentFact::ReminderFailed(failed).into());
        assert_eq!(case.tick(at("2026-06-09T12:02:00Z")), [""; 0]);
        let story = case.story("2026-06-09T12:02:00Z", "a");
        assert_eq!(story[1], ("24h".into(), ReminderStatus::Failed, Some("delivery_failed".into())));
    }
}

/// About a reminder of the visit `a`, by e-mail.
fn by_email(reminder_id: &str) -> Box<Feedback> {
    let (reminder_id, appointment_id, client_id) = (reminder_id.into(), "a".into(), "c".into());
    let (channel, reason) = (Some(Channel::Email), None);
    Box::new(Feedback { reminder_id, appointment_id, client_id, channel, reason })
}

#[test]
fn a_client_who_answers_has_confirmed_and_was_reached() {
    let mut case = Case::new();
    assert_eq!(case.tick(at(START) - 72 * HOUR), ["+72h"]);
    let answered = feedback(&case, "72h", Some(Channel::Sms));
    let failed = feedback(&case, "72h", Some(Channel::Whatsapp));
    case = case.then("2026-06-07T13:00:00Z", AppointmentFact::ReminderConfirmed(answered).into());
    case = case.then("2026-06-07T14:00:00Z", AppointmentFact::ReminderFailed(failed).into());
    assert_eq!(case.tick(at("2026-06-07T14:00:01Z")), [""; 0], "it was read elsewhere");
    case.policy.steps.iter_mut().for_each(|step| step.skip_confirmed = true);
    assert_eq!(case.tick(at(START) - 24 * HOUR), [""; 0]);
}

#[test]
fn what_was_sent_stays_in_the_story_when_its_step_goes() {
    let mut case = Case::new();
    assert_eq!(case.tick(at(START) - 72 * HOUR), ["+72h"]);
    let delivered = feedback(&case, "72h", Some(Channel::Sms));
    case = case.then("2026-06-07T13:00:00Z", AppointmentFact::ReminderDelivered(delivered).into());
    let before = case.story("2026-06-07T14:00:00Z", "a");
    case.policy.steps.retain(|step| step.id == "24h");
    let after = case.story("2026-06-07T14:00:00Z", "a");
    assert_eq!(after, before.into_iter().filter(|(step, ..)| step != "call").collect::<Vec<_>>());
    assert!(after.contains(&("72h".into(), ReminderStatus::Sent, None)), "{after:?}");
    case.policy.steps.clear();
    assert_eq!(case.story("2026-06-07T14:00:00Z", "a"), [("72h".into(), ReminderStatus::Sent, None)]);
    assert_eq!(case.tick(at("2026-06-07T14:00:00Z")), [""; 0], "and is not taken back");
}

#[test]
fn a_channel_that_is_requested_twice_is_announced_once() {
    let mut case = Case::new().then("2026-06-06T13:00:00Z", requested("a", vec![Channel::Sms; 3]));
    let plan = case.plan(at("2026-06-06T13:00:01Z"));
    let [ReminderAction::Announce(announce)] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!(announce.channels, [Channel::Sms]);
    assert_eq!(case.tick(at("2026-06-06T13:00:01Z")), ["+manual"]);
}

#[test]
fn a_visit_at_the_end_of_all_years_is_announced_as_its_clocks_show_it() {
    // A quarter to midnight UTC on the last day: already the next year in Kiritimati.
    let start_ms = at("2100-12-31T23:45:00Z");
    let starts_at = StartsAt::Instant { at_ms: start_ms, zone: Some("Pacific/Kiritimati".into()) };
    let Fact::Appointment(AppointmentFact::Booked(booking)) = booked("a", start_ms) else { panic!("a booking") };
    let booking = Booking { starts_at, ..*booking };
    let mut case = Case::with(vec![(start_ms - 30 * DAY, AppointmentFact::Booked(Box::new(booking)).into())]);
    assert_eq!(case.tick(start_ms - 24 * HOUR), ["+24h"]);
}

#[test]
fn documents_that_cannot_be_used_are_refused_at_their_place() {
    let base = ReminderPolicy::default();
    let step = |step: serde_json::Value| json!({"steps": [step]});
    assert_eq!(ReminderPolicy::read(&json!({}), &base).unwrap(), base);
    let two = json!({"steps": [{"id": "a", "before_days": 1}, {"id": "a", "before_days": 2}]});
    for (document, pointer) in [
        (step(json!({"id": "a"})), "/steps/0"),
        (step(json!({"id": "a", "before_hours": 1, "before_days": 1})), "/steps/0"),
        (step(json!({"id": "manual", "before_hours": 1})), "/steps/0/id"),
        (step(json!({"id": "A", "before_hours": 1})), "/steps/0/id"),
        (step(json!({"id": "a", "before_hours": 0})), "/steps/0/before_hours"),
        (step(json!({"id": "a", "before_hours": 721})), "/steps/0/before_hours"),
        (step(json!({"id": "a", "before_business_days": 21})), "/steps/0/before_business_days"),
        (step(json!({"id": "a", "before_days": 1, "levels": ["unscored"]})), "/steps/0/levels"),
        (step(json!({"id": "a", "before_days": 1, "levels": ["great"]})), "/steps/0/levels/0"),
        (step(json!({"id": "a", "before_days": 1, "channels": ["pigeon"]})), "/steps/0/channels/0"),
        (step(json!({"id": "a", "before_days": 1, "expires_minutes": 0})), "/steps/0/expires_minutes"),
        (two, "/steps/1/id"),
        (step(json!({"id": "a", "before_days": 1, "channels": ["sms", "call", "sms"]})), "/steps/0/channels"),
        (json!({"channels_default": []}), "/channels_default"),
        (json!({"channels_default": ["sms", "sms"]}), "/channels_default"),
        (json!({"quiet_hours_default": {"from_minute": 1440, "to_minute": 0}}), "/quiet_hours_default/from_minute"),
        (json!({"client_day_reminders_max": 0}), "/client_day_reminders_max"),
        (json!({"business_days": []}), "/business_days"),
        (json!({"business_days": ["monday", "monday"]}), "/business_days"),
        (json!({"steps": null}), ""),
        (json!({"quiet_hours_default": null}), ""),
        (json!({"fallbacks_max": 5}), "/fallbacks_max"),
        (json!({"notice": 5}), ""),
        (json!([]), ""),
    ] {
        let invalid = ReminderPolicy::read(&document, &base).unwrap_err();
        assert!(invalid.pointer.starts_with(pointer), "{document}: {invalid}");
    }
}
