//! Values of tenants that requests get from memory while they are read again in the background.
//!
//! ```text
//!   get ─► none: the caller reads it ─────────────────────────────► keep
//!      └─► held ─┬─► younger than stale_after: used
//!                └─► older: used, and one caller gets a Refresh ──► keep, or drop: the next caller gets one
//! ```
//!
//! How a value is read, and whether a request waits for the first one, is up to the caller: a policy is read by the
//! request itself until its deadline, a calibration by a task whose result several requests wait for. The pointers of
//! the engine are different: a stale pointer is never used.

use quick_cache::sync::{Cache, EntryAction, EntryResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// One value of each tenant, up to a number of tenants; one that was not used recently is evicted first.
pub(crate) struct Refreshed<V> {
    held: Cache<String, Arc<Held<V>>>,
    stale_after: Duration,
}

struct Held<V> {
    value: V,
    /// When reading it began.
    read_at: Instant,
    is_refreshing: AtomicBool,
}

/// Permits one caller to refresh a value. When it is dropped and the value is still held, the next caller gets one.
pub(crate) struct Refresh<V>(Arc<Held<V>>);

impl<V> Drop for Refresh<V> {
    fn drop(&mut self) {
        self.0.is_refreshing.store(false, Ordering::Release);
    }
}

impl<V: Clone + Send + Sync + 'static> Refreshed<V> {
    /// Nothing yet, of at most `tenants_max` tenants. Values that were read longer than `stale_after` ago are to be
    /// refreshed.
    pub(crate) fn new(tenants_max: usize, stale_after: Duration) -> Self {
        Self { held: Cache::new(tenants_max), stale_after }
    }

    /// The held value, and for one caller at a time the permit to refresh it if it is stale.
    pub(crate) fn get(&self, tenant: &str) -> Option<(V, Option<Refresh<V>>)> {
        let held = self.held.get(tenant)?;
        let is_due = held.read_at.elapsed() >= self.stale_after && !held.is_refreshing.swap(true, Ordering::AcqRel);
        Some((held.value.clone(), is_due.then(|| Refresh(held))))
    }

    /// The held value, even if it is stale.
    pub(crate) fn peek(&self, tenant: &str) -> Option<V> {
        self.held.get(tenant).map(|held| held.value.clone())
    }

    /// Keeps a value whose reading began at `read_at`, unless the held one was read later. Returns the one that is
    /// held then.
    pub(crate) fn keep(&self, tenant: &str, read_at: Instant, value: V) -> V {
        let new = Arc::new(Held { value, read_at, is_refreshing: AtomicBool::new(false) });
        let held = self.held.entry(tenant, None, |_, held| {
            if held.read_at <= read_at {
                *held = new.clone();
            }
            EntryAction::Retain(held.value.clone())
        });
        match held {
            EntryResult::Retained(value) => value,
            EntryResult::Vacant(place) => {
                drop(place.insert(new.clone()));
                new.value.clone()
            }
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => {
                unreachable!("invariant: entries are retained, without a time limit")
            }
        }
    }

    /// Drops the value of a tenant.
    pub(crate) fn forget(&self, tenant: &str) {
        self.held.remove(tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_stale_value_is_used_and_one_caller_refreshes_it() {
        let values = Refreshed::new(10, SECOND);
        assert!(values.get("t").is_none());
        values.keep("t", Instant::now(), 1);
        assert!(matches!(values.get("t"), Some((1, None))));
        tokio::time::advance(SECOND).await;
        let (value, refresh) = values.get("t").expect("held");
        assert!(value == 1 && refresh.is_some());
        assert!(matches!(values.get("t"), Some((1, None))), "one caller at a time");
        drop(refresh);
        let (_, refresh) = values.get("t").expect("held");
        assert!(refresh.is_some(), "a refresh that failed is repeated by the next caller");
        values.keep("t", Instant::now(), 2);
        drop(refresh);
        assert!(matches!(values.get("t"), Some((2, None))), "the new value is fresh");
        values.forget("t");
        assert!(values.peek("t").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_was_read_earlier_does_not_replace_a_later_one() {
        let values = Refreshed::new(10, SECOND);
        let earlier = Instant::now();
        tokio::time::advance(SECOND).await;
        assert_eq!(values.keep("t", Instant::now(), "later"), "later");
        assert_eq!(values.keep("t", earlier, "earlier"), "later");
        assert_eq!(values.peek("t"), Some("later"));
    }
}
