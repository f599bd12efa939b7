//! Which rows may be stored.
//!
//! A generation that this pipeline folds from the beginning of its log has only the rows that the pipeline has written
//! itself. Any other row is empty, and to read it would only confirm that. The filter answers "not written" without
//! error. "Maybe written" can be wrong, and then costs a read.
//!
//! Rows of an earlier owner that never wrote a checkpoint may be in the store as well. They do no harm: everything
//! below the current offset has been folded here, so a row that this pipeline has not written has no contribution from
//! there. Its writes below the position of such a stored row lose, and above it they contain the same.

use fastbloom::BloomFilter;

/// Keys of the first filter; each further one is for twice as many.
const FIRST_KEYS: usize = 16 * 1024;
/// Filters: together they keep the false positives of 4 million keys below 8 %, in 5 MiB. More keys fill the last one
/// further, so that more rows are read.
const FILTERS_MAX: usize = 8;
const FALSE_POSITIVES: f64 = 0.01;

/// The keys that were written, by their hashes; a scalable Bloom filter (Almeida et al., 2007).
pub(super) struct Written {
    /// None if the pipeline did not begin at the beginning of the log: any row may be stored.
    filters: Option<Vec<Filter>>,
    first_keys: usize,
}

struct Filter {
    bits: BloomFilter,
    /// Keys that it has capacity for.
    left: usize,
}

impl Written {
    /// Nothing has been written yet.
    pub(super) fn nothing() -> Self {
        Self { filters: Some(Vec::new()), first_keys: FIRST_KEYS }
    }

    /// Anything may have been written.
    pub(super) fn unknown() -> Self {
        Self { filters: None, first_keys: FIRST_KEYS }
    }

    /// Whether a row with this hash was certainly never written.
    pub(super) fn is_absent(&self, hash: u64) -> bool {
        self.filters.as_ref().is_some_and(|filters| !filters.iter().any(|filter| filter.bits.contains(&hash)))
    }

    /// Notes that a row is being written.
    pub(super) fn insert(&mut self, hash: u64) {
        let Some(filters) = &mut self.filters else { return };
        if filters.iter().any(|filter| filter.bits.contains(&hash)) {
            return;
        }
        if filters.last().is_none_or(|filter| filter.left == 0) && filters.len() < FILTERS_MAX {
            let keys = self.first_keys << filters.len();
            let bits = BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(keys);
            filters.push(Filter { bits, left: keys });
        }
        if let Some(filter) = filters.last_mut() {
            filter.bits.insert(&hash);
            filter.left = filter.left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn a_written_key_is_never_absent_and_few_others_are_taken_for_written() {
        const KEYS: u64 = 50_000;
        let mut written = Written::nothing();
        assert!(written.is_absent(hash(0)));
        for n in 0..KEYS {
            written.insert(hash(n));
        }
        assert!((0..KEYS).all(|n| !written.is_absent(hash(n))));
        let wrong = (KEYS..2 * KEYS).filter(|n| !written.is_absent(hash(*n))).count();
        assert!(wrong < KEYS as usize / 12, "{wrong} of {KEYS}");
    }

    #[test]
    fn memory_is_bounded_however_many_keys_there_are() {
        // A thousandth of the size, for as many keys more than it has capacity for.
        let mut written = Written { first_keys: FIRST_KEYS / 1_024, ..Written::nothing() };
        (0..8_000).for_each(|n| written.insert(hash(n)));
        let filters = written.filters.as_ref().map_or(0, Vec::len);
        let bytes: usize = written.filters.iter().flatten().map(|filter| filter.bits.num_bits() / 8).sum();
        assert_eq!(filters, FILTERS_MAX);
        assert!(bytes < 8 << 10, "{bytes}");
        assert!((0..8_000).all(|n| !written.is_absent(hash(n))));
    }

    #[test]
    fn after_a_later_start_nothing_is_absent() {
        let mut written = Written::unknown();
        assert!(!written.is_absent(hash(1)));
        written.insert(hash(2));
        assert!(!written.is_absent(hash(1)));
    }
}
