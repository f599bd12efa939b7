//! A follower: the task of an owner that handles every record of another topic, in order, without rows.
//!
//! ```text
//!   owner of partition p of `target` ─► fence ─► cursor ─► source, partition p, from the cursor on
//!                                                             └─► handle ─► append through the fence ─┐
//!                                                                   ▲ next records                    │
//!                                                                   └──────────────────────────────────┘
//! ```
//!
//! What a follower has handled is known from records that it has appended: a mark in a topic of its own, or the state
//! of the family that folds them. It is never a row that only the store has, because rows can be deleted and rebuilt.
//!
//! The records of one call are appended together, or none of them is. So a follower whose only effect is its records
//! handles each record exactly once. One that also does something else, such as a request to another system, repeats it
//! after a crash: at least once.

use super::task::PartitionTask;
use super::{Config, retry};
use async_trait::async_trait;
use foretell_events::Topic;
use foretell_events::record::{NewRecord, Record};
use foretell_ports::log::{Log, Next};
use foretell_ports::{Error, Kind};
use std::convert::Infallible;
use std::sync::Arc;

const OPERATION: &str = "follow a topic";

/// How the records of a topic are handled.
#[async_trait]
pub trait Follow: Send + Sync + 'static {
    /// The topic to follow.
    fn source(&self) -> Topic;

    /// The topic of the records that it appends. Its owners follow, so it has as many partitions as the source.
    fn target(&self) -> Topic;

    /// The offset of the first record of the source that is not handled, from what is in the log. Read once per owner,
    /// after earlier owners can no longer append.
    async fn cursor(&self, partition: u32) -> Result<i64, Error>;

    /// Handles records of one partition, in rising offsets. Returns records for the same partition of the target, with
    /// the new cursor; none if the records need not be remembered.
    ///
    /// Retry: the same records are handled again after a pause. Any other error ends the owner.
    async fn handle(&self, records: &[Record]) -> Result<Vec<NewRecord>, Error>;
}

/// Follows a topic for the owner of a partition.
pub struct Follower<F> {
    /// The log with both topics.
    pub log: Arc<dyn Log>,
    /// How records are handled.
    pub follow: F,
    /// How long to wait between attempts.
    pub config: Config,
}

#[async_trait]
impl<F: Follow> PartitionTask for Follower<F> {
    async fn run(&self, partition: u32) -> Result<Infallible, Error> {
        let (source, target) = (self.follow.source(), self.follow.target());
        let counts = [source, target].map(|topic| self.log.partitions(topic));
        if counts[0] != counts[1] {
            let detail =
                format!("{} and {} have {} and {} partitions", source.name(), target.name(), counts[0], counts[1]);
            return Err(Error::fatal(OPERATION, detail));
        }
        let mut fenced = retry(&self.config, || self.log.fence(target, partition)).await?;
        let from = retry(&self.config, || self.follow.cursor(partition)).await?;
        let mut reader = retry(&self.config, || self.log.read(source, partition, from)).await?;
        loop {
            let records = match reader.next().await? {
                Next::Records(records) => records,
                Next::End(_) => continue,
                // A reader without a group is never revoked.
                Next::Revoked(_) => return Err(Error::retry(OPERATION, "the reader was revoked")),
            };
            let new = retry(&self.config, || self.follow.handle(&records)).await?;
            if !new.is_empty() {
                // Another owner has fenced this one, or the result is unknown: acquire the partition again, and
                // continue from what the log contains.
                let appended = fenced.append(new).await;
                appended.map_err(|error| Error { kind: Kind::Retry, ..error })?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_ports::clock::System;
    use foretell_ports::log::memory;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    const SOURCE: Topic = Topic::Appointments;
    const TARGET: Topic = Topic::Reminders;
    const CURSOR: &str = "cursor";

    /// Copies the source to the target. Its cursor is a header of each copy.
    #[derive(Clone)]
    struct Copying {
        log: memory::Log,
        handled: Arc<Mutex<Vec<i64>>>,
        fails_once: Arc<AtomicBool>,
    }

    #[async_trait]
    impl Follow for Copying {
        fn source(&self) -> Topic {
            SOURCE
        }

        fn target(&self) -> Topic {
            TARGET
        }

        async fn cursor(&self, partition: u32) -> Result<i64, Error> {
            let last = self.log.records(TARGET, partition)?.pop();
            let cursor = last.and_then(|last| std::str::from_utf8(last.header(CURSOR)?).ok()?.parse().ok());
            Ok(cursor.unwrap_or(0))
        }

        async fn handle(&self, records: &[Record]) -> Result<Vec<NewRecord>, Error> {
            self.handled.lock().unwrap().extend(records.iter().map(|record| record.position.offset));
            if self.fails_once.swap(false, Ordering::SeqCst) {
                return Err(Error::retry("copy", "not yet"));
            }
            let copy = |record: &Record| NewRecord {
                topic: TARGET,
                key: record.key.clone(),
                value: record.value.clone(),
                headers: vec![(CURSOR.into(), (record.position.offset + 1).to_string().into())],
            };
            Ok(records.iter().map(copy).collect())
        }
    }

    impl Copying {
        fn new(partitions: fn(Topic) -> u32) -> Self {
            let log = memory::Log::new(partitions, Arc::new(System));
            Self { log, handled: Arc::default(), fails_once: Arc::default() }
        }

        async fn append(&self, values: std::ops::Range<u8>) {
            for value in values {
                let record = NewRecord { topic: SOURCE, key: None, value: vec![value].into(), headers: Vec::new() };
                self.log.append(vec![record]).await.unwrap();
            }
        }

        fn copies(&self) -> Vec<u8> {
            self.log.records(TARGET, 0).unwrap().iter().map(|record| record.value[0]).collect()
        }

        /// Runs a new owner until there are this many copies, and then ends it as a crash would.
        async fn run_until(&self, copies: usize) {
            let follower =
                Follower { log: Arc::new(self.log.clone()), follow: self.clone(), config: Config::default() };
            let mut reader = self.log.read(TARGET, 0, 0).await.unwrap();
            let reached = async {
                while self.copies().len() < copies {
                    reader.next().await.unwrap();
                }
            };
            tokio::select! {
                Err(error) = follower.run(0) => panic!("{error}"),
                () = reached => {}
            }
        }
    }

    #[tokio::test]
    async fn each_record_is_handled_once_and_in_order_across_owners() {
        let copying = Copying::new(|_| 1);
        copying.append(0..5).await;
        copying.run_until(5).await;
        copying.append(5..8).await;
        copying.run_until(8).await;
        assert_eq!(copying.copies(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(*copying.handled.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7], "the second owner began at the cursor");
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_could_not_be_handled_are_handled_again() {
        let copying = Copying::new(|_| 1);
        copying.append(0..2).await;
        copying.fails_once.store(true, Ordering::SeqCst);
        copying.run_until(2).await;
        assert_eq!(copying.copies(), [0, 1]);
        assert_eq!(*copying.handled.lock().unwrap(), [0, 1, 0, 1]);
    }

    #[tokio::test]
    async fn a_fenced_owner_ends_and_appends_nothing() {
        let copying = Copying::new(|_| 1);
        copying.append(0..1).await;
        let follower =
            Follower { log: Arc::new(copying.log.clone()), follow: copying.clone(), config: Config::default() };
        let mut running = Box::pin(follower.run(0));
        while copying.copies().is_empty() {
            assert!(futures::poll!(&mut running).is_pending());
        }
        let _next_owner = copying.log.fence(TARGET, 0).await.unwrap();
        copying.append(1..2).await;
        let Err(error) = running.await;
        assert_eq!((error.kind, copying.copies()), (Kind::Retry, vec![0]));
    }

    #[tokio::test]
    async fn topics_with_different_partition_counts_are_not_followed() {
        let copying = Copying::new(|topic| if topic == SOURCE { 2 } else { 1 });
        let follower = Follower { log: Arc::new(copying.log.clone()), follow: copying, config: Config::default() };
        let Err(error) = follower.run(0).await;
        assert_eq!(
            (error.kind, error.detail.as_str()),
            (Kind::Fatal, "appointments and reminders have 2 and 1 partitions")
        );
    }
}
