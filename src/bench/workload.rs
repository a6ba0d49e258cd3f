//! What is sent: batches of a size, with records of a size, keyed or not, compressed or not.

use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::model::batch::HEADER_SIZE;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;

use super::keys::KeySpace;

/// The least batch: a header and the smallest record.
pub const BATCH_SIZE_BYTES_MIN: usize = HEADER_SIZE + 8;
/// A value when neither its size nor that of the batch says otherwise.
const RECORD_SIZE_BYTES_DEFAULT: usize = 100;
/// At most five bytes of length, delta and so on each, and a key.
const RECORD_OVERHEAD_MAX: usize = 40;

/// What is sent to a topic.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The size of a batch before compression, its header included. Met exactly or, where lengths are encoded in
    /// steps, missed by a byte.
    pub batch_size_bytes: usize,
    /// The size of a record's value; 0 for one record that fills the batch.
    pub record_size_bytes: usize,
    /// Records of a batch, which then sets its size; 0: as many as fit `batch_size_bytes`.
    pub record_count: usize,
    /// How batches are compressed.
    pub codec: Codec,
    /// The codec's level; its own default otherwise.
    pub level: Option<i32>,
    /// How much of each value is random; the rest compresses to almost nothing.
    pub random_percent: u8,
    /// Partitions, of one or several topics, that one request carries a batch for.
    pub batches_per_request: usize,
    /// -1 (all), 1 or 0.
    pub acks: i16,
    /// What the random contents are made from.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            batch_size_bytes: 64 << 10,
            record_size_bytes: 0,
            record_count: 0,
            codec: Codec::None,
            level: None,
            random_percent: 100,
            batches_per_request: 1,
            acks: -1,
            seed: 1,
        }
    }
}

impl Workload {
    /// A batch of records without keys.
    pub fn batch(&self, rng: &mut Rng, now: Timestamp) -> Vec<u8> {
        self.batch_for(rng, now, None)
    }

    /// A batch for a partition, whose keys its records have.
    pub fn batch_for(&self, rng: &mut Rng, now: Timestamp, keys: Option<(&KeySpace, i32)>) -> Vec<u8> {
        let draw = |rng: &mut Rng| keys.and_then(|(space, partition)| space.draw(partition, rng));
        let mut builder = BatchBuilder::new(self.codec).level(self.level);
        if self.record_count > 0 {
            let size = if self.record_size_bytes > 0 { self.record_size_bytes } else { RECORD_SIZE_BYTES_DEFAULT };
            for _ in 0..self.record_count {
                let (key, value) = (draw(rng), self.value(rng, size));
                builder.push(now, key.as_ref().map(|key| &key[..]), Some(&value), &[]);
            }
            return builder.build();
        }
        if self.record_size_bytes > 0 {
            let step = self.record_size_bytes;
            while builder.size_bytes() + 2 * (step + RECORD_OVERHEAD_MAX) <= self.batch_size_bytes {
                let (key, value) = (draw(rng), self.value(rng, step));
                builder.push(now, key.as_ref().map(|key| &key[..]), Some(&value), &[]);
            }
        }
        // The last record takes what is left.
        let key = draw(rng);
        let key = key.as_ref().map(|key| &key[..]);
        let room = self.batch_size_bytes.saturating_sub(builder.size_bytes());
        let value = self.value(rng, room);
        let filled = |length: usize| {
            let mut filled = builder.clone();
            filled.push(now, key, Some(&value[..length]), &[]);
            filled
        };
        let mut fitting = (room.saturating_sub(RECORD_OVERHEAD_MAX)..=room).rev().map(filled);
        fitting.find(|filled| filled.size_bytes() <= self.batch_size_bytes).unwrap_or_else(|| filled(0)).build()
    }

    /// So many bytes, the first of them random.
    fn value(&self, rng: &mut Rng, size_bytes: usize) -> Vec<u8> {
        let mut value = vec![b'.'; size_bytes];
        let random = size_bytes * usize::from(self.random_percent.min(100)) / 100;
        rng.fill(&mut value[..random]);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::validate;
    use crate::model::records::{Records, section, validate_records};

    fn workload(batch_size_bytes: usize, record_size_bytes: usize) -> Workload {
        Workload { batch_size_bytes, record_size_bytes, ..Workload::default() }
    }

    #[test]
    fn batches_are_sound_and_as_large_as_asked() {
        // Every size in a range, with one record and with many.
        for record in [0, 10, 100, 1000] {
            for size in (BATCH_SIZE_BYTES_MIN..400).chain([4096, 16_500, 65_536]) {
                let batch = workload(size, record).batch(&mut Rng::new(1), Timestamp(1));
                validate(&batch).unwrap();
                assert!(batch.len() == size || batch.len() == size - 1, "{} bytes instead of {size}", batch.len());
            }
        }
    }

    #[test]
    fn a_count_of_records_sets_the_size() {
        for codec in Codec::ALL {
            let workload = Workload { record_count: 50, record_size_bytes: 200, codec, ..Workload::default() };
            let batch = workload.batch(&mut Rng::new(1), Timestamp(1));
            let header = validate(&batch).unwrap();
            assert_eq!(header.record_count, 50);
            validate_records(&header, &batch, 1 << 20, false).unwrap();
        }
    }

    #[test]
    fn what_is_not_random_compresses() {
        let size = |random_percent| {
            let workload = Workload { random_percent, codec: Codec::Zstd, ..Workload::default() };
            workload.batch(&mut Rng::new(1), Timestamp(1)).len() as f64 / 65536.0
        };
        assert!(size(100) > 0.99 && size(0) < 0.01 && (0.2..0.3).contains(&size(25)));
    }

    #[test]
    fn records_have_keys_of_their_partition() {
        let space = KeySpace::new(100, 1.0, 3);
        let workload = workload(4096, 100);
        let batch = workload.batch_for(&mut Rng::new(1), Timestamp(1), Some((&space, 2)));
        let header = validate(&batch).unwrap();
        let records = section(&header, &batch, 1 << 20).unwrap();
        for record in Records::new(&records, header.record_count) {
            let key = record.unwrap().key.expect("a key").to_vec();
            assert_eq!(crate::client::Partitioner::new(3, 0).partition(Some(&key)), 2);
        }
        assert!(batch.len() >= 4095);
    }
}
