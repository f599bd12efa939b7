//! Long answers beside the workers.
//!
//! A worker that computes for tens of milliseconds lets everybody else wait, and the disk store reads without ever
//! giving way. So what may take long runs on threads of its own, of which there are fewer than processors: the system
//! then shares the processors between both, and lets workers, which want little, go first. A tenant has a share of
//! these lanes; the others of its requests wait in line, and not in front of those of other tenants.

use super::problem::Problem;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Lanes for long answers.
#[derive(Debug)]
pub(super) struct Aside {
    lanes: Arc<Semaphore>,
    tenant_max: usize,
    /// Of tenants that have or want a lane.
    tenants: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A lane, and the tenant's share that it is taken from.
#[derive(Debug)]
pub(super) struct Turn {
    _share: OwnedSemaphorePermit,
    _lane: OwnedSemaphorePermit,
}

/// So many lanes as were asked for, or half as many as there are processors, and at least one.
pub(super) fn lanes(asked: usize) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if asked > 0 { asked } else { (processors() / 2).max(1) }
}

impl Aside {
    /// So many lanes, and so many of them for one tenant.
    pub(super) fn new(lanes: usize, tenant_max: usize) -> Self {
        let bounded = |count: usize| count.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            lanes: Arc::new(Semaphore::new(bounded(lanes))),
            tenant_max: bounded(tenant_max),
            tenants: Mutex::default(),
        }
    }

    /// Does work on a thread of its own when the tenant's turn has come. Work whose answer nobody waits for any more
    /// ends where it next gives way.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.turn(tenant).await;
        let (runtime, abandoned) = (Handle::current(), CancellationToken::new());
        let _awaited = abandoned.clone().drop_guard();
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work has ended, and not only for as long as it is awaited.
            let _turn = turn;
            runtime.block_on(abandoned.run_until_cancelled_owned(work))
        });
        match done.await {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(Problem::internal("an answer was abandoned while somebody waited for it")),
            Err(panic) => Err(Problem::internal(panic)),
        }
    }

    /// A lane, when the tenant's turn has come.
    pub(super) async fn turn(&self, tenant: &str) -> Turn {
        // First the tenant's own, so that one request of each tenant at most is in the line for lanes.
        let share = acquired(self.share(tenant)).await;
        Turn { _share: share, _lane: acquired(self.lanes.clone()).await }
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
    semaphore.acquire_owned().await.expect("invariant: nobody closes it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_is_done_on_another_thread_and_its_panic_is_no_ones_end() {
        let aside = Aside::new(1, 1);
        let here = std::thread::current().id();
        let there = aside.run("a", async { std::thread::current().id() }).await.unwrap();
        assert_ne!(here, there);
        assert!(aside.run("a", async { panic!("a bug") }).await.is_err());
        assert_eq!(aside.run("a", async { 7 }).await.unwrap(), 7, "the lane is free again");
    }

    #[tokio::test]
    async fn tenants_take_turns_however_many_requests_one_of_them_has() {
        let aside = Aside::new(1, 1);
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
        assert!(order[..2].contains(&"b"), "not behind all of the other's: {order:?}");
    }

    #[tokio::test]
    async fn a_lane_is_given_back_by_work_that_nobody_waits_for() {
        let aside = Aside::new(1, 1);
        {
            let mut abandoned = std::pin::pin!(aside.run("a", std::future::pending::<()>()));
            assert!(futures::poll!(abandoned.as_mut()).is_pending());
        }
        assert_eq!(aside.run("a", async { 7 }).await.unwrap(), 7);
        assert_eq!(lanes(3), 3);
        assert!(lanes(0) >= 1);
    }
}
