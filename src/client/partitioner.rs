//! Which partition a record goes to: the same one that Kafka's own producer would choose for its key.
//!
//! With a key: murmur2 of it, made positive, modulo the partitions. Without: one partition for a whole batch, then
//! the next, so that batches fill.

/// Chooses partitions for one topic.
#[derive(Clone, Debug)]
pub struct Partitioner {
    partition_count: u32,
    sticky: u32,
}

impl Partitioner {
    /// For a topic of so many partitions, at least 1. Keyless records begin at `start` modulo the partitions, so that
    /// many short runs do not all fill partition 0.
    pub fn new(partition_count: usize, start: u64) -> Partitioner {
        let partition_count = u32::try_from(partition_count).unwrap_or(u32::MAX).max(1);
        Partitioner { partition_count, sticky: (start % u64::from(partition_count)) as u32 }
    }

    /// The partition for `key`.
    pub fn partition(&self, key: Option<&[u8]>) -> i32 {
        match key {
            Some(key) => ((murmur2(key) & 0x7fff_ffff) % self.partition_count) as i32,
            None => self.sticky as i32,
        }
    }

    /// A batch of keyless records is full: the next goes elsewhere.
    pub fn next_batch(&mut self) {
        self.sticky = (self.sticky + 1) % self.partition_count;
    }
}

/// The 32-bit MurmurHash2 by Austin Appleby (public domain), with the seed that Kafka's clients use.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_kafkas_clients() {
        // The vectors that the Java client and librdkafka publish for their murmur2.
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            (b"abc", 479470107),
            (b"", 275646681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn keyless_records_stay_on_a_partition_until_the_batch_is_full() {
        let mut partitioner = Partitioner::new(3, 5);
        assert_eq!((partitioner.partition(None), partitioner.partition(None)), (2, 2));
        partitioner.next_batch();
        assert_eq!(partitioner.partition(None), 0);
        assert_eq!(partitioner.partition(Some(b"21")), (-973932308i32 & i32::MAX) % 3);
    }
}
