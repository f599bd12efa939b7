//! Appointments: each scored once, at its booking or the day before, and judged when its outcome is known.

use super::{AppointmentOptions, At, Measure, Progress, Summary};
use crate::event::appointment::Booking;
use crate::event::{Event, Fact};
use crate::score::metrics::Case;
use crate::score::no_show::{self, Evidence};
use crate::source::Loaded;
use crate::view::client::{self, Appointment, Appointments, Client, Start, Status};
use crate::view::lead::{self, Lead};
use crate::view::materialized::Materialized;
use crate::view::{Aggregate, Place};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    appointment_id: &'a str,
    score: f64,
    outcome: Option<&'static str>,
    lead_days: i32,
}

/// Replays a file of appointments. `out` gets a line of JSON for each scored one, in the order of scoring but only
/// at the end, when the outcomes are known; `progress` gets how many events of all are done.
///
/// Errors are those of `out`.
pub fn appointments(
    loaded: &Loaded,
    options: &AppointmentOptions,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Summary> {
    let mut replay = Replay::new(options);
    let mut progress = Progress { tell: progress, total: loaded.events.len() };
    for (offset, sourced) in loaded.events.iter().enumerate() {
        replay.take(&sourced.event, offset as i64);
        progress.done(offset + 1);
    }
    replay.score_due(i64::MAX);
    for scored in &replay.scored {
        serde_json::to_writer(&mut *out, &replay.line(scored))?;
        out.write_all(b"\n")?;
    }
    Ok(Summary { rows: loaded.rows, skipped: loaded.skipped, ..replay.summary() })
}

/// An appointment among those of all tenants and clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id {
    tenant: String,
    client_id: String,
    appointment_id: String,
}

/// An appointment that was scored.
struct Scored {
    id: Id,
    score: f64,
    level: &'static str,
    lead_days: i32,
    booked_at_ms: i64,
}

/// What became of an appointment.
#[derive(Default)]
struct Course {
    is_scored: bool,
    /// The last outcome that it had.
    outcome: Option<&'static str>,
}

/// The rows so far, and what was scored from them.
struct Replay<'a> {
    options: &'a AppointmentOptions,
    rows: Materialized<Appointments>,
    scored: Vec<Scored>,
    courses: HashMap<Id, Course>,
    /// Whom to score when, by time.
    due: BTreeSet<(i64, Id)>,
}

impl<'a> Replay<'a> {
    fn new(options: &'a AppointmentOptions) -> Self {
        let rows = Materialized::new(Appointments { limits: options.limits.clone() });
        Self { options, rows, scored: Vec::new(), courses: HashMap::new(), due: BTreeSet::new() }
    }

    fn take(&mut self, event: &Event, offset: i64) {
        // What happens at the moment of a score is known by then.
        self.score_due(event.envelope.time_ms);
        let id = Id::of(event);
        if let (At::Booking, Some(id), Fact::Booked(booking)) = (self.options.at, &id, &event.fact) {
            self.score_booking(id, booking, event.envelope.time_ms);
        }
        self.rows.take(event, Place { partition: 0, offset });
        let Some(id) = id else { return };
        if self.options.at == At::DayBefore && matches!(event.fact, Fact::Booked(_) | Fact::Rescheduled(_)) {
            let moment = self.appointment(&id).and_then(day_before);
            self.due.extend(moment.map(|at_ms| (at_ms, id.clone())));
        }
        self.note_outcome(id);
    }

    fn client(&self, id: &Id) -> Option<&Client> {
        self.rows.owner(&client::row_key(&id.tenant, &id.client_id))
    }

    fn appointment(&self, id: &Id) -> Option<&Appointment> {
        self.client(id)?.appointments.get(&id.appointment_id)
    }

    /// An outcome stays noted when a reschedule begins another visit under the same id.
    fn note_outcome(&mut self, id: Id) {
        if let Some(outcome) = self.appointment(&id).and_then(outcome) {
            self.courses.entry(id).or_default().outcome = Some(outcome);
        }
    }

    fn score_booking(&mut self, id: &Id, booking: &Booking, time_ms: i64) {
        let zone = self.client(id).and_then(|client| client.time_zone.clone());
        let zone = zone.unwrap_or_else(|| self.options.limits.time_zone_default.clone());
        let booked_at_ms = booking.booked_at_ms.unwrap_or(time_ms);
        let lead_days = Start::of(&booking.starts_at, zone).lead_days(booked_at_ms);
        self.score(id, lead_days, booked_at_ms);
    }

    /// Scores what came due before `now_ms` and is still on, unless it was moved to another day.
    fn score_due(&mut self, now_ms: i64) {
        while let Some((at_ms, id)) = self.due.pop_first() {
            if at_ms >= now_ms {
                self.due.insert((at_ms, id));
                return;
            }
            let is_on = |visit: &&Appointment| visit.status.is_open() && day_before(visit) == Some(at_ms);
            if let Some(visit) = self.appointment(&id).filter(is_on) {
                let (lead_days, booked_at_ms) = (visit.lead_days().unwrap_or_default(), visit.booked_at_ms);
                self.score(&id, lead_days, booked_at_ms);
            }
        }
    }

    /// Scores an appointment from the rows as they are, unless it was scored before.
    fn score(&mut self, id: &Id, lead_days: i32, booked_at_ms: i64) {
        if self.courses.get(id).is_some_and(|course| course.is_scored) {
            return;
        }
        let lead = self.lead(&id.tenant);
        let evidence = Evidence { client: self.client(id), lead: &lead, lead_days };
        let no_show::Score { score, level, .. } = no_show::score(&evidence, &self.options.score);
        self.courses.entry(id.clone()).or_default().is_scored = true;
        self.scored.push(Scored { id: id.clone(), score, level: level.name(), lead_days, booked_at_ms });
    }

    fn lead(&self, tenant: &str) -> Lead {
        let mut lead = Lead::default();
        for partial in self.rows.partials(&lead::row_key(tenant)) {
            if let Aggregate::Lead(partial) = partial {
                lead.merge(partial);
            }
        }
        lead
    }

    fn line<'s>(&self, scored: &'s Scored) -> Line<'s> {
        let Scored { id, score, lead_days, .. } = scored;
        let outcome = self.courses.get(id).and_then(|course| course.outcome);
        Line { appointment_id: &id.appointment_id, score: *score, outcome, lead_days: *lead_days }
    }

    fn summary(&self) -> Summary {
        let count = self.scored.len() as u64;
        let mut summary = Summary { lines: count, scored: count, ..Summary::default() };
        self.scored.iter().for_each(|scored| summary.answered(scored.level));
        let until_ms = self.options.train_until_ms;
        let later = self.scored.iter().filter(|scored| until_ms.is_none_or(|until| scored.booked_at_ms > until));
        let (mut all, mut ahead) = (Vec::new(), Vec::new());
        for Line { score, outcome, lead_days, .. } in later.map(|scored| self.line(scored)) {
            let Some("attended" | "missed") = outcome else { continue };
            let case = Case { score, positive: outcome == Some(Status::Missed.name()) };
            all.push(case);
            ahead.extend((lead_days >= 1).then_some(case));
        }
        if !all.is_empty() {
            summary.measures = vec![Measure::of("overall", &all), Measure::of("lead >= 1 day", &ahead)];
        }
        summary
    }
}

impl Id {
    fn of(event: &Event) -> Option<Self> {
        let appointment_id = client::appointment_id(&event.fact)?.to_owned();
        let (tenant, client_id) = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
        Some(Self { tenant, client_id, appointment_id })
    }
}

/// See [`At::DayBefore`]; none for a visit on the day of its booking.
fn day_before(visit: &Appointment) -> Option<i64> {
    let start = visit.start.as_ref().filter(|_| visit.lead_days() >= Some(1))?;
    Some(visit.booked_at_ms.max(start.at_ms - DAY_MS))
}

/// How a visit went, in the words of a client's history; none while it is not known.
fn outcome(visit: &Appointment) -> Option<&'static str> {
    match visit.status {
        Status::Booked | Status::Confirmed => None,
        Status::Cancelled if visit.is_late_cancelled() => Some("late_cancelled"),
        status => Some(status.name()),
    }
}
