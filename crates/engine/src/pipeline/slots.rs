//! The decoded rows that a pipeline has in memory.
//!
//! An event finds each of its rows once, and keeps the number of the slot: folding, applying contributions and the next
//! flush use the number. Changed rows are listed, so that a flush costs what has changed and not what is cached.

use super::written::Written;
use crate::rows::live::BYTES_PER_STORED_BYTE;
use foretell_domain::address::RowKey;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// The number of a slot; valid until the next [`Slots::evict`].
pub(super) type SlotId = u32;

/// Memory of a slot besides its row and key: index, counters and the row's own structures, in bytes.
const SLOT_BYTES: usize = 160;

/// Rows by address.
pub(super) struct Slots<R> {
    index: HashTable<SlotId>,
    hasher: DefaultHashBuilder,
    slots: Vec<Slot<R>>,
    /// The rows that may be stored.
    written: Written,
    /// Slots without a row, because it was not read yet.
    empty: Vec<SlotId>,
    /// Slots whose row was changed since the last [`changed`](Self::changed).
    changed: Vec<SlotId>,
    /// Counts evictions.
    turn: u32,
    /// Slots used in this turn, and their bytes.
    used: usize,
    used_bytes: usize,
    bytes: usize,
}

struct Slot<R> {
    key: RowKey,
    hash: u64,
    row: Option<R>,
    /// Whether it may be stored.
    is_stored: bool,
    is_changed: bool,
    /// The turn in which it was last used.
    used: u32,
    bytes: usize,
}

impl<R> Slots<R> {
    pub(super) fn new(written: Written) -> Self {
        Self {
            written,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            slots: Vec::new(),
            empty: Vec::new(),
            changed: Vec::new(),
            turn: 0,
            used: 0,
            used_bytes: 0,
            bytes: 0,
        }
    }

    /// The slot of a row; a new one without a row if the row is not in memory.
    pub(super) fn find(&mut self, key: RowKey) -> SlotId {
        let hash = self.hasher.hash_one(&key);
        let slots = &mut self.slots;
        if let Some(&id) = self.index.find(hash, |&id| slots[id as usize].key == key) {
            let slot = &mut slots[id as usize];
            if slot.used != self.turn {
                slot.used = self.turn;
                self.used += 1;
                self.used_bytes += slot.bytes;
            }
            return id;
        }
        let id = SlotId::try_from(slots.len()).expect("invariant: bounds of memory allow fewer rows");
        let bytes = SLOT_BYTES + key.key.len();
        slots.push(Slot { key, hash, row: None, is_stored: true, is_changed: false, used: self.turn, bytes });
        self.index.insert_unique(hash, id, |&id| slots[id as usize].hash);
        self.empty.push(id);
        self.used += 1;
        self.used_bytes += bytes;
        self.bytes += bytes;
        id
    }

    /// The slots whose row must be read, each once; the caller fills them. Rows that cannot be stored become `empty`.
    pub(super) fn take_missing<E>(&mut self, empty: impl Fn(&RowKey) -> Result<R, E>) -> Result<Vec<SlotId>, E> {
        let mut missing = Vec::new();
        for id in std::mem::take(&mut self.empty) {
            let slot = &mut self.slots[id as usize];
            if self.written.is_absent(slot.hash) {
                slot.row = Some(empty(&slot.key)?);
                slot.is_stored = false;
            } else {
                missing.push(id);
            }
        }
        Ok(missing)
    }

    /// The address of a slot's row.
    pub(super) fn key(&self, id: SlotId) -> &RowKey {
        &self.slots[id as usize].key
    }

    /// The addresses of the rows of slots.
    pub(super) fn keys(&self, ids: &[SlotId]) -> Vec<RowKey> {
        ids.iter().map(|id| self.key(*id).clone()).collect()
    }

    /// Sets the row that was read, and its size in the store.
    pub(super) fn fill(&mut self, id: SlotId, row: R, stored_bytes: usize) {
        self.slots[id as usize].row = Some(row);
        self.resize(id, stored_bytes);
    }

    /// The row of a slot that has been filled.
    pub(super) fn row(&mut self, id: SlotId) -> &mut R {
        self.slots[id as usize].row.as_mut().expect("invariant: rows are loaded before they are used")
    }

    /// Lists a row as changed.
    pub(super) fn change(&mut self, id: SlotId) {
        let slot = &mut self.slots[id as usize];
        if !slot.is_changed {
            slot.is_changed = true;
            self.changed.push(id);
        }
    }

    /// Calls `write` with each row changed since the last call; it returns the size of the row in the store.
    pub(super) fn take_changed(&mut self, mut write: impl FnMut(&RowKey, &mut R) -> usize) {
        for id in std::mem::take(&mut self.changed) {
            let slot = &mut self.slots[id as usize];
            slot.is_changed = false;
            if !slot.is_stored {
                slot.is_stored = true;
                self.written.insert(slot.hash);
            }
            let row = slot.row.as_mut().expect("invariant: only loaded rows change");
            let stored_bytes = write(&slot.key, row);
            self.resize(id, stored_bytes);
        }
    }

    /// How many rows were changed since the last [`take_changed`](Self::take_changed).
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// The memory of all rows, in bytes: an estimate from their sizes in the store.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the rows exceed a bound, or those used in this turn exceed half of it, forgets those that were not used in
    /// this turn, and begins the next one. Changed rows stay. Slot numbers from before are not valid any more.
    pub(super) fn evict(&mut self, rows_max: usize, bytes_max: usize) {
        let is_within = self.slots.len() <= rows_max && self.bytes <= bytes_max;
        if is_within && self.used <= rows_max / 2 && self.used_bytes <= bytes_max / 2 {
            return;
        }
        let turn = self.turn;
        self.slots.retain(|slot| slot.is_changed || slot.used == turn);
        self.slots.shrink_to(2 * self.slots.len());
        self.bytes = self.slots.iter().map(|slot| slot.bytes).sum();
        self.reindex();
        self.turn += 1;
        (self.used, self.used_bytes) = (0, 0);
    }

    fn reindex(&mut self) {
        let slots = &self.slots;
        let hash = |id: &SlotId| slots[*id as usize].hash;
        self.index.clear();
        self.index.shrink_to(2 * slots.len(), hash);
        for (id, slot) in (0..).zip(slots) {
            self.index.insert_unique(slot.hash, id, hash);
        }
        self.changed = (0..).zip(slots).filter(|(_, slot)| slot.is_changed).map(|(id, _)| id).collect();
    }

    fn resize(&mut self, id: SlotId, stored_bytes: usize) {
        let slot = &mut self.slots[id as usize];
        let bytes = SLOT_BYTES + slot.key.key.len() + stored_bytes * BYTES_PER_STORED_BYTE;
        self.bytes = self.bytes - slot.bytes + bytes;
        // Only rows in use change their size.
        self.used_bytes = self.used_bytes.saturating_sub(slot.bytes) + bytes;
        slot.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::address::View;
    use std::convert::Infallible;

    const UNBOUNDED: usize = usize::MAX;

    fn key(n: usize) -> RowKey {
        RowKey::hashed(View::User, n.to_string())
    }

    fn slots(keys: impl Iterator<Item = usize>) -> Slots<usize> {
        let mut slots = Slots::new(Written::nothing());
        keys.for_each(|n| assert!(load(&mut slots, n)));
        slots
    }

    /// Uses a row, whose value is its number, and reads it if it is missing; returns whether its slot has it.
    fn load(slots: &mut Slots<usize>, n: usize) -> bool {
        let id = slots.find(key(n));
        let Ok(missing) = slots.take_missing(|_| Ok::<_, Infallible>(n));
        missing.into_iter().for_each(|id| slots.fill(id, n, 0));
        *slots.row(id) == n
    }

    fn holds(slots: &Slots<usize>, n: usize) -> bool {
        slots.slots.iter().any(|slot| slot.key == key(n))
    }

    #[test]
    fn rows_that_are_not_used_for_a_turn_are_forgotten_and_others_stay() {
        const ROWS_MAX: usize = 10;
        let mut slots = slots(std::iter::empty());
        for n in 0..100 {
            load(&mut slots, n);
            load(&mut slots, 0);
            slots.evict(ROWS_MAX, UNBOUNDED);
            assert!(slots.slots.len() <= ROWS_MAX + 2, "{} rows after {n}", slots.slots.len());
        }
        assert!(holds(&slots, 0), "it is used in every turn");
        assert!(holds(&slots, 99));
        assert!(!holds(&slots, 1));
        assert!((0..100).all(|n| load(&mut slots, n)), "each is found, or read again");
    }

    #[test]
    fn few_rows_are_kept_however_many_turns_pass() {
        let mut slots = slots(0..5);
        (0..100).for_each(|_| slots.evict(10, UNBOUNDED));
        assert!((0..5).all(|n| holds(&slots, n)));
    }

    #[test]
    fn large_rows_are_bounded_by_their_bytes() {
        const ROW: usize = 1_000;
        let mut slots = slots(std::iter::empty());
        for n in 0..1_000 {
            let id = slots.find(key(n));
            slots.take_missing(|_| Ok::<_, Infallible>(n)).unwrap_or_default();
            slots.fill(id, n, ROW);
            slots.evict(UNBOUNDED, 20 * ROW * BYTES_PER_STORED_BYTE);
        }
        let counted: usize = slots.slots.iter().map(|slot| slot.bytes).sum();
        assert_eq!(slots.bytes(), counted);
        assert!((5..=25).contains(&slots.slots.len()), "{} rows", slots.slots.len());
    }

    #[test]
    fn a_changed_row_is_written_once_and_is_not_forgotten_before() {
        let mut slots = slots(0..50);
        let changed = slots.find(key(7));
        slots.change(changed);
        slots.change(changed);
        assert_eq!(slots.changed(), 1);
        (100..160).for_each(|n| assert!(load(&mut slots, n)));
        slots.evict(20, UNBOUNDED);
        slots.evict(20, UNBOUNDED);
        let mut written = Vec::new();
        slots.take_changed(|key, row| {
            written.push((key.clone(), *row));
            8
        });
        assert_eq!(written, [(key(7), 7)]);
        slots.take_changed(|_, _| unreachable!("nothing has changed since"));
    }

    #[test]
    fn only_rows_that_were_written_are_read() {
        let mut slots = slots(0..3);
        let id = slots.find(key(1));
        slots.change(id);
        slots.take_changed(|_, _| 8);
        slots.evict(4, UNBOUNDED);
        (10..40).for_each(|n| assert!(load(&mut slots, n)));
        slots.evict(4, UNBOUNDED);
        let ids = [1, 2].map(|n| slots.find(key(n)));
        let Ok(missing) = slots.take_missing(|_| Ok::<_, Infallible>(0));
        assert_eq!(missing, [ids[0]]);
        let mut later = Slots::<usize>::new(Written::unknown());
        let id = later.find(key(9));
        let Ok(missing) = later.take_missing(|_| Ok::<_, Infallible>(0));
        assert_eq!(missing, [id], "any row may be stored");
    }
}
