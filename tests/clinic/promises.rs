//! The promises about reminders, each checked for itself against the announcements and the events, without the model
//! and without the planner.

use super::observed::Observed;
use super::rules::{Decided, Key, Offset, Rules, Start, Step, What, day_of, instant_ms, is_quiet, offset_s};
use super::timeline::MINUTE_MS;
use foretell_events::appointment::{AppointmentFact, Booking, FieldUpdate, StartsAt};
use foretell_events::{Event, Fact};
use std::collections::{BTreeMap, BTreeSet};

/// How often each promise was checked.
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

/// Events by client, in their order of time.
pub struct History<'a> {
    of: BTreeMap<Key, Vec<&'a Event>>,
}

/// What the events state about an appointment at an instant.
struct Placed<'a> {
    booking: &'a Booking,
    at_ms: i64,
}

impl<'a> History<'a> {
    pub fn of(events: &'a [Event]) -> Self {
        let mut of: BTreeMap<Key, Vec<&Event>> = BTreeMap::new();
        for event in events {
            let key = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
            of.entry(key).or_default().push(event);
        }
        Self { of }
    }

    /// Events of a client up to an instant, the latest first.
    fn latest(&self, key: &Key, by_ms: i64) -> impl Iterator<Item = &'a Event> {
        let history = self.of.get(key).map_or(&[][..], Vec::as_slice);
        history.iter().rev().copied().filter(move |event| event.envelope.time_ms <= by_ms)
    }

    /// The booking in force, unless the appointment was cancelled: of consecutive ones with the same start, the first.
    fn placed(&self, key: &Key, appointment: &str, by_ms: i64) -> Option<Placed<'a>> {
        let mut placed: Option<Placed<'a>> = None;
        for event in self.latest(key, by_ms) {
            let at_ms = event.envelope.time_ms;
            match &event.fact {
                Fact::Appointment(AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking))
                    if booking.appointment_id == appointment =>
                {
                    if placed.as_ref().is_some_and(|placed| placed.booking.starts_at != booking.starts_at) {
                        break;
                    }
                    placed = Some(Placed { booking, at_ms });
                }
                Fact::Appointment(AppointmentFact::Cancelled(off)) if off.appointment_id == appointment => break,
                Fact::Appointment(AppointmentFact::Deleted(off)) if off.appointment_id == appointment => break,
                // A booking that is repeated after the outcome changes nothing.
                Fact::Appointment(AppointmentFact::Attended(over) | AppointmentFact::Missed(over))
                    if over.appointment_id == appointment =>
                {
                    return None;
                }
                Fact::Appointment(AppointmentFact::ClientErased(_)) => break,
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
                Fact::Appointment(AppointmentFact::Confirmed(visit)) => Some(visit),
                _ => None,
            })
            .any(|visit| visit.appointment_id == appointment)
    }

    /// A field of the profile, by the latest update with this field since the client was erased, if it was.
    fn profile<T: Clone>(&self, key: &Key, by_ms: i64, field: impl Fn(&Event) -> Option<FieldUpdate<T>>) -> Option<T> {
        let since = self
            .latest(key, by_ms)
            .take_while(|event| !matches!(event.fact, Fact::Appointment(AppointmentFact::ClientErased(_))));
        match since.filter_map(field).find(|change| !matches!(change, FieldUpdate::Keep))? {
            FieldUpdate::Set(value) => Some(value),
            FieldUpdate::Keep | FieldUpdate::Clear => None,
        }
    }

    fn zone(&self, key: &Key, by_ms: i64) -> Option<String> {
        self.profile(key, by_ms, |event| match &event.fact {
            Fact::Appointment(AppointmentFact::ClientUpdated(update)) => Some(update.time_zone.clone()),
            _ => None,
        })
    }
}

/// Checks all promises against everything that was observed; returns how often each was checked, or the first
/// violation.
pub fn hold(events: &[Event], observed: &[Observed], decided: &Decided) -> Result<Held, String> {
    let history = History::of(events);
    let mut held = Held::default();
    once(observed)?;
    let mut had = BTreeMap::<&Key, Vec<i64>>::new();
    for observed in observed {
        let (key, at_ms) = (&observed.entry.key, observed.at_ms);
        let broken = |promise: &str| format!("{promise}: {observed:?}");
        let placed = history.placed(key, &observed.entry.appointment, at_ms);
        match &observed.entry.what {
            What::Due { step, others, .. } => {
                let placed = placed.ok_or_else(|| broken("announced for a visit that was off"))?;
                names_the_visit(&history, observed, &placed).map_err(|promise| broken(&promise))?;
                names_the_others(&history, observed, &placed, others).map_err(broken)?;
                let (rules, since_ms) = decided.at(&key.0, at_ms);
                agreed(&history, observed, rules).map_err(broken)?;
                held.announced += 1;
                if step == "manual" {
                    held.by_hand += 1;
                    in_time(observed).map_err(broken)?;
                    continue;
                }
                let had = had.entry(key).or_default();
                let due = Due::of(&history, observed, (rules, since_ms), &placed).map_err(broken)?;
                in_time(observed).and_then(|()| due.hold(&history, had, &mut held)).map_err(broken)?;
                held.of_several_visits += usize::from(!others.is_empty());
                held.at_booking += usize::from(matches!(due.step.offset, Offset::Booking));
                held.by_edited_rules += usize::from(since_ms > i64::MIN);
                had.push(at_ms);
            }
            What::Withdrawn { start_ms, .. } => {
                if placed.is_some_and(|placed| start(&history, key, &placed).at_ms == *start_ms) {
                    return Err(broken("taken back, and the visit is on at that start"));
                }
                held.withdrawn += 1;
            }
        }
    }
    Ok(held)
}

/// Each id is announced once and withdrawn at most once after that; for a step and a start only one is active at a
/// time. A withdrawal and the announcement that replaces it come in the same append, in either order.
fn once(observed: &[Observed]) -> Result<(), String> {
    let is_taken_back = |observed: &&Observed| matches!(observed.entry.what, What::Withdrawn { .. });
    let replaced: BTreeSet<_> =
        observed.iter().filter(is_taken_back).map(|h| (h.reminder_id.as_str(), h.at_ms)).collect();
    let (mut ids, mut holding) = (BTreeMap::new(), BTreeMap::new());
    for observed in observed {
        let (entry, id) = (&observed.entry, observed.reminder_id.as_str());
        match &entry.what {
            What::Due { step, start_ms, others, .. } => {
                let own = (entry.appointment.as_str(), *start_ms);
                let named = std::iter::once(own).chain(others.iter().map(|(other, ms)| (other.as_str(), *ms)));
                let slots: Vec<_> = named.map(|(visit, ms)| (&entry.key, visit, step.as_str(), ms)).collect();
                if ids.contains_key(id) {
                    return Err(format!("announced twice: {observed:?}"));
                }
                for slot in &slots {
                    let before =
                        holding.insert(*slot, id).filter(|before| !replaced.contains(&(*before, observed.at_ms)));
                    // A manual reminder may be requested again.
                    if before.is_some() && step != "manual" {
                        return Err(format!("announced twice for one start: {slot:?} by {observed:?}"));
                    }
                }
                ids.insert(id, slots);
            }
            What::Withdrawn { .. } => {
                let slots = ids.get_mut(id);
                let slots = slots.filter(|slots| slots.iter().any(|(_, visit, ..)| *visit == entry.appointment));
                let slots = slots.ok_or_else(|| format!("taken back without having been announced: {observed:?}"))?;
                // A withdrawal for its own visit withdraws all of it.
                let is_own = slots.first().is_some_and(|(_, visit, ..)| *visit == entry.appointment);
                let gone: Vec<_> = slots.extract_if(.., |slot| is_own || slot.1 == entry.appointment).collect();
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

/// The start of a booking. Without a zone it uses that of the previous booking, or else of the client.
fn start(history: &History<'_>, key: &Key, placed: &Placed<'_>) -> Start {
    if !matches!(placed.booking.starts_at, StartsAt::Instant { zone: None, .. }) {
        return Start::of(placed.booking, "");
    }
    let before = history
        .latest(key, placed.at_ms - 1)
        .take_while(|e| !matches!(e.fact, Fact::Appointment(AppointmentFact::ClientErased(_))));
    let booked = before.filter_map(|event| match &event.fact {
        Fact::Appointment(AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking)) => {
            Some((booking, event.envelope.time_ms))
        }
        _ => None,
    });
    let mut booked = booked.filter(|(booking, _)| booking.appointment_id == placed.booking.appointment_id);
    let zone = match booked.next() {
        Some((booking, at_ms)) => start(history, key, &Placed { booking, at_ms }).zone,
        None => history.zone(key, placed.at_ms).unwrap_or_else(|| "UTC".into()),
    };
    Start::of(placed.booking, &zone)
}

/// The local time is the booked one, or the one to which clocks skip, and the instant is when clocks there show it.
fn names_the_visit(history: &History<'_>, observed: &Observed, placed: &Placed<'_>) -> Result<(), String> {
    let What::Due { local_start, zone, start_ms, .. } = &observed.entry.what else { return Ok(()) };
    let booked = start(history, &observed.entry.key, placed);
    if (zone, *start_ms) != (&booked.zone, booked.at_ms) {
        return Err(format!("booked for {} in {}", booked.at_ms, booked.zone));
    }
    let shown: jiff::civil::DateTime = local_start.parse().map_err(|error: jiff::Error| error.to_string())?;
    let wall_s = jiff::tz::Offset::UTC.to_timestamp(shown).expect("a time").as_second();
    if wall_s != booked.wall_s {
        return Err(format!("booked for {:?}, which is not that on the clock", placed.booking.starts_at));
    }
    // The second occurrence of a repeated hour can only be booked as an instant.
    let again_ms = (wall_s - offset_s(start_ms.div_euclid(1000), zone)) * 1000;
    let agrees = instant_ms(wall_s, zone) == *start_ms || again_ms == *start_ms;
    if agrees { Ok(()) } else { Err("the time on the clock is not at that instant".into()) }
}

/// Every other visit that it mentions is active at that start, later on that day.
fn names_the_others(
    history: &History<'_>,
    observed: &Observed,
    placed: &Placed<'_>,
    others: &[(String, i64)],
) -> Result<(), &'static str> {
    let key = &observed.entry.key;
    let own = start(history, key, placed);
    for (other, start_ms) in others {
        let placed = history.placed(key, other, observed.at_ms).ok_or("names a visit that was off")?;
        let other = start(history, key, &placed);
        if other.at_ms != *start_ms {
            return Err("names a visit at another start");
        }
        if other.day() != own.day() || other.at_ms < own.at_ms {
            return Err("names a visit of another day, or an earlier one");
        }
    }
    Ok(())
}

/// Never at the start or after it, nor after its own expiry, which is at the start at the latest.
fn in_time(observed: &Observed) -> Result<(), &'static str> {
    let What::Due { start_ms, .. } = &observed.entry.what else { return Ok(()) };
    let expires_ms = observed.expires_ms.unwrap_or(i64::MAX);
    let is_late = observed.at_ms >= *start_ms || expires_ms > *start_ms || observed.at_ms >= expires_ms;
    if is_late { Err("announced too late") } else { Ok(()) }
}

/// When a reminder was due, and under which rules.
struct Due<'a> {
    observed: &'a Observed,
    rules: &'a Rules,
    /// When these rules took effect.
    since_ms: i64,
    step: &'a Step,
    due_ms: i64,
    placed_ms: i64,
    start: Start,
}

impl<'a> Due<'a> {
    fn of(
        history: &History<'_>,
        observed: &'a Observed,
        (rules, since_ms): (&'a Rules, i64),
        placed: &Placed<'_>,
    ) -> Result<Self, &'static str> {
        let What::Due { step, .. } = &observed.entry.what else { return Err("is no announcement") };
        let step = rules.steps.iter().find(|rule| rule.id == step).ok_or("announced by no rule")?;
        let start = start(history, &observed.entry.key, placed);
        let due_ms = step.due_ms(&start, placed.at_ms);
        Ok(Self { observed, rules, since_ms, step, due_ms, placed_ms: placed.at_ms, start })
    }

    /// Not before it is due, and on the minute if nothing prevents it; never in quiet hours, too often on a day, too
    /// close to the start, or to a client who has confirmed, if the step skips those.
    fn hold(&self, history: &History<'_>, had: &[i64], held: &mut Held) -> Result<(), &'static str> {
        let Self { observed, rules, due_ms, .. } = *self;
        let (key, at_ms) = (&observed.entry.key, observed.at_ms);
        if at_ms < due_ms || due_ms < self.placed_ms {
            return Err("announced though it was due before the booking, or is not due yet");
        }
        let abroad = history.zone(key, at_ms);
        let clock = abroad.as_ref().unwrap_or(&self.start.zone);
        let quiet = history.profile(key, at_ms, |event| match &event.fact {
            Fact::Appointment(AppointmentFact::ClientUpdated(update)) => Some(update.quiet_hours.clone()),
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
        if self.step.skips_confirmed && history.is_confirmed(key, &observed.entry.appointment, at_ms) {
            return Err("announced to a client who has confirmed");
        }
        held.to_clients_abroad += usize::from(abroad.as_ref().is_some_and(|abroad| *abroad != self.start.zone));
        // Any other event of the client, or a new policy, may have deferred it.
        let latest_ms = history.latest(key, at_ms).next().map_or(i64::MIN, |event| event.envelope.time_ms);
        if latest_ms.max(self.since_ms) >= due_ms || is_full(due_ms) {
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

/// Through channels that the client agrees to, and at least one.
fn agreed(history: &History<'_>, observed: &Observed, rules: &Rules) -> Result<(), &'static str> {
    let What::Due { step, channels, .. } = &observed.entry.what else { return Ok(()) };
    let own = history.profile(&observed.entry.key, observed.at_ms, |event| match &event.fact {
        Fact::Appointment(AppointmentFact::ClientUpdated(update)) => Some(update.channels.clone()),
        _ => None,
    });
    let refused = |channel| own.as_ref().is_some_and(|own| !own.iter().any(|c| c.channel == channel && c.consent));
    if channels.is_empty() || channels.iter().any(|channel| refused(*channel)) {
        return Err("announced to a client who did not agree");
    }
    let is_usual = own.is_some() || step == "manual" || *channels == rules.channels;
    if is_usual { Ok(()) } else { Err("announced by other channels than the usual ones") }
}
