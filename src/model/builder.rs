//! Builds a record batch of format v2: for the command line, the client, tests and internal topics.
//!
//! Records are encoded as they are pushed, compressed and framed once by [`BatchBuilder::build`]. What it makes
//! passes [`batch::validate`] and
//! [`validate_records`](crate::model::records::validate_records), unless it was made a control batch.

use crate::base::time::Timestamp;
use crate::model::batch::{self, HEADER_SIZE, MAGIC, PREFIX_SIZE};
use crate::model::compression::{Codec, compress};
use crate::model::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
use crate::model::records::{put_varlong, varlong_size};

/// A batch that is being filled.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    level: Option<i32>,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: Sequence,
    flags: i16,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    record_count: i32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch without producer, at offset 0, as clients send it.
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            codec,
            level: None,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::NONE,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: Sequence(-1),
            flags: 0,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            record_count: 0,
            records: Vec::new(),
        }
    }

    /// The codec's level; see [`Codec::levels`].
    pub fn level(mut self, level: Option<i32>) -> Self {
        self.level = level;
        self
    }

    /// The first record's offset.
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.base_offset = offset;
        self
    }

    /// The leader epoch, which brokers stamp.
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// The idempotent producer and the first record's sequence.
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes it part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.flags |= 0x10;
        self
    }

    /// Makes it a control batch, which only brokers may write.
    pub fn control(mut self) -> Self {
        self.flags |= 0x20;
        self
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the record or the batch grows beyond `i32::MAX` bytes or records.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.0.wrapping_sub(self.base_timestamp.0);
        let offset_delta = i64::from(self.record_count);

        let mut length = 1 + varlong_size(timestamp_delta) + varlong_size(offset_delta);
        length += nullable_size(key) + nullable_size(value) + varlong_size(headers.len() as i64);
        for (key, value) in headers {
            length += nullable_size(Some(key.as_bytes())) + nullable_size(*value);
        }
        assert!(self.records.len() + length < i32::MAX as usize, "the batch is too large");

        let output = &mut self.records;
        put_varlong(output, length as i64);
        let start = output.len();
        output.push(0);
        put_varlong(output, timestamp_delta);
        put_varlong(output, offset_delta);
        put_nullable(output, key);
        put_nullable(output, value);
        put_varlong(output, headers.len() as i64);
        for (key, value) in headers {
            put_nullable(output, Some(key.as_bytes()));
            put_nullable(output, *value);
        }
        debug_assert_eq!(output.len() - start, length);
        self.record_count += 1;
    }

    /// Number of records so far.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch if it were built now without compression.
    pub fn size_bytes(&self) -> usize {
        HEADER_SIZE + self.records.len()
    }

    /// The batch.
    ///
    /// # Panics
    /// If there is no record: such a batch means nothing.
    pub fn build(self) -> Vec<u8> {
        assert!(self.record_count > 0, "a batch has at least one record");
        let records =
            if self.codec == Codec::None { self.records } else { compress(self.codec, self.level, &self.records) };
        let mut bytes = Vec::with_capacity(HEADER_SIZE + records.len());
        let length = i32::try_from(HEADER_SIZE - PREFIX_SIZE + records.len()).expect("bounded by push");
        bytes.extend_from_slice(&self.base_offset.0.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.leader_epoch.0.to_be_bytes());
        bytes.push(MAGIC as u8);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(i16::from(self.codec.number()) | self.flags).to_be_bytes());
        bytes.extend_from_slice(&(self.record_count - 1).to_be_bytes());
        bytes.extend_from_slice(&self.base_timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&self.max_timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&self.producer_id.0.to_be_bytes());
        bytes.extend_from_slice(&self.producer_epoch.0.to_be_bytes());
        bytes.extend_from_slice(&self.base_sequence.0.to_be_bytes());
        bytes.extend_from_slice(&self.record_count.to_be_bytes());
        debug_assert_eq!(bytes.len(), HEADER_SIZE);
        bytes.extend_from_slice(&records);
        batch::stamp_crc(&mut bytes);
        bytes
    }
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varlong_size(bytes.len() as i64) + bytes.len(),
        None => 1,
    }
}

fn put_nullable(output: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varlong(output, bytes.len() as i64);
            output.extend_from_slice(bytes);
        }
        None => put_varlong(output, -1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::units::MIB;
    use crate::model::batch::Header;
    use crate::model::records::validate_records;
    use kafka_protocol::records::{Compression, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions};

    fn random_batch(rng: &mut Rng, codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec)
            .base_offset(Offset(rng.in_range(0..1 << 40) as i64))
            .leader_epoch(LeaderEpoch(rng.in_range(0..100) as i32))
            .producer(ProducerId(rng.in_range(0..1000) as i64), ProducerEpoch(3), Sequence(17));
        for _ in 0..rng.in_range(1..20) {
            let mut noise = vec![0; rng.in_range(0..300) as usize];
            rng.fill(&mut noise);
            let key = rng.chance(1, 2).then_some(&noise[..noise.len() / 3]);
            let value = rng.chance(3, 4).then_some(&noise[..]);
            let timestamp = Timestamp(1_700_000_000_000 + rng.in_range(0..100_000) as i64);
            let headers: [(&str, Option<&[u8]>); 2] = [("one", Some(b"1")), ("two", None)];
            builder.push(timestamp, key, value, &headers[..rng.in_range(0..=2) as usize]);
        }
        builder.build()
    }

    #[test]
    fn what_is_built_is_valid_for_every_codec() {
        let mut rng = Rng::new(1);
        for codec in Codec::ALL {
            for _ in 0..50 {
                let bytes = random_batch(&mut rng, codec);
                let header = batch::validate(&bytes).expect("valid");
                let summary = validate_records(&header, &bytes, MIB, false).expect("sound records");
                assert_eq!(summary.max_timestamp.0, header.max_timestamp);
            }
        }
    }

    #[test]
    fn the_size_is_known_before_building() {
        let mut builder = BatchBuilder::new(Codec::None);
        assert!(builder.is_empty());
        builder.push(Timestamp(5), Some(b"key"), Some(b"value"), &[("h", Some(b"x"))]);
        builder.push(Timestamp(70_000), None, Some(&[7; 1000]), &[]);
        assert_eq!((builder.record_count(), builder.size_bytes()), (2, builder.clone().build().len()));
    }

    #[test]
    fn another_implementation_reads_and_writes_the_same_bytes() {
        // kafka-protocol decodes what we built and encodes it again: the same batch to the byte.
        let mut rng = Rng::new(2);
        for _ in 0..100 {
            let ours = random_batch(&mut rng, Codec::None);
            let header = Header::parse(&ours).expect("a whole header");
            let decoded =
                RecordBatchDecoder::decode(&mut bytes::Bytes::from(ours.clone())).expect("it understands our batch");
            assert_eq!(decoded.records.len(), header.record_count as usize);
            assert_eq!(decoded.records[0].offset, header.base_offset.0);
            assert_eq!(decoded.records[0].producer_id, header.producer_id.0);
            let mut theirs = bytes::BytesMut::new();
            let options = RecordEncodeOptions { version: 2, compression: Compression::None };
            RecordBatchEncoder::encode(&mut theirs, &decoded.records, &options).expect("it encodes");
            // It takes the least timestamp for the base where we take the first record's, as Kafka's clients do; so
            // compare what the records mean.
            let again = RecordBatchDecoder::decode(&mut theirs.freeze()).expect("it understands its own");
            assert_eq!(again.records, decoded.records);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        // Worked out by hand from the layout in `model::batch` and `model::records`.
        let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(1)).leader_epoch(LeaderEpoch(2)).producer(
            ProducerId(3),
            ProducerEpoch(4),
            Sequence(5),
        );
        builder.push(Timestamp(256), Some(b"k"), Some(b"val"), &[("h", None)]);
        builder.push(Timestamp(255), None, None, &[]);
        let bytes = builder.build();
        let crc = batch::crc_of(&bytes).to_be_bytes();
        let expected = [
            &1_i64.to_be_bytes()[..],
            &(49_i32 + 14 + 7).to_be_bytes(),
            &2_i32.to_be_bytes(),
            &[2],
            &crc,
            &0_i16.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &256_i64.to_be_bytes(),
            &256_i64.to_be_bytes(),
            &3_i64.to_be_bytes(),
            &4_i16.to_be_bytes(),
            &5_i32.to_be_bytes(),
            &2_i32.to_be_bytes(),
            &[26, 0, 0, 0, 2, b'k', 6, b'v', b'a', b'l', 2, 2, b'h', 1],
            &[12, 0, 1, 2, 1, 1, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}
