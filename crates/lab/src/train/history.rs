//! The training data: the moments of a tenant's visits, and what was known of their outcomes by some time.
//!
//! A cancelled visit is not a row, and neither is one without a stated outcome: it is unknown, not kept. Statements
//! after the given time change nothing: neither a correction nor another visit under the same id.
//! The names of attributes and texts are collected here, because rows only contain their hashes.

use super::moments::{At, Moment, Replay, TrainingVisit};
use foretell_domain::score::logistic;
use foretell_domain::score::no_show::{self, Rates, counters};
use foretell_events::appointment::{AppointmentFact, Scalar};
use foretell_events::{Event, Fact};

use foretell_domain::view::client::AppointmentStatus;
use foretell_domain::view::client::attribute::hash;
use foretell_domain::view::client::snapshot::Snapshot;
use std::collections::{BTreeMap, HashMap};

/// Maximum number of texts of attributes that are remembered by name and hash; further ones are not levels of a model.
pub(crate) const TEXTS_MAX: usize = 20_000;

/// A moment of a visit with a known outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRow {
    /// The appointment.
    pub appointment_id: String,
    /// The kind of moment.
    pub at: At,
    /// The instant.
    pub at_ms: i64,
    /// When the visit was booked.
    pub booked_at_ms: i64,
    /// When the outcome became known.
    pub known_ms: i64,
    /// The outcome.
    pub missed: bool,
    /// What was known at the instant.
    pub snapshot: Snapshot,
    /// The score of the two counters at that instant.
    pub two_counters: f64,
}

/// Names by their hashes.
#[derive(Debug, Clone, Default)]
pub struct HashedNames {
    /// Names of attributes.
    pub attributes: BTreeMap<u32, String>,
    /// Texts, by attribute.
    pub texts: HashMap<(u32, u32), String>,
}

impl HashedNames {
    fn observe(&mut self, event: &Event) {
        let Fact::Appointment(fact) = &event.fact else { return };
        match fact {
            AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking) => {
                self.add_all(&booking.attributes);
                for (name, text) in [
                    ("service", &booking.service),
                    ("location_id", &booking.location_id),
                    ("practitioner_id", &booking.practitioner_id),
                ] {
                    if let Some(text) = text {
                        self.add(name, Some(text));
                    }
                }
            }
            AppointmentFact::ClientUpdated(update) => {
                if let foretell_events::appointment::FieldUpdate::Set(attributes) = &update.attributes {
                    self.add_all(attributes);
                }
            }
            // Without attributes.
            AppointmentFact::Confirmed(_)
            | AppointmentFact::Attended(_)
            | AppointmentFact::Missed(_)
            | AppointmentFact::Cancelled(_)
            | AppointmentFact::Deleted(_)
            | AppointmentFact::ClientErased(_)
            | AppointmentFact::ReminderRequested(_)
            | AppointmentFact::ReminderDelivered(_)
            | AppointmentFact::ReminderFailed(_)
            | AppointmentFact::ReminderConfirmed(_) => {}
        }
    }

    fn add_all(&mut self, attributes: &BTreeMap<String, Scalar>) {
        for (name, value) in attributes {
            let text = match value {
                Scalar::Text(text) => Some(text.as_str()),
                Scalar::Boolean(_) | Scalar::Number(_) => None,
            };
            self.add(name, text);
        }
    }

    fn add(&mut self, name: &str, text: Option<&str>) {
        let name_hash = hash(name);
        self.attributes.entry(name_hash).or_insert_with(|| name.to_owned());
        if let Some(text) = text
            && self.texts.len() < TEXTS_MAX
        {
            self.texts.entry((name_hash, hash(text))).or_insert_with(|| text.to_owned());
        }
    }
}

/// The moments of all visits so far.
#[derive(Debug)]
pub struct TrainingHistory {
    config: no_show::Config,
    moments: Vec<(TrainingVisit, TrainingRow)>,
    /// Whether it was missed (none: cancelled), and when that was stated: one entry for each change.
    outcomes: HashMap<TrainingVisit, Vec<(Option<bool>, i64)>>,
    /// Names that occurred in events.
    pub names: HashedNames,
}

impl TrainingHistory {
    /// An empty history; the settings are those of the two counters.
    pub fn new(config: no_show::Config) -> Self {
        Self { config, moments: Vec::new(), outcomes: HashMap::new(), names: HashedNames::default() }
    }

    /// Keeps a moment, whose outcome follows later.
    pub fn add(&mut self, moment: &Moment<'_>) {
        let rates = Rates::of(&moment.lead, &self.config);
        let row = TrainingRow {
            appointment_id: moment.visit.id.appointment_id.clone(),
            at: moment.at,
            at_ms: moment.at_ms,
            booked_at_ms: moment.booked_at_ms,
            known_ms: i64::MAX,
            missed: false,
            two_counters: logistic(counters::log_odds(&moment.snapshot, &rates, &self.config)),
            snapshot: moment.snapshot.clone(),
        };
        self.moments.push((moment.visit.clone(), row));
    }

    /// Adds the names and the outcome of an event that was just folded.
    pub fn observe(&mut self, event: &Event, replay: &Replay) {
        self.names.observe(event);
        let Some((visit, appointment)) = replay.visit(event) else { return };
        let missed = match appointment.status {
            AppointmentStatus::Attended | AppointmentStatus::Missed => {
                Some(appointment.status == AppointmentStatus::Missed)
            }
            AppointmentStatus::Cancelled | AppointmentStatus::Deleted => None,
            AppointmentStatus::Booked | AppointmentStatus::Confirmed => return,
        };
        let statements = self.outcomes.entry(visit).or_default();
        if statements.last().is_none_or(|(last, _)| *last != missed) {
            statements.push((missed, event.envelope.time_ms));
        }
    }

    /// The rows with known outcomes, by tenant and in order of time, and the names. The outcome is the one that was
    /// known by `until_ms`; if none was known by then, the one that followed. A tenant with moments but without
    /// outcomes has an empty list.
    pub fn into_rows(self, until_ms: Option<i64>) -> (BTreeMap<String, Vec<TrainingRow>>, HashedNames) {
        let mut by_tenant: BTreeMap<String, Vec<TrainingRow>> = BTreeMap::new();
        for (visit, row) in self.moments {
            let outcome = self.outcomes.get(&visit).and_then(|stated| outcome(stated, until_ms.unwrap_or(i64::MAX)));
            let known = outcome.map(|(missed, known_ms)| TrainingRow { missed, known_ms, ..row });
            by_tenant.entry(visit.id.tenant).or_default().extend(known);
        }
        by_tenant.values_mut().for_each(|rows| rows.sort_by_key(|row| row.at_ms));
        (by_tenant, self.names)
    }
}

/// The outcome of a visit and when it was stated: the latest by `until_ms`, or the final one if none was known by then.
fn outcome(statements: &[(Option<bool>, i64)], until_ms: i64) -> Option<(bool, i64)> {
    let by_then = statements.iter().rfind(|(_, stated_ms)| *stated_ms <= until_ms);
    let known = |(missed, stated_ms): &(Option<bool>, i64)| missed.map(|missed| (missed, *stated_ms));
    by_then.and_then(known).or_else(|| statements.last().and_then(known))
}
