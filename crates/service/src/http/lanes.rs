//! Long computations on threads of their own.
//!
//! A worker that computes for tens of milliseconds delays all other requests, and the disk store reads without
//! yielding. So work that may take long runs on separate threads, of which there are fewer than processors. The
//! operating system then shares the processors between both, and favours the workers, which need little time. A tenant
//! has a share of these lanes; its other requests wait, but not ahead of those of other tenants.

use super::problem::Problem;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Lanes for long computations.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Arc<Semaphore>,
    tenant_max: usize,
    /// Tenants that use or wait for a lane.
    tenants: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A lane, and the part of the tenant's share that it uses.
#[derive(Debug)]
pub(super) struct LanePermit {
    _share: OwnedSemaphorePermit,
    _lane: OwnedSemaphorePermit,
}

/// The configured number of lanes; for 0, half as many as there are processors, and at least one.
pub(super) fn lanes(asked: usize) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if asked > 0 { asked } else { (processors() / 2).max(1) }
}

impl Lanes {
    /// This many lanes, of which a tenant gets at most `tenant_max`.
    pub(super) fn new(lanes: usize, tenant_max: usize) -> Self {
        let bounded = |count: usize| count.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            lanes: Arc::new(Semaphore::new(bounded(lanes))),
            tenant_max: bounded(tenant_max),
            tenants: Mutex::default(),
        }
    }

    /// Does work on a separate thread when it is the tenant's turn. Work whose caller has gone ends where it next
    /// yields.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.acquire(tenant).await;
        let (runtime, abandoned) = (Handle::current(), CancellationToken::new());
        let _awaited = abandoned.clone().drop_guard();
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work has ended, even if it is no longer awaited.
            let _turn = turn;
            runtime.block_on(abandoned.run_until_cancelled_owned(work))
        });
        match done.await {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(Problem::internal("an answer was abandoned while a caller waited for it")),
            Err(panic) => Err(Problem::internal(panic)),
        }
    }

    /// Waits for a lane, until it is the tenant's turn.
    pub(super) async fn acquire(&self, tenant: &str) -> LanePermit {
        // First the tenant's share, so that at most `tenant_max` requests of each tenant wait for the lanes.
        let share = acquired(self.share(tenant)).await;
        LanePermit { _share: share, _lane: acquired(self.lanes.clone()).await }
    }

    fn share(&self, tenant: &str) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.tenant_max));
        tenants.insert(tenant.to_owned(), Arc::downgrade(&share));
        share
    }
}

async fn acquired(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("invariant: it is never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_is_done_on_another_thread_and_its_panic_is_no_ones_end() {
        let aside = Lanes::new(1, 1);
        let here = std::thread::current().id();
        let there = aside.run("a", async { std::thread::current().id() }).await.unwrap();
        assert_ne!(here, there);
        assert!(aside.run("a", async { panic!("a bug") }).await.is_err());
        assert_eq!(aside.run("a", async { 7 }).await.unwrap(), 7, "the lane is free again");
    }

    #[tokio::test]
    async fn tenants_take_turns_however_many_requests_one_of_them_has() {
        let aside = Lanes::new(1, 1);
        let (release, held) = oneshot::channel::<()>();
        let first = aside.run("a", async move { held.await.unwrap() });
        let mut waiting: FuturesUnordered<_> = (0..16)
            .map(|_| aside.run("a", async { "a" }).boxed_local())
            .chain([aside.run("b", async { "b" }).boxed_local()])
            .collect();
        let mut first = std::pin::pin!(first);
        assert!(futures::poll!(first.as_mut()).is_pending(), "it has the lane");
        assert!(futures::poll!(waiting.next()).is_pending());
        release.send(()).unwrap();
        first.await.unwrap();
        let order: Vec<_> = waiting.map(Result::unwrap).collect().await;
        assert!(order[..2].contains(&"b"), "not after all of the other's: {order:?}");
    }

    #[tokio::test]
    async fn a_lane_is_given_back_by_work_that_nobody_waits_for() {
        let aside = Lanes::new(1, 1);
        {
            let mut abandoned = std::pin::pin!(aside.run("a", std::future::pending::<()>()));
            assert!(futures::poll!(abandoned.as_mut()).is_pending());
        }
        assert_eq!(aside.run("a", async { 7 }).await.unwrap(), 7);
        assert_eq!(lanes(3), 3);
        assert!(lanes(0) >= 1);
    }
}
