//! Record keys and the partition of each.
//!
//! Producers in any language and Foretell must agree on the partition of a key, so the partitioner is the one of
//! Kafka's Java client: 32-bit murmur2 with its fixed seed, made positive, modulo the partition count.

/// The key of a subject's records and of its owner row: `tenant:subject`.
pub fn of(tenant: &str, subject: &str) -> String {
    let mut key = String::with_capacity(tenant.len() + 1 + subject.len());
    key.push_str(tenant);
    key.push(':');
    key.push_str(subject);
    key
}

/// The partition, from 0, that Kafka's Java client and librdkafka's `murmur2` put `key` into.
///
/// `partitions` is at least 1.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2 (Austin Appleby, public domain) with the seed that Kafka's clients use.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 24)).wrapping_mul(M)
    };
    let (words, tail) = data.as_chunks::<4>();
    let mut h =
        words.iter().fold(SEED ^ (data.len() as u32), |h, word| h.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word)));
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        h = (h ^ last).wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }
}
