//! Converts files of past logins and appointments to events.
//!
//! ```text
//!   file ─► text ─► rows ─► the codec's own fields ─► events, by time ─► import, evaluate
//! ```
//!
//! A row becomes the data of an event and is read by the [codec](foretell_events::codec) like any other, so that the
//! same limits apply to all inputs. Files are rarely in order, but history must be folded in order: a file is read
//! completely and sorted by event time; rows of the same time keep their order. Ids are derived from the content of the
//! file, so that reading the same file again results in the same events.
//!
//! An invalid row ends the reading with an error that names file, line and column: half a history is worse than none.
//! Rows that a format is known to contain without a meaning are skipped and counted instead.

pub mod draw;
pub mod generate;
pub mod jsonl;
pub mod noshow;
pub mod rba;
mod table;

use foretell_enrich::Enricher;
use foretell_events::codec::{self, Parsed};
use foretell_events::login::LoginFact;
use foretell_events::record::NewRecord;
use foretell_events::{DEFAULT_TENANT, Envelope, Event, Fact};
use foretell_ports::file;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Maximum number of events per file; they are held in memory while they are sorted, 0.5 to 1.5 KiB each.
pub const EVENTS_MAX: usize = 4_000_000;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFormat {
    /// CSV of logins in the layout of the RBA data set, or of its synthetic companions. See [`rba`].
    Rba,
    /// CSV of appointments in the layout of "Medical Appointment No Shows". See [`noshow`].
    Noshow,
    /// JSON Lines of structured CloudEvents. See [`jsonl`].
    Events,
}

impl SourceFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Rba, Self::Noshow, Self::Events];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rba => "rba",
            Self::Noshow => "noshow",
            Self::Events => "events",
        }
    }

    /// The format with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// Why a file cannot be read; reported to the user who named the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot open {file}: {cause}")]
    Open {
        /// The file.
        file: String,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// The bytes cannot be read, decompressed or split into rows.
    #[error("cannot read {file}, line {line}: {detail}")]
    Read {
        /// The file.
        file: String,
        /// The first line of the row, counted from 1.
        line: u64,
        /// What is wrong.
        detail: String,
    },
    /// The first line lacks a column.
    #[error("{file} has no column \"{column}\"; its first line is \"{columns}\". Is it of another format?")]
    Column {
        /// The file.
        file: String,
        /// The column.
        column: &'static str,
        /// The first of the existing columns.
        columns: String,
    },
    /// A value cannot be read.
    #[error("{file}, line {line}, {column}: {detail}")]
    Row {
        /// The file.
        file: String,
        /// The first line of the row, counted from 1.
        line: u64,
        /// The column, or the JSON pointer in a line of JSON.
        column: String,
        /// What is wrong.
        detail: String,
    },
    /// The file has more than [`EVENTS_MAX`] events.
    #[error("{file} has more than {EVENTS_MAX} events; split it by time")]
    TooMany {
        /// The file.
        file: String,
    },
}

/// What a file states about a login in addition to the event: only for evaluation, never part of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceLabel {
    /// A row of a data set.
    Row {
        /// The address was used by attackers.
        attack_ip: bool,
        /// The login took over an account.
        account_takeover: bool,
    },
    /// An event of a simulated history.
    Simulated(Author),
}

/// The field of the data that contains the author of a simulated event.
pub(crate) const LABEL: &str = "label";

/// The author of a simulated login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The owner of the account.
    Legitimate,
    /// An attacker who only knows the password.
    Naive,
    /// An attacker who also knows the country.
    Vpn,
    /// An attacker who also knows city, browser and machine.
    Targeted,
}

impl Author {
    /// The attackers, from the least to the most knowledge.
    pub(crate) const ATTACKERS: [Self; 3] = [Self::Naive, Self::Vpn, Self::Targeted];

    /// The name in files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legitimate => "legitimate",
            Self::Naive => "naive",
            Self::Vpn => "vpn",
            Self::Targeted => "targeted",
        }
    }

    /// The author with this name.
    pub fn parse(name: &str) -> Option<Self> {
        std::iter::once(Self::Legitimate).chain(Self::ATTACKERS).find(|author| author.name() == name)
    }
}

/// An event from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Sourced {
    /// The event.
    pub event: Event,
    /// The original data with unknown fields, and extension attributes, if the file contains events.
    pub sent: Option<Box<RawEvent>>,
    /// The label of the data set.
    pub label: Option<SourceLabel>,
}

/// Data and extension attributes as the file contains them.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEvent {
    /// See [`Parsed::data`].
    pub data: Map<String, Value>,
    /// See [`Parsed::extensions`].
    pub extensions: Vec<(String, String)>,
}

impl Sourced {
    /// The event of a row.
    fn of_row(event: Event, label: Option<SourceLabel>) -> Self {
        Self { event, sent: None, label }
    }

    /// The event with its data, as it was sent or as it is encoded here.
    pub fn parsed(&self) -> Parsed {
        let event = self.event.clone();
        match &self.sent {
            Some(sent) => Parsed { event, data: sent.data.clone(), extensions: sent.extensions.clone(), dropped: 0 },
            None => Parsed::of(event),
        }
    }

    /// The record to append.
    pub fn record(&self) -> NewRecord {
        codec::encode_parsed(&self.parsed())
    }

    /// The event in structured form, to be sent to a running service.
    pub fn structured(&self) -> Value {
        codec::structured_event(&self.parsed())
    }
}

/// The content of a file.
#[derive(Debug)]
pub struct SourceData {
    /// By event time; events of the same time in the order of the file.
    pub events: Vec<Sourced>,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that were left out by the format.
    pub skipped: u64,
    /// Unknown fields and attributes of events that were dropped because there are too many.
    pub dropped: u64,
    /// Rows whose country code is invalid and treated as missing.
    pub without_country: u64,
    /// SHA-256 of the decompressed file, in hexadecimal.
    pub digest: String,
}

impl SourceData {
    /// Enriches the logins, as if they were accepted now.
    pub fn enrich(&mut self, enricher: &Enricher) {
        for sourced in &mut self.events {
            if let Fact::Login(LoginFact::Attempted(login)) = &mut sourced.event.fact {
                enricher.enrich(&mut login.attempt);
            }
        }
    }
}

/// Reads a file, gzipped or not, and sorts its events.
///
/// Events without a tenant get `tenant`, which the caller has [checked](codec::is_tenant).
pub fn read(path: &Path, format: SourceFormat, tenant: &str) -> Result<SourceData, Error> {
    let file = path.display().to_string();
    match File::open(path) {
        Ok(input) => read_from(input, Origin { file: &file, tenant }, format),
        Err(cause) => Err(Error::Open { file, cause }),
    }
}

/// The origin of rows.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The name of the input in errors.
    pub file: &'a str,
    /// The tenant of events that do not name one.
    pub tenant: &'a str,
}

impl Default for Origin<'_> {
    fn default() -> Self {
        Self { file: "input", tenant: DEFAULT_TENANT }
    }
}

/// Reads any input as [`read`] reads a file.
pub fn read_from(input: impl Read, origin: Origin<'_>, format: SourceFormat) -> Result<SourceData, Error> {
    let mut rows = Rows::new(origin);
    let unreadable = |cause| origin.unreadable(1, &cause);
    let unpacked = file::unpacked(input).map_err(unreadable)?;
    let mut digested = BufReader::with_capacity(64 * 1024, Digested { input: unpacked, digest: Sha256::new() });
    let mut text = file::unmarked(&mut digested).map_err(unreadable)?;
    match format {
        SourceFormat::Rba => rba::read(&mut text, &mut rows)?,
        SourceFormat::Noshow => noshow::read(&mut text, &mut rows)?,
        SourceFormat::Events => jsonl::read(&mut text, &mut rows)?,
    }
    io::copy(&mut text, &mut io::sink()).map_err(|cause| origin.unreadable(rows.count, &cause))?;
    drop(text);
    let digest = digested.into_inner().digest.finalize();
    Ok(rows.into_data(hex::encode(digest)))
}

impl Origin<'_> {
    fn unreadable(&self, line: u64, cause: &dyn std::fmt::Display) -> Error {
        Error::Read { file: self.file.to_owned(), line, detail: cause.to_string() }
    }

    fn bad(&self, line: u64, column: &str, detail: impl Into<String>) -> Error {
        Error::Row { file: self.file.to_owned(), line, column: column.to_owned(), detail: detail.into() }
    }

    fn envelope(&self, id: String, source: &str, time_ms: i64) -> Envelope {
        Envelope { id, source: source.to_owned(), tenant: self.tenant.to_owned(), time_ms }
    }
}

/// The events of the rows read so far.
struct Rows<'a> {
    origin: Origin<'a>,
    events: Vec<Sourced>,
    count: u64,
    skipped: u64,
    dropped: u64,
    without_country: u64,
}

impl<'a> Rows<'a> {
    fn new(origin: Origin<'a>) -> Self {
        Self { origin, events: Vec::new(), count: 0, skipped: 0, dropped: 0, without_country: 0 }
    }

    fn push(&mut self, sourced: Sourced) -> Result<(), Error> {
        if self.events.len() == EVENTS_MAX {
            return Err(Error::TooMany { file: self.origin.file.to_owned() });
        }
        self.events.push(sourced);
        Ok(())
    }

    fn into_data(mut self, digest: String) -> SourceData {
        self.events.sort_by_key(|sourced| sourced.event.envelope.time_ms);
        let Self { events, count: rows, skipped, dropped, without_country, .. } = self;
        SourceData { events, rows, skipped, dropped, without_country, digest }
    }
}

/// A reader that computes the digest of everything read through it.
struct Digested<R> {
    input: R,
    digest: Sha256,
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
