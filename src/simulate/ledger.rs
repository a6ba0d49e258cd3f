//! What is known of the records of a compacted topic, and what a pass over it must find.
//!
//! 1. Every record is known by a number. What is found must have been sent, stand at the offset where it always stood,
//!    and be as it was sent. Records of one connection stand in the order of sending.
//! 2. A batch is taken whole or not at all. So an acknowledgement, or one record of it that is read, tells where all of
//!    its records stand, also those that compaction has removed before anybody read them.
//! 3. Of each key the last record that stands below the end is found, unless it is a tombstone whose time has passed. A
//!    key that was deleted does not come back.
//! 4. Of a batch that was never answered, and of which nothing was read, nobody knows whether it was taken. A tombstone
//!    of it may have removed what stands before it, and be gone itself when its time has passed.

use std::collections::BTreeMap;
use std::ops::Range;

use super::keyed::Keyed;
use super::violation::{Checker, Violation, violated};

/// A record that was sent.
struct Sent {
    record: Keyed,
    /// The wall clock when it was sent.
    sent_ms: i64,
    connection: u32,
    /// Number of the first record of its batch.
    first: u64,
    at: Option<i64>,
}

/// A walk from the start to the end.
pub struct Pass {
    /// Where it goes on.
    pub position: i64,
    /// The wall clock when it began.
    pub began_ms: i64,
    /// What was found where.
    pub found: BTreeMap<i64, u64>,
}

impl Pass {
    /// One that begins at this time.
    pub fn new(began_ms: i64) -> Pass {
        Pass { position: 0, began_ms, found: BTreeMap::new() }
    }
}

/// See the module.
pub struct Ledger {
    topic: &'static str,
    /// `delete.retention.ms`
    pub retention_ms: i64,
    sent: Vec<Sent>,
    /// Which record stands where, as far as it was told.
    placed: BTreeMap<i64, u64>,
}

impl Ledger {
    /// Of a topic that keeps tombstones for `retention_ms`.
    pub fn new(topic: &'static str, retention_ms: i64) -> Ledger {
        Ledger { topic, retention_ms, sent: Vec::new(), placed: BTreeMap::new() }
    }

    /// Everything is gone, and numbers begin again.
    pub fn clear(&mut self) {
        self.sent.clear();
        self.placed.clear();
    }

    /// How many records were sent: the next one's number.
    pub fn count(&self) -> u64 {
        self.sent.len() as u64
    }

    /// The records of a batch are sent. Their numbers.
    pub fn send(&mut self, records: Vec<Keyed>, sent_ms: i64, connection: u32) -> Range<u64> {
        let first = self.count();
        self.sent.extend(records.into_iter().map(|record| Sent { record, sent_ms, connection, first, at: None }));
        first..self.count()
    }

    /// A record was read.
    pub fn read(&mut self, offset: i64, record: &Keyed) -> Result<u64, Violation> {
        let (topic, number) = (self.topic, record.number);
        let first = match self.sent.get(number as usize) {
            Some(sent) if sent.record == *record => sent.first,
            Some(_) => return violated(Checker::Changed, format!("{topic}: record {number} at {offset} has changed")),
            None => return violated(Checker::Phantom, format!("{topic}: record {number} at {offset}")),
        };
        self.place_batch(first, offset - (number - first) as i64).map(|()| number)
    }

    /// The batch of which this is the first number stands here: it was acknowledged, or some of it was read.
    pub fn place_batch(&mut self, first: u64, base_offset: i64) -> Result<(), Violation> {
        let batch = self.sent[first as usize..].iter().take_while(|sent| sent.first == first);
        let last = first + batch.count() as u64;
        (first..last).zip(base_offset..).try_for_each(|(number, offset)| self.place(number, offset))
    }

    fn place(&mut self, number: u64, offset: i64) -> Result<(), Violation> {
        let before = self.placed.range(..offset).next_back().map(|(_, before)| *before);
        let behind = self.placed.range(offset + 1..).next().map(|(_, behind)| *behind);
        let there = self.placed.insert(offset, number);
        let at = self.sent[number as usize].at.replace(offset);
        let topic = self.topic;
        if there.is_some_and(|there| there != number) || at.is_some_and(|at| at != offset) {
            let what = format!("{topic}: record {number} is at {offset} and at {at:?}, where {there:?} was");
            return violated(Checker::Duplicate, what);
        }
        let connection = |number: u64| self.sent[number as usize].connection;
        let is_same = |other: u64| connection(other) == connection(number);
        if before.is_some_and(|before| is_same(before) && before > number)
            || behind.is_some_and(|behind| is_same(behind) && behind < number)
        {
            let what = format!("{topic}: record {number} at {offset} stands between {before:?} and {behind:?}");
            return violated(Checker::Order, what);
        }
        Ok(())
    }

    /// What a pass up to `end` has found is compared with what must be there; `now_ms` is the wall clock, if it can be
    /// trusted. How many tombstones that were the last of their keys are gone.
    pub fn compare(&self, pass: &Pass, end: i64, now_ms: Option<i64>) -> Result<u64, Violation> {
        let mut lasts: BTreeMap<&[u8], (i64, &Sent)> = BTreeMap::new();
        for (offset, number) in self.placed.range(..end) {
            let sent = &self.sent[*number as usize];
            lasts.insert(&sent.record.key, (*offset, sent));
        }
        lasts.retain(|_, (offset, _)| !pass.found.contains_key(offset));
        let mut gone_count = 0;
        for (key, (offset, last)) in lasts {
            let (topic, number) = (self.topic, last.record.number);
            let who = || format!("{topic}, {}: record {number} at {offset}", String::from_utf8_lossy(key));
            if self.may_be_removed(last, now_ms) {
                continue;
            }
            if last.record.value.is_some() {
                return violated(Checker::Compaction, format!("{}, the last one, is gone", who()));
            }
            gone_count += 1;
            let Some(now_ms) = now_ms else { continue };
            if !self.is_over(last, Some(now_ms)) {
                let age_ms = now_ms - last.sent_ms;
                return violated(Checker::Compaction, format!("{}, a tombstone, is gone after {age_ms} ms", who()));
            }
            // Who reads for longer than tombstones stay may miss them.
            let is_back = |number: &u64| self.sent[*number as usize].record.key == key;
            if now_ms - pass.began_ms < self.retention_ms && pass.found.values().any(is_back) {
                return violated(Checker::Compaction, format!("{} has deleted the key, and it is back", who()));
            }
        }
        Ok(gone_count)
    }

    /// True if a tombstone of which nobody knows whether it was taken may have removed this, and be gone. On its own
    /// connection what was sent later stands later; what was sent on another one may have come late.
    fn may_be_removed(&self, last: &Sent, now_ms: Option<i64>) -> bool {
        self.sent.iter().any(|sent| {
            sent.at.is_none()
                && sent.record.value.is_none()
                && sent.record.key == last.record.key
                && (sent.connection != last.connection || sent.record.number > last.record.number)
                && self.is_over(sent, now_ms)
        })
    }

    /// True if the time of a tombstone may have passed.
    fn is_over(&self, tombstone: &Sent, now_ms: Option<i64>) -> bool {
        now_ms.is_none_or(|now_ms| now_ms - tombstone.sent_ms >= self.retention_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION_MS: i64 = 100;

    /// Keys, and whether they have values.
    type Rows<'a> = &'a [(&'a str, bool)];

    fn record(number: u64, key: &str, has_value: bool) -> Keyed {
        Keyed { number, time: 0, key: key.into(), value: has_value.then(|| vec![number as u8]) }
    }

    /// A ledger of batches that were sent at a time on a connection.
    fn ledger(batches: &[(i64, u32, Rows<'_>)]) -> Ledger {
        let mut ledger = Ledger::new("t", RETENTION_MS);
        for (sent_ms, connection, rows) in batches {
            let first = ledger.count();
            let records = (first..).zip(*rows).map(|(number, (key, has_value))| record(number, key, *has_value));
            let records = records.collect();
            ledger.send(records, *sent_ms, *connection);
        }
        ledger
    }

    /// A pass that finds the records of these numbers at these offsets.
    fn pass(ledger: &mut Ledger, found: &[(i64, u64)]) -> Pass {
        let mut pass = Pass::new(0);
        for (offset, number) in found {
            let record = ledger.sent[*number as usize].record.clone();
            ledger.read(*offset, &record).expect("it may stand there");
            pass.found.insert(*offset, *number);
        }
        pass
    }

    fn checker(result: Result<u64, Violation>) -> Option<Checker> {
        result.err().map(|violation| violation.checker)
    }

    #[test]
    fn a_record_that_is_read_tells_where_a_tombstone_of_its_batch_stood() {
        // The answer to the second batch is lost; before it is read the first time its tombstone has removed a value, and
        // is gone.
        let mut ledger = ledger(&[(0, 1, &[("a", true)]), (0, 1, &[("b", true), ("a", false), ("c", true)])]);
        ledger.place_batch(0, 10).expect("acknowledged");
        let pass = pass(&mut ledger, &[(11, 1), (13, 3)]);
        assert_eq!(ledger.placed.get(&12), Some(&2));
        assert_eq!(checker(ledger.compare(&pass, 14, Some(RETENTION_MS))), None);
        // Too early, and with the value still there although the tombstone is not.
        assert_eq!(checker(ledger.compare(&pass, 14, Some(RETENTION_MS - 1))), Some(Checker::Compaction));
        let back = Pass { began_ms: 50, found: BTreeMap::from([(10, 0), (11, 1), (13, 3)]), ..pass };
        assert_eq!(checker(ledger.compare(&back, 14, Some(RETENTION_MS))), Some(Checker::Compaction));
    }

    #[test]
    fn a_tombstone_in_doubt_excuses_what_may_stand_before_it_when_its_time_has_passed() {
        // One batch, never answered and never read, of one record: in each case a value is gone.
        let gone = |doubtful: (&str, bool), connection: u32, now_ms: Option<i64>| {
            let mut ledger = ledger(&[(0, 1, &[("a", true)]), (0, connection, &[doubtful])]);
            ledger.place_batch(0, 10).expect("acknowledged");
            checker(ledger.compare(&Pass::new(0), 12, now_ms))
        };
        let later = Some(RETENTION_MS);
        assert_eq!(gone(("a", false), 1, later), None);
        assert_eq!(gone(("a", false), 2, later), None);
        assert_eq!(gone(("a", false), 1, None), None);
        let broken = Some(Checker::Compaction);
        assert_eq!(gone(("a", false), 1, Some(RETENTION_MS - 1)), broken, "its time has not passed");
        assert_eq!(gone(("a", true), 1, None), broken, "a value would be there");
        assert_eq!(gone(("b", false), 1, None), broken, "it is of another key");
        // What was sent before on the same connection stands before.
        let mut ledger = ledger(&[(0, 1, &[("a", false)]), (0, 1, &[("a", true)])]);
        ledger.place_batch(1, 10).expect("acknowledged");
        assert_eq!(checker(ledger.compare(&Pass::new(0), 12, None)), broken);
    }

    #[test]
    fn a_record_stands_where_it_always_stood_as_it_was_sent() {
        let mut ledger = ledger(&[(0, 1, &[("a", true), ("b", true)]), (0, 1, &[("a", true)])]);
        ledger.place_batch(0, 10).expect("acknowledged");
        let read = |ledger: &mut Ledger, offset, record: Keyed| {
            ledger.read(offset, &record).err().map(|violation| violation.checker)
        };
        assert_eq!(read(&mut ledger, 11, record(1, "b", true)), None);
        assert_eq!(read(&mut ledger, 11, record(1, "b", false)), Some(Checker::Changed));
        assert_eq!(read(&mut ledger, 11, record(3, "b", true)), Some(Checker::Phantom));
        assert_eq!(read(&mut ledger, 9, record(2, "a", true)), Some(Checker::Order));
        assert_eq!(read(&mut ledger, 13, record(1, "b", true)), Some(Checker::Duplicate));
    }
}
