//! What people are promised about reminders, held one by one against what was heard: each by a look at the events
//! themselves, without the model and without the planner.

use super::heard::Heard;
use super::rules::{Decided, Key, Offset, Rules, Start, Step, What, day_of, instant_ms, is_quiet, offset_s};
use super::timeline::MINUTE_MS;
use foretell_events::appointment::{Booking, Change, StartsAt};
use foretell_events::{Event, Fact};
use std::collections::{BTreeMap, BTreeSet};

/// How often each promise had something to hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub announced: usize,
    pub by_hand: usize,
    pub withdrawn: usize,
    pub on_the_minute: usize,
    pub after_quiet_hours: usize,
    pub to_clients_abroad: usize,
    pub of_several_visits: usize,
    pub at_booking: usize,
    pub by_edited_rules: usize,
    pub with_a_reason: usize,
}

/// Events by client, in the order in which they were said.
pub struct Said<'a> {
    of: BTreeMap<Key, Vec<&'a Event>>,
}

/// What the events had said of an appointment by an instant.
struct Placed<'a> {
    booking: &'a Booking,
    at_ms: i64,
}

impl<'a> Said<'a> {
    pub fn of(events: &'a [Event]) -> Self {
        let mut of: BTreeMap<Key, Vec<&Event>> = BTreeMap::new();
        for event in events {
            let key = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
            of.entry(key).or_default().push(event);
        }
        Self { of }
    }

    /// What was said of a client by an instant, the latest first.
    fn latest(&self, key: &Key, by_ms: i64) -> impl Iterator<Item = &'a Event> {
        let said = self.of.get(key).map_or(&[][..], Vec::as_slice);
        said.iter().rev().copied().filter(move |event| event.envelope.time_ms <= by_ms)
    }

    /// The booking that holds, unless the appointment was off: of those that say the same start one after the other the
    /// first.
    fn placed(&self, key: &Key, appointment: &str, by_ms: i64) -> Option<Placed<'a>> {
        let mut placed: Option<Placed<'a>> = None;
        for event in self.latest(key, by_ms) {
            let at_ms = event.envelope.time_ms;
            match &event.fact {
                Fact::Booked(booking) | Fact::Rescheduled(booking) if booking.appointment_id == appointment => {
                    if placed.as_ref().is_some_and(|placed| placed.booking.starts_at != booking.starts_at) {
                        break;
                    }
                    placed = Some(Placed { booking, at_ms });
                }
                Fact::Cancelled(off) if off.appointment_id == appointment => break,
                Fact::Deleted(off) if off.appointment_id == appointment => break,
                // A booking that is said again after it changes nothing.
                Fact::Attended(over) | Fact::Missed(over) if over.appointment_id == appointment => return None,
                Fact::ClientErased { .. } => break,
                _ => {}
            }
        }
        placed
    }

    /// Whether the client has confirmed the visit since it was placed.
    fn is_confirmed(&self, key: &Key, appointment: &str, by_ms: i64) -> bool {
        let Some(placed) = self.placed(key, appointment, by_ms) else { return false };
        let since = self.latest(key, by_ms).take_while(|event| event.envelope.time_ms > placed.at_ms);
        since
            .filter_map(|event| match &event.fact {
                Fact::Confirmed(visit) => Some(visit),
                _ => None,
            })
            .any(|visit| visit.appointment_id == appointment)
    }

    /// A field of the profile, by the latest update that names it since the client was erased, if they ever were.
    fn profile<T: Clone>(&self, key: &Key, by_ms: i64, field: impl Fn(&Event) -> Option<Change<T>>) -> Option<T> {
        let since = self.latest(key, by_ms).take_while(|event| !matches!(event.fact, Fact::ClientErased { .. }));
        match since.filter_map(field).find(|change| !matches!(change, Change::Keep))? {
            Change::Set(value) => Some(value),
            Change::Keep | Change::Clear => None,
        }
    }

    fn zone(&self, key: &Key, by_ms: i64) -> Option<String> {
        self.profile(key, by_ms, |event| match &event.fact {
            Fact::ClientUpdated(update) => Some(update.time_zone.clone()),
            _ => None,
        })
    }
}

/// Holds everything that was heard against everything that was promised; answers how much there was to hold, or the
/// first thing that breaks a promise.
pub fn hold(events: &[Event], heard: &[Heard], decided: &Decided) -> Result<Held, String> {
    let said = Said::of(events);
    let mut held = Held::default();
    once(heard)?;
    let mut had = BTreeMap::<&Key, Vec<i64>>::new();
    for heard in heard {
        let (key, at_ms) = (&heard.told.key, heard.at_ms);
        let broken = |promise: &str| format!("{promise}: {heard:?}");
        let placed = said.placed(key, &heard.told.appointment, at_ms);
        match &heard.told.what {
            What::Due { step, others, .. } => {
                let placed = placed.ok_or_else(|| broken("announced for a visit that was off"))?;
                names_the_visit(&said, heard, &placed).map_err(|promise| broken(&promise))?;
                names_the_others(&said, heard, &placed, others).map_err(broken)?;
                let (rules, since_ms) = decided.at(&key.0, at_ms);
                agreed(&said, heard, rules).map_err(broken)?;
                held.announced += 1;
                if step == "manual" {
                    held.by_hand += 1;
                    in_time(heard).map_err(broken)?;
                    continue;
                }
                let had = had.entry(key).or_default();
                let due = Due::of(&said, heard, (rules, since_ms), &placed).map_err(broken)?;
                in_time(heard).and_then(|()| due.hold(&said, had, &mut held)).map_err(broken)?;
                held.of_several_visits += usize::from(!others.is_empty());
                held.at_booking += usize::from(matches!(due.step.offset, Offset::Booking));
                held.by_edited_rules += usize::from(since_ms > i64::MIN);
                had.push(at_ms);
            }
            What::Withdrawn { start_ms, .. } => {
                if placed.is_some_and(|placed| start(&said, key, &placed).at_ms == *start_ms) {
                    return Err(broken("taken back, and the visit is on at that start"));
                }
                held.withdrawn += 1;
            }
        }
    }
    Ok(held)
}

/// Each id is announced once and taken back at most once after that; of a step for a start one holds at a time. What is
/// taken back at the instant at which another one takes its place comes in the same append, in whatever order.
fn once(heard: &[Heard]) -> Result<(), String> {
    let is_taken_back = |heard: &&Heard| matches!(heard.told.what, What::Withdrawn { .. });
    let replaced: BTreeSet<_> = heard.iter().filter(is_taken_back).map(|h| (h.reminder_id.as_str(), h.at_ms)).collect();
    let (mut ids, mut holding) = (BTreeMap::new(), BTreeMap::new());
    for heard in heard {
        let (told, id) = (&heard.told, heard.reminder_id.as_str());
        match &told.what {
            What::Due { step, start_ms, others, .. } => {
                let own = (told.appointment.as_str(), *start_ms);
                let named = std::iter::once(own).chain(others.iter().map(|(other, ms)| (other.as_str(), *ms)));
                let slots: Vec<_> = named.map(|(visit, ms)| (&told.key, visit, step.as_str(), ms)).collect();
                if ids.contains_key(id) {
                    return Err(format!("announced twice: {heard:?}"));
                }
                for slot in &slots {
                    let before = holding.insert(*slot, id).filter(|before| !replaced.contains(&(*before, heard.at_ms)));
                    // What is asked for by hand may be asked for again.
                    if before.is_some() && step != "manual" {
                        return Err(format!("announced twice for one start: {slot:?} by {heard:?}"));
                    }
                }
                ids.insert(id, slots);
            }
            What::Withdrawn { .. } => {
                let slots = ids.get_mut(id);
                let slots = slots.filter(|slots| slots.iter().any(|(_, visit, ..)| *visit == told.appointment));
                let slots = slots.ok_or_else(|| format!("taken back without having been announced: {heard:?}"))?;
                // With its own visit all of it is taken back.
                let is_own = slots.first().is_some_and(|(_, visit, ..)| *visit == told.appointment);
                let gone: Vec<_> = slots.extract_if(.., |slot| is_own || slot.1 == told.appointment).collect();
                for slot in gone {
                    if holding.get(&slot) == Some(&id) {
                        holding.remove(&slot);
                    }
                }
            }
        }
    }
    Ok(())
}

/// When a booking begins. Without a zone it is in that of the booking before, or else of the client.
fn start(said: &Said<'_>, key: &Key, placed: &Placed<'_>) -> Start {
    if !matches!(placed.booking.starts_at, StartsAt::Instant { zone: None, .. }) {
        return Start::of(placed.booking, "");
    }
    let before = said.latest(key, placed.at_ms - 1).take_while(|e| !matches!(e.fact, Fact::ClientErased { .. }));
    let booked = before.filter_map(|event| match &event.fact {
        Fact::Booked(booking) | Fact::Rescheduled(booking) => Some((booking, event.envelope.time_ms)),
        _ => None,
    });
    let mut booked = booked.filter(|(booking, _)| booking.appointment_id == placed.booking.appointment_id);
    let zone = match booked.next() {
        Some((booking, at_ms)) => start(said, key, &Placed { booking, at_ms }).zone,
        None => said.zone(key, placed.at_ms).unwrap_or_else(|| "UTC".into()),
    };
    Start::of(placed.booking, &zone)
}

/// The time on the clock is the one that was booked, or to which clocks skip, and the instant the one at which clocks there show it.
fn names_the_visit(said: &Said<'_>, heard: &Heard, placed: &Placed<'_>) -> Result<(), String> {
    let What::Due { local_start, zone, start_ms, .. } = &heard.told.what else { return Ok(()) };
    let booked = start(said, &heard.told.key, placed);
    if (zone, *start_ms) != (&booked.zone, booked.at_ms) {
        return Err(format!("booked for {} in {}", booked.at_ms, booked.zone));
    }
    let shown: jiff::civil::DateTime = local_start.parse().map_err(|error: jiff::Error| error.to_string())?;
    let wall_s = jiff::tz::Offset::UTC.to_timestamp(shown).expect("a time").as_second();
    if wall_s != booked.wall_s {
        return Err(format!("booked for {:?}, which is not that on the clock", placed.booking.starts_at));
    }
    // Of a repeated hour the second time can be booked as an instant alone.
    let again_ms = (wall_s - offset_s(start_ms.div_euclid(1000), zone)) * 1000;
    let agrees = instant_ms(wall_s, zone) == *start_ms || again_ms == *start_ms;
    if agrees { Ok(()) } else { Err("the time on the clock is not at that instant".into()) }
}

/// Whatever else it names is on at that start, later on that day.
fn names_the_others(
    said: &Said<'_>,
    heard: &Heard,
    placed: &Placed<'_>,
    others: &[(String, i64)],
) -> Result<(), &'static str> {
    let key = &heard.told.key;
    let own = start(said, key, placed);
    for (other, start_ms) in others {
        let placed = said.placed(key, other, heard.at_ms).ok_or("names a visit that was off")?;
        let other = start(said, key, &placed);
        if other.at_ms != *start_ms {
            return Err("names a visit at another start");
        }
        if other.day() != own.day() || other.at_ms < own.at_ms {
            return Err("names a visit of another day, or an earlier one");
        }
    }
    Ok(())
}

/// Never at the start or after it, nor after its own end, which is at the start at the latest.
fn in_time(heard: &Heard) -> Result<(), &'static str> {
    let What::Due { start_ms, .. } = &heard.told.what else { return Ok(()) };
    let expires_ms = heard.expires_ms.unwrap_or(i64::MAX);
    let is_late = heard.at_ms >= *start_ms || expires_ms > *start_ms || heard.at_ms >= expires_ms;
    if is_late { Err("announced too late") } else { Ok(()) }
}

/// When a reminder was due, and by which rules.
struct Due<'a> {
    heard: &'a Heard,
    rules: &'a Rules,
    /// Since when these rules hold.
    since_ms: i64,
    step: &'a Step,
    due_ms: i64,
    placed_ms: i64,
    start: Start,
}

impl<'a> Due<'a> {
    fn of(
        said: &Said<'_>,
        heard: &'a Heard,
        (rules, since_ms): (&'a Rules, i64),
        placed: &Placed<'_>,
    ) -> Result<Self, &'static str> {
        let What::Due { step, .. } = &heard.told.what else { return Err("is no announcement") };
        let step = rules.steps.iter().find(|rule| rule.id == step).ok_or("announced by no rule")?;
        let start = start(said, &heard.told.key, placed);
        let due_ms = step.due_ms(&start, placed.at_ms);
        Ok(Self { heard, rules, since_ms, step, due_ms, placed_ms: placed.at_ms, start })
    }

    /// Not before it is due, on the minute where nothing stands in the way; never in quiet hours, too often on a day,
    /// too close to the start, or to somebody who has confirmed, where the step passes those over.
    fn hold(&self, said: &Said<'_>, had: &[i64], held: &mut Held) -> Result<(), &'static str> {
        let Self { heard, rules, due_ms, .. } = *self;
        let (key, at_ms) = (&heard.told.key, heard.at_ms);
        if at_ms < due_ms || due_ms < self.placed_ms {
            return Err("announced though it was due before the booking, or is not due yet");
        }
        let abroad = said.zone(key, at_ms);
        let clock = abroad.as_ref().unwrap_or(&self.start.zone);
        let quiet = said.profile(key, at_ms, |event| match &event.fact {
            Fact::ClientUpdated(update) => Some(update.quiet_hours.clone()),
            _ => None,
        });
        let quiet = quiet.unwrap_or(rules.quiet);
        if is_quiet(at_ms, quiet, clock) {
            return Err("announced in quiet hours");
        }
        let is_full = |at_ms: i64| {
            let day = day_of(at_ms, clock);
            had.iter().filter(|had_ms| day_of(**had_ms, clock) == day).count() >= rules.day_max
        };
        if is_full(at_ms) {
            return Err("one reminder too many of that day");
        }
        if at_ms >= self.start.at_ms - rules.notice_ms {
            return Err("announced too close to the start");
        }
        if self.step.skips_confirmed && said.is_confirmed(key, &heard.told.appointment, at_ms) {
            return Err("announced to somebody who has confirmed");
        }
        held.to_clients_abroad += usize::from(abroad.as_ref().is_some_and(|abroad| *abroad != self.start.zone));
        // Whatever else was said of the client, or decided, meanwhile may have put it off.
        let said_ms = said.latest(key, at_ms).next().map_or(i64::MIN, |event| event.envelope.time_ms);
        if said_ms.max(self.since_ms) >= due_ms || is_full(due_ms) {
            return Ok(());
        }
        if is_quiet(due_ms, quiet, clock) {
            held.after_quiet_hours += 1;
            let is_end = is_quiet(at_ms - MINUTE_MS, quiet, clock);
            return if is_end { Ok(()) } else { Err("announced long after quiet hours") };
        }
        held.on_the_minute += 1;
        if at_ms - due_ms >= MINUTE_MS { Err("announced late") } else { Ok(()) }
    }
}

/// By channels that the client agrees to, and by some.
fn agreed(said: &Said<'_>, heard: &Heard, rules: &Rules) -> Result<(), &'static str> {
    let What::Due { step, channels, .. } = &heard.told.what else { return Ok(()) };
    let own = said.profile(&heard.told.key, heard.at_ms, |event| match &event.fact {
        Fact::ClientUpdated(update) => Some(update.channels.clone()),
        _ => None,
    });
    let refused = |channel| own.as_ref().is_some_and(|own| !own.iter().any(|c| c.channel == channel && c.consent));
    if channels.is_empty() || channels.iter().any(|channel| refused(*channel)) {
        return Err("announced to somebody who did not agree");
    }
    let is_usual = own.is_some() || step == "manual" || *channels == rules.channels;
    if is_usual { Ok(()) } else { Err("announced by other channels than the usual ones") }
}
