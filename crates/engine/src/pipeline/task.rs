//! Further work of a partition's owner while it owns the partition: planning reminders today, and any other work that
//! must run once per partition and end with its owner.

use async_trait::async_trait;
use foretell_domain::address::Generation;
use foretell_ports::Error;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

/// Work that the owner of a partition does next to its fold.
#[async_trait]
pub trait PartitionTask: Send + Sync + 'static {
    /// Runs until it fails, which ends the ownership: the partition is acquired again after a pause, or the process
    /// ends if the error is Fatal. Dropped when the partition is revoked.
    async fn run(&self, partition: u32) -> Result<Infallible, Error>;
}

/// The tasks of an owner; empty if it only folds.
pub type Tasks = Vec<Arc<dyn PartitionTask>>;

/// Returns the tasks of the owners of a generation.
pub type OwnerTasks = Box<dyn Fn(Generation) -> Tasks + Send>;

/// Owners that only fold.
pub fn none() -> OwnerTasks {
    Box::new(|_| Tasks::new())
}

/// Runs all tasks concurrently; the first failure ends the others.
pub(super) async fn run(tasks: &Tasks, partition: u32) -> Result<Infallible, Error> {
    let mut running: FuturesUnordered<_> = tasks.iter().map(|task| task.run(partition)).collect();
    match running.next().await {
        Some(ended) => ended,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::address::Family;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::Notify;

    /// Fails once it is allowed to.
    #[derive(Default)]
    struct Failing {
        partitions: Mutex<Vec<u32>>,
        go: Notify,
        is_dropped: Arc<AtomicBool>,
    }

    struct OnDrop(Arc<AtomicBool>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl PartitionTask for Failing {
        async fn run(&self, partition: u32) -> Result<Infallible, Error> {
            let _running = OnDrop(self.is_dropped.clone());
            self.partitions.lock().expect("no panic").push(partition);
            self.go.notified().await;
            Err(Error::retry("run a task", "it was time"))
        }
    }

    #[tokio::test]
    async fn all_tasks_of_an_owner_run_and_the_first_failure_ends_them() {
        let (first, second) = (Arc::new(Failing::default()), Arc::new(Failing::default()));
        let tasks: Tasks = vec![first.clone(), second.clone()];
        let mut running = Box::pin(run(&tasks, 3));
        assert!(futures::poll!(&mut running).is_pending());
        for task in [&first, &second] {
            assert_eq!(*task.partitions.lock().expect("no panic"), [3]);
        }
        second.go.notify_one();
        let Err(error) = running.await;
        assert_eq!(error.detail, "it was time");
        assert!(first.is_dropped.load(Ordering::SeqCst), "the other task has ended as well");
    }

    #[tokio::test]
    async fn an_owner_without_tasks_only_folds() {
        let none = none()(Generation { family: Family::Logins, number: 1, epoch: 0 });
        assert!(futures::poll!(Box::pin(run(&none, 0))).is_pending());
    }
}
