//! `import`: a file of the past into the log, in order of time, each event once.
//!
//! ```text
//!   file ─► events by time ─► gate ─► batches (≤ 64 of one subject) ─► append, durable ─► journal: so many are done
//! ```
//!
//! An import may be cut off anywhere. The journal says how many events of the file, known by its digest, are in
//! the log, and is written after they are; so at most the batch under way is sent again, and of each user or
//! client at most 64 events of it, which the fold recognises. A file that is done is not appended again.

use super::Error;
use super::access::Access;
use foretell_engine::ingest::{BATCH_EVENTS_MAX, BATCH_SUBJECT_EVENTS_MAX};
use foretell_events::gate::{Sender, Terms};
use foretell_events::{Event, Topic};
use foretell_lab::source::{Loaded, Sourced};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of a batch's records; leaves room for what an envelope adds in structured form.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Authentication events.
    Logins,
    /// Appointment events.
    Appointments,
}

impl Kind {
    /// The topic of its events.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Logins => Topic::Logins,
            Self::Appointments => Topic::Appointments,
        }
    }
}

/// How far a file is imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// SHA-256 of the file, unpacked.
    digest: String,
    /// Where it went.
    target: String,
    /// Events that are in the log.
    done: usize,
    /// Events of the file.
    total: usize,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Events of the file.
    pub events: usize,
    /// Of them, those that an earlier import had appended.
    pub before: usize,
    /// Rows that the format leaves out.
    pub skipped: u64,
    /// Unknown fields and attributes that are left out: see [`UNKNOWN_BYTES_MAX`](foretell_events::gate::UNKNOWN_BYTES_MAX).
    pub dropped: u64,
    /// Rows whose country code names no country, which is read as absent.
    pub without_country: u64,
    /// Where it is written down how far the import is. Without it, the file would be appended again.
    pub journal: PathBuf,
}

/// Where an import goes.
pub struct Target<'a> {
    /// The way there.
    pub access: &'a Access,
    /// Names it in the journal.
    pub name: String,
    /// Directory of journals.
    pub journals: PathBuf,
    /// The tenant that all events must belong to; without one, each keeps the tenant that it names.
    pub tenant: Option<&'a str>,
    /// The present, in milliseconds since the epoch.
    pub now_ms: i64,
}

/// Appends what of a file is not in the log yet; `progress` hears how many events are.
pub async fn import(
    loaded: &Loaded,
    kind: Kind,
    target: &Target<'_>,
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
    let Loaded { skipped, dropped, without_country, .. } = *loaded;
    Ok(Imported { events: total, before, skipped, dropped, without_country, journal: path })
}

/// Whether every event passes the gate and is of the kind, checked before any is appended: otherwise a later batch
/// could be rejected after earlier ones were stored. The [ingestion](foretell_engine::ingest) of each batch checks again.
fn check(loaded: &Loaded, kind: Kind, target: &Target<'_>) -> Result<(), Error> {
    let sender = Sender::Operator { topic: Some(kind.topic()) };
    let terms = Terms { now_ms: target.now_ms, tenant: target.tenant, sender };
    let refused = loaded.events.iter().find_map(|sourced| Some((sourced, terms.check(&sourced.event).err()?)));
    refused.map_or(Ok(()), |(sourced, faults)| {
        let detail = format!("event {:?} is refused: {faults}; nothing was appended", sourced.event.envelope.id);
        Err(Error::Answer(detail))
    })
}

/// How many of the next events make a batch; at least one.
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

fn journal_path(target: &Target<'_>, digest: &str) -> PathBuf {
    let to = xxhash_rust::xxh3::xxh3_64(target.name.as_bytes());
    target.journals.join(format!("{}-{to:016x}.json", digest.get(..32).unwrap_or(digest)))
}

/// Keeps a second import of the same file away for as long as the answer is held.
fn lock(path: &Path) -> Result<File, Error> {
    let path = path.with_extension("lock");
    let fail = |cause| Error::File(format!("cannot lock the import journal {}", path.display()), cause);
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(fail)?;
    let file = File::create(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Answer("another import of this file is under way".into())),
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

/// What `scripts/fuzz` drives of a journal: see the package `foretell-fuzz`.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz_journal(bytes: &[u8]) {
    if let Ok(journal) = serde_json::from_slice::<Journal>(bytes) {
        let again = serde_json::to_vec(&journal).expect("invariant: a journal has a JSON form");
        assert_eq!(serde_json::from_slice::<Journal>(&again).ok(), Some(journal), "a journal is read as it is written");
    }
}

/// Replaces the journal in one step, so that it is the old one or the new one after any crash.
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
