//! The query, the items and the report of the job on dead letters, which the command and the job share.

use super::details::DeadLetterEntry;
use super::filter::Filter;
use super::{Address, Id};
use json_patch::Patch;
use serde::{Deserialize, Serialize};

/// Most records a second.
pub const RATE_MAX: u32 = 100_000;

/// An operation, and the letters that it applies to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterQuery {
    /// Which letters.
    pub filter: Filter,
    /// Most letters; at least 1.
    pub limit: usize,
    /// What to do with them.
    pub action: DeadLetterAction,
}

/// What to do with letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterAction {
    /// Name them.
    List(DeadLetterScope),
    /// Append their records again.
    Redrive(Redrive),
    /// Close them without a new record.
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
pub enum DeadLetterScope {
    /// Those without a resolution record.
    Open,
    /// Those that were redriven or dropped, too.
    All,
}

/// Whether something is done or only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Only reported.
    Dry,
    /// Executed.
    Real,
}

/// How records are appended again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    /// Whether to execute it.
    pub run: Run,
    /// Applied to every event.
    pub patch: Option<Patch>,
    /// A record that was rejected this many times is not appended again.
    pub attempts_max: u32,
    /// Records per second, 1 to [`RATE_MAX`].
    pub rate: u32,
    /// Why; kept in the resolution records.
    pub reason: Option<String>,
}

/// What the job sends on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterItem {
    /// A letter, and what was done with it.
    Letter {
        /// The letter, with its state before the operation.
        letter: Box<DeadLetterEntry>,
        /// What was done.
        outcome: LetterOutcome,
    },
    /// There is no letter with this id, which the query names.
    Missing(Id),
}

/// The outcome of an operation for a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterOutcome {
    /// It was named.
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

/// What was done in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterSummary {
    /// Letters that were sent as items.
    pub letters: u64,
    /// Of them, those that were left unchanged.
    pub refused: u64,
    /// Whether the limit ended the operation, so that there are more.
    pub more: bool,
}
