//! `import`: appends the events of a file to the log, in order of time, each once.
//!
//! ```text
//!   file ─► events by time ─► gate ─► batches (≤ 64 of one subject) ─► append, durable ─► journal: number done
//! ```
//!
//! An import can be interrupted anywhere. The journal records how many events of the file, identified by its digest,
//! are in the log, and it is written after the append. So at most the batch in progress is sent again, with at most 64
//! events of each user or client, and the fold recognises these as duplicates. A completed file is not appended again.

use super::Error;
use super::access::Access;
use foretell_engine::ingest::{BATCH_EVENTS_MAX, BATCH_SUBJECT_EVENTS_MAX};
use foretell_events::gate::{GateContext, Sender};
use foretell_events::{Event, Topic};
use foretell_lab::source::{SourceData, Sourced};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Maximum size of a batch's records, in bytes; leaves space for the envelopes of the structured form.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Kinds of events in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Authentication events.
    Logins,
    /// Appointment events.
    Appointments,
}

impl Kind {
    /// The topic of these events.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Logins => Topic::Logins,
            Self::Appointments => Topic::Appointments,
        }
    }
}

/// Progress of the import of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// SHA-256 of the file, decompressed.
    digest: String,
    /// Destination of the events.
    target: String,
    /// Events that are in the log.
    done: usize,
    /// Events in the file.
    total: usize,
}

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Events in the file.
    pub events: usize,
    /// Events that an earlier import had appended.
    pub before: usize,
    /// Rows that the format skips.
    pub skipped: u64,
    /// Unknown fields and attributes that were dropped: see
    /// [`UNKNOWN_BYTES_MAX`](foretell_events::gate::UNKNOWN_BYTES_MAX).
    pub dropped: u64,
    /// Rows with a country code that is not a country; it is treated as missing.
    pub without_country: u64,
    /// The file that records the progress. Without it, the file would be appended again.
    pub journal: PathBuf,
}

/// Destination of an import.
pub struct ImportTarget<'a> {
    /// Access to the instance.
    pub access: &'a Access,
    /// Name of the destination in the journal.
    pub name: String,
    /// Directory of journals.
    pub journals: PathBuf,
    /// The tenant that all events must belong to; if none, each event keeps its own tenant.
    pub tenant: Option<&'a str>,
    /// Current time, in milliseconds since the epoch.
    pub now_ms: i64,
}

/// Appends the events of a file that are not in the log yet; `progress` receives the number of events done.
pub async fn import(
    loaded: &SourceData,
    kind: Kind,
    target: &ImportTarget<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<Imported, Error> {
    check(loaded, kind, target)?;
    let path = journal_path(target, &loaded.digest);
    let _only = lock(&path)?;
    let total = loaded.events.len();
    let mut journal = read(&path)?.unwrap_or_else(|| Journal {
        digest: loaded.digest.clone(),
        target: target.name.clone(),
        done: 0,
        total,
    });
    let before = journal.done.min(total);
    journal.done = before;
    progress(journal.done);
    while journal.done < total {
        let rest = &loaded.events[journal.done..];
        let batch = &rest[..batch_len(rest)];
        target.access.append(batch, target).await?;
        journal.done += batch.len();
        write(&path, &journal)?;
        progress(journal.done);
    }
    let SourceData { skipped, dropped, without_country, .. } = *loaded;
    Ok(Imported { events: total, before, skipped, dropped, without_country, journal: path })
}

/// Whether every event passes the gate and is of the kind, checked before any is appended: otherwise a later batch
/// could be rejected after earlier ones were stored. The [ingestion](foretell_engine::ingest) of each batch checks
/// again.
fn check(loaded: &SourceData, kind: Kind, target: &ImportTarget<'_>) -> Result<(), Error> {
    let sender = Sender::Operator { topic: Some(kind.topic()) };
    let terms = GateContext { now_ms: target.now_ms, tenant: target.tenant, sender };
    let refused = loaded.events.iter().find_map(|sourced| Some((sourced, terms.check(&sourced.event).err()?)));
    refused.map_or(Ok(()), |(sourced, faults)| {
        let detail = format!("event {:?} is rejected: {faults}; nothing was appended", sourced.event.envelope.id);
        Err(Error::Answer(detail))
    })
}

/// Number of events in the next batch; at least one.
fn batch_len(rest: &[Sourced]) -> usize {
    let mut subjects: HashMap<&str, usize> = HashMap::new();
    let mut bytes = 0;
    for (at, sourced) in rest.iter().enumerate().take(BATCH_EVENTS_MAX) {
        let of_subject = subjects.entry(sourced.event.fact.subject()).or_default();
        *of_subject += 1;
        bytes += weight(&sourced.event, sourced);
        if *of_subject > BATCH_SUBJECT_EVENTS_MAX || bytes > BATCH_BYTES_MAX {
            return at.max(1);
        }
    }
    rest.len().min(BATCH_EVENTS_MAX)
}

fn weight(event: &Event, sourced: &Sourced) -> usize {
    let data = match &sourced.sent {
        Some(sent) => serde_json::to_string(&sent.data).map_or(0, |text| text.len()),
        None => event.fact.data().iter().map(|(k, v)| k.len() + v.to_string().len() + 4).sum(),
    };
    data + event.envelope.id.len() + event.envelope.source.len() + 200
}

fn journal_path(target: &ImportTarget<'_>, digest: &str) -> PathBuf {
    let to = xxhash_rust::xxh3::xxh3_64(target.name.as_bytes());
    target.journals.join(format!("{}-{to:016x}.json", digest.get(..32).unwrap_or(digest)))
}

/// Prevents a second import of the same file while the returned lock is held.
fn lock(path: &Path) -> Result<File, Error> {
    let path = path.with_extension("lock");
    let fail = |cause| Error::File(format!("cannot lock the import journal {}", path.display()), cause);
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(fail)?;
    let file = File::create(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Answer("another import of this file is running".into())),
        Err(TryLockError::Error(cause)) => Err(fail(cause)),
    }
}

fn read(path: &Path) -> Result<Option<Journal>, Error> {
    let fail = |cause| Error::File(format!("cannot read the import journal {}", path.display()), cause);
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| fail(cause.into())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(fail(cause)),
    }
}

/// The fuzz target for journals: see the package `foretell-fuzz`.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz_journal(bytes: &[u8]) {
    if let Ok(journal) = serde_json::from_slice::<Journal>(bytes) {
        let again = serde_json::to_vec(&journal).expect("invariant: a journal has a JSON form");
        assert_eq!(serde_json::from_slice::<Journal>(&again).ok(), Some(journal), "a journal is read as it is written");
    }
}

/// Replaces the journal atomically, so that it is the old or the new one after any crash.
fn write(path: &Path, journal: &Journal) -> Result<(), Error> {
    let fail = |cause| Error::File(format!("cannot write the import journal {}", path.display()), cause);
    let new = path.with_extension("new");
    let bytes = serde_json::to_vec(journal).map_err(|cause| fail(cause.into()))?;
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_data()
    });
    written.and_then(|()| std::fs::rename(&new, path)).map_err(fail)
}
