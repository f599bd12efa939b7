//! Merged aggregate rows, kept in memory while they are fresh.

use foretell_domain::address::{Generation, RowKey};
use foretell_domain::view::Merge;
use foretell_domain::view::feature::Feature;
use foretell_domain::view::lead::Lead;
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

/// The generation, cache version and key that a merged row was read from.
pub(super) type CacheKey = (Generation, u64, RowKey);

/// A merged row, and when its read began.
#[derive(Debug, Clone)]
struct Remembered {
    merged: Merged,
    read_at: Instant,
}

/// Merged rows, while they are fresh. A stale row is replaced in place, because expiring and inserting it again would
/// cost more than the read. Keys are hashed quickly, with a seed of the process, because the maintenance of the cache
/// hashes them as well.
pub(super) struct Cache {
    rows: moka::sync::Cache<CacheKey, Remembered, hashbrown::DefaultHashBuilder>,
    stale_max: Duration,
}

impl Cache {
    /// How long a row that is not used stays in memory.
    const KEPT: Duration = Duration::from_secs(60);

    pub(super) fn new(entries_max: u64, stale_max: Duration) -> Self {
        let rows = moka::sync::Cache::builder().max_capacity(entries_max).time_to_live(stale_max.max(Self::KEPT));
        Self { rows: rows.build_with_hasher(hashbrown::DefaultHashBuilder::default()), stale_max }
    }

    pub(super) fn get<A: Cached>(&self, key: &CacheKey, now: Instant) -> Option<Arc<A>> {
        let row = self.rows.get(key)?;
        (now.duration_since(row.read_at) < self.stale_max).then(|| A::of(row.merged)).flatten()
    }

    pub(super) fn insert<A: Cached>(&self, key: CacheKey, state: Arc<A>, read_at: Instant) {
        self.rows.insert(key, Remembered { merged: A::into_merged(state), read_at });
    }
}
