//! The end of the reminders topic, read once for all streams of a process.
//!
//! ```text
//!   reader 0 ─► window 0  [from … next) ─┐
//!   reader 1 ─► window 1  [from … next) ─┼─► every stream takes what is at or above its cursor
//!   reader n ─► window n  [from … next) ─┘   and reads the log itself where it is below `from`
//! ```
//!
//! A window contains every reminder of its partition in `[from, next)`: the latest ones, limited in number and bytes. A
//! stream determines what to send from its own offsets alone, so it does not matter whether it comes from earlier in
//! the log, joins in the middle or has been too slow for the window: there is neither a gap nor a repetition.
//!
//! The tail reads as long as there is a stream. A partition that cannot be read ends it, and with it its streams,
//! because otherwise they would seem complete with only the other partitions.

use foretell_events::record::Record;
use foretell_events::{DEFAULT_TENANT, Topic, codec};
use foretell_ports::Error;
use foretell_ports::log::{Log, Next, Reader};
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, watch};
use tokio_util::task::AbortOnDropHandle;

/// Reminders of a partition that are kept for streams.
const WINDOW_REMINDERS_MAX: usize = 1_000;
/// Bytes of a partition's reminders that are kept for streams.
const WINDOW_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A record of the topic as streams send it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamedReminder {
    pub(super) offset: i64,
    pub(super) tenant: String,
    /// The type of the event.
    pub(super) kind: String,
    /// The CloudEvent in structured JSON: one line.
    pub(super) data: String,
    /// The reminder, client and appointment, if the event contains them.
    pub(super) about: Option<About>,
}

/// The reminder, client and appointment of an event, and when the event happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) reminder_id: String,
    pub(super) client_id: String,
    pub(super) appointment_id: String,
    pub(super) at_ms: i64,
}

impl About {
    fn read(event: &Value) -> Option<Self> {
        let data = event.get("data")?;
        let text = |name| data.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            reminder_id: text("reminder_id")?,
            client_id: text("client_id")?,
            appointment_id: text("appointment_id")?,
            at_ms: event.get("time").and_then(Value::as_str).and_then(|time| codec::parse_rfc3339(time).ok())?,
        })
    }

    fn bytes(&self) -> usize {
        self.reminder_id.len() + self.client_id.len() + self.appointment_id.len()
    }
}

impl StreamedReminder {
    /// None if the record is not a CloudEvent.
    pub(super) fn read(record: &Record) -> Option<Self> {
        let event = codec::structured(record).ok()?;
        let tenant = event.get("tenant").and_then(Value::as_str).unwrap_or(DEFAULT_TENANT).to_owned();
        let kind = event.get("type").and_then(Value::as_str).filter(|kind| !kind.contains(['\n', '\r']))?.to_owned();
        let about = About::read(&event);
        Some(Self { offset: record.position.offset, tenant, kind, data: event.to_string(), about })
    }

    /// Whether it withdraws an earlier reminder.
    pub(super) fn is_withdrawal(&self) -> bool {
        self.kind == "foretell.reminder.withdrawn"
    }

    fn bytes(&self) -> usize {
        let about = self.about.as_ref().map_or(0, About::bytes);
        self.tenant.len() + self.kind.len() + self.data.len() + about
    }
}

/// What a stream reads at once from one partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) partition: usize,
    /// The reminders of one tenant, by ascending offset.
    pub(super) reminders: VecDeque<Arc<StreamedReminder>>,
    /// The offset after everything of that tenant in this chunk.
    pub(super) next: i64,
}

/// The relation of a stream to a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WindowPosition {
    /// The window no longer contains what comes next, or never did.
    Before,
    /// This comes next.
    Within(Chunk),
    /// There is nothing newer.
    End,
}

/// The latest reminders of a partition.
#[derive(Debug)]
pub(super) struct Window {
    reminders: VecDeque<Arc<StreamedReminder>>,
    bytes: usize,
    from: i64,
    next: i64,
}

impl Window {
    fn new(end: i64) -> Self {
        Self { reminders: VecDeque::new(), bytes: 0, from: end, next: end }
    }

    /// Returns whether there is anything new.
    fn push(&mut self, batch: Batch) -> bool {
        let moved = batch.next > self.next;
        self.next = self.next.max(batch.next);
        self.bytes += batch.reminders.iter().map(|reminder| reminder.bytes()).sum::<usize>();
        self.reminders.extend(batch.reminders);
        while self.reminders.len() > WINDOW_REMINDERS_MAX || self.bytes > WINDOW_BYTES_MAX {
            let Some(oldest) = self.reminders.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.from = oldest.offset + 1;
        }
        moved
    }

    /// What a tenant's stream sends next if `at` is the first offset that it has not sent.
    pub(super) fn find(&self, partition: usize, at: i64, tenant: &str) -> WindowPosition {
        if at >= self.next {
            return WindowPosition::End;
        }
        if at < self.from {
            return WindowPosition::Before;
        }
        let first = self.reminders.partition_point(|reminder| reminder.offset < at);
        let theirs = self.reminders.range(first..).filter(|reminder| reminder.tenant == tenant);
        WindowPosition::Within(Chunk { partition, reminders: theirs.cloned().collect(), next: self.next })
    }
}

/// What a reader has read.
struct Batch {
    reminders: Vec<Arc<StreamedReminder>>,
    next: i64,
}

/// The windows of all partitions, as long as a stream holds it.
pub(super) struct Tail {
    windows: watch::Receiver<Vec<Window>>,
    _reading: AbortOnDropHandle<()>,
}

impl Tail {
    async fn start(log: &dyn Log, ends: &[i64]) -> Result<Self, Error> {
        let mut readers = SelectAll::new();
        for (partition, end) in (0_u32..).zip(ends) {
            let reader = log.read(Topic::Reminders, partition, *end).await?;
            readers.push(batches(partition as usize, reader));
        }
        let (sender, windows) = watch::channel(ends.iter().map(|end| Window::new(*end)).collect());
        let reading = tokio::spawn(follow(readers, sender));
        Ok(Self { windows, _reading: AbortOnDropHandle::new(reading) })
    }

    /// The windows, with notification of changes; an error once a partition cannot be read any more.
    pub(super) fn windows(&self) -> watch::Receiver<Vec<Window>> {
        self.windows.clone()
    }

    fn has_ended(&self) -> bool {
        self.windows.has_changed().is_err()
    }
}

type Batches = BoxStream<'static, (usize, Option<Batch>)>;

/// The batches of a reader, and none once it has ended.
fn batches(partition: usize, reader: Box<dyn Reader>) -> Batches {
    let batches = stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        let batch = match reader.next().await {
            Ok(Next::Records(records)) => {
                let next = records.last()?.position.offset + 1;
                Batch { reminders: records.iter().filter_map(StreamedReminder::read).map(Arc::new).collect(), next }
            }
            Ok(Next::End(next)) => Batch { reminders: Vec::new(), next },
            Ok(Next::Revoked(_)) => return Some(((partition, None), None)),
            Err(error) => {
                tracing::warn!(partition, %error, "streams of reminders end");
                return Some(((partition, None), None));
            }
        };
        Some(((partition, Some(batch)), Some(reader)))
    });
    batches.boxed()
}

async fn follow(mut readers: SelectAll<Batches>, windows: watch::Sender<Vec<Window>>) {
    while let Some((partition, Some(batch))) = readers.next().await {
        windows.send_if_modified(|windows| windows.get_mut(partition).is_some_and(|window| window.push(batch)));
    }
}

/// The tail of a process, as long as there is one.
#[derive(Default)]
pub(in crate::http) struct Shared(Mutex<Weak<Tail>>);

impl Shared {
    /// The existing tail, or a new one that begins at `ends`, which are no higher than the log's.
    pub(super) async fn join(&self, log: &dyn Log, ends: &[i64]) -> Result<Arc<Tail>, Error> {
        let mut current = self.0.lock().await;
        if let Some(tail) = current.upgrade().filter(|tail| !tail.has_ended()) {
            return Ok(tail);
        }
        let tail = Arc::new(Tail::start(log, ends).await?);
        *current = Arc::downgrade(&tail);
        Ok(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(tenant: &str, offsets: std::ops::Range<i64>, bytes: usize) -> Batch {
        let next = offsets.end;
        let reminder = |offset| StreamedReminder {
            offset,
            tenant: tenant.into(),
            kind: "k".into(),
            data: "x".repeat(bytes),
            about: None,
        };
        Batch { reminders: offsets.map(reminder).map(Arc::new).collect(), next }
    }

    fn offsets(place: WindowPosition) -> (Vec<i64>, i64) {
        let WindowPosition::Within(chunk) = place else { panic!("{place:?}") };
        (chunk.reminders.iter().map(|reminder| reminder.offset).collect(), chunk.next)
    }

    #[test]
    fn a_window_tells_what_it_holds_and_what_it_does_not() {
        let mut window = Window::new(10);
        assert_eq!(window.find(0, 10, "a"), WindowPosition::End);
        assert_eq!(window.find(0, 9, "a"), WindowPosition::Before);
        assert!(window.push(batch("a", 10..12, 1)));
        assert!(window.push(batch("b", 12..15, 1)));
        assert!(!window.push(batch("b", 15..15, 1)), "the end was known");
        assert!(window.push(Batch { reminders: Vec::new(), next: 16 }), "a hole");
        assert_eq!(offsets(window.find(0, 10, "a")), (vec![10, 11], 16));
        assert_eq!(offsets(window.find(0, 11, "a")), (vec![11], 16));
        assert_eq!(offsets(window.find(0, 12, "a")), (vec![], 16), "others' reminders move the cursor");
        assert_eq!(offsets(window.find(0, 10, "b")), (vec![12, 13, 14], 16));
        assert_eq!(window.find(0, 16, "a"), WindowPosition::End);
        assert_eq!(window.find(0, 99, "a"), WindowPosition::End, "a cursor may be ahead of a reader");
        assert_eq!(window.find(0, 9, "a"), WindowPosition::Before);
    }

    #[test]
    fn a_window_forgets_the_oldest_beyond_its_bounds() {
        let mut window = Window::new(0);
        let max = WINDOW_REMINDERS_MAX as i64;
        window.push(batch("a", 0..max + 5, 1));
        assert_eq!(window.find(0, 4, "a"), WindowPosition::Before);
        assert_eq!(offsets(window.find(0, 5, "a")).0.len(), WINDOW_REMINDERS_MAX);
        // A reminder larger than the window empties it, and the next one is in it again.
        window.push(batch("a", max + 5..max + 6, WINDOW_BYTES_MAX + 1));
        assert_eq!((window.reminders.len(), window.bytes), (0, 0));
        assert_eq!(window.find(0, max + 5, "a"), WindowPosition::Before);
        assert_eq!(window.find(0, max + 6, "a"), WindowPosition::End);
        window.push(batch("a", max + 6..max + 7, 1));
        assert_eq!(offsets(window.find(0, max + 6, "a")), (vec![max + 6], max + 7));
    }
}
