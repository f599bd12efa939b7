//! The open batch of a fold: the records since the last flush, and when it closes.
//!
//! At the head of the log someone waits for each event, so a batch closes as soon as no other record is available.
//! Behind the head no one does: every row that the batch changes is written once, however often it changed, so the
//! batch stays open for more records. It is bounded by records, by age and by the memory of its rows.
//!
//! A reader reports the head when nothing follows. Under a steady load something always follows, so the distance to the
//! end of the log is also measured, once in a few thousand records.

use super::Config;
use super::memory::Share;
use std::time::Duration;
use tokio::time::Instant;

/// A fold is behind when more than this many full batches are between it and the head.
const BEHIND_BATCHES: usize = 2;

/// The records since the last flush.
pub(super) struct Batch {
    records: usize,
    opened: Option<Instant>,
    /// Records since the head of the log was last reached, or its distance measured.
    since_head: usize,
    /// Held while the fold is behind.
    share: Share,
}

impl Batch {
    /// A closed batch of a fold that has not read anything.
    pub(super) fn new(share: Share) -> Self {
        Self { records: 0, opened: None, since_head: 0, share }
    }

    /// Whether the fold is so far behind the head that batches grow.
    pub(super) fn is_behind(&self) -> bool {
        self.share.is_held()
    }

    /// Notes that records were read. Returns whether the distance to the head must be [measured](Self::measure) now.
    pub(super) fn read(&mut self, records: usize, config: &Config) -> bool {
        self.since_head = self.since_head.saturating_add(records);
        self.since_head > behind(config)
    }

    /// Notes how many records are between the last one that was read and the head.
    pub(super) fn measure(&mut self, distance: i64, config: &Config) {
        self.since_head = 0;
        if usize::try_from(distance).is_ok_and(|distance| distance > behind(config)) {
            self.share.hold();
        } else {
            self.share.release();
        }
    }

    /// Notes that the head of the log was reached.
    pub(super) fn reach_head(&mut self) {
        self.since_head = 0;
        self.share.release();
    }

    /// Opens the batch if it is closed.
    pub(super) fn open(&mut self) {
        self.opened.get_or_insert_with(Instant::now);
    }

    /// Whether there is anything to flush.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Notes a folded record.
    pub(super) fn add(&mut self) {
        self.records += 1;
    }

    /// Closes the batch: its records are flushed.
    pub(super) fn close(&mut self) {
        self.records = 0;
        self.opened = None;
    }

    /// How many records it still takes; at least one.
    pub(super) fn capacity(&self, config: &Config) -> usize {
        self.records_max(config).saturating_sub(self.records).max(1)
    }

    /// Whether it must be flushed before further records are folded. `bytes` is the memory of the rows.
    pub(super) fn is_full(&self, config: &Config, bytes: usize) -> bool {
        self.records >= self.records_max(config) || self.is_behind() && bytes >= self.bytes_max(config)
    }

    /// Memory that the rows of the partition may use, in bytes.
    pub(super) fn bytes_max(&self, config: &Config) -> usize {
        if self.is_behind() { self.share.bytes_max(config.behind_bytes_max) } else { config.cached_bytes_max }
    }

    /// Rows that may stay in memory after a flush.
    pub(super) fn rows_max(&self, config: &Config) -> usize {
        if self.is_behind() { usize::MAX } else { config.cached_rows_max }
    }

    /// Whether it is so old that it must be flushed although records keep arriving.
    pub(super) fn is_overdue(&self, config: &Config) -> bool {
        self.opened.is_some_and(|at| at.elapsed() >= self.age_max(config))
    }

    /// When it is flushed if no other record arrives; now if it is closed.
    pub(super) fn due(&self, config: &Config) -> Instant {
        let wait = match self.is_behind() {
            true => self.age_max(config),
            false => Duration::from_millis(config.batch_linger_ms),
        };
        self.opened.map_or_else(Instant::now, |at| at + wait)
    }

    fn records_max(&self, config: &Config) -> usize {
        if self.is_behind() {
            config.behind_records_max.max(config.batch_records_max)
        } else {
            config.batch_records_max
        }
    }

    fn age_max(&self, config: &Config) -> Duration {
        Duration::from_millis(if self.is_behind() { config.behind_age_ms_max } else { config.batch_age_ms_max })
    }
}

/// The distance beyond which a fold is behind.
fn behind(config: &Config) -> usize {
    BEHIND_BATCHES.saturating_mul(config.batch_records_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Memory;
    use tokio::time::advance;

    fn config() -> Config {
        Config {
            batch_records_max: 10,
            batch_linger_ms: 10,
            batch_age_ms_max: 100,
            behind_records_max: 50,
            behind_bytes_max: 1_000,
            behind_age_ms_max: 5_000,
            ..Config::default()
        }
    }

    fn with(records: usize, batch: &mut Batch) {
        batch.open();
        (0..records).for_each(|_| batch.add());
    }

    #[test]
    fn a_batch_grows_only_far_from_the_head() {
        let (config, mut batch) = (config(), Batch::new(Memory::default().share()));
        assert_eq!(batch.capacity(&config), 10);
        assert!(!batch.read(20, &config));
        assert!(batch.read(1, &config), "several batches were read without reaching the head");
        batch.measure(20, &config);
        assert_eq!(batch.capacity(&config), 10, "a steady load at the head");
        assert!(!batch.read(1, &config), "it was measured a moment ago");
        batch.measure(21, &config);
        with(10, &mut batch);
        assert_eq!(batch.capacity(&config), 40);
        assert!(!batch.is_full(&config, 0));
        batch.reach_head();
        assert!(batch.is_full(&config, 0), "at the head it is larger than it may be");
        assert_eq!(batch.capacity(&config), 1);
    }

    #[test]
    fn memory_closes_a_batch_only_behind_the_head() {
        let (config, memory) = (config(), Memory::default());
        let mut batch = Batch::new(memory.share());
        assert!(!batch.is_full(&config, 1_000));
        batch.measure(100, &config);
        assert!(!batch.is_full(&config, 999));
        assert!(batch.is_full(&config, 1_000));
        let mut other = Batch::new(memory.share());
        other.measure(100, &config);
        assert!(batch.is_full(&config, 500), "two partitions share the memory");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_its_linger_at_the_head_and_for_its_age_behind_it() {
        let (config, mut batch) = (config(), Batch::new(Memory::default().share()));
        assert!(!batch.is_open());
        with(1, &mut batch);
        let opened = Instant::now();
        assert_eq!(batch.due(&config), opened + Duration::from_millis(10));
        advance(Duration::from_millis(100)).await;
        assert!(batch.is_overdue(&config));
        batch.measure(100, &config);
        assert!(!batch.is_overdue(&config));
        assert_eq!(batch.due(&config), opened + Duration::from_secs(5));
        batch.reach_head();
        assert!(batch.due(&config) < Instant::now(), "nothing else is available, so it is flushed at once");
        batch.close();
        assert!(!batch.is_open() && !batch.is_overdue(&config));
    }
}
