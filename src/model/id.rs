//! Ids, offsets and epochs as types of their own: a bare `i64` does not cross a module.

use std::fmt;

use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The position of a record in a partition, counted from 0. `-1` on the wire means unknown.
    Offset(i64)
}
number! {
    /// The index of a partition within its topic, counted from 0.
    PartitionIndex(i32)
}
number! {
    /// How often leadership of a partition has been taken; every start of the broker raises it.
    LeaderEpoch(i32)
}
number! {
    /// The identity of an idempotent or transactional producer. `-1` means none.
    ProducerId(i64)
}
number! {
    /// The generation of a producer id; a higher one fences a lower one.
    ProducerEpoch(i16)
}
number! {
    /// A record's number within its producer and partition; wraps from `i32::MAX` to 0.
    Sequence(i32)
}
number! {
    /// A broker as clients see it. Shard `i` of node `n` is broker `n * 1000 + i + 1`.
    BrokerId(i32)
}
number! {
    /// A node: one process with its data directory.
    NodeId(i32)
}
number! {
    /// A shard of a node, counted from 0.
    ShardId(u16)
}

impl Offset {
    /// Unknown, as Kafka writes it.
    pub const NONE: Offset = Offset(-1);

    /// The offset `count` records later.
    #[inline]
    pub const fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}

impl LeaderEpoch {
    /// Unknown, as Kafka writes it.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

impl ProducerId {
    /// The producer is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl Sequence {
    /// The sequence `count` records later, wrapping to 0 after `i32::MAX` (KIP-98).
    #[inline]
    pub const fn plus(self, count: i32) -> Sequence {
        let sum = self.0 as i64 + count as i64;
        Sequence((sum & i32::MAX as i64) as i32)
    }
}

impl ShardId {
    /// The broker id of this shard on `node`.
    pub const fn broker(self, node: NodeId) -> BrokerId {
        BrokerId(node.0 * 1000 + self.0 as i32 + 1)
    }
}

/// A topic's identity: stable for its life, new when a topic of the same name is created again (KIP-516).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// No id: the topic is named instead.
    pub const NONE: TopicId = TopicId(Uuid::nil());

    /// True for the nil id.
    pub fn is_none(self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for TopicId {
    /// The text that Kafka's tools print and `partition.metadata` holds: URL-safe base 64 without padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = self.0.as_u128();
        for digit in 0..22 {
            // 22 digits hold 132 bits: the last digit carries the final 2 bits and 4 zeros.
            let shift = 122 - 6 * digit;
            let value = if shift >= 0 { bits >> shift } else { bits << -shift } & 63;
            write!(f, "{}", ALPHABET[value as usize] as char)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for TopicId {
    type Err = InvalidTopicId;
    fn from_str(text: &str) -> Result<TopicId, InvalidTopicId> {
        if text.len() != 22 {
            return Err(InvalidTopicId);
        }
        let mut bits: u128 = 0;
        for (digit, byte) in text.bytes().enumerate() {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return Err(InvalidTopicId),
            };
            bits = if digit < 21 { bits << 6 | u128::from(value) } else { bits << 2 | u128::from(value >> 4) };
        }
        Ok(TopicId(Uuid::from_u128(bits)))
    }
}

/// The text is not 22 digits of URL-safe base 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a topic id: expected 22 digits of URL-safe base 64")]
pub struct InvalidTopicId;

/// A partition by its topic's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_after_the_greatest_number() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(3), Sequence(1));
        assert_eq!(Sequence(5).plus(3), Sequence(8));
    }

    #[test]
    fn topic_ids_survive_their_text_form() {
        // Kafka's own example: the metadata topic's id is 1 and prints as AAAAAAAAAAAAAAAAAAAAAQ.
        assert_eq!(TopicId(Uuid::from_u128(1)).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = TopicId(Uuid::from_u128(bits));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("short".parse::<TopicId>(), Err(InvalidTopicId));
    }

    #[test]
    fn brokers_are_numbered_by_node_and_shard() {
        assert_eq!(ShardId(0).broker(NodeId(0)), BrokerId(1));
        assert_eq!(ShardId(3).broker(NodeId(2)), BrokerId(2004));
    }
}
