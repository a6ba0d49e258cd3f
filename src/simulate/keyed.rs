//! Records with keys, numbers and perhaps no value, in batches that compaction may have thinned out.
//!
//! Like [`wire`], of which it uses the header, it shares no code with the broker.

use super::wire::{self, Batch, Session};

/// The record header that tells a record's number.
const NUMBER: &[u8] = b"n";
const HEADER_SIZE_BYTES: usize = 61;
/// Attributes of a batch.
const TRANSACTIONAL: u8 = 0x10;
const CONTROL: u8 = 0x20;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// No other record has it.
    pub number: u64,
    /// Milliseconds.
    pub time: i64,
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None`: the key is deleted.
    pub value: Option<Vec<u8>>,
}

/// A value that follows from a number.
pub fn filler(number: u64, size_bytes: usize) -> Vec<u8> {
    let words = (0..size_bytes.div_ceil(8) as u64).flat_map(|at| wire::mix(number, at).to_le_bytes());
    words.take(size_bytes).collect()
}

/// A batch of these records, as a client sends it.
pub fn build(records: &[&Keyed]) -> Vec<u8> {
    build_of(None, records)
}

fn build_of(session: Option<(Session, i32)>, records: &[&Keyed]) -> Vec<u8> {
    let times: Vec<i64> = records.iter().map(|record| record.time).collect();
    let mut bytes = Vec::new();
    for (delta, record) in records.iter().enumerate() {
        let mut body = vec![0];
        wire::put_varint(&mut body, record.time - times[0]);
        wire::put_varint(&mut body, delta as i64);
        put(&mut body, Some(&record.key));
        put(&mut body, record.value.as_deref());
        wire::put_varint(&mut body, 1);
        put(&mut body, Some(NUMBER));
        put(&mut body, Some(&record.number.to_be_bytes()));
        wire::put_varint(&mut bytes, body.len() as i64);
        bytes.extend_from_slice(&body);
    }
    wire::assemble(session, &times, &bytes)
}

/// A batch of these records, as a transactional producer sends it.
pub fn build_in_transaction(session: Session, sequence: i32, records: &[&Keyed]) -> Vec<u8> {
    let mut bytes = build_of(Some((session, sequence)), records);
    bytes[22] |= TRANSACTIONAL;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// A batch with what a reader of transactions looks at.
#[derive(Clone, Debug)]
pub struct Read {
    /// The batch.
    pub batch: Batch,
    /// Its producer's id.
    pub producer: i64,
    /// It ends a transaction: by a commit?
    pub marker: Option<bool>,
    /// Its records with their offsets, unless it is a control batch.
    pub records: Vec<(i64, Keyed)>,
}

/// Reads whole batches, control batches among them. An error if they cannot be read.
pub fn read_transactional(mut bytes: &[u8]) -> Result<Vec<Read>, String> {
    let mut found = Vec::new();
    while let Some(length) = bytes.get(8..12) {
        let size = 12 + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let Some((this, rest)) = bytes.split_at_checked(size) else { break };
        let producer = i64::from_be_bytes(this.get(43..51).ok_or("a short batch")?.try_into().expect("eight bytes"));
        if this[22] & CONTROL != 0 {
            let batch = *wire::read(this)?.first().ok_or("no batch")?;
            // Compaction may have left the batch without its record.
            let marker = match this[60] {
                0 => None,
                _ => Some(commits(&this[HEADER_SIZE_BYTES..]).ok_or_else(|| format!("{batch:?} is no marker"))?),
            };
            found.push(Read { batch, producer, marker, records: Vec::new() });
        } else {
            for (batch, records) in read(this)? {
                found.push(Read { batch, producer, marker: None, records });
            }
        }
        bytes = rest;
    }
    Ok(found)
}

/// What a marker's record says: its key is a version and a type, 0 for an abort and 1 for a commit.
fn commits(record: &[u8]) -> Option<bool> {
    let mut fields = Records(record);
    fields.varint()?;
    fields.take(1)?;
    fields.varint()?;
    fields.varint()?;
    match fields.bytes()??[..] {
        [0, 0, 0, 0] => Some(false),
        [0, 0, 0, 1] => Some(true),
        _ => None,
    }
}

/// Reads whole batches and the records that are left in them, with their offsets. An error if they cannot be read.
#[allow(clippy::type_complexity)]
pub fn read(mut bytes: &[u8]) -> Result<Vec<(Batch, Vec<(i64, Keyed)>)>, String> {
    let mut batches = Vec::new();
    for batch in wire::read(bytes)? {
        let size = 12 + u32::from_be_bytes(bytes[8..12].try_into().expect("it was read")) as usize;
        let (this, rest) = bytes.split_at(size);
        let number = |at: usize| i64::from_be_bytes(this[at..at + 8].try_into().expect("within the header"));
        if this[22] & 7 != 0 {
            return Err(format!("{batch:?} is compressed"));
        }
        let (base_timestamp, count) = (number(27), u32::from_be_bytes(this[57..61].try_into().expect("four bytes")));
        let mut records = Records(&this[HEADER_SIZE_BYTES..]);
        let mut rows = Vec::new();
        for _ in 0..count {
            let row = records.next(batch.base_offset, base_timestamp);
            rows.push(row.ok_or_else(|| format!("the records of {batch:?} cannot be read"))?);
        }
        if !records.0.is_empty() {
            return Err(format!("{batch:?} has bytes behind its records"));
        }
        batches.push((batch, rows));
        bytes = rest;
    }
    Ok(batches)
}

/// Records that are not read yet.
struct Records<'a>(&'a [u8]);

impl Records<'_> {
    fn next(&mut self, base_offset: i64, base_timestamp: i64) -> Option<(i64, Keyed)> {
        let size = self.varint()?;
        let whole = self.take(size)?;
        let mut fields = Records(whole);
        fields.take(1)?;
        let time = base_timestamp + fields.varint()?;
        let offset = base_offset + fields.varint()?;
        let key = fields.bytes()??;
        let value = fields.bytes()?;
        let (1, Some(NUMBER)) = (fields.varint()?, fields.bytes()?.as_deref()) else { return None };
        let number = u64::from_be_bytes(fields.bytes()??.try_into().ok()?);
        fields.0.is_empty().then_some((offset, Keyed { number, time, key, value }))
    }

    fn bytes(&mut self) -> Option<Option<Vec<u8>>> {
        match self.varint()? {
            -1 => Some(None),
            size => self.take(size).map(|bytes| Some(bytes.to_vec())),
        }
    }

    fn varint(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }
}

impl<'a> Records<'a> {
    fn take(&mut self, size: i64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(size).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

fn put(bytes: &mut Vec<u8>, field: Option<&[u8]>) {
    wire::put_varint(bytes, field.map_or(-1, |field| field.len() as i64));
    bytes.extend_from_slice(field.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::model::batch;
    use crate::model::records::{section, validate_records};
    use crate::model::rewrite::{self, Left};

    #[test]
    fn what_is_built_is_read_also_when_compaction_has_thinned_it_out() {
        // Compared with the broker's own reading and rewriting of the same bytes, the one place where the two meet.
        let record = |number: u64, value: Option<usize>| Keyed {
            number,
            time: 1_750_000_000_000 - number as i64,
            key: format!("key {number}").into_bytes(),
            value: value.map(|size| filler(number, size)),
        };
        let records = [record(5, Some(300)), record(6, None), record(7, Some(0))];
        let bytes = build(&records.iter().collect::<Vec<_>>());
        let header = batch::validate(&bytes).expect("the broker takes it");
        validate_records(&header, &bytes, 10_000, true).expect("its records are sound and have keys");
        let [(read, rows)] = &super::read(&bytes).expect("a batch")[..] else { panic!("one batch") };
        assert!(read.is_sound && rows.iter().map(|(_, row)| row).eq(&records));
        let records_of = section(&header, &bytes, 10_000).expect("not compressed");
        let horizon = Some(Timestamp(1_760_000_000_000));
        let left = rewrite::retain(&header, &records_of, horizon, |record| record.offset_delta > 0);
        let Ok(Left::Some(thin)) = left else { panic!("one goes") };
        let both = [thin, rewrite::without_records(&header)].concat();
        let [(first, rows), (empty, none)] = &super::read(&both).expect("batches")[..] else { panic!("two batches") };
        assert!(first.is_sound && empty.is_sound && none.is_empty());
        assert_eq!(rows[..], [(0, records[1].clone()), (1, records[2].clone())].map(|(at, row)| (at + 1, row)));
        assert_eq!((first.base_offset, first.next_offset, empty.next_offset), (0, 3, 3));
    }
}
