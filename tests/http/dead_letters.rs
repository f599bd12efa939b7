//! Dead letters on the socket: found once, shown, repaired, redriven once, dropped.

use crate::instance::{Instance, NOW_MS, PARTITIONS, World, event, login};
use bytes::Bytes;
use foretell_domain::address::{Family, Generation};
use foretell_domain::dead::details::{DeadLetterEntry, LetterState};
use foretell_domain::dead::filter::Filter;
use foretell_domain::dead::query::{
    DeadLetterAction, DeadLetterItem, DeadLetterQuery, DeadLetterScope, DeadLetterSummary, LetterOutcome, Redrive, Run,
};
use foretell_domain::dead::resolution::{Resolution, ResolutionRecord};
use foretell_domain::dead::{self, Id};
use foretell_domain::view::user::LoginFold;
use foretell_engine::dead_letters::DeadLetters;
use foretell_engine::jobs::{self, JobEvent};
use foretell_engine::pipeline::{family, task};
use foretell_events::codec::{INVALID_ADDRESS, KEY_MISMATCH, MALFORMED_JSON, MISSING_FIELD};
use foretell_events::partitioner::Partitioner;
use foretell_events::record::{NewRecord, RECORD_BYTES_MAX, Record};
use foretell_events::{Position, Topic, codec, key};
use foretell_ports::log::Log;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const STRUCTURED: (&str, Bytes) = ("content-type", Bytes::from_static(b"application/cloudevents+json"));

fn record(key: &str, value: impl ToString) -> NewRecord {
    let (name, content_type) = STRUCTURED;
    let (key, value) = (Some(Bytes::from(key.to_owned())), value.to_string().into());
    NewRecord { topic: Topic::Logins, key, value, headers: vec![(name.into(), content_type)] }
}

fn without_ip(id: &str, user: &str) -> Value {
    event(id, "login.succeeded", json!({"user_id": user, "device_id": "laptop"}))
}

/// The dead letters, and views that have folded what was in the log.
struct Office {
    world: World,
    letters: DeadLetters,
    shutdown: CancellationToken,
}

impl Office {
    async fn open(records: Vec<NewRecord>) -> Self {
        let world = World::new();
        world.log.append(records).await.unwrap();
        let letters =
            DeadLetters { log: world.log.clone(), clock: world.clock.clone(), topic_prefix: "foretell.".into() };
        let office = Self { world, letters, shutdown: CancellationToken::new() };
        tokio::spawn(office.world.views(office.shutdown.clone()).await.join_all());
        office.folded().await;
        office
    }

    /// Waits until the logins are folded.
    async fn folded(&self) {
        let generation = Generation { family: Family::Logins, number: 1, epoch: 0 };
        for partition in 0..PARTITIONS {
            let end = self.world.log.extent(Topic::Logins, partition).await.unwrap().end;
            let reached = async || {
                let checkpoint = self.world.store.checkpoint(generation, partition).await.unwrap();
                checkpoint.map_or(0, |checkpoint| checkpoint.next) >= end
            };
            while !reached().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn run(
        &self,
        filter: Filter,
        limit: usize,
        action: DeadLetterAction,
    ) -> (Vec<(DeadLetterEntry, LetterOutcome)>, Vec<Id>, DeadLetterSummary) {
        let mut events = jobs::start(self.letters.clone(), DeadLetterQuery { filter, limit, action });
        let (mut letters, mut missing) = (Vec::new(), Vec::new());
        while let Some(event) = events.recv().await {
            match event {
                JobEvent::Item(DeadLetterItem::Letter { letter, outcome }) => letters.push((*letter, outcome)),
                JobEvent::Item(DeadLetterItem::Missing(id)) => missing.push(id),
                JobEvent::Done(summary) => return (letters, missing, summary),
                JobEvent::Failed { detail } => panic!("{detail}"),
                JobEvent::Progress(_) => {}
            }
        }
        panic!("the job ended without a summary")
    }

    async fn list(&self, scope: DeadLetterScope) -> Vec<DeadLetterEntry> {
        let (letters, _, _) = self.run(Filter::default(), 100, DeadLetterAction::List(scope)).await;
        letters.into_iter().map(|(letter, _)| letter).collect()
    }

    async fn redrive(&self, filter: Filter, redrive: Redrive) -> Vec<(DeadLetterEntry, LetterOutcome)> {
        self.run(filter, 100, DeadLetterAction::Redrive(redrive)).await.0
    }

    fn records(&self, topic: Topic) -> Vec<Record> {
        (0..PARTITIONS).flat_map(|partition| self.world.log.records(topic, partition).unwrap()).collect()
    }

    async fn user(&self, user: &str) -> Value {
        self.folded().await;
        let instance = Instance::without_views(self.world.clone(), self.world.parts()).await;
        instance.get(&format!("/v1/users/{user}")).await.body
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn real() -> Redrive {
    Redrive { run: Run::Real, patch: None, attempts_max: 3, rate: 10_000, reason: Some("mended".into()) }
}

fn patched(patch: Value) -> Redrive {
    Redrive { patch: Some(serde_json::from_value(patch).unwrap()), ..real() }
}

fn code(code: &str) -> Filter {
    Filter { code: Some(code.into()), ..Filter::default() }
}

#[tokio::test]
async fn a_letter_is_repaired_and_redriven_once() {
    let office = Office::open(vec![
        record("default:ada", without_ip("a", "ada")),
        record("default:eve", login("b", "bob")),
        record("default:cyd", "{"),
        record("default:dan", login("d", "dan")),
    ])
    .await;
    let mut codes: Vec<_> = office.list(DeadLetterScope::Open).await.into_iter().map(|letter| letter.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [KEY_MISMATCH, MALFORMED_JSON, MISSING_FIELD]);

    // A dry run only reports.
    let dry = office.redrive(code(KEY_MISMATCH), Redrive { run: Run::Dry, ..real() }).await;
    assert_eq!(
        dry[0].1,
        LetterOutcome::WouldRedrive { topic: "foretell.logins".into(), key: "default:bob".into(), dropped: 0 }
    );
    assert_eq!(office.records(Topic::Logins).len(), 4);
    let unmended = office.redrive(code(MISSING_FIELD), real()).await;
    assert!(
        matches!(&unmended[0].1, LetterOutcome::Refused { detail } if detail.contains("MISSING_FIELD at /data/ip"))
    );
    assert_eq!(office.list(DeadLetterScope::Open).await.len(), 3, "what is refused stays");

    let rekeyed = office.redrive(code(KEY_MISMATCH), real()).await;
    let patch = json!([{"op": "add", "path": "/data/ip", "value": "198.51.100.7"}]);
    let mended = office.redrive(code(MISSING_FIELD), patched(patch.clone())).await;
    for ((letter, outcome), user) in [(&rekeyed[0], "bob"), (&mended[0], "ada")] {
        let LetterOutcome::Redriven { to, dropped: 0 } = outcome else { panic!("{outcome:?}") };
        let key = format!("default:{user}");
        assert_eq!(to.partition, key::partition(key.as_bytes(), PARTITIONS), "the partitioner places it");
        let records = office.world.log.records(Topic::Logins, to.partition).unwrap();
        let record = records.iter().find(|record| record.position.offset == to.offset).unwrap();
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
        assert_eq!(record.header(dead::ATTEMPT), Some(&b"1"[..]));
        assert_eq!(office.user(user).await["history"]["successes"], 1);
        let shown = office.letters.show(letter.id).await.unwrap().unwrap();
        assert_eq!(shown.listed.state, LetterState::Redriven);
        let record = shown.resolution.unwrap();
        assert_eq!((record.letter, record.reason.as_deref()), (letter.id, Some("mended")));
        assert_eq!(record.resolution, Resolution::Redriven { to: to.clone() });
        assert_eq!(record.at, codec::rfc3339(NOW_MS));
    }

    // Again: there is nothing to do, by filter or by id.
    let records = office.records(Topic::Logins).len();
    assert_eq!(office.redrive(code(MISSING_FIELD), patched(patch.clone())).await, []);
    let named = Filter { ids: [rekeyed[0].0.id].into(), ..Filter::default() };
    let again = office.redrive(named, real()).await;
    assert!(
        matches!(&again[0].1, LetterOutcome::Refused { detail } if detail.contains("redriven before")),
        "{again:?}"
    );
    assert_eq!(office.records(Topic::Logins).len(), records);

    let drop = |run| DeadLetterAction::Drop { run, reason: "noise".into() };
    let (would, _, _) = office.run(Filter::default(), 9, drop(Run::Dry)).await;
    assert_eq!(would.iter().map(|(_, outcome)| outcome).collect::<Vec<_>>(), [&LetterOutcome::WouldDrop]);
    let (dropped, _, summary) = office.run(Filter::default(), 9, drop(Run::Real)).await;
    assert_eq!((dropped[0].0.code.as_str(), &dropped[0].1), (MALFORMED_JSON, &LetterOutcome::Dropped));
    assert_eq!(summary, DeadLetterSummary { letters: 1, refused: 0, more: false });
    assert_eq!(office.list(DeadLetterScope::Open).await, []);
    let mut states: Vec<_> =
        office.list(DeadLetterScope::All).await.into_iter().map(|letter| (letter.code, letter.state)).collect();
    states.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (KEY_MISMATCH, LetterState::Redriven),
        (MALFORMED_JSON, LetterState::Dropped),
        (MISSING_FIELD, LetterState::Redriven),
    ];
    assert_eq!(states, expected.map(|(code, state)| (code.to_owned(), state)));
}

#[tokio::test]
async fn a_crash_before_the_resolution_record_repeats_the_event_and_no_effect() {
    let office = Office::open(vec![record("default:eve", login("b", "bob"))]).await;
    let [letter] = office.list(DeadLetterScope::Open).await.try_into().unwrap();
    let letters = office.records(Topic::DeadLetters);
    office.redrive(code(KEY_MISMATCH), real()).await;
    assert_eq!(office.user("bob").await["history"]["successes"], 1);
    // The log as a crash would have left it: the event is there, the resolution record is not.
    let crashed = Office::open(office.records(Topic::Logins).into_iter().map(as_new).collect()).await;
    let before = crashed.records(Topic::Logins).len();
    assert_eq!(crashed.records(Topic::DeadLetters).len(), letters.len());
    let [again] = crashed.list(DeadLetterScope::Open).await.try_into().unwrap();
    assert_eq!(again.code, letter.code);
    let deeds = crashed.redrive(code(KEY_MISMATCH), real()).await;
    assert!(matches!(deeds[0].1, LetterOutcome::Redriven { .. }), "{deeds:?}");
    assert_eq!(crashed.records(Topic::Logins).len(), before + 1);
    assert_eq!(crashed.user("bob").await["history"]["successes"], 1, "the fold has seen that id and source");
    assert_eq!(crashed.list(DeadLetterScope::Open).await, []);
}

fn as_new(record: Record) -> NewRecord {
    let Record { position: Position { topic, .. }, key, value, headers, .. } = record;
    NewRecord { topic, key, value, headers }
}

#[tokio::test]
async fn copies_are_one_letter_before_and_after_it_is_closed() {
    let office = Office::open(vec![record("default:ada", without_ip("a", "ada"))]).await;
    let copy =
        || office.records(Topic::DeadLetters).into_iter().filter(|r| ResolutionRecord::read(r).is_none()).map(as_new);
    let copies: Vec<_> = copy().collect();
    office.world.log.append(copies.clone()).await.unwrap();
    assert_eq!(copy().count(), 2);
    let [listed] = office.list(DeadLetterScope::Open).await.try_into().unwrap();
    let drop = DeadLetterAction::Drop { run: Run::Real, reason: "x".into() };
    let (_, missing, _) = office.run(Filter { ids: [listed.id].into(), ..Filter::default() }, 9, drop.clone()).await;
    assert_eq!(missing, []);
    // A fold from the beginning writes it once more.
    office.world.log.append(copies).await.unwrap();
    assert_eq!(office.list(DeadLetterScope::Open).await, []);
    assert_eq!(office.list(DeadLetterScope::All).await.len(), 1);
    let nowhere = Id { partition: 0, offset: 99 };
    let (letters, missing, _) = office.run(Filter { ids: [nowhere].into(), ..Filter::default() }, 9, drop).await;
    assert_eq!((letters.len(), missing), (0, vec![nowhere]));
    assert_eq!(office.letters.show(nowhere).await.unwrap(), None);
    assert_eq!(office.letters.show(Id { partition: 99, offset: 0 }).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_rejected_again_counts_its_attempts_until_it_is_left() {
    let office = Office::open(vec![record("default:ada", without_ip("a", "ada"))]).await;
    // Failed attempts: another tool appends the letters again unchanged, with their headers.
    for attempt in 1..3 {
        let [letter] = office.list(DeadLetterScope::Open).await.try_into().unwrap();
        assert_eq!((letter.attempt, letter.first_failure.as_str()), (attempt, codec::rfc3339(NOW_MS).as_str()));
        office.world.clock.set(NOW_MS + i64::from(attempt) * 60_000);
        let last = office.records(Topic::DeadLetters).into_iter().rfind(|r| ResolutionRecord::read(r).is_none());
        office.world.log.append(vec![NewRecord { topic: Topic::Logins, ..as_new(last.unwrap()) }]).await.unwrap();
        office.folded().await;
        let filter = Filter { ids: [letter.id].into(), ..Filter::default() };
        office.run(filter, 1, DeadLetterAction::Drop { run: Run::Real, reason: "sent again".into() }).await;
    }
    let patch = json!([{"op": "add", "path": "/data/ip", "value": "198.51.100.7"}]);
    let left = office.redrive(code(MISSING_FIELD), patched(patch.clone())).await;
    assert!(matches!(&left[0].1, LetterOutcome::Refused { detail } if detail.contains("rejected 3 times")), "{left:?}");
    let more = Redrive { attempts_max: 4, ..patched(patch) };
    let sent = office.redrive(code(MISSING_FIELD), more).await;
    assert!(matches!(sent[0].1, LetterOutcome::Redriven { .. }), "{sent:?}");
    assert_eq!(office.user("ada").await["history"]["successes"], 1);
}

#[tokio::test]
async fn a_letter_without_its_value_is_repaired_from_the_source() {
    let mut large = event("a", "login.succeeded", json!({"user_id": "ada", "ip": "nowhere"}));
    large["data"]["x"] = json!("x".repeat(RECORD_BYTES_MAX - 2_000));
    let office = Office::open(vec![record("default:ada", &large)]).await;
    let [letter] = office.list(DeadLetterScope::Open).await.try_into().unwrap();
    assert_eq!(letter.code, INVALID_ADDRESS);
    assert!(office.records(Topic::DeadLetters)[0].value.is_empty());
    let shown = office.letters.show(letter.id).await.unwrap().unwrap();
    assert_eq!(shown.event.unwrap()["data"]["ip"], "nowhere");
    assert_eq!(shown.faults[0].pointer, "/data/ip");
    let patch = json!([
        {"op": "test", "path": "/id", "value": "a"},
        {"op": "replace", "path": "/data/ip", "value": "198.51.100.7"},
    ]);
    let sent = office.redrive(code(INVALID_ADDRESS), patched(patch)).await;
    assert!(matches!(sent[0].1, LetterOutcome::Redriven { .. }), "{sent:?}");
    assert_eq!(office.user("ada").await["history"]["successes"], 1);
}

#[tokio::test]
async fn a_limit_cuts_the_list_and_a_further_request_continues_it() {
    let records = (0..7).map(|n| record("default:eve", login(&format!("e{n}"), &format!("user-{n}")))).collect();
    let office = Office::open(records).await;
    let (letters, _, summary) = office.run(Filter::default(), 3, DeadLetterAction::List(DeadLetterScope::Open)).await;
    assert_eq!((letters.len(), summary), (3, DeadLetterSummary { letters: 3, refused: 0, more: true }));
    let mut sent = Vec::new();
    for (expected, more) in [(3, true), (3, true), (1, false), (0, false)] {
        let (letters, _, summary) = office.run(Filter::default(), 3, DeadLetterAction::Redrive(real())).await;
        assert_eq!((letters.len(), summary.more), (expected, more));
        sent.extend(letters.into_iter().map(|(letter, _)| letter.id));
    }
    let (in_order, count) = (sent.is_sorted(), sent.len());
    assert_eq!((in_order, count), (true, 7), "each once, in the order of the topic: {sent:?}");
}

#[tokio::test]
async fn a_partition_of_bad_records_stops_before_all_of_it_is_dead_letters() {
    const BAD: i64 = 20;
    let world = World::new();
    let bad = || record("default:broken", "{");
    world
        .log
        .append((0..BAD).map(|_| bad()).chain([record("default:fine", login("e", "fine"))]).collect())
        .await
        .unwrap();
    let [broken, fine] = ["default:broken", "default:fine"].map(|key| key::partition(key.as_bytes(), PARTITIONS));
    assert_ne!(broken, fine, "two partitions");
    let keep = async |rejected_run_max| {
        let mut views = world.family(LoginFold::default());
        views.config.rejected_run_max = rejected_run_max;
        let generation = views.pointer().await.unwrap().serving(Family::Logins);
        let stop = CancellationToken::new();
        let kept = tokio::spawn(family::run(views, task::none(), stop.clone()));
        (generation, stop, kept)
    };
    let next = async |generation, partition| {
        let checkpoint = world.store.checkpoint(generation, partition).await.unwrap();
        checkpoint.map_or(0, |checkpoint| checkpoint.next)
    };
    let letters = || (0..PARTITIONS).map(|p| world.log.records(Topic::DeadLetters, p).unwrap().len()).sum::<usize>();

    let (generation, stop, kept) = keep(5).await;
    while next(generation, broken).await == 0 || next(generation, fine).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((next(generation, broken).await, letters()), (5, 5), "the sixth is not taken");
    assert!(!kept.is_finished(), "the others go on");
    stop.cancel();
    kept.await.unwrap().unwrap();

    let (generation, stop, kept) = keep(0).await;
    while next(generation, broken).await < BAD {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(letters(), BAD as usize, "an operator has decided");
    stop.cancel();
    kept.await.unwrap().unwrap();
}

/// Logins in the partitions that another partitioner chooses; returns how many of them are misplaced.
fn misplace(world: &World, partitioner: Partitioner, users: usize) -> usize {
    let mut wrong = 0;
    for user in 0..users {
        let (id, user) = (format!("e{user}"), format!("user-{user}"));
        let key = format!("default:{user}");
        let partition = partitioner.partition(key.as_bytes(), PARTITIONS);
        wrong += usize::from(partition != key::partition(key.as_bytes(), PARTITIONS));
        world.log.append_to(partition, record(&key, login(&id, &user))).unwrap();
    }
    wrong
}

fn letters(world: &World) -> Vec<Record> {
    (0..PARTITIONS).flat_map(|partition| world.log.records(Topic::DeadLetters, partition).unwrap()).collect()
}

#[tokio::test]
async fn a_wrong_partitioner_is_named_in_a_notice_and_in_each_dead_letter() {
    for (partitioner, setting) in [
        (Partitioner::Crc32, "partitioner=murmur2_random"),
        (Partitioner::Fnv1a, "kafka.Murmur2Balancer{}"),
        (Partitioner::KafkaJsLegacy, "Partitioners.DefaultPartitioner"),
    ] {
        let instance = Instance::start().await;
        let notices = async || instance.get("/readyz?verbose").await.body["notices"].to_string();
        assert_eq!(notices().await, "[]");
        let wrong = misplace(&instance.world, partitioner, 200);
        while letters(&instance.world).len() < wrong {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let told = notices().await;
        let counted = format!("{wrong} records are in a wrong partition of foretell.logins");
        for part in [&counted, partitioner.name(), partitioner.clients(), setting, "foretell dead-letters redrive"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        for letter in letters(&instance.world) {
            let message = String::from_utf8(letter.header(dead::MESSAGE).unwrap().to_vec()).unwrap();
            assert!(message.starts_with("WRONG_PARTITION: ") && message.contains(setting), "{message}");
        }
    }
}

#[tokio::test]
async fn records_by_a_wrong_partitioner_stop_every_partition_of_the_family_early() {
    const RECORDS: usize = 20_000;
    let world = World::new();
    let wrong = misplace(&world, Partitioner::Crc32, RECORDS);
    assert!(wrong > RECORDS / 2);
    let views = world.family(LoginFold::default());
    let (window, generation) =
        (views.config.rejected_code_window_records as usize, views.pointer().await.unwrap().serving(Family::Logins));
    let stop = CancellationToken::new();
    let kept = tokio::spawn(family::run(views, task::none(), stop.clone()));
    let next = async || {
        let mut next = Vec::new();
        for partition in 0..PARTITIONS {
            let checkpoint = world.store.checkpoint(generation, partition).await.unwrap();
            next.push(checkpoint.map_or(0, |checkpoint| checkpoint.next));
        }
        next
    };
    // All of them have stopped when none has moved for several ages of a batch.
    let mut before = Vec::new();
    loop {
        let now = next().await;
        if now == before && now.iter().all(|next| *next > 0) {
            break;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (passed, letters) = (before.iter().sum::<i64>() as usize, letters(&world).len());
    assert!((window / 4..2 * window).contains(&letters), "{letters} of {passed} became dead letters");
    assert!(passed < RECORDS / 4, "{passed} of {RECORDS} were passed");
    stop.cancel();
    kept.await.unwrap().unwrap();
}
