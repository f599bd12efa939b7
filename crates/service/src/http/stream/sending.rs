//! One stream: what it sends next, from the shared tail or from earlier in the log.

use super::Cursor;
use super::erased::Erased;
use super::tail::{Chunk, StreamedReminder, Tail, Window, WindowPosition};
use foretell_events::Topic;
use foretell_ports::log::Log;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Offsets that may be passed before the subscriber is sent a new cursor.
const UNREPORTED_MAX: i64 = 1_000;

/// Records of a page that are processed before the task yields.
const READ_AT_ONCE: usize = 50;

/// A stream that is being sent.
pub(super) struct StreamSender {
    log: Arc<dyn Log>,
    windows: watch::Receiver<Vec<Window>>,
    /// Keeps the tail reading.
    _tail: Arc<Tail>,
    tenant: String,
    erased: Erased,
    cursor: Cursor,
    /// What was read and not yet sent.
    chunk: Chunk,
    /// Offsets that were passed since the subscriber was last sent a cursor, and when that was.
    unreported: i64,
    reported_at: Option<Instant>,
    /// Interval of cursors without an event at the end of the log.
    pulse: Duration,
}

/// The source of the next chunk.
enum Source {
    Chunk(Chunk),
    /// The log, for a partition whose window begins later.
    History(usize),
    /// None: everything known was read.
    End,
}

/// The components of a stream.
pub(super) struct Parts {
    pub(super) log: Arc<dyn Log>,
    pub(super) tail: Arc<Tail>,
    pub(super) tenant: String,
    pub(super) erased: Erased,
}

impl StreamSender {
    /// A stream of a tenant's reminders from the cursor on; `pulse` is the interval of cursors without an event.
    pub(super) fn new(parts: Parts, cursor: Cursor, pulse: Duration) -> Self {
        let Parts { log, tail, tenant, erased } = parts;
        // The first chunk is empty and ends at the cursor.
        let chunk = Chunk { next: cursor.next.first().copied().unwrap_or(0), ..Chunk::default() };
        let windows = tail.windows();
        Self { log, windows, _tail: tail, tenant, erased, cursor, chunk, unreported: 0, reported_at: None, pulse }
    }

    /// The next block: an event with its cursor, or a cursor alone, which dispatches no event. None when log or rows
    /// cannot be read.
    pub(super) async fn next(mut self) -> Option<(String, Self)> {
        loop {
            while let Some(reminder) = self.chunk.reminders.pop_front() {
                self.pass(reminder.offset + 1);
                if !self.is_left_out(&reminder).await? {
                    return Some((self.block(Some(&reminder)), self));
                }
            }
            self.pass(self.chunk.next);
            if self.unreported >= UNREPORTED_MAX {
                return Some((self.block(None), self));
            }
            match self.source() {
                Source::Chunk(chunk) => self.chunk = chunk,
                Source::History(partition) => self.chunk = self.history(partition).await?,
                Source::End => {
                    let due = self.reported_at.map_or_else(Instant::now, |reported_at| reported_at + self.pulse);
                    tokio::select! {
                        changed = self.windows.changed() => changed.ok()?,
                        () = sleep_until(due), if self.unreported > 0 => return Some((self.block(None), self)),
                    }
                }
            }
        }
    }

    /// Whether the client of a reminder was erased; none if that cannot be read.
    async fn is_left_out(&mut self, reminder: &StreamedReminder) -> Option<bool> {
        let following = self.chunk.reminders.iter().map(Arc::as_ref);
        let is_left_out = self.erased.leaves_out(reminder, following).await;
        is_left_out
            .inspect_err(|error| tracing::warn!(%error, "a stream of reminders ends: clients cannot be read"))
            .ok()
    }

    /// Moves the cursor of the chunk's partition up to an offset.
    fn pass(&mut self, next: i64) {
        if let Some(offset) = self.cursor.next.get_mut(self.chunk.partition) {
            self.unreported += (next - *offset).max(0);
            *offset = next.max(*offset);
        }
    }

    /// The cursor, and the event if there is one. Types and JSON are single lines.
    fn block(&mut self, reminder: Option<&StreamedReminder>) -> String {
        self.unreported = 0;
        self.reported_at = Some(Instant::now());
        match reminder {
            Some(StreamedReminder { kind, data, .. }) => {
                format!("id: {}\nevent: {kind}\ndata: {data}\n\n", self.cursor)
            }
            None => format!("id: {}\n\n", self.cursor),
        }
    }

    /// Partitions take turns, so that a busy one does not hold up the others.
    fn source(&mut self) -> Source {
        let windows = self.windows.borrow_and_update();
        let count = windows.len();
        for partition in (1..=count).map(|turn| (self.chunk.partition + turn) % count) {
            let at = self.cursor.next.get(partition).copied().unwrap_or(i64::MAX);
            match windows[partition].find(partition, at, &self.tenant) {
                WindowPosition::End => {}
                WindowPosition::Before => return Source::History(partition),
                WindowPosition::Within(chunk) => return Source::Chunk(chunk),
            }
        }
        Source::End
    }

    /// A page of the log, which may reach into the window.
    async fn history(&self, partition: usize) -> Option<Chunk> {
        let at = *self.cursor.next.get(partition)?;
        match self.log.page(Topic::Reminders, u32::try_from(partition).ok()?, at).await {
            Ok(page) if page.next > at => {
                let mut reminders = VecDeque::new();
                for records in page.records.chunks(READ_AT_ONCE) {
                    let all = records.iter().filter_map(StreamedReminder::read);
                    reminders.extend(all.filter(|reminder| reminder.tenant == self.tenant).map(Arc::new));
                    // Another request may wait for this worker.
                    tokio::task::yield_now().await;
                }
                Some(Chunk { partition, reminders, next: page.next })
            }
            Ok(_) => {
                tracing::warn!(partition, offset = at, "a stream of reminders ends: the log is shorter than it was");
                None
            }
            Err(error) => {
                tracing::warn!(partition, offset = at, %error, "a stream of reminders ends");
                None
            }
        }
    }
}
