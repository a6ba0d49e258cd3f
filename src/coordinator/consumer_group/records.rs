//! The records of these groups in `__consumer_offsets`, in Kafka's own formats (4.0).
//!
//! Keys are as those of [`coordinator::records`](crate::coordinator::records): a version that says what kind of record
//! it is, texts with an i16 length. Values begin with a version, 0, have compact lengths and end in tagged fields, as
//! do their structures.
//! ```text
//! key 3   group                    the group            epoch i32, (tag 0: a hash of the topics, i64, from 4.1)
//! key 4   group                    its topics           [topic id, name, partition count i32, [partition, racks]]
//! key 5   group, member            a member             instance or null, rack or null, client id, client host,
//!                                                       [topic], regex or null, rebalance timeout i32, assignor or
//!                                                       null, tag 0: session timeout i32, [protocol, metadata]
//! key 6   group                    the targets          epoch i32
//! key 7   group, member            a target             [topic id, [partition i32]]
//! key 8   group, member            where a member is    epoch i32, previous epoch i32, state i8,
//!                                                       assigned [topic id, [partition]], to be revoked [the same]
//! key 16  group, pattern           what it matches      [topic], version of the metadata i64, timestamp i64
//! ```
//! Racks of partitions, which Kafka stopped to write with 4.0, are passed over.
//!
//! It must not know batches or where records are kept.

use std::sync::Arc;

use bytes::Bytes;

use super::change::{Change, Resolved, Subscribed};
use super::member::{ClassicProfile, Current, MemberState, Profile};
use super::{Assignment, Topic, assignment_of};
use crate::base::time::Timestamp;
use crate::coordinator::group::event::Protocol;
use crate::coordinator::records::Record;
use crate::model::id::TopicId;
use crate::protocol::DecodeError;
use crate::protocol::wire::{self, Reader};

const EPOCH: i16 = 3;
const TOPICS: i16 = 4;
const MEMBER: i16 = 5;
const TARGET_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

/// The record of a change.
pub fn encode(group: &str, change: &Change) -> Record {
    match change {
        Change::Epoch(epoch) => record(EPOCH, group, None, epoch.as_ref(), |out, epoch| wire::put_i32(out, *epoch)),
        Change::Topics(topics) => record(TOPICS, group, None, topics.as_ref(), put_topics),
        Change::Member(member, profile) => record(MEMBER, group, Some(member), profile.as_deref(), put_profile),
        Change::TargetEpoch(epoch) => {
            record(TARGET_EPOCH, group, None, epoch.as_ref(), |out, epoch| wire::put_i32(out, *epoch))
        }
        Change::Target(member, target) => record(TARGET, group, Some(member), target.as_deref(), put_assignment),
        Change::Current(member, current) => record(CURRENT, group, Some(member), current.as_ref(), put_current),
        Change::Regex(pattern, resolved) => record(REGEX, group, Some(pattern), resolved.as_ref(), put_resolved),
        Change::Classic(Some(snapshot)) => Record::group(group, snapshot),
        Change::Classic(None) => Record::group_tombstone(group),
    }
}

fn record<V: ?Sized>(
    kind: i16,
    group: &str,
    name: Option<&str>,
    value: Option<&V>,
    put: impl FnOnce(&mut Vec<u8>, &V),
) -> Record {
    let mut key = Vec::with_capacity(6 + group.len() + name.map_or(0, str::len));
    wire::put_i16(&mut key, kind);
    wire::put_text(&mut key, false, Some(group));
    if let Some(name) = name {
        wire::put_text(&mut key, false, Some(name));
    }
    let value = value.map(|value| {
        let mut bytes = Vec::with_capacity(64);
        wire::put_i16(&mut bytes, 0);
        put(&mut bytes, value);
        // Profiles end in tags of their own.
        if kind != MEMBER {
            wire::put_uvarint(&mut bytes, 0);
        }
        bytes
    });
    Record { key, value }
}

fn put_topics(out: &mut Vec<u8>, topics: &Subscribed) {
    wire::put_length(out, true, Some(topics.len()));
    for (name, topic) in topics {
        out.extend_from_slice(topic.id.0.as_bytes());
        wire::put_text(out, true, Some(name));
        wire::put_i32(out, topic.partition_count);
        wire::put_length(out, true, Some(0));
        wire::put_uvarint(out, 0);
    }
}

fn put_profile(out: &mut Vec<u8>, profile: &Profile) {
    wire::put_text(out, true, profile.instance_id.as_deref());
    wire::put_text(out, true, profile.rack_id.as_deref());
    wire::put_text(out, true, Some(&profile.client_id));
    wire::put_text(out, true, Some(&profile.client_host));
    put_texts(out, &profile.topics);
    wire::put_text(out, true, profile.regex.as_deref());
    wire::put_i32(out, profile.rebalance_timeout_ms);
    wire::put_text(out, true, profile.assignor.as_deref());
    let Some(classic) = &profile.classic else { return wire::put_uvarint(out, 0) };
    // A structure that may be null begins with a marker.
    let mut tagged = vec![1];
    wire::put_i32(&mut tagged, classic.session_timeout_ms);
    wire::put_length(&mut tagged, true, Some(classic.protocols.len()));
    for protocol in &classic.protocols {
        wire::put_text(&mut tagged, true, Some(&protocol.name));
        wire::put_length(&mut tagged, true, Some(protocol.metadata.len()));
        tagged.extend_from_slice(&protocol.metadata);
        wire::put_uvarint(&mut tagged, 0);
    }
    wire::put_uvarint(&mut tagged, 0);
    wire::put_uvarint(out, 1);
    wire::put_uvarint(out, 0);
    wire::put_uvarint(out, tagged.len() as u32);
    out.extend_from_slice(&tagged);
}

fn put_texts(out: &mut Vec<u8>, texts: &[Box<str>]) {
    wire::put_length(out, true, Some(texts.len()));
    texts.iter().for_each(|text| wire::put_text(out, true, Some(text)));
}

fn put_assignment(out: &mut Vec<u8>, assignment: &Assignment) {
    wire::put_length(out, true, Some(assignment.len()));
    for (topic, partitions) in assignment {
        out.extend_from_slice(topic.0.as_bytes());
        wire::put_length(out, true, Some(partitions.len()));
        partitions.iter().for_each(|partition| wire::put_i32(out, *partition));
        wire::put_uvarint(out, 0);
    }
}

fn put_current(out: &mut Vec<u8>, current: &Current) {
    wire::put_i32(out, current.epoch);
    wire::put_i32(out, current.previous_epoch);
    out.push(current.state.number() as u8);
    put_assignment(out, &current.assigned);
    put_assignment(out, &current.revoking);
}

fn put_resolved(out: &mut Vec<u8>, resolved: &Resolved) {
    put_texts(out, &resolved.topics);
    wire::put_i64(out, resolved.version);
    wire::put_i64(out, resolved.at.0);
}

/// The group and the change that a record is of; `None` if it is of another kind, or of a version that is not known.
///
/// # Errors
/// Bytes that are not what their version says.
pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<(String, Change)>, DecodeError> {
    let mut reader = Reader::new(key, 0);
    let kind = reader.i16()?;
    if !matches!(kind, EPOCH..=CURRENT | REGEX) {
        return Ok(None);
    }
    let group = owned(&mut reader, false)?;
    let name: Box<str> = match kind {
        MEMBER | TARGET | CURRENT | REGEX => owned(&mut reader, false)?.into(),
        _ => "".into(),
    };
    let mut reader = match value {
        None => None,
        Some(value) => {
            let mut reader = Reader::new(value, 0);
            if reader.i16()? != 0 {
                return Ok(None);
            }
            Some(reader)
        }
    };
    let reader = reader.as_mut();
    let change = match kind {
        EPOCH => Change::Epoch(reader.map(Reader::i32).transpose()?),
        TOPICS => Change::Topics(reader.map(topics).transpose()?),
        MEMBER => Change::Member(name, reader.map(profile).transpose()?.map(Arc::new)),
        TARGET_EPOCH => Change::TargetEpoch(reader.map(Reader::i32).transpose()?),
        TARGET => Change::Target(name, reader.map(assignment).transpose()?.map(Arc::new)),
        CURRENT => Change::Current(name, reader.map(current).transpose()?),
        _ => Change::Regex(name, reader.map(resolved).transpose()?),
    };
    Ok(Some((group, change)))
}

fn owned(reader: &mut Reader<'_>, flexible: bool) -> Result<String, DecodeError> {
    Ok(reader.text_or_null(flexible)?.ok_or(DecodeError::Null)?.to_owned())
}

fn text(reader: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
    Ok(reader.text_or_null(true)?.ok_or(DecodeError::Null)?.into())
}

fn text_or_null(reader: &mut Reader<'_>) -> Result<Option<Box<str>>, DecodeError> {
    Ok(reader.text_or_null(true)?.map(Into::into))
}

fn texts(reader: &mut Reader<'_>) -> Result<Vec<Box<str>>, DecodeError> {
    let count = reader.count(true, 1)?;
    (0..count).map(|_| text(reader)).collect()
}

fn topics(reader: &mut Reader<'_>) -> Result<Subscribed, DecodeError> {
    /// Id, an empty name, partition count, no partitions, no tags.
    const TOPIC_SIZE_BYTES_MIN: usize = 23;
    let mut topics = Subscribed::new();
    for _ in 0..reader.count(true, TOPIC_SIZE_BYTES_MIN)? {
        let id = TopicId(reader.uuid()?);
        let name = text(reader)?;
        let partition_count = reader.i32()?;
        for _ in 0..reader.count(true, 6)? {
            reader.i32()?;
            for _ in 0..reader.count(true, 1)? {
                reader.text_range(true)?;
            }
            reader.skip_tagged_fields()?;
        }
        reader.skip_tagged_fields()?;
        topics.insert(name, Topic { id, partition_count });
    }
    Ok(topics)
}

fn profile(reader: &mut Reader<'_>) -> Result<Profile, DecodeError> {
    let mut profile = Profile {
        instance_id: text_or_null(reader)?,
        rack_id: text_or_null(reader)?,
        client_id: text(reader)?,
        client_host: text(reader)?,
        topics: texts(reader)?,
        regex: text_or_null(reader)?,
        rebalance_timeout_ms: reader.i32()?,
        assignor: text_or_null(reader)?,
        classic: None,
    };
    profile.topics.sort_unstable();
    profile.topics.dedup();
    reader.tagged_fields(|tag, reader| match tag {
        0 => {
            profile.classic = classic(reader)?;
            Ok(true)
        }
        _ => Ok(false),
    })?;
    Ok(profile)
}

fn classic(reader: &mut Reader<'_>) -> Result<Option<ClassicProfile>, DecodeError> {
    if reader.i8()? < 0 {
        return Ok(None);
    }
    let mut classic = ClassicProfile { session_timeout_ms: reader.i32()?, protocols: Vec::new() };
    for _ in 0..reader.count(true, 3)? {
        let name = text(reader)?;
        let size_bytes = reader.count(true, 1)?;
        let metadata = bytes(reader, size_bytes)?;
        reader.skip_tagged_fields()?;
        classic.protocols.push(Protocol { name, metadata });
    }
    reader.skip_tagged_fields()?;
    Ok(Some(classic))
}

fn bytes(reader: &mut Reader<'_>, size_bytes: usize) -> Result<Bytes, DecodeError> {
    (0..size_bytes).map(|_| reader.i8().map(|byte| byte as u8)).collect::<Result<Vec<u8>, _>>().map(Bytes::from)
}

fn assignment(reader: &mut Reader<'_>) -> Result<Assignment, DecodeError> {
    let mut partitions = Vec::new();
    for _ in 0..reader.count(true, 18)? {
        let topic = TopicId(reader.uuid()?);
        let count = reader.count(true, 4)?;
        partitions.push((topic, (0..count).map(|_| reader.i32()).collect::<Result<Vec<i32>, _>>()?));
        reader.skip_tagged_fields()?;
    }
    Ok(assignment_of(partitions))
}

fn current(reader: &mut Reader<'_>) -> Result<Current, DecodeError> {
    Ok(Current {
        epoch: reader.i32()?,
        previous_epoch: reader.i32()?,
        state: MemberState::of_number(reader.i8()?),
        assigned: Arc::new(assignment(reader)?),
        revoking: Arc::new(assignment(reader)?),
    })
}

fn resolved(reader: &mut Reader<'_>) -> Result<Resolved, DecodeError> {
    Ok(Resolved { topics: texts(reader)?, version: reader.i64()?, at: Timestamp(reader.i64()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: [u8; 16] = [7; 16];

    fn topic() -> TopicId {
        TopicId(Uuid::from_bytes(ID))
    }

    fn assigned(partitions: &[i32]) -> Arc<Assignment> {
        Arc::new(assignment_of([(topic(), partitions.to_vec())]))
    }

    /// Encodes, compares with bytes made by hand, decodes, and decodes the tombstone.
    fn check(change: Change, key: &[&[u8]], value: &[&[u8]]) {
        let record = encode("grp", &change);
        assert_eq!((&record.key, record.value.as_ref()), (&key.concat(), Some(&value.concat())), "{change:?}");
        assert_eq!(decode(&record.key, record.value.as_deref()), Ok(Some(("grp".to_owned(), change))));
        assert!(matches!(decode(&record.key, None), Ok(Some((group, _))) if group == "grp"));
        let value = record.value.unwrap();
        for size_bytes in 0..value.len() - 1 {
            // The last byte is the number of tagged fields, which those that know none need not read.
            assert!(decode(&record.key, Some(&value[..size_bytes])).is_err(), "{size_bytes}");
        }
    }

    #[test]
    fn the_bytes_of_groups_and_targets_are_those_of_kafkas_schemas() {
        // By hand from ConsumerGroupMetadata, -PartitionMetadata, -TargetAssignmentMetadata and -Member, version 0.
        let group = |kind: u8| [&[0, kind, 0, 3][..], b"grp"].concat();
        let member = |kind: u8| [&group(kind)[..], &[0, 2], b"m1"].concat();
        check(Change::Epoch(Some(9)), &[&group(3)], &[&[0, 0], &[0, 0, 0, 9], &[0]]);
        let topics = Subscribed::from([("top".into(), Topic { id: topic(), partition_count: 6 })]);
        let bytes: [&[u8]; 7] = [&[0, 0], &[2], &ID, &[4], b"top", &[0, 0, 0, 6], &[1, 0, 0]];
        check(Change::Topics(Some(topics)), &[&group(4)], &bytes);
        check(Change::TargetEpoch(Some(8)), &[&group(6)], &[&[0, 0], &[0, 0, 0, 8], &[0]]);
        let partitions: [u8; 10] = [3, 0, 0, 0, 1, 0, 0, 0, 4, 0];
        let target = Change::Target("m1".into(), Some(assigned(&[1, 4])));
        check(target, &[&member(7)], &[&[0, 0], &[2], &ID, &partitions, &[0]]);
    }

    #[test]
    fn the_bytes_of_members_and_patterns_are_those_of_kafkas_schemas() {
        // By hand from ConsumerGroupMemberMetadata, -CurrentMemberAssignment and -RegularExpression, version 0.
        let key = |kind: u8, name: &[u8]| [&[0, kind, 0, 3][..], b"grp", &[0, 2], name].concat();
        let plain = Profile {
            instance_id: Some("i".into()),
            rack_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            topics: vec!["a".into(), "b".into()],
            regex: Some("x.*".into()),
            rebalance_timeout_ms: 5,
            assignor: Some("range".into()),
            classic: None,
        };
        let head: [&[u8]; 7] = [&[0, 0, 2], b"i", &[0, 2], b"c", &[3], b"/h", &[3, 2, b'a', 2, b'b']];
        let middle: [&[u8]; 5] = [&[4], b"x.*", &[0, 0, 0, 5], &[6], b"range"];
        let value = [head.concat(), middle.concat()].concat();
        check(Change::Member("m1".into(), Some(Arc::new(plain.clone()))), &[&key(5, b"m1")], &[&value, &[0]]);
        let protocols = vec![Protocol { name: "p".into(), metadata: Bytes::from_static(b"md") }];
        let classic = Some(ClassicProfile { session_timeout_ms: 6, protocols });
        let tagged: [&[u8]; 3] = [&[1, 0, 13], &[1, 0, 0, 0, 6, 2, 2, b'p', 3], b"md\0\0"];
        let member = Change::Member("m1".into(), Some(Arc::new(Profile { classic, ..plain })));
        check(member, &[&key(5, b"m1")], &[&value, &tagged.concat()]);
        let current = Current {
            epoch: 3,
            previous_epoch: 2,
            state: MemberState::UnrevokedPartitions,
            assigned: assigned(&[1]),
            revoking: Arc::default(),
        };
        let bytes: [&[u8]; 4] = [&[0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2], &ID, &[2, 0, 0, 0, 1, 0], &[1, 0]];
        check(Change::Current("m1".into(), Some(current)), &[&key(8, b"m1")], &bytes);
        let resolved = Resolved { topics: vec!["xy".into()], version: 4, at: Timestamp(5) };
        let bytes: [&[u8]; 4] = [&[0, 0, 2, 3], b"xy", &[0, 0, 0, 0, 0, 0, 0, 4], &[0, 0, 0, 0, 0, 0, 0, 5, 0]];
        check(Change::Regex("x*".into(), Some(resolved)), &[&key(16, b"x*")], &bytes);
    }

    #[test]
    fn what_newer_brokers_add_is_passed_over() {
        // The hash of 4.1 in a tagged field, racks of partitions before 4.0, kinds and versions that are not known.
        let key = [&[0, 3, 0, 3][..], b"grp"].concat();
        let value = [0, 0, 0, 0, 0, 9, 1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(decode(&key, Some(&value)), Ok(Some(("grp".into(), Change::Epoch(Some(9))))));
        assert_eq!(decode(&key, Some(&[0, 1, 0, 0, 0, 9, 0])), Ok(None));
        for kind in [0, 2, 9, 15, 17] {
            assert_eq!(decode(&[0, kind, 0, 1, b'g'], None), Ok(None));
        }
        let racks: [&[u8]; 4] = [&[0, 0, 2], &ID, &[2, b't', 0, 0, 0, 1, 2], &[0, 0, 0, 0, 2, 2, b'r', 0, 0, 0]];
        let topics = Subscribed::from([("t".into(), Topic { id: topic(), partition_count: 1 })]);
        let read = decode(&[0, 4, 0, 1, b'g'], Some(&racks.concat()));
        assert_eq!(read, Ok(Some(("g".into(), Change::Topics(Some(topics))))));
    }
}
