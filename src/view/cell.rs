//! The one cell of a row: position, state and, in an owner row, the outcomes of its latest records.
//!
//! States are written in [postcard](https://postcard.jamesmunns.com/wire-format): a specified format without
//! names or padding, in which equal states made of ordered maps and integers have equal bytes. The outcomes are not
//! part of the state, so comparisons leave them out.

use super::{Outcome, Skip};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

/// Room that a state gets at first.
const STATE_BYTES_USUAL: usize = 1024;

/// A cell that cannot be read: written by a newer build, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored row cannot be decoded ({0}); it was written by another version, or is damaged: rebuild the view")]
pub struct Corrupt(String);

/// A cell, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell<'a> {
    /// Offset of the last record folded into the row.
    pub position: i64,
    /// The state.
    #[serde(serialize_with = "whole")]
    pub state: &'a [u8],
    /// Outcomes of the latest records of an owner row, as [`Carried`]; empty in aggregates.
    #[serde(serialize_with = "whole")]
    pub carried: &'a [u8],
}

/// The outcomes that an owner row carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried<D> {
    /// By offset, why a record of the last moments was skipped, if it was: for those who wait for it.
    pub latest: Vec<(i64, Option<Skip>)>,
    /// The pending list: outcomes of the records behind the last checkpoint that is known to be durable.
    pub pending: Vec<(i64, Outcome<D>)>,
}

// Not derived, which would ask for a default of `D`.
impl<D> Default for Carried<D> {
    fn default() -> Self {
        Self { latest: Vec::new(), pending: Vec::new() }
    }
}

/// [`Carried::latest`] of an owner row, whatever it decides.
pub fn latest(carried: &[u8]) -> Result<Vec<(i64, Option<Skip>)>, Corrupt> {
    postcard::take_from_bytes(carried).map(|(latest, _)| latest).map_err(|e| Corrupt(e.to_string()))
}

/// Bytes in one run. What is written is the same as for a list of numbers, which would be written one by one.
fn whole<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

impl<'a> Cell<'a> {
    /// Reads a cell.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        postcard::from_bytes(bytes).map_err(|e| Corrupt(e.to_string()))
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Bytes {
        Bytes::from(encode_state(self))
    }
}

/// Canonical bytes of a state.
pub fn encode_state<T: Serialize>(state: &T) -> Vec<u8> {
    // Most states fit, and memory that grows while it is written is copied again and again.
    let bytes = Vec::with_capacity(STATE_BYTES_USUAL);
    postcard::to_extend(state, bytes).expect("invariant: states hold only what postcard can write, into growing memory")
}

/// A state from its bytes.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Corrupt> {
    postcard::from_bytes(bytes).map_err(|e| Corrupt(e.to_string()))
}
