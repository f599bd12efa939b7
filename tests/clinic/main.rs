//! A chain of clinics for a year, in compressed time: real logs and stores, views and planners as in production, and a
//! reference model that implements the rules independently.
//!
//! Every due reminder must be announced, once, on its minute; none for a visit that was cancelled by then, none in
//! quiet hours, none after the start, none an hour wrong; through crashes, and planners that do not know that another
//! one has acquired their partition. `FORETELL_CLINIC_APPOINTMENTS` sets how many appointments there are,
//! `FORETELL_CLINIC_DAYS` the days they are made in, `FORETELL_CLINIC_SEED` which ones, and `sabotage` breaks each
//! promise to see it caught.

#![allow(unreachable_pub, reason = "a test program has no public interface")]
#![allow(clippy::print_stdout, reason = "what a run was made of")]

#[path = "../shared/low.rs"]
mod low;
mod observed;
mod promises;
mod rules;
mod sabotage;
mod story;
mod timeline;
mod world;
mod year;

use foretell::app;
use foretell::config::{self, Config, Layers};
use foretell_events::appointment::{Channel, QuietHours};
use foretell_events::policy::{Kind, PolicyFact, Publication, Version};
use foretell_events::{Envelope, Event};
use foretell_lab::source::draw::Draw;
use promises::Held;
use rules::{Decided, Offset, Rules, Step};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use timeline::{HOUR_MS, JULY_MS, MINUTE_MS, OCTOBER_MS, Size, Timeline};
use world::{Manual, World};
use year::{Life, Trouble, Year};

fn set<T: std::str::FromStr>(variable: &str, default: T) -> T {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

fn step(id: &'static str, offset: Offset) -> Step {
    Step { id, offset, skips_confirmed: false }
}

fn quiet(from: u16, to: u16) -> QuietHours {
    QuietHours { from_minute: from * 60, to_minute: to * 60 }
}

/// The settings as the reference model reads them. No visit has a risk here, so no step depends on one.
fn rules() -> Rules {
    let first = Step { skips_confirmed: true, ..step("72h", Offset::Hours(72)) };
    Rules {
        steps: vec![first, step("24h", Offset::Hours(24))],
        quiet: quiet(21, 8),
        channels: vec![Channel::Sms],
        day_max: 4,
        is_grouped: true,
        notice_ms: 60 * MINUTE_MS,
    }
}

/// Policies that tenants publish within the year: when (share of the year), tenant, document, and the model's rules.
fn edits() -> Vec<(f64, &'static str, Value, Rules)> {
    let day_before = || step("24h", Offset::Hours(24));
    vec![
        // The offset of a step: earlier announcements under it remain.
        (
            0.1,
            "north",
            json!({"steps": [{"id": "72h", "before_hours": 96}, {"id": "24h", "before_hours": 24}]}),
            Rules { steps: vec![step("72h", Offset::Hours(96)), day_before()], ..rules() },
        ),
        // By the clock and the calendar; one per day, each visit separately.
        (
            0.25,
            "south",
            json!({
                "steps": [
                    {"id": "week", "before_days": 7}, {"id": "72h", "before_business_days": 3},
                    {"id": "24h", "before_days": 1},
                ],
                "client_day_reminders_max": 1, "group_same_day": false,
            }),
            Rules {
                steps: vec![
                    step("week", Offset::Days(7)),
                    step("72h", Offset::Weekdays(3)),
                    step("24h", Offset::Days(1)),
                ],
                day_max: 1,
                is_grouped: false,
                ..rules()
            },
        ),
        // Steps removed and added: a confirmation, and the hour before.
        (
            0.45,
            "north",
            json!({
                "steps": [
                    {"id": "booked", "at_booking": true}, {"id": "24h", "before_hours": 24},
                    {"id": "soon", "before_hours": 2},
                ],
                "notice_minutes_min": 0,
            }),
            Rules {
                steps: vec![step("booked", Offset::Booking), day_before(), step("soon", Offset::Hours(2))],
                notice_ms: 0,
                ..rules()
            },
        ),
        (
            0.6,
            "east",
            json!({
                "quiet_hours_default": {"from_minute": 20 * 60, "to_minute": 10 * 60}, "channels_default": ["email"],
                "client_day_reminders_max": 2,
            }),
            Rules { quiet: quiet(20, 10), channels: vec![Channel::Email], day_max: 2, ..rules() },
        ),
        // Back to the settings.
        (0.8, "north", json!({}), rules()),
    ]
}

/// The edits of a timeline, as events and as rules of the model.
fn publish(size: &Size, edits: Vec<(f64, &'static str, Value, Rules)>) -> (Vec<Event>, Decided) {
    let mut decided = Decided { base: rules(), edits: Vec::new() };
    let mut events = Vec::new();
    let mut versions: BTreeMap<&str, Vec<Version>> = BTreeMap::new();
    for (share, tenant, document, rules) in edits {
        let hours = (size.days as f64 * 24.0 * share) as i64;
        let time_ms = size.begin_ms + hours * HOUR_MS + 7 * MINUTE_MS;
        let (earlier, document) = (versions.entry(tenant).or_default(), document.to_string());
        let version = earlier.len() as u32 + 1;
        let kind = Kind::Reminders;
        let before = earlier.iter().rev().cloned().collect();
        let publication = Publication {
            kind,
            version,
            document: document.clone(),
            published_by: None,
            request: None,
            earlier: before,
        };
        earlier.push(Version { version, published_at_ms: time_ms, document, request: None });
        let id = format!("policy-{tenant}-{version}");
        let envelope = Envelope { id, source: "urn:clinic".into(), tenant: tenant.into(), time_ms };
        events.push(Event { envelope, fact: PolicyFact::Published(Box::new(publication)).into() });
        decided.edits.push((time_ms, tenant, rules));
    }
    (events, decided)
}

fn settings(over: &[(&str, String)]) -> Config {
    let environment = over.iter().map(|(key, value)| (format!("FORETELL__{key}"), value.clone())).collect();
    let mut config = config::load(Layers { environment, ..Layers::default() }).expect("usable settings");
    world::hurried(&mut config);
    config
}

fn in_directory(directory: &Path) -> Config {
    let url = format!("disk:{}", directory.display());
    settings(&[("LOG", url.clone()), ("STORE", url)])
}

/// Topics and a keyspace of their own on the clusters.
async fn on_clusters() -> Config {
    let service = |variable| {
        std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set: run this under `scripts/services up -k 1 -c 1 -- cargo test --test clinic`")
        })
    };
    let name = format!("clinic{}", uuid::Uuid::new_v4().simple());
    let config = settings(&[
        ("LOG", format!("kafka://{}", service("KAFKA_BROKERS"))),
        ("STORE", format!("cassandra://{}/{name}", service("CASSANDRA_NODES"))),
        ("TOPICS__PREFIX", format!("{name}.")),
        ("TOPICS__PARTITIONS", "4".into()),
        ("TOPICS__REPLICATION_FACTOR", "1".into()),
        ("TOPICS__MIN_INSYNC_REPLICAS", "1".into()),
        ("CASSANDRA__REPLICATION_FACTOR", "1".into()),
        ("KAFKA__SESSION_TIMEOUT_MS", "6000".into()),
    ]);
    app::migrate(&config).await.expect("topics and a schema");
    config
}

fn size(begin_ms: i64, days: i64, appointments: u64) -> Size {
    Size {
        seed: set("FORETELL_CLINIC_SEED", 1),
        appointments: set("FORETELL_CLINIC_APPOINTMENTS", appointments),
        begin_ms,
        days: set("FORETELL_CLINIC_DAYS", days),
    }
}

/// The result of a run.
struct Lived {
    steps: usize,
    crashes: usize,
    takeovers: usize,
    held: Held,
}

/// Runs a timeline, with a fault about every this many steps.
async fn live(
    config: Config,
    (size, edits): (Size, Vec<(f64, &'static str, Value, Rules)>),
    (crashes, takeovers): (u64, u64),
) -> Result<Lived, String> {
    let (published, decided) = publish(&size, edits);
    let timeline = Timeline::of(size).and(published);
    // With as many steps as there are hours, or events if they are fewer.
    let steps = (size.days as u64 * 24).min(timeline.events.len() as u64);
    let trouble = Trouble {
        chance: Draw::new(size.seed).sequence(9, 0),
        crash_every: (steps / crashes.max(1)).max(1),
        takeover_every: (steps / takeovers.max(1)).max(1),
    };
    let began = Instant::now();
    let mut world = World::start(config, Manual::at(size.begin_ms)).await;
    let lived = Year::new(&mut world, decided.clone(), trouble).live(&timeline).await;
    let (crashes, takeovers) = (world.crashes, world.takeovers);
    let Life { observed, steps, unsent } = lived?;
    let mut held = promises::hold(&timeline.events, &observed, &decided)?;
    held.with_a_reason = story::explained(&world.api(), &unsent).await?;
    world.stop().await;
    let (events, took) = (timeline.events.len(), began.elapsed());
    println!(
        "{} appointments, {events} events, {steps} steps, {crashes} crashes and {takeovers} takeovers in {took:?}: {held:?}",
        size.appointments
    );
    Ok(Lived { steps, crashes, takeovers, held })
}

/// Asserts that a run covered what it should, with this many appointments.
fn assert_full(lived: &Lived, appointments: u64) {
    let all = appointments as usize;
    let Held { announced, by_hand, withdrawn, on_the_minute, after_quiet_hours, to_clients_abroad, .. } = lived.held;
    let Held { of_several_visits, at_booking, by_edited_rules, .. } = lived.held;
    assert!(announced > all / 2 && on_the_minute > all / 3 && withdrawn > all / 50, "{:?}", lived.held);
    assert!(by_hand > all / 200 && after_quiet_hours > all / 200 && to_clients_abroad > all / 100, "{:?}", lived.held);
    assert!(of_several_visits > all / 200 && at_booking > all / 50 && by_edited_rules > all / 5, "{:?}", lived.held);
    assert!(lived.held.with_a_reason > 100, "{:?}", lived.held);
    assert!(lived.crashes > 2 && lived.takeovers > 2 && lived.steps > 100, "{} {}", lived.crashes, lived.takeovers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_in_a_directory_keeps_every_promise_through_crashes_and_takeovers() {
    let size = size(JULY_MS, 365, 20_000);
    let directory = tempfile::tempdir().expect("a directory");
    let lived = Box::pin(live(in_directory(directory.path()), (size, edits()), (20, 20))).await;
    assert_full(&lived.unwrap_or_else(|broken| panic!("{broken}")), size.appointments);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_season_in_memory_keeps_every_promise_through_crashes_and_takeovers() {
    let size = size(OCTOBER_MS, 90, 3_000);
    let config = settings(&[("LOG", "memory:season".into()), ("STORE", "memory:season".into())]);
    let lived = Box::pin(live(config, (size, edits()), (20, 20))).await;
    assert_full(&lived.unwrap_or_else(|broken| panic!("{broken}")), size.appointments);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autumn_on_clusters_keeps_every_promise_through_crashes_and_takeovers() {
    let size = size(OCTOBER_MS, 21, 500);
    let days = size.days as u64;
    let lived = Box::pin(live(on_clusters().await, (size, edits()), (8 + days / 12, 10 + days / 8))).await;
    assert_full(&lived.unwrap_or_else(|broken| panic!("{broken}")), size.appointments);
}
