//! Which partitioner placed a record, determined only from the key and the partition.
//!
//! Kafka clients have different default partitioners, and the broker does not record which one was used. A record in
//! the wrong partition often reveals it: another hash of the same key leads exactly there. [`explain`] describes it for
//! one record. [`Evidence`] determines it from many, because one record matches by chance with a probability of 1 in
//! the number of partitions.

mod evidence;

pub use evidence::{Diagnosis, Evidence};

use super::key;

/// A partitioner that is the default of clients and differs from [`key::partition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// CRC-32 of the key: `consistent` and `consistent_random` of librdkafka.
    Crc32,
    /// 32-bit FNV-1a of the key, as a signed number without its sign: Sarama, and `Hash` of segmentio/kafka-go.
    Fnv1a,
    /// The murmur2 of kafkajs 1: it multiplies in floating point and loses the low bits.
    KafkaJsLegacy,
}

impl Partitioner {
    /// All known ones.
    pub const ALL: [Self; 3] = [Self::Crc32, Self::Fnv1a, Self::KafkaJsLegacy];

    /// The partition, from 0, that it puts `key` into. `partitions` is at least 1.
    pub fn partition(self, key: &[u8], partitions: u32) -> u32 {
        let hash = match self {
            Self::Crc32 => crc32fast::hash(key),
            // Both clients take the remainder of the signed hash and drop its sign, which is the same.
            Self::Fnv1a => fnv1a(key).cast_signed().unsigned_abs(),
            Self::KafkaJsLegacy => kafkajs_legacy(key),
        };
        hash % partitions.max(1)
    }

    /// The name of its hash.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Fnv1a => "FNV-1a",
            Self::KafkaJsLegacy => "the legacy hash of kafkajs",
        }
    }

    /// The client that has it as default, as the subject of a sentence.
    pub fn owner(self) -> &'static str {
        match self {
            Self::Crc32 => "librdkafka's default partitioner (crc32)",
            Self::Fnv1a => "Sarama's default partitioner (FNV-1a, also kafka.Hash of segmentio/kafka-go)",
            Self::KafkaJsLegacy => "the LegacyPartitioner of kafkajs",
        }
    }

    /// The clients that have it as default.
    pub fn clients(self) -> &'static str {
        match self {
            Self::Crc32 => "librdkafka and clients built on it (confluent-kafka, node-rdkafka, rdkafka for Rust, kcat)",
            Self::Fnv1a => "Sarama, and of segmentio/kafka-go with Balancer = &kafka.Hash{}",
            Self::KafkaJsLegacy => "kafkajs 1, and of kafkajs 2 with Partitioners.LegacyPartitioner",
        }
    }

    /// The setting with which these clients partition like Foretell.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Crc32 => "set partitioner=murmur2_random",
            Self::Fnv1a => {
                "set Balancer: kafka.Murmur2Balancer{} in segmentio/kafka-go, and in Sarama Producer.Partitioner = \
                 sarama.NewCustomPartitioner(sarama.WithAbsFirst(), sarama.WithCustomHashFunction(murmur2))"
            }
            Self::KafkaJsLegacy => "set createPartitioner: Partitioners.DefaultPartitioner, of kafkajs 2",
        }
    }
}

/// The known partitioners that place this key in this partition.
pub fn fitting(key: &[u8], partition: u32, partitions: u32) -> impl Iterator<Item = Partitioner> {
    Partitioner::ALL.into_iter().filter(move |fits| fits.partition(key, partitions) == partition)
}

/// Explains, in words, how a record's key leads to the wrong partition that it is in; empty if the partition is right.
///
/// It depends only on the record, so that a dead letter that is written again contains the same text.
pub(crate) fn explain(key: Option<&[u8]>, partition: u32, partitions: u32) -> String {
    // Without a key any partition is right. If the key is not that of the event, the key itself is the fault.
    let Some(key) = key.filter(|key| key::partition(key, partitions) != partition) else { return String::new() };
    let fitting: Vec<_> = fitting(key, partition, partitions)
        .map(|fits| format!("{} puts it: {}", fits.owner(), fits.remedy()))
        .collect();
    if fitting.is_empty() {
        return "no known partitioner puts it there: it was chosen round robin, at random, or explicitly".to_owned();
    }
    format!("{partition} is where {}", fitting.join(", or where "))
}

/// 32-bit FNV-1a (Fowler, Noll, Vo; public domain). The crate `fnv` has only the 64-bit one.
fn fnv1a(data: &[u8]) -> u32 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    data.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

/// The number between 0 and 2^31 that kafkajs 1 computes from a key. JavaScript multiplies in double precision and
/// truncates to 32 bits only at bitwise operations, and this hash includes the last word of a key twice if it is not
/// complete.
fn kafkajs_legacy(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: f64 = 1_540_483_477.0;
    let to_int32 = |number: f64| (number.rem_euclid(4_294_967_296.0) as u32).cast_signed();
    let times = |number: i32| f64::from(number) * M;
    let mix = |number: f64, shift: u32| {
        let bits = to_int32(number).cast_unsigned();
        (bits ^ (bits >> shift)).cast_signed()
    };
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)).cast_signed();
    let begin = (SEED ^ data.len() as u32).cast_signed();
    let h = data.chunks(4).fold(begin, |h, bytes| to_int32(times(h)) ^ to_int32(times(mix(times(word(bytes)), 24))));
    let h = match data.as_chunks::<4>().1 {
        [] => f64::from(h),
        tail => times(h ^ word(tail)),
    };
    mix(times(mix(h, 13)), 15).cast_unsigned() & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hashes of librdkafka's own tests of its partitioners, with 17 partitions.
    #[test]
    fn crc32_agrees_with_librdkafka() {
        for (key, hash) in [
            ("23456", 0xb1b4_51d7_u32),
            ("this is another string with more length to it perhaps", 0xb015_0df7),
            ("hejsan", 0xd077_037e),
        ] {
            assert_eq!(Partitioner::Crc32.partition(key.as_bytes(), 17), hash % 17, "{key}");
        }
    }

    /// Partitions of kafka-go's tests, which were generated with Sarama; the hash of `20` is negative.
    #[test]
    fn fnv1a_agrees_with_sarama_and_kafka_go() {
        for (key, partitions, partition) in [("blah", 2, 0), ("blah", 3, 1), ("boop", 3, 2), ("20", 16, 1)] {
            assert_eq!(Partitioner::Fnv1a.partition(key.as_bytes(), partitions), partition, "{key} of {partitions}");
        }
        assert_eq!([fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")], [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
    }

    /// Numbers that kafkajs 2.2.4 printed.
    #[test]
    fn the_legacy_hash_agrees_with_kafkajs() {
        for (key, number) in [
            ("", 275_646_684),
            ("a", 1_337_597_815),
            ("ab", 461_407_235),
            ("abc", 1_545_667_907),
            ("kafka", 840_273_835),
            ("default:ada", 1_338_996_125),
            ("default:user-17", 1_797_301_824),
            ("this is another string with more length to it perhaps", 844_192_416),
        ] {
            assert_eq!(kafkajs_legacy(key.as_bytes()), number, "{key}");
        }
    }

    #[test]
    fn one_record_is_explained_by_the_partitioners_that_lead_to_it() {
        let key = (0..).map(|n| format!("default:user-{n}")).find(|key| {
            let places = Partitioner::ALL.map(|p| p.partition(key.as_bytes(), 8));
            places[0] != places[1]
                && !places[..2].contains(&places[2])
                && !places.contains(&key::partition(key.as_bytes(), 8))
        });
        let key = key.expect("most keys are like this");
        let explained = |partition| explain(Some(key.as_bytes()), partition, 8);
        let [crc32, fnv1a, legacy] = Partitioner::ALL.map(|p| p.partition(key.as_bytes(), 8));
        assert_eq!(
            explained(crc32),
            format!(
                "{crc32} is where librdkafka's default partitioner (crc32) puts it: set partitioner=murmur2_random"
            )
        );
        assert!(explained(fnv1a).contains("Sarama") && explained(fnv1a).contains("kafka.Murmur2Balancer{}"));
        let right = key::partition(key.as_bytes(), 8);
        let other = (0..8).find(|p| ![crc32, fnv1a, legacy, right].contains(p)).expect("eight are more than four");
        assert!(explained(other).starts_with("no known partitioner"), "{}", explained(other));
        assert_eq!([explained(right), explain(None, other, 8)], ["", ""], "another key, and none");
    }

    proptest! {
        #[test]
        fn every_partitioner_fits_where_it_puts_a_key(key: Vec<u8>, partitions in 1_u32..1_000) {
            for partitioner in Partitioner::ALL {
                let partition = partitioner.partition(&key, partitions);
                prop_assert!(partition < partitions);
                prop_assert!(fitting(&key, partition, partitions).any(|fits| fits == partitioner));
                prop_assert!(fitting(&key, partitions, partitions).next().is_none());
            }
        }
    }
}
