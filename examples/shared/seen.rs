//! Ids of events that were acted on, in a file that outlives the process.
//!
//! Both ways to Foretell's reminders are at least once, so a subscriber remembers what it has acted on. The file has one
//! id a line. It is only ever appended to, and written anew when it is opened, without what is too old to come again.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Ids that are remembered; the oldest is forgotten first. Enough for whatever may be announced while nobody listens.
const IDS_MAX: usize = 100_000;

/// What was acted on.
pub(crate) struct Seen {
    file: File,
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Opens the file, or makes one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        // The last line may be torn: nobody was told that it was remembered.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut order: VecDeque<String> = whole.lines().map(str::to_owned).collect();
        order.drain(..order.len().saturating_sub(IDS_MAX));
        let ids = order.iter().cloned().collect();
        replace(path, &order.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, ids, order })
    }

    /// Whether this was acted on before.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Remembers it; durable when it returns.
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

/// Writes a file so that it holds either what it held before or all of the text, whenever the process ends.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(aside, path)
}
