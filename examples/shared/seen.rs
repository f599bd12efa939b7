//! Ids of handled events, in a file that outlives the process.
//!
//! Kafka and the stream both deliver reminders at least once, so a subscriber stores the ids of the events that it has
//! handled. The file has one id per line and is append-only. Opening it rewrites it without the ids beyond the limit.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Maximum number of ids; the oldest is removed first. Enough for the reminders announced while no subscriber runs.
const IDS_MAX: usize = 100_000;

/// The ids of handled events.
pub(crate) struct Seen {
    file: File,
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        // The last line may be incomplete; `insert` had not returned for it.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut order: VecDeque<String> = whole.lines().map(str::to_owned).collect();
        order.drain(..order.len().saturating_sub(IDS_MAX));
        let ids = order.iter().cloned().collect();
        replace(path, &order.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, ids, order })
    }

    /// Whether this event was handled before.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Stores the id; durable when it returns.
    pub(crate) fn insert(&mut self, id: &str) -> io::Result<()> {
        self.file.write_all(format!("{id}\n").as_bytes())?;
        self.file.sync_data()?;
        self.ids.insert(id.to_owned());
        self.order.push_back(id.to_owned());
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        Ok(())
    }
}

/// Replaces the file's content atomically: after a crash it contains either the old or the new text.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(aside, path)
}
