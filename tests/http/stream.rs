//! The stream of reminders: all of the tenant's, in order, from any cursor, independent of other tenants.

use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, PARTITIONS, World, booked, event};
use async_trait::async_trait;
use bytes::Bytes;
use foretell_domain::address::Family;
use foretell_domain::view::Limits;
use foretell_domain::view::client::AppointmentFold;
use foretell_domain::view::sent::ReminderFold;
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic, key};
use foretell_ports::Error;
use foretell_ports::log::{Extent, Fenced, Log, Membership, Page, Reader, memory};
use futures::{Stream, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

/// A block of a stream.
#[derive(Debug, Clone, PartialEq)]
enum Frame {
    Event(Sent),
    Cursor(String),
}

pub(crate) struct Subscriber {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Subscriber {
    pub(crate) async fn open(instance: &Instance, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = instance.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { bytes: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Frame::Event(sent) = self.frame().await? {
                return Some(sent);
            }
        }
    }

    /// The next cursor without an event.
    async fn cursor(&mut self) -> String {
        match self.frame().await {
            Some(Frame::Cursor(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// The next block with content; none at the end of the stream.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches(": ").to_owned()))
                };
                let frame = match (field("data"), field("id")) {
                    (Some(data), Some(id)) => {
                        let (kind, data) = (field("event").unwrap(), serde_json::from_str(&data).unwrap());
                        Some(Frame::Event(Sent { kind, id, data }))
                    }
                    (None, Some(id)) => Some(Frame::Cursor(id)),
                    (Some(data), None) => panic!("an event without a cursor: {data}"),
                    (None, None) => None, // A comment that keeps the stream open.
                };
                self.text = rest.to_owned();
                if frame.is_some() {
                    return frame;
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.bytes.next()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk.ok()?).unwrap());
        }
    }
}

/// Books a visit for each of several clients, with both steps in the future, and announces the first step.
pub(crate) async fn announce(instance: &Instance, tenant: &str, clients: &[&str]) {
    let events: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut event = booked(&format!("b-{client}"), client, &format!("a-{client}"), "2026-03-05T12:00:00");
            event["tenant"] = json!(tenant);
            event
        })
        .collect();
    instance.fold(&events).await;
}

/// 72 hours before the visits of [`announce`].
pub(crate) const DUE_MS: i64 = NOW_MS + 26 * HOUR_MS;

#[tokio::test]
async fn the_stream_sends_each_reminder_of_the_tenant_and_resumes_exactly() {
    let instance = Instance::start().await;
    announce(&instance, "default", &["c1", "c2", "c3", "c4", "c5", "c6"]).await;
    announce(&instance, "other", &["x1", "x2"]).await;
    let stream = "/v1/reminders/stream";
    let mut subscriber = Subscriber::open(&instance, stream, &[]).await;
    instance.world.clock.set(DUE_MS);
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(subscriber.next().await.unwrap());
    }
    let mut clients: Vec<_> = all.iter().map(|sent| sent.data["data"]["client_id"].as_str().unwrap()).collect();
    clients.sort_unstable();
    assert_eq!(clients, ["c1", "c2", "c3", "c4", "c5", "c6"], "and none of the other tenant");
    for sent in &all {
        assert_eq!(sent.kind, "foretell.reminder.due");
        assert_eq!((&sent.data["specversion"], &sent.data["type"]), (&json!("1.0"), &json!(sent.kind)));
        assert_eq!(sent.data["id"], sent.data["data"]["reminder_id"]);
        assert_eq!(sent.data["tenant"], "default");
    }
    drop(subscriber);
    for at in 0..6 {
        // Another reader may receive the partitions in another order, but never less, and never earlier events again.
        let mut resumed = Subscriber::open(&instance, stream, &[("last-event-id", &all[at].id)]).await;
        let mut rest = Vec::new();
        for _ in at + 1..6 {
            rest.push(resumed.next().await.unwrap().data["id"].as_str().unwrap().to_owned());
        }
        let mut expected: Vec<_> = all[at + 1..].iter().map(|s| s.data["id"].as_str().unwrap().to_owned()).collect();
        rest.sort_unstable();
        expected.sort_unstable();
        assert_eq!(rest, expected, "resumed after event {at}");
    }
    let mut others = Subscriber::open(&instance, stream, &[("foretell-tenant", "other")]).await;
    assert_eq!(others.next().await.unwrap().data["tenant"], "other");
    let mut latest = Subscriber::open(&instance, &format!("{stream}?from=latest"), &[]).await;
    instance
        .fold(&[event("cancel", "appointment.cancelled", json!({"appointment_id": "a-c3", "client_id": "c3"}))])
        .await;
    let withdrawn = latest.next().await.unwrap();
    assert_eq!(withdrawn.kind, "foretell.reminder.withdrawn");
    assert_eq!(withdrawn.data["data"]["reason"], "cancelled");
    let story = instance.get("/v1/appointments/a-c1").await.body["reminders"].clone();
    let stands: Vec<_> = story.as_array().unwrap().iter().map(|r| (&r["step"], &r["status"])).collect();
    assert_eq!(stands, [(&json!("72h"), &json!("sent")), (&json!("24h"), &json!("planned"))]);
}

#[tokio::test]
async fn cursors_that_cannot_be_resumed_are_refused() {
    let instance = Instance::start().await;
    let get = async |path: &str, cursor: &str| {
        let request = instance.request(Method::GET, path).header("last-event-id", cursor);
        Answer::of(request.send().await.unwrap()).await.problem().0
    };
    let stream = "/v1/reminders/stream";
    for (cursor, status) in [("garbage", 400), ("0-0-0", 410), ("1-0-0-0", 410), ("0-0-0-99", 410), ("0-0-0-0-0", 410)]
    {
        assert_eq!(get(stream, cursor).await, status, "{cursor}");
    }
    for (query, status) in [("garbage", 400), ("0-0-0", 410), ("1-0-0-0", 410)] {
        let answer = instance.get(&format!("{stream}?lastEventId={query}")).await;
        assert_eq!(answer.problem().0, status, "{query}");
        assert!(status == 410 || answer.body["errors"][0]["pointer"] == "/lastEventId", "{}", answer.body);
        assert_eq!(get(&format!("{stream}?lastEventId={query}"), "0-0-0").await, if status == 400 { 400 } else { 410 });
    }
    assert_eq!(instance.get("/v1/reminders/stream?from=yesterday").await.problem(), (400, "MALFORMED_REQUEST"));
    let misspelt = instance.get("/v1/reminders/stream?form=latest").await;
    assert_eq!(misspelt.problem(), (400, "UNKNOWN_PARAMETER"));
    assert_eq!(misspelt.body["errors"][0]["pointer"], "/form");
    assert_eq!(misspelt.body["detail"], "there is no query parameter form; did you mean from?");
    let pointer = instance.world.store.pointer(Family::Reminders).await.unwrap().unwrap();
    assert_eq!(pointer.epoch, 0, "the cursors above are of this epoch, or not");
}

/// The head of a stream, and its content until a text has arrived.
async fn raw(
    instance: &Instance,
    path: &str,
    headers: &[(&str, &str)],
    until: &str,
) -> (reqwest::header::HeaderMap, String) {
    let request = instance.request(Method::GET, path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut text = String::new();
    while !text.contains(until) {
        let chunk = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    (response.headers().clone(), text)
}

#[tokio::test]
async fn a_quiet_stream_is_kept_open_by_comments_that_are_no_blocks() {
    let (instance, _) = counted().await;
    let path = "/v1/reminders/stream?from=latest";
    let (headers, text) = raw(&instance, path, &[("last-event-id", "")], ": keep-alive\n: keep-alive\n").await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(headers[name], value, "{name}");
    }
    // A blank line would be an empty event for clients that dispatch one after any field.
    assert!(!text.contains("\n\n"), "{text:?}");
    let (retry, heartbeats) = text.split_once('\n').unwrap();
    let retry_ms: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((2_000..5_000).contains(&retry_ms), "{retry}");
    assert!(heartbeats.lines().all(|line| line.starts_with(':')), "{heartbeats:?}");
    let (_, again) = raw(&instance, path, &[], "\n").await;
    let (_, other) = raw(&instance, path, &[], "\n").await;
    assert!(again.starts_with("retry: ") && [again, other].iter().any(|next| !next.starts_with(retry)), "spread");
    let head = instance.request(Method::HEAD, path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-type"]), (200, &headers["content-type"]));
}

#[tokio::test]
async fn reminders_of_erased_clients_are_left_out_and_only_who_has_one_gets_its_withdrawal() {
    let instance = Instance::start().await;
    announce(&instance, "default", &["kept", "gone"]).await;
    instance.world.clock.set(DUE_MS);
    let stream = "/v1/reminders/stream";
    let mut live = Subscriber::open(&instance, stream, &[]).await;
    let due = [live.next().await.unwrap(), live.next().await.unwrap()];
    let of = |sent: &Sent| sent.data["data"]["client_id"].as_str().unwrap().to_owned();
    let mut erasure = event("x", "client.erased", json!({"client_id": "gone"}));
    erasure["time"] = json!("2026-03-02T12:00:00Z");
    assert_eq!(DUE_MS, NOW_MS + 26 * HOUR_MS, "which is when it is erased");
    instance.fold(&[erasure]).await;
    let withdrawn = live.next().await.unwrap();
    assert_eq!((withdrawn.kind.as_str(), of(&withdrawn)), ("foretell.reminder.withdrawn", "gone".to_owned()));
    // From the beginning there is no trace of the client, and the cursor passes its records.
    instance
        .fold(&[event("c", "appointment.cancelled", json!({"appointment_id": "a-kept", "client_id": "kept"}))])
        .await;
    let mut later = Subscriber::open(&instance, stream, &[]).await;
    let rest = [later.next().await.unwrap(), later.next().await.unwrap()];
    assert_eq!(rest.each_ref().map(&of), ["kept", "kept"]);
    assert_eq!(rest[1].kind, "foretell.reminder.withdrawn");
    // A subscriber that received the reminder in an earlier connection gets the withdrawal.
    let mut resumed = Subscriber::open(&instance, stream, &[("last-event-id", &due[1].id)]).await;
    let next = [resumed.next().await.unwrap(), resumed.next().await.unwrap()];
    assert!(next.iter().any(|sent| of(sent) == "gone" && sent.kind == "foretell.reminder.withdrawn"), "{next:?}");
    // A client that comes back is reminded again.
    let mut again = booked("again", "gone", "a-again", "2026-03-05T14:00:00");
    again["time"] = json!("2026-03-02T12:00:01Z");
    instance.fold(&[again]).await;
    instance.world.clock.set(DUE_MS + 2 * HOUR_MS);
    let sent = later.next().await.unwrap();
    assert_eq!((sent.data["data"]["appointment_id"].as_str(), of(&sent).as_str()), (Some("a-again"), "gone"));
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_process() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.streams_max = 1;
    let instance = Instance::with(world, parts).await;
    let mut only = Subscriber::open(&instance, "/v1/reminders/stream", &[]).await;
    assert_eq!(instance.get("/v1/reminders/stream").await.problem(), (503, "TOO_MANY_STREAMS"));
    instance.shutdown.cancel();
    assert_eq!(only.next().await, None);
}

/// A log that counts the readers and pages that are requested.
struct Counted {
    log: Arc<memory::Log>,
    reads: AtomicUsize,
    pages: AtomicUsize,
}

#[async_trait]
impl Log for Counted {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.log.append(records).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        self.log.extent(topic, partition).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        self.log.subscribe(group, topic).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.log.read(topic, partition, from).await
    }

    async fn page(&self, topic: Topic, partition: u32, from: i64) -> Result<Page, Error> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.log.page(topic, partition, from).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        self.log.fence(topic, partition).await
    }
}

/// An API without views over a log that counts, with streams that send their cursor every 20 ms.
async fn counted() -> (Instance, Arc<Counted>) {
    let world = World::new();
    world.family(ReminderFold { limits: Limits::default() }).pointer().await.unwrap();
    world.family(AppointmentFold { limits: Limits::default() }).pointer().await.unwrap();
    let log = Arc::new(Counted { log: world.log.clone(), reads: AtomicUsize::new(0), pages: AtomicUsize::new(0) });
    let mut parts = world.parts();
    parts.ports.log = log.clone();
    parts.config.stream_keep_alive_ms = 20;
    parts.config.streams_max = 1_000;
    (Instance::without_views(world, parts).await, log)
}

/// A record on the topic of reminders, for one of several clients of a tenant.
fn announcement(tenant: &str, number: usize) -> NewRecord {
    let client = number % 7;
    let event = json!({
        "specversion": "1.0", "id": format!("{tenant}-{number}"), "source": "urn:test", "type": "foretell.reminder.due",
        "time": "2026-03-01T10:00:00Z", "tenant": tenant, "data": {"number": number, "client_id": format!("c{client}")},
    });
    NewRecord {
        topic: Topic::Reminders,
        key: Some(Bytes::from(format!("{tenant}:c{client}"))),
        value: Bytes::from(event.to_string()),
        headers: vec![("content-type".to_owned(), Bytes::from_static(b"application/cloudevents+json"))],
    }
}

/// The partition of [`told`].
fn partition(number: usize) -> u32 {
    key::partition(format!("default:c{}", number % 7).as_bytes(), PARTITIONS)
}

/// Reads events up to and including this number of them.
async fn take(subscriber: &mut Subscriber, count: usize) -> Vec<(usize, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let sent = subscriber.next().await.unwrap();
        assert_eq!(sent.data["tenant"], "default");
        taken.push((sent.data["data"]["number"].as_u64().unwrap() as usize, sent.id));
    }
    taken
}

/// Each number once, and those of a partition in order.
fn assert_each_once(taken: &[(usize, String)], numbers: impl Iterator<Item = usize>) {
    for partition_is in 0..PARTITIONS {
        let numbers = taken.iter().map(|(number, _)| *number);
        let of: Vec<_> = numbers.filter(|number| partition(*number) == partition_is).collect();
        assert!(of.is_sorted_by(|a, b| a < b), "partition {partition_is}: {of:?}");
    }
    let mut all: Vec<_> = taken.iter().map(|(number, _)| *number).collect();
    all.sort_unstable();
    assert_eq!(all, numbers.collect::<Vec<_>>());
}

#[tokio::test]
async fn streams_share_their_readers_and_go_over_from_history_without_gap_or_repetition() {
    const OLD: usize = 3_000;
    const ALL: usize = 6_000;
    let (instance, log) = counted().await;
    let append = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            log.append(vec![announcement("default", number), announcement("other", number)]).await.unwrap();
        }
    };
    append(0..OLD).await;
    let path = "/v1/reminders/stream";
    let mut oldest = Subscriber::open(&instance, path, &[]).await;
    let mut latest = Subscriber::open(&instance, &format!("{path}?from=latest"), &[]).await;
    let old = take(&mut oldest, OLD).await;
    assert_each_once(&old, 0..OLD);
    let mut resumed = Vec::new();
    for at in [0, 1, 700, OLD - 1] {
        let stream = Subscriber::open(&instance, path, &[("last-event-id", &old[at].1)]).await;
        resumed.push((at, stream));
    }
    assert_eq!(log.reads.load(Ordering::SeqCst), PARTITIONS as usize, "one tail for all of them");

    // More than a window holds, with and without a reader.
    append(OLD..ALL).await;
    assert_each_once(&take(&mut latest, ALL - OLD).await, OLD..ALL);
    assert_each_once(&take(&mut oldest, ALL - OLD).await, OLD..ALL);
    for (at, mut stream) in resumed {
        let rest = take(&mut stream, ALL - at - 1).await;
        let mut both = old[..=at].to_vec();
        both.extend(rest);
        assert_each_once(&both, 0..ALL);
    }
    assert_eq!(log.reads.load(Ordering::SeqCst), PARTITIONS as usize);
}

#[tokio::test]
async fn streams_at_the_end_live_from_the_tail_alone_and_a_new_one_follows_it() {
    let (instance, log) = counted().await;
    log.append((0..100).map(|number| announcement("default", number)).collect()).await.unwrap();
    let path = "/v1/reminders/stream?from=latest";
    let readers = || log.reads.load(Ordering::SeqCst);
    {
        let mut live = [Subscriber::open(&instance, path, &[]).await, Subscriber::open(&instance, path, &[]).await];
        for range in [100..150, 150..200] {
            log.append(range.clone().map(|number| announcement("default", number)).collect()).await.unwrap();
            for stream in &mut live {
                assert_each_once(&take(stream, 50).await, range.clone());
            }
        }
        assert_eq!(readers(), PARTITIONS as usize);
    }
    // Without subscribers the tail ends, and the next subscriber gets another one.
    while readers() == PARTITIONS as usize {
        drop(Subscriber::open(&instance, path, &[]).await);
    }
    assert_eq!(readers(), 2 * PARTITIONS as usize);
    assert_eq!(log.pages.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn reminders_of_others_move_the_cursor_and_do_not_reach_the_application() {
    const OTHERS: usize = 5_000;
    let (instance, log) = counted().await;
    log.append((0..OTHERS).map(|number| announcement("other", number)).collect()).await.unwrap();
    let path = "/v1/reminders/stream";
    let offsets = |cursor: &str| cursor.split('-').skip(1).map(|next| next.parse::<usize>().unwrap()).sum::<usize>();
    let mut quiet = Subscriber::open(&instance, path, &[]).await;
    // Not only at the end: a subscriber that is disconnected within history continues there.
    let mut cursors = vec![quiet.cursor().await];
    assert!((1..OTHERS).contains(&offsets(&cursors[0])), "{cursors:?}");
    while offsets(&cursors[cursors.len() - 1]) < OTHERS {
        cursors.push(quiet.cursor().await);
    }
    assert!(cursors.is_sorted_by_key(|cursor| offsets(cursor)) && cursors.len() < 20, "{cursors:?}");

    // The same live: what is appended after any of these cursors arrives.
    log.append(vec![announcement("other", 1)]).await.unwrap();
    let cursor = quiet.cursor().await;
    assert_eq!(offsets(&cursor), OTHERS + 1);
    log.append(vec![announcement("default", 7)]).await.unwrap();
    assert_eq!(take(&mut quiet, 1).await[0].0, 7);
    for cursor in cursors.iter().chain([&cursor]) {
        let mut resumed = Subscriber::open(&instance, path, &[("last-event-id", cursor)]).await;
        assert_eq!(take(&mut resumed, 1).await[0].0, 7);
    }
}
