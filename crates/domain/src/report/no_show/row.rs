//! How visits with a common property ended: a row of the report, and the counts that it is computed from.

use super::recorded::RecordedRisk;
use crate::score::metrics::wilson;
use crate::view::client::{Appointment, AppointmentStatus};
use serde::{Deserialize, Serialize};

/// Visits with a common property.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NoShowReportRow {
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
pub(super) enum VisitOutcome {
    Attended,
    Missed,
    LateCancelled,
    Cancelled,
    Unknown,
}

impl VisitOutcome {
    /// The outcome of a visit that has begun, according to its row; none for a visit that was entered in error.
    pub(super) fn of(appointment: &Appointment) -> Option<Self> {
        Some(match appointment.status {
            AppointmentStatus::Attended => Self::Attended,
            AppointmentStatus::Missed => Self::Missed,
            AppointmentStatus::Cancelled if appointment.is_late_cancelled() => Self::LateCancelled,
            AppointmentStatus::Cancelled => Self::Cancelled,
            AppointmentStatus::Booked | AppointmentStatus::Confirmed => Self::Unknown,
            AppointmentStatus::Deleted => return None,
        })
    }

    pub(super) const fn is_known(self) -> bool {
        matches!(self, Self::Attended | Self::Missed)
    }
}

/// The counts from which a [`NoShowReportRow`] is computed.
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
    pub(super) fn add(&mut self, outcome: VisitOutcome, last: Option<RecordedRisk>) {
        *match outcome {
            VisitOutcome::Attended => &mut self.attended,
            VisitOutcome::Missed => &mut self.missed,
            VisitOutcome::LateCancelled => &mut self.late_cancelled,
            VisitOutcome::Cancelled => &mut self.cancelled,
            VisitOutcome::Unknown => &mut self.unknown,
        } += 1;
        if let Some(risk) = last.filter(|_| outcome.is_known()) {
            self.scored += 1;
            self.scores += risk.score;
        }
    }

    pub(super) fn row(self, name: impl Into<String>) -> NoShowReportRow {
        let Self { missed, late_cancelled, cancelled, unknown, .. } = self;
        let known = self.attended + missed;
        let rate = (known > 0).then(|| missed as f64 / known as f64);
        NoShowReportRow {
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
