//! Merged aggregate rows, kept in memory while they are fresh.

use super::merge;
use foretell_domain::address::{Generation, RowKey, View};
use foretell_domain::view::feature::Feature;
use foretell_domain::view::lead::Lead;
use foretell_ports::Error;
use foretell_ports::store::Row;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The partials of an aggregate row, merged.
#[derive(Debug, Clone)]
pub(super) enum Merged {
    Feature(Arc<Feature>),
    Lead(Arc<Lead>),
}

impl Merged {
    pub(super) fn of(key: &RowKey, partials: &[Row]) -> Result<Self, Error> {
        Ok(match key.view {
            View::Lead => Self::Lead(Arc::new(merge(partials, Lead::merge)?)),
            _ => Self::Feature(Arc::new(merge(partials, Feature::merge)?)),
        })
    }
}

pub(super) fn feature_of(row: Merged) -> Option<Arc<Feature>> {
    match row {
        Merged::Feature(feature) => Some(feature),
        Merged::Lead(_) => None,
    }
}

pub(super) fn lead_of(rows: Vec<Merged>) -> Arc<Lead> {
    let lead = |row| match row {
        Merged::Lead(lead) => Some(lead),
        Merged::Feature(_) => None,
    };
    rows.into_iter().find_map(lead).unwrap_or_default()
}

/// What a merged row was read from.
pub(super) type CacheKey = (Generation, u64, RowKey);

/// A merged row, and when it was asked for.
#[derive(Debug, Clone)]
struct Remembered {
    merged: Merged,
    asked_at: Instant,
}

/// Merged rows, for as long as they are fresh. One that is not is replaced where it stands, because to expire it and
/// insert it again would cost more than the read. Hashed quickly, with a seed of the process: the upkeep of the cache
/// hashes keys as well.
pub(super) struct Cache {
    rows: moka::sync::Cache<CacheKey, Remembered, hashbrown::DefaultHashBuilder>,
    stale_max: Duration,
}

impl Cache {
    /// How long a row that nobody asks for stays in memory.
    const KEPT: Duration = Duration::from_secs(60);

    pub(super) fn new(entries_max: u64, stale_max: Duration) -> Self {
        let rows = moka::sync::Cache::builder().max_capacity(entries_max).time_to_live(stale_max.max(Self::KEPT));
        Self { rows: rows.build_with_hasher(hashbrown::DefaultHashBuilder::default()), stale_max }
    }

    pub(super) fn get(&self, key: &CacheKey, now: Instant) -> Option<Merged> {
        let row = self.rows.get(key)?;
        (now.duration_since(row.asked_at) < self.stale_max).then_some(row.merged)
    }

    pub(super) fn insert(&self, key: CacheKey, merged: Merged, asked_at: Instant) {
        self.rows.insert(key, Remembered { merged, asked_at });
    }
}
