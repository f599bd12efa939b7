//! Tests of the checks: each promise is broken here, and the check must report which one.

use super::observed::Observed;
use super::promises;
use super::rules::{Decided, Entry, Model, Offset, Rules, What};
use super::timeline::{DAY_MS, HOUR_MS, JULY_MS, MINUTE_MS, Size, Timeline};
use super::{in_directory, live};
use foretell_domain::remind::policy::ReminderPolicy;
use foretell_events::appointment::{AppointmentFact, ClientUpdate, FieldUpdate, QuietHours, StartsAt};
use foretell_events::{Event, Fact};

const SIZE: Size = Size { seed: 7, appointments: 3_000, begin_ms: JULY_MS, days: 240 };

/// The rules of the settings, with one reminder a day.
fn rules() -> Rules {
    Rules { day_max: 1, ..super::rules() }
}

/// What a planner with these rules would announce for these events: immediately at each instant.
fn announced(events: &[Event], base: Rules) -> Vec<Observed> {
    let mut model = Model::new(Decided { base, edits: Vec::new() });
    let mut observed = Vec::new();
    let mut announce = |model: &mut Model, at_ms: i64| {
        let mut due = model.due(at_ms);
        // Withdrawals for a start come before announcements for another one.
        due.sort_by_key(|entry| matches!(entry.what, What::Due { .. }));
        for entry in due {
            let reminder_id = match &entry.what {
                What::Due { .. } => observed.len().to_string(),
                What::Withdrawn { step, start_ms, .. } => holding(&observed, &entry, step, *start_ms),
            };
            let expires_ms = match &entry.what {
                What::Due { start_ms, .. } => Some(*start_ms),
                What::Withdrawn { .. } => None,
            };
            observed.push(Observed { at_ms, reminder_id, entry, expires_ms });
        }
    };
    for event in events {
        let at_ms = event.envelope.time_ms;
        while let Some(due_ms) = model.next_ms().filter(|due_ms| *due_ms < at_ms) {
            announce(&mut model, due_ms);
        }
        model.observe(event);
        announce(&mut model, at_ms);
    }
    observed
}

/// The id that a withdrawal refers to: the latest of a step for one start is the active one.
fn holding(observed: &[Observed], entry: &Entry, of_step: &str, of_start_ms: i64) -> String {
    let names = |observed: &Observed| match &observed.entry.what {
        What::Due { step, start_ms, others, .. } => {
            let own = (&observed.entry.appointment, start_ms);
            let mut named = others.iter().map(|(other, start_ms)| (other, start_ms)).chain([own]);
            step == of_step && named.any(|named| named == (&entry.appointment, &of_start_ms))
        }
        What::Withdrawn { .. } => false,
    };
    let is_gone = |id: &str| {
        let mut gone = observed.iter().filter(|observed| observed.reminder_id == id);
        gone.any(|observed| {
            matches!(observed.entry.what, What::Withdrawn { .. }) && observed.entry.appointment == entry.appointment
        })
    };
    let of_client = observed.iter().rev().filter(|observed| observed.entry.key == entry.key && names(observed));
    let mut holding = of_client.filter(|observed| !is_gone(&observed.reminder_id));
    holding.next().map(|observed| observed.reminder_id.clone()).expect("what is taken back was announced")
}

/// The announcements if every event was received as `received` returns it; events without a result are not received.
fn received_as(received: impl Fn(&Event) -> Option<Fact>) -> Vec<Observed> {
    let events = Timeline::of(SIZE).events;
    let observed = events.iter().filter_map(|event| Some(Event { fact: received(event)?, ..event.clone() }));
    announced(&observed.collect::<Vec<_>>(), rules())
}

fn by(change: impl FnOnce(&mut Rules)) -> Vec<Observed> {
    let mut changed = rules();
    change(&mut changed);
    announced(&Timeline::of(SIZE).events, changed)
}

fn sound() -> Vec<Observed> {
    by(|_| {})
}

/// The announcements with one relevant announcement changed.
fn with(change: impl FnOnce(&mut Vec<Observed>, usize)) -> Vec<Observed> {
    let is_step = |what: &What| matches!(what, What::Due { step, others, .. } if step == "24h" && others.is_empty());
    with_one(is_step, change)
}

fn with_one(is_it: impl Fn(&What) -> bool, change: impl FnOnce(&mut Vec<Observed>, usize)) -> Vec<Observed> {
    let mut observed = sound();
    let at = observed.iter().position(|observed| is_it(&observed.entry.what)).expect("a reminder");
    change(&mut observed, at);
    observed
}

fn is_shared(what: &What) -> bool {
    matches!(what, What::Due { others, .. } if !others.is_empty())
}

/// Changes a further visit that is mentioned.
fn another_visit(observed: &mut Observed, change: impl Fn(&mut (String, i64))) {
    if let What::Due { others, .. } = &mut observed.entry.what {
        others.first_mut().into_iter().for_each(change);
    }
}

fn update(event: &Event, forget: impl Fn(&mut ClientUpdate)) -> Option<Fact> {
    let Fact::Appointment(AppointmentFact::ClientUpdated(update)) = &event.fact else {
        return Some(event.fact.clone());
    };
    let mut update = update.clone();
    forget(&mut update);
    Some(AppointmentFact::ClientUpdated(update).into())
}

/// Moves the start of an announcement by an hour.
fn an_hour_wrong(observed: &mut Observed) {
    if let What::Due { start_ms, .. } = &mut observed.entry.what {
        *start_ms -= HOUR_MS;
    }
}

fn another_clock(observed: &mut Observed) {
    if let What::Due { local_start, .. } = &mut observed.entry.what {
        *local_start = local_start.replace(":00:00", ":01:00").replace(":30:00", ":31:00");
    }
}

fn quiet(from: u16, to: u16) -> QuietHours {
    QuietHours { from_minute: from * 60, to_minute: to * 60 }
}

/// Each promise broken, and the error that the check must report.
fn broken() -> Vec<(&'static str, Vec<Observed>)> {
    let cancelled = |event: &Event| {
        (!matches!(event.fact, Fact::Appointment(AppointmentFact::Cancelled(_)))).then(|| event.fact.clone())
    };
    let moved = |event: &Event| {
        (!matches!(event.fact, Fact::Appointment(AppointmentFact::Rescheduled(_)))).then(|| event.fact.clone())
    };
    let erased = |event: &Event| {
        (!matches!(event.fact, Fact::Appointment(AppointmentFact::ClientErased(_)))).then(|| event.fact.clone())
    };
    vec![
        ("announced twice: ", with(|observed, at| observed.push(observed[at].clone()))),
        (
            "announced twice for one start",
            with(|observed, at| {
                observed.push(Observed { reminder_id: "another".into(), ..observed[at].clone() });
            }),
        ),
        ("visit that was off", received_as(cancelled)),
        // The client comes again as a new one.
        ("other channels", received_as(erased)),
        ("booked for", received_as(moved)),
        ("booked for", with(|observed, at| an_hour_wrong(&mut observed[at]))),
        ("on the clock", with(|observed, at| another_clock(&mut observed[at]))),
        ("in quiet hours", by(|rules| rules.quiet = quiet(22, 8))),
        ("in quiet hours", by(|rules| rules.quiet = quiet(21, 7))),
        ("in quiet hours", received_as(|event| update(event, |update| update.quiet_hours = FieldUpdate::Keep))),
        ("long after quiet hours", by(|rules| rules.quiet = quiet(21, 9))),
        ("not due yet", by(|rules| rules.steps[1].offset = Offset::Hours(25))),
        ("announced late", by(|rules| rules.steps[1].offset = Offset::Hours(23))),
        ("too late", with(|observed, at| observed[at].at_ms = observed[at].expires_ms.expect("a reminder"))),
        ("too late", with(|observed, at| observed[at].expires_ms = observed[at].expires_ms.map(|ms| ms + DAY_MS))),
        (
            "too close to the start",
            with(|observed, at| observed[at].at_ms = observed[at].expires_ms.expect("one") - 30 * MINUTE_MS),
        ),
        ("one reminder too many", by(|rules| rules.day_max = 64)),
        ("has confirmed", by(|rules| rules.steps[0].skips_confirmed = false)),
        (
            "names a visit that was off",
            with_one(is_shared, |observed, at| {
                another_visit(&mut observed[at], |other| other.0 = "unknown".into());
            }),
        ),
        (
            "names a visit at another start",
            with_one(is_shared, |observed, at| {
                another_visit(&mut observed[at], |other| other.1 += HOUR_MS);
            }),
        ),
        (
            "announced twice for one start",
            with_one(is_shared, |observed, at| {
                let What::Due { others, .. } = observed[at].entry.what.clone() else { return };
                let mut again = Observed { reminder_id: "another".into(), ..observed[at].clone() };
                again.entry.appointment.clone_from(&others[0].0);
                observed.insert(at + 1, again);
            }),
        ),
        ("did not agree", received_as(|event| update(event, |update| update.channels = FieldUpdate::Keep))),
        (
            "taken back, and the visit is on",
            with(|observed, at| {
                let What::Due { step, start_ms, .. } = observed[at].entry.what.clone() else { return };
                let mut back = observed[at].clone();
                back.entry.what = What::Withdrawn { step, start_ms, reason: "cancelled" };
                observed.insert(at + 1, back);
            }),
        ),
        (
            "without having been announced",
            with(|observed, _| {
                let back =
                    observed.iter().find(|observed| matches!(observed.entry.what, What::Withdrawn { .. })).cloned();
                observed.push(back.expect("something is taken back"));
            }),
        ),
    ]
}

fn decided() -> Decided {
    Decided { base: rules(), edits: Vec::new() }
}

#[test]
fn the_check_accepts_what_the_rules_require() {
    let held = promises::hold(&Timeline::of(SIZE).events, &sound(), &decided()).unwrap();
    assert!(held.announced > 2_000 && held.withdrawn > 100 && held.after_quiet_hours > 100, "{held:?}");
}

#[test]
fn the_check_rejects_every_broken_promise() {
    let events = Timeline::of(SIZE).events;
    for (nth, (promise, observed)) in broken().into_iter().enumerate() {
        let refused = promises::hold(&events, &observed, &decided()).expect_err(promise);
        assert!(refused.contains(promise), "{nth}: {promise} is not why it was refused: {refused}");
    }
}

#[test]
fn the_check_rejects_reminders_in_local_time_of_the_visit_for_a_client_abroad() {
    let mut events = Timeline::of(SIZE).events;
    // Only visits whose booking has no zone use the zone of the client: their start would be wrong as well.
    events.retain(|event| match &event.fact {
        Fact::Appointment(AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking)) => {
            !matches!(booking.starts_at, StartsAt::Instant { zone: None, .. })
        }
        _ => true,
    });
    let at_home = |event: &Event| update(event, |update| update.time_zone = FieldUpdate::Keep);
    let observed = events.iter().filter_map(|event| Some(Event { fact: at_home(event)?, ..event.clone() }));
    let observed = announced(&observed.collect::<Vec<_>>(), rules());
    let refused = promises::hold(&events, &observed, &decided()).expect_err("their nights differ");
    assert!(refused.contains("in quiet hours"), "{refused}");
}

/// The planner itself, with rules that differ from the model's.
#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_goes_by_other_quiet_hours_is_caught() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = in_directory(directory.path());
    let policy = ReminderPolicy { quiet_hours_default: quiet(21, 7), ..config.reminders.policy.clone() };
    config.reminders.policy = policy;
    let refused = Box::pin(live(config, (Size { appointments: 400, days: 40, ..SIZE }, Vec::new()), (1, 1))).await;
    let refused = refused.err().expect("reminders an hour too early are caught");
    assert!(refused.contains("announced and not due"), "{refused}");
}
