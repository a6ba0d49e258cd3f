//! Record batches as the oracle knows them: built and read by code of its own, from Kafka's description of format v2.
//!
//! Nothing here comes from `model::batch` or `model::records`: a fault that both sides shared would not show.

/// Bytes of a batch before its records.
const HEADER_SIZE_BYTES: usize = 61;
/// What `length` does not count: base offset and length.
const PREFIX_SIZE_BYTES: usize = 12;
/// The CRC covers everything from here on.
const BODY_START: usize = 21;

/// Who sends a batch, if it is an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
}

/// A batch as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset behind its last record.
    pub next_offset: i64,
    /// The epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Greatest timestamp.
    pub max_timestamp: i64,
    /// A hash of everything that the broker does not stamp.
    pub body: u64,
    /// The CRC holds.
    pub is_sound: bool,
}

/// A batch of these values, each at its time, as a client sends it.
pub fn build(session: Option<(Session, i32)>, times: &[i64], values: &[Vec<u8>]) -> Vec<u8> {
    let base_timestamp = times[0];
    let mut records = Vec::new();
    for (delta, (time, value)) in times.iter().zip(values).enumerate() {
        let mut record = vec![0];
        put_varint(&mut record, time - base_timestamp);
        put_varint(&mut record, delta as i64);
        put_varint(&mut record, -1);
        put_varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        put_varint(&mut record, 0);
        put_varint(&mut records, record.len() as i64);
        records.extend_from_slice(&record);
    }
    assemble(session, times, &records)
}

/// A batch of encoded records with these times.
pub fn assemble(session: Option<(Session, i32)>, times: &[i64], records: &[u8]) -> Vec<u8> {
    let (session, sequence) = session.unwrap_or((Session { id: -1, epoch: -1 }, -1));
    let length = (HEADER_SIZE_BYTES - PREFIX_SIZE_BYTES + records.len()) as i32;
    let count = times.len() as i32;
    let mut bytes = Vec::with_capacity(HEADER_SIZE_BYTES + records.len());
    bytes.extend(0i64.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend((-1i32).to_be_bytes());
    bytes.push(2);
    bytes.extend([0; 4]);
    bytes.extend(0i16.to_be_bytes());
    bytes.extend((count - 1).to_be_bytes());
    bytes.extend(times[0].to_be_bytes());
    bytes.extend(times.iter().max().expect("a batch has records").to_be_bytes());
    bytes.extend(session.id.to_be_bytes());
    bytes.extend(session.epoch.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(records);
    let crc = crc32c::crc32c(&bytes[BODY_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads one batch after the other; what is cut off at the end, as Kafka may do, is left out. An error if it cannot be
/// read as batches at all.
pub fn read(mut bytes: &[u8]) -> Result<Vec<Batch>, String> {
    let mut batches = Vec::new();
    while bytes.len() >= PREFIX_SIZE_BYTES {
        let length = i32::from_be_bytes(field(bytes, 8));
        let size = PREFIX_SIZE_BYTES + usize::try_from(length).map_err(|_| format!("length {length}"))?;
        if size < HEADER_SIZE_BYTES {
            return Err(format!("a batch of {size} bytes"));
        }
        if bytes.len() < size {
            break;
        }
        let (batch, rest) = bytes.split_at(size);
        if batch[16] != 2 {
            return Err(format!("magic {}", batch[16]));
        }
        let base_offset = i64::from_be_bytes(field(batch, 0));
        batches.push(Batch {
            base_offset,
            next_offset: base_offset + i64::from(i32::from_be_bytes(field(batch, 23))) + 1,
            leader_epoch: i32::from_be_bytes(field(batch, 12)),
            max_timestamp: i64::from_be_bytes(field(batch, 35)),
            body: body_of(batch),
            is_sound: u32::from_be_bytes(field(batch, 17)) == crc32c::crc32c(&batch[BODY_START..]),
        });
        bytes = rest;
    }
    Ok(batches)
}

/// A hash of what a client sent, the same before and after the broker stamped what is its own: base offset, epoch,
/// CRC, and under LogAppendTime the kind of timestamp and the greatest one.
pub fn body_of(batch: &[u8]) -> u64 {
    let mut header = [0; HEADER_SIZE_BYTES];
    header[BODY_START..].copy_from_slice(&batch[BODY_START..HEADER_SIZE_BYTES]);
    header[22] &= !8;
    header[35..43].fill(0);
    mix_bytes(mix_bytes(batch.len() as u64, &header), &batch[HEADER_SIZE_BYTES..])
}

/// A hash that has nothing to do with the CRC.
pub fn mix_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash = mix(hash, u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    for &byte in words.remainder() {
        hash = mix(hash, u64::from(byte));
    }
    hash
}

/// One step of such a hash.
pub fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (value >> 29)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within the header")
}

/// Kafka's zigzag varint.
pub fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_and_stamps_change_nothing_but_themselves() {
        // Also compares with the broker's own reading of the same bytes, the one place where the two meet.
        let session = Session { id: 7, epoch: 0 };
        let mut bytes = build(Some((session, 3)), &[1000, 1005], &[b"one".to_vec(), vec![b'x'; 300]]);
        let sent = body_of(&bytes);
        let header = crate::model::batch::validate(&bytes).expect("the broker takes it");
        assert_eq!((header.producer_id.0, header.base_sequence.0, header.last_offset_delta), (7, 3, 1));
        crate::model::records::validate_records(&header, &bytes, 10_000, false).expect("its records are sound");
        bytes[..8].copy_from_slice(&42i64.to_be_bytes());
        bytes[12..16].copy_from_slice(&5i32.to_be_bytes());
        let [read] = read(&bytes).expect("a batch")[..] else { panic!("one batch") };
        assert_eq!((read.base_offset, read.next_offset, read.leader_epoch, read.is_sound), (42, 44, 5, true));
        assert_eq!((read.body, read.max_timestamp), (sent, 1005));
        bytes[70] ^= 1;
        assert!(!super::read(&bytes).expect("a batch")[0].is_sound);
        assert_ne!(body_of(&bytes), sent);
    }
}
