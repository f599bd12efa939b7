//! Two processes share the partitions: others come and go, and one is frozen beyond its session and resumes while the
//! other owns its partitions.
//!
//! A frozen process holds the worst that a late writer can have: a batch with half of its rows written, the fence of a
//! planner, and no knowledge that its partitions were revoked.

use crate::deployment::{Deployment, PARTITIONS};
use crate::groups::{GROUPS, members};
use crate::process::{Service, WORKER, until};
use crate::story::Story;
use crate::stream::{Place, Positions, Stream, report};
use foretell_domain::address::Family;
use foretell_ports::clock::{Clock, System};
use std::collections::BTreeSet;

/// Waits until every group has this many members.
async fn until_members(deployment: &Deployment, count: usize) {
    until(&format!("{count} members"), async || (members(deployment).await == [count; GROUPS]).then_some(())).await;
}

/// The partitions of logins and appointments that a process has begun to fold since this length of its log; at debug.
fn taken_over(service: &Service, since: usize) -> BTreeSet<Place> {
    let logged = service.process.stderr();
    let lines = logged[since..].lines().filter(|line| line.contains(" folding topic="));
    let places = lines.filter_map(|line| {
        let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
        let topic = field("topic=").expect("a topic");
        let partition = field("partition=").and_then(|number| number.parse().ok()).expect("a number");
        let family = [Family::Logins, Family::Appointments].into_iter().find(|family| topic.ends_with(family.name()));
        Some((family?, partition))
    });
    places.collect()
}

/// Waits until a process that has joined the only other one has half of the partitions.
async fn until_half(joined: &Service, since: usize) {
    until("it has half", async || (taken_over(joined, since).len() == PARTITIONS as usize).then_some(())).await;
}

/// The first of two processes, and the one that has joined it.
async fn two_workers() -> (Deployment, [Service; 2]) {
    let mut deployment = Deployment::cluster();
    deployment.set("TELEMETRY__LOG_FILTER", "info,foretell_engine::pipeline=debug");
    let one = Service::start(&deployment, &WORKER);
    until("the first has all", async || (taken_over(&one, 0).len() == 2 * PARTITIONS as usize).then_some(())).await;
    let other = Service::start(&deployment, &WORKER);
    until_half(&other, 0).await;
    until_members(&deployment, 2).await;
    (deployment, [one, other])
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_move_in_the_middle_of_a_fold_take_nothing_along() {
    const GUESTS: u64 = 6;
    let (deployment, [one, other]) = two_workers().await;
    let stream = Stream::open(&deployment, Story::new(System.now_ms(), 20_000, 2_000), 1).await;
    let mut moved = 0;
    for guest in 0..GUESTS {
        stream.middle((2 * guest, 2 * GUESTS), &stream.places()).await;
        let third = Service::start(&deployment, &WORKER);
        let given = until("it has a partition of each family", async || {
            Some(taken_over(&third, 0)).filter(|given| given.len() >= 2)
        })
        .await;
        stream.middle((2 * guest + 1, 2 * GUESTS), &given).await;
        moved += taken_over(&third, 0).len();
        third.process.stop().await;
        until_members(&deployment, 2).await;
    }
    let came = stream.end(&deployment, vec![one.process, other.process]).await;
    report(&format!(
        "a third process joined and left in mid-fold {GUESTS} times each, {moved} partitions moved to it and back; {came}"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_wakes_after_its_session_harms_nothing_that_the_other_has_taken_over() {
    const FREEZES: u64 = 6;
    let (deployment, workers) = two_workers().await;
    let stream = Stream::open(&deployment, Story::new(System.now_ms(), 12_000, 2_000), 1).await;
    let (mut torn, mut logged) = (0, 0);
    for round in 0..FREEZES {
        // The last one to join has what it has begun to fold since then, which is half; the other one has the rest.
        let (frozen, joined) = if round % 2 == 0 { (&workers[0], &workers[1]) } else { (&workers[1], &workers[0]) };
        until_half(joined, logged).await;
        let owned = &stream.places() - &taken_over(joined, logged);
        let at = stream.halt(&frozen.process, (round, FREEZES), &owned).await;
        torn += u64::from(stream.ahead(&at).await.keys().any(|place| owned.contains(place)));
        until_members(&deployment, 1).await;
        let lagged: Vec<Place> = at.behind().collect();
        let passed = |seen: &Positions| lagged.iter().all(|place| seen.next(*place) > at.next(*place));
        stream.until("the other one has continued where the frozen one stopped", passed).await;
        logged = frozen.process.stderr().len();
        frozen.process.signal("CONT");
        until_members(&deployment, 2).await;
    }
    // A process frozen between rows and checkpoint writes the rest when it resumes: below what the other one wrote.
    assert!(torn > 0, "none of {FREEZES} freezes left rows ahead of their checkpoint");
    let came = stream.end(&deployment, workers.map(|worker| worker.process).into()).await;
    report(&format!(
        "frozen past its session in mid-fold {FREEZES} times, {torn} of them between rows and checkpoint; {came}"
    ));
}
