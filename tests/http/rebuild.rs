//! Families are rebuilt while the old generation serves: under traffic, after interruptions, after changes of the
//! rules; and a generation with wrong rows never serves.

use crate::instance::{Instance, World};
use crate::verify::{Scanned, folded, is_totals, records, verified};
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::view;
use foretell_engine::jobs::{self, JobEvent, JobEvents};
use foretell_engine::rebuild::{RebuildAction, RebuildQuery, RebuildStep, Rebuilder, Rebuilt, all_due};
use foretell_events::Topic;
use foretell_ports::log::Log;
use foretell_ports::store::{Checkpoint, Flush, RowWrite, Store};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn rebuilder(world: &World, verified: Arc<dyn Store>) -> Rebuilder {
    Rebuilder { verifier: world.verifier(verified), ..world.composed().rebuilder() }
}

type Event = JobEvent<RebuildStep, Rebuilt>;

fn started(rebuilder: Rebuilder, order: RebuildAction) -> JobEvents<Rebuilder> {
    jobs::start(rebuilder, RebuildQuery { family: Family::Logins, order })
}

pub(crate) fn build(world: &World) -> JobEvents<Rebuilder> {
    started(rebuilder(world, world.store.clone()), RebuildAction::Build)
}

/// The last event.
pub(crate) async fn last(mut events: JobEvents<Rebuilder>) -> Event {
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    last.expect("there is an event")
}

/// The end of a rebuild after which a generation serves.
pub(crate) fn done(serving: u32) -> Event {
    JobEvent::Done(Rebuilt { serving })
}

/// The beginning of a rebuild while the first generation serves.
fn begun(building: u32) -> Event {
    JobEvent::Item(RebuildStep::Begun { serving: 1, building })
}

async fn pointer(world: &World) -> Pointer {
    world.store.pointer(Family::Logins).await.unwrap().unwrap()
}

fn generation(number: u32) -> Generation {
    Generation { family: Family::Logins, number, epoch: 0 }
}

async fn letters(world: &World) -> i64 {
    let mut letters = 0;
    for partition in 0..world.log.partitions(Topic::DeadLetters) {
        letters += world.log.extent(Topic::DeadLetters, partition).await.unwrap().end;
    }
    letters
}

/// A row that is not the fold of any log.
async fn damage(world: &World) {
    let stray = RowWrite { key: RowKey::hashed(View::User, "default:nobody".into()), position: 7, cell: "?".into() };
    let flush = Flush {
        generation: generation(1),
        partition: 0,
        rows: vec![stray],
        checkpoint: Checkpoint { next: 0, last: None },
    };
    world.store.apply(&flush).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_replaced_while_events_come_and_replays_write_no_letters() {
    let (world, shutdown) = folded(2_000).await;
    damage(&world).await;
    assert_eq!(verified(&world, world.store.clone(), None).await.0.differences, 1);
    let mut events = build(&world);
    let mut serving = None;
    let mut appended = 2_000;
    while let Some(event) = events.recv().await {
        if appended < 4_000 {
            world.log.append(records(appended, 50)).await.unwrap();
            appended += 50;
        }
        match event {
            JobEvent::Item(RebuildStep::Begun { .. }) => assert_eq!(event, begun(2)),
            JobEvent::Item(RebuildStep::Serving { generation, summary }) => {
                serving = Some((generation, summary.unwrap().differences));
            }
            JobEvent::Failed { detail } => panic!("{detail}"),
            _ => {}
        }
    }
    assert_eq!(serving, Some((2, 0)));
    let pointer = pointer(&world).await;
    assert_eq!((pointer.serving, &pointer.building, pointer.oldest, pointer.latest), (2, &None, 2, 2));
    for view in [View::User, View::Feature] {
        assert_eq!(
            world.store.buckets(generation(1), view).await.unwrap(),
            [0_i64; 0],
            "what served before is dropped"
        );
    }
    assert_eq!(world.store.checkpoint(generation(1), 0).await.unwrap(), None);
    assert_eq!(verified(&world, world.store.clone(), None).await.0.differences, 0);
    assert_eq!(letters(&world).await, 1, "of the one bad record, written when it was folded first");

    // New events are folded, and their letters written, only by the new generation.
    let instance = Instance::without_views(world.clone(), world.parts()).await;
    let bad =
        foretell_events::record::NewRecord { topic: Topic::Logins, key: None, value: "{".into(), headers: vec![] };
    let positions = world.log.append(vec![bad]).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    assert!(world.parts().progress.wait(&positions, deadline).await);
    assert_eq!(letters(&world).await, 2);
    assert_eq!(instance.get("/readyz").await.status, 200);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rebuild_goes_on_and_a_cancelled_one_is_gone() {
    let (world, shutdown) = folded(500).await;
    let mut events = build(&world);
    assert_eq!(events.recv().await, Some(begun(2)));
    drop(events);
    let mut again = build(&world);
    assert_eq!(again.recv().await, Some(begun(2)), "the same one");
    drop(again);
    let cancel = || started(rebuilder(&world, world.store.clone()), RebuildAction::Cancel);
    assert_eq!(last(cancel()).await, done(1));
    assert_eq!(world.store.buckets(generation(2), View::User).await.unwrap(), [0_i64; 0]);
    assert!(matches!(last(cancel()).await, JobEvent::Failed { detail } if detail.contains("nothing is being built")));
    let mut anew = build(&world);
    assert_eq!(anew.recv().await, Some(begun(3)), "no number is given twice");
    assert_eq!(last(anew).await, done(3));
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_build_one_generation() {
    let (world, shutdown) = folded(500).await;
    let (one, two) = tokio::join!(last(build(&world)), last(build(&world)));
    assert_eq!([one, two], [done(2), done(2)]);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_the_fold_never_serve() {
    let (world, shutdown) = folded(500).await;
    let spoilt = Scanned::spoilt(&world, |key, row| (!is_totals(key)).then(|| row.clone()));
    let last = last(started(rebuilder(&world, Arc::new(spoilt)), RebuildAction::Build)).await;
    assert!(
        matches!(&last, JobEvent::Failed { detail } if detail.contains("differ from the fold of the log")),
        "{last:?}"
    );
    let pointer = pointer(&world).await;
    assert_eq!((pointer.serving, pointer.building.map(|building| building.number)), (1, Some(2)));
    shutdown.cancel();
}

/// A store that another build has folded: only the pointer shows it.
async fn folded_by_others(fingerprint: &str) -> World {
    let world = World::new();
    let others = Pointer::first(crate::instance::PARTITIONS, fingerprint.to_owned());
    assert!(world.store.swap_pointer(Family::Logins, None, &others).await.unwrap());
    world.log.append(records(0, 300)).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_other_rules_are_neither_read_nor_folded_until_they_are_rebuilt() {
    let world = folded_by_others("fold1-zones2020a-limits0").await;
    let instance = Instance::with(world.clone(), world.parts()).await;
    let ready = instance.get("/readyz?verbose").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.to_string().contains("foretell rebuild logins"), "{}", ready.body);
    let asked = json!({"user_id": "u", "ip": "198.51.100.7"});
    let score = instance.post("/v1/risk/logins", &asked).await;
    assert!(score.status == 503 || score.body["warnings"].to_string().contains("DEGRADED"), "{}", score.body);
    assert_eq!(world.store.checkpoint(generation(1), 0).await.unwrap(), None, "nothing was folded");

    let due = all_due(rebuilder(&world, world.store.clone()), Family::ALL.to_vec(), CancellationToken::new());
    due.await.unwrap();
    assert_eq!(pointer(&world).await.serving, 2);
    assert_eq!(world.store.pointer(Family::Reminders).await.unwrap().unwrap().serving, 1, "was not due");
    assert_eq!(verified(&world, world.store.clone(), None).await.0.differences, 0);
    while instance.get("/readyz").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let score = instance.post("/v1/risk/logins", &asked).await;
    assert_eq!((score.status, &score.body["warnings"]), (200, &json!([])), "{}", score.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_built_by_itself_in_place_of_newer_rules() {
    let newer = format!("fold{}-zones2020a-limits0", view::FOLD_VERSION + 1);
    let world = folded_by_others(&newer).await;
    let views = world.views(CancellationToken::new()).await;
    let rebuilder = rebuilder(&world, world.store.clone());
    all_due(rebuilder.clone(), vec![Family::Logins], CancellationToken::new()).await.unwrap();
    let before = pointer(&world).await;
    assert_eq!((before.fingerprint.as_str(), &before.building), (newer.as_str(), &None));
    // While another process builds, no second one may.
    let theirs = before.begin("fold9-theirs".to_owned());
    assert!(world.store.swap_pointer(Family::Logins, Some(&before), &theirs).await.unwrap());
    let last = last(started(rebuilder, RebuildAction::Build)).await;
    assert!(matches!(&last, JobEvent::Failed { detail } if detail.contains("--cancel")), "{last:?}");
    drop(views);
}
