//! Coordinators: pure state machines that know neither the log nor the connection.
//!
//! | module | what lives there |
//! |---|---|
//! | [`group`] | the members of a classic group, and how they come to an assignment |
//! | [`consumer_group`] | groups of the consumer protocol (KIP-848), and what the broker assigns to their members |
//! | [`records`] | the records of `__consumer_offsets`, to and from bytes, in Kafka's own formats |
//! | [`offsets`] | what groups have committed |
//! | [`transaction`] | transactional ids, what their transactions include and how they end |
//!
//! They take events and give effects; the handlers append records, answer and keep time.
//!
//! It must not know files, sockets, clocks or requests.

pub mod consumer_group;
pub mod group;
pub mod offsets;
pub mod records;
pub mod transaction;

/// The internal topic that holds groups and their committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The internal topic that holds transactional ids and their transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The partition of [`OFFSETS_TOPIC`] or [`TRANSACTIONS_TOPIC`], which has `partition_count`, that a group or a
/// transactional id belongs to: Kafka's rule, the Java hash of the id without its sign (the least number, which has no counterpart, counts as 0), so that tools
/// which work it out themselves find it.
///
/// # Panics
/// If `partition_count` is not positive.
pub fn partition_of(group: &str, partition_count: i32) -> i32 {
    assert!(partition_count > 0);
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partition_count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_the_partition_that_java_gives_them() {
        // Worked out with String.hashCode: "group" is 98629247, "polygenelubricants" is the least number, the
        // last one has a character outside of the basic plane, which Java hashes as two.
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("a", 50), 97 % 50);
        assert_eq!(partition_of("ab", 50), (97 * 31 + 98) % 50);
        assert_eq!(partition_of("group", 50), 98_629_247 % 50);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("\u{1F600}", 50), (0xd83d * 31 + 0xde00) % 50);
    }
}
