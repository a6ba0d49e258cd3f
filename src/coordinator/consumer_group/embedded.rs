//! What consumers put into the bytes of the classic protocol: the subscription that a member joins with, and the
//! assignment that it is given.
//!
//! ```text
//! subscription  version i16, topics [text], user data bytes or null,
//!               (from 1) owned [topic text, [partition i32]], (from 2) generation i32, (from 3) rack text or null
//! assignment    version i16, [topic text, [partition i32]], user data bytes or null
//! ```
//! Counts and bytes have i32 lengths, texts i16 ones. Newer versions add fields behind these, so what follows is not
//! looked at.

use bytes::Bytes;

use super::{Assignment, Topics, assignment_of};
use crate::protocol::DecodeError;
use crate::protocol::wire::{self, Reader};

/// The newest version that is written.
const VERSION_MAX: i16 = 3;

/// A consumer's subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Its version.
    pub version: i16,
    /// Topics that it reads, sorted, each once.
    pub topics: Vec<Box<str>>,
    /// What it has.
    pub owned: Assignment,
    /// Where it stands.
    pub rack_id: Option<Box<str>>,
}

/// Reads a subscription; of topics and partitions that are not there nothing is owned.
///
/// # Errors
/// Bytes that are none.
pub fn subscription(bytes: &[u8], topics: &dyn Topics) -> Result<Subscription, DecodeError> {
    let mut reader = Reader::new(bytes, 0);
    let version = reader.i16()?;
    if version < 0 {
        return Err(DecodeError::Invalid("version of a subscription"));
    }
    let mut subscription = Subscription { version, ..Subscription::default() };
    for _ in 0..reader.count(false, 2)? {
        subscription.topics.push(reader.text_or_null(false)?.ok_or(DecodeError::Null)?.into());
    }
    subscription.topics.sort_unstable();
    subscription.topics.dedup();
    reader.bytes_range_or_null(false)?;
    if version >= 1 {
        subscription.owned = partitions(&mut reader, topics)?;
    }
    if version >= 2 {
        reader.i32()?;
    }
    if version >= 3 {
        subscription.rack_id = reader.text_or_null(false)?.map(Into::into);
    }
    Ok(subscription)
}

/// Reads an assignment, without topics and partitions that are not there; no bytes are an empty one.
///
/// # Errors
/// Bytes that are none.
pub fn assignment(bytes: &[u8], topics: &dyn Topics) -> Result<Assignment, DecodeError> {
    if bytes.is_empty() {
        return Ok(Assignment::new());
    }
    let mut reader = Reader::new(bytes, 0);
    if reader.i16()? < 0 {
        return Err(DecodeError::Invalid("version of an assignment"));
    }
    partitions(&mut reader, topics)
}

fn partitions(reader: &mut Reader<'_>, topics: &dyn Topics) -> Result<Assignment, DecodeError> {
    let mut found = Vec::new();
    for _ in 0..reader.count(false, 6)? {
        let name = reader.text_or_null(false)?.ok_or(DecodeError::Null)?;
        let count = reader.count(false, 4)?;
        let mut partitions = (0..count).map(|_| reader.i32()).collect::<Result<Vec<i32>, _>>()?;
        if let Some(topic) = topics.find(name) {
            partitions.retain(|partition| (0..topic.partition_count).contains(partition));
            found.push((topic.id, partitions));
        }
    }
    Ok(assignment_of(found))
}

/// An assignment's bytes, of the version of a member's subscription. Topics that are gone are left out.
pub fn put_assignment(assignment: &Assignment, version: i16, topics: &dyn Topics) -> Bytes {
    let named: Vec<_> = assignment.iter().filter_map(|(id, found)| Some((topics.name_of(*id)?, found))).collect();
    let mut out = Vec::with_capacity(16);
    wire::put_i16(&mut out, version.clamp(0, VERSION_MAX));
    wire::put_length(&mut out, false, Some(named.len()));
    for (name, partitions) in named {
        wire::put_text(&mut out, false, Some(name));
        wire::put_length(&mut out, false, Some(partitions.len()));
        partitions.iter().for_each(|partition| wire::put_i32(&mut out, *partition));
    }
    wire::put_length(&mut out, false, None);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::Catalog;
    use super::*;

    #[test]
    fn a_subscription_is_read_in_every_version() {
        // By hand from ConsumerProtocolSubscription: topics b and a, owned a-1 and gone-0, generation 5, rack r.
        let topics = Catalog::of(&[("a", 3), ("b", 1)]);
        let zero = [&[0, 0, 0, 0, 0, 2, 0, 1, b'b', 0, 1, b'a'][..], &[0xff; 4]].concat();
        let owned: [&[u8]; 3] = [&[0, 0, 0, 2, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 1, 0, 4], b"gone", &[0, 0, 0, 1]];
        let rest = [&owned.concat()[..], &[0, 0, 0, 0], &[0, 0, 0, 5], &[0, 1, b'r']].concat();
        let both: Vec<Box<str>> = vec!["a".into(), "b".into()];
        let of_a = assignment_of([(topics.id("a"), vec![1])]);
        for version in 0..=4 {
            let bytes = [&[0, version][..], &zero[2..], if version >= 1 { &rest[..] } else { &[] }].concat();
            let read = subscription(&bytes, &topics).unwrap();
            assert_eq!((read.version, &read.topics), (i16::from(version), &both));
            assert_eq!(read.owned, if version >= 1 { of_a.clone() } else { Assignment::new() });
            assert_eq!(read.rack_id.as_deref(), if version >= 3 { Some("r") } else { None });
            let needed = if version == 0 { 16 } else { 16 + 25 };
            (0..needed).for_each(|size| assert!(subscription(&bytes[..size], &topics).is_err(), "{version} {size}"));
        }
    }

    #[test]
    fn an_assignment_is_written_as_kafkas_and_read_again() {
        let topics = Catalog::of(&[("a", 3)]);
        let given = assignment_of([(topics.id("a"), vec![0, 2]), (crate::model::id::TopicId::NONE, vec![1])]);
        let bytes = put_assignment(&given, 1, &topics);
        let beyond = assignment_of([(topics.id("a"), vec![2, 3, i32::MAX])]);
        let read = assignment(&put_assignment(&beyond, 1, &topics), &topics);
        assert_eq!(read, Ok(assignment_of([(topics.id("a"), vec![2])])), "partitions that are not there");
        let expected = [&[0, 1, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0xff; 4]].concat();
        assert_eq!(&bytes[..], expected);
        assert_eq!(assignment(&bytes, &topics), Ok(assignment_of([(topics.id("a"), vec![0, 2])])));
        assert_eq!(assignment(b"", &topics), Ok(Assignment::new()));
        assert!(assignment(&bytes[..8], &topics).is_err());
    }
}
