//! A walk over a segment's batches to the end of the valid log, and a look at what lies behind it.
//!
//! The end is where the next batch is cut, has a wrong CRC or magic, an offset that does not go on or an epoch that
//! goes back. Behind it lie the end of the file, zeros (prepared space), or remains: a torn write or a reused file's
//! former contents, both usual in the segment that is being written. A valid batch that belongs behind the end means
//! that something in the middle was damaged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use crate::base::time::Timestamp;
use crate::model::batch::{self, HEADER_SIZE, Header, PREFIX_SIZE};
use crate::model::id::Offset;
use crate::model::limits::FRAME_SIZE_BYTES_MAX;
use crate::storage::layout::FileName;

/// How far behind the end a batch that belongs there is looked for.
const LOOK_BEHIND_BYTES: u64 = 64 << 20;

/// What a walk found.
#[derive(Clone, Debug)]
pub struct SegmentScan {
    /// Valid batches.
    pub batch_count: u64,
    /// Their records.
    pub record_count: u64,
    /// Offset of the first batch.
    pub first_offset: Option<Offset>,
    /// Offset after the last; the base offset of an empty segment.
    pub next_offset: Offset,
    /// Least and greatest leader epoch.
    pub epochs: Option<(i32, i32)>,
    /// Batches by the codec's number.
    pub codecs: BTreeMap<u8, u64>,
    /// The greatest of all batches.
    pub max_timestamp: Timestamp,
    /// Where the valid log ends.
    pub end_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// What is behind the end.
    pub ending: Ending,
    /// The batches' first offset contradicts the file's name.
    pub misnamed: Option<String>,
}

/// What is behind the valid log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    EndOfFile,
    /// Zeros to the end of the file.
    Zeros,
    /// Bytes that are no batch of this log.
    Other {
        /// Why the next bytes are not a batch.
        why: String,
    },
    /// A batch of this log follows behind bytes that are none.
    Corrupt {
        /// Why the next bytes are not a batch.
        why: String,
        /// Where the later batch is.
        position: u64,
        /// Its offset.
        offset: Offset,
    },
}

impl SegmentScan {
    /// Why the file is not sound, if so.
    pub fn problem(&self) -> Option<String> {
        match &self.ending {
            Ending::Corrupt { why, position, offset } => Some(format!(
                "byte {}: {why}, and the batch of offset {} behind it at byte {position} is cut off",
                self.end_bytes, offset.0
            )),
            _ => self.misnamed.clone(),
        }
    }
}

/// Walks the segment at `path`, handing each valid batch with its position to `each` until that breaks.
pub fn segment(
    path: &Path,
    mut each: impl FnMut(u64, &Header, &[u8]) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<SegmentScan> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    let base = path.file_name().and_then(|name| FileName::parse(&name.to_string_lossy()));
    let base = match base {
        Some(FileName::Segment(base) | FileName::Spare(base)) => Some((base, matches!(base_kind(path), Kind::Spare))),
        _ => None,
    };
    let mut scan = SegmentScan {
        batch_count: 0,
        record_count: 0,
        first_offset: None,
        next_offset: base.map_or(Offset(0), |(base, _)| base),
        epochs: None,
        codecs: BTreeMap::new(),
        max_timestamp: Timestamp::NONE,
        end_bytes: 0,
        file_bytes,
        ending: Ending::EndOfFile,
        misnamed: None,
    };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut bytes = Vec::new();
    let why = loop {
        match next_batch(&mut reader, &scan, &mut bytes)? {
            Ok(header) => {
                note(&mut scan, &header);
                let flow = each(scan.end_bytes, &header, &bytes)?;
                scan.end_bytes += header.size_bytes as u64;
                if flow.is_break() {
                    return Ok(scan);
                }
            }
            Err(why) => break why,
        }
    };
    // A spare keeps the name of the segment that it was, until its first roll has been written.
    if let (Some((base, false)), Some(first)) = (base, scan.first_offset)
        && first < base
    {
        scan.misnamed = Some(format!("its name says offset {base}, and its first batch has {first}"));
    }
    scan.ending = ending(reader.into_inner(), &scan, why)?;
    Ok(scan)
}

enum Kind {
    Segment,
    Spare,
}

fn base_kind(path: &Path) -> Kind {
    if path.extension().is_some_and(|extension| extension == "spare") { Kind::Spare } else { Kind::Segment }
}

fn note(scan: &mut SegmentScan, header: &Header) {
    let epoch = header.leader_epoch.0;
    scan.batch_count += 1;
    scan.record_count += header.record_count.max(0) as u64;
    scan.first_offset.get_or_insert(header.base_offset);
    scan.next_offset = header.next_offset();
    scan.epochs = Some(scan.epochs.map_or((epoch, epoch), |(low, high)| (low.min(epoch), high.max(epoch))));
    *scan.codecs.entry(header.attributes.codec()).or_default() += 1;
    scan.max_timestamp = scan.max_timestamp.max(header.max_timestamp);
}

/// The next batch into `bytes`, or why there is none.
fn next_batch(
    reader: &mut BufReader<File>,
    scan: &SegmentScan,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<Header, String>> {
    let left = scan.file_bytes - scan.end_bytes;
    if left == 0 {
        return Ok(Err(String::new()));
    }
    if left < HEADER_SIZE as u64 {
        return Ok(Err(format!("{left} bytes, too few for a batch")));
    }
    bytes.resize(PREFIX_SIZE, 0);
    reader.read_exact(bytes)?;
    let Some(size_bytes) = batch::size_of_batch(bytes) else {
        return Ok(Err(if bytes.iter().all(|b| *b == 0) { "zeros".into() } else { "a length that cannot be".into() }));
    };
    if size_bytes as u64 > left || size_bytes > FRAME_SIZE_BYTES_MAX {
        return Ok(Err(format!("a batch that claims {size_bytes} bytes")));
    }
    bytes.resize(size_bytes, 0);
    reader.read_exact(&mut bytes[PREFIX_SIZE..])?;
    Ok(judge(bytes, scan))
}

/// Whether the batch that `bytes` is goes on where the scan is.
fn judge(bytes: &[u8], scan: &SegmentScan) -> Result<Header, String> {
    let header = Header::parse(bytes).ok_or("no batch header")?;
    if header.magic != batch::MAGIC {
        return Err(format!("message format {}", header.magic));
    }
    if batch::crc_of(bytes) != header.crc {
        return Err("a batch with a wrong CRC".into());
    }
    // Compaction leaves gaps, so a higher offset may go on; a lower one is what a reused file held before.
    if scan.first_offset.is_some() && header.base_offset < scan.next_offset {
        return Err(format!("a batch of offset {}, from an earlier use of the file", header.base_offset.0));
    }
    if let Some((_, high)) = scan.epochs.filter(|(_, high)| header.leader_epoch.0 < *high) {
        return Err(format!("a batch of epoch {}, below {high}", header.leader_epoch.0));
    }
    if header.last_offset_delta < 0 {
        return Err("a batch whose last offset is before its first".into());
    }
    Ok(header)
}

fn ending(mut file: File, scan: &SegmentScan, why: String) -> io::Result<Ending> {
    if scan.end_bytes == scan.file_bytes {
        return Ok(Ending::EndOfFile);
    }
    file.seek(SeekFrom::Start(scan.end_bytes))?;
    let mut rest = Vec::new();
    (&file).take(LOOK_BEHIND_BYTES).read_to_end(&mut rest)?;
    if rest.iter().all(|byte| *byte == 0) && only_zeros(&file)? {
        return Ok(Ending::Zeros);
    }
    if let Some((at, offset)) = later_batch(&rest, scan) {
        return Ok(Ending::Corrupt { why, position: scan.end_bytes + at as u64, offset });
    }
    Ok(Ending::Other { why })
}

/// True if the file has only zeros from where it was read to.
fn only_zeros(file: &File) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut block = [0; 4096];
    loop {
        match reader.read(&mut block)? {
            0 => return Ok(true),
            count if block[..count].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// A valid batch of the current epoch or a later one, with an offset behind the end. An empty log has no epoch to
/// compare with, so nothing can be said about it.
fn later_batch(rest: &[u8], scan: &SegmentScan) -> Option<(usize, Offset)> {
    let (_, epoch) = scan.epochs?;
    (1..rest.len().saturating_sub(HEADER_SIZE)).find_map(|at| {
        let bytes = &rest[at..];
        if bytes[16] as i8 != batch::MAGIC {
            return None;
        }
        let header = Header::parse(bytes)?;
        let plausible = header.base_offset > scan.next_offset
            && header.leader_epoch.0 >= epoch
            && header.size_bytes <= bytes.len().min(FRAME_SIZE_BYTES_MAX);
        (plausible && batch::crc_of(&bytes[..header.size_bytes]) == header.crc).then_some((at, header.base_offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;
    use crate::model::id::LeaderEpoch;

    fn batch(offset: i64, epoch: i32, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::Lz4).base_offset(Offset(offset)).leader_epoch(LeaderEpoch(epoch));
        for _ in 0..records {
            builder.push(Timestamp(1000 + offset), Some(b"key"), Some(&[7; 100]), &[]);
        }
        builder.build()
    }

    fn scan(name: &str, contents: &[Vec<u8>]) -> SegmentScan {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, contents.concat()).unwrap();
        segment(&path, |_, _, _| Ok(ControlFlow::Continue(()))).unwrap()
    }

    const NAME: &str = "00000000000000000010.log";

    #[test]
    fn a_sealed_segment_ends_with_its_file() {
        let scan = scan(NAME, &[batch(10, 1, 5), batch(15, 2, 3)]);
        assert_eq!((scan.batch_count, scan.record_count, scan.next_offset), (2, 8, Offset(18)));
        assert_eq!((scan.epochs, scan.max_timestamp), (Some((1, 2)), Timestamp(1015)));
        assert_eq!((scan.ending.clone(), scan.problem()), (Ending::EndOfFile, None));
    }

    #[test]
    fn zeros_and_remains_of_an_earlier_use_end_a_sound_log() {
        let zeros = scan(NAME, &[batch(10, 1, 5), vec![0; 10_000]]);
        assert_eq!((zeros.ending.clone(), zeros.problem()), (Ending::Zeros, None));
        let stale = scan(NAME, &[batch(10, 2, 5), batch(3, 1, 2), batch(5, 1, 9)]);
        assert!(matches!(stale.ending, Ending::Other { .. }), "{:?}", stale.ending);
        let mut torn = batch(15, 1, 3);
        torn.truncate(70);
        let torn = scan(NAME, &[batch(10, 1, 5), torn, vec![0; 200]]);
        assert!(matches!(torn.ending, Ending::Other { .. }) && torn.problem().is_none());
        let empty = scan(NAME, &[vec![0; 4096]]);
        assert_eq!((empty.ending, empty.next_offset), (Ending::Zeros, Offset(10)));
    }

    #[test]
    fn a_damaged_batch_with_a_good_one_behind_it_is_corruption() {
        let mut damaged = batch(15, 1, 3);
        damaged[80] ^= 1;
        let first = batch(10, 1, 5);
        let (at, position) = (first.len() as u64, (first.len() + damaged.len()) as u64);
        let scan = scan(NAME, &[first, damaged, batch(18, 1, 1)]);
        assert_eq!(scan.end_bytes, at);
        let Ending::Corrupt { position: found, offset, .. } = scan.ending else { panic!("{:?}", scan.ending) };
        assert_eq!((found, offset), (position, Offset(18)));
        assert!(scan.problem().is_some());
    }

    #[test]
    fn a_name_that_lies_is_a_problem() {
        assert!(scan(NAME, &[batch(3, 1, 5)]).problem().is_some());
        assert!(scan("00000000000000000010.spare", &[batch(3, 1, 5)]).problem().is_none());
    }
}
