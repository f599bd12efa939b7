//! A chain of clinics for a year, in compressed time: real logs and stores, views and planners as in production, and a
//! witness who states the rules anew.
//!
//! Every reminder that was due must be announced, once, on its minute; none for a visit that was off by then, none in
//! quiet hours, none after the start, none an hour wrong; through crashes, and planners that do not know that somebody
//! has taken over. `FORETELL_CLINIC_APPOINTMENTS` sets how many appointments there are, `FORETELL_CLINIC_DAYS` how many
//! days they are made in, `FORETELL_CLINIC_SEED` which ones, and `sabotage` breaks each promise to see it caught.

#![allow(unreachable_pub, reason = "a test program has no public interface")]
#![allow(clippy::print_stdout, reason = "what a run was made of")]

mod heard;
mod promises;
mod rules;
mod sabotage;
mod timeline;
mod world;
mod year;

use foretell::app;
use foretell::config::{self, Config, Layers};
use foretell::event::appointment::{Channel, QuietHours};
use foretell::source::draw::Draw;
use promises::Held;
use rules::{Rules, Step};
use std::path::Path;
use std::time::Instant;
use timeline::{JULY_MS, OCTOBER_MS, Size, Timeline};
use world::{Manual, World};
use year::{Trouble, Year};

fn set<T: std::str::FromStr>(variable: &str, default: T) -> T {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// What the settings say, as the witness understands them.
fn rules() -> Rules {
    let hours = |id, before_hours| Step { id, before_hours };
    Rules {
        steps: vec![hours("72h", 72), hours("24h", 24)],
        quiet: QuietHours { from_minute: 21 * 60, to_minute: 8 * 60 },
        channels: vec![Channel::Sms],
    }
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

/// What came of a run.
struct Lived {
    steps: usize,
    crashes: usize,
    takeovers: usize,
    held: Held,
}

/// Lives through a timeline; something goes wrong about so often.
async fn live(config: Config, size: Size, (crashes, takeovers): (u64, u64)) -> Result<Lived, String> {
    let timeline = Timeline::of(size);
    // Of as many steps as there are hours, or events where they are fewer.
    let steps = (size.days as u64 * 24).min(timeline.events.len() as u64);
    let trouble = Trouble {
        chance: Draw::new(size.seed).sequence(9, 0),
        crash_every: (steps / crashes.max(1)).max(1),
        takeover_every: (steps / takeovers.max(1)).max(1),
    };
    let began = Instant::now();
    let mut world = World::start(config, Manual::at(size.begin_ms)).await;
    let lived = Year::new(&mut world, rules(), trouble).live(&timeline).await;
    let (crashes, takeovers) = (world.crashes, world.takeovers);
    let (heard, steps) = lived?;
    world.stop().await;
    let held = promises::hold(&timeline.events, &heard, &rules())?;
    let (events, took) = (timeline.events.len(), began.elapsed());
    println!(
        "{} appointments, {events} events, {steps} steps, {crashes} crashes and {takeovers} takeovers in {took:?}: {held:?}",
        size.appointments
    );
    Ok(Lived { steps, crashes, takeovers, held })
}

/// That what was lived through was a life, of so many appointments.
fn assert_full(lived: &Lived, appointments: u64) {
    let all = appointments as usize;
    let Held { announced, by_hand, withdrawn, on_the_minute, after_quiet_hours, to_clients_abroad } = lived.held;
    assert!(announced > all / 3 && on_the_minute > all / 4 && withdrawn > all / 50, "{:?}", lived.held);
    assert!(by_hand > all / 200 && after_quiet_hours > all / 200 && to_clients_abroad > all / 100, "{:?}", lived.held);
    assert!(lived.crashes > 2 && lived.takeovers > 2 && lived.steps > 100, "{} {}", lived.crashes, lived.takeovers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_in_a_directory_keeps_every_promise_through_crashes_and_takeovers() {
    let size = size(JULY_MS, 365, 20_000);
    let directory = tempfile::tempdir().expect("a directory");
    let lived = live(in_directory(directory.path()), size, (40, 40)).await;
    assert_full(&lived.unwrap_or_else(|broken| panic!("{broken}")), size.appointments);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_on_clusters_keeps_every_promise_through_crashes_and_takeovers() {
    let size = size(OCTOBER_MS, 30, 2_000);
    let lived = live(on_clusters().await, size, (5, 8)).await;
    assert_full(&lived.unwrap_or_else(|broken| panic!("{broken}")), size.appointments);
}
