//! A map whose copies share what they have in common.
//!
//! An image is copied for every change and may hold many thousands of topics. The entries lie in a fixed number of
//! buckets, each shared until one of two copies changes it: a copy costs one reference count, a change after a copy
//! the bucket pointers and one bucket, whatever the map's size.
//!
//! Invariant: equal contents are equal maps, in whatever order they came, and iterate in the same order.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

/// Copying 256 pointers takes about a microsecond, and 10,000 entries leave 40 in a bucket.
const BUCKET_COUNT: usize = 256;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMap<K, V> {
    buckets: Arc<[Arc<BTreeMap<K, V>>]>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        let empty = Arc::new(BTreeMap::new());
        SharedMap { buckets: vec![empty; BUCKET_COUNT].into(), len: 0 }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> SharedMap<K, V> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The entry of `key`.
    pub fn get<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.buckets[bucket_of(key)].get(key)
    }

    /// The entry of `key`, to be changed; a bucket that is shared is copied.
    pub fn get_mut<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let bucket = bucket_of(key);
        if !self.buckets[bucket].contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[bucket]).get_mut(key)
    }

    /// Sets the entry of `key` and gives back the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let bucket = bucket_of(&key);
        let before = Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[bucket]).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes the entry of `key` out.
    pub fn remove<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let bucket = bucket_of(key);
        if !self.buckets[bucket].contains_key(key) {
            return None;
        }
        self.len -= 1;
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[bucket]).remove(key)
    }

    /// The entries that this map does not share with `before`: all that were added or changed since, and some beside
    /// them that were not.
    pub fn not_shared_with<'a>(&'a self, before: &Self) -> impl Iterator<Item = (&'a K, &'a V)> {
        let pairs = self.buckets.iter().zip(before.buckets.iter());
        let changed: Vec<_> = pairs.filter(|(now, then)| !Arc::ptr_eq(now, then)).map(|(now, _)| now).collect();
        changed.into_iter().flat_map(|bucket| bucket.iter())
    }

    /// All entries, in an order that follows from the keys alone.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }
}

fn bucket_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    // The hasher's last step is a multiplication: its high bits are the good ones.
    let hash = hasher.finish();
    ((hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut map = SharedMap::default();
        map.insert(1u64, "one");
        let copy = map.clone();
        map.insert(1, "uno");
        map.insert(2, "two");
        assert_eq!((copy.get(&1), copy.get(&2), copy.len()), (Some(&"one"), None, 1));
        assert_eq!((map.get(&1), map.get(&2), map.len()), (Some(&"uno"), Some(&"two"), 2));
    }

    #[test]
    fn what_two_copies_share_is_not_looked_at() {
        let mut map = SharedMap::default();
        for key in 0..10_000u64 {
            map.insert(key, "old");
        }
        let before = map.clone();
        assert_eq!(map.not_shared_with(&before).count(), 0);
        map.insert(77, "new");
        map.insert(20_000, "new");
        let different: Vec<_> = map.not_shared_with(&before).collect();
        assert!(different.contains(&(&77, &"new")) && different.contains(&(&20_000, &"new")));
        assert!(different.len() < 400, "{} of 10,000 were looked at", different.len());
    }

    #[test]
    fn it_does_what_a_plain_map_does() {
        // Random inserts, changes and removals, against a BTreeMap.
        let mut rng = Rng::new(11);
        let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
        for step in 0..20_000 {
            let key = rng.in_range(0..500);
            match rng.in_range(0..3) {
                0 => assert_eq!(map.insert(key, step), model.insert(key, step)),
                1 => assert_eq!(map.remove(&key), model.remove(&key)),
                _ => {
                    assert_eq!(map.get_mut(&key).map(|value| std::mem::replace(value, step)), {
                        model.get_mut(&key).map(|value| std::mem::replace(value, step))
                    });
                }
            }
            assert_eq!(map.len(), model.len());
        }
        let mut entries: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
        entries.sort_unstable();
        assert_eq!(entries, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let mut map = SharedMap::default();
        for number in 0..25_600 {
            map.insert(format!("topic-{number}"), ());
        }
        let greatest = map.buckets.iter().map(|bucket| bucket.len()).max().unwrap();
        assert!(greatest < 200, "a bucket of {greatest} where 100 were expected");
    }
}
