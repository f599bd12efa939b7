//! Which letters an operation applies to: by position, error, key and time.

use super::{Id, Letter};
use foretell_events::topic::without_epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Conditions that a letter meets all of; the empty filter matches every letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Only these; if empty, any id.
    pub ids: BTreeSet<Id>,
    /// Source topic, with its prefix or without.
    pub topic: Option<String>,
    /// Code of the first fault.
    pub code: Option<String>,
    /// Key of the record, `tenant:subject`.
    pub key: Option<String>,
    /// First failure at this time or later, in milliseconds since the epoch.
    ///
    /// It is the first failure and not the letter's own time, because all copies of a letter have the same.
    pub since_ms: Option<i64>,
    /// First failure before this time, in milliseconds since the epoch.
    pub until_ms: Option<i64>,
}

impl Filter {
    /// Whether a letter with this id and record key matches.
    pub fn matches(&self, id: Id, letter: &Letter, key: Option<&[u8]>) -> bool {
        (self.ids.is_empty() || self.ids.contains(&id))
            && self.topic.as_ref().is_none_or(|topic| is_topic(&letter.source.topic, topic))
            && self.code.as_ref().is_none_or(|code| letter.code == *code)
            && self.key.as_ref().is_none_or(|wanted| key == Some(wanted.as_bytes()))
            && self.since_ms.is_none_or(|since_ms| letter.first_failure_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| letter.first_failure_ms < until_ms)
    }

    /// Whether any letter of a partition can match.
    pub fn concerns(&self, partition: u32) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|id| id.partition == partition)
    }
}

fn is_topic(full: &str, wanted: &str) -> bool {
    let is = |name: &str| name.strip_suffix(wanted).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'));
    // The short name means the topic in all of its epochs.
    is(full) || is(without_epoch(full).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::Address;

    fn letter() -> Letter {
        Letter {
            source: Address { topic: "foretell.logins".into(), partition: 1, offset: 5 },
            attempt: 1,
            code: "MISSING_FIELD".into(),
            message: String::new(),
            stage: "decode".into(),
            first_failure_ms: 1_000,
            omitted_bytes: None,
        }
    }

    #[test]
    fn a_letter_meets_every_condition_or_is_not_meant() {
        let id = Id { partition: 2, offset: 17 };
        let ids = |id: &str| Filter { ids: [id.parse().unwrap()].into(), ..Filter::default() };
        let topic = |name: &str| Filter { topic: Some(name.into()), ..Filter::default() };
        let key = |key: &str| Filter { key: Some(key.into()), ..Filter::default() };
        let code = |code: &str| Filter { code: Some(code.into()), ..Filter::default() };
        let times = |since_ms, until_ms| Filter { since_ms, until_ms, ..Filter::default() };
        for (filter, meant) in [
            (Filter::default(), true),
            (ids("2/17"), true),
            (ids("2/18"), false),
            (topic("logins"), true),
            (topic("foretell.logins"), true),
            (topic("foretell.logins.e1"), false),
            (topic("ogins"), false),
            (topic("appointments"), false),
            (code("MISSING_FIELD"), true),
            (code("MISSING"), false),
            (key("default:ada"), true),
            (key("default:ad"), false),
            (times(Some(1_000), None), true),
            (times(Some(1_001), None), false),
            (times(None, Some(1_001)), true),
            (times(None, Some(1_000)), false),
            (Filter { code: Some("WRONG_TYPE".into()), ..ids("2/17") }, false),
        ] {
            assert_eq!(filter.matches(id, &letter(), Some(b"default:ada")), meant, "{filter:?}");
        }
        assert!(!key("default:ada").matches(id, &letter(), None), "a record without a key");
        assert!(ids("2/17").concerns(2) && !ids("2/17").concerns(1) && Filter::default().concerns(1));
    }

    #[test]
    fn a_topic_is_meant_in_all_of_its_epochs_unless_one_is_named() {
        for (wanted, expected) in [("logins", true), ("a.logins", true), ("a.logins.e2", true), ("a.logins.e1", false)]
        {
            assert_eq!(is_topic("a.logins.e2", wanted), expected, "{wanted}");
        }
    }
}
