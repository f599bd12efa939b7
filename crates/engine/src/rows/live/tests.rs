//! Orders of reads and flushes, and what is kept for how long.

use super::*;
use foretell_domain::address::View;
use foretell_domain::view::feature::{Feature, FeatureCounts};

const PARTITIONS: u32 = 2;

fn generation() -> Generation {
    Generation { family: Family::Logins, number: 1, epoch: 0 }
}

fn key(n: u32) -> RowKey {
    RowKey::hashed(View::Feature, format!("t:ip:{n}"))
}

/// Rows of a process that folds all partitions.
fn own() -> (Arc<LiveRows>, [Owned; 2]) {
    let live = LiveRows::new(1 << 20, Duration::from_secs(1));
    let owned = [0, 1].map(|partition| live.own(generation(), partition, 0));
    (live, owned)
}

fn row(successes: u64) -> LiveRow {
    LiveRow::Feature(Arc::new(FeatureCounts::of(Feature { successes, ..Feature::default() })))
}

/// The row in memory as one of these, or the permit to keep it.
fn look(live: &Arc<LiveRows>, is_exact: bool) -> Result<u64, Option<Ticket>> {
    match live.get(generation(), &key(1), is_exact) {
        Found::Row(row) => Ok(FeatureCounts::row(row).expect("a feature").successes),
        Found::Missing(ticket) => Err(ticket),
    }
}

fn ticket(live: &Arc<LiveRows>) -> Option<Ticket> {
    look(live, true).expect_err("nothing is in memory")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A reader takes a ticket, reads the store, and keeps what it read.
    Take,
    Read,
    Fill,
    /// A flush begins, becomes visible in the store with its checkpoint, and ends.
    Begin,
    Apply,
    End,
}

/// All orders of two sequences.
fn merges(one: &[Step], other: &[Step]) -> Vec<Vec<Step>> {
    let (Some((first, rest)), Some((second, others))) = (one.split_first(), other.split_first()) else {
        return vec![[one, other].concat()];
    };
    let after = |step: &Step, rest: Vec<Vec<Step>>| {
        rest.into_iter().map(|later| [&[*step], later.as_slice()].concat()).collect::<Vec<_>>()
    };
    [after(first, merges(rest, other)), after(second, merges(one, others))].concat()
}

/// The row that the store has, before and after the flush, whatever is done in which order; with `has_tickets` off,
/// readers keep what they read in any case.
fn is_stale(steps: &[Step], has_tickets: bool) -> bool {
    let (live, _owned) = own();
    let (mut stored, mut taken, mut read, mut flushing, mut is_stale) = (1, None, 0, None, false);
    for step in steps {
        match step {
            Step::Take => taken = look(&live, true).err(),
            Step::Read => read = stored,
            Step::Fill => match taken.take().flatten() {
                Some(ticket) if has_tickets => ticket.fill(row(read), 8),
                _ if has_tickets => {}
                _ => {
                    let entry = Entry { row: row(read), version: 2, read_at: Instant::now(), bytes: 0 };
                    live.rows.insert(Key { generation: generation(), key: key(1) }, entry);
                }
            },
            Step::Begin => flushing = Some(live.flush(generation(), [key(1)].iter())),
            Step::Apply => stored = 2,
            Step::End => drop(flushing.take()),
        }
        // A reader that looks now has seen the checkpoint of what is stored.
        is_stale |= look(&live, true).is_ok_and(|seen| seen != stored);
    }
    is_stale
}

#[test]
fn no_order_of_a_read_and_a_flush_leaves_a_stale_row() {
    let orders = merges(&[Step::Take, Step::Read, Step::Fill], &[Step::Begin, Step::Apply, Step::End]);
    assert_eq!(orders.len(), 20);
    for steps in &orders {
        assert!(!is_stale(steps, true), "{steps:?}");
    }
    assert!(orders.iter().any(|steps| is_stale(steps, false)), "without tickets some order does");
}

#[test]
fn an_exact_row_is_kept_until_a_flush_changes_it() {
    let (live, _owned) = own();
    assert!(live.are_all_own(generation(), PARTITIONS));
    ticket(&live).expect("it may be kept").fill(row(7), 8);
    assert_eq!(look(&live, true).ok(), Some(7));
    drop(live.flush(generation(), [key(2)].iter()));
    assert_eq!(look(&live, true).ok(), Some(7), "another row was flushed");
    let flushing = live.flush(generation(), [key(1)].iter());
    assert!(ticket(&live).is_none(), "while it is written it is not kept");
    drop(flushing);
    assert!(ticket(&live).is_some());
}

#[test]
fn a_ticket_that_is_dropped_leaves_nothing_behind() {
    let (live, _owned) = own();
    let (used, unused) = (ticket(&live), ticket(&live));
    drop(live.flush(generation(), [key(1)].iter()));
    assert!(ticket(&live).is_none(), "reads from before the flush are still open");
    drop(unused);
    used.expect("a ticket").fill(row(1), 8);
    assert!(look(&live, true).is_err(), "it was cancelled");
    assert!(ticket(&live).is_some());
    let left: usize = live.in_progress.iter().map(|shard| shard.lock().unwrap().reads.len()).sum();
    assert_eq!(left, 0);
}

#[tokio::test(start_paused = true)]
async fn rows_that_others_write_too_become_stale() {
    let (live, [first, second]) = own();
    drop(second);
    assert!(!live.are_all_own(generation(), PARTITIONS));
    look(&live, false).expect_err("no row yet").expect("it may be kept").fill(row(3), 8);
    assert_eq!(look(&live, false).ok(), Some(3));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(look(&live, false).is_err());
    drop(first);
}

#[test]
fn acquiring_and_losing_a_partition_drops_the_rows() {
    let (live, [first, second]) = own();
    ticket(&live).expect("a ticket").fill(row(3), 8);
    drop(second);
    assert!(look(&live, true).is_err());
    let again = live.own(generation(), 1, 0);
    assert!(look(&live, true).is_err());
    drop((first, again));
    assert!(!live.is_own(generation(), 0));
}

#[test]
fn a_partition_that_another_process_writes_is_not_its_own() {
    let (live, [first, _second]) = own();
    first.advance(10);
    live.observe(generation(), 0, 10);
    assert!(live.are_all_own(generation(), PARTITIONS), "it has written this checkpoint itself");
    ticket(&live).expect("a ticket").fill(row(3), 8);
    live.observe(generation(), 0, 11);
    assert!(!live.is_own(generation(), 0));
    assert!(look(&live, false).is_err());
    let again = live.own(generation(), 0, 11);
    drop(first);
    assert!(live.is_own(generation(), 0), "the earlier owner does not remove the later one");
    drop(again);
}

#[test]
fn memory_is_bounded() {
    const BYTES_MAX: usize = 100_000;
    let live = LiveRows::new(BYTES_MAX, Duration::from_secs(1));
    let _owned = live.own(generation(), 0, 0);
    for n in 0..5_000 {
        if let Found::Missing(Some(ticket)) = live.get(generation(), &key(n), true) {
            ticket.fill(row(1), 50);
        }
    }
    assert!(live.rows.weight() <= BYTES_MAX as u64, "{}", live.rows.weight());
    assert!(live.rows.len() > 50);
    let none = LiveRows::none();
    let _owned = none.own(generation(), 0, 0);
    if let Found::Missing(Some(ticket)) = none.get(generation(), &key(1), true) {
        ticket.fill(row(1), 50);
    }
    assert!(matches!(none.get(generation(), &key(1), true), Found::Missing(_)));
}
