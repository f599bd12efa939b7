//! Compares stored rows with folded ones, both in the order of their addresses.

use super::refold::Refold;
use super::{Difference, OPERATION, Side, VerifyFinding, VerifySummary};
use crate::jobs::JobContext;
use crate::rows;
use bytes::Bytes;
use foretell_domain::address::{Generation, RowKey, View};
use foretell_domain::view::Fold;
use foretell_domain::view::cell::{Cell, Corrupt};
use foretell_ports::Error;
use foretell_ports::store::{Row, Store};
use std::collections::{BTreeSet, VecDeque};

/// Rows that are read at a time.
const PAGE_ROWS: usize = 500;
/// Maximum size of the rows that moved during the comparison, in bytes; more is an error.
const MOVED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The stored rows of a generation, and the rows that were folded again.
pub(super) struct Comparison<'a, F: Fold> {
    pub(super) stored: &'a dyn Store,
    pub(super) again: &'a Refold<F>,
    pub(super) generation: Generation,
    /// By partition: stored and folded rows contain all records below this offset.
    pub(super) ends: &'a [i64],
    pub(super) context: &'a JobContext<VerifyFinding>,
}

/// The result of comparing two partials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// They are equal.
    Equal,
    /// The stored one contains later records than the folded one: it cannot be compared yet.
    Moved,
    /// The stored one is not the fold of the log.
    Different,
}

/// Compares a stored partial with the one folded from all records below `end`.
fn judge(stored: Option<&[u8]>, folded: Option<&[u8]>, end: i64) -> Verdict {
    let (Ok(stored), Ok(folded)) = (decode(stored), decode(folded)) else { return Verdict::Different };
    match (stored, folded) {
        (Some(stored), _) if stored.position >= end => Verdict::Moved,
        (Some(stored), Some(folded)) if stored.position == folded.position && stored.state == folded.state => {
            Verdict::Equal
        }
        _ => Verdict::Different,
    }
}

fn decode(cell: Option<&[u8]>) -> Result<Option<Cell<'_>>, Corrupt> {
    cell.map(Cell::decode).transpose()
}

/// A partial's address in a view's bucket.
type PartialAddress = (String, u32);

/// A stored partial with a position above the folded records, as it was read.
struct Moved {
    key: RowKey,
    source: u32,
    position: i64,
    cell: Bytes,
}

/// The partials of a row from one partition that are not equal.
struct Partials {
    source: u32,
    stored: Option<Bytes>,
    folded: Option<Bytes>,
}

impl<F: Fold> Comparison<'_, F> {
    /// Compares all rows of these views.
    pub(super) async fn compare(&self, views: &[View], summary: &mut VerifySummary) -> Result<(), Error> {
        let mut moved = Vec::new();
        let mut moved_bytes = 0;
        for view in views {
            let mut buckets: BTreeSet<_> = self.stored.buckets(self.generation, *view).await?.into_iter().collect();
            buckets.extend(self.again.store().buckets(self.generation, *view).await?);
            for bucket in buckets {
                let before = moved.len();
                self.bucket(*view, bucket, &mut moved, summary).await?;
                moved_bytes += moved[before..].iter().map(|row| row.cell.len() + row.key.key.len()).sum::<usize>();
                if moved_bytes > MOVED_BYTES_MAX {
                    let detail = format!(
                        "more than {MOVED_BYTES_MAX} bytes of rows changed during the comparison: verify one view at a \
                         time, or while fewer events arrive"
                    );
                    return Err(Error::retry(OPERATION, detail));
                }
            }
        }
        self.settle(moved, summary).await
    }

    async fn bucket(
        &self,
        view: View,
        bucket: i64,
        moved: &mut Vec<Moved>,
        summary: &mut VerifySummary,
    ) -> Result<(), Error> {
        let cursor = |store| Cursor { store, at: (self.generation, view, bucket), rows: VecDeque::new(), after: None };
        let (mut stored, mut folded) = (cursor(self.stored), cursor(self.again.store()));
        let mut rows = 0;
        loop {
            let place = match (stored.peek().await?, folded.peek().await?) {
                (None, None) => break,
                (Some(place), None) | (None, Some(place)) => place.clone(),
                (Some(a), Some(b)) => a.min(b).clone(),
            };
            let (stored, folded) = (stored.take(&place), folded.take(&place));
            let (key, source) = place;
            let key = RowKey { view, bucket, key };
            rows += 1;
            let end = self.ends.get(source as usize).copied().unwrap_or(0);
            match (judge(stored.as_deref(), folded.as_deref(), end), stored) {
                (Verdict::Equal, _) => {}
                // A partition outside of the views' partition count cannot move.
                (Verdict::Moved, Some(cell)) if (source as usize) < self.ends.len() => {
                    let position = Cell::decode(&cell).map_or(end, |cell| cell.position);
                    moved.push(Moved { key, source, position, cell });
                }
                (_, stored) => self.differ(&key, Partials { source, stored, folded }, summary).await?,
            }
        }
        summary.rows += rows;
        self.context.describe(format!("offsets; comparing {}", view.name())).await
    }

    /// Continues the fold to each row that had moved, in order of their positions, and compares it there.
    async fn settle(&self, mut moved: Vec<Moved>, summary: &mut VerifySummary) -> Result<(), Error> {
        summary.moved += moved.len() as u64;
        moved.sort_by_key(|row| (row.source, row.position));
        for Moved { key, source, position, cell } in moved {
            let end = position.saturating_add(1);
            let folded = match self.again.fold_to(source, end).await? {
                true => self.again.partial(source, &key).await?,
                false => None,
            };
            if judge(Some(&cell), folded.as_deref(), end) != Verdict::Equal {
                self.differ(&key, Partials { source, stored: Some(cell), folded }, summary).await?;
            }
        }
        Ok(())
    }

    async fn differ(&self, key: &RowKey, partials: Partials, summary: &mut VerifySummary) -> Result<(), Error> {
        let Partials { source, stored, folded } = partials;
        let side = |cell| match rows::partial(key, &Row { source, cell }) {
            Ok(partial) => Side::Row(partial),
            Err(error) => Side::Unreadable { unreadable: error.to_string() },
        };
        let (stored, folded) = (stored.map(side), folded.map(side));
        summary.differences += 1;
        let RowKey { view, bucket, key } = key.clone();
        let difference = Difference { view, bucket, key, source, stored, folded };
        self.context.item(VerifyFinding::Differs(Box::new(difference))).await
    }
}

/// The partials of a bucket, a page at a time.
struct Cursor<'a> {
    store: &'a dyn Store,
    at: (Generation, View, i64),
    rows: VecDeque<(PartialAddress, Bytes)>,
    /// The last partial that was read; none before the first page.
    after: Option<Option<PartialAddress>>,
}

impl Cursor<'_> {
    async fn peek(&mut self) -> Result<Option<&PartialAddress>, Error> {
        let is_over = matches!(self.after, Some(None));
        if self.rows.is_empty() && !is_over {
            let (generation, view, bucket) = self.at;
            let after = self.after.take().flatten();
            let start = after.as_ref().map(|(key, source)| (key.as_str(), *source));
            let page = self.store.scan(generation, view, bucket, start, PAGE_ROWS).await?;
            let is_last = page.len() < PAGE_ROWS;
            self.rows.extend(page.into_iter().map(|(key, row)| ((key, row.source), row.cell)));
            self.after = Some(self.rows.back().map(|(place, _)| place.clone()).filter(|_| !is_last));
        }
        Ok(self.rows.front().map(|(place, _)| place))
    }

    /// The next partial, if it has this address.
    fn take(&mut self, place: &PartialAddress) -> Option<Bytes> {
        self.rows.front().is_some_and(|(at, _)| at == place).then(|| self.rows.pop_front()).flatten().map(|(_, c)| c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(position: i64, state: &[u8], carried: &[u8]) -> Bytes {
        Cell { position, state, carried }.encode()
    }

    #[test]
    fn partials_are_equal_by_position_and_state() {
        let folded = cell(7, b"state", b"");
        for (stored, end, verdict) in [
            (Some(cell(7, b"state", b"")), 10, Verdict::Equal),
            (Some(cell(7, b"state", b"pending")), 10, Verdict::Equal),
            (Some(cell(7, b"other", b"")), 10, Verdict::Different),
            (Some(cell(6, b"state", b"")), 10, Verdict::Different),
            (Some(cell(8, b"state", b"")), 10, Verdict::Different),
            (Some(cell(9, b"more", b"")), 10, Verdict::Different),
            (Some(cell(10, b"more", b"")), 10, Verdict::Moved),
            (Some(Bytes::from_static(&[0xff; 3])), 10, Verdict::Different),
            (None, 10, Verdict::Different),
        ] {
            assert_eq!(judge(stored.as_deref(), Some(&folded), end), verdict, "{stored:?}");
        }
        assert_eq!(judge(Some(&cell(3, b"state", b"")), None, 10), Verdict::Different);
        assert_eq!(judge(Some(&cell(12, b"state", b"")), None, 10), Verdict::Moved);
    }
}
