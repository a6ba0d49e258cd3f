//! The last offset of each key: a table of fixed size, 24 bytes a slot, as Kafka's cleaner has.
//!
//! A key is known by a keyed 128-bit hash, never by itself, so memory does not depend on how long keys are. The hash
//! key is the shard's own secret: nobody can make two keys meet on purpose, and by chance it takes 2^64 of them.
//! Slots are found by linear probing; the table is never filled beyond its load factor.
//!
//! Memory is taken as it is written to: the table is zeros, which the system gives out lazily.
//!
//! It must not know records or files.

use siphasher::sip128::SipHasher13;

use crate::model::id::Offset;

/// Bytes of one slot: the hash and the offset plus one, where 0 means that the slot is free.
pub const SLOT_SIZE_BYTES: usize = 24;

/// Hashes record keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    secret: (u64, u64),
}

/// A key's hash.
pub type KeyHash = (u64, u64);

impl KeyHasher {
    /// A hasher with this secret.
    pub fn new(secret: (u64, u64)) -> KeyHasher {
        KeyHasher { secret }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        SipHasher13::new_with_keys(self.secret.0, self.secret.1).hash(key).as_u64()
    }
}

/// See the module.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<[u64; 3]>,
    len: usize,
    len_max: usize,
}

impl OffsetMap {
    /// A table for at most `key_count_max` keys, in at most `budget_bytes`, filled to at most `load_factor` (above 0,
    /// up to 1). It always holds at least one key. Where the system has less memory the table is smaller.
    pub fn new(budget_bytes: usize, load_factor: f64, key_count_max: u64) -> OffsetMap {
        let load_factor = load_factor.clamp(0.01, 1.0);
        let wanted = (key_count_max as f64 / load_factor).ceil() as usize;
        let mut slot_count = (budget_bytes / SLOT_SIZE_BYTES).min(wanted.saturating_add(1)).max(2);
        while slot_count > 2 && Vec::<[u64; 3]>::new().try_reserve_exact(slot_count).is_err() {
            slot_count /= 2;
        }
        let len_max = ((slot_count as f64 * load_factor) as usize).clamp(1, slot_count - 1);
        OffsetMap { slots: vec![[0; 3]; slot_count], len: 0, len_max }
    }

    /// Notes that the key has a record at `offset`. False if the key is new and there is no room for it.
    #[inline]
    #[must_use]
    pub fn put(&mut self, hash: KeyHash, offset: Offset) -> bool {
        let at = self.find(hash);
        let slot = &mut self.slots[at];
        if slot[2] == 0 {
            if self.len == self.len_max {
                return false;
            }
            self.len += 1;
            (slot[0], slot[1]) = hash;
        }
        slot[2] = slot[2].max(offset.0 as u64 + 1);
        true
    }

    /// The greatest offset that was noted for the key.
    #[inline]
    pub fn get(&self, hash: KeyHash) -> Option<Offset> {
        let slot = &self.slots[self.find(hash)];
        (slot[2] > 0).then(|| Offset(slot[2] as i64 - 1))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the table.
    pub fn size_bytes(&self) -> usize {
        self.slots.len() * SLOT_SIZE_BYTES
    }

    /// The key's slot, or the free one where it belongs. There is always a free one.
    fn find(&self, hash: KeyHash) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(hash.0) * count as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 || (slot[0], slot[1]) == hash {
                return at;
            }
            at = if at + 1 == count { 0 } else { at + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_greatest_offset_of_each_key_is_known() {
        // Random keys and offsets in any order against a plain map, in a table that becomes full.
        let mut rng = Rng::new(1);
        let hasher = KeyHasher::new((rng.next_u64(), rng.next_u64()));
        let mut map = OffsetMap::new(24 * 1000, 0.9, u64::MAX);
        let mut model = BTreeMap::new();
        let mut refused = 0;
        for _ in 0..20_000 {
            let key = rng.in_range(0..1200).to_be_bytes();
            let offset = Offset(rng.in_range(0..1 << 40) as i64);
            if map.put(hasher.hash(&key), offset) {
                let greatest = model.entry(key).or_insert(offset);
                *greatest = (*greatest).max(offset);
            } else {
                assert!(!model.contains_key(&key), "a known key always has room");
                refused += 1;
            }
        }
        assert_eq!((map.len(), model.len()), (900, 900));
        assert!(refused > 0);
        for key in 0..1200_u64 {
            let key = key.to_be_bytes();
            assert_eq!(map.get(hasher.hash(&key)), model.get(&key).copied());
        }
    }

    #[test]
    fn the_table_is_as_large_as_needed_and_never_larger_than_its_budget() {
        assert!(OffsetMap::new(1 << 30, 0.9, 100).size_bytes() < 4096);
        assert!(OffsetMap::new(4096, 0.9, u64::MAX).size_bytes() <= 4096);
        let mut least = OffsetMap::new(0, 0.9, u64::MAX);
        assert!(least.put((1, 1), Offset(0)));
        assert!(!least.put((2, 2), Offset(1)));
        assert_eq!((least.get((1, 1)), least.get((2, 2))), (Some(Offset(0)), None));
    }
}
