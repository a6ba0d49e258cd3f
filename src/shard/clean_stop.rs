//! The clean-stop files: written when a shard has closed its logs, read and removed by the next start.
//!
//! One file per shard that stopped, each a row of chunks, one sync. Whoever starts next reads all of them, whatever
//! the number of shards then is. They are gone, durably, before the first append.

use std::io;

use crate::handlers::start::CleanStates;
use crate::io::{Io, Op, OpenOptions, Outcome};
use crate::model::id::ShardId;
use crate::model::limits::{BLOCK_SIZE_BYTES, ENVELOPE_SIZE_BYTES_MAX};
use crate::storage::checkpoint::{clean_stop_chunk_size, read_clean_stop_chunk};
use crate::storage::journal;
use crate::storage::layout::{Layout, parse_clean_stop_file};

/// Runs one operation while completions of others, which nobody waits for any more, may come.
fn run(io: &mut impl Io, op: Op) -> io::Result<Outcome> {
    const TOKEN: crate::io::Token = crate::io::Token(u64::MAX - 1);
    let mut completions = Vec::new();
    io.submit(TOKEN, op);
    loop {
        io.poll(None, &mut completions);
        for completion in completions.drain(..) {
            if completion.token == TOKEN {
                return completion.result;
            }
        }
    }
}

/// Writes this shard's file, durably.
pub fn write(io: &mut impl Io, layout: &Layout, shard: ShardId, chunks: Vec<Vec<u8>>) -> io::Result<()> {
    if chunks.is_empty() {
        return Ok(());
    }
    let path = layout.clean_stop_file(u32::from(shard.0));
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let Outcome::Opened(file) = run(io, Op::Open { path, options })? else { panic!("an open gives a file") };
    run(io, Op::Truncate { file: file.clone(), length_bytes: 0 })?;
    let mut offset = 0;
    for chunk in chunks {
        let buffer = io.pool().take_append(chunk.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        buffer.append(&chunk);
        let slice = buffer.slice(0..chunk.len());
        run(io, Op::Write { file: file.clone(), offset, slice, sync: false })?;
        offset += chunk.len() as u64;
    }
    run(io, Op::Sync { file })?;
    run(io, Op::SyncDir { path: layout.meta_dir() })?;
    Ok(())
}

/// Removes a journal in which nothing is needed any more. What stays is read once more by the next start.
pub fn remove_journal(io: &mut impl Io, layout: &Layout, dir: std::path::PathBuf) {
    if let Err(error) = journal::replay::remove(layout, &[dir], &mut |op| run(io, op)) {
        tracing::warn!(%error, "a journal that is not needed any more was not removed");
    }
}

fn files(io: &mut impl Io, layout: &Layout) -> io::Result<Vec<std::path::PathBuf>> {
    let Outcome::Listed(entries) = io.run(Op::List { path: layout.meta_dir() })? else { panic!("a listing") };
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| parse_clean_stop_file(name).is_some());
    names.sort_unstable();
    Ok(names.into_iter().map(|name| layout.meta_dir().join(name)).collect())
}

/// Reads every file. What cannot be read is left out: those partitions recover from their checkpoints.
pub fn read(io: &mut impl Io, layout: &Layout) -> CleanStates {
    let mut states = CleanStates::default();
    for path in files(io, layout).unwrap_or_default() {
        if let Err(error) = read_file(io, &path, &mut states) {
            tracing::warn!(path = %path.display(), %error, "not all of it can be read; recovering instead");
        }
    }
    states
}

fn read_file(io: &mut impl Io, path: &std::path::Path, states: &mut CleanStates) -> io::Result<()> {
    let opened = io.run(Op::Open { path: path.to_owned(), options: OpenOptions::default() })?;
    let Outcome::Opened(file) = opened else { panic!("an open gives a file") };
    let Outcome::Length(length) = io.run(Op::Length { file: file.clone() })? else { panic!("a length") };
    let (mut offset, mut sequence) = (0, 0);
    let read = |io: &mut _, offset: u64, size: usize| -> io::Result<Vec<u8>> {
        let buffer = Io::pool(io).take(size).ok_or(io::ErrorKind::OutOfMemory)?;
        match Io::run(io, Op::Read { file: file.clone(), offset, buffer, length_bytes: size as u32 })? {
            Outcome::Read { buffer, bytes } => Ok(buffer[..bytes].to_vec()),
            other => panic!("a read completed with {other:?}"),
        }
    };
    while offset < length {
        let head = read(io, offset, BLOCK_SIZE_BYTES)?;
        let size = clean_stop_chunk_size(&head).filter(|size| *size <= ENVELOPE_SIZE_BYTES_MAX);
        let bytes = read(io, offset, size.ok_or(io::ErrorKind::InvalidData)?)?;
        let (entries, size) =
            read_clean_stop_chunk(sequence, &bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        states.extend(entries);
        offset += size as u64;
        sequence += 1;
    }
    Ok(())
}

/// Removes every file, durably. Until that is done nothing may be appended.
pub fn remove(io: &mut impl Io, layout: &Layout) -> io::Result<()> {
    let files = files(io, layout)?;
    if files.is_empty() {
        return Ok(());
    }
    for path in files {
        io.run(Op::Remove { path })?;
    }
    io.run(Op::SyncDir { path: layout.meta_dir() }).map(drop)
}
