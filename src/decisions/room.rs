//! Room that tenants share, so that one tenant's load never takes the room of another.
//!
//! A tenant may hold as much as is free (the "dynamic threshold" of shared packet buffers). So one tenant alone holds
//! at most half, two that compete hold a third each, and a tenant that holds little finds room beside those that hold
//! much. There is no share to configure, and nothing is set aside for tenants that are idle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Room of `N` kinds that are taken together, as records and bytes.
#[derive(Debug)]
pub struct Room<const N: usize> {
    state: Mutex<State<N>>,
    freed: Notify,
}

#[derive(Debug)]
struct State<const N: usize> {
    free: [u64; N],
    /// By tenant; tenants that hold nothing have no entry.
    held: HashMap<String, [u64; N]>,
}

/// Room that a tenant holds until this is dropped.
#[derive(Debug)]
pub struct Place<const N: usize> {
    room: Arc<Room<N>>,
    tenant: String,
    amount: [u64; N],
}

impl<const N: usize> Room<N> {
    /// A room of so much, all of it free.
    pub fn new(total: [u64; N]) -> Arc<Self> {
        let state = Mutex::new(State { free: total, held: HashMap::new() });
        Arc::new(Self { state, freed: Notify::new() })
    }

    /// Takes room for a tenant, if it may have as much now.
    pub fn try_take(self: &Arc<Self>, tenant: &str, amount: [u64; N]) -> Option<Place<N>> {
        let mut state = self.state();
        let held = state.held.get(tenant).copied().unwrap_or([0; N]);
        let fits = |kind: usize| held[kind] + amount[kind] <= state.free[kind];
        if !(0..N).all(fits) {
            return None;
        }
        (0..N).for_each(|kind| state.free[kind] -= amount[kind]);
        state.held.insert(tenant.to_owned(), std::array::from_fn(|kind| held[kind] + amount[kind]));
        Some(Place { room: self.clone(), tenant: tenant.to_owned(), amount })
    }

    /// Takes room for a tenant as soon as it may have as much; none if that is not within `wait`.
    pub async fn take(self: &Arc<Self>, tenant: &str, amount: [u64; N], wait: Duration) -> Option<Place<N>> {
        let deadline = Instant::now() + wait;
        loop {
            // Registered before the look, so that what is freed in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(place) = self.try_take(tenant, amount) {
                return Some(place);
            }
            timeout_at(deadline, freed).await.ok()?;
        }
    }

    fn state(&self) -> MutexGuard<'_, State<N>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const N: usize> Drop for Place<N> {
    fn drop(&mut self) {
        let mut state = self.room.state();
        (0..N).for_each(|kind| state.free[kind] += self.amount[kind]);
        if let Some(held) = state.held.get_mut(&self.tenant) {
            (0..N).for_each(|kind| held[kind] -= self.amount[kind]);
            if *held == [0; N] {
                state.held.remove(&self.tenant);
            }
        }
        drop(state);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes as much as a tenant can get, one at a time.
    fn filled(room: &Arc<Room<1>>, tenant: &str) -> Vec<Place<1>> {
        std::iter::from_fn(|| room.try_take(tenant, [1])).collect()
    }

    #[test]
    fn a_tenant_that_takes_all_it_gets_leaves_room_for_the_next() {
        let room = Room::new([1_000]);
        let first = filled(&room, "first");
        assert_eq!(first.len(), 500, "half of it");
        let mut others: Vec<_> = (0..7).map(|n| filled(&room, &n.to_string())).collect();
        assert!(others.iter().all(|held| !held.is_empty()), "whoever comes next finds some");
        drop(first);
        others.iter_mut().enumerate().for_each(|(n, held)| held.extend(filled(&room, &n.to_string())));
        assert!(room.try_take("last", [1]).is_some());
        drop(others);
        let state = room.state();
        assert_eq!((state.free, state.held.len()), ([1_000], 0), "all of it comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_and_not_for_ever() {
        let room = Room::new([2]);
        let held = room.try_take("a", [1]).unwrap();
        let begun = Instant::now();
        assert!(room.take("a", [1], Duration::from_millis(50)).await.is_none());
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
        let (taken, ()) = tokio::join!(room.take("a", [1], Duration::from_secs(1)), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(held);
        });
        assert!(taken.is_some());
        assert_eq!(begun.elapsed(), Duration::from_millis(60));
    }

    proptest! {
        /// Whatever is taken and given back: never more than there is, and a tenant that holds nothing finds what is free.
        #[test]
        fn no_more_is_held_than_there_is_and_newcomers_find_what_is_free(
            total in 1..40_u64, steps in proptest::collection::vec((0..5_usize, 1..4_u64, any::<bool>()), 1..80),
        ) {
            let room = Room::new([total, 10 * total]);
            let mut places: Vec<Place<2>> = Vec::new();
            for (tenant, amount, gives_back) in steps {
                if gives_back && !places.is_empty() {
                    places.swap_remove(tenant % places.len());
                } else {
                    places.extend(room.try_take(&tenant.to_string(), [amount, amount * 7]));
                }
                let held: u64 = places.iter().map(|place| place.amount[0]).sum();
                prop_assert_eq!(room.state().free, [total - held, 10 * total - 7 * held]);
                prop_assert_eq!(room.try_take("newcomer", [1, 1]).is_some(), held < total);
            }
        }
    }
}
