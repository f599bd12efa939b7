//! Identifies the partitioner of a producer whose records are in the wrong partitions.
//!
//! A producer with another partitioner than murmur2 loses most of its records to the dead letters, and no one may read
//! that topic yet. So a warning names the partitioner, the clients that use it by default and the setting to change,
//! and `/readyz?verbose` repeats it for as long as such records arrive. The partitioner is inferred from the
//! [evidence](Evidence) of all partitions of a family that this process folds.

use foretell_domain::address::Family;
use foretell_events::key;
use foretell_events::partitioner::{Diagnosis, Evidence, Partitioner};
use foretell_events::record::Record;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long the first warning waits for evidence, and the shortest time between two different warnings.
const EVIDENCE_AWAITED: Duration = Duration::from_secs(1);
/// Time between two equal warnings, while such records keep arriving.
const REPEATED_EVERY: Duration = Duration::from_secs(60);
/// All such records, and the notice, are forgotten this long after the last one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// The records in wrong partitions that this process has seen, by family, and the last warning about them.
#[derive(Debug, Default)]
pub struct Misplaced(Mutex<BTreeMap<Family, MisplacedRecords>>);

#[derive(Debug)]
struct MisplacedRecords {
    topic: String,
    partitions: u32,
    evidence: Evidence,
    records: u64,
    first: Instant,
    latest: Instant,
    /// Position of the latest one, and the partition that it belongs to.
    partition: u32,
    offset: i64,
    belongs_to: u32,
    last_warning: Option<(Instant, Diagnosis)>,
}

impl Misplaced {
    /// Counts a record that was rejected only with `WRONG_PARTITION`; returns when [`warn`](Self::say) should be
    /// called.
    pub(crate) fn count(&self, family: Family, topic: &str, partitions: u32, record: &Record, now: Instant) -> Instant {
        let mut families = self.lock();
        families.retain(|_, seen| !seen.is_forgotten(now));
        let seen = families.entry(family).or_insert_with(|| MisplacedRecords::new(topic, partitions, now));
        seen.count(record, now);
        seen.due()
    }

    /// Logs a warning, unless the pipeline of another partition has done so.
    pub(crate) fn warn(&self, family: Family, now: Instant) {
        let mut families = self.lock();
        let Some(seen) = families.get_mut(&family).filter(|seen| seen.due() <= now) else { return };
        let MisplacedRecords { topic, partition, offset, belongs_to, .. } = &*seen;
        tracing::warn!(family = family.name(), topic, partition, offset, belongs_to, "{seen}");
        seen.last_warning = Some((now, seen.diagnosis()));
    }

    /// A sentence for each family that had such a record within the last hour.
    pub fn notices(&self, now: Instant) -> Vec<String> {
        self.lock().values().filter(|seen| !seen.is_forgotten(now)).map(MisplacedRecords::to_string).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Family, MisplacedRecords>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MisplacedRecords {
    fn new(topic: &str, partitions: u32, now: Instant) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            evidence: Evidence::default(),
            records: 0,
            first: now,
            latest: now,
            partition: 0,
            offset: 0,
            belongs_to: 0,
            last_warning: None,
        }
    }

    fn count(&mut self, record: &Record, now: Instant) {
        let key = record.key.as_deref().unwrap_or_default();
        self.records += 1;
        self.latest = now;
        self.partition = record.position.partition;
        self.offset = record.position.offset;
        self.belongs_to = key::partition(key, self.partitions);
        self.evidence.see(key, self.partition, self.partitions);
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.latest) >= FORGOTTEN_AFTER
    }

    fn diagnosis(&self) -> Diagnosis {
        self.evidence.diagnosis(self.partitions)
    }

    /// When the next warning is due: at once when the partitioner becomes known, otherwise after a pause.
    fn due(&self) -> Instant {
        let known = Some(self.diagnosis()).filter(|diagnosis| *diagnosis != Diagnosis::Open);
        match self.last_warning {
            None if known.is_some() => self.first,
            None => self.first + EVIDENCE_AWAITED,
            Some((at, last_warning)) if known.is_some_and(|known| known != last_warning) => at + EVIDENCE_AWAITED,
            Some((at, _)) => at + REPEATED_EVERY,
        }
    }
}

impl fmt::Display for MisplacedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset, belongs_to, partitions, records, .. } = self;
        let are = if *records == 1 { "record is" } else { "records are" };
        write!(
            f,
            "{records} {are} in a wrong partition of {topic} and became dead letters, the last one in partition \
             {partition} at offset {offset}: its key belongs to partition {belongs_to} of {partitions}. "
        )?;
        match self.diagnosis() {
            Diagnosis::Known(partitioner) => write!(
                f,
                "{} of the key, the default of {}, puts them there: {}.",
                partitioner.name(),
                partitioner.clients(),
                partitioner.remedy()
            )?,
            Diagnosis::NoneKnown => f.write_str(
                "No known partitioner puts them there: it is round robin (the default of segmentio/kafka-go: set \
                 Balancer: kafka.Murmur2Balancer{}), random, or a partition set explicitly. Use murmur2 of the key.",
            )?,
            Diagnosis::Open => {
                let keys = self.evidence.keys();
                let fits =
                    Partitioner::ALL.map(|p| format!("{} {} ({})", p.name(), self.evidence.fitting(p), p.remedy()));
                write!(
                    f,
                    "The partitioner is not known yet. Of {keys} keys, the number that fits each partitioner: {}.",
                    fits.join(", ")
                )?;
            }
        }
        f.write_str(" Then send them again: `foretell dead-letters redrive --code WRONG_PARTITION`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use foretell_events::{Position, Topic};

    const PARTITIONS: u32 = 8;
    const TOPIC: &str = "foretell.logins";

    /// Records of `users` users in the partitions that `place` chooses, without those that it places correctly.
    fn records(users: u32, place: impl Fn(u32, &[u8]) -> u32) -> Vec<Record> {
        let record = |user: u32| {
            let key = key::of("default", &format!("user-{user}"));
            let partition = place(user, key.as_bytes());
            let position = Position { topic: Topic::Logins, partition, offset: i64::from(user) };
            let is_wrong = partition != key::partition(key.as_bytes(), PARTITIONS);
            let key = Some(Bytes::from(key));
            is_wrong.then(|| Record { position, timestamp_ms: 0, key, value: Bytes::new(), headers: Vec::new() })
        };
        (0..users).filter_map(record).collect()
    }

    fn crc32(users: u32) -> Vec<Record> {
        records(users, |_, key| Partitioner::Crc32.partition(key, PARTITIONS))
    }

    /// Counts a record; returns when a warning is due.
    fn count(misplaced: &Misplaced, record: &Record, now: Instant) -> Instant {
        misplaced.count(Family::Logins, TOPIC, PARTITIONS, record, now)
    }

    #[test]
    fn the_first_warning_is_due_when_the_partitioner_is_known_and_then_once_a_minute() {
        let (misplaced, begin) = (Misplaced::default(), Instant::now());
        let records = crc32(200);
        assert_eq!(count(&misplaced, &records[0], begin), begin + EVIDENCE_AWAITED, "one is too few");
        let dues: Vec<_> = records[1..].iter().map(|record| count(&misplaced, record, begin)).collect();
        assert!(dues[10..].iter().all(|due| *due == begin), "known after a few");
        misplaced.warn(Family::Logins, begin);
        let later = begin + Duration::from_secs(10);
        assert_eq!(count(&misplaced, &records[0], later), begin + REPEATED_EVERY);
        misplaced.warn(Family::Logins, later);
        assert_eq!(count(&misplaced, &records[0], later), begin + REPEATED_EVERY, "another pipeline has logged it");
        let other = crc32(200).into_iter().map(|record| count(&misplaced, &record, later)).max();
        assert_eq!(other, Some(begin + REPEATED_EVERY), "the same partitioner is no news");
        let robin: Vec<_> = records_by_turns(400).iter().map(|record| count(&misplaced, record, later)).collect();
        assert_eq!(robin.last(), Some(&(begin + EVIDENCE_AWAITED)), "another one is");
    }

    fn records_by_turns(users: u32) -> Vec<Record> {
        records(users, |user, _| user % PARTITIONS)
    }

    #[test]
    fn a_notice_names_partitioner_clients_and_setting_and_goes_away() {
        let (misplaced, begin) = (Misplaced::default(), Instant::now());
        assert_eq!(misplaced.notices(begin), Vec::<String>::new());
        let records = crc32(200);
        let first = &records[0];
        count(&misplaced, first, begin);
        let notice = misplaced.notices(begin).remove(0);
        let place = format!("partition {} at offset {}", first.position.partition, first.position.offset);
        assert!(
            notice.contains(&place)
                && notice.contains("not known yet. Of 1 keys, the number that fits each partitioner: crc32 1"),
            "{notice}"
        );
        for record in &records[1..] {
            count(&misplaced, record, begin);
        }
        let notice = misplaced.notices(begin).remove(0);
        for part in
            [&format!("{} records", records.len()), TOPIC, "crc32", "confluent-kafka", "partitioner=murmur2_random"]
        {
            assert!(notice.contains(part), "{part}: {notice}");
        }
        assert_eq!(misplaced.notices(begin + FORGOTTEN_AFTER), Vec::<String>::new());
        count(&misplaced, first, begin + FORGOTTEN_AFTER);
        assert!(
            misplaced.notices(begin + FORGOTTEN_AFTER)[0].starts_with("1 record is"),
            "what was before is forgotten"
        );
        let robin = Misplaced::default();
        for record in records_by_turns(100) {
            count(&robin, &record, begin);
        }
        assert!(robin.notices(begin)[0].contains("round robin"), "{:?}", robin.notices(begin));
    }
}
