//! Rows are compared with the log: correct rows pass, also while they change, and every damage is found.

use crate::instance::{Instance, NOW_MS, World};
use async_trait::async_trait;
use bytes::Bytes;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::cell::Cell;
use foretell_engine::jobs::{self, JobEvent};
use foretell_engine::verify::{Difference, Side, VerifyFinding, VerifyQuery, VerifySummary};
use foretell_events::Topic;
use foretell_events::codec::{self, Parsed};
use foretell_events::record::NewRecord;
use foretell_lab::source::generate::{GeneratedLogins, GeneratorParams};
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::store::{Checkpoint, Flush, Row, Store};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) fn records(skip: usize, count: usize) -> Vec<NewRecord> {
    let shape = GeneratorParams { start_ms: NOW_MS - 86_400_000, ..GeneratorParams::default() };
    GeneratedLogins::new(shape).skip(skip).take(count).map(|event| codec::encode_parsed(&Parsed::of(event))).collect()
}

/// A world with folded logins, one of them a dead letter, and running pipelines.
pub(crate) async fn folded(count: usize) -> (World, CancellationToken) {
    let world = World::new();
    world.log.append(records(0, count)).await.unwrap();
    let garbage = NewRecord { topic: Topic::Logins, key: None, value: Bytes::from_static(b"{"), headers: Vec::new() };
    world.log.append(vec![garbage]).await.unwrap();
    let shutdown = CancellationToken::new();
    let views = world.views(shutdown.clone()).await;
    tokio::spawn(views.join_all());
    reached(&world, world.store.as_ref()).await;
    (world, shutdown)
}

/// Waits until everything in the log is folded.
async fn reached(world: &World, store: &dyn Store) {
    for family in Family::ALL {
        for partition in 0..world.log.partitions(family.topic()) {
            let end = world.log.extent(family.topic(), partition).await.unwrap().end;
            let generation = Generation { family, number: 1, epoch: 0 };
            while store.checkpoint(generation, partition).await.unwrap().map_or(0, |checkpoint| checkpoint.next) < end {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Verifies the rows of a store, of one view or of all.
pub(crate) async fn verified(
    world: &World,
    store: Arc<dyn Store>,
    view: Option<View>,
) -> (VerifySummary, Vec<Difference>) {
    let query = VerifyQuery { view: view.map(|view| view.name().to_owned()) };
    let mut events = jobs::start(world.verifier(store), query);
    let mut differences = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            JobEvent::Item(VerifyFinding::Differs(difference)) => differences.push(*difference),
            JobEvent::Done(summary) => return (summary, differences),
            JobEvent::Failed { detail } => panic!("{detail}"),
            JobEvent::Progress(_) | JobEvent::Item(VerifyFinding::Begun { .. }) => {}
        }
    }
    panic!("it ended without a summary")
}

type Spoil = Box<dyn Fn(&RowKey, &Row) -> Option<Row> + Send + Sync>;

/// A store that returns other rows, or none, when it is scanned, and no sooner than it may.
pub(crate) struct Scanned {
    store: Arc<dyn Store>,
    spoil: Spoil,
    begun: Arc<Notify>,
    allowed: Arc<Semaphore>,
}

impl Scanned {
    pub(crate) fn spoilt(world: &World, spoil: impl Fn(&RowKey, &Row) -> Option<Row> + Send + Sync + 'static) -> Self {
        let (begun, allowed) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(1)));
        Self { store: world.store.clone(), spoil: Box::new(spoil), begun, allowed }
    }
}

#[async_trait]
impl Store for Scanned {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.store.checkpoint(generation, partition).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        self.store.apply(flush).await
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        self.store.read(generation, source, keys).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.begun.notify_one();
        let _allowed = self.allowed.acquire().await.unwrap();
        let rows = self.store.scan(generation, view, bucket, after, limit).await?;
        let spoilt = |(key, row): (String, Row)| {
            let address = RowKey { view, bucket, key };
            let row = (self.spoil)(&address, &row)?;
            Some((address.key, row))
        };
        Ok(rows.into_iter().filter_map(spoilt).collect())
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.store.drop_generation(generation).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.store.buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.store.pointer(family).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.store.swap_pointer(family, expected, new).await
    }
}

/// The totals of a partition: each has one such row.
pub(crate) fn is_totals(key: &RowKey) -> bool {
    key.view == View::Feature && key.key.contains(":all:")
}

/// A cell with another position or another state.
fn changed(row: &Row, position: i64, last_byte: u8) -> Row {
    let cell = Cell::decode(&row.cell).unwrap();
    let mut state = cell.state.to_vec();
    *state.last_mut().unwrap() ^= last_byte;
    let cell = Cell { position: cell.position + position, state: &state, carried: cell.carried }.encode();
    Row { source: row.source, cell }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_the_fold_are_found_equal() {
    let (world, shutdown) = folded(2_000).await;
    let (summary, differences) = verified(&world, world.store.clone(), None).await;
    assert_eq!(differences, []);
    assert_eq!((summary.offsets, summary.moved, summary.differences), (2_001, 0, 0));
    assert!(summary.rows > 2_000, "{summary:?}");
    let (users, _) = verified(&world, world.store.clone(), Some(View::User)).await;
    assert!(users.rows > 0 && users.rows < summary.rows, "{users:?} of {summary:?}");
    assert_eq!(world.log.extent(Topic::DeadLetters, 0).await.unwrap().end, 1, "no dead letter was written again");
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_not_the_fold_is_found() {
    type Damage = (&'static str, fn(&Row) -> Option<Row>);
    let (world, shutdown) = folded(500).await;
    let spoils: [Damage; 4] = [
        ("another state", |row| Some(changed(row, 0, 1))),
        ("behind", |row| Some(changed(row, -1, 0))),
        ("beyond the log", |row| Some(changed(row, 1_000_000, 0))),
        ("gone", |_| None),
    ];
    for (name, spoil) in spoils {
        let spoil = move |key: &RowKey, row: &Row| {
            let is_ours = is_totals(key) && row.source == 1;
            if is_ours { spoil(row) } else { Some(row.clone()) }
        };
        let store = Arc::new(Scanned::spoilt(&world, spoil));
        let (summary, differences) = verified(&world, store, Some(View::Feature)).await;
        let found: Vec<_> = differences.iter().map(|d| (d.view, d.key.contains(":all:"), d.source)).collect();
        assert_eq!((summary.differences, found), (1, vec![(View::Feature, true, 1)]), "{name}");
        assert_eq!(differences[0].stored.is_none(), name == "gone", "{name}");
        assert_eq!(differences[0].folded.is_none(), name == "beyond the log", "{name}");
    }
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_row_are_reported_as_such() {
    let (world, shutdown) = folded(100).await;
    let spoil = |key: &RowKey, row: &Row| {
        let garbage = Row { source: row.source, cell: Bytes::from_static(&[0xff; 4]) };
        Some(if is_totals(key) && row.source == 0 { garbage } else { row.clone() })
    };
    let store = Arc::new(Scanned::spoilt(&world, spoil));
    let (_, differences) = verified(&world, store, Some(View::Feature)).await;
    assert!(matches!(&differences[..], [Difference { stored: Some(Side::Unreadable { .. }), .. }]), "{differences:?}");
    shutdown.cancel();
}

/// The checkpoints are read first; then, before the first row is read, more events are folded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_move_meanwhile_are_compared_at_their_current_position() {
    let (world, shutdown) = folded(1_000).await;
    let store = Arc::new(Scanned::spoilt(&world, |_, row| Some(row.clone())));
    let before = store.allowed.clone().acquire_owned().await.unwrap();
    let moving = {
        let (world, begun) = (world.clone(), store.begun.clone());
        tokio::spawn(async move {
            begun.notified().await;
            world.log.append(records(1_000, 1_000)).await.unwrap();
            reached(&world, world.store.as_ref()).await;
            drop(before);
        })
    };
    let (summary, differences) = verified(&world, store, None).await;
    moving.await.unwrap();
    assert_eq!(differences, []);
    assert!(summary.moved > 1_000, "{summary:?}");
    shutdown.cancel();
}

#[tokio::test]
async fn only_operators_may_verify() {
    let instance = Instance::start().await;
    assert_eq!(instance.post("/admin/jobs/verify", &json!({})).await.status, 404);
}
