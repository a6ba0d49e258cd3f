//! What the disk and the ring give: direct writes of given sizes, one at a time as a log makes them, onto fresh and
//! onto written blocks, durable or not; direct reads; and a ring's round trip.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use hdrhistogram::Histogram;

use super::{Row, size_text};
use crate::io::{Buffer, File, Io, Op, OpenOptions, Outcome, Slice, Token};

/// What is measured.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Where the file is made.
    pub directory: PathBuf,
    /// Its size: writing begins again at its start, on fresh blocks it ends there.
    pub file_size_bytes: u64,
    /// Sizes of single writes.
    pub sizes_bytes: Vec<u64>,
    /// How long each.
    pub time: Duration,
}

/// All of it. The file is removed at the end.
pub fn measure(io: &mut impl Io, options: &DiskOptions) -> anyhow::Result<Vec<Row>> {
    ensure!(
        options.sizes_bytes.iter().all(|size| size % 4096 == 0 && *size > 0 && *size <= options.file_size_bytes),
        "direct writes are of whole blocks of 4 KiB and fit into the file"
    );
    let path = options.directory.join("ottla-floor.dat");
    let rows = with_file(io, options, &path);
    // The error of the measurement counts.
    let removed = io.run(Op::Remove { path });
    let rows = rows?;
    removed.context("removing the file")?;
    Ok(rows)
}

fn with_file(io: &mut impl Io, options: &DiskOptions, path: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let file = open(io, path, true)?;
    for written in [false, true] {
        for sync in [false, true] {
            for size in &options.sizes_bytes {
                prepare(io, &file, options, written)?;
                let (taken_ns, took) = writes(io, &file, options, *size, written, sync, 1)?;
                rows.push(row(&write_name(*size, written, sync), &taken_ns, took, *size));
            }
        }
    }
    let large = 1 << 20;
    if options.file_size_bytes >= 16 * large {
        let (taken_ns, took) = writes(io, &file, options, large, true, false, 8)?;
        rows.push(row("write 1 MiB written no sync, 8 deep", &taken_ns, took, large));
        let (taken_ns, took) = reads(io, &file, options, large)?;
        rows.push(row("read 1 MiB direct", &taken_ns, took, large));
    }
    drop(file);
    let file = open(io, path, false)?;
    let (taken_ns, took) = reads(io, &file, &DiskOptions { file_size_bytes: 4096, ..options.clone() }, 4096)?;
    rows.push(row("ring round trip (4 KiB from the page cache)", &taken_ns, took, 4096));
    Ok(rows)
}

fn write_name(size_bytes: u64, written: bool, sync: bool) -> String {
    let blocks = if written { "written" } else { "fallocated" };
    format!("write {} {blocks} {}", size_text(size_bytes), if sync { "dsync" } else { "no sync" })
}

/// A row of operations of one size.
pub(super) fn row(name: &str, taken_ns: &Histogram<u64>, took: Duration, size_bytes: u64) -> Row {
    let per_second = taken_ns.len() as f64 / took.as_secs_f64().max(1e-9);
    let us = |quantile: f64| Some(taken_ns.value_at_quantile(quantile) as f64 / 1e3);
    Row {
        name: name.to_string(),
        per_second: Some(per_second),
        mib_per_second: Some(per_second * size_bytes as f64 / (1 << 20) as f64),
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: us(0.999),
        ..Row::default()
    }
}

fn open(io: &mut impl Io, path: &Path, direct: bool) -> anyhow::Result<File> {
    let options = OpenOptions { write: true, create: true, direct, ..OpenOptions::default() };
    match io.run(Op::Open { path: path.to_path_buf(), options }) {
        Ok(Outcome::Opened(file)) => Ok(file),
        Ok(other) => bail!("an open that did something else: {other:?}"),
        Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
    }
}

/// Fresh blocks each time; written ones once.
fn prepare(io: &mut impl Io, file: &File, options: &DiskOptions, written: bool) -> anyhow::Result<()> {
    let length_bytes = options.file_size_bytes;
    let file = || file.clone();
    let step = if written {
        let Outcome::Length(length) = io.run(Op::Length { file: file() })? else { bail!("no length") };
        // The length tells: a fresh file has exactly its own, a written one a block more.
        if length == length_bytes {
            io.run(Op::Truncate { file: file(), length_bytes: length_bytes + 4096 })?;
            Op::WriteZeros { file: file(), offset: 0, length_bytes }
        } else {
            return Ok(());
        }
    } else {
        io.run(Op::Truncate { file: file(), length_bytes: 0 })?;
        io.run(Op::Allocate { file: file(), offset: 0, length_bytes })?;
        Op::Sync { file: file() }
    };
    io.run(step).with_context(|| format!("preparing a file of {length_bytes} bytes"))?;
    Ok(())
}

fn writes(
    io: &mut impl Io,
    file: &File,
    options: &DiskOptions,
    size_bytes: u64,
    written: bool,
    sync: bool,
    depth: usize,
) -> anyhow::Result<(Histogram<u64>, Duration)> {
    let mut buffer = io.pool().take(size_bytes as usize).context("memory for a write")?;
    buffer[..size_bytes as usize].fill(0x5a);
    let slice: Slice = buffer.freeze(size_bytes as usize);
    let op = |offset| Op::Write { file: file.clone(), offset, slice: slice.clone(), sync };
    let blocks = options.file_size_bytes / size_bytes;
    // Fresh blocks are fresh once.
    let count_max = if written { u64::MAX } else { blocks };
    drive(io, options.time, depth, count_max, |index, _| op(index % blocks * size_bytes))
}

fn reads(
    io: &mut impl Io,
    file: &File,
    options: &DiskOptions,
    size_bytes: u64,
) -> anyhow::Result<(Histogram<u64>, Duration)> {
    let blocks = options.file_size_bytes / size_bytes;
    let mut first = Some(io.pool().take(size_bytes as usize).context("memory for a read")?);
    drive(io, options.time, 1, u64::MAX, |index, back| {
        let buffer: Buffer = back.or_else(|| first.take()).expect("one read is under way at a time");
        let offset = index % blocks * size_bytes;
        Op::Read { file: file.clone(), offset, buffer, length_bytes: size_bytes as u32 }
    })
}

/// Keeps `depth` operations under way for the time, in order of `next`'s index; returns how long each took. `next` is
/// given the buffer that came back.
fn drive(
    io: &mut impl Io,
    time: Duration,
    depth: usize,
    count_max: u64,
    mut next: impl FnMut(u64, Option<Buffer>) -> Op,
) -> anyhow::Result<(Histogram<u64>, Duration)> {
    let mut taken_ns = Histogram::<u64>::new(3)?;
    let mut under_way = VecDeque::new();
    let mut completions = Vec::new();
    let start = io.now().monotonic;
    let (mut index, mut now) = (0, start);
    let mut returned = None;
    let mut failed = None;
    loop {
        let goes_on = now.since(start) < time && index < count_max && failed.is_none();
        while goes_on && under_way.len() < depth && index < count_max {
            io.submit(Token(index), next(index, returned.take()));
            under_way.push_back((index, now));
            index += 1;
        }
        if under_way.is_empty() {
            // Only now is nothing of it left in the ring.
            return failed.map_or(Ok((taken_ns, now.since(start))), Err);
        }
        io.poll(None, &mut completions);
        now = io.now().monotonic;
        for completion in completions.drain(..) {
            let at = under_way.iter().position(|(known, _)| *known == completion.token.0).context("a stray end")?;
            let (_, began) = under_way.remove(at).expect("it was found there");
            match completion.result {
                Ok(Outcome::Read { buffer, .. }) => returned = Some(buffer),
                Ok(Outcome::Done) => {}
                Ok(other) => failed = Some(anyhow!("an operation did something else: {other:?}")),
                Err(error) => failed = Some(error.into()),
            }
            taken_ns.saturating_record(now.since(began).as_nanos() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::uring::{Ring, RingOptions};

    #[test]
    fn every_size_is_written_in_every_way_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let options = DiskOptions {
            directory: directory.path().to_path_buf(),
            file_size_bytes: 16 << 20,
            sizes_bytes: vec![4096, 65536],
            time: Duration::from_millis(5),
        };
        let mut ring = Ring::new(RingOptions::default(), 64 << 20, None).unwrap();
        let rows = measure(&mut ring, &options).unwrap();
        assert_eq!(rows.len(), 2 * 2 * 2 + 3);
        assert!(rows.iter().all(|row| row.per_second.unwrap() > 0.0 && row.p50_us.unwrap() > 0.0), "{rows:?}");
        assert_eq!(rows[7].name, "write 64 KiB written dsync");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let odd = DiskOptions { sizes_bytes: vec![1000], ..options };
        assert!(measure(&mut ring, &odd).is_err());
    }
}
