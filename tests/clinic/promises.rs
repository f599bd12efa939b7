//! What people are promised about reminders, held one by one against what was heard: each by a look at the events
//! themselves, without the model and without the planner.

use super::heard::Heard;
use super::rules::{Key, Rules, What, instant_ms, is_quiet};
use super::timeline::{HOUR_MS, MINUTE_MS};
use foretell::event::appointment::{Booking, Change, StartsAt};
use foretell::event::{Event, Fact};
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

    /// The booking that holds, unless the appointment was off.
    fn placed(&self, key: &Key, appointment: &str, by_ms: i64) -> Option<Placed<'a>> {
        for event in self.latest(key, by_ms) {
            match &event.fact {
                Fact::Booked(booking) | Fact::Rescheduled(booking) if booking.appointment_id == appointment => {
                    return Some(Placed { booking, at_ms: event.envelope.time_ms });
                }
                Fact::Cancelled(off) if off.appointment_id == appointment => return None,
                Fact::Deleted(off) | Fact::Attended(off) | Fact::Missed(off) if off.appointment_id == appointment => {
                    return None;
                }
                Fact::ClientErased { .. } => return None,
                _ => {}
            }
        }
        None
    }

    /// A field of the profile, by the latest update that names it since the client was erased, if they ever were.
    fn profile<T: Clone>(&self, key: &Key, by_ms: i64, field: impl Fn(&Event) -> Option<Change<T>>) -> Option<T> {
        let since = self.latest(key, by_ms).take_while(|event| !matches!(event.fact, Fact::ClientErased { .. }));
        match since.filter_map(|event| field(event)).find(|change| !matches!(change, Change::Keep))? {
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
pub fn hold(events: &[Event], heard: &[Heard], rules: &Rules) -> Result<Held, String> {
    let said = Said::of(events);
    let mut held = Held::default();
    once(heard)?;
    for heard in heard {
        let broken = |promise: &str| format!("{promise}: {heard:?}");
        match &heard.told.what {
            What::Due { step, .. } => {
                let placed = said.placed(&heard.told.key, &heard.told.appointment, heard.at_ms);
                let placed = placed.ok_or_else(|| broken("announced for a visit that was off"))?;
                names_the_visit(&said, heard, &placed).map_err(|promise| broken(&promise))?;
                in_time(&said, heard, rules, &placed, &mut held).map_err(broken)?;
                agreed(&said, heard, rules).map_err(broken)?;
                held.announced += 1;
                held.by_hand += usize::from(step == "manual");
            }
            What::Withdrawn { start_ms, .. } => {
                let placed = said.placed(&heard.told.key, &heard.told.appointment, heard.at_ms);
                if placed.is_some_and(|placed| start(&said, heard, &placed).1 == *start_ms) {
                    return Err(broken("taken back, and the visit is on at that start"));
                }
                held.withdrawn += 1;
            }
        }
    }
    Ok(held)
}

/// Each id is announced once and taken back at most once after that; of a step for a start one holds at a time.
fn once(heard: &[Heard]) -> Result<(), String> {
    let (mut ids, mut gone, mut holding) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for heard in heard {
        let told = &heard.told;
        match &told.what {
            What::Due { step, start_ms, .. } => {
                if !ids.insert(&heard.reminder_id) {
                    return Err(format!("announced twice: {heard:?}"));
                }
                // What is asked for by hand may be asked for again.
                let slot = (&told.key, &told.appointment, step, start_ms);
                if step != "manual"
                    && let Some(other) = holding.insert(slot, heard)
                {
                    return Err(format!("announced twice for one start: {other:?} and {heard:?}"));
                }
            }
            What::Withdrawn { step, start_ms, .. } => {
                if !ids.contains(&heard.reminder_id) || !gone.insert(&heard.reminder_id) {
                    return Err(format!("taken back without having been announced: {heard:?}"));
                }
                holding.remove(&(&told.key, &told.appointment, step, start_ms));
            }
        }
    }
    Ok(())
}

/// Zone and instant of a booking. Without a zone it is in that of the booking before, or else of the client.
fn start(said: &Said<'_>, heard: &Heard, placed: &Placed<'_>) -> (String, i64) {
    match &placed.booking.starts_at {
        StartsAt::Local { local, zone } => {
            let wall_s = jiff::tz::Offset::UTC.to_timestamp(*local).expect("a time").as_second();
            (zone.clone(), instant_ms(wall_s, zone))
        }
        StartsAt::Instant { at_ms, zone: Some(zone) } => (zone.clone(), *at_ms),
        StartsAt::Instant { at_ms, zone: None } => {
            let key = &heard.told.key;
            let before =
                said.latest(key, placed.at_ms - 1).take_while(|e| !matches!(e.fact, Fact::ClientErased { .. }));
            let booked = before.filter_map(|event| match &event.fact {
                Fact::Booked(booking) | Fact::Rescheduled(booking) => Some((booking, event.envelope.time_ms)),
                _ => None,
            });
            let mut booked = booked.filter(|(booking, _)| booking.appointment_id == placed.booking.appointment_id);
            let zone = match booked.next() {
                Some((booking, at_ms)) => start(said, heard, &Placed { booking, at_ms }).0,
                None => said.zone(key, placed.at_ms).unwrap_or_else(|| "UTC".into()),
            };
            (zone, *at_ms)
        }
    }
}

/// The time on the clock is the one that was booked, and the instant the one at which clocks there show it.
fn names_the_visit(said: &Said<'_>, heard: &Heard, placed: &Placed<'_>) -> Result<(), String> {
    let What::Due { local_start, zone, start_ms, .. } = &heard.told.what else { return Ok(()) };
    let (booked_zone, booked_ms) = start(said, heard, placed);
    if (zone, *start_ms) != (&booked_zone, booked_ms) {
        return Err(format!("booked for {booked_ms} in {booked_zone}"));
    }
    let shown: jiff::civil::DateTime = local_start.parse().map_err(|error: jiff::Error| error.to_string())?;
    let wall_s = jiff::tz::Offset::UTC.to_timestamp(shown).expect("a time").as_second();
    if let StartsAt::Local { local, .. } = &placed.booking.starts_at
        && *local != shown
    {
        return Err(format!("booked for {local} on the clock"));
    }
    // Of a repeated hour the second time can be booked as an instant alone.
    let again_ms = wall_s * 1000 - super::rules::offset_s(start_ms.div_euclid(1000), zone) * 1000;
    let agrees = instant_ms(wall_s, zone) == *start_ms || again_ms == *start_ms;
    if agrees { Ok(()) } else { Err("the time on the clock is not at that instant".into()) }
}

/// Not before it is due, on the minute where nothing stands in the way, never in quiet hours nor after its end.
fn in_time(
    said: &Said<'_>,
    heard: &Heard,
    rules: &Rules,
    placed: &Placed<'_>,
    held: &mut Held,
) -> Result<(), &'static str> {
    let What::Due { step, zone, start_ms, .. } = &heard.told.what else { return Ok(()) };
    let (key, at_ms) = (&heard.told.key, heard.at_ms);
    let expires_ms = heard.expires_ms.unwrap_or(i64::MAX);
    if at_ms >= *start_ms || expires_ms > *start_ms || at_ms >= expires_ms {
        return Err("announced too late");
    }
    if step == "manual" {
        return Ok(());
    }
    let rule = rules.steps.iter().find(|rule| rule.id == step).ok_or("announced by no rule")?;
    let due_ms = start_ms - rule.before_hours * HOUR_MS;
    if at_ms < due_ms || due_ms < placed.at_ms {
        return Err("announced though it was due before the booking, or is not due yet");
    }
    let abroad = said.zone(key, at_ms);
    let quiet = said.profile(key, at_ms, |event| match &event.fact {
        Fact::ClientUpdated(update) => Some(update.quiet_hours.clone()),
        _ => None,
    });
    let (quiet, clock) = (quiet.unwrap_or(rules.quiet), abroad.as_ref().unwrap_or(zone));
    if is_quiet(at_ms, quiet, clock) {
        return Err("announced in quiet hours");
    }
    held.to_clients_abroad += usize::from(abroad.as_ref().is_some_and(|abroad| abroad != zone));
    // Whatever else was said of the client meanwhile may have put it off.
    let is_undisturbed = said.latest(key, at_ms).next().is_none_or(|event| event.envelope.time_ms < due_ms);
    if is_undisturbed && is_quiet(due_ms, quiet, clock) {
        held.after_quiet_hours += 1;
        let just_before = at_ms - MINUTE_MS;
        return if is_quiet(just_before, quiet, clock) { Ok(()) } else { Err("announced long after quiet hours") };
    }
    held.on_the_minute += usize::from(is_undisturbed);
    if is_undisturbed && at_ms - due_ms >= MINUTE_MS { Err("announced late") } else { Ok(()) }
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
