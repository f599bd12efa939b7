//! A store in memory, for tests and simulations: what Cassandra promises, without Cassandra.
//!
//! Rows and checkpoints are registers that the larger write timestamp wins, `epoch << 44 | position`; at equal
//! timestamps the larger bytes win, as cells are reconciled in Cassandra. [`Memory::tear`] writes a part of a
//! flush, which is what a crash leaves behind there. Clones share their state.

use super::{Checkpoint, Error, Family, Flush, Generation, Pointer, Row, RowKey, RowWrite, Store, View};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Address = (u32, View, i64, String, u32);

#[derive(Debug, Default)]
struct State {
    /// By generation, view, bucket, key and source.
    rows: BTreeMap<Address, (i64, Bytes)>,
    checkpoints: BTreeMap<(Generation, u32), Checkpoint>,
    pointers: BTreeMap<Family, Pointer>,
}

/// A store in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes those rows of a flush that `written` names by index, and neither the others nor the checkpoint.
    pub fn tear(&self, flush: &Flush, written: impl Fn(usize) -> bool) {
        let mut state = self.state();
        let torn = flush.rows.iter().enumerate().filter(|(index, _)| written(*index));
        torn.for_each(|(_, row)| write(&mut state, flush, row));
    }

    /// Every row of a generation: its address, source partition and cell, in order.
    pub fn rows(&self, generation: Generation) -> Vec<(RowKey, u32, Bytes)> {
        let state = self.state();
        let mine = state
            .rows
            .iter()
            .filter(|((number, view, ..), _)| *number == generation.number && view.family() == generation.family);
        mine.map(|((_, view, bucket, key, source), (_, cell))| {
            (RowKey { view: *view, bucket: *bucket, key: key.clone() }, *source, cell.clone())
        })
        .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timestamp(epoch: u8, position: i64) -> i64 {
    (i64::from(epoch) << 44) | position
}

fn write(state: &mut State, flush: &Flush, row: &RowWrite) {
    let RowKey { view, bucket, key } = &row.key;
    let address = (flush.generation.number, *view, *bucket, key.clone(), flush.partition);
    let new = (timestamp(flush.generation.epoch, row.position), row.cell.clone());
    let stored = state.rows.entry(address).or_insert_with(|| new.clone());
    if new > *stored {
        *stored = new;
    }
}

#[async_trait]
impl Store for Memory {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        Ok(self.state().checkpoints.get(&(generation, partition)).copied())
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        let mut state = self.state();
        flush.rows.iter().for_each(|row| write(&mut state, flush, row));
        let stored = state.checkpoints.entry((flush.generation, flush.partition)).or_insert(flush.checkpoint);
        if flush.checkpoint.next > stored.next {
            *stored = flush.checkpoint;
        }
        Ok(())
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        let state = self.state();
        let sources = source.map_or(0..=u32::MAX, |source| source..=source);
        let partials = |key: &RowKey| {
            let at = |source| (generation.number, key.view, key.bucket, key.key.clone(), source);
            let range = state.rows.range(at(*sources.start())..=at(*sources.end()));
            range.map(|((.., source), (_, cell))| Row { source: *source, cell: cell.clone() }).collect()
        };
        Ok(keys.iter().map(partials).collect())
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        let state = self.state();
        let (key, source) = after.map_or((String::new(), 0), |(key, source)| (key.to_owned(), source));
        let in_bucket = |(number, v, b, ..): &Address| (*number, *v, *b) == (generation.number, view, bucket);
        let from = (generation.number, view, bucket, key.clone(), source);
        let behind = |(.., k, s): &Address| after.is_none_or(|after| (k.as_str(), *s) > after);
        let rows = state.rows.range(from..).take_while(|(address, _)| in_bucket(address));
        let page = rows.filter(|(address, _)| behind(address)).take(limit);
        Ok(page
            .map(|((.., key, source), (_, cell))| (key.clone(), Row { source: *source, cell: cell.clone() }))
            .collect())
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        let state = self.state();
        let mine = state.rows.keys().filter(|(number, v, ..)| (*number, *v) == (generation.number, view));
        let mut buckets: Vec<_> = mine.map(|(_, _, bucket, ..)| *bucket).collect();
        buckets.dedup();
        Ok(buckets)
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        Ok(self.state().pointers.get(&family).cloned())
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        let mut state = self.state();
        let swapped = state.pointers.get(&family) == expected;
        if swapped {
            state.pointers.insert(family, new.clone());
        }
        Ok(swapped)
    }
}
