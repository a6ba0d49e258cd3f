//! Which topics a consumer's metadata names.
//!
//! Of the metadata of protocol type `consumer` only what every version has is read:
//! ```text
//! version i16, topics [i32 count; text i16 length, UTF-8]
//! ```

/// The protocol type of consumers.
pub const CONSUMER: &str = "consumer";

/// True if `metadata` names `topic`; `None` if it is no consumer's metadata.
pub fn names_topic(metadata: &[u8], topic: &str) -> Option<bool> {
    let (_version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::try_from(i32::from_be_bytes(*count)).ok()?;
    let mut is_named = false;
    for _ in 0..count {
        let (size_bytes, after) = rest.split_first_chunk::<2>()?;
        let size_bytes = usize::try_from(i16::from_be_bytes(*size_bytes)).ok()?;
        let (name, after) = after.split_at_checked(size_bytes)?;
        is_named |= name == topic.as_bytes();
        rest = after;
    }
    Some(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_subscription_are_found_and_broken_ones_are_told() {
        // Version 1 by hand: two topics and what newer versions add behind them.
        let metadata = [&[0, 1, 0, 0, 0, 2, 0, 3][..], b"one", &[0, 5], b"three", &[0xff; 9]].concat();
        assert_eq!(names_topic(&metadata, "one"), Some(true));
        assert_eq!(names_topic(&metadata, "three"), Some(true));
        assert_eq!(names_topic(&metadata, "two"), Some(false));
        for size_bytes in 0..18 {
            assert_eq!(names_topic(&metadata[..size_bytes], "one"), None, "{size_bytes}");
        }
        assert_eq!(names_topic(&[0, 0, 0x7f, 0xff, 0xff, 0xff], "one"), None);
        assert_eq!(names_topic(&[0, 0, 0xff, 0xff, 0xff, 0xff], "one"), None);
    }
}
