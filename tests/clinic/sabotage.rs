//! A witness that cannot fail is none: each promise is broken here, and the witness must say which.

use super::heard::Heard;
use super::promises;
use super::rules::{Decided, Model, Offset, Rules, Told, What};
use super::timeline::{DAY_MS, HOUR_MS, JULY_MS, MINUTE_MS, Size, Timeline};
use super::{in_directory, live};
use foretell_domain::remind::policy::Policy;
use foretell_events::appointment::{Change, ClientUpdate, QuietHours, StartsAt};
use foretell_events::{Event, Fact};

const SIZE: Size = Size { seed: 7, appointments: 3_000, begin_ms: JULY_MS, days: 240 };

/// Those of the settings, and one reminder a day.
fn rules() -> Rules {
    Rules { day_max: 1, ..super::rules() }
}

/// What a planner would announce who goes by these rules and hears this: at each instant at once.
fn announced(events: &[Event], base: Rules) -> Vec<Heard> {
    let mut model = Model::new(Decided { base, edits: Vec::new() });
    let mut heard = Vec::new();
    let mut tell = |model: &mut Model, at_ms: i64| {
        let mut due = model.due(at_ms);
        // What was announced for a start is taken back before it is announced for another.
        due.sort_by_key(|told| matches!(told.what, What::Due { .. }));
        for told in due {
            let reminder_id = match &told.what {
                What::Due { .. } => heard.len().to_string(),
                What::Withdrawn { step, start_ms, .. } => holding(&heard, &told, step, *start_ms),
            };
            let expires_ms = match &told.what {
                What::Due { start_ms, .. } => Some(*start_ms),
                What::Withdrawn { .. } => None,
            };
            heard.push(Heard { at_ms, reminder_id, told, expires_ms });
        }
    };
    for event in events {
        let at_ms = event.envelope.time_ms;
        while let Some(due_ms) = model.next_ms().filter(|due_ms| *due_ms < at_ms) {
            tell(&mut model, due_ms);
        }
        model.hear(event);
        tell(&mut model, at_ms);
    }
    heard
}

/// The id of what a withdrawal takes back: of a step for one start the latest is the one that holds.
fn holding(heard: &[Heard], told: &Told, of_step: &str, of_start_ms: i64) -> String {
    let names = |heard: &Heard| match &heard.told.what {
        What::Due { step, start_ms, others, .. } => {
            let own = (&heard.told.appointment, start_ms);
            let mut named = others.iter().map(|(other, start_ms)| (other, start_ms)).chain([own]);
            step == of_step && named.any(|named| named == (&told.appointment, &of_start_ms))
        }
        What::Withdrawn { .. } => false,
    };
    let is_gone = |id: &str| {
        let mut gone = heard.iter().filter(|heard| heard.reminder_id == id);
        gone.any(|heard| {
            matches!(heard.told.what, What::Withdrawn { .. }) && heard.told.appointment == told.appointment
        })
    };
    let of_client = heard.iter().rev().filter(|heard| heard.told.key == told.key && names(heard));
    let mut holding = of_client.filter(|heard| !is_gone(&heard.reminder_id));
    holding.next().map(|heard| heard.reminder_id.clone()).expect("what is taken back was announced")
}

/// What was heard if every event was heard as `hears` has it; none is not heard at all.
fn deaf(hears: impl Fn(&Event) -> Option<Fact>) -> Vec<Heard> {
    let said = Timeline::of(SIZE).events;
    let heard = said.iter().filter_map(|event| Some(Event { fact: hears(event)?, ..event.clone() }));
    announced(&heard.collect::<Vec<_>>(), rules())
}

fn by(change: impl FnOnce(&mut Rules)) -> Vec<Heard> {
    let mut changed = rules();
    change(&mut changed);
    announced(&Timeline::of(SIZE).events, changed)
}

fn sound() -> Vec<Heard> {
    by(|_| {})
}

/// What is heard when one announcement that matters is another one.
fn with(change: impl FnOnce(&mut Vec<Heard>, usize)) -> Vec<Heard> {
    let is_step = |what: &What| matches!(what, What::Due { step, others, .. } if step == "24h" && others.is_empty());
    with_one(is_step, change)
}

fn with_one(is_it: impl Fn(&What) -> bool, change: impl FnOnce(&mut Vec<Heard>, usize)) -> Vec<Heard> {
    let mut heard = sound();
    let at = heard.iter().position(|heard| is_it(&heard.told.what)).expect("a reminder");
    change(&mut heard, at);
    heard
}

fn is_shared(what: &What) -> bool {
    matches!(what, What::Due { others, .. } if !others.is_empty())
}

/// Another start of a further visit that is named.
fn another_visit(heard: &mut Heard, change: impl Fn(&mut (String, i64))) {
    if let What::Due { others, .. } = &mut heard.told.what {
        others.first_mut().into_iter().for_each(change);
    }
}

fn update(event: &Event, forget: impl Fn(&mut ClientUpdate)) -> Option<Fact> {
    let Fact::ClientUpdated(update) = &event.fact else { return Some(event.fact.clone()) };
    let mut update = update.clone();
    forget(&mut update);
    Some(Fact::ClientUpdated(update))
}

/// The start of an announcement, by another hour.
fn an_hour_wrong(heard: &mut Heard) {
    if let What::Due { start_ms, .. } = &mut heard.told.what {
        *start_ms -= HOUR_MS;
    }
}

fn another_clock(heard: &mut Heard) {
    if let What::Due { local_start, .. } = &mut heard.told.what {
        *local_start = local_start.replace(":00:00", ":01:00").replace(":30:00", ":31:00");
    }
}

fn quiet(from: u16, to: u16) -> QuietHours {
    QuietHours { from_minute: from * 60, to_minute: to * 60 }
}

/// How each promise is broken, and what the witness must say of it.
fn broken() -> Vec<(&'static str, Vec<Heard>)> {
    let cancelled = |event: &Event| (!matches!(event.fact, Fact::Cancelled(_))).then(|| event.fact.clone());
    let moved = |event: &Event| (!matches!(event.fact, Fact::Rescheduled(_))).then(|| event.fact.clone());
    let erased = |event: &Event| (!matches!(event.fact, Fact::ClientErased { .. })).then(|| event.fact.clone());
    vec![
        ("announced twice: ", with(|heard, at| heard.push(heard[at].clone()))),
        (
            "announced twice for one start",
            with(|heard, at| {
                heard.push(Heard { reminder_id: "another".into(), ..heard[at].clone() });
            }),
        ),
        ("visit that was off", deaf(cancelled)),
        // They come again, as somebody of whom nothing is known.
        ("other channels", deaf(erased)),
        ("booked for", deaf(moved)),
        ("booked for", with(|heard, at| an_hour_wrong(&mut heard[at]))),
        ("on the clock", with(|heard, at| another_clock(&mut heard[at]))),
        ("in quiet hours", by(|rules| rules.quiet = quiet(22, 8))),
        ("in quiet hours", by(|rules| rules.quiet = quiet(21, 7))),
        ("in quiet hours", deaf(|event| update(event, |update| update.quiet_hours = Change::Keep))),
        ("long after quiet hours", by(|rules| rules.quiet = quiet(21, 9))),
        ("not due yet", by(|rules| rules.steps[1].offset = Offset::Hours(25))),
        ("announced late", by(|rules| rules.steps[1].offset = Offset::Hours(23))),
        ("too late", with(|heard, at| heard[at].at_ms = heard[at].expires_ms.expect("a reminder"))),
        ("too late", with(|heard, at| heard[at].expires_ms = heard[at].expires_ms.map(|ms| ms + DAY_MS))),
        (
            "too close to the start",
            with(|heard, at| heard[at].at_ms = heard[at].expires_ms.expect("one") - 30 * MINUTE_MS),
        ),
        ("one reminder too many", by(|rules| rules.day_max = 64)),
        ("has confirmed", by(|rules| rules.steps[0].skips_confirmed = false)),
        (
            "names a visit that was off",
            with_one(is_shared, |heard, at| {
                another_visit(&mut heard[at], |other| other.0 = "unheard of".into());
            }),
        ),
        (
            "names a visit at another start",
            with_one(is_shared, |heard, at| {
                another_visit(&mut heard[at], |other| other.1 += HOUR_MS);
            }),
        ),
        (
            "announced twice for one start",
            with_one(is_shared, |heard, at| {
                let What::Due { others, .. } = heard[at].told.what.clone() else { return };
                let mut again = Heard { reminder_id: "another".into(), ..heard[at].clone() };
                again.told.appointment.clone_from(&others[0].0);
                heard.insert(at + 1, again);
            }),
        ),
        ("did not agree", deaf(|event| update(event, |update| update.channels = Change::Keep))),
        (
            "taken back, and the visit is on",
            with(|heard, at| {
                let What::Due { step, start_ms, .. } = heard[at].told.what.clone() else { return };
                let mut back = heard[at].clone();
                back.told.what = What::Withdrawn { step, start_ms, reason: "cancelled" };
                heard.insert(at + 1, back);
            }),
        ),
        (
            "without having been announced",
            with(|heard, _| {
                let back = heard.iter().find(|heard| matches!(heard.told.what, What::Withdrawn { .. })).cloned();
                heard.push(back.expect("something is taken back"));
            }),
        ),
    ]
}

fn decided() -> Decided {
    Decided { base: rules(), edits: Vec::new() }
}

#[test]
fn the_witness_accepts_what_the_rules_say() {
    let held = promises::hold(&Timeline::of(SIZE).events, &sound(), &decided()).unwrap();
    assert!(held.announced > 2_000 && held.withdrawn > 100 && held.after_quiet_hours > 100, "{held:?}");
}

#[test]
fn the_witness_refuses_whatever_breaks_a_promise() {
    let events = Timeline::of(SIZE).events;
    for (nth, (promise, heard)) in broken().into_iter().enumerate() {
        let refused = promises::hold(&events, &heard, &decided()).expect_err(promise);
        assert!(refused.contains(promise), "{nth}: {promise} is not why it was refused: {refused}");
    }
}

#[test]
fn the_witness_refuses_reminders_by_the_clock_of_the_visit_for_a_client_abroad() {
    let mut events = Timeline::of(SIZE).events;
    // In the zone of the client are those visits whose booking names none: their start would be wrong as well.
    events.retain(|event| match &event.fact {
        Fact::Booked(booking) | Fact::Rescheduled(booking) => {
            !matches!(booking.starts_at, StartsAt::Instant { zone: None, .. })
        }
        _ => true,
    });
    let at_home = |event: &Event| update(event, |update| update.time_zone = Change::Keep);
    let heard = events.iter().filter_map(|event| Some(Event { fact: at_home(event)?, ..event.clone() }));
    let heard = announced(&heard.collect::<Vec<_>>(), rules());
    let refused = promises::hold(&events, &heard, &decided()).expect_err("their nights are others");
    assert!(refused.contains("in quiet hours"), "{refused}");
}

/// The planner itself, by other rules than those of the witness.
#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_goes_by_other_quiet_hours_is_caught() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = in_directory(directory.path());
    let policy = Policy { quiet_hours_default: quiet(21, 7), ..config.reminders.policy.clone() };
    config.reminders.policy = policy;
    let refused = live(config, (Size { appointments: 400, days: 40, ..SIZE }, Vec::new()), (1, 1)).await;
    let refused = refused.err().expect("reminders an hour too early are caught");
    assert!(refused.contains("announced and not due"), "{refused}");
}
