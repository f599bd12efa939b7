//! The guarantees of every store.

use crate::{Fixture, within};
use bytes::Bytes;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_ports::store::{Checkpoint, Flush, LastRecord, Row, RowWrite, Store};
use std::sync::Arc;

/// A test for each guarantee, of the store that `$make().await` returns.
#[macro_export]
macro_rules! store_promises {
    ($make:path) => {
        $crate::store_promises!(@each $make;
            rows_and_checkpoint_are_kept,
            answers_come_in_the_order_of_the_keys,
            a_lower_position_never_replaces_a_higher_one,
            a_lower_checkpoint_never_replaces_a_higher_one,
            the_same_flush_again_changes_nothing,
            a_flush_without_rows_moves_the_checkpoint,
            partials_of_source_partitions_are_kept_side_by_side,
            generations_and_views_do_not_mix,
            a_scan_pages_through_a_bucket_in_order,
            unusual_keys_are_kept_and_ordered,
            buckets_are_listed_rising,
            large_flushes_and_cells_are_kept,
            concurrent_flushes_of_partitions_are_all_kept,
            late_writers_lose_whatever_the_order,
            a_dropped_generation_is_gone_and_no_other,
            a_pointer_is_set_once_from_each_value
        );
    };
    (@each $make:path; $($promise:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fixture = $make().await;
                $crate::store_suite::$promise(&fixture).await;
            }
        )+
    };
}

type Made = Fixture<dyn Store>;

const GENERATION: Generation = Generation { family: Family::Logins, number: 1, epoch: 0 };

fn write(key: &RowKey, position: i64, cell: &str) -> RowWrite {
    RowWrite { key: key.clone(), position, cell: Bytes::copy_from_slice(cell.as_bytes()) }
}

fn checkpoint(next: i64) -> Checkpoint {
    let last = LastRecord { offset: next - 1, digest: next as u64 * 7, timestamp_ms: 1_000 + next };
    Checkpoint { next, last: (next > 0).then_some(last) }
}

fn flush(partition: u32, next: i64, rows: Vec<RowWrite>) -> Flush {
    Flush { generation: GENERATION, partition, rows, checkpoint: checkpoint(next) }
}

fn user(name: &str) -> RowKey {
    RowKey::hashed(View::User, format!("t:{name}"))
}

async fn apply(store: &dyn Store, flush: &Flush) {
    within(store.apply(flush)).await.expect("applied");
}

async fn read(store: &dyn Store, key: &RowKey) -> Vec<(u32, String)> {
    let rows = within(store.read(GENERATION, None, std::slice::from_ref(key))).await.expect("readable").remove(0);
    rows.into_iter().map(|Row { source, cell }| (source, String::from_utf8_lossy(&cell).into_owned())).collect()
}

pub(crate) async fn rows_and_checkpoint_are_kept(made: &Made) {
    let store = made.port.as_ref();
    assert_eq!(within(store.checkpoint(GENERATION, 3)).await.expect("readable"), None);
    assert!(read(store, &user("a")).await.is_empty());
    apply(store, &flush(3, 10, vec![write(&user("a"), 4, "A"), write(&user("b"), 9, "B")])).await;
    assert_eq!(within(store.checkpoint(GENERATION, 3)).await.expect("readable"), Some(checkpoint(10)));
    assert_eq!(within(store.checkpoint(GENERATION, 2)).await.expect("readable"), None);
    assert_eq!(read(store, &user("a")).await, [(3, "A".to_owned())]);
    apply(store, &flush(3, 20, vec![write(&user("a"), 15, "A2")])).await;
    assert_eq!(read(store, &user("a")).await, [(3, "A2".to_owned())]);
    assert_eq!(read(store, &user("b")).await, [(3, "B".to_owned())]);
    assert_eq!(within(store.checkpoint(GENERATION, 3)).await.expect("readable"), Some(checkpoint(20)));
}

pub(crate) async fn answers_come_in_the_order_of_the_keys(made: &Made) {
    let store = made.port.as_ref();
    let rows = (0..50).map(|n| write(&user(&n.to_string()), n, &n.to_string())).collect();
    apply(store, &flush(0, 50, rows)).await;
    let keys = [7, 99, 3, 49, 7, 0].map(|n| user(&n.to_string()));
    let answers = within(store.read(GENERATION, Some(0), &keys)).await.expect("readable");
    let cells: Vec<Option<Bytes>> = answers.into_iter().map(|rows| rows.first().map(|row| row.cell.clone())).collect();
    let expected = [Some("7"), None, Some("3"), Some("49"), Some("7"), Some("0")];
    assert_eq!(cells, expected.map(|cell| cell.map(Bytes::from)));
    assert!(within(store.read(GENERATION, None, &[])).await.expect("readable").is_empty());
}

pub(crate) async fn a_lower_position_never_replaces_a_higher_one(made: &Made) {
    let store = made.port.as_ref();
    let (a, b, c) = (user("a"), user("b"), user("c"));
    apply(store, &flush(0, 10, vec![write(&a, 9, "a9"), write(&b, 2, "b2")])).await;
    // A late writer with a shorter batch: one row is older than the stored one, one newer, one not stored yet.
    apply(store, &flush(0, 6, vec![write(&a, 5, "a5"), write(&b, 4, "b4"), write(&c, 0, "c0")])).await;
    assert_eq!(read(store, &a).await, [(0, "a9".to_owned())]);
    assert_eq!(read(store, &b).await, [(0, "b4".to_owned())]);
    assert_eq!(read(store, &c).await, [(0, "c0".to_owned())]);
    apply(store, &flush(0, 12, vec![write(&a, 11, "a11")])).await;
    apply(store, &flush(0, 12, vec![write(&a, 10, "a10, longer")])).await;
    assert_eq!(read(store, &a).await, [(0, "a11".to_owned())]);
}

pub(crate) async fn a_lower_checkpoint_never_replaces_a_higher_one(made: &Made) {
    let store = made.port.as_ref();
    for next in [5, 9, 3, 8] {
        apply(store, &flush(1, next, vec![write(&user("a"), next - 1, &next.to_string())])).await;
    }
    assert_eq!(within(store.checkpoint(GENERATION, 1)).await.expect("readable"), Some(checkpoint(9)));
    assert_eq!(read(store, &user("a")).await, [(1, "9".to_owned())]);
}

pub(crate) async fn the_same_flush_again_changes_nothing(made: &Made) {
    let store = made.port.as_ref();
    let once = flush(0, 3, vec![write(&user("a"), 1, "A"), write(&user("b"), 2, "B")]);
    for _ in 0..3 {
        apply(store, &once).await;
        assert_eq!(read(store, &user("a")).await, [(0, "A".to_owned())]);
        assert_eq!(read(store, &user("b")).await, [(0, "B".to_owned())]);
        assert_eq!(within(store.checkpoint(GENERATION, 0)).await.expect("readable"), Some(checkpoint(3)));
    }
}

pub(crate) async fn a_flush_without_rows_moves_the_checkpoint(made: &Made) {
    let store = made.port.as_ref();
    apply(store, &flush(0, 0, Vec::new())).await;
    assert_eq!(within(store.checkpoint(GENERATION, 0)).await.expect("readable"), Some(checkpoint(0)));
    apply(store, &flush(0, 70, Vec::new())).await;
    assert_eq!(within(store.checkpoint(GENERATION, 0)).await.expect("readable"), Some(checkpoint(70)));
}

pub(crate) async fn partials_of_source_partitions_are_kept_side_by_side(made: &Made) {
    let store = made.port.as_ref();
    let key = RowKey::hashed(View::Feature, "t:ip:192.0.2.1".to_owned());
    // Positions of different partitions are never compared.
    for (partition, position) in [(2, 1), (0, 900), (300, 5), (1, 0)] {
        apply(store, &flush(partition, position + 1, vec![write(&key, position, &partition.to_string())])).await;
    }
    let expected = [0, 1, 2, 300].map(|source: u32| (source, source.to_string()));
    assert_eq!(read(store, &key).await, expected);
    for source in [0, 1, 2, 300] {
        let keys = [key.clone(), user("never")];
        let answers = within(store.read(GENERATION, Some(source), &keys)).await.expect("readable");
        assert_eq!(answers[0], [Row { source, cell: source.to_string().into() }]);
        assert!(answers[1].is_empty());
    }
    assert!(within(store.read(GENERATION, Some(3), &[key])).await.expect("readable")[0].is_empty());
}

pub(crate) async fn generations_and_views_do_not_mix(made: &Made) {
    let store = made.port.as_ref();
    let address = |view| RowKey { view, bucket: 7, key: "t:same".to_owned() };
    let others = [
        GENERATION,
        Generation { number: 2, ..GENERATION },
        Generation { epoch: 1, number: 3, ..GENERATION },
        Generation { number: 256, ..GENERATION },
    ];
    for generation in others {
        for view in [View::User, View::Feature] {
            let cell = format!("{} {} {}", generation.number, generation.epoch, view.name());
            let row = write(&address(view), 1, &cell);
            apply(store, &Flush { generation, ..flush(0, i64::from(generation.number) + 1, vec![row]) }).await;
        }
    }
    for generation in others {
        let next = i64::from(generation.number) + 1;
        let stored = within(store.checkpoint(generation, 0)).await.expect("readable");
        assert_eq!(stored, Some(checkpoint(next)));
        for view in [View::User, View::Feature] {
            let cell = Bytes::from(format!("{} {} {}", generation.number, generation.epoch, view.name()));
            let row = Row { source: 0, cell };
            let rows = within(store.read(generation, None, &[address(view)])).await.expect("readable");
            assert_eq!(rows, [vec![row.clone()]]);
            let scanned = within(store.scan(generation, view, 7, None, 10)).await.expect("readable");
            assert_eq!(scanned, [("t:same".to_owned(), row)]);
            assert_eq!(within(store.buckets(generation, view)).await.expect("readable"), [7]);
        }
    }
}

async fn pages(store: &dyn Store, bucket: i64, limit: usize) -> Vec<(String, u32)> {
    let mut all: Vec<(String, u32)> = Vec::new();
    loop {
        let after = all.last().map(|(key, source)| (key.as_str(), *source));
        let page = within(store.scan(GENERATION, View::User, bucket, after, limit)).await.expect("readable");
        assert!(page.len() <= limit);
        let last = page.len() < limit;
        all.extend(page.into_iter().map(|(key, row)| (key, row.source)));
        if last {
            return all;
        }
    }
}

pub(crate) async fn a_scan_pages_through_a_bucket_in_order(made: &Made) {
    let store = made.port.as_ref();
    let mut expected = Vec::new();
    for source in 0..3 {
        let at = |bucket, n| RowKey { view: View::User, bucket, key: format!("t:{n}") };
        let rows =
            (0..19).map(|n| write(&at(5, n), n, "x")).chain([write(&at(4, 1), 1, "y"), write(&at(6, 1), 1, "z")]);
        apply(store, &flush(source, 20, rows.collect())).await;
        expected.extend((0..19).map(|n| (format!("t:{n}"), source)));
    }
    expected.sort();
    for limit in [1, 2, 10, 19, 56, 57, 58, 1000] {
        assert_eq!(pages(store, 5, limit).await, expected, "in pages of {limit}");
    }
    assert!(pages(store, 3, 10).await.is_empty());
    // A position to continue from needs no row.
    let rest = within(store.scan(GENERATION, View::User, 5, Some(("t:12", 9)), 1)).await.expect("readable");
    assert_eq!((rest[0].0.as_str(), rest[0].1.source), ("t:13", 0));
}

pub(crate) async fn unusual_keys_are_kept_and_ordered(made: &Made) {
    let store = made.port.as_ref();
    let long = format!("t:{}", "ü".repeat(256));
    let longest = "k".repeat(1024);
    let keys = ["t:", "t:a", "t:a\u{1}", "t:ab", "t:ä", "t:日本", "t:🔑", "t:'; --", &long, &longest];
    let at = |key: &str| RowKey { view: View::User, bucket: -9, key: key.to_owned() };
    let rows = keys.iter().zip(0..).map(|(key, n)| write(&at(key), n, key)).collect();
    apply(store, &flush(0, 100, rows)).await;
    let mut expected: Vec<(String, u32)> = keys.iter().map(|key| ((*key).to_owned(), 0)).collect();
    expected.sort();
    assert_eq!(pages(store, -9, 3).await, expected, "in the order of their bytes");
    for key in keys {
        assert_eq!(read(store, &at(key)).await, [(0, key.to_owned())]);
    }
}

pub(crate) async fn buckets_are_listed_rising(made: &Made) {
    let store = made.port.as_ref();
    let buckets = [-3, -1, 0, 1, 255, 256, 495_000, 1 << 40];
    let at = |bucket| RowKey { view: View::User, bucket, key: "t:a".to_owned() };
    let rows = buckets.iter().rev().map(|bucket| write(&at(*bucket), 1, "x")).collect();
    apply(store, &flush(0, 2, rows)).await;
    assert_eq!(within(store.buckets(GENERATION, View::User)).await.expect("readable"), buckets);
    assert!(within(store.buckets(GENERATION, View::Feature)).await.expect("readable").is_empty());
}

pub(crate) async fn large_flushes_and_cells_are_kept(made: &Made) {
    let store = made.port.as_ref();
    let cell = |n: i64| "c".repeat(100 + (n as usize % 7) * 50);
    let mut rows: Vec<RowWrite> = (0..3_000).map(|n| write(&user(&n.to_string()), n, &cell(n))).collect();
    let large = "L".repeat(256 * 1024);
    rows.push(write(&user("large"), 3_000, &large));
    apply(store, &flush(0, 3_001, rows)).await;
    let keys: Vec<RowKey> = (0..3_000).map(|n| user(&n.to_string())).collect();
    let answers = within(store.read(GENERATION, Some(0), &keys)).await.expect("readable");
    for (n, rows) in (0..).zip(answers) {
        assert_eq!(rows, [Row { source: 0, cell: cell(n).into() }], "row {n}");
    }
    assert_eq!(read(store, &user("large")).await, [(0, large)]);
}

pub(crate) async fn concurrent_flushes_of_partitions_are_all_kept(made: &Made) {
    let shared = RowKey::hashed(View::Feature, "t:ip:192.0.2.1".to_owned());
    let mut writers = tokio::task::JoinSet::new();
    for partition in 0..6 {
        let (store, shared) = (Arc::clone(&made.port), shared.clone());
        writers.spawn(async move {
            for n in 1..=15 {
                let own = user(&format!("{partition}.{n}"));
                let rows = vec![write(&shared, n, &format!("{partition}:{n}")), write(&own, n, "own")];
                apply(store.as_ref(), &flush(partition, n + 1, rows)).await;
            }
        });
    }
    while let Some(done) = within(writers.join_next()).await {
        done.expect("no panic");
    }
    let store = made.port.as_ref();
    let expected: Vec<(u32, String)> = (0..6).map(|partition| (partition, format!("{partition}:15"))).collect();
    assert_eq!(read(store, &shared).await, expected);
    for partition in 0..6 {
        assert_eq!(within(store.checkpoint(GENERATION, partition)).await.expect("readable"), Some(checkpoint(16)));
        assert_eq!(read(store, &user(&format!("{partition}.9"))).await.len(), 1);
    }
}

pub(crate) async fn late_writers_lose_whatever_the_order(made: &Made) {
    let key = user("contended");
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..40_i64 {
        // Neither rising nor falling, each once.
        let position = n * 17 % 40;
        let (store, key) = (Arc::clone(&made.port), key.clone());
        writers.spawn(async move {
            apply(store.as_ref(), &flush(0, position + 1, vec![write(&key, position, &position.to_string())])).await;
        });
    }
    while let Some(done) = within(writers.join_next()).await {
        done.expect("no panic");
    }
    assert_eq!(read(made.port.as_ref(), &key).await, [(0, "39".to_owned())]);
    assert_eq!(within(made.port.checkpoint(GENERATION, 0)).await.expect("readable"), Some(checkpoint(40)));
}

pub(crate) async fn a_dropped_generation_is_gone_and_no_other(made: &Made) {
    let store = made.port.as_ref();
    let of = |family, number| Generation { family, number, epoch: 0 };
    let dropped = of(Family::Logins, 2);
    let others = [of(Family::Logins, 1), of(Family::Logins, 3), of(Family::Appointments, 2)];
    let keys: Vec<RowKey> = (0..2_500).map(|n| user(&n.to_string())).collect();
    let visit = RowKey { view: View::Agenda, bucket: -40, key: "t:c".to_owned() };
    for generation in others.into_iter().chain([dropped]) {
        let rows = match generation.family {
            Family::Logins => keys.iter().map(|key| write(key, 5, "x")).collect(),
            _ => vec![write(&visit, 5, "x")],
        };
        for partition in [0, 7] {
            apply(store, &Flush { generation, rows: Vec::clone(&rows), ..flush(partition, 9, vec![]) }).await;
        }
    }
    for _ in 0..2 {
        within(store.drop_generation(dropped)).await.expect("dropped");
    }
    let rows = async |generation, keys: &[RowKey]| {
        let rows = within(store.read(generation, None, keys)).await.expect("readable");
        rows.iter().map(Vec::len).sum::<usize>()
    };
    assert_eq!(rows(dropped, &keys).await, 0);
    assert!(within(store.buckets(dropped, View::User)).await.expect("readable").is_empty());
    assert_eq!(within(store.checkpoint(dropped, 7)).await.expect("readable"), None);
    for generation in others {
        assert_eq!(within(store.checkpoint(generation, 7)).await.expect("readable"), Some(checkpoint(9)));
    }
    assert_eq!(rows(others[0], &keys).await, 5_000);
    assert_eq!(rows(others[1], &keys).await, 5_000);
    assert_eq!(rows(others[2], std::slice::from_ref(&visit)).await, 2);
}

pub(crate) async fn a_pointer_is_set_once_from_each_value(made: &Made) {
    let store = &made.port;
    let family = Family::Appointments;
    let pointer = |serving| Pointer { serving, ..Pointer::first(8, "fold 1 ü".to_owned()) };
    assert_eq!(within(store.pointer(family)).await.expect("readable"), None);
    assert!(!within(store.swap_pointer(family, Some(&pointer(1)), &pointer(2))).await.expect("answered"));
    let mut racers = tokio::task::JoinSet::new();
    for serving in 1..=8 {
        let (store, new) = (Arc::clone(store), pointer(serving));
        racers.spawn(
            async move { within(store.swap_pointer(family, None, &new)).await.expect("answered").then_some(new) },
        );
    }
    let mut winners = Vec::new();
    while let Some(done) = within(racers.join_next()).await {
        winners.extend(done.expect("no panic"));
    }
    assert_eq!(winners.len(), 1, "exactly one wins");
    assert_eq!(within(store.pointer(family)).await.expect("readable").as_ref(), winners.first());
    let first = winners.remove(0);
    let building = first.begin("fold 2".to_owned());
    assert!(within(store.swap_pointer(family, Some(&first), &building)).await.expect("answered"));
    assert!(!within(store.swap_pointer(family, Some(&first), &pointer(77))).await.expect("answered"));
    assert!(!within(store.swap_pointer(family, None, &pointer(77))).await.expect("answered"));
    assert_eq!(within(store.pointer(family)).await.expect("readable"), Some(building));
    assert_eq!(within(store.pointer(Family::Logins)).await.expect("readable"), None);
}
