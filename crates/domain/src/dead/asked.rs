//! The requests for an operation on letters, and its progress reports: the protocol between a command and the
//! operation.

use super::filter::Filter;
use super::show::Listed;
use super::{Address, Id};
use json_patch::Patch;
use serde::{Deserialize, Serialize};

/// Most records per second that can be requested.
pub const RATE_MAX: u32 = 100_000;

/// An operation, and the letters that it applies to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Which letters.
    pub filter: Filter,
    /// Most letters; at least 1.
    pub limit: usize,
    /// What to do with them.
    pub action: Action,
}

/// What to do with letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// List them.
    List(Scope),
    /// Append their records again.
    Redrive(Redrive),
    /// Drop them.
    Drop {
        /// Whether to execute it.
        run: Run,
        /// Why.
        reason: String,
    },
}

/// Which letters a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Only those that are not resolved.
    Open,
    /// Also those that were redriven or dropped.
    All,
}

/// Whether an operation is executed or only previewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Only previewed.
    Dry,
    /// Executed.
    Real,
}

/// How records are redriven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    /// Whether to execute it.
    pub run: Run,
    /// Applied to every event.
    pub patch: Option<Patch>,
    /// A record that was rejected this many times is not redriven.
    pub attempts_max: u32,
    /// Records per second, 1 to [`RATE_MAX`].
    pub rate: u32,
    /// Why; stored in the resolution records.
    pub reason: Option<String>,
}

/// A progress report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A letter, and the outcome for it.
    Letter {
        /// The letter, with its state before the operation.
        letter: Box<Listed>,
        /// The outcome.
        deed: Deed,
    },
    /// There is no letter at a requested position.
    Missing(Id),
    /// The operation is complete.
    Done(Summary),
    /// The operation ended early.
    Failed {
        /// Why, for the caller.
        detail: String,
    },
}

/// The outcome of an operation for a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It was listed.
    Listed,
    /// Its record would be appended.
    WouldRedrive {
        /// Full name of the topic.
        topic: String,
        /// With this key.
        key: String,
        /// Unknown fields and attributes that would be omitted.
        #[serde(default)]
        dropped: usize,
    },
    /// Its record was appended.
    Redriven {
        /// Position of the new record.
        #[serde(flatten)]
        to: Address,
        /// Unknown fields and attributes that are omitted.
        #[serde(default)]
        dropped: usize,
    },
    /// It would be dropped.
    WouldDrop,
    /// It was dropped.
    Dropped,
    /// It was left unchanged.
    Refused {
        /// Why.
        detail: String,
    },
}

/// The totals of an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Letters that were reported.
    pub letters: u64,
    /// Of them, those that were left unchanged.
    pub refused: u64,
    /// Whether the limit ended the operation, so that there are more.
    pub more: bool,
}
