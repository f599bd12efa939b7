//! Appointments: each scored once at each start, at its booking or the day before, and judged when its outcome there
//! is known.
//!
//! With `train_until` each tenant with enough history gets a model at that time, learnt from what was known by then;
//! until then, and of the others, two counters answer. Outcomes that arrive later only recalibrate it, once a day of
//! the replay, by the function that calibrates in service.

use super::{AppointmentOptions, At, Measure, Progress, Summary, Taught};
use crate::source::Loaded;
use crate::train::history::History;
use crate::train::moments::{Moment, Replay, Visit};
use crate::train::{self, Lesson};
use foretell_domain::score::metrics::Case;
use foretell_domain::score::no_show::calibration::{self, Calibration, Recent};
use foretell_domain::score::no_show::model::Model;
use foretell_domain::score::no_show::{self, Evidence, Score, Trained};
use foretell_domain::view::client::{Appointment, Status};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::ControlFlow;

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    appointment_id: &'a str,
    score: f64,
    outcome: Option<&'static str>,
    lead_days: u16,
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
    let mut judge = Judge::new(options);
    // A model learns from both moments, whichever is judged.
    let both = [At::Booking, At::DayBefore];
    let one = [options.at];
    let moments: &[At] = if options.train_until_ms.is_some() { &both } else { &one };
    let mut replay = Replay::new(options.limits.clone(), options.partitions, moments);
    let mut progress = Progress { tell: progress, total: loaded.events.len() };
    for (offset, sourced) in loaded.events.iter().enumerate() {
        let event = &sourced.event;
        judge.learn_before(event.envelope.time_ms, &mut replay);
        replay.take(event, offset as i64, &mut |replay, moment| judge.score(replay, &moment));
        judge.hear(event, &replay);
        progress.done(offset + 1);
    }
    replay.until(i64::MAX, &mut |replay, moment| judge.score(replay, &moment));
    for scored in &judge.scored {
        serde_json::to_writer(&mut *out, &judge.line(scored))?;
        out.write_all(b"\n")?;
    }
    Ok(Summary { rows: loaded.rows, skipped: loaded.skipped, ..judge.summary() })
}

/// An appointment that was scored.
struct Scored {
    visit: Visit,
    score: f64,
    level: &'static str,
    lead_days: u16,
    booked_at_ms: i64,
}

/// A tenant's model, and how it is corrected on a day of the replay.
struct Taken {
    model: Model,
    calibration: Calibration,
    /// Days since the epoch.
    day: i64,
}

/// Scores moments, and learns from them until it is told to stop.
struct Judge<'a> {
    options: &'a AppointmentOptions,
    /// What is learnt from; none where nothing is, or nothing more.
    history: Option<History>,
    models: BTreeMap<String, Taken>,
    taught: Vec<Taught>,
    scored: Vec<Scored>,
    /// The last outcome that each visit had.
    outcomes: HashMap<Visit, &'static str>,
}

impl<'a> Judge<'a> {
    fn new(options: &'a AppointmentOptions) -> Self {
        Self {
            options,
            history: options.train_until_ms.map(|_| History::new(options.score.clone())),
            models: BTreeMap::new(),
            taught: Vec::new(),
            scored: Vec::new(),
            outcomes: HashMap::new(),
        }
    }

    /// Learns, where the training ends before `now_ms`.
    fn learn_before(&mut self, now_ms: i64, replay: &mut Replay) {
        let ended = self.options.train_until_ms.filter(|until_ms| *until_ms < now_ms);
        let Some(until_ms) = ended.filter(|_| self.history.is_some()) else { return };
        // What comes due by then is still scored, and learnt from, without a model.
        replay.until(until_ms.saturating_add(1), &mut |replay, moment| self.score(replay, &moment));
        let Some(history) = self.history.take() else { return };
        let (tenants, names) = history.into_rows(Some(until_ms));
        for (tenant, rows) in tenants {
            let config = &self.options.score;
            let lesson = Lesson { rows: &rows, names: &names, until_ms: Some(until_ms), config };
            let learnt = train::train(lesson, &mut |_, _| ControlFlow::Continue(()));
            self.taught.push(Taught::new(&tenant, &learnt));
            let taken = |model| Taken { model, calibration: Calibration::default(), day: i64::MIN };
            self.models.extend(learnt.ok().map(|model| (tenant, taken(model))));
        }
    }

    fn hear(&mut self, event: &foretell_events::Event, replay: &Replay) {
        if let Some(history) = &mut self.history {
            history.hear(event, replay);
        }
        let outcome = replay.visit(event).and_then(|(visit, appointment)| Some((visit, outcome(appointment)?)));
        self.outcomes.extend(outcome);
    }

    /// Scores a moment from the rows as they are.
    fn score(&mut self, replay: &Replay, moment: &Moment<'_>) {
        if let Some(history) = &mut self.history {
            history.keep(moment);
        }
        if moment.at != self.options.at {
            return;
        }
        let config = &self.options.score;
        let Score { score, level, .. } = match self.models.get_mut(&moment.visit.id.tenant) {
            Some(taken) => {
                taken.recalibrate(replay, moment, config);
                let by = Trained { model: &taken.model, version: "", calibration: &taken.calibration };
                no_show::trained(&moment.snapshot, moment.client, &moment.lead, by, config)
            }
            None => {
                let lead_days = moment.snapshot.lead_days.into();
                no_show::score(&Evidence { client: moment.client, lead: &moment.lead, lead_days }, config)
            }
        };
        let Moment { visit, booked_at_ms, .. } = *moment;
        let lead_days = moment.snapshot.lead_days;
        self.scored.push(Scored { visit: visit.clone(), score, level: level.name(), lead_days, booked_at_ms });
    }

    fn line<'s>(&self, scored: &'s Scored) -> Line<'s> {
        let Scored { visit, score, lead_days, .. } = scored;
        let outcome = self.outcomes.get(visit).copied();
        Line { appointment_id: &visit.id.appointment_id, score: *score, outcome, lead_days: *lead_days }
    }

    fn summary(&self) -> Summary {
        let count = self.scored.len() as u64;
        let mut summary = Summary { lines: count, scored: count, taught: self.taught.clone(), ..Summary::default() };
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

impl Taken {
    /// Corrects the model by the outcomes that are known on the day of a moment.
    fn recalibrate(&mut self, replay: &Replay, moment: &Moment<'_>, config: &no_show::Config) {
        let today = calibration::day(moment.at_ms);
        if self.day == today {
            return;
        }
        let days = calibration::days(today, config);
        let mut recent = Recent::default();
        for (day, outcome) in days.filter_map(|day| Some((day, replay.outcomes(&moment.visit.id.tenant, day)?))) {
            let says = |visit: &_| self.model.log_odds(visit);
            recent.add(&outcome, says, (today - day) as f64, config.recalibration_half_life_days);
        }
        self.calibration = Calibration::fit(&recent.cases());
        self.day = today;
    }
}

/// How a visit went, in the words of a client's history; none while it is not known.
fn outcome(visit: &Appointment) -> Option<&'static str> {
    match visit.status {
        Status::Booked | Status::Confirmed => None,
        Status::Cancelled if visit.is_late_cancelled() => Some("late_cancelled"),
        status => Some(status.name()),
    }
}
