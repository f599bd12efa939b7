//! What must hold after a run, whatever happened in it: rows are the fold of the log, and each rejected record has
//! one dead letter.

use foretell::dead::mark::{Fate, Mark};
use foretell::dead::{Identity, Letter, untouched};
use foretell::event::{Event, Position, Topic, codec};
use foretell::log::Record;
use foretell::log::memory::Log as MemoryLog;
use foretell::store::memory::Store as MemoryStore;
use foretell::store::{Generation, RowKey};
use foretell::view::cell::Cell;
use foretell::view::materialized::Materialized;
use foretell::view::{Fold, Place};
use std::collections::{BTreeMap, HashSet};

/// Prefix of topic names in letters.
pub const PREFIX: &str = "foretell.";

/// All records of a topic, partition by partition.
pub fn records(log: &MemoryLog, topic: Topic) -> Vec<Record> {
    let partitions = foretell::log::Log::partitions(log, topic);
    (0..partitions).flat_map(|partition| log.records(topic, partition).unwrap()).collect()
}

/// The event of a record, if it is one that can be folded.
fn accepted(record: &Record, partitions: u32) -> Option<Event> {
    let event = codec::decode(record).ok()?;
    codec::check_record(&event, record, partitions).ok()?;
    Some(event)
}

/// The events of a topic, each with its place, partition by partition.
pub type Events = Vec<(Place, Event)>;

/// The events of a topic that can be folded.
pub fn events(log: &MemoryLog, topic: Topic) -> Events {
    let partitions = foretell::log::Log::partitions(log, topic);
    let event = |record: &Record| {
        let Position { partition, offset, .. } = record.position;
        accepted(record, partitions).map(|event| (Place { partition, offset }, event))
    };
    records(log, topic).iter().filter_map(event).collect()
}

/// The fold of those events that `below` names.
pub fn fold<F: Fold>(fold: F, events: &Events, below: impl Fn(Place) -> bool) -> Materialized<F> {
    let mut pure = Materialized::new(fold);
    for (place, event) in events.iter().filter(|(place, _)| below(*place)) {
        pure.take(event, *place);
    }
    pure
}

/// How many rows were compared, or the first that is not the fold of the log.
pub fn rows<F: Fold>(log: &MemoryLog, store: &MemoryStore, fold_: F, of: Generation) -> Result<usize, String> {
    let pure = fold(fold_, &events(log, F::FAMILY.topic()), |_| true);
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

/// How many records of a topic were rejected, or the first one without exactly one letter. Copies have equal
/// identities and count as one; a letter has key, value and headers of its record.
pub fn letters(log: &MemoryLog, topic: Topic) -> Result<usize, String> {
    let partitions = foretell::log::Log::partitions(log, topic);
    let mut rejected: BTreeMap<Position, (Record, HashSet<Identity>)> = records(log, topic)
        .into_iter()
        .filter(|record| accepted(record, partitions).is_none())
        .map(|record| (record.position, (record, HashSet::new())))
        .collect();
    for kept in records(log, Topic::DeadLetters) {
        let Some(letter) = Letter::read(&kept) else { continue };
        let position = Position { topic, partition: letter.source.partition, offset: letter.source.offset };
        let of = rejected.get_mut(&position).filter(|_| letter.source.topic == format!("{PREFIX}{}", topic.name()));
        let Some((record, identities)) = of else {
            return Err(format!("the letter {} is of a record that was not rejected", letter.source));
        };
        let is_whole = kept.key == record.key
            && kept.value == record.value
            && untouched(&kept.headers).eq(untouched(&record.headers));
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

/// How many letters were redriven, or the first mark that is wrong: what was sent again is one event however often
/// it was, and it can be folded.
pub fn redriven(log: &MemoryLog, topic: Topic) -> Result<usize, String> {
    let partitions = foretell::log::Log::partitions(log, topic);
    let there: BTreeMap<Position, Record> = records(log, topic).into_iter().map(|r| (r.position, r)).collect();
    let mut sent: BTreeMap<(u32, i64), (String, String)> = BTreeMap::new();
    for mark in records(log, Topic::DeadLetters).iter().filter_map(Mark::read) {
        let Fate::Redriven { to } = &mark.fate else { continue };
        let position = Position { topic, partition: to.partition, offset: to.offset };
        let Some(event) = there.get(&position).and_then(|record| accepted(record, partitions)) else {
            return Err(format!("{mark:?} names a record that cannot be folded"));
        };
        let id = (event.envelope.source, event.envelope.id);
        let first = sent.entry((mark.source.partition, mark.source.offset)).or_insert_with(|| id.clone());
        if *first != id {
            return Err(format!("{mark:?}: sent as {first:?} before, and as {id:?} now"));
        }
    }
    Ok(sent.len())
}
