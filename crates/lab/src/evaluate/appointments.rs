//! Appointments: each is scored once per start, at its booking or the day before, and judged once the outcome of that
//! start is known.
//!
//! With `train_until`, each tenant with enough history gets a model at that time, trained on what was known by then.
//! Before that, and for all other tenants, two counters are used. Later outcomes only recalibrate the model, once per
//! day of the replay, with the function that calibrates in service.

use super::{AppointmentOptions, At, EvaluationSummary, Measure, Progress, TrainingResult};
use crate::source::SourceData;
use crate::train::history::TrainingHistory;
use crate::train::moments::{Moment, Replay, TrainingVisit};
use crate::train::{self, TrainingSet};
use foretell_domain::score::metrics::Case;
use foretell_domain::score::no_show::calibration::{self, Calibration, RecentSamples};
use foretell_domain::score::no_show::model::NoShowModel;
use foretell_domain::score::no_show::{self, ModelInForce, VisitEvidence, VisitScore};
use foretell_domain::view::client::{Appointment, AppointmentStatus};
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

/// Replays a file of appointments. `out` receives a line of JSON for each scored one, in the order of scoring, but only
/// at the end, when the outcomes are known; `progress` receives the completed and the total events.
///
/// Errors are those of `out`.
pub fn appointments(
    loaded: &SourceData,
    options: &AppointmentOptions,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<EvaluationSummary> {
    let mut judge = Judge::new(options);
    // A model is trained on both moments, whichever is judged.
    let both = [At::Booking, At::DayBefore];
    let one = [options.at];
    let moments: &[At] = if options.train_until_ms.is_some() { &both } else { &one };
    let mut replay = Replay::new(options.limits.clone(), options.partitions, moments);
    let mut progress = Progress { report: progress, total: loaded.events.len() };
    for (offset, sourced) in loaded.events.iter().enumerate() {
        let event = &sourced.event;
        judge.learn_before(event.envelope.time_ms, &mut replay);
        replay.take(event, offset as i64, &mut |replay, moment| judge.score(replay, &moment));
        judge.observe(event, &replay);
        progress.done(offset + 1);
    }
    replay.until(i64::MAX, &mut |replay, moment| judge.score(replay, &moment));
    for scored in &judge.scored {
        serde_json::to_writer(&mut *out, &judge.line(scored))?;
        out.write_all(b"\n")?;
    }
    Ok(EvaluationSummary { rows: loaded.rows, skipped: loaded.skipped, ..judge.summary() })
}

/// An appointment that was scored.
struct Scored {
    visit: TrainingVisit,
    score: f64,
    level: &'static str,
    lead_days: u16,
    booked_at_ms: i64,
}

/// A tenant's model, with its calibration on a day of the replay.
struct Taken {
    model: NoShowModel,
    calibration: Calibration,
    /// Days since the epoch.
    day: i64,
}

/// Scores moments, and collects training data until the training time.
struct Judge<'a> {
    options: &'a AppointmentOptions,
    /// The training data; none if nothing is trained, or the training is finished.
    history: Option<TrainingHistory>,
    models: BTreeMap<String, Taken>,
    taught: Vec<TrainingResult>,
    scored: Vec<Scored>,
    /// The latest outcome of each visit.
    outcomes: HashMap<TrainingVisit, &'static str>,
}

impl<'a> Judge<'a> {
    fn new(options: &'a AppointmentOptions) -> Self {
        Self {
            options,
            history: options.train_until_ms.map(|_| TrainingHistory::new(options.score.clone())),
            models: BTreeMap::new(),
            taught: Vec::new(),
            scored: Vec::new(),
            outcomes: HashMap::new(),
        }
    }

    /// Trains the models, if the training time is before `now_ms`.
    fn learn_before(&mut self, now_ms: i64, replay: &mut Replay) {
        let ended = self.options.train_until_ms.filter(|until_ms| *until_ms < now_ms);
        let Some(until_ms) = ended.filter(|_| self.history.is_some()) else { return };
        // Moments that are due by then are still scored, and used for training, without a model.
        replay.until(until_ms.saturating_add(1), &mut |replay, moment| self.score(replay, &moment));
        let Some(history) = self.history.take() else { return };
        let (tenants, names) = history.into_rows(Some(until_ms));
        for (tenant, rows) in tenants {
            let config = &self.options.score;
            let set = TrainingSet { rows: &rows, names: &names, until_ms: Some(until_ms), config };
            let trained = train::train(set, &mut |_, _| ControlFlow::Continue(()));
            self.taught.push(TrainingResult::new(&tenant, &trained));
            let taken = |model| Taken { model, calibration: Calibration::default(), day: i64::MIN };
            self.models.extend(trained.ok().map(|model| (tenant, taken(model))));
        }
    }

    fn observe(&mut self, event: &foretell_events::Event, replay: &Replay) {
        if let Some(history) = &mut self.history {
            history.observe(event, replay);
        }
        let outcome = replay.visit(event).and_then(|(visit, appointment)| Some((visit, outcome(appointment)?)));
        self.outcomes.extend(outcome);
    }

    /// Scores a moment with the rows as they are.
    fn score(&mut self, replay: &Replay, moment: &Moment<'_>) {
        if let Some(history) = &mut self.history {
            history.add(moment);
        }
        if moment.at != self.options.at {
            return;
        }
        let config = &self.options.score;
        let VisitScore { score, level, .. } = match self.models.get_mut(&moment.visit.id.tenant) {
            Some(taken) => {
                taken.recalibrate(replay, moment, config);
                let by = ModelInForce { model: &taken.model, version: "", calibration: &taken.calibration };
                no_show::score_by_model(&moment.snapshot, moment.client, &moment.lead, by, config)
            }
            None => {
                let lead_days = moment.snapshot.lead_days.into();
                no_show::score(&VisitEvidence { client: moment.client, lead: &moment.lead, lead_days }, config)
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

    fn summary(&self) -> EvaluationSummary {
        let count = self.scored.len() as u64;
        let mut summary = EvaluationSummary {
            lines: count,
            scored: count,
            taught: self.taught.clone(),
            ..EvaluationSummary::default()
        };
        self.scored.iter().for_each(|scored| summary.answered(scored.level));
        let until_ms = self.options.train_until_ms;
        let later = self.scored.iter().filter(|scored| until_ms.is_none_or(|until| scored.booked_at_ms > until));
        let (mut all, mut ahead) = (Vec::new(), Vec::new());
        for Line { score, outcome, lead_days, .. } in later.map(|scored| self.line(scored)) {
            let Some("attended" | "missed") = outcome else { continue };
            let case = Case { score, positive: outcome == Some(AppointmentStatus::Missed.name()) };
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
    /// Calibrates the model with the outcomes that are known on the day of a moment.
    fn recalibrate(&mut self, replay: &Replay, moment: &Moment<'_>, config: &no_show::Config) {
        let today = calibration::day(moment.at_ms);
        if self.day == today {
            return;
        }
        let days = calibration::days(today, config);
        let mut recent = RecentSamples::default();
        for (day, outcome) in days.filter_map(|day| Some((day, replay.outcomes(&moment.visit.id.tenant, day)?))) {
            let log_odds_of = |visit: &_| self.model.log_odds(visit);
            recent.add(&outcome, log_odds_of, (today - day) as f64, config.recalibration_half_life_days);
        }
        self.calibration = Calibration::fit(&recent.cases());
        self.day = today;
    }
}

/// The outcome of a visit, in the terms of a client's history; none while it is not known.
fn outcome(visit: &Appointment) -> Option<&'static str> {
    match visit.status {
        AppointmentStatus::Booked | AppointmentStatus::Confirmed => None,
        AppointmentStatus::Cancelled if visit.is_late_cancelled() => Some("late_cancelled"),
        status => Some(status.name()),
    }
}
