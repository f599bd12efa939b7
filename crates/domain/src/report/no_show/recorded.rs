//! The risks of a visit before it began: from an answer, or from a reminder.

use crate::decision::id::Id;
use crate::score::RiskLevel;
use foretell_events::codec::parse_rfc3339;
use serde::Deserialize;

/// A risk of a visit.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordedRisk {
    pub(super) at_ms: i64,
    pub(super) score: f64,
    pub(super) level: RiskLevel,
    /// An index into the models of the [`Tally`](super::Tally), if it was requested.
    pub(super) model: u16,
}

/// All risks of a visit before it began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct VisitRecord {
    pub(super) asked: Option<RecordedRisk>,
    pub(super) reminded: Option<RecordedRisk>,
    /// A bit for each step.
    pub(super) steps: u64,
}

impl VisitRecord {
    pub(super) fn last(&self) -> Option<RecordedRisk> {
        [self.asked, self.reminded].into_iter().flatten().max_by_key(|risk| risk.at_ms)
    }
}

/// Keeps the later risk; at the same instant, the one that comes later.
pub(super) fn later(slot: &mut Option<RecordedRisk>, risk: RecordedRisk) {
    if slot.is_none_or(|before| risk.at_ms >= before.at_ms) {
        *slot = Some(risk);
    }
}

/// The fields of a decision about a booked visit that are read.
#[derive(Deserialize)]
pub(super) struct DecisionFields {
    pub(super) id: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) appointment_id: Option<String>,
    #[serde(default)]
    pub(super) score: Option<f64>,
    #[serde(default)]
    pub(super) level: Option<String>,
    #[serde(default)]
    pub(super) model: ModelFields,
    #[serde(default)]
    pub(super) visit: Option<VisitFields>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelFields {
    pub(super) id: String,
    pub(super) version: String,
}

#[derive(Deserialize)]
pub(super) struct VisitFields {
    pub(super) starts_at: String,
}

impl DecisionFields {
    /// The appointment, its start and its risk; none if no booked visit was scored.
    pub(super) fn risk(self) -> Option<(String, i64, RecordedRisk)> {
        let at_ms = Id::parse(&self.id)?.at_ms();
        let starts_at_ms = parse_rfc3339(&self.visit?.starts_at).ok()?;
        let risk = RecordedRisk { at_ms, score: self.score?, level: level(&self.level?)?, model: 0 };
        Some((self.appointment_id?, starts_at_ms, risk))
    }
}

pub(super) fn level(name: &str) -> Option<RiskLevel> {
    [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High].into_iter().find(|level| level.name() == name)
}

/// The visit of the client with this key, `tenant:client_id`.
pub(super) fn visit(key: &[u8], appointment_id: &str, starts_at_ms: i64) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in [key, appointment_id.as_bytes(), &starts_at_ms.to_le_bytes()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}
