//! The records of `__transaction_state` and their bytes, which are Kafka's, so that its tools read them.
//!
//! Integers are big-endian, a text is an i16 length and UTF-8; a value without bytes takes the id back.
//! ```text
//! key 0       transactional id text
//!   value 0   producer id i64, epoch i16, timeout i32 ms, state i8,
//!             partitions: i32 count (-1: none, when Empty), each topic text, i32 count, that many i32,
//!             last update i64, start i64
//!   value 1   as 0 with compact lengths and tagged fields: 0 previous producer id, 1 next producer id,
//!             2 transaction protocol of the client i16
//! ```
//! Value 1 is written where a tagged field has something to say, else value 0: as Kafka does with and without
//! `transaction.version`.
//!
//! It must not know batches or where records are kept.

use std::collections::BTreeSet;

use super::metadata::{Metadata, Partitions, TransactionState};
use crate::base::time::Timestamp;
use crate::coordinator::records::Record;
use crate::model::id::{PartitionIndex, ProducerEpoch, ProducerId};
use crate::protocol::DecodeError;
use crate::protocol::wire::{self, Reader};

/// The record of an id, or the one that takes it back.
pub fn record(transactional_id: &str, metadata: Option<&Metadata>) -> Record {
    let mut key = Vec::with_capacity(4 + transactional_id.len());
    wire::put_i16(&mut key, 0);
    wire::put_text(&mut key, false, Some(transactional_id));
    Record { key, value: metadata.map(value) }
}

fn value(metadata: &Metadata) -> Vec<u8> {
    let tags = [
        (0, metadata.previous_producer_id.0, metadata.is_v2()),
        (1, metadata.next_producer_id.0, metadata.is_v2()),
        (2, i64::from(metadata.client_version), metadata.client_version != 0),
    ];
    let tags: Vec<_> = tags.into_iter().filter(|(_, value, is_told)| *is_told && *value != -1).collect();
    let flexible = !tags.is_empty();
    let mut out = Vec::with_capacity(64);
    wire::put_i16(&mut out, i16::from(flexible));
    wire::put_i64(&mut out, metadata.producer_id.0);
    wire::put_i16(&mut out, metadata.producer_epoch.0);
    wire::put_i32(&mut out, metadata.timeout_ms);
    out.push(metadata.state as u8);
    let has_partitions = metadata.state != TransactionState::Empty;
    wire::put_length(&mut out, flexible, has_partitions.then_some(metadata.partitions.len()));
    for (topic, indexes) in metadata.partitions.iter().filter(|_| has_partitions) {
        wire::put_text(&mut out, flexible, Some(topic));
        wire::put_length(&mut out, flexible, Some(indexes.len()));
        indexes.iter().for_each(|index| wire::put_i32(&mut out, index.0));
        if flexible {
            wire::put_uvarint(&mut out, 0);
        }
    }
    wire::put_i64(&mut out, metadata.last_update.0);
    wire::put_i64(&mut out, metadata.start.0);
    if flexible {
        wire::put_uvarint(&mut out, tags.len() as u32);
        for (tag, value, _) in tags {
            wire::put_uvarint(&mut out, tag);
            match tag {
                2 => {
                    wire::put_uvarint(&mut out, 2);
                    wire::put_i16(&mut out, value as i16);
                }
                _ => {
                    wire::put_uvarint(&mut out, 8);
                    wire::put_i64(&mut out, value);
                }
            }
        }
    }
    out
}

/// The transactional id of a key; `None` if it is of a kind that is not known.
pub fn decode_key(bytes: &[u8]) -> Result<Option<String>, DecodeError> {
    let mut reader = Reader::new(bytes, 0);
    if reader.i16()? != 0 {
        return Ok(None);
    }
    let range = reader.text_range(false)?;
    Ok(Some(wire::text(bytes, range).to_owned()))
}

/// The value of an id; `None` if its version is not known.
pub fn decode_value(bytes: &[u8]) -> Result<Option<Metadata>, DecodeError> {
    let mut reader = Reader::new(bytes, 0);
    let version = reader.i16()?;
    if !(0..=1).contains(&version) {
        return Ok(None);
    }
    let flexible = version >= 1;
    let producer_id = ProducerId(reader.i64()?);
    let mut metadata = Metadata::new(producer_id, 0, Timestamp::NONE);
    metadata.producer_epoch = ProducerEpoch(reader.i16()?);
    metadata.timeout_ms = reader.i32()?;
    let state = TransactionState::from_number(reader.i8()?).ok_or(DecodeError::Invalid("transaction state"))?;
    metadata.state = state;
    let mut partitions = Partitions::new();
    for _ in 0..reader.count_or_null(flexible, 3)?.unwrap_or(0) {
        let range = reader.text_range(flexible)?;
        let topic = wire::text(bytes, range);
        let mut indexes = BTreeSet::new();
        for _ in 0..reader.count(flexible, 4)? {
            indexes.insert(PartitionIndex(reader.i32()?));
        }
        if flexible {
            reader.skip_tagged_fields()?;
        }
        partitions.insert(topic.into(), indexes);
    }
    metadata.partitions = partitions;
    metadata.last_update = Timestamp(reader.i64()?);
    metadata.start = Timestamp(reader.i64()?);
    if flexible {
        for _ in 0..reader.uvarint()? {
            let (tag, size) = (reader.uvarint()?, reader.uvarint()?);
            match (tag, size) {
                (0, 8) => metadata.previous_producer_id = ProducerId(reader.i64()?),
                (1, 8) => metadata.next_producer_id = ProducerId(reader.i64()?),
                (2, 2) => metadata.client_version = reader.i16()?,
                (_, size) => _ = reader.skip(size as usize)?,
            }
        }
    }
    Ok(Some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ongoing() -> Metadata {
        let mut metadata = Metadata::new(ProducerId(0x0102_0304), 60_000, Timestamp(7));
        metadata.producer_epoch = ProducerEpoch(5);
        metadata.state = TransactionState::Ongoing;
        metadata.start = Timestamp(6);
        metadata.partitions.insert("top".into(), BTreeSet::from([PartitionIndex(1), PartitionIndex(3)]));
        metadata
    }

    #[test]
    fn an_ids_bytes_are_those_of_kafkas_schema() {
        // TransactionLogKey 0 and TransactionLogValue 0 and 1, by hand from their schemas.
        let record = record("txn", Some(&ongoing()));
        assert_eq!(record.key, [&[0, 0, 0, 3][..], b"txn"].concat());
        let head = [0, 0, 0, 0, 1, 2, 3, 4, 0, 5, 0, 0, 0xea, 0x60, 1];
        let zero = [
            &[0, 0][..],
            &head,
            &[0, 0, 0, 1, 0, 3],
            b"top",
            &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 6],
        ]
        .concat();
        assert_eq!(record.value.as_deref(), Some(&zero[..]));
        assert_eq!(decode_key(&record.key), Ok(Some("txn".to_owned())));
        assert_eq!(decode_value(&zero), Ok(Some(ongoing())));

        let second = Metadata { client_version: 2, previous_producer_id: ProducerId(9), ..ongoing() };
        let one = [
            &[0, 1][..],
            &head,
            &[2, 4],
            b"top",
            &[3, 0, 0, 0, 1, 0, 0, 0, 3, 0],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 6],
            &[2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9, 2, 2, 0, 2],
        ]
        .concat();
        assert_eq!(super::record("txn", Some(&second)).value.as_deref(), Some(&one[..]));
        assert_eq!(decode_value(&one), Ok(Some(second)));

        let mut empty = Metadata::new(ProducerId(1), 5, Timestamp(7));
        empty.producer_epoch = ProducerEpoch(0);
        let value = super::record("txn", Some(&empty)).value.expect("a value");
        assert_eq!(value[17..21], [0xff; 4]);
        assert_eq!(decode_value(&value), Ok(Some(empty)));
        assert_eq!(super::record("txn", None).value, None);
    }

    #[test]
    fn what_is_not_known_is_no_error_and_what_is_broken_is() {
        assert_eq!(decode_key(&[0, 1, 0, 0]), Ok(None));
        assert_eq!(decode_value(&[0, 2]), Ok(None));
        let record = record("txn", Some(&Metadata { client_version: 2, ..ongoing() }));
        let value = record.value.expect("a value");
        for length in 0..value.len() {
            assert!(decode_value(&value[..length]).is_err(), "{length}");
        }
        for length in 0..record.key.len() {
            assert!(decode_key(&record.key[..length]).is_err(), "{length}");
        }
    }
}
