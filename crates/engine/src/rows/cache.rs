//! Merged aggregate rows, kept in memory while they are fresh.

use foretell_domain::address::{Generation, RowKey};
use foretell_domain::view::Merge;
use foretell_domain::view::feature::Feature;
use foretell_domain::view::lead::Lead;
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A state whose merged rows are kept in memory.
pub(super) trait Cached: Merge {
    fn into_merged(state: Arc<Self>) -> Merged;
    /// None if it is another state.
    fn of(merged: Merged) -> Option<Arc<Self>>;
}

/// Lists the states whose merged rows are kept in memory.
macro_rules! cached {
    ($($state:ident),+) => {
        /// The partials of an aggregate row, merged.
        #[derive(Debug, Clone)]
        pub(super) enum Merged {
            $($state(Arc<$state>),)+
        }

        $(impl Cached for $state {
            fn into_merged(state: Arc<Self>) -> Merged {
                Merged::$state(state)
            }

            fn of(merged: Merged) -> Option<Arc<Self>> {
                if let Merged::$state(state) = merged { Some(state) } else { None }
            }
        })+
    };
}

cached!(Feature, Lead);

/// The generation and key that a merged row was read from.
pub(super) type CacheKey = (Generation, RowKey);

/// When a read began: its time, and the cache version of the family then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Instant,
    pub(super) version: u64,
}

/// A merged row, and when its read began.
#[derive(Debug, Clone)]
struct Remembered {
    merged: Merged,
    read: Begun,
}

/// Merged rows, while they are fresh. A stale row is replaced in place. Keys are hashed quickly, with a seed of the
/// process.
pub(super) struct Cache {
    rows: quick_cache::sync::Cache<CacheKey, Remembered, UnitWeighter, hashbrown::DefaultHashBuilder>,
    stale_max: Duration,
}

impl Cache {
    pub(super) fn new(entries_max: usize, stale_max: Duration) -> Self {
        let (hasher, lifecycle) = (hashbrown::DefaultHashBuilder::default(), DefaultLifecycle::default());
        let rows = quick_cache::sync::Cache::with(entries_max, entries_max as u64, UnitWeighter, hasher, lifecycle);
        Self { rows, stale_max }
    }

    /// The row, if its read began in this version and not too long before.
    pub(super) fn get<A: Cached>(&self, key: &CacheKey, now: Begun) -> Option<Arc<A>> {
        let row = self.rows.get(key)?;
        let is_fresh = row.read.version == now.version && now.at.duration_since(row.read.at) < self.stale_max;
        is_fresh.then(|| A::of(row.merged)).flatten()
    }

    pub(super) fn insert<A: Cached>(&self, key: CacheKey, state: Arc<A>, read: Begun) {
        self.rows.insert(key, Remembered { merged: A::into_merged(state), read });
    }
}
