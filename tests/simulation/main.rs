//! The equation under faults: seeded histories, a crash, error or delay at every await of a port, frozen members,
//! rebalances, repetitions, torn flushes. After each run every row must equal the pure fold of the log, and every
//! rejected record must have a dead letter.
//!
//! `SIMULATION_SEEDS=N` sets how many histories run, `SIMULATION_FROM=SEED` where they begin; a failure names its
//! seed. One seed is one run: same choices, same trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod faults;
mod history;
mod reminders;
mod world;

use faults::Protocol;

fn seeds() -> std::ops::Range<u64> {
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number of seeds"));
    let from = number("SIMULATION_FROM", 1);
    from..from + number("SIMULATION_SEEDS", 400)
}

#[test]
fn rows_equal_the_pure_fold_after_any_history_of_faults() {
    let mut injected = 0;
    for seed in seeds() {
        let run = world::run(seed, Protocol::Sound);
        assert_eq!(run.difference, None, "seed {seed}: {}", run.trace.join("\n"));
        injected += run.injected;
    }
    println!("injected {injected} faults, rows equal");
    assert!(injected > 1_000, "only {injected} faults were injected");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..6 {
        let (first, second) = (world::run(seed, Protocol::Sound).trace, world::run(seed, Protocol::Sound).trace);
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first[at], &second[at])), None, "seed {seed}, line {differs:?}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// The simulation can fail: each broken rule is noticed within a bounded number of seeds.
#[test]
fn broken_protocols_are_caught() {
    for broken in Protocol::BROKEN {
        let caught = (1..600).find(|seed| world::run(*seed, broken).difference.is_some());
        assert!(caught.is_some(), "{broken:?} went unnoticed in 600 histories");
        println!("{broken:?} was caught by seed {}", caught.unwrap_or(0));
    }
}

/// Reminders under faults: each id once, none for a visit that was off, none missing; and two planners that do not
/// wait for what they must are caught.
#[test]
fn reminders_are_announced_once_and_only_for_visits_that_are_on() {
    let (mut announced, mut due) = (0, 0);
    for seed in 1..101 {
        let run = reminders::run(seed, None);
        assert_eq!(run.difference, None, "seed {seed}: {}", run.trace.join("\n"));
        announced += run.announced;
        due += run.due;
    }
    println!("{announced} reminders, {due} of them due in fair weather");
    assert!(announced > 200 && due > 100, "only {announced} reminders, {due} in fair weather");
    assert_eq!(reminders::run(3, None).trace, reminders::run(3, None).trace, "one seed is one run");
    for blind in [foretell::event::Topic::Reminders, foretell::event::Topic::Appointments] {
        let caught = (1..60).find_map(|seed| reminders::run(seed, Some(blind)).difference);
        println!("{}: {caught:?}", blind.name());
        assert!(caught.is_some(), "a planner that does not wait for {} went unnoticed", blind.name());
    }
}
