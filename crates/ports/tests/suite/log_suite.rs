//! The guarantees of every log. Topics are empty at first; `logins` and `appointments` have four partitions.

use crate::{Fixture, quiet, within};
use bytes::Bytes;
use foretell_events::record::{NewRecord, RECORD_BYTES_MAX, Record};
use foretell_events::{Topic, key};
use foretell_ports::Kind;
use foretell_ports::log::{Assigned, Log, Membership, Next, Reader, record_at};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A test for each guarantee, of the log that `$make().await` returns.
#[macro_export]
macro_rules! log_promises {
    ($make:path) => {
        $crate::log_promises!(@each $make;
            acknowledged_records_are_kept_as_they_were,
            positions_come_in_the_order_of_the_call,
            a_key_lives_in_one_partition,
            concurrent_appends_keep_the_order_of_each_partition,
            timestamps_never_go_back,
            a_reader_brings_nothing_before_its_start,
            the_end_is_reported_once_each_time_it_is_reached,
            a_cancelled_next_loses_nothing,
            a_record_at_the_limit_is_kept_and_a_larger_one_refused,
            long_and_unusual_keys_are_kept,
            an_extent_holds_every_record_and_record_at_finds_it,
            pages_bring_what_a_reader_would,
            an_offset_by_time_is_the_first_record_that_is_not_older,
            a_fence_ends_the_previous_owner_and_no_other,
            fenced_appends_are_read_next_to_holes,
            a_lone_member_gets_every_partition,
            a_reader_waits_for_its_start,
            a_second_member_takes_over_what_was_acknowledged,
            what_a_member_leaves_passes_to_the_others,
            groups_do_not_know_each_other,
            a_slow_reader_stops_its_partition_and_nothing_else
        );
    };
    (@each $make:path; $($promise:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fixture = $make().await;
                $crate::log_suite::$promise(&fixture).await;
            }
        )+
    };
}

type Made = Fixture<dyn Log>;

const TOPIC: Topic = Topic::Logins;

fn record(key: &str, value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        topic: TOPIC,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: value.into(),
        headers: Vec::new(),
    }
}

/// A key of each partition.
fn keys(log: &dyn Log) -> Vec<String> {
    let count = log.partitions(TOPIC);
    let key_of = |p| (0..).map(|n| format!("t:{n}")).find(|k| key::partition(k.as_bytes(), count) == p);
    (0..count).map(|p| key_of(p).expect("keys spread over all partitions")).collect()
}

/// The records from the reader's position up to the first end.
async fn drain(reader: &mut Box<dyn Reader>) -> (Vec<Record>, i64) {
    let mut records = Vec::new();
    loop {
        match within(reader.next()).await.expect("readable") {
            Next::Records(more) => {
                assert!(!more.is_empty(), "a batch brings something");
                records.extend(more);
            }
            Next::End(end) => return (records, end),
            Next::Revoked(_) => panic!("there is no other member"),
        }
    }
}

async fn all(log: &dyn Log, topic: Topic, partition: u32) -> Vec<Record> {
    drain(&mut log.read(topic, partition, 0).await.expect("opens")).await.0
}

fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect()
}

fn rising(records: &[Record]) -> bool {
    records.windows(2).all(|pair| pair[0].position.offset < pair[1].position.offset)
}

pub(crate) async fn acknowledged_records_are_kept_as_they_were(made: &Made) {
    let log = &made.port;
    let headers = vec![
        ("ce_id".to_owned(), Bytes::from_static(b"1")),
        ("ce_id".to_owned(), Bytes::from_static(b"2")),
        ("größe".to_owned(), Bytes::from_static(&[0, 255, 7])),
        ("empty".to_owned(), Bytes::new()),
    ];
    let sent = vec![
        NewRecord { headers, ..record("t:a", "one") },
        record("t:a", vec![0_u8, 1, 2, 255]),
        NewRecord { key: None, ..record("", "no key") },
    ];
    let positions = within(log.append(sent.clone())).await.expect("appended");
    assert_eq!(positions[2].partition, 0, "without a key, partition 0");
    for (sent, position) in sent.iter().zip(&positions) {
        let records = all(log.as_ref(), TOPIC, position.partition).await;
        let kept = records.iter().find(|record| record.position == *position).expect("kept");
        assert_eq!((&kept.key, &kept.value, &kept.headers), (&sent.key, &sent.value, &sent.headers));
    }
}

pub(crate) async fn positions_come_in_the_order_of_the_call(made: &Made) {
    let log = &made.port;
    let topics = Topic::ALL;
    let sent: Vec<NewRecord> = (0..40)
        .map(|n| NewRecord { topic: topics[n % topics.len()], ..record(&format!("t:{n}"), n.to_string()) })
        .collect();
    let positions = within(log.append(sent.clone())).await.expect("appended");
    assert_eq!(positions.len(), sent.len());
    for (sent, position) in sent.iter().zip(positions) {
        let partition = key::partition(sent.key.as_ref().expect("keyed"), log.partitions(sent.topic));
        assert_eq!((position.topic, position.partition), (sent.topic, partition));
        let found = within(record_at(log.as_ref(), position.topic, position.partition, position.offset)).await;
        assert_eq!(found.expect("readable").expect("there").value, sent.value);
    }
}

pub(crate) async fn a_key_lives_in_one_partition(made: &Made) {
    let log = &made.port;
    let sent: Vec<NewRecord> = (0..200).map(|n| record(&format!("t:{}", n % 50), n.to_string())).collect();
    within(log.append(sent)).await.expect("appended");
    let mut seen = 0;
    for partition in 0..log.partitions(TOPIC) {
        for record in all(log.as_ref(), TOPIC, partition).await {
            let key = record.key.expect("keyed");
            assert_eq!(key::partition(&key, log.partitions(TOPIC)), partition);
            seen += 1;
        }
    }
    assert_eq!(seen, 200);
}

pub(crate) async fn concurrent_appends_keep_the_order_of_each_partition(made: &Made) {
    let log = &made.port;
    let keys = keys(log.as_ref());
    let callers = (0..8).map(|caller| {
        let (log, keys) = (Arc::clone(log), keys.clone());
        tokio::spawn(async move {
            for call in 0..20 {
                let one = |n: usize| record(&keys[n % keys.len()], format!("{caller} {}", call * 10 + n));
                within(log.append((0..10).map(one).collect())).await.expect("appended");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for partition in 0..log.partitions(TOPIC) {
        let records = all(log.as_ref(), TOPIC, partition).await;
        assert!(rising(&records));
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for value in values(&records) {
            let (caller, number) = value.split_once(' ').expect("two words");
            let number: u32 = number.parse().expect("a number");
            let before = last.insert(caller.to_owned(), number);
            assert!(before.is_none_or(|before| before < number), "caller {caller}: {before:?} before {number}");
            seen.entry(caller.to_owned()).or_default().push(number);
        }
    }
    for (caller, mut numbers) in seen {
        numbers.sort_unstable();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "caller {caller}");
    }
}

pub(crate) async fn timestamps_never_go_back(made: &Made) {
    let log = &made.port;
    for n in 0..5 {
        within(log.append(vec![record("t:a", n.to_string())])).await.expect("appended");
    }
    let records = all(log.as_ref(), TOPIC, key::partition(b"t:a", log.partitions(TOPIC))).await;
    assert_eq!(records.len(), 5);
    assert!(records[0].timestamp_ms > 0);
    assert!(records.windows(2).all(|pair| pair[0].timestamp_ms <= pair[1].timestamp_ms));
}

pub(crate) async fn a_reader_brings_nothing_before_its_start(made: &Made) {
    let log = &made.port;
    for chunk in 0..4 {
        let sent = (0..300).map(|n| record("t:a", (chunk * 300 + n).to_string())).collect();
        within(log.append(sent)).await.expect("appended");
    }
    let partition = key::partition(b"t:a", log.partitions(TOPIC));
    let whole = all(log.as_ref(), TOPIC, partition).await;
    assert_eq!(values(&whole), (0..1200).map(|n| n.to_string()).collect::<Vec<_>>());
    for start in [0, 1, 299, 300, 301, 777, 1199] {
        let from = whole[start].position.offset;
        let mut reader = log.read(TOPIC, partition, from).await.expect("opens");
        assert_eq!(drain(&mut reader).await.0, whole[start..], "from record {start}");
    }
    let end = log.extent(TOPIC, partition).await.expect("known").end;
    let mut reader = log.read(TOPIC, partition, end).await.expect("opens");
    assert_eq!(drain(&mut reader).await, (Vec::new(), end));
}

pub(crate) async fn the_end_is_reported_once_each_time_it_is_reached(made: &Made) {
    let log = &made.port;
    let partition = key::partition(b"t:a", log.partitions(TOPIC));
    let mut reader = log.read(TOPIC, partition, 0).await.expect("opens");
    let (records, mut last) = drain(&mut reader).await;
    assert!(records.is_empty());
    for n in 0..3 {
        assert!(quiet(reader.next()).await, "reported once");
        within(log.append(vec![record("t:a", n.to_string())])).await.expect("appended");
        let (records, end) = drain(&mut reader).await;
        assert_eq!(values(&records), [n.to_string()]);
        assert!(end > records[0].position.offset && end > last);
        last = end;
    }
    assert!(quiet(reader.next()).await, "reported once");
}

pub(crate) async fn a_cancelled_next_loses_nothing(made: &Made) {
    let log = &made.port;
    let partition = key::partition(b"t:a", log.partitions(TOPIC));
    let mut reader = log.read(TOPIC, partition, 0).await.expect("opens");
    let appending = Arc::clone(log);
    let appender = tokio::spawn(async move {
        for call in 0..100 {
            let sent = (0..20).map(|n| record("t:a", (call * 20 + n).to_string())).collect();
            within(appending.append(sent)).await.expect("appended");
        }
    });
    let mut seen = Vec::new();
    let mut attempts = 0_u64;
    let reading = async {
        while seen.len() < 2000 {
            attempts += 1;
            // Short enough to cancel many calls at any point, long enough at times to let one finish.
            let patience = Duration::from_micros(attempts * 37 % 3000);
            match tokio::time::timeout(patience, reader.next()).await {
                Ok(Ok(Next::Records(records))) => seen.extend(values(&records)),
                Ok(Ok(Next::End(_))) | Err(_) => {}
                Ok(other) => panic!("unexpected: {other:?}"),
            }
        }
    };
    within(reading).await;
    appender.await.expect("no panic");
    assert_eq!(seen, (0..2000).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_record_at_the_limit_is_kept_and_a_larger_one_refused(made: &Made) {
    let log = &made.port;
    let name = "h".to_owned();
    let sized = |bytes: usize| {
        let value = vec![7_u8; bytes - "t:a".len() - name.len() - 2];
        NewRecord { headers: vec![(name.clone(), Bytes::from_static(b"vv"))], ..record("t:a", value) }
    };
    let refused = within(log.append(vec![record("t:b", "small"), sized(RECORD_BYTES_MAX + 1)])).await;
    assert_eq!(refused.expect_err("too large").kind, Kind::Reject);
    for partition in 0..log.partitions(TOPIC) {
        assert!(all(log.as_ref(), TOPIC, partition).await.is_empty(), "none was appended");
    }
    let largest = sized(RECORD_BYTES_MAX);
    let position = within(log.append(vec![largest.clone()])).await.expect("at the limit")[0];
    let kept = within(record_at(log.as_ref(), TOPIC, position.partition, position.offset)).await;
    let kept = kept.expect("readable").expect("there");
    assert!(kept.value == largest.value && kept.headers == largest.headers);
}

pub(crate) async fn long_and_unusual_keys_are_kept(made: &Made) {
    let log = &made.port;
    let long = "k".repeat(512);
    for key in ["t:ключ-🔑-مفتاح", "t:with space and \"quotes\"", "t:zero\0byte", "t:", &long] {
        let position = within(log.append(vec![record(key, key.to_owned())])).await.expect("appended")[0];
        let kept = within(record_at(log.as_ref(), TOPIC, position.partition, position.offset)).await;
        assert_eq!(kept.expect("readable").expect("there").key.as_deref(), Some(key.as_bytes()));
    }
}

pub(crate) async fn an_extent_holds_every_record_and_record_at_finds_it(made: &Made) {
    let log = &made.port;
    let partition = key::partition(b"t:a", log.partitions(TOPIC));
    let empty = log.extent(TOPIC, partition).await.expect("known");
    assert_eq!(empty.start, empty.end);
    let sent = (0..3).map(|n| record("t:a", n.to_string())).collect();
    let positions = within(log.append(sent)).await.expect("appended");
    let extent = log.extent(TOPIC, partition).await.expect("known");
    assert!(extent.start <= positions[0].offset && positions[2].offset < extent.end);
    for (n, position) in positions.iter().enumerate() {
        let found = within(record_at(log.as_ref(), TOPIC, partition, position.offset)).await.expect("readable");
        assert_eq!(found.map(|r| r.value), Some(Bytes::from(n.to_string())));
    }
    for outside in [extent.start - 1, extent.end, extent.end + 1000] {
        assert!(within(record_at(log.as_ref(), TOPIC, partition, outside)).await.expect("readable").is_none());
    }
}

/// All records of a partition, page by page.
async fn walk(log: &dyn Log, partition: u32) -> Vec<Record> {
    let extent = log.extent(TOPIC, partition).await.expect("known");
    let (mut next, mut records) = (extent.start, Vec::new());
    while next < extent.end {
        let page = within(log.page(TOPIC, partition, next)).await.expect("readable");
        assert!(page.next > next, "{} after {next}", page.next);
        assert!(page.records.iter().all(|record| (next..page.next).contains(&record.position.offset)));
        next = page.next;
        records.extend(page.records);
    }
    let end = within(log.page(TOPIC, partition, next)).await.expect("readable");
    assert_eq!((end.records, end.next), (Vec::new(), next));
    records
}

pub(crate) async fn pages_bring_what_a_reader_would(made: &Made) {
    let log = made.port.as_ref();
    let keys = keys(log);
    for key in &keys {
        let more_than_a_page = (0..700).map(|n| record(key, n.to_string())).collect();
        within(log.append(more_than_a_page)).await.expect("appended");
    }
    // A page may begin with a hole, and the last one may contain nothing else.
    let mut owner = within(log.fence(TOPIC, 1)).await.expect("fenced");
    for value in ["one", "two"] {
        within(owner.append(vec![record(&keys[1], value)])).await.expect("appended");
    }
    let walked = futures::future::join_all((0..).zip(&keys).map(|(partition, _)| walk(log, partition))).await;
    for (partition, records) in (0..).zip(walked) {
        assert_eq!(records, all(log, TOPIC, partition).await, "partition {partition}");
    }
    // Pages are read back and forth, and from one partition to another.
    for (partition, offset) in [(0, 600), (1, 3), (0, 2), (2, 650), (2, 1), (1, 699), (0, 601)] {
        let page = within(log.page(TOPIC, partition, offset)).await.expect("readable");
        let position = page.records.first().expect("there is one").position;
        assert_eq!((position.partition, position.offset), (partition, offset));
    }
}

pub(crate) async fn an_offset_by_time_is_the_first_record_that_is_not_older(made: &Made) {
    let log = made.port.as_ref();
    let key = &keys(log)[1];
    let offset_at = async |time_ms| within(log.offset_at(TOPIC, 1, time_ms)).await.expect("found");
    assert_eq!(
        offset_at(0).await,
        log.extent(TOPIC, 1).await.expect("known").end,
        "an empty partition has only an end"
    );
    // Transactions leave holes on a cluster. Several times pass, and some records have the same one.
    let mut owner = within(log.fence(TOPIC, 1)).await.expect("fenced");
    let mut times = BTreeSet::new();
    while times.len() < 5 {
        let positions = within(owner.append(vec![record(key, "one"), record(key, "two")])).await.expect("appended");
        let last = within(record_at(log, TOPIC, 1, positions[1].offset)).await.expect("readable");
        times.insert(last.expect("there").timestamp_ms);
    }
    let (records, end) = (all(log, TOPIC, 1).await, log.extent(TOPIC, 1).await.expect("known").end);
    for time_ms in times.iter().flat_map(|at| [at - 1, *at, at + 1]).chain([-1, 0, i64::MAX / 2]) {
        let offset = offset_at(time_ms).await;
        let first = records.partition_point(|record| record.timestamp_ms < time_ms);
        let older = records[..first].last().map_or(-1, |record| record.position.offset);
        let expected = records.get(first).map_or(end, |record| record.position.offset);
        assert!(older < offset && offset <= expected, "{offset} for {time_ms}: after {older}, up to {expected}");
    }
}

pub(crate) async fn a_fence_ends_the_previous_owner_and_no_other(made: &Made) {
    let log = &made.port;
    let keys = keys(log.as_ref());
    let (mine, other) = (&keys[1], &keys[2]);
    let mut first = within(log.fence(TOPIC, 1)).await.expect("fenced");
    let mut neighbour = within(log.fence(TOPIC, 2)).await.expect("fenced");
    within(first.append(vec![record(mine, "first")])).await.expect("the owner appends");
    let mut second = within(log.fence(TOPIC, 1)).await.expect("fenced");
    let late = within(first.append(vec![record(mine, "late")])).await.expect_err("fenced off");
    assert_eq!(late.kind, Kind::Fatal);
    within(second.append(vec![record(mine, "second"), record(mine, "third")])).await.expect("the owner appends");
    let late = within(first.append(vec![record(mine, "later")])).await.expect_err("fenced off for good");
    assert_eq!(late.kind, Kind::Fatal);
    within(neighbour.append(vec![record(other, "neighbour")])).await.expect("other partitions go on");
    within(log.append(vec![record(mine, "plain")])).await.expect("plain appends are not fenced");
    assert_eq!(values(&all(log.as_ref(), TOPIC, 1).await), ["first", "second", "third", "plain"]);
    assert_eq!(values(&all(log.as_ref(), TOPIC, 2).await), ["neighbour"]);
}

pub(crate) async fn fenced_appends_are_read_next_to_holes(made: &Made) {
    let log = &made.port;
    let key = keys(log.as_ref())[3].clone();
    let mut owner = within(log.fence(TOPIC, 3)).await.expect("fenced");
    for n in 0..4 {
        let sent = (0..3).map(|m| record(&key, format!("{n}.{m}"))).collect();
        let positions = within(owner.append(sent)).await.expect("appended");
        assert!(positions.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        within(log.append(vec![record(&key, format!("{n}.plain"))])).await.expect("appended");
    }
    let extent = log.extent(TOPIC, 3).await.expect("known");
    let mut reader = log.read(TOPIC, 3, extent.start).await.expect("opens");
    let (records, end) = drain(&mut reader).await;
    assert!(rising(&records));
    let expected = (0..4).flat_map(|n| ["0", "1", "2", "plain"].map(|m| format!("{n}.{m}")));
    assert_eq!(values(&records), expected.collect::<Vec<_>>());
    assert_eq!(end, extent.end, "the end is after trailing holes");
    let held: BTreeSet<i64> = records.iter().map(|record| record.position.offset).collect();
    for offset in extent.start..extent.end {
        let found = within(record_at(log.as_ref(), TOPIC, 3, offset)).await.expect("readable");
        assert_eq!(found.is_some(), held.contains(&offset), "offset {offset}");
    }
}

async fn assigned(member: &mut Box<dyn Membership>, count: u32) -> Vec<Assigned> {
    let mut all = Vec::new();
    while all.len() < count as usize {
        all.push(within(member.next()).await.expect("assigned"));
    }
    all
}

fn partitions_of(assigned: &[Assigned]) -> BTreeSet<u32> {
    assigned.iter().map(|assigned| assigned.partition).collect()
}

async fn one_each(log: &dyn Log, value: &str) {
    let sent = keys(log).iter().map(|key| record(key, value.to_owned())).collect();
    within(log.append(sent)).await.expect("appended");
}

pub(crate) async fn a_lone_member_gets_every_partition(made: &Made) {
    let log = &made.port;
    one_each(log.as_ref(), "x").await;
    let count = log.partitions(TOPIC);
    let mut member = within(log.subscribe("lone", TOPIC)).await.expect("joined");
    let all = assigned(&mut member, count).await;
    assert_eq!(partitions_of(&all), (0..count).collect());
    for Assigned { partition, committed, start, mut reader } in all {
        assert_eq!(committed, None, "a new group has committed nothing");
        start.send(0).expect("awaited");
        let (records, end) = drain(&mut reader).await;
        assert_eq!((records.len(), records[0].position.partition), (1, partition));
        within(reader.commit(end)).await.expect("advice is taken");
    }
}

pub(crate) async fn a_reader_waits_for_its_start(made: &Made) {
    let log = &made.port;
    one_each(log.as_ref(), "before").await;
    one_each(log.as_ref(), "behind").await;
    let mut member = within(log.subscribe("waits", TOPIC)).await.expect("joined");
    let mut all = assigned(&mut member, log.partitions(TOPIC)).await;
    let Assigned { partition, start, mut reader, .. } = all.remove(0);
    assert!(quiet(reader.next()).await, "nothing comes before the start is named");
    let from = log.extent(TOPIC, partition).await.expect("known").end - 1;
    start.send(from).expect("awaited");
    assert_eq!(values(&drain(&mut reader).await.0), ["behind"]);
}

/// Reads until it is revoked, and acknowledges.
async fn serve(assigned: Assigned) {
    let Assigned { start, mut reader, .. } = assigned;
    start.send(0).expect("awaited");
    while !matches!(reader.next().await.expect("readable"), Next::Revoked(_)) {}
}

pub(crate) async fn a_second_member_takes_over_what_was_acknowledged(made: &Made) {
    let log = &made.port;
    let count = log.partitions(TOPIC);
    let mut first = within(log.subscribe("shared", TOPIC)).await.expect("joined");
    let owned = assigned(&mut first, count).await;
    let mut serving = tokio::task::JoinSet::new();
    for assigned in owned {
        serving.spawn(async move {
            let partition = assigned.partition;
            serve(assigned).await;
            partition
        });
    }
    let mut second = within(log.subscribe("shared", TOPIC)).await.expect("joined");
    one_each(log.as_ref(), "x").await;
    // The first member continues to poll, as a keeper does, while the second waits. It keeps what it is assigned:
    // dropped partitions would be assigned again immediately, in a loop that never yields.
    let polling = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(assigned) = first.next().await {
            kept.push(assigned);
        }
    });
    let taken = within(second.next()).await.expect("assigned");
    let given = within(serving.join_next()).await.expect("a partition was revoked").expect("no panic");
    let Assigned { partition, start, mut reader, .. } = taken;
    assert!(partition < count && given < count);
    start.send(0).expect("awaited");
    assert_eq!(values(&drain(&mut reader).await.0), ["x"]);
    polling.abort();
}

pub(crate) async fn what_a_member_leaves_passes_to_the_others(made: &Made) {
    let log = &made.port;
    let count = log.partitions(TOPIC);
    let mut first = within(log.subscribe("passing", TOPIC)).await.expect("joined");
    drop(assigned(&mut first, count).await);
    drop(first);
    one_each(log.as_ref(), "x").await;
    let mut second = within(log.subscribe("passing", TOPIC)).await.expect("joined");
    let all = assigned(&mut second, count).await;
    assert_eq!(partitions_of(&all), (0..count).collect());
    for Assigned { start, mut reader, .. } in all {
        start.send(0).expect("awaited");
        assert_eq!(drain(&mut reader).await.0.len(), 1);
    }
}

pub(crate) async fn groups_do_not_know_each_other(made: &Made) {
    let log = &made.port;
    let count = log.partitions(TOPIC);
    let mut views = within(log.subscribe("views.g1", TOPIC)).await.expect("joined");
    let owned = assigned(&mut views, count).await;
    let mut building = within(log.subscribe("views.g2", TOPIC)).await.expect("joined");
    let also = assigned(&mut building, count).await;
    assert_eq!((partitions_of(&owned), partitions_of(&also)), ((0..count).collect(), (0..count).collect()));
}

pub(crate) async fn a_slow_reader_stops_its_partition_and_nothing_else(made: &Made) {
    let log = &made.port;
    let keys = keys(log.as_ref());
    for call in 0..10 {
        let sent = keys.iter().flat_map(|key| (0..300).map(move |n| record(key, (call * 300 + n).to_string())));
        within(log.append(sent.collect())).await.expect("appended");
    }
    let mut member = within(log.subscribe("slow", TOPIC)).await.expect("joined");
    let mut readers = Vec::new();
    for Assigned { start, reader, .. } in assigned(&mut member, log.partitions(TOPIC)).await {
        start.send(0).expect("awaited");
        readers.push(reader);
    }
    let expected: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    let mut slow = readers.remove(0);
    for reader in &mut readers {
        let mut seen = Vec::new();
        while seen.len() < 3000 {
            seen.extend(values(&drain(reader).await.0));
        }
        assert_eq!(seen, expected, "the others go on");
    }
    let mut seen = Vec::new();
    while seen.len() < 3000 {
        seen.extend(values(&drain(&mut slow).await.0));
    }
    assert_eq!(seen, expected, "the slow one has missed nothing");
}
