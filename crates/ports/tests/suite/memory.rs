//! The in-memory backends: every guarantee, and what simulations need beyond the contract.

use crate::Fixture;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_events::Topic;
use foretell_ports::clock;
use foretell_ports::log::group::Handover;
use foretell_ports::log::{self, Assigned, Log, LogAdmin, Next};
use foretell_ports::store::{self, Store};
use std::sync::Arc;

fn open() -> log::memory::Log {
    log::memory::Log::new(|_| 4, Arc::new(clock::System))
}

mod log_in_memory {
    use super::*;

    async fn make() -> Fixture<dyn Log> {
        Fixture { port: Arc::new(open()), keep: Box::new(()) }
    }

    crate::log_promises!(make);
}

mod admin_in_memory {
    use super::*;
    use crate::admin_suite::Reopened;
    use std::sync::Mutex;

    async fn make() -> Reopened {
        let log = open();
        let opened = Arc::new(Mutex::new(log.clone()));
        let open = move |_| -> futures::future::BoxFuture<'static, Arc<dyn LogAdmin>> {
            let mut opened = opened.lock().expect("no panic");
            *opened = opened.reopened();
            Box::pin(std::future::ready(Arc::new(opened.clone()) as Arc<dyn LogAdmin>))
        };
        Reopened { log: Arc::new(log), open: Box::new(open), keep: Box::new(()) }
    }

    crate::log_admin_promises!(make);
}

mod store_in_memory {
    use super::*;

    async fn make() -> Fixture<dyn Store> {
        Fixture { port: Arc::new(store::memory::Store::new()), keep: Box::new(()) }
    }

    crate::store_promises!(make);
}

fn record(value: &str) -> foretell_events::record::NewRecord {
    let key = None;
    foretell_events::record::NewRecord {
        topic: Topic::Logins,
        key,
        value: value.to_owned().into(),
        headers: Vec::new(),
    }
}

async fn next_value(assigned: &mut Assigned) -> String {
    match assigned.reader.next().await.expect("readable") {
        Next::Records(records) => String::from_utf8_lossy(&records[0].value).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Sends the start of an assignment and keeps the rest of it.
fn started(assigned: Assigned, from: i64) -> Assigned {
    let Assigned { partition, committed, start, reader } = assigned;
    start.send(from).expect("awaited");
    Assigned { partition, committed, start: tokio::sync::oneshot::channel().0, reader }
}

#[tokio::test]
async fn holes_are_skipped_and_counted_in_the_end() {
    let log = open();
    log.append(vec![record("a")]).await.expect("appended");
    log.skip(Topic::Logins, 0, 5).expect("exists");
    log.append(vec![record("b")]).await.expect("appended");
    log.skip(Topic::Logins, 0, 2).expect("exists");
    let mut reader = log.read(Topic::Logins, 0, 1).await.expect("opens");
    let Next::Records(records) = reader.next().await.expect("readable") else { panic!("records come first") };
    assert_eq!((records.len(), records[0].position.offset), (1, 6));
    assert!(matches!(reader.next().await, Ok(Next::End(9))));
    log.skip(Topic::Logins, 0, 1).expect("exists");
    assert!(matches!(reader.next().await, Ok(Next::End(10))), "a new end is reported, although no record was appended");
}

#[tokio::test]
async fn a_new_owner_waits_for_the_acknowledgement() {
    let log = open();
    let mut first = log.subscribe("g", Topic::Logins).await.expect("joined");
    let mut held = started(first.next().await.expect("assigned"), 0);
    held.reader.commit(3).await.expect("advice is taken");
    let mut second = log.subscribe("g", Topic::Logins).await.expect("joined");
    log.rebalance("g", Topic::Logins, Handover::Drained, |_, members| members - 1);
    // The three free partitions are assigned at once, the held one not before it is released.
    for _ in 0..3 {
        assert_ne!(second.next().await.expect("assigned").partition, held.partition);
    }
    log.rebalance("g", Topic::Logins, Handover::Drained, |partition, _| usize::from(partition == 0));
    let Ok(Next::Revoked(acknowledge)) = held.reader.next().await else { panic!("it must be revoked") };
    assert!(crate::quiet(second.next()).await, "the old owner drains");
    drop(acknowledge);
    let taken = second.next().await.expect("assigned");
    assert_eq!((taken.partition, taken.committed), (0, Some(3)));
}

#[tokio::test]
async fn an_owner_that_is_not_notified_reads_alongside_the_new_one() {
    let log = open();
    log.append(vec![record("a")]).await.expect("appended");
    let mut first = log.subscribe("g", Topic::Logins).await.expect("joined");
    let mut zombie = started(first.next().await.expect("assigned"), 0);
    assert_eq!(zombie.partition, 0);
    let mut second = log.subscribe("g", Topic::Logins).await.expect("joined");
    log.rebalance("g", Topic::Logins, Handover::Unnoticed, |_, members| members - 1);
    let mut owner = started(second.next().await.expect("assigned"), 0);
    assert_eq!(owner.partition, 0);
    assert_eq!((next_value(&mut zombie).await, next_value(&mut owner).await), ("a".to_owned(), "a".to_owned()));
    zombie.reader.commit(1).await.expect("an old owner's advice is ignored");
    assert_eq!(log.committed("g", Topic::Logins, 0), None);
    log.append(vec![record("b")]).await.expect("appended");
    assert!(matches!(zombie.reader.next().await, Ok(Next::Records(_) | Next::End(_))));
    log.notify_revoked("g", Topic::Logins);
    assert!(matches!(zombie.reader.next().await, Ok(Next::Revoked(_))));
    assert!(zombie.reader.next().await.is_err(), "nothing follows");
}

#[tokio::test]
async fn a_partition_taken_at_once_does_not_wait() {
    let log = open();
    let mut first = log.subscribe("g", Topic::Logins).await.expect("joined");
    let mut old = started(first.next().await.expect("assigned"), 0);
    let mut second = log.subscribe("g", Topic::Logins).await.expect("joined");
    log.rebalance("g", Topic::Logins, Handover::AtOnce, |_, members| members - 1);
    assert_eq!(second.next().await.expect("assigned").partition, old.partition);
    assert!(matches!(old.reader.next().await, Ok(Next::Revoked(_))));
}

#[tokio::test]
async fn a_torn_flush_leaves_the_selected_rows() {
    use store::{Checkpoint, Flush, RowWrite};
    let store = store::memory::Store::new();
    let generation = Generation { family: Family::Logins, number: 1, epoch: 2 };
    let key = |n: i64| RowKey::hashed(View::User, format!("t:{n}"));
    let rows = (0..4).map(|n| RowWrite { key: key(n), position: n, cell: n.to_string().into() }).collect();
    let flush = Flush { generation, partition: 0, rows, checkpoint: Checkpoint { next: 4, last: None } };
    store.write_rows(&flush, |row| row.position % 2 == 0);
    assert_eq!(store.clone().rows(generation).len(), 2, "clones share everything");
    assert_eq!(store.checkpoint(generation, 0).await.expect("readable"), None);
    store.write_checkpoint(&flush).expect("written");
    assert_eq!(store.checkpoint(generation, 0).await.expect("readable"), Some(flush.checkpoint));
    store.apply(&flush).await.expect("applied");
    assert_eq!(store.rows(generation).len(), 4);
}

#[tokio::test]
async fn between_equal_timestamps_the_larger_bytes_win() {
    use store::{Checkpoint, Flush, RowWrite};
    let store = store::memory::Store::new();
    let generation = Generation { family: Family::Logins, number: 1, epoch: 0 };
    for cell in ["b", "c", "a"] {
        let key = RowKey::hashed(View::User, "t:a".to_owned());
        let rows = vec![RowWrite { key, position: 7, cell: cell.into() }];
        let checkpoint = Checkpoint { next: 8, last: None };
        store.apply(&Flush { generation, partition: 0, rows, checkpoint }).await.expect("applied");
    }
    assert_eq!(store.rows(generation)[0].1.cell, "c");
}

#[tokio::test]
async fn a_reader_of_what_was_forgotten_is_refused() {
    let log = open();
    for n in 0..10 {
        log.append(vec![record(&n.to_string())]).await.expect("appended");
    }
    log.forget(Topic::Logins, 0, 4).expect("there");
    let extent = log.extent(Topic::Logins, 0).await.expect("known");
    assert_eq!((extent.start, extent.end), (4, 10));
    let refused = log.read(Topic::Logins, 0, 3).await.err().expect("not held any more");
    assert!(
        refused.kind == foretell_ports::Kind::Fatal && refused.detail.contains("offset 3 was requested"),
        "{refused}"
    );
    assert_eq!(log.page(Topic::Logins, 0, 4).await.expect("readable").records[0].value, "4");
}
