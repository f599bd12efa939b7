//! The guarantees of every log to those who administrate it: topics are exchanged for ones with other partitions.

use crate::within;
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Position, Topic, key};
use foretell_ports::Kind;
use foretell_ports::log::{Exchange, Log, LogAdmin, Remains};
use futures::future::BoxFuture;
use std::any::Any;
use std::sync::Arc;

/// A test for each guarantee, of the log that `$make().await` returns.
#[macro_export]
macro_rules! log_admin_promises {
    ($make:path) => {
        $crate::log_admin_promises!(@each $make;
            topics_are_exchanged_together_with_all_of_their_records,
            an_unfinished_exchange_changes_nothing_and_is_deleted_by_the_next,
            successors_reject_records_of_other_topics
        );
    };
    (@each $make:path; $($promise:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::admin_suite::$promise($make().await).await;
            }
        )+
    };
}

/// A log that can be opened again.
pub(crate) struct Reopened {
    pub(crate) log: Arc<dyn LogAdmin>,
    /// Opens it after it was dropped. [`MOVED`] are in this epoch; a log that stores its epochs itself ignores it.
    pub(crate) open: Box<dyn Fn(u8) -> BoxFuture<'static, Arc<dyn LogAdmin>> + Send + Sync>,
    #[allow(dead_code, reason = "held until the test ends")]
    pub(crate) keep: Box<dyn Any + Send>,
}

/// The topics of the exchange.
pub(crate) const MOVED: [Topic; 2] = [Topic::Appointments, Topic::Reminders];

fn into(partitions: u32, remains: Remains) -> Exchange {
    Exchange { topics: MOVED.to_vec(), partitions, groups: Vec::new(), remains }
}

fn record(topic: Topic, number: u32) -> NewRecord {
    let headers = vec![("ce_id".to_owned(), number.to_string().into())];
    let key = Some(format!("default:c{}", number % 7).into());
    NewRecord { topic, key, value: format!("{} {number}", topic.name()).into(), headers }
}

async fn all(log: &dyn Log, topic: Topic) -> Vec<Record> {
    let mut records = Vec::new();
    for partition in 0..log.partitions(topic) {
        let (mut next, end) = (0, log.extent(topic, partition).await.expect("known").end);
        while next < end {
            let page = within(log.page(topic, partition, next)).await.expect("readable");
            next = page.next;
            records.extend(page.records);
        }
    }
    records
}

/// Appends records to the topics, and returns all of them in the order of their timestamps.
async fn filled(log: &dyn Log) -> Vec<Record> {
    for call in 0..20 {
        let records = (call * 5..call * 5 + 5).flat_map(|number| MOVED.map(|topic| record(topic, number)));
        within(log.append(records.collect())).await.expect("appended");
    }
    let mut records = all(log, Topic::Appointments).await;
    records.extend(all(log, Topic::Reminders).await);
    assert_eq!(records.len(), 200);
    records.sort_by_key(|record| record.timestamp_ms);
    records
}

/// Epoch and partition count of each topic.
fn shapes(log: &dyn Log) -> Vec<(Topic, u8, u32)> {
    Topic::ALL.into_iter().map(|topic| (topic, log.epoch(topic), log.partitions(topic))).collect()
}

/// All that a record has except its position, by key; in order for each key.
fn contents(records: &[Record], topic: Topic) -> Vec<NewRecord> {
    let content = |record: &Record| {
        let Record { position: Position { .. }, timestamp_ms, key, value, mut headers } = record.clone();
        headers.push(("time".to_owned(), timestamp_ms.to_string().into()));
        NewRecord { topic, key, value, headers }
    };
    let mut contents: Vec<_> = records.iter().filter(|record| record.position.topic == topic).map(content).collect();
    contents.sort_by(|left, right| left.key.cmp(&right.key));
    contents
}

/// The log has these records in five partitions of the next epoch, and takes more.
async fn assert_exchanged(log: &dyn Log, before: &[(Topic, u8, u32)], records: &[Record]) {
    let moved = |(topic, epoch, partitions)| match MOVED.contains(&topic) {
        true => (topic, 1, 5),
        false => (topic, epoch, partitions),
    };
    assert_eq!(shapes(log), before.iter().copied().map(moved).collect::<Vec<_>>());
    for topic in MOVED {
        let now = all(log, topic).await;
        assert_eq!(contents(&now, topic), contents(records, topic));
        for record in &now {
            assert_eq!(key::partition(record.key.as_deref().expect("a key"), 5), record.position.partition);
        }
        within(log.append(vec![record(topic, 1_000)])).await.expect("appended");
        assert_eq!(all(log, topic).await.len(), now.len() + 1);
    }
}

pub(crate) async fn topics_are_exchanged_together_with_all_of_their_records(made: Reopened) {
    let Reopened { log, open, keep: _keep } = made;
    let (before, records) = (shapes(log.as_ref()), filled(log.as_ref()).await);
    let mut successors = within(log.successors(&into(5, Remains::Refuse))).await.expect("begun");
    for some in records.chunks(9) {
        within(successors.add(some.to_vec())).await.expect("added");
    }
    assert_eq!(shapes(log.as_ref()), before, "the current topics are still in use");
    assert_eq!(contents(&all(log.as_ref(), MOVED[0]).await, MOVED[0]), contents(&records, MOVED[0]));
    within(successors.finish()).await.expect("complete");
    drop(log);
    assert_exchanged(open(1).await.as_ref(), &before, &records).await;
}

pub(crate) async fn an_unfinished_exchange_changes_nothing_and_is_deleted_by_the_next(made: Reopened) {
    let Reopened { log, open, keep: _keep } = made;
    let (before, records) = (shapes(log.as_ref()), filled(log.as_ref()).await);
    let mut cut_off = within(log.successors(&into(3, Remains::Refuse))).await.expect("begun");
    within(cut_off.add(records[..50].to_vec())).await.expect("added");
    drop((cut_off, log));
    let log = open(0).await;
    assert_eq!(shapes(log.as_ref()), before);
    let mut discarded = within(log.successors(&into(4, Remains::Wipe))).await.expect("begun");
    within(discarded.add(records[..50].to_vec())).await.expect("added");
    within(discarded.discard()).await.expect("deleted");
    // Nothing remains of it that could be in the way.
    let mut whole = within(log.successors(&into(5, Remains::Refuse))).await.expect("begun");
    within(whole.add(records.clone())).await.expect("added");
    within(whole.finish()).await.expect("complete");
    drop(log);
    assert_exchanged(open(1).await.as_ref(), &before, &records).await;
}

pub(crate) async fn successors_reject_records_of_other_topics(made: Reopened) {
    let Reopened { log, keep: _keep, .. } = made;
    let position = within(log.append(vec![record(Topic::Logins, 1)])).await.expect("appended")[0];
    let page = within(log.page(Topic::Logins, position.partition, position.offset)).await.expect("readable");
    let mut successors = within(log.successors(&into(5, Remains::Refuse))).await.expect("begun");
    let rejected = within(successors.add(page.records)).await.expect_err("not part of the exchange");
    assert_eq!(rejected.kind, Kind::Reject);
    within(successors.discard()).await.expect("deleted");
}
