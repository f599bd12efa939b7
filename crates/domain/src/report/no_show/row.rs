//! How visits with a common property ended: a row of the report, and the counts that it is computed from.

use super::said::Said;
use crate::score::metrics::wilson;
use crate::view::client::{Appointment, Status};
use serde::{Deserialize, Serialize};

/// Visits with a common property.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The property.
    pub name: String,
    /// Visits with a known outcome: kept or missed.
    pub known: u64,
    /// Visits that the client missed.
    pub missed: u64,
    /// `missed / known`; none if no outcome is known.
    pub rate: Option<f64>,
    /// The bounds of the rate with a confidence of 95 %.
    pub interval: Option<(f64, f64)>,
    /// Mean of the last scores of the known visits; none if none of them has a score.
    pub expected: Option<f64>,
    /// Visits that clients cancelled within 24 hours before their start or later.
    pub late_cancelled: u64,
    /// Visits that were cancelled earlier, or by the business.
    pub cancelled: u64,
    /// Past visits without a reported outcome.
    pub unknown: u64,
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Attended,
    Missed,
    LateCancelled,
    Cancelled,
    Unknown,
}

impl Outcome {
    /// The outcome of a visit that has begun, according to its row; none for a visit that was entered in error.
    pub(super) fn of(appointment: &Appointment) -> Option<Self> {
        Some(match appointment.status {
            Status::Attended => Self::Attended,
            Status::Missed => Self::Missed,
            Status::Cancelled if appointment.is_late_cancelled() => Self::LateCancelled,
            Status::Cancelled => Self::Cancelled,
            Status::Booked | Status::Confirmed => Self::Unknown,
            Status::Deleted => return None,
        })
    }

    pub(super) const fn is_known(self) -> bool {
        matches!(self, Self::Attended | Self::Missed)
    }
}

/// The counts from which a [`Row`] is computed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Count {
    pub(super) attended: u64,
    pub(super) missed: u64,
    pub(super) late_cancelled: u64,
    pub(super) cancelled: u64,
    pub(super) unknown: u64,
    /// Scores of known visits, and their sum.
    pub(super) scored: u64,
    pub(super) scores: f64,
}

impl Count {
    pub(super) fn add(&mut self, outcome: Outcome, last: Option<Said>) {
        *match outcome {
            Outcome::Attended => &mut self.attended,
            Outcome::Missed => &mut self.missed,
            Outcome::LateCancelled => &mut self.late_cancelled,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Unknown => &mut self.unknown,
        } += 1;
        if let Some(said) = last.filter(|_| outcome.is_known()) {
            self.scored += 1;
            self.scores += said.score;
        }
    }

    pub(super) fn row(self, name: impl Into<String>) -> Row {
        let Self { missed, late_cancelled, cancelled, unknown, .. } = self;
        let known = self.attended + missed;
        let rate = (known > 0).then(|| missed as f64 / known as f64);
        Row {
            name: name.into(),
            known,
            missed,
            rate,
            interval: rate.map(|rate| wilson(rate, known as f64)),
            expected: (self.scored > 0).then(|| self.scores / self.scored as f64),
            late_cancelled,
            cancelled,
            unknown,
        }
    }
}
