//! The query, and the next stage for it: pure functions of the pointer and of the log.

use super::OPERATION;
use foretell_domain::address::Family;
use foretell_domain::pointer::Pointer;
use foretell_ports::Error;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Maximum partition count of a topic.
pub(crate) const PARTITIONS_MAX: u32 = 1_000;

/// A family, and its new partition count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepartitionQuery {
    /// Logins, or appointments, whose reminders move with them.
    pub lead: Family,
    /// From 1 to [`PARTITIONS_MAX`].
    pub partitions: u32,
}

impl RepartitionQuery {
    /// The families that move together, the leader first.
    pub fn families(self) -> impl DoubleEndedIterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| family.lead() == self.lead)
    }
}

impl FromStr for RepartitionQuery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "write it as in logins=16 or appointments=16".to_owned();
        let (name, count) = text.split_once('=').ok_or_else(form)?;
        let lead = Family::parse(name).ok_or_else(form)?;
        if lead.topic().partitions(PARTITIONS_MAX) == 1 {
            return Err(format!("{name} always have one partition"));
        }
        if lead.lead() != lead {
            return Err(format!("{name} are repartitioned together with {}: use that name", lead.lead().name()));
        }
        let partitions = count.parse().ok().filter(|count| (1..=PARTITIONS_MAX).contains(count));
        let partitions = partitions.ok_or_else(|| format!("{count:?} is not a number from 1 to {PARTITIONS_MAX}"))?;
        Ok(Self { lead, partitions })
    }
}

/// What a run has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepartitionStage {
    /// Start the move.
    Begin,
    /// Repeat an interrupted copy.
    CopyAgain,
    /// Continue after the copy: fold, verify and swap.
    Fold,
}

/// The current topic in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct CurrentTopic {
    pub(super) epoch: u8,
    pub(super) partitions: u32,
}

/// The next stage, from the leader's pointer and its topic in the log.
pub(super) fn stage(lead: &Pointer, topic: CurrentTopic, query: RepartitionQuery) -> Result<RepartitionStage, Error> {
    let (name, epoch) = (query.lead.name(), topic.epoch);
    let Some(moving) = &lead.moving else {
        if lead.epoch == epoch {
            let is_done = [lead.partitions, topic.partitions].iter().all(|count| *count == query.partitions);
            return Ok(if is_done { RepartitionStage::Fold } else { RepartitionStage::Begin });
        }
        let detail = format!(
            "the views of {name} are those of epoch {} of its topic, and the log has epoch {epoch}: log and store are \
             from different times",
            lead.epoch
        );
        return Err(Error::fatal(OPERATION, detail));
    };
    // A log that stores its epochs itself may contain the completed copy before the pointer states it.
    if moving.into.is_none() && epoch != moving.epoch {
        return Ok(RepartitionStage::CopyAgain);
    }
    if moving.partitions == query.partitions {
        return Ok(RepartitionStage::Fold);
    }
    let detail = format!(
        "{name} is already being copied into {} partitions: complete `foretell migrate --repartition {name}={}` first",
        moving.partitions, moving.partitions
    );
    Err(Error::reject(OPERATION, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_with_its_family() {
        let query = |lead, partitions| Ok(RepartitionQuery { lead, partitions });
        for (text, expected) in
            [("logins=16", query(Family::Logins, 16)), ("appointments=1000", query(Family::Appointments, 1_000))]
        {
            assert_eq!(text.parse::<RepartitionQuery>(), expected, "{text}");
        }
        for (text, says) in [
            ("reminders=4", "reminders are repartitioned together with appointments: use that name"),
            ("policies=4", "policies always have one partition"),
            ("logins", "as in logins=16"),
            ("dead-letters=4", "as in logins=16"),
            ("logins=0", "1 to 1000"),
            ("logins=1001", "1 to 1000"),
            ("logins=many", "1 to 1000"),
        ] {
            let said = text.parse::<RepartitionQuery>().expect_err(text);
            assert!(said.contains(says), "{text}: {said}");
        }
        let families = |lead| RepartitionQuery { lead, partitions: 1 }.families().collect::<Vec<_>>();
        assert_eq!(families(Family::Logins), [Family::Logins]);
        assert_eq!(families(Family::Appointments), [Family::Appointments, Family::Reminders]);
    }

    #[test]
    fn the_pointer_and_the_log_say_what_comes_next() {
        let query = |partitions| RepartitionQuery { lead: Family::Logins, partitions };
        let first = Pointer::first(8, "a".to_owned());
        let moving = first.move_to(16);
        let copied = moving.copied("a".to_owned());
        let moved = copied.moved();
        for (name, pointer, epoch, partitions, expected) in [
            ("nothing was begun", &first, 0, 16, Ok(RepartitionStage::Begin)),
            ("it has as many", &first, 0, 8, Ok(RepartitionStage::Fold)),
            ("a log of another time", &first, 1, 16, Err("from different times")),
            ("the copy did not end", &moving, 0, 16, Ok(RepartitionStage::CopyAgain)),
            ("another count now", &moving, 0, 4, Ok(RepartitionStage::CopyAgain)),
            ("the log knows that it ended", &moving, 1, 16, Ok(RepartitionStage::Fold)),
            ("the log knows, another count", &moving, 1, 4, Err("--repartition logins=16")),
            ("the store knows that it ended", &copied, 1, 16, Ok(RepartitionStage::Fold)),
            ("too late for another count", &copied, 1, 4, Err("--repartition logins=16")),
            ("moved", &moved, 1, 16, Ok(RepartitionStage::Fold)),
            ("moved, and once more", &moved, 1, 4, Ok(RepartitionStage::Begin)),
            ("its topic was raised in place", &Pointer::first(4, "a".to_owned()), 0, 8, Ok(RepartitionStage::Begin)),
            ("and is to be as it was", &Pointer::first(4, "a".to_owned()), 0, 4, Ok(RepartitionStage::Begin)),
        ] {
            let topic = CurrentTopic { epoch, partitions: if epoch == 0 { 8 } else { 16 } };
            match (stage(pointer, topic, query(partitions)), expected) {
                (Ok(stage), Ok(expected)) => assert_eq!(stage, expected, "{name}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{name}: {error}"),
                (stage, expected) => panic!("{name}: {stage:?}, not {expected:?}"),
            }
        }
    }
}
