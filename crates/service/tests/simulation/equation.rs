//! What must hold after every run: rows are the fold of the log, and each rejected record has exactly one dead letter.

use foretell_domain::address::{Generation, RowKey};
use foretell_domain::dead::resolution::{Resolution, ResolutionRecord};
use foretell_domain::dead::{Identity, Letter, original_headers};
use foretell_domain::view::cell::Cell;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::{Fold, RecordPosition};
use foretell_events::record::Record;
use foretell_events::{Event, Position, Topic, codec};
use foretell_ports::log::memory::Log as MemoryLog;
use foretell_ports::store::memory::Store as MemoryStore;
use std::collections::{BTreeMap, HashSet};

/// Prefix of topic names in letters.
pub const PREFIX: &str = "foretell.";

/// All records of a topic, partition by partition.
pub fn records(log: &MemoryLog, topic: Topic) -> Vec<Record> {
    let partitions = foretell_ports::log::Log::partitions(log, topic);
    (0..partitions).flat_map(|partition| log.records(topic, partition).unwrap()).collect()
}

/// A topic as a fold reads it: decoded once, because decoding takes most of a run's time.
pub struct Facts {
    /// The events that can be folded, partition by partition.
    events: Vec<(RecordPosition, Event)>,
    /// The records that cannot be folded.
    rejected: Vec<Record>,
}

impl Facts {
    pub fn of(log: &MemoryLog, topic: Topic) -> Self {
        let partitions = foretell_ports::log::Log::partitions(log, topic);
        let mut facts = Self { events: Vec::new(), rejected: Vec::new() };
        for record in records(log, topic) {
            let Position { partition, offset, .. } = record.position;
            let event = codec::decode(&record).and_then(|event| {
                codec::check_record(&event, &record, partitions)?;
                Ok(event)
            });
            match event {
                Ok(event) => facts.events.push((RecordPosition { partition, offset }, event)),
                Err(_) => facts.rejected.push(record),
            }
        }
        facts
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|(_, event)| event)
    }

    fn at(&self, place: RecordPosition) -> Option<&Event> {
        let key = |place: RecordPosition| (place.partition, place.offset);
        let found = self.events.binary_search_by_key(&key(place), |(place, _)| key(*place));
        found.ok().map(|at| &self.events[at].1)
    }

    /// The fold of the events that `below` selects.
    pub fn fold<F: Fold>(&self, fold: F, below: impl Fn(RecordPosition) -> bool) -> Materialized<F> {
        let mut pure = Materialized::new(fold);
        for (place, event) in self.events.iter().filter(|(place, _)| below(*place)) {
            pure.take(event, *place);
        }
        pure
    }
}

/// How many rows were compared, or the first one that is not the fold of the log.
pub fn rows<F: Fold>(facts: &Facts, store: &MemoryStore, fold: F, of: Generation) -> Result<usize, String> {
    let pure = facts.fold(fold, |_| true);
    let stored = store.rows(of).into_iter().map(|(key, row)| {
        let source = (key.view != F::OWNER).then_some(row.source);
        ((key, source), Cell::decode(&row.cell).unwrap().state.to_vec())
    });
    let stored: BTreeMap<(RowKey, Option<u32>), Vec<u8>> = stored.collect();
    let wanted: BTreeMap<_, _> = pure.states().map(|(key, source, state)| ((key.clone(), source), state)).collect();
    let differs = stored.keys().chain(wanted.keys()).find(|key| stored.get(*key) != wanted.get(*key));
    differs.map_or(Ok(wanted.len()), |key| {
        Err(format!("{key:?}: stored {:?}, wanted {:?}", stored.get(key), wanted.get(key)))
    })
}

/// How many records of a topic were rejected, or the first one without exactly one letter. Copies have equal identities
/// and count as one; a letter has key, value and headers of its record.
pub fn letters(facts: &Facts, log: &MemoryLog, topic: Topic) -> Result<usize, String> {
    let rejected = facts.rejected.iter().map(|record| (record.position, (record, HashSet::new())));
    let mut rejected: BTreeMap<Position, (&Record, HashSet<Identity>)> = rejected.collect();
    for kept in records(log, Topic::DeadLetters) {
        let Some(letter) = Letter::read(&kept) else { continue };
        let position = Position { topic, partition: letter.source.partition, offset: letter.source.offset };
        let of = rejected.get_mut(&position).filter(|_| letter.source.topic == format!("{PREFIX}{}", topic.name()));
        let Some((record, identities)) = of else {
            return Err(format!("the letter {} is of a record that was not rejected", letter.source));
        };
        let is_whole = kept.key == record.key
            && kept.value == record.value
            && original_headers(&kept.headers).eq(original_headers(&record.headers));
        if !is_whole {
            return Err(format!("the letter of {} is not its record", letter.source));
        }
        identities.insert(letter.identity());
    }
    match rejected.iter().find(|(_, (_, identities))| identities.len() != 1) {
        Some((position, (_, identities))) => Err(format!("{position:?} has {} different letters", identities.len())),
        None => Ok(rejected.len()),
    }
}

/// How many letters were redriven, or the first wrong resolution record: a redriven event is the same event however
/// often it was redriven, and it can be folded.
pub fn redriven(facts: &Facts, log: &MemoryLog) -> Result<usize, String> {
    let mut sent: BTreeMap<(u32, i64), (&str, &str)> = BTreeMap::new();
    for mark in records(log, Topic::DeadLetters).iter().filter_map(ResolutionRecord::read) {
        let Resolution::Redriven { to } = &mark.resolution else { continue };
        let Some(event) = facts.at(RecordPosition { partition: to.partition, offset: to.offset }) else {
            return Err(format!("{mark:?} names a record that cannot be folded"));
        };
        let id = (event.envelope.source.as_str(), event.envelope.id.as_str());
        let first = *sent.entry((mark.source.partition, mark.source.offset)).or_insert(id);
        if first != id {
            return Err(format!("{mark:?}: sent as {first:?} before, and as {id:?} now"));
        }
    }
    Ok(sent.len())
}
