//! The open window of a fold: the records since the last flush, and when it closes.
//!
//! At the head of the log someone waits for each event, so a window closes as soon as no other record is available.
//! Behind the head no one does: every row that the window changes is written once, however often it changed, so the
//! window stays open for more records. It is bounded by records, by age and by the memory of its rows.

use super::Config;
use super::memory::Share;
use std::time::Duration;
use tokio::time::Instant;

/// A fold is behind when it has read this many full windows without reaching the head.
const BEHIND_WINDOWS: usize = 2;

/// The records since the last flush.
pub(super) struct Window {
    records: usize,
    opened: Option<Instant>,
    /// Records since the head of the log was last reached.
    since_head: usize,
    /// Held while the fold is behind.
    share: Share,
}

impl Window {
    /// A closed window of a fold that has not read anything.
    pub(super) fn new(share: Share) -> Self {
        Self { records: 0, opened: None, since_head: 0, share }
    }

    /// Whether the fold is so far behind the head that windows grow.
    pub(super) fn is_behind(&self) -> bool {
        self.share.is_held()
    }

    /// Notes that records were read.
    pub(super) fn read(&mut self, records: usize, config: &Config) {
        self.since_head = self.since_head.saturating_add(records);
        if self.since_head > BEHIND_WINDOWS.saturating_mul(config.batch_records_max) {
            self.share.hold();
        }
    }

    /// Notes that the head of the log was reached.
    pub(super) fn reach_head(&mut self) {
        self.since_head = 0;
        self.share.release();
    }

    /// Opens the window if it is closed.
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

    /// Closes the window: its records are flushed.
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

    fn with(records: usize, window: &mut Window) {
        window.open();
        (0..records).for_each(|_| window.add());
    }

    #[test]
    fn a_window_grows_only_once_several_were_read_without_the_head() {
        let (config, mut window) = (config(), Window::new(Memory::default().share()));
        assert_eq!(window.capacity(&config), 10);
        window.read(20, &config);
        assert_eq!(window.capacity(&config), 10);
        window.read(1, &config);
        with(10, &mut window);
        assert_eq!(window.capacity(&config), 40);
        assert!(!window.is_full(&config, 0));
        window.reach_head();
        assert!(window.is_full(&config, 0), "at the head it is larger than it may be");
        assert_eq!(window.capacity(&config), 1);
    }

    #[test]
    fn memory_closes_a_window_only_behind_the_head() {
        let (config, memory) = (config(), Memory::default());
        let mut window = Window::new(memory.share());
        assert!(!window.is_full(&config, 1_000));
        window.read(100, &config);
        assert!(!window.is_full(&config, 999));
        assert!(window.is_full(&config, 1_000));
        let mut other = Window::new(memory.share());
        other.read(100, &config);
        assert!(window.is_full(&config, 500), "two partitions share the memory");
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_waits_for_its_linger_at_the_head_and_for_its_age_behind_it() {
        let (config, mut window) = (config(), Window::new(Memory::default().share()));
        assert!(!window.is_open());
        with(1, &mut window);
        let opened = Instant::now();
        assert_eq!(window.due(&config), opened + Duration::from_millis(10));
        advance(Duration::from_millis(100)).await;
        assert!(window.is_overdue(&config));
        window.read(100, &config);
        assert!(!window.is_overdue(&config));
        assert_eq!(window.due(&config), opened + Duration::from_secs(5));
        window.reach_head();
        assert!(window.due(&config) < Instant::now(), "nothing else is available, so it is flushed at once");
        window.close();
        assert!(!window.is_open() && !window.is_overdue(&config));
    }
}
