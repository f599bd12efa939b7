//! Capacity that tenants share, so that the load of one tenant never uses up the capacity of another.
//!
//! A tenant's share is either a fixed amount or as much as is free (the "dynamic threshold" of shared packet buffers:
//! one tenant alone gets at most half, two that compete get a third each). If there is not enough capacity, the error
//! states whether the tenant's own load is the reason.

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Capacity of `N` kinds that are acquired together, such as records and bytes.
#[derive(Debug)]
pub struct Limiter<const N: usize> {
    /// None: as much as is free.
    tenant_max: Option<[u64; N]>,
    state: Mutex<State<N>>,
    freed: Notify,
}

#[derive(Debug)]
struct State<const N: usize> {
    free: [u64; N],
    /// By tenant; tenants that hold nothing have no entry.
    held: HashMap<Arc<str>, [u64; N]>,
}

/// Capacity that a tenant holds until this value is dropped.
#[derive(Debug)]
pub struct Permit<const N: usize> {
    limiter: Arc<Limiter<N>>,
    tenant: Arc<str>,
    amount: [u64; N],
}

/// Why there is not enough capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All of it is in use.
    All,
    /// Some is free, but the tenant already holds its share.
    Tenant,
}

impl<const N: usize> Limiter<N> {
    /// Capacity of this total, of which a tenant may hold as much as is free.
    pub fn new(total: [u64; N]) -> Arc<Self> {
        Self::of(total, None)
    }

    /// Capacity of this total, of which a tenant may hold at most `tenant_max`.
    pub(crate) fn with_share(total: [u64; N], tenant_max: [u64; N]) -> Arc<Self> {
        Self::of(total, Some(tenant_max))
    }

    fn of(total: [u64; N], tenant_max: Option<[u64; N]>) -> Arc<Self> {
        let state = Mutex::new(State { free: total, held: HashMap::new() });
        Arc::new(Self { tenant_max, state, freed: Notify::new() })
    }

    /// Acquires capacity for a tenant if enough is free now.
    ///
    /// # Errors Whether the total or the tenant's share is exhausted.
    pub fn acquire(self: &Arc<Self>, tenant: &str, amount: [u64; N]) -> Result<Permit<N>, Full> {
        let tenant = self.state().acquire(tenant, amount, self.tenant_max)?;
        Ok(Permit { limiter: self.clone(), tenant, amount })
    }

    /// Acquires capacity for a tenant as soon as enough is free.
    ///
    /// # Errors Whether the total or the tenant's share is exhausted, if that is still so after `wait`.
    pub(crate) async fn acquire_within(
        self: &Arc<Self>,
        tenant: &str,
        amount: [u64; N],
        wait: Duration,
    ) -> Result<Permit<N>, Full> {
        if let Ok(permit) = self.acquire(tenant, amount) {
            return Ok(permit);
        }
        let deadline = Instant::now() + wait;
        loop {
            // Registered before the attempt, so that capacity freed in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let full = match self.acquire(tenant, amount) {
                Err(full) => full,
                taken => return taken,
            };
            timeout_at(deadline, freed).await.map_err(|_| full)?;
        }
    }

    fn state(&self) -> MutexGuard<'_, State<N>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const N: usize> State<N> {
    /// Returns the tenant's name, shared by all of its places.
    fn acquire(&mut self, tenant: &str, amount: [u64; N], tenant_max: Option<[u64; N]>) -> Result<Arc<str>, Full> {
        let exceeds =
            |held: [u64; N], max: [u64; N]| (0..N).any(|kind| held[kind].saturating_add(amount[kind]) > max[kind]);
        if exceeds([0; N], self.free) {
            return Err(Full::All);
        }
        let share = tenant_max.unwrap_or(self.free);
        let entry = self.held.entry_ref(tenant);
        let held = if let EntryRef::Occupied(entry) = &entry { *entry.get() } else { [0; N] };
        if exceeds(held, share) {
            return Err(Full::Tenant);
        }
        (0..N).for_each(|kind| self.free[kind] -= amount[kind]);
        let entry = entry.insert(std::array::from_fn(|kind| held[kind] + amount[kind]));
        Ok(entry.key().clone())
    }
}

impl<const N: usize> Permit<N> {
    /// Acquires more capacity, all of it or none.
    ///
    /// # Errors Whether the total or the tenant's share is exhausted.
    pub(crate) fn grow(&mut self, by: [u64; N]) -> Result<(), Full> {
        self.limiter.state().acquire(&self.tenant, by, self.limiter.tenant_max)?;
        (0..N).for_each(|kind| self.amount[kind] += by[kind]);
        Ok(())
    }
}

impl<const N: usize> Drop for Permit<N> {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        (0..N).for_each(|kind| state.free[kind] += self.amount[kind]);
        if let Some(held) = state.held.get_mut(&self.tenant) {
            (0..N).for_each(|kind| held[kind] -= self.amount[kind]);
            if *held == [0; N] {
                state.held.remove(&self.tenant);
            }
        }
        drop(state);
        self.limiter.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Acquires as much as a tenant can get, one unit at a time.
    fn filled(limiter: &Arc<Limiter<1>>, name: &str) -> Vec<Permit<1>> {
        std::iter::from_fn(|| limiter.acquire(name, [1]).ok()).collect()
    }

    #[test]
    fn a_tenant_gets_its_share_and_the_others_get_the_rest() {
        let limiter = Limiter::with_share([5], [3]);
        let first = filled(&limiter, "a");
        assert_eq!((first.len(), limiter.acquire("a", [1]).unwrap_err()), (3, Full::Tenant));
        let second = filled(&limiter, "b");
        assert_eq!((second.len(), limiter.acquire("c", [1]).unwrap_err()), (2, Full::All));
        drop(first);
        assert_eq!(filled(&limiter, "c").len(), 3);
        drop(second);
        let state = limiter.state();
        assert_eq!((state.free, state.held.len()), ([5], 0), "all of it is released");
    }

    #[test]
    fn without_a_share_a_tenant_may_hold_as_much_as_is_free() {
        let limiter = Limiter::new([1_000]);
        let first = filled(&limiter, "first");
        assert_eq!((first.len(), limiter.acquire("first", [1]).unwrap_err()), (500, Full::Tenant));
        let others: Vec<_> = (0..7).map(|n| filled(&limiter, &n.to_string())).collect();
        assert!(others.iter().all(|held| !held.is_empty()), "every later tenant gets some");
    }

    #[test]
    fn what_a_place_grows_by_counts_and_comes_back() {
        let limiter = Limiter::with_share([10], [6]);
        let mut permit = limiter.acquire("a", [2]).unwrap();
        permit.grow([4]).unwrap();
        assert_eq!(permit.grow([1]), Err(Full::Tenant));
        assert_eq!(limiter.acquire("b", [5]).unwrap_err(), Full::All);
        drop(permit);
        assert_eq!(limiter.state().free, [10]);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_and_not_for_ever() {
        let limiter = Limiter::new([2]);
        let held = limiter.acquire("a", [1]).unwrap();
        let begun = Instant::now();
        assert_eq!(limiter.acquire_within("a", [1], Duration::from_millis(50)).await.unwrap_err(), Full::Tenant);
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
        let (taken, ()) = tokio::join!(limiter.acquire_within("a", [1], Duration::from_secs(1)), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(held);
        });
        assert!(taken.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_millis(60));
    }

    proptest! {
        /// In any order of acquiring and releasing, no more than the total and no more than a share is held.
        #[test]
        fn no_more_is_held_than_there_is_and_than_a_share(
            total in 1..40_u64, share in 1..40_u64,
            steps in proptest::collection::vec((0..5_usize, 1..4_u64, any::<bool>()), 1..80),
        ) {
            let limiter = Limiter::with_share([total, 10 * total], [share, 10 * share]);
            let mut permits: Vec<Permit<2>> = Vec::new();
            for (name, amount, gives_back) in steps {
                if gives_back && !permits.is_empty() {
                    permits.swap_remove(name % permits.len());
                } else {
                    permits.extend(limiter.acquire(&name.to_string(), [amount, amount * 7]));
                }
                let held: u64 = permits.iter().map(|permit| permit.amount[0]).sum();
                prop_assert_eq!(limiter.state().free, [total - held, 10 * total - 7 * held]);
                prop_assert!(limiter.state().held.values().all(|held| held[0] <= share));
                prop_assert_eq!(limiter.acquire("newcomer", [1, 1]).is_ok(), held < total);
            }
        }
    }
}
