//! The records of `__consumer_offsets` and their bytes, which are Kafka's, so that its tools read them.
//!
//! A key begins with its version, which also says what kind of record it is; a value begins with a version of its own,
//! and a record without a value takes back what its key stands for. Integers are big-endian, a text is an i16 length
//! (-1: null) and UTF-8.
//! ```text
//! key 0, 1    group text, topic text, partition i32                          a committed offset
//!   value 0   offset i64, metadata text, commit timestamp i64
//!   value 1   offset i64, metadata text, commit timestamp i64, expire timestamp i64
//!   value 2   as 0
//!   value 3   offset i64, leader epoch i32, metadata text, commit timestamp i64
//!   value 4   as 3, compact lengths, tagged fields
//! key 2       group text                                                     a group and its members
//!   value     protocol type text, generation i32, protocol text or null, leader text or null,
//!             (from 2) time of the state i64, members: i32 count, each
//!               member id text, (from 3) group instance id text or null, client id text, client host text,
//!               (from 1) rebalance timeout i32, session timeout i32, subscription bytes, assignment bytes
//!             where bytes have an i32 length; 4 is as 3 with compact lengths and tagged fields
//! ```
//! A committed offset is written as value 3, or 1 if the client gave it a retention of its own, a group as value 3, as
//! Kafka does.
//!
//! Records of a kind or version that is not known are passed over: a newer broker may have written them. Bytes that
//! are not what their version says are an error, which the reader passes over too, but tells.
//!
//! It must not know batches or where records are kept.

use bytes::Bytes;

use crate::base::time::Timestamp;
use crate::coordinator::group::snapshot::{GroupSnapshot, MemberSnapshot};
use crate::coordinator::offsets::CommittedOffset;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex};
use crate::protocol::DecodeError;
use crate::protocol::wire::{self, Reader};

/// Longest text that a key or a value can hold, in bytes.
pub const TEXT_SIZE_BYTES_MAX: usize = i16::MAX as usize;

/// A record as it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub key: Vec<u8>,
    /// What is so from now on; `None` takes it back.
    pub value: Option<Vec<u8>>,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// What a group has committed for a partition.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition within it.
        partition: PartitionIndex,
    },
    /// A group itself.
    Group {
        /// Its id.
        group: String,
    },
    /// A kind of record that this broker does not know.
    Unknown(i16),
}

impl Record {
    /// A group has committed an offset.
    ///
    /// Names and metadata must not be longer than [`TEXT_SIZE_BYTES_MAX`].
    pub fn offset(group: &str, topic: &str, partition: PartitionIndex, committed: &CommittedOffset) -> Record {
        let mut value = Vec::with_capacity(26 + committed.metadata.len());
        match committed.expire_timestamp {
            None => {
                wire::put_i16(&mut value, 3);
                wire::put_i64(&mut value, committed.offset.0);
                wire::put_i32(&mut value, committed.leader_epoch.0);
                put_text(&mut value, &committed.metadata);
                wire::put_i64(&mut value, committed.commit_timestamp.0);
            }
            Some(expire_timestamp) => {
                wire::put_i16(&mut value, 1);
                wire::put_i64(&mut value, committed.offset.0);
                put_text(&mut value, &committed.metadata);
                wire::put_i64(&mut value, committed.commit_timestamp.0);
                wire::put_i64(&mut value, expire_timestamp.0);
            }
        }
        Record { key: offset_key(group, topic, partition), value: Some(value) }
    }

    /// What a group has committed for a partition is forgotten.
    pub fn offset_tombstone(group: &str, topic: &str, partition: PartitionIndex) -> Record {
        Record { key: offset_key(group, topic, partition), value: None }
    }

    /// A group has these members, or none.
    ///
    /// Texts must not be longer than [`TEXT_SIZE_BYTES_MAX`].
    pub fn group(group: &str, snapshot: &GroupSnapshot) -> Record {
        let put_text_or_null = |out: &mut Vec<u8>, text: Option<&str>| match text {
            Some(text) => put_text(out, text),
            None => wire::put_text(out, false, None),
        };
        let mut value = Vec::with_capacity(64);
        wire::put_i16(&mut value, 3);
        // Null on no account: what has no type has an empty one.
        put_text(&mut value, snapshot.protocol_type.as_deref().unwrap_or_default());
        wire::put_i32(&mut value, snapshot.generation);
        put_text_or_null(&mut value, snapshot.protocol.as_deref());
        put_text_or_null(&mut value, snapshot.leader.as_deref());
        wire::put_i64(&mut value, snapshot.current_state_timestamp.0);
        wire::put_length(&mut value, false, Some(snapshot.members.len()));
        for member in &snapshot.members {
            put_text(&mut value, &member.member_id);
            put_text_or_null(&mut value, member.group_instance_id.as_deref());
            put_text(&mut value, &member.client_id);
            put_text(&mut value, &member.client_host);
            wire::put_i32(&mut value, member.rebalance_timeout_ms);
            wire::put_i32(&mut value, member.session_timeout_ms);
            for bytes in [&member.subscription, &member.assignment] {
                wire::put_length(&mut value, false, Some(bytes.len()));
                value.extend_from_slice(bytes);
            }
        }
        Record { key: group_key(group), value: Some(value) }
    }

    /// A group is forgotten. What it has committed has records of its own.
    pub fn group_tombstone(group: &str) -> Record {
        Record { key: group_key(group), value: None }
    }

    /// Bytes of key and value.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The key of a record.
pub fn decode_key(bytes: &[u8]) -> Result<Key, DecodeError> {
    let mut reader = Reader::new(bytes, 0);
    Ok(match reader.i16()? {
        0 | 1 => Key::Offset {
            group: text(bytes, &mut reader, false)?,
            topic: text(bytes, &mut reader, false)?,
            partition: PartitionIndex(reader.i32()?),
        },
        2 => Key::Group { group: text(bytes, &mut reader, false)? },
        version => Key::Unknown(version),
    })
}

/// The value of a [`Key::Offset`]; `None` if its version is not known.
pub fn decode_offset(bytes: &[u8]) -> Result<Option<CommittedOffset>, DecodeError> {
    let mut reader = Reader::new(bytes, 0);
    let version = reader.i16()?;
    if !(0..=4).contains(&version) {
        return Ok(None);
    }
    let flexible = version >= 4;
    let offset = Offset(reader.i64()?);
    let leader_epoch = if version >= 3 { LeaderEpoch(reader.i32()?) } else { LeaderEpoch::NONE };
    let metadata = text(bytes, &mut reader, flexible)?.into();
    let commit_timestamp = Timestamp(reader.i64()?);
    let expire_timestamp = if version == 1 { Some(Timestamp(reader.i64()?)) } else { None };
    if flexible {
        reader.skip_tagged_fields()?;
    }
    let expire_timestamp = expire_timestamp.filter(|at| *at != Timestamp::NONE);
    Ok(Some(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp }))
}

/// The value of a [`Key::Group`]; `None` if its version is not known.
pub fn decode_group(bytes: &[u8]) -> Result<Option<GroupSnapshot>, DecodeError> {
    /// What a member takes at least: four lengths, a timeout.
    const MEMBER_SIZE_BYTES_MIN: usize = 8;
    let mut reader = Reader::new(bytes, 0);
    let version = reader.i16()?;
    if !(0..=4).contains(&version) {
        return Ok(None);
    }
    let flexible = version >= 4;
    let protocol_type = text(bytes, &mut reader, flexible)?;
    let mut snapshot = GroupSnapshot {
        protocol_type: (!protocol_type.is_empty()).then(|| protocol_type.into()),
        generation: reader.i32()?,
        protocol: text_or_null(bytes, &mut reader, flexible)?,
        leader: text_or_null(bytes, &mut reader, flexible)?,
        current_state_timestamp: if version >= 2 { Timestamp(reader.i64()?) } else { Timestamp::NONE },
        members: Vec::new(),
    };
    let count = reader.count(flexible, MEMBER_SIZE_BYTES_MIN)?;
    for _ in 0..count {
        snapshot.members.push(MemberSnapshot {
            member_id: text(bytes, &mut reader, flexible)?.into(),
            group_instance_id: if version >= 3 { text_or_null(bytes, &mut reader, flexible)? } else { None },
            client_id: text(bytes, &mut reader, flexible)?.into(),
            client_host: text(bytes, &mut reader, flexible)?.into(),
            rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
            session_timeout_ms: reader.i32()?,
            subscription: blob(bytes, &mut reader, flexible)?,
            assignment: blob(bytes, &mut reader, flexible)?,
        });
        if flexible {
            reader.skip_tagged_fields()?;
        }
    }
    if flexible {
        reader.skip_tagged_fields()?;
    }
    Ok(Some(snapshot))
}

fn group_key(group: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + group.len());
    wire::put_i16(&mut key, 2);
    put_text(&mut key, group);
    key
}

fn offset_key(group: &str, topic: &str, partition: PartitionIndex) -> Vec<u8> {
    let mut key = Vec::with_capacity(10 + group.len() + topic.len());
    wire::put_i16(&mut key, 1);
    put_text(&mut key, group);
    put_text(&mut key, topic);
    wire::put_i32(&mut key, partition.0);
    key
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= TEXT_SIZE_BYTES_MAX);
    wire::put_text(out, false, Some(text));
}

fn text(bytes: &[u8], reader: &mut Reader<'_>, flexible: bool) -> Result<String, DecodeError> {
    let range = reader.text_range(flexible)?;
    Ok(wire::text(bytes, range).to_owned())
}

fn text_or_null(bytes: &[u8], reader: &mut Reader<'_>, flexible: bool) -> Result<Option<Box<str>>, DecodeError> {
    let range = reader.text_range_or_null(flexible)?;
    Ok(range.map(|range| wire::text(bytes, range).into()))
}

fn blob(bytes: &[u8], reader: &mut Reader<'_>, flexible: bool) -> Result<Bytes, DecodeError> {
    let range = reader.bytes_range_or_null(flexible)?.ok_or(DecodeError::Null)?;
    Ok(Bytes::copy_from_slice(&bytes[range]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(expire: Option<i64>) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(0x0102_0304_0506_0708),
            leader_epoch: if expire.is_none() { LeaderEpoch(9) } else { LeaderEpoch::NONE },
            metadata: "note".into(),
            commit_timestamp: Timestamp(0x0111_1111_1111_1111),
            expire_timestamp: expire.map(Timestamp),
        }
    }

    #[test]
    fn an_offsets_bytes_are_those_of_kafkas_schema() {
        // OffsetCommitKey 1 and OffsetCommitValue 3, by hand from their schemas.
        let record = Record::offset("grp", "top", PartitionIndex(7), &committed(None));
        let key = [&[0, 1][..], &[0, 3], b"grp", &[0, 3], b"top", &[0, 0, 0, 7]].concat();
        let value = [&[0, 3, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0, 0, 0, 9], &[0, 4], b"note", &[1], &[0x11; 7]].concat();
        assert_eq!((&record.key, record.value.as_ref()), (&key, Some(&value)));
        let read = Key::Offset { group: "grp".into(), topic: "top".into(), partition: PartitionIndex(7) };
        assert_eq!(decode_key(&key), Ok(read));
        assert_eq!(decode_offset(&value), Ok(Some(committed(None))));
        assert_eq!(Record::offset_tombstone("grp", "top", PartitionIndex(7)), Record { key, value: None });
    }

    #[test]
    fn every_version_of_an_offset_is_read() {
        // By hand: 0 and 2 have no epoch, 1 has an expire timestamp, 4 compact lengths and tagged fields.
        let head = [1, 2, 3, 4, 5, 6, 7, 8];
        let times = |count: usize| vec![0x11_u8; 8 * count];
        let note = [&[0, 4][..], b"note"].concat();
        let zero = [&[0, 0][..], &head, &note, &times(1)].concat();
        let two = [&[0, 2][..], &head, &note, &times(1)].concat();
        let one = [&[0, 1][..], &head, &note, &times(2)].concat();
        let four = [&[0, 4][..], &head, &[0, 0, 0, 9], &[5], b"note", &times(1), &[1, 0, 2, 0xaa, 0xbb]].concat();
        let eleven = Timestamp(0x1111_1111_1111_1111);
        let plain = CommittedOffset { commit_timestamp: eleven, leader_epoch: LeaderEpoch::NONE, ..committed(None) };
        assert_eq!(decode_offset(&zero), Ok(Some(plain.clone())));
        assert_eq!(decode_offset(&two), Ok(Some(plain.clone())));
        let expiring = CommittedOffset { expire_timestamp: Some(eleven), ..plain.clone() };
        assert_eq!(decode_offset(&one), Ok(Some(expiring)));
        assert_eq!(decode_offset(&four), Ok(Some(CommittedOffset { leader_epoch: LeaderEpoch(9), ..plain })));
        let record = Record::offset("g", "t", PartitionIndex(0), &committed(Some(5)));
        let value = record.value.expect("an offset");
        assert_eq!(value[..2], [0, 1]);
        assert_eq!(decode_offset(&value), Ok(Some(committed(Some(5)))));
    }

    fn snapshot() -> GroupSnapshot {
        let member = |id: &str, instance: Option<&str>| MemberSnapshot {
            member_id: id.into(),
            group_instance_id: instance.map(Into::into),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 5,
            session_timeout_ms: 6,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        };
        GroupSnapshot {
            protocol_type: Some("consumer".into()),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            current_state_timestamp: Timestamp(7),
            members: vec![member("m1", None), member("m2", Some("i"))],
        }
    }

    #[test]
    fn a_groups_bytes_are_those_of_kafkas_schema() {
        // GroupMetadataKey 2 and GroupMetadataValue 3, by hand from their schemas.
        let record = Record::group("grp", &snapshot());
        let head = [&[0, 3][..], &[0, 8], b"consumer", &[0, 0, 0, 4], &[0, 5], b"range", &[0, 2], b"m1"].concat();
        let time = [0, 0, 0, 0, 0, 0, 0, 7];
        let tail = [&[0, 1][..], b"c", &[0, 2], b"/h", &[0, 0, 0, 5], &[0, 0, 0, 6]].concat();
        let blobs = [0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 3];
        let first = [&[0, 2][..], b"m1", &[0xff, 0xff], &tail, &blobs].concat();
        let second = [&[0, 2][..], b"m2", &[0, 1], b"i", &tail, &blobs].concat();
        let value = [&head[..], &time, &[0, 0, 0, 2], &first, &second].concat();
        assert_eq!(record, Record { key: [&[0, 2, 0, 3][..], b"grp"].concat(), value: Some(value.clone()) });
        assert_eq!(decode_key(&record.key), Ok(Key::Group { group: "grp".into() }));
        assert_eq!(decode_group(&value), Ok(Some(snapshot())));
        for length in 0..value.len() {
            assert!(decode_group(&value[..length]).is_err(), "{length}");
        }
        assert_eq!(Record::group_tombstone("grp"), Record { key: record.key, value: None });

        // An empty group: no protocol, no leader, no member.
        let empty = GroupSnapshot { protocol: None, leader: None, members: vec![], ..snapshot() };
        let value = Record::group("grp", &empty).value.expect("a value");
        let bytes = [&[0, 3][..], &[0, 8], b"consumer", &[0, 0, 0, 4], &[0xff; 4], &time, &[0; 4]].concat();
        assert_eq!(value, bytes);
        assert_eq!(decode_group(&bytes), Ok(Some(empty)));
    }

    #[test]
    fn every_version_of_a_group_is_read() {
        // By hand: what a version does not have is unknown.
        let head = [&[0, 8][..], b"consumer", &[0, 0, 0, 4], &[0, 5], b"range", &[0, 2], b"m1"].concat();
        let names = [&[0, 1][..], b"c", &[0, 2], b"/h"].concat();
        let blobs = [0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 3];
        let (id, rebalance, session) = ([&[0, 2][..], b"m1"].concat(), [0, 0, 0, 5], [0, 0, 0, 6]);
        let mut expected = snapshot();
        expected.members.truncate(1);
        let two =
            [&[0, 2][..], &head, &[0, 0, 0, 0, 0, 0, 0, 7], &[0, 0, 0, 1], &id, &names, &rebalance, &session, &blobs];
        assert_eq!(decode_group(&two.concat()), Ok(Some(expected.clone())));
        expected.current_state_timestamp = Timestamp::NONE;
        let one = [&[0, 1][..], &head, &[0, 0, 0, 1], &id, &names, &rebalance, &session, &blobs];
        assert_eq!(decode_group(&one.concat()), Ok(Some(expected.clone())));
        expected.members[0].rebalance_timeout_ms = -1;
        let zero = [&[0, 0][..], &head, &[0, 0, 0, 1], &id, &names, &session, &blobs];
        assert_eq!(decode_group(&zero.concat()), Ok(Some(expected)));

        let head = [&[0, 4, 9][..], b"consumer", &[0, 0, 0, 4], &[6], b"range", &[3], b"m1"].concat();
        let time = [0, 0, 0, 0, 0, 0, 0, 7];
        let tail = [&[2][..], b"c", &[3], b"/h", &[0, 0, 0, 5], &[0, 0, 0, 6], &[3, 1, 2, 2, 3], &[0]].concat();
        let members = [&[3][..], &[3], b"m1", &[0], &tail, &[3], b"m2", &[2], b"i", &tail].concat();
        let four = [&head[..], &time, &members, &[1, 0, 1, 0xaa]].concat();
        assert_eq!(decode_group(&four), Ok(Some(snapshot())));
        assert_eq!(decode_group(&[0, 5]), Ok(None));
    }

    #[test]
    fn what_is_not_known_is_no_error_and_what_is_broken_is() {
        assert_eq!(decode_key(&[0, 9, 1]), Ok(Key::Unknown(9)));
        assert_eq!(decode_key(&[0xff, 0xff]), Ok(Key::Unknown(-1)));
        assert_eq!(decode_offset(&[0, 5]), Ok(None));
        let record = Record::offset("group", "topic", PartitionIndex(7), &committed(None));
        let value = record.value.expect("an offset");
        for length in 0..record.key.len() {
            assert!(decode_key(&record.key[..length]).is_err(), "{length}");
        }
        for length in 0..value.len() {
            assert!(decode_offset(&value[..length]).is_err(), "{length}");
        }
    }
}
