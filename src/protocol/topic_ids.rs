//! Version 10 of the OffsetCommit and OffsetFetch requests, which `kafka-protocol` ends before: as 9, but that a topic
//! goes by its id and not by its name (KIP-848).
//!
//! The body is rewritten. In the one that `kafka-protocol` reads, the id stands in the name's place as the text that
//! Kafka prints it as; the handler asks [`TopicId`] for it. The responses of version 10 `kafka-protocol` has.
//!
//! Invariant: what [`to_named`] makes is at most half as long again as what it was made of.

use bytes::Bytes;

use crate::model::id::TopicId;
use crate::protocol::wire::{self, DecodeError, Reader};

/// The version that names topics by id.
const BY_ID: i16 = 10;

/// What a body is made of, lengths being compact.
enum Part {
    Fixed(usize),
    Text,
    Topic,
    /// Structures or, where null is allowed, none.
    Array(&'static [Part]),
    Tags,
}

use Part::{Array, Fixed, Tags, Text, Topic};

static OFFSET_COMMIT: &[Part] =
    &[Text, Fixed(4), Text, Text, Array(&[Topic, Array(&[Fixed(16), Text, Tags]), Tags]), Tags];

static OFFSET_FETCH: &[Part] =
    &[Array(&[Text, Text, Fixed(4), Array(&[Topic, Array(&[Fixed(4)]), Tags]), Tags]), Fixed(1), Tags];

fn parts_of(api_key: i16, version: i16) -> Option<&'static [Part]> {
    match (api_key, version) {
        (8, BY_ID) => Some(OFFSET_COMMIT),
        (9, BY_ID) => Some(OFFSET_FETCH),
        _ => None,
    }
}

/// True if requests of this version are rewritten.
pub(crate) fn is_rewritten(api_key: i16, version: i16) -> bool {
    parts_of(api_key, version).is_some()
}

/// A body of version 10 as one of version 9, and how many bytes of the old one it is made of: what follows is not
/// part of it.
pub(crate) fn to_named(api_key: i16, body: &[u8]) -> Result<(Bytes, usize), DecodeError> {
    rewrite(api_key, body, |reader, body, out| {
        let range = reader.skip(16)?;
        let id = TopicId(uuid::Uuid::from_slice(&body[range]).expect("it has 16 bytes"));
        wire::put_text(out, true, Some(&id.to_string()));
        Ok(())
    })
}

/// A body of version 9, in whose names ids stand, as one of version 10.
pub(crate) fn to_ids(api_key: i16, body: &[u8]) -> Result<Bytes, DecodeError> {
    let (body, _) = rewrite(api_key, body, |reader, body, out| {
        let range = reader.text_range(true)?;
        let id: TopicId = wire::text(body, range).parse().map_err(|_| DecodeError::Invalid("topic id"))?;
        out.extend_from_slice(id.0.as_bytes());
        Ok(())
    })?;
    Ok(body)
}

type PutTopic = fn(&mut Reader<'_>, &[u8], &mut Vec<u8>) -> Result<(), DecodeError>;

fn rewrite(api_key: i16, body: &[u8], put_topic: PutTopic) -> Result<(Bytes, usize), DecodeError> {
    let parts = parts_of(api_key, BY_ID).ok_or(DecodeError::UnsupportedVersion { api_key, version: BY_ID })?;
    let mut out = Vec::with_capacity(body.len() + body.len() / 2);
    let mut reader = Reader::new(body, 0);
    structure(parts, &mut reader, body, &mut out, put_topic)?;
    Ok((out.into(), reader.at()))
}

fn structure(
    parts: &[Part],
    reader: &mut Reader<'_>,
    body: &[u8],
    out: &mut Vec<u8>,
    put_topic: PutTopic,
) -> Result<(), DecodeError> {
    for part in parts {
        let start = reader.at();
        match part {
            Fixed(size_bytes) => {
                reader.skip(*size_bytes)?;
            }
            Text => {
                reader.text_range_or_null(true)?;
            }
            Tags => {
                reader.skip_tagged_fields()?;
            }
            Topic => {
                put_topic(reader, body, out)?;
                continue;
            }
            Array(parts) => {
                let count = reader.count_or_null(true, 1)?;
                out.extend_from_slice(&body[start..reader.at()]);
                for _ in 0..count.unwrap_or(0) {
                    structure(parts, reader, body, out, put_topic)?;
                }
                continue;
            }
        }
        out.extend_from_slice(&body[start..reader.at()]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const NAME: &[u8] = b"\x17AAAAAAAAAAAAAAAAAAAAAQ";

    #[test]
    fn an_offset_commit_by_id_becomes_one_by_name_and_back() {
        // By hand from the schema: one topic with one partition, whose metadata is null.
        let head = [&[2][..], b"g", &[0, 0, 0, 3], &[2], b"m", &[0], &[2]].concat();
        let tail = [&[2][..], &[0, 0, 0, 7], &[0, 0, 0, 0, 0, 0, 0, 9], &[0, 0, 0, 1], &[0], &[0], &[0], &[0]].concat();
        let by_id = [&head[..], &ID, &tail].concat();
        let by_name = [&head[..], NAME, &tail].concat();
        let with_rest = [&by_id[..], &[1, 2, 3]].concat();
        assert_eq!(to_named(8, &with_rest), Ok((Bytes::from(by_name.clone()), by_id.len())));
        assert_eq!(to_ids(8, &by_name), Ok(Bytes::from(by_id.clone())));
        for length in 0..by_id.len() {
            assert!(to_named(8, &by_id[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn an_offset_fetch_by_id_becomes_one_by_name_and_back() {
        // One group that asks for one topic, one that asks for all.
        let first = [&[2][..], b"g", &[0], &[0xff; 4], &[2]].concat();
        let partitions = [3, 0, 0, 0, 1, 0, 0, 0, 2, 0];
        let second = [&[2][..], b"h", &[2], b"m", &[0, 0, 0, 1], &[0], &[0]].concat();
        let by_id = [&[3][..], &first, &ID, &partitions, &[0], &second, &[1], &[0]].concat();
        let by_name = [&[3][..], &first, NAME, &partitions, &[0], &second, &[1], &[0]].concat();
        assert_eq!(to_named(9, &by_id), Ok((Bytes::from(by_name.clone()), by_id.len())));
        assert_eq!(to_ids(9, &by_name), Ok(Bytes::from(by_id)));
    }

    #[test]
    fn nothing_else_is_rewritten() {
        assert!(is_rewritten(8, 10) && is_rewritten(9, 10));
        assert!(!is_rewritten(8, 9) && !is_rewritten(9, 11) && !is_rewritten(10, 10));
        assert!(to_ids(8, b"\x02g\0\0\0\x03\x02m\0\x02\x02x").is_err());
    }
}
