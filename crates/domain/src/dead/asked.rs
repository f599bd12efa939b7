//! What can be asked to be done with letters, and what is told on the way: the words between a command and the desk.

use super::filter::Filter;
use super::show::Listed;
use super::{Address, Id};
use json_patch::Patch;
use serde::{Deserialize, Serialize};

/// Most records a second that can be asked for.
pub const RATE_MAX: u32 = 100_000;

/// What is to be done, with which letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Which letters.
    pub filter: Filter,
    /// Letters at most; at least 1.
    pub limit: usize,
    /// What with them.
    pub action: Action,
}

/// What is done with letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They are named.
    List(Scope),
    /// Their records are appended again.
    Redrive(Redrive),
    /// They are let go.
    Drop {
        /// Whether it is done.
        run: Run,
        /// Why.
        reason: String,
    },
}

/// Which letters a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those that wait for somebody.
    Open,
    /// Those that were redriven or dropped as well.
    All,
}

/// Whether something is done or only said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Only said.
    Dry,
    /// Done.
    Real,
}

/// How records are sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    /// Whether it is done.
    pub run: Run,
    /// Applied to every event.
    pub patch: Option<Patch>,
    /// A record that was rejected so many times is not sent again.
    pub attempts_max: u32,
    /// Records a second, 1 to [`RATE_MAX`].
    pub rate: u32,
    /// Why; stands in the marks.
    pub reason: Option<String>,
}

/// What is told on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A letter, and what was done with it.
    Letter {
        /// The letter, with its state before.
        letter: Box<Listed>,
        /// What was done.
        deed: Deed,
    },
    /// Nothing that was asked for stands there.
    Missing(Id),
    /// The work is done.
    Done(Summary),
    /// It could not be done to its end.
    Failed {
        /// Why, for whoever asked.
        detail: String,
    },
}

/// What was done with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It was named.
    Listed,
    /// Its record would be appended.
    WouldRedrive {
        /// Full name of the topic.
        topic: String,
        /// Under this key.
        key: String,
        /// Unknown fields and attributes that it would leave out.
        #[serde(default)]
        dropped: usize,
    },
    /// Its record was appended.
    Redriven {
        /// Position of the new record.
        #[serde(flatten)]
        to: Address,
        /// Unknown fields and attributes that it leaves out.
        #[serde(default)]
        dropped: usize,
    },
    /// It would be let go.
    WouldDrop,
    /// It was let go.
    Dropped,
    /// It was left as it is.
    Refused {
        /// Why.
        detail: String,
    },
}

/// What the work came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Letters that were told.
    pub letters: u64,
    /// Of them, those that were left as they are.
    pub refused: u64,
    /// Whether the limit cut it off, and there are more.
    pub more: bool,
}
