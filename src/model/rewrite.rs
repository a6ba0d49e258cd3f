//! A stored batch without some of its records, or with another codec: what compaction and recompression write.
//!
//! Offsets never change: base offset, last offset delta and every record's offset delta stay, and so do leader epoch,
//! producer, sequence and flags. Records are copied as they are, unless the base timestamp becomes a delete horizon
//! (KIP-534): then their timestamp deltas are written anew. The CRC is made right.
//!
//! Invariant: what comes out has the offsets of what went in, so a log of rewritten batches ascends as before.

use std::ops::Range;

use crate::base::time::Timestamp;
use crate::model::batch::{self, HEADER_SIZE, Header, MAGIC, PREFIX_SIZE};
use crate::model::compression::{Codec, compress};
use crate::model::records::{Record, RecordError, Records, put_varlong, take_varint, take_varlong, varlong_size};

/// The delete horizon bit of a batch's attributes.
const DELETE_HORIZON: i16 = 0x40;
/// The codec's bits of a batch's attributes.
const CODEC: i16 = 0x07;

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// All of it, and nothing about it changes.
    Whole,
    /// These bytes.
    Some(Vec<u8>),
    /// No record.
    Nothing,
}

/// Keeps the records of a batch that `keep` wants. `section` is the batch's records, decompressed
/// ([`records::section`](crate::model::records::section)). If a tombstone (a record without value) or a marker is kept
/// and the batch has no delete horizon yet, `horizon` becomes it, if there is one.
///
/// # Errors
/// Records that cannot be walked, or bytes behind them: then nothing is known of what the batch holds.
pub fn retain(
    header: &Header,
    section: &[u8],
    horizon: Option<Timestamp>,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<Left, RecordError> {
    let mut records = Records::new(section, header.record_count);
    let mut kept: Vec<(Range<usize>, Timestamp)> = Vec::new();
    let mut has_tombstone = header.attributes.is_control();
    let mut start = 0;
    while let Some(record) = records.next() {
        let record = record?;
        let end = section.len() - records.rest().len();
        if keep(&record) {
            has_tombstone |= record.value.is_none();
            kept.push((start..end, record.timestamp(header)));
        }
        start = end;
    }
    if !records.rest().is_empty() {
        return Err(RecordError::Trailing);
    }
    let horizon = horizon.filter(|_| has_tombstone && !header.attributes.has_delete_horizon());
    if kept.is_empty() {
        return Ok(Left::Nothing);
    }
    if kept.len() == header.record_count as usize && horizon.is_none() {
        return Ok(Left::Whole);
    }
    let mut output = Vec::with_capacity(kept.iter().map(|(range, _)| range.len() + 4).sum());
    for (range, timestamp) in &kept {
        match horizon {
            Some(horizon) => put_rebased(&mut output, &section[range.clone()], timestamp.0.wrapping_sub(horizon.0)),
            None => output.extend_from_slice(&section[range.clone()]),
        }
    }
    let max_timestamp = match header.attributes.is_log_append_time() {
        true => header.max_timestamp,
        false => kept.iter().map(|(_, timestamp)| *timestamp).max().expect("at least one is kept"),
    };
    let codec = Codec::from_number(header.attributes.codec()).ok_or(RecordError::Codec(header.attributes.codec()))?;
    let header = Header { max_timestamp, record_count: kept.len() as i32, ..*header };
    let (base_timestamp, flags) = match horizon {
        Some(horizon) => (horizon, header.attributes.0 | DELETE_HORIZON),
        None => (header.base_timestamp, header.attributes.0),
    };
    let records = if codec == Codec::None { output } else { compress(codec, None, &output) };
    Ok(Left::Some(assemble(&Header { base_timestamp, ..header }, flags, &records)))
}

/// The batch without any record: its header, which keeps the offsets and the producer's last sequence known.
pub fn without_records(header: &Header) -> Vec<u8> {
    // As Kafka writes it: not compressed, no delete horizon, no base timestamp.
    let flags = header.attributes.0 & !(CODEC | DELETE_HORIZON);
    let header = Header { base_timestamp: Timestamp::NONE, record_count: 0, ..*header };
    assemble(&header, flags, &[])
}

/// The batch with its records, which `section` is, compressed by another codec.
pub fn recompressed(header: &Header, section: &[u8], codec: Codec, level: Option<i32>) -> Vec<u8> {
    let flags = header.attributes.0 & !CODEC | i16::from(codec.number());
    match codec {
        Codec::None => assemble(header, flags, section),
        codec => assemble(header, flags, &compress(codec, level, section)),
    }
}

fn assemble(header: &Header, attributes: i16, records: &[u8]) -> Vec<u8> {
    let length = i32::try_from(HEADER_SIZE - PREFIX_SIZE + records.len()).expect("bounded by what was decompressed");
    let mut bytes = Vec::with_capacity(HEADER_SIZE + records.len());
    bytes.extend_from_slice(&header.base_offset.0.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&header.leader_epoch.0.to_be_bytes());
    bytes.push(MAGIC as u8);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&attributes.to_be_bytes());
    bytes.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    bytes.extend_from_slice(&header.base_timestamp.0.to_be_bytes());
    bytes.extend_from_slice(&header.max_timestamp.0.to_be_bytes());
    bytes.extend_from_slice(&header.producer_id.0.to_be_bytes());
    bytes.extend_from_slice(&header.producer_epoch.0.to_be_bytes());
    bytes.extend_from_slice(&header.base_sequence.0.to_be_bytes());
    bytes.extend_from_slice(&header.record_count.to_be_bytes());
    debug_assert_eq!(bytes.len(), HEADER_SIZE);
    bytes.extend_from_slice(records);
    batch::stamp_crc(&mut bytes);
    bytes
}

/// Appends a record, which was walked and so is sound, with another timestamp delta.
fn put_rebased(output: &mut Vec<u8>, record: &[u8], timestamp_delta: i64) {
    const SOUND: &str = "the record was walked";
    let mut rest = record;
    take_varint(&mut rest).expect(SOUND);
    let (attributes, mut rest) = rest.split_first().expect(SOUND);
    take_varlong(&mut rest).expect(SOUND);
    put_varlong(output, (1 + varlong_size(timestamp_delta) + rest.len()) as i64);
    output.push(*attributes);
    put_varlong(output, timestamp_delta);
    output.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::MIB;
    use crate::model::builder::BatchBuilder;
    use crate::model::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
    use crate::model::records::section;

    type Row = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

    /// Records 0 to 5 at offsets 100 to 105; odd ones are tombstones.
    fn sample(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).base_offset(Offset(100)).leader_epoch(LeaderEpoch(4)).producer(
            ProducerId(7),
            ProducerEpoch(1),
            Sequence(9),
        );
        for at in 0..6_i64 {
            let value = (at % 2 == 0).then_some(&b"value"[..]);
            builder.push(Timestamp(1000 - at), Some(&[b'k', at as u8]), value, &[("h", Some(b"x")), ("n", None)]);
        }
        builder.build()
    }

    fn rows(bytes: &[u8]) -> Vec<Row> {
        let header = Header::parse(bytes).expect("a header");
        assert_eq!((header.size_bytes, header.crc), (bytes.len(), batch::crc_of(bytes)));
        let section = section(&header, bytes, MIB).expect("it decompresses");
        Records::new(&section, header.record_count)
            .map(|record| record.expect("sound"))
            .map(|r| {
                assert_eq!(r.headers.len(), 2);
                let (key, value) = (r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec));
                (r.offset(&header).0, r.timestamp(&header).0, key, value)
            })
            .collect()
    }

    fn keeping(bytes: &[u8], horizon: i64, keep: impl Fn(i32) -> bool) -> Left {
        let header = Header::parse(bytes).expect("a header");
        let section = section(&header, bytes, MIB).expect("it decompresses");
        retain(&header, &section, Some(Timestamp(horizon)), |record| keep(record.offset_delta)).expect("sound")
    }

    #[test]
    fn kept_records_keep_offset_time_key_value_and_headers() {
        // Every subset of the records, with every codec; only the header fields that must change do.
        for codec in Codec::ALL {
            let before = sample(codec);
            let all = rows(&before);
            for subset in 0..64_u32 {
                let is_kept = |delta: i32| subset & (1 << delta) != 0;
                let expected: Vec<Row> = all.iter().filter(|row| is_kept((row.0 - 100) as i32)).cloned().collect();
                match keeping(&before, 5_000_000, is_kept) {
                    Left::Whole => panic!("it has tombstones, or not all is kept"),
                    Left::Nothing => assert_eq!(subset, 0),
                    Left::Some(after) => {
                        assert_eq!(rows(&after), expected, "{codec} {subset}");
                        let (old, new) = (Header::parse(&before).unwrap(), Header::parse(&after).unwrap());
                        let has_tombstone = subset & 0b101010 != 0;
                        assert_eq!(new.delete_horizon(), has_tombstone.then_some(Timestamp(5_000_000)));
                        assert_eq!(new.max_timestamp.0, expected.iter().map(|row| row.1).max().unwrap());
                        assert_eq!(new.record_count as usize, expected.len());
                        let unchanged = Header {
                            size_bytes: new.size_bytes,
                            crc: new.crc,
                            attributes: new.attributes,
                            base_timestamp: new.base_timestamp,
                            max_timestamp: new.max_timestamp,
                            record_count: new.record_count,
                            ..old
                        };
                        assert_eq!(unchanged, new);
                    }
                }
            }
        }
    }

    #[test]
    fn a_delete_horizon_is_set_once() {
        // The second pass finds one and leaves it; without tombstones there is none.
        let Left::Some(first) = keeping(&sample(Codec::Zstd), 5000, |_| true) else { panic!("it has tombstones") };
        assert_eq!(keeping(&first, 9000, |_| true), Left::Whole);
        let Left::Some(second) = keeping(&first, 9000, |delta| delta > 0) else { panic!("one goes") };
        assert_eq!(Header::parse(&second).unwrap().delete_horizon(), Some(Timestamp(5000)));
        let Left::Some(values) = keeping(&sample(Codec::None), 5000, |delta| delta % 2 == 0) else { panic!("some go") };
        assert_eq!(Header::parse(&values).unwrap().delete_horizon(), None);
        assert_eq!(keeping(&values, 5000, |_| true), Left::Whole);
    }

    #[test]
    fn a_batch_without_records_keeps_offsets_and_sequence() {
        let before = Header::parse(&sample(Codec::Gzip)).unwrap();
        let bytes = without_records(&before);
        assert_eq!(bytes.len(), HEADER_SIZE);
        let after = Header::parse(&bytes).unwrap();
        assert_eq!((after.base_offset, after.next_offset()), (before.base_offset, before.next_offset()));
        assert_eq!(after.base_sequence.plus(after.last_offset_delta), Sequence(14));
        assert_eq!((after.producer_id, after.producer_epoch), (before.producer_id, before.producer_epoch));
        assert_eq!((after.attributes.0, after.record_count), (0, 0));
        assert!(rows(&bytes).is_empty());
    }

    #[test]
    fn recompressing_changes_the_codec_only() {
        for (from, to) in Codec::ALL.into_iter().flat_map(|from| Codec::ALL.map(|to| (from, to))) {
            let before = sample(from);
            let header = batch::validate(&before).expect("sound");
            let section = section(&header, &before, MIB).expect("it decompresses");
            let after = recompressed(&header, &section, to, None);
            let changed = batch::validate(&after).expect("sound");
            assert_eq!(changed.attributes.codec(), to.number());
            assert_eq!(rows(&after), rows(&before));
        }
    }

    #[test]
    fn bytes_behind_the_records_are_an_error() {
        let before = sample(Codec::None);
        let header = Header { record_count: 5, ..Header::parse(&before).unwrap() };
        let result = retain(&header, &before[HEADER_SIZE..], Some(Timestamp(0)), |_| true);
        assert_eq!(result, Err(RecordError::Trailing));
    }
}
