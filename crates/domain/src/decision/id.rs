//! The id of a decision, which encodes its position: a look-up needs no index and no view.
//!
//! ```text
//!  48 bits        4    12 bits      2    62 bits
//!  │ Unix time ms │ 7 │ partition  │ 10 │ random │        a UUIDv7 (RFC 9562)
//! ```
//! A UUIDv7 leaves 12 bits next to its version to the implementation (`rand_a`). Here they contain the partition, so
//! that an id leads to one partition and one time in it. Ids sort by their time, like all UUIDs of this version.

use uuid::{Builder, Uuid, Version};

/// Bits of the partition.
const PARTITION_BITS: u32 = 12;

/// The id of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(Uuid);

impl Id {
    /// An id for a decision at `at_ms`; 62 bits of `random` are used, which distinguish the decisions of one partition
    /// within one millisecond.
    pub fn new(at_ms: i64, partition: u32, random: u64) -> Self {
        let mut bytes = [0; 10];
        // The first four bits make space for the version.
        bytes[..2].copy_from_slice(&((partition % (1 << PARTITION_BITS)) as u16).to_be_bytes());
        bytes[2..].copy_from_slice(&random.to_be_bytes());
        Self(Builder::from_unix_timestamp_millis(at_ms.unsigned_abs(), &bytes).into_uuid())
    }

    /// Parses an id in the format of answers; none if it cannot be that of a decision.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = Uuid::try_parse(text).ok().filter(|uuid| uuid.get_version() == Some(Version::SortRand))?;
        // Other spellings of the same number were never issued.
        Some(Self(uuid)).filter(|id| id.to_string() == text)
    }

    /// When it was made, in milliseconds since the epoch.
    pub fn at_ms(self) -> i64 {
        (self.0.as_u128() >> 80) as i64
    }

    /// The partitions, of `count`, that can contain it: one, unless there are more than the bits can represent.
    pub fn partitions(self, count: u32) -> impl Iterator<Item = u32> {
        let stored = (self.0.as_u128() >> 64) as u32 % (1 << PARTITION_BITS);
        (stored..count).step_by(1 << PARTITION_BITS)
    }

    /// As a number.
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_when_and_where_and_is_a_uuid_of_version_7() {
        for (at_ms, partition, random) in
            [(0, 0, 0), (1_772_359_200_000, 7, 1), (1_772_359_200_000, 999, u64::MAX), ((1 << 48) - 1, 4_095, 1 << 63)]
        {
            let id = Id::new(at_ms, partition, random);
            assert_eq!(Id::parse(&id.to_string()), Some(id));
            assert_eq!(id.at_ms(), at_ms);
            assert_eq!(id.partitions(partition + 1).collect::<Vec<_>>(), [partition]);
            assert_eq!((id.0.get_version_num(), id.0.get_variant()), (7, uuid::Variant::RFC4122));
        }
        assert_eq!(Id::new(1, 3, 9).partitions(3).count(), 0, "a topic of fewer partitions does not have it");
        assert_eq!(Id::new(1, 4_099, 9).partitions(5_000).collect::<Vec<_>>(), [3, 4_099]);
        assert!(Id::new(5, 900, 0).to_string() < Id::new(6, 1, 0).to_string());
        assert_ne!(Id::new(1, 1, 1), Id::new(1, 1, 2));
    }

    #[test]
    fn what_was_never_given_out_is_no_id() {
        let id = Id::new(1_772_359_200_000, 7, 1).to_string();
        for text in [
            "",
            "d-1",
            "936da01f-9abd-4d9d-80c7-02af85c822a8",
            "00000000-0000-0000-0000-000000000000",
            &id.to_uppercase(),
            &id.replace('-', ""),
            &format!("{{{id}}}"),
            &format!("{id} "),
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
