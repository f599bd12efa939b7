//! A store in memory, for simulations and unit tests.
//!
//! It resolves conflicting writes as Cassandra does: by write timestamp, `epoch << 44 | position` for rows and
//! `epoch << 44 | next` for checkpoints, and at equal timestamps by the larger bytes. Beyond the contract it can
//! interrupt a flush after some of its rows, as a crash would.

use super::{Checkpoint, Flush, Row, RowWrite};
use crate::Error;
use async_trait::async_trait;
use bytes::Bytes;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The store; clones share everything.
#[derive(Clone, Default)]
pub struct Store {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Address, Written>,
    checkpoints: BTreeMap<(Generation, u32), Written>,
    pointers: BTreeMap<Family, Pointer>,
}

/// Generation, view, bucket, key and source partition: the order of a scan.
type Address = (Generation, View, i64, String, u32);

/// A cell and its write timestamp; the greater pair wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    timestamp: i64,
    cell: Bytes,
}

/// The write timestamp of a position; `epoch` keeps the positions of a re-created topic above all older ones.
pub fn timestamp(generation: Generation, position: i64) -> i64 {
    (i64::from(generation.epoch) << 44) | position
}

impl State {
    fn write_row(&mut self, flush: &Flush, row: &RowWrite) {
        let RowKey { view, bucket, key } = row.key.clone();
        let written = Written { timestamp: timestamp(flush.generation, row.position), cell: row.cell.clone() };
        put(&mut self.rows, (flush.generation, view, bucket, key, flush.partition), written);
    }

    fn write_checkpoint(&mut self, flush: &Flush) -> Result<(), Error> {
        let cell = postcard::to_stdvec(&flush.checkpoint).map_err(|e| Error::fatal("write a checkpoint", e))?;
        let written = Written { timestamp: timestamp(flush.generation, flush.checkpoint.next), cell: cell.into() };
        put(&mut self.checkpoints, (flush.generation, flush.partition), written);
        Ok(())
    }

    fn partials(&self, generation: Generation, source: Option<u32>, key: &RowKey) -> Vec<Row> {
        let at = |source| (generation, key.view, key.bucket, key.key.clone(), source);
        let (first, last) = source.map_or((0, u32::MAX), |source| (source, source));
        let found = self.rows.range(at(first)..=at(last));
        found.map(|(address, written)| Row { source: address.4, cell: written.cell.clone() }).collect()
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Written>, key: K, written: Written) {
    match map.get_mut(&key) {
        Some(stored) if *stored >= written => {}
        Some(stored) => *stored = written,
        None => {
            map.insert(key, written);
        }
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes those rows of a flush that `kept` selects, without its checkpoint: a crash during the flush.
    pub fn write_rows(&self, flush: &Flush, mut kept: impl FnMut(&RowWrite) -> bool) {
        let mut state = self.lock();
        for row in flush.rows.iter().filter(|row| kept(row)) {
            state.write_row(flush, row);
        }
    }

    /// Writes the checkpoint of a flush without its rows: the behavior of a faulty store.
    pub fn write_checkpoint(&self, flush: &Flush) -> Result<(), Error> {
        self.lock().write_checkpoint(flush)
    }

    /// Every row of a generation, in the order of view, bucket, key and source.
    pub fn rows(&self, generation: Generation) -> Vec<(RowKey, Row)> {
        let state = self.lock();
        let mine = state.rows.iter().filter(|(address, _)| address.0 == generation);
        mine.map(|((_, view, bucket, key, source), written)| {
            let key = RowKey { view: *view, bucket: *bucket, key: key.clone() };
            (key, Row { source: *source, cell: written.cell.clone() })
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl super::Store for Store {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        let written = self.lock().checkpoints.get(&(generation, partition)).cloned();
        let decode = |written: Written| postcard::from_bytes(&written.cell);
        written.map(decode).transpose().map_err(|e| Error::fatal("read a checkpoint", e))
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        let mut state = self.lock();
        for row in &flush.rows {
            state.write_row(flush, row);
        }
        state.write_checkpoint(flush)
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        let state = self.lock();
        Ok(keys.iter().map(|key| state.partials(generation, source, key)).collect())
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        let begin = match after {
            None => Bound::Included((generation, view, bucket, String::new(), 0)),
            Some((key, source)) => Bound::Excluded((generation, view, bucket, key.to_owned(), source)),
        };
        let state = self.lock();
        let found = state.rows.range((begin, Bound::Unbounded));
        let here = found.take_while(|((g, v, b, _, _), _)| (*g, *v, *b) == (generation, view, bucket));
        let row = |((.., key, source), written): (&Address, &Written)| {
            (key.clone(), Row { source: *source, cell: written.cell.clone() })
        };
        Ok(here.take(limit).map(row).collect())
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        let mut state = self.lock();
        let is_another = |of: &Generation| (of.family, of.number) != (generation.family, generation.number);
        state.rows.retain(|address, _| is_another(&address.0));
        state.checkpoints.retain(|(of, _), _| is_another(of));
        Ok(())
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        let state = self.lock();
        let here = state.rows.keys().filter(|address| (address.0, address.1) == (generation, view));
        let mut buckets: Vec<i64> = here.map(|address| address.2).collect();
        buckets.dedup();
        Ok(buckets)
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        Ok(self.lock().pointers.get(&family).cloned())
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        let mut state = self.lock();
        if state.pointers.get(&family) != expected {
            return Ok(false);
        }
        state.pointers.insert(family, new.clone());
        Ok(true)
    }
}
