//! Addresses of rows: their view and family, and where a store finds them.
//!
//! [`Family`] and [`View`] are generated from the table in `view.rs`.

use foretell_events::time::HOUR_MS;
use foretell_events::{Topic, key};
use serde::{Deserialize, Serialize};

/// Buckets of a view whose rows are spread by key. Part of the schema: changing it means a rebuild.
pub const BUCKETS: u32 = 256;

/// How the rows of a view are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// By their key, whose hash is the bucket.
    Key,
    /// By scanning the [`Bucket`] of an hour.
    Hour,
}

/// Generates families and views from the table in `view.rs`; it does not use the states of the rows.
macro_rules! addresses {
    (
        families {$(
            $(#[$family_doc:meta])*
            $family:ident = $family_tag:literal, led by $lead:ident;
        )+}
        views {$(
            $(#[$doc:meta])*
            $view:ident = $tag:literal $name:literal of $of:ident, by $found:ident, $what:ident { $($state:tt)* };
        )+}
    ) => {
        /// Views that progress together: one topic, one fold, one checkpoint per partition.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum Family {
            $($(#[$family_doc])* $family = $family_tag,)+
        }

        impl Family {
            /// Every family, in the order of the table.
            pub const ALL: [Self; [$($family_tag),+].len()] = [$(Self::$family),+];

            /// The family that determines how many partitions this one has. Reminders have those of their appointments.
            pub const fn lead(self) -> Self {
                match self {
                    $(Self::$family => Self::$lead,)+
                }
            }

            /// The topic whose events are folded.
            pub const fn topic(self) -> Topic {
                match self {
                    $(Self::$family => Topic::$family,)+
                }
            }
        }

        /// A set of rows that one fold writes. The order is part of stored rows: views are only added at the end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum View {
            $($(#[$doc])* #[serde(rename = $name)] $view = $tag,)+
        }

        impl View {
            /// Every view, in the order of the table.
            pub const ALL: [Self; [$($tag),+].len()] = [$(Self::$view),+];

            /// The name in tables and commands.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$view => $name,)+
                }
            }

            /// The family that it belongs to.
            pub const fn family(self) -> Family {
                match self {
                    $(Self::$view => Family::$of,)+
                }
            }

            /// How its rows are found.
            pub const fn found_by(self) -> FoundBy {
                match self {
                    $(Self::$view => FoundBy::$found,)+
                }
            }
        }
    };
}

crate::view::table!(addresses);

impl Family {
    /// The family of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The family that is folded from a topic; none for a topic that no rows are folded from.
    pub fn of(topic: Topic) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.topic() == topic)
    }

    /// The name in tables, groups, metrics and commands.
    pub const fn name(self) -> &'static str {
        self.topic().name()
    }

    /// The number in stored addresses.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// Its views, in the order of the table.
    pub fn views(self) -> impl Iterator<Item = View> {
        View::ALL.into_iter().filter(move |view| view.family() == self)
    }
}

impl View {
    /// The view of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.name() == name)
    }

    /// The number in stored addresses.
    pub const fn tag(self) -> u8 {
        self as u8
    }
}

/// A bucket of a view whose rows are [found by hour](FoundBy::Hour). It belongs to one source partition, below 65,536.
///
/// ```text
///   stored as   hour << 16 + partition              Starts; the hour may be negative
///     1 << 48 + hour << 16 + partition              Requests
///     1 << 60 + partition                           Calendar
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Rows of visits, or of announcements for visits, that start in an hour.
    Starts {
        /// Hours since the epoch.
        hour: i64,
        /// The source partition.
        partition: u32,
    },
    /// Rows of requests for a reminder that were made in an hour.
    Requests {
        /// Hours since the epoch, not negative.
        hour: i64,
        /// The source partition.
        partition: u32,
    },
    /// The row that lists the hours of the other buckets.
    Calendar {
        /// The source partition.
        partition: u32,
    },
}

impl Bucket {
    const PARTITION_BITS: u32 = 16;
    const REQUESTS: i64 = 1 << 48;
    const CALENDAR: i64 = 1 << 60;

    /// The bucket of visits that start at a time, in milliseconds since the epoch.
    pub const fn starts(at_ms: i64, partition: u32) -> Self {
        Self::Starts { hour: at_ms.div_euclid(HOUR_MS), partition }
    }

    /// The bucket of requests that were made at a time, in milliseconds since the epoch.
    pub const fn requests(at_ms: i64, partition: u32) -> Self {
        Self::Requests { hour: at_ms.div_euclid(HOUR_MS), partition }
    }

    /// The number that is stored.
    pub const fn pack(self) -> i64 {
        match self {
            Self::Starts { hour, partition } => (hour << Self::PARTITION_BITS) + partition as i64,
            Self::Requests { hour, partition } => Self::REQUESTS + Self::Starts { hour, partition }.pack(),
            Self::Calendar { partition } => Self::CALENDAR + partition as i64,
        }
    }

    /// The bucket that is stored as a number.
    pub const fn unpack(bucket: i64) -> Self {
        if bucket >= Self::CALENDAR {
            return Self::Calendar { partition: (bucket - Self::CALENDAR) as u32 };
        }
        let is_request = bucket >= Self::REQUESTS;
        let at = if is_request { bucket - Self::REQUESTS } else { bucket };
        let hour = at >> Self::PARTITION_BITS;
        let partition = (at & ((1 << Self::PARTITION_BITS) - 1)) as u32;
        if is_request { Self::Requests { hour, partition } } else { Self::Starts { hour, partition } }
    }
}

/// The address of a row, without its source partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The view.
    pub view: View,
    /// The bucket: `murmur2(key) % BUCKETS`, or a packed [`Bucket`] for a view whose rows are found by hour.
    pub bucket: i64,
    /// Begins with `tenant:`, except for a calendar; at most 1 KiB.
    pub key: String,
}

impl RowKey {
    /// The address of a row that is found by its key.
    pub fn hashed(view: View, key: String) -> Self {
        let bucket = i64::from(key::partition(key.as_bytes(), BUCKETS));
        Self { view, bucket, key }
    }

    /// The address of a row that is found by hour.
    pub fn in_bucket(view: View, bucket: Bucket, key: String) -> Self {
        Self { view, bucket: bucket.pack(), key }
    }
}

/// A complete set of rows of a family: folded from the beginning by one fold, within one epoch of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// The family.
    pub family: Family,
    /// From 1, never reused.
    pub number: u32,
    /// Which physical topic, from 0 to 100: counts its re-creations.
    pub epoch: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_names_are_stored_so_none_ever_changes() {
        let views = View::ALL.map(|view| (view.tag(), view.name()));
        let first = [
            (1, "user"),
            (2, "feature"),
            (3, "client"),
            (4, "lead"),
            (5, "agenda"),
            (6, "lookup"),
            (7, "sent"),
            (8, "announced"),
            (9, "policy"),
            (10, "outcome"),
        ];
        assert_eq!(views[..first.len()], first);
        let families = Family::ALL.map(|family| (family.tag(), family.name()));
        assert_eq!(families[..4], [(1, "logins"), (2, "appointments"), (3, "reminders"), (4, "policies")]);
    }

    #[test]
    fn a_view_is_written_as_its_name() {
        for view in View::ALL {
            assert_eq!(serde_json::to_value(view).unwrap(), view.name());
            assert_eq!(View::parse(view.name()), Some(view));
        }
        for family in Family::ALL {
            assert_eq!(serde_json::to_value(family).unwrap(), family.name());
            assert_eq!(Family::parse(family.name()), Some(family));
        }
    }

    #[test]
    fn each_topic_that_is_folded_has_a_family() {
        for topic in Topic::ALL {
            assert_eq!(Family::of(topic).is_some(), topic.is_folded(), "{}", topic.name());
        }
    }

    #[test]
    fn buckets_are_stored_as_they_always_were() {
        let (hour, partition) = (489_000, 7);
        for (bucket, stored) in [
            (Bucket::Starts { hour, partition }, (489_000 << 16) + 7),
            (Bucket::Starts { hour: -3, partition }, (-3 << 16) + 7),
            (Bucket::starts(489_000 * HOUR_MS + 1, partition), (489_000 << 16) + 7),
            (Bucket::requests(490_000 * HOUR_MS - 1, 999), (1 << 48) + (489_999 << 16) + 999),
            (Bucket::Calendar { partition }, (1 << 60) + 7),
        ] {
            assert_eq!(bucket.pack(), stored, "{bucket:?}");
            assert_eq!(Bucket::unpack(stored), bucket);
        }
    }
}
