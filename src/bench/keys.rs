//! Which keys records have, and so which partitions are hot.
//!
//! Keys are drawn with Zipf's law: key `i` has a weight of `1 / (i + 1)^skew`; 0 makes them equal. A key belongs to
//! the partition that Kafka's clients choose for it (murmur2), so the weight of a partition is that of its keys.

use crate::base::rng::Rng;
use crate::client::Partitioner;

use super::schedule::draw;

/// More keys than this make no difference to a broker and cost start-up time.
pub const KEY_COUNT_MAX: u32 = 10_000_000;

/// The keys of a topic, by partition.
#[derive(Clone, Debug)]
pub struct KeySpace {
    /// Of each partition: its keys, and their weights summed up.
    partitions: Vec<(Vec<u32>, Vec<f64>)>,
}

impl KeySpace {
    /// `count` keys over so many partitions.
    ///
    /// # Panics
    /// If there is no partition.
    pub fn new(count: u32, skew: f64, partition_count: usize) -> KeySpace {
        assert!(partition_count > 0);
        let partitioner = Partitioner::new(partition_count, 0);
        let mut partitions = vec![(Vec::new(), Vec::new()); partition_count];
        for index in 0..count {
            let partition = partitioner.partition(Some(&key(index)));
            let (keys, sums): &mut (Vec<u32>, Vec<f64>) = &mut partitions[partition as usize];
            keys.push(index);
            sums.push(sums.last().unwrap_or(&0.0) + 1.0 / f64::from(index + 1).powf(skew));
        }
        KeySpace { partitions }
    }

    /// The weight of a partition; 0 if no key belongs there.
    pub fn weight(&self, partition: i32) -> f64 {
        let found = usize::try_from(partition).ok().and_then(|index| self.partitions.get(index));
        found.and_then(|(_, sums)| sums.last().copied()).unwrap_or(0.0)
    }

    /// A key of a partition; `None` if it has none.
    pub fn draw(&self, partition: i32, rng: &mut Rng) -> Option<[u8; 12]> {
        let (keys, sums) = self.partitions.get(usize::try_from(partition).ok()?)?;
        (!keys.is_empty()).then(|| key(keys[draw(sums, rng)]))
    }
}

/// `key-` and eight digits.
fn key(index: u32) -> [u8; 12] {
    let mut key = *b"key-00000000";
    let mut rest = index;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::murmur2;

    #[test]
    fn keys_are_where_kafka_clients_would_send_them() {
        // Draws keys of every partition and asks the client's own partitioner.
        let space = KeySpace::new(1000, 0.9, 7);
        let mut rng = Rng::new(1);
        for partition in 0..7 {
            for _ in 0..20 {
                let key = space.draw(partition, &mut rng).expect("7 partitions share 1000 keys");
                assert_eq!((murmur2(&key) & 0x7fff_ffff) % 7, partition as u32);
            }
        }
    }

    #[test]
    fn skew_makes_the_first_key_hot() {
        let weights = |skew| {
            let space = KeySpace::new(10_000, skew, 10);
            (0..10).map(|partition| space.weight(partition)).collect::<Vec<_>>()
        };
        let even = weights(0.0);
        assert_eq!(even.iter().sum::<f64>(), 10_000.0);
        assert!(even.iter().all(|weight| (900.0..1100.0).contains(weight)), "{even:?}");
        let skewed = weights(1.2);
        let total: f64 = skewed.iter().sum();
        assert!(skewed.iter().any(|weight| weight / total > 0.2), "{skewed:?}");
        assert_eq!(KeySpace::new(0, 1.0, 2).draw(1, &mut Rng::new(1)), None);
    }
}
