//! A year in lockstep: an instance and the model receive the same events, and must agree whenever something is due.
//!
//! Between two due times, all events are sent at once, at most one per client. A year thus takes as many steps as there
//! are due times, and each is met on its minute.

use super::observed::{Observed, Observer};
use super::rules::{Decided, Entry, Key, Model};
use super::timeline::{HOUR_MS, Timeline};
use super::world::World;
use foretell_events::policy::PolicyFact;
use foretell_events::{Event, Fact, zone};
use foretell_lab::source::draw::Sequence;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// Progress is printed after this many steps: a year on clusters takes an hour.
const STEPS_OF_A_SENTENCE: usize = 500;

/// The time per step if nothing is due.
const STRIDE_MS: i64 = 12 * HOUR_MS;

/// About how many steps a rival lasts.
const USURPED_STEPS: u64 = 6;

/// Faults, each once in this many steps.
pub struct Trouble {
    pub chance: Sequence,
    pub crash_every: u64,
    pub takeover_every: u64,
}

/// The result of a year.
pub struct Life {
    pub observed: Vec<Observed>,
    pub steps: usize,
    /// Client, appointment and step of reminders that were due and not announced.
    pub unsent: Vec<(Key, String, &'static str)>,
}

/// A year in progress.
pub struct Year<'a> {
    world: &'a mut World,
    model: Model,
    trouble: Trouble,
    observer: Observer,
    taken: Vec<usize>,
    observed: Vec<Observed>,
    steps: usize,
}

impl<'a> Year<'a> {
    pub fn new(world: &'a mut World, decided: Decided, trouble: Trouble) -> Self {
        let taken = vec![0; world.partitions()];
        Self {
            world,
            model: Model::new(decided),
            trouble,
            observer: Observer::default(),
            taken,
            observed: Vec::new(),
            steps: 0,
        }
    }

    /// Runs it; returns everything that was observed, or the first step at which the two disagree.
    pub async fn live(mut self, timeline: &Timeline) -> Result<Life, String> {
        let (mut rest, mut now_ms) = (timeline.events.as_slice(), timeline.begins_ms);
        self.world.hold().await;
        while now_ms < timeline.ends_ms {
            let (sent, later) = self.batch(rest, now_ms);
            if !sent.is_empty() {
                rest = later;
                now_ms = sent.last().map_or(now_ms, |event| event.envelope.time_ms);
                self.send(sent).await?;
                continue;
            }
            let until_ms = rest.first().map_or(timeline.ends_ms, |event| event.envelope.time_ms);
            match self.model.next_ms() {
                Some(due_ms) if due_ms < until_ms => {
                    now_ms = now_ms.max(due_ms);
                    self.pass(now_ms).await?;
                }
                Some(due_ms) if due_ms == until_ms && !rest.is_empty() => {
                    return Err(format!("of what happens and what is due at {due_ms} neither is the earlier"));
                }
                _ => now_ms = until_ms.min(now_ms + STRIDE_MS).max(now_ms + 1),
            }
        }
        // Nothing more is due: any further record would be a duplicate, or late.
        self.world.set(timeline.ends_ms - 1);
        self.world.fold().await;
        self.world.go_on();
        self.world.hold().await;
        self.compare(&[])?;
        let unsent = self.model.unsent(timeline.ends_ms - 1);
        Ok(Life { observed: self.observed, steps: self.steps, unsent })
    }

    /// The events before anything else is due, at most one per client.
    fn batch<'t>(&mut self, events: &'t [Event], now_ms: i64) -> (&'t [Event], &'t [Event]) {
        let mut end_ms = self.model.next_ms().unwrap_or(i64::MAX).min(now_ms + STRIDE_MS);
        let (mut count, mut clients) = (0, BTreeSet::new());
        for event in events {
            if let Fact::Policy(PolicyFact::Published(_)) = &event.fact {
                // Alone, because all clients of the tenant are checked.
                if count == 0 && event.envelope.time_ms < end_ms {
                    self.model.edited(&event.envelope.tenant, event.envelope.time_ms);
                    count = 1;
                }
                break;
            }
            let is_first = clients.insert((&event.envelope.tenant, event.fact.subject()));
            if event.envelope.time_ms >= end_ms || !is_first {
                break;
            }
            self.model.observe(event);
            end_ms = end_ms.min(self.model.next_of(event).unwrap_or(i64::MAX));
            count += 1;
        }
        events.split_at(count)
    }

    async fn send(&mut self, sent: &[Event]) -> Result<(), String> {
        let now_ms = sent.last().map_or(0, |event| event.envelope.time_ms);
        self.world.set(now_ms);
        self.world.append(sent).await;
        self.settle(now_ms).await
    }

    async fn pass(&mut self, now_ms: i64) -> Result<(), String> {
        self.world.set(now_ms);
        self.settle(now_ms).await
    }

    /// Lets planners check if something is due now, waits for it and compares. If nothing is, planners see the events
    /// at their next check, and have nothing to announce until then.
    async fn settle(&mut self, now_ms: i64) -> Result<(), String> {
        let due = self.model.due(now_ms);
        if due.is_empty() {
            return Ok(());
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_OF_A_SENTENCE) {
            let (now, steps, observed) = (zone::local(now_ms, &TimeZone::UTC), self.steps, self.observed.len());
            println!("{now}: {steps} steps, {observed} announced");
        }
        self.world.fold().await;
        self.world.go_on();
        self.disturb(due.len()).await;
        let waited = self.world.await_records(self.observed.len() + due.len()).await;
        self.world.hold().await;
        self.compare(&due).map_err(|difference| match waited {
            Ok(()) => difference,
            Err(late) => format!("{late}: {difference}"),
        })
    }

    fn compare(&mut self, due: &[Entry]) -> Result<(), String> {
        let records = self.world.take(&mut self.taken);
        let observed = records.iter().map(|record| self.observer.observe(record)).collect::<Result<Vec<_>, _>>()?;
        let mut announced: Vec<_> = observed.iter().map(|observed| observed.entry.clone()).collect();
        announced.sort();
        self.observed.extend(observed);
        if announced == due {
            return Ok(());
        }
        let missing: Vec<_> = due.iter().filter(|due| !announced.contains(due)).collect();
        let unexpected: Vec<_> = announced.iter().filter(|announced| !due.contains(announced)).collect();
        Err(format!("step {}: not announced {missing:#?}, announced and not due {unexpected:#?}", self.steps))
    }

    /// Injects a fault sometimes, such as a crash during announcements.
    async fn disturb(&mut self, due: usize) {
        let Trouble { chance, crash_every, takeover_every } = &mut self.trouble;
        if chance.below(*crash_every) == 0 {
            if due > 1 && chance.happens(0.5) {
                // The effect is visible in what the next process does.
                let _ = self.world.await_records(self.observed.len() + 1).await;
            }
            self.world.crash().await;
        } else if chance.below(*takeover_every) == 0 {
            self.world.usurp().await;
        } else if chance.below(USURPED_STEPS) == 0 {
            self.world.depose().await;
        }
    }
}
