//! Where letters are looked for and acted upon: the thin part that reads and appends.
//!
//! A partition of the topic is read twice, up to where it ended when the work began: once for the marks, which stand
//! behind their letters, and once for the letters. So only what is known of them is held, never the letters, and
//! what a redrive appends is not met again. All of it is safe to repeat: what has a mark is left alone, and what lost
//! its mark in a crash is sent again as the same event.

use foretell_domain::dead::asked::{Action, Asked, Deed, RATE_MAX, Redrive, Run, Scope, Summary, Told};
use foretell_domain::dead::mark::{Fate, Mark};
use foretell_domain::dead::repair::{Terms, repair};
use foretell_domain::dead::show::{Listed, Shown, State, shown};
use foretell_domain::dead::{Address, Id, Identity, Letter};
use foretell_events::codec::rfc3339;
use foretell_events::record::Record;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{self, Extent, Log, record_at};
use foretell_telemetry::meter;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

const OPERATION: &str = "work on dead letters";
/// Marks, and letters that are meant, of one partition that are held at once: each is some 60 bytes.
const HELD_MAX: usize = 1_000_000;

/// The way to the letters.
#[derive(Clone)]
pub struct Desk {
    /// Where they are.
    pub log: Arc<dyn Log>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
}

/// Works in the background; what is told arrives here, and the work ends when the receiver is dropped.
pub fn spawn(desk: Desk, asked: Asked) -> mpsc::Receiver<Told> {
    let (told, listening) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut work = Work { pace: pace(&asked.action), desk, asked, told, summary: Summary::default() };
        let last = match work.run().await {
            Ok(()) => Told::Done(work.summary),
            Err(error) => Told::Failed { detail: error.to_string() },
        };
        // Nobody may be listening any more.
        let _ = work.told.send(last).await;
    });
    listening
}

fn pace(action: &Action) -> Option<Interval> {
    let Action::Redrive(Redrive { run: Run::Real, rate, .. }) = action else { return None };
    let mut pace = interval(Duration::from_secs(1) / (*rate).clamp(1, RATE_MAX));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(pace)
}

impl Desk {
    /// All of a letter; none where there is none.
    pub async fn show(&self, id: Id) -> Result<Option<Shown>, Error> {
        if id.partition >= self.log.partitions(Topic::DeadLetters) {
            return Ok(None);
        }
        let Some(record) = record_at(self.log.as_ref(), Topic::DeadLetters, id.partition, id.offset).await? else {
            return Ok(None);
        };
        let Some(letter) = Letter::read(&record) else { return Ok(None) };
        let closed = self.closed(id.partition).await?.1.get(&letter.identity()).copied();
        let mark = match closed {
            None => None,
            Some(Closed { mark, .. }) => {
                let mark = record_at(self.log.as_ref(), Topic::DeadLetters, mark.partition, mark.offset).await?;
                mark.as_ref().and_then(Mark::read)
            }
        };
        let source = self
            .topic(&letter.source.topic)
            .map(|(topic, epoch)| (topic, (epoch == self.log.epoch(topic)).then(|| self.log.partitions(topic))));
        let content = self.content(&letter, record.clone()).await?;
        Ok(Some(shown(&letter, &record, &content, source, mark)))
    }

    /// The letter's record, or that at its source where the letter leaves the value out.
    async fn content(&self, letter: &Letter, record: Record) -> Result<Record, Error> {
        let Address { topic, partition, offset } = &letter.source;
        // At the same place in a topic of another epoch stands another record.
        let is_there =
            |(topic, epoch): &(Topic, u8)| *epoch == self.log.epoch(*topic) && *partition < self.log.partitions(*topic);
        let topic = self.topic(topic).filter(is_there).filter(|_| letter.omitted_bytes.is_some());
        let Some((topic, _)) = topic else { return Ok(record) };
        let source = record_at(self.log.as_ref(), topic, *partition, *offset).await?;
        Ok(source.unwrap_or(record))
    }

    /// The topic of a full name, and its epoch.
    fn topic(&self, full: &str) -> Option<(Topic, u8)> {
        let (full, epoch) = foretell_events::topic::without_epoch(full);
        let name = full.strip_prefix(&self.topic_prefix)?;
        Topic::ALL.into_iter().find(|topic| topic.name() == name).map(|topic| (topic, epoch))
    }

    fn name(&self, topic: Topic) -> String {
        log::present_name(self.log.as_ref(), &self.topic_prefix, topic)
    }

    /// The extent of a partition, and what in it has a mark; of several marks the first says what was done.
    async fn closed(&self, partition: u32) -> Result<(Extent, HashMap<Identity, Closed>), Error> {
        let extent = self.log.extent(Topic::DeadLetters, partition).await?;
        let mut closed = HashMap::new();
        let mut walk = walk(self.log.as_ref(), partition, extent).await?;
        while let Some(records) = walk.next().await? {
            for record in records {
                let Some(mark) = Mark::read(&record) else { continue };
                let state = if mark.fate == Fate::Dropped { State::Dropped } else { State::Redriven };
                closed.entry(mark.identity()).or_insert(Closed { state, mark: record.position.into() });
                bounded(closed.len(), partition)?;
            }
        }
        Ok((extent, closed))
    }

    /// Appends a mark behind what it tells.
    async fn mark(&self, letter: &Letter, record: &Record, fate: Fate, reason: Option<String>) -> Result<(), Error> {
        let (id, at) = (Id::from(record.position), rfc3339(self.clock.now_ms()));
        let mark = Mark::of(letter, id, fate, at, reason);
        self.log.append(vec![mark.record(record.key.clone())]).await?;
        let (outcome, reason) = (mark.fate.name(), mark.reason.as_deref());
        meter::dead_letter_closed(outcome);
        tracing::info!(letter = %id, outcome, reason, "closed a dead letter");
        Ok(())
    }
}

/// What a mark says of a letter, as briefly as it can be kept.
#[derive(Debug, Clone, Copy)]
struct Closed {
    state: State,
    mark: Id,
}

fn bounded(held: usize, partition: u32) -> Result<(), Error> {
    if held <= HELD_MAX {
        return Ok(());
    }
    let detail = format!("more than {HELD_MAX} in partition {partition}: name a topic, a code, a key or a time");
    Err(Error::reject(OPERATION, detail))
}

/// A walk over the letters of a partition.
async fn walk(log: &dyn Log, partition: u32, extent: Extent) -> Result<Walk, Error> {
    Walk::begin(log, Topic::DeadLetters, partition, extent, OPERATION).await
}

/// One piece of work under way.
struct Work {
    desk: Desk,
    asked: Asked,
    told: mpsc::Sender<Told>,
    summary: Summary,
    pace: Option<Interval>,
}

impl Work {
    async fn run(&mut self) -> Result<(), Error> {
        let mut missing = self.asked.filter.ids.clone();
        for partition in 0..self.desk.log.partitions(Topic::DeadLetters) {
            if self.asked.filter.concerns(partition) && !self.summary.more {
                self.partition(partition, &mut missing).await?;
            }
        }
        if !self.summary.more {
            for id in missing {
                self.tell(Told::Missing(id)).await?;
            }
        }
        Ok(())
    }

    async fn partition(&mut self, partition: u32, missing: &mut BTreeSet<Id>) -> Result<(), Error> {
        let (extent, closed) = self.desk.closed(partition).await?;
        let mut walk = walk(self.desk.log.as_ref(), partition, extent).await?;
        let mut seen = HashSet::new();
        while let Some(records) = walk.next().await? {
            for record in records {
                let Some(letter) = Letter::read(&record) else { continue };
                let id = record.position.into();
                missing.remove(&id);
                if !self.asked.filter.matches(id, &letter, record.key.as_deref()) {
                    continue;
                }
                let state = closed.get(&letter.identity()).map_or(State::Open, |closed| closed.state);
                if !self.is_wanted(state) || !seen.insert(letter.identity()) {
                    continue;
                }
                bounded(seen.len(), partition)?;
                if self.summary.letters >= self.asked.limit as u64 {
                    self.summary.more = true;
                    return Ok(());
                }
                self.letter(&letter, record, state).await?;
            }
        }
        Ok(())
    }

    /// Closed letters are passed over, save by a list of all, and where they were named one by one.
    fn is_wanted(&self, state: State) -> bool {
        state == State::Open || self.asked.action == Action::List(Scope::All) || !self.asked.filter.ids.is_empty()
    }

    async fn letter(&mut self, letter: &Letter, record: Record, state: State) -> Result<(), Error> {
        let listed = Box::new(Listed::new(letter, &record, state));
        let action = self.asked.action.clone();
        let deed = match (action, state) {
            (Action::List(_), _) => Deed::Listed,
            (_, State::Redriven) => refused("it was redriven before; `show` says when and why"),
            (_, State::Dropped) => refused("it was dropped before; `show` says when and why"),
            (Action::Drop { run: Run::Dry, .. }, State::Open) => Deed::WouldDrop,
            (Action::Drop { run: Run::Real, reason }, State::Open) => {
                self.desk.mark(letter, &record, Fate::Dropped, Some(reason)).await?;
                Deed::Dropped
            }
            (Action::Redrive(asked), State::Open) => self.redrive(letter, record, &asked).await?,
        };
        self.summary.letters += 1;
        self.summary.refused += u64::from(matches!(deed, Deed::Refused { .. }));
        self.tell(Told::Letter { letter: listed, deed }).await
    }

    async fn redrive(&mut self, letter: &Letter, record: Record, asked: &Redrive) -> Result<Deed, Error> {
        let content = self.desk.content(letter, record.clone()).await?;
        let now_ms = self.desk.clock.now_ms();
        let terms = Terms { patch: asked.patch.as_ref(), attempts_max: asked.attempts_max, now_ms };
        let (new, dropped) = match repair(letter, &content, &terms) {
            Ok(new) => new,
            Err(refusal) => return Ok(refused(refusal.to_string())),
        };
        let family = new.topic.name();
        let topic = self.desk.name(new.topic);
        if asked.run == Run::Dry {
            let key = String::from_utf8_lossy(new.key.as_deref().unwrap_or_default()).into_owned();
            return Ok(Deed::WouldRedrive { topic, key, dropped });
        }
        if let Some(pace) = &mut self.pace {
            pace.tick().await;
        }
        let positions = self.desk.log.append(vec![new]).await?;
        let Some(&Position { partition, offset, .. }) = positions.first() else {
            return Err(Error::fatal(OPERATION, "an append answered without a position"));
        };
        meter::fields_dropped(family, dropped);
        let to = Address { topic, partition, offset };
        self.desk.mark(letter, &record, Fate::Redriven { to: to.clone() }, asked.reason.clone()).await?;
        Ok(Deed::Redriven { to, dropped })
    }

    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.told.send(told).await.map_err(|_| Error::reject(OPERATION, "nobody listens any more"))
    }
}

fn refused(detail: impl Into<String>) -> Deed {
    Deed::Refused { detail: detail.into() }
}
