//! A year in lockstep: an instance and the model hear the same, and whenever something is due both must say the same.
//!
//! Between two instants at which something is due, all that happens is said at once, of each client one thing at a time.
//! So a year takes as many steps as it has instants at which somebody is reminded, and each is met on its minute.

use super::heard::{Ear, Heard};
use super::rules::{Decided, Key, Model, Told};
use super::timeline::{HOUR_MS, Timeline};
use super::world::World;
use foretell_events::{Event, Fact, zone};
use foretell_lab::source::draw::Sequence;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// After so many steps it is said how far it is: a year on clusters takes an hour.
const STEPS_OF_A_SENTENCE: usize = 500;

/// Without anything due, so much time passes at a time.
const STRIDE_MS: i64 = 12 * HOUR_MS;

/// About as many steps does a usurper last.
const USURPED_STEPS: u64 = 6;

/// What goes wrong meanwhile, each once in so many steps.
pub struct Trouble {
    pub chance: Sequence,
    pub crash_every: u64,
    pub takeover_every: u64,
}

/// What came of a year.
pub struct Life {
    pub heard: Vec<Heard>,
    pub steps: usize,
    /// Client, appointment and step of what was due and not announced.
    pub unsent: Vec<(Key, String, &'static str)>,
}

/// A year under way.
pub struct Year<'a> {
    world: &'a mut World,
    model: Model,
    trouble: Trouble,
    ear: Ear,
    taken: Vec<usize>,
    heard: Vec<Heard>,
    steps: usize,
}

impl<'a> Year<'a> {
    pub fn new(world: &'a mut World, decided: Decided, trouble: Trouble) -> Self {
        let taken = vec![0; world.partitions()];
        Self { world, model: Model::new(decided), trouble, ear: Ear::default(), taken, heard: Vec::new(), steps: 0 }
    }

    /// Lives through it; answers everything that was heard, or the first step at which the two disagree.
    pub async fn live(mut self, timeline: &Timeline) -> Result<Life, String> {
        let (mut rest, mut now_ms) = (timeline.events.as_slice(), timeline.begins_ms);
        self.world.hold().await;
        while now_ms < timeline.ends_ms {
            let (said, later) = self.batch(rest, now_ms);
            if !said.is_empty() {
                rest = later;
                now_ms = said.last().map_or(now_ms, |event| event.envelope.time_ms);
                self.say(said).await?;
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
        // Nothing more is due: what is there all the same was done twice, or late.
        self.world.set(timeline.ends_ms - 1);
        self.world.fold().await;
        self.world.go_on();
        self.world.hold().await;
        self.compare(&[])?;
        let unsent = self.model.unsent(timeline.ends_ms - 1);
        Ok(Life { heard: self.heard, steps: self.steps, unsent })
    }

    /// What is said before anything else is due, of each client one thing.
    fn batch<'t>(&mut self, events: &'t [Event], now_ms: i64) -> (&'t [Event], &'t [Event]) {
        let mut end_ms = self.model.next_ms().unwrap_or(i64::MAX).min(now_ms + STRIDE_MS);
        let (mut count, mut clients) = (0, BTreeSet::new());
        for event in events {
            if let Fact::PolicyPublished(_) = &event.fact {
                // By itself: everybody of the tenant is looked at.
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
            self.model.hear(event);
            end_ms = end_ms.min(self.model.next_of(event).unwrap_or(i64::MAX));
            count += 1;
        }
        events.split_at(count)
    }

    async fn say(&mut self, said: &[Event]) -> Result<(), String> {
        let now_ms = said.last().map_or(0, |event| event.envelope.time_ms);
        self.world.set(now_ms);
        self.world.append(said).await;
        self.settle(now_ms).await
    }

    async fn pass(&mut self, now_ms: i64) -> Result<(), String> {
        self.world.set(now_ms);
        self.settle(now_ms).await
    }

    /// Lets planners look where something is due now, waits for it and compares. Where nothing is, they see what was
    /// said when they look next, and had nothing to say of it meanwhile.
    async fn settle(&mut self, now_ms: i64) -> Result<(), String> {
        let due = self.model.due(now_ms);
        if due.is_empty() {
            return Ok(());
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_OF_A_SENTENCE) {
            let (now, steps, heard) = (zone::local(now_ms, &TimeZone::UTC), self.steps, self.heard.len());
            println!("{now}: {steps} steps, {heard} announced");
        }
        self.world.fold().await;
        self.world.go_on();
        self.disturb(due.len()).await;
        let waited = self.world.told(self.heard.len() + due.len()).await;
        self.world.hold().await;
        self.compare(&due).map_err(|difference| match waited {
            Ok(()) => difference,
            Err(late) => format!("{late}: {difference}"),
        })
    }

    fn compare(&mut self, due: &[Told]) -> Result<(), String> {
        let records = self.world.take(&mut self.taken);
        let heard = records.iter().map(|record| self.ear.hear(record)).collect::<Result<Vec<_>, _>>()?;
        let mut told: Vec<_> = heard.iter().map(|heard| heard.told.clone()).collect();
        told.sort();
        self.heard.extend(heard);
        if told == due {
            return Ok(());
        }
        let missing: Vec<_> = due.iter().filter(|due| !told.contains(due)).collect();
        let unasked: Vec<_> = told.iter().filter(|told| !due.contains(told)).collect();
        Err(format!("step {}: not announced {missing:#?}, announced and not due {unasked:#?}", self.steps))
    }

    /// Something may go wrong, a crash in the midst of what is announced.
    async fn disturb(&mut self, due: usize) {
        let Trouble { chance, crash_every, takeover_every } = &mut self.trouble;
        if chance.below(*crash_every) == 0 {
            if due > 1 && chance.happens(0.5) {
                // What comes of it is seen by what the next process makes of it.
                let _ = self.world.told(self.heard.len() + 1).await;
            }
            self.world.crash().await;
        } else if chance.below(*takeover_every) == 0 {
            self.world.usurp().await;
        } else if chance.below(USURPED_STEPS) == 0 {
            self.world.depose().await;
        }
    }
}
