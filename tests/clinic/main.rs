//! A chain of clinics for a year, in compressed time: real logs and stores, views and planners as in production, and a
//! witness who states the rules anew.
//!
//! Every reminder that was due must be announced, once, on its minute; none for a visit that was off by then, none in
//! quiet hours, none after the start, none an hour wrong; through crashes, and planners that do not know that somebody
//! has taken over. `FORETELL_CLINIC_APPOINTMENTS` sets how many appointments there are, `FORETELL_CLINIC_DAYS` how many
//! days they are made in, `FORETELL_CLINIC_SEED` which ones.

#![allow(unreachable_pub, reason = "a test program has no public interface")]
#![allow(clippy::print_stdout, reason = "what a run was made of")]

mod heard;
mod promises;
mod rules;
mod timeline;
mod world;
mod year;

use foretell::config::{self, Config, Layers};
use foretell::event::appointment::{Channel, QuietHours};
use foretell::source::draw::Draw;
use promises::Held;
use rules::{Rules, Step};
use std::time::Instant;
use timeline::{BEGIN_MS, Size, Timeline};
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

/// What came of a run.
#[derive(Debug)]
struct Lived {
    events: usize,
    steps: usize,
    crashes: usize,
    takeovers: usize,
    held: Held,
}

async fn live(config: Config, size: Size, (crash_every, takeover_every): (u64, u64)) -> Result<Lived, String> {
    let timeline = Timeline::of(size);
    let mut world = World::start(config, Manual::at(BEGIN_MS)).await;
    let trouble = Trouble { chance: Draw::new(size.seed).sequence(9, 0), crash_every, takeover_every };
    let lived = Year::new(&mut world, rules(), trouble).live(&timeline).await;
    let (crashes, takeovers) = (world.crashes, world.takeovers);
    let (heard, steps) = lived?;
    let held = promises::hold(&timeline.events, &heard, &rules())?;
    world.stop().await;
    Ok(Lived { events: timeline.events.len(), steps, crashes, takeovers, held })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_in_a_directory_keeps_every_promise_through_crashes_and_takeovers() {
    let size = Size {
        seed: set("FORETELL_CLINIC_SEED", 1),
        appointments: set("FORETELL_CLINIC_APPOINTMENTS", 20_000),
        days: set("FORETELL_CLINIC_DAYS", 365),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("disk:{}", directory.path().display());
    let config = settings(&[("LOG", url.clone()), ("STORE", url)]);
    let began = Instant::now();
    let lived = live(config, size, (400, 300)).await.unwrap_or_else(|broken| panic!("{broken}"));
    println!("{lived:#?} in {:?}", began.elapsed());
    let Held { announced, by_hand, withdrawn, on_the_minute, after_quiet_hours, to_clients_abroad } = lived.held;
    let all = size.appointments as usize;
    assert!(announced > all / 3 && on_the_minute > all / 4 && withdrawn > all / 50, "{lived:?}");
    assert!(by_hand > all / 200 && after_quiet_hours > all / 200 && to_clients_abroad > all / 100, "{lived:?}");
    assert!(lived.crashes > 2 && lived.takeovers > 2, "{lived:?}");
}
