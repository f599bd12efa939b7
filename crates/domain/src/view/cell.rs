//! The one cell of a row: position, state and, in an owner row, the outcomes of its latest records.
//!
//! States are written in [postcard](https://postcard.jamesmunns.com/wire-format): a specified format without
//! names or padding, in which equal states made of ordered maps and integers have equal bytes. The outcomes are not
//! part of the state, so comparisons leave them out.

use super::{Aggregate, FoldOutcome, Skip};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

/// A cell that cannot be read: written by a newer build, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored row cannot be decoded ({0}); it was written by another version, or is damaged: rebuild the view")]
pub struct Corrupt(String);

impl Corrupt {
    pub(super) fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

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
    /// By offset, why a recent record was skipped, if it was: for callers that wait for it.
    pub latest: Vec<(i64, Option<Skip>)>,
    /// The pending list: outcomes of the records after the last checkpoint that is known to be durable.
    pub pending: Vec<(i64, FoldOutcome<D>)>,
}

// Not derived, because that would require a default of `D`.
impl<D> Default for Carried<D> {
    fn default() -> Self {
        Self { latest: Vec::new(), pending: Vec::new() }
    }
}

/// [`Carried::latest`] of an owner row of any fold.
pub fn latest(carried: &[u8]) -> Result<Vec<(i64, Option<Skip>)>, Corrupt> {
    postcard::take_from_bytes(carried).map(|(latest, _)| latest).map_err(Corrupt::new)
}

/// Writes all bytes at once. The result is the same as for a list of numbers, which would be written one by one.
fn whole<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

impl<'a> Cell<'a> {
    /// Reads a cell.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        postcard::from_bytes(bytes).map_err(Corrupt::new)
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Bytes {
        Bytes::from(encode_state(self))
    }
}

/// A buffer in which the cells of many rows are written one after the other, so that each cell is then allocated once,
/// with its exact size.
#[derive(Debug, Default)]
pub struct CellBuffer {
    state: Vec<u8>,
    carried: Vec<u8>,
    cell: Vec<u8>,
}

impl CellBuffer {
    /// The cell of an owner row.
    pub fn owner<S: Serialize, D: Serialize>(&mut self, position: i64, state: &S, carried: &Carried<D>) -> Bytes {
        write(&mut self.state, state);
        write(&mut self.carried, carried);
        self.cell(position)
    }

    /// The cell of an aggregate.
    pub fn aggregate(&mut self, position: i64, state: &Aggregate) -> Bytes {
        state.write(&mut self.state);
        self.carried.clear();
        self.cell(position)
    }

    fn cell(&mut self, position: i64) -> Bytes {
        write(&mut self.cell, &Cell { position, state: &self.state, carried: &self.carried });
        Bytes::copy_from_slice(&self.cell)
    }
}

/// Replaces the contents with the canonical bytes of a state.
pub fn write<T: Serialize>(to: &mut Vec<u8>, state: &T) {
    to.clear();
    *to = postcard::to_extend(state, std::mem::take(to))
        .expect("invariant: states hold only what postcard can write, into growing memory");
}

/// Canonical bytes of a state.
pub fn encode_state<T: Serialize>(state: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, state);
    bytes
}

/// Bytes of a state as [`encode_state`] writes it, without writing it.
pub fn encoded_bytes<T: Serialize>(state: &T) -> usize {
    postcard::experimental::serialized_size(state).unwrap_or(usize::MAX)
}

/// A state from its bytes.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Corrupt> {
    postcard::from_bytes(bytes).map_err(Corrupt::new)
}
