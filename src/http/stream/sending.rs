//! One stream: what it sends next, from the shared tail or from further back in the log.

use super::Cursor;
use super::tail::{Chunk, Place, Reminder, Tail, Window};
use crate::event::Topic;
use crate::log::Log;
use axum::response::sse::Event;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Offsets that may be passed without a word to the subscriber.
const UNSAID_MAX: i64 = 1_000;

/// A stream that is being sent.
pub(super) struct Sending {
    log: Arc<dyn Log>,
    windows: watch::Receiver<Vec<Window>>,
    /// Goes on reading while it is held.
    _tail: Arc<Tail>,
    tenant: String,
    cursor: Cursor,
    /// What was taken and not yet sent.
    chunk: Chunk,
    /// Offsets that were passed since the subscriber was last told a cursor, and when that was.
    unsaid: i64,
    said_at: Option<Instant>,
    /// Between two cursors without an event at the end of the log.
    pulse: Duration,
}

/// Where the next chunk comes from.
enum Source {
    Chunk(Chunk),
    /// The log, for a partition whose window begins later.
    History(usize),
    /// Nowhere: everything known was taken.
    End,
}

impl Sending {
    /// A stream of a tenant's reminders from the cursor on.
    pub(super) fn new(log: Arc<dyn Log>, tail: Arc<Tail>, tenant: String, cursor: Cursor, pulse: Duration) -> Self {
        // Nothing is left of the first chunk, which ends where the cursor stands.
        let chunk = Chunk { next: cursor.next.first().copied().unwrap_or(0), ..Chunk::default() };
        let windows = tail.windows();
        Self { log, windows, _tail: tail, tenant, cursor, chunk, unsaid: 0, said_at: None, pulse }
    }

    /// The next event, or a cursor alone: a subscriber keeps it, and its application does not hear of it. None when
    /// the log cannot be read.
    pub(super) async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.event() {
                return Some((event, self));
            }
            if self.unsaid >= UNSAID_MAX {
                return Some((self.cursor(), self));
            }
            match self.source() {
                Source::Chunk(chunk) => self.chunk = chunk,
                Source::History(partition) => self.chunk = self.history(partition).await?,
                Source::End => {
                    let due = self.said_at.map_or_else(Instant::now, |said_at| said_at + self.pulse);
                    tokio::select! {
                        changed = self.windows.changed() => changed.ok()?,
                        () = sleep_until(due), if self.unsaid > 0 => return Some((self.cursor(), self)),
                    }
                }
            }
        }
    }

    /// The next event of the chunk; none when there is none left, and then the cursor is behind it.
    fn event(&mut self) -> Option<Event> {
        let reminder = self.chunk.reminders.pop_front();
        let next = reminder.as_ref().map_or(self.chunk.next, |reminder| reminder.offset + 1);
        let stands = self.cursor.next.get_mut(self.chunk.partition)?;
        self.unsaid += (next - *stands).max(0);
        *stands = next.max(*stands);
        reminder.map(|reminder| self.cursor().event(&reminder.kind).data(&reminder.data))
    }

    /// Tells the subscriber where it stands.
    fn cursor(&mut self) -> Event {
        self.unsaid = 0;
        self.said_at = Some(Instant::now());
        Event::default().id(self.cursor.to_string())
    }

    /// Partitions take turns, so that a busy one does not hold up the others.
    fn source(&mut self) -> Source {
        let windows = self.windows.borrow_and_update();
        let count = windows.len();
        for partition in (1..=count).map(|turn| (self.chunk.partition + turn) % count) {
            let at = self.cursor.next.get(partition).copied().unwrap_or(i64::MAX);
            match windows[partition].look(partition, at, &self.tenant) {
                Place::End => {}
                Place::Before => return Source::History(partition),
                Place::Within(chunk) => return Source::Chunk(chunk),
            }
        }
        Source::End
    }

    /// A page of the log, which may reach into the window.
    async fn history(&self, partition: usize) -> Option<Chunk> {
        let at = *self.cursor.next.get(partition)?;
        match self.log.page(Topic::Reminders, u32::try_from(partition).ok()?, at).await {
            Ok(page) if page.next > at => {
                let all = page.records.iter().filter_map(Reminder::read);
                let reminders = all.filter(|reminder| reminder.tenant == self.tenant).map(Arc::new).collect();
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
