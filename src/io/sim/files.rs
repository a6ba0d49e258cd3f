//! What operations of files and names do: how long they take, their effect when they are due, and what a power cut
//! leaves of those in flight.
//!
//! An operation takes effect at one moment, when it is due. Two operations that are under way together may take effect
//! in either order; a read sees any of the blocks of a write in flight beside it.
//!
//! Two mistakes that a real disk would punish now and then are punished always, by a panic: changing a block in memory
//! while a write of it is in flight, and two writes of one block of a direct file in flight.

use std::io;

use super::contents::{BLOCK_SIZE_BYTES, Tear};
use super::disk::{InodeId, Met};
use super::events::{Event, OpId, hash_bytes};
use super::faults::{Fault, OpKind};
use super::state::{Inside, Pending, error};
use crate::io::{Buffer, Op, OpenOptions, Outcome};

fn is_aligned(value: u64) -> bool {
    value.is_multiple_of(BLOCK_SIZE_BYTES as u64)
}

/// `EINVAL` where `O_DIRECT` would give it.
fn check_direct(options: OpenOptions, offset: u64, length_bytes: u64, memory: *const u8) -> io::Result<()> {
    let aligned = is_aligned(offset) && is_aligned(length_bytes) && is_aligned(memory as u64);
    if options.direct && !aligned { Err(error(libc::EINVAL)) } else { Ok(()) }
}

fn check_writable(options: OpenOptions) -> io::Result<()> {
    if options.write { Ok(()) } else { Err(error(libc::EBADF)) }
}

impl Inside {
    /// Gives a disk operation its time.
    pub(super) fn start_disk(&mut self, id: OpId, kind: OpKind) {
        let (options, rng) = (&self.options, &mut self.disk_rng);
        let mut after_ns = match kind {
            OpKind::Read => options.read.pick_ns(rng),
            OpKind::Write => options.write.pick_ns(rng),
            OpKind::WriteZeros => options.write.pick_ns(rng) + options.sync.pick_ns(rng),
            OpKind::Sync | OpKind::SyncDir => options.sync.pick_ns(rng),
            _ => options.name.pick_ns(rng),
        };
        let pending = &self.ops[&id];
        if let Op::Write { sync: true, .. } = pending.op {
            after_ns += options.sync.pick_ns(rng);
        }
        if let Some(Fault::Delay(delay)) = pending.fault {
            after_ns += u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX / 2);
        }
        self.events.schedule(after_ns, Event::DiskDone(id));
    }

    /// A disk operation is due.
    pub(super) fn finish_disk(&mut self, id: OpId) {
        if let Some(tear) = self.ops.get_mut(&id).and_then(|pending| pending.tear.take()) {
            return self.cut_power(Some((id, tear)));
        }
        // Cancelled operations leave their event behind.
        let Some(mut pending) = self.ops.remove(&id) else { return };
        let op = std::mem::replace(&mut pending.op, Op::List { path: Default::default() });
        let result = self.carry_out(&pending, op);
        self.ops.insert(id, pending);
        self.complete(id, result);
    }

    fn carry_out(&mut self, pending: &Pending, op: Op) -> io::Result<Outcome> {
        let errno = match pending.fault {
            Some(Fault::Error(errno)) => Some(errno),
            _ => None,
        };
        match (pending.file, errno) {
            (Some((inode, options)), None) => self.carry_out_on_file(pending, op, inode, options),
            (Some((inode, _)), Some(errno)) => {
                self.fail_on_file(pending, &op, inode);
                Err(error(errno))
            }
            (None, None) => self.carry_out_on_names(pending, op),
            (None, Some(errno)) => Err(error(errno)),
        }
    }

    fn carry_out_on_names(&mut self, pending: &Pending, op: Op) -> io::Result<Outcome> {
        let (io, last_write) = (pending.io, pending.last_write);
        match op {
            Op::Open { path, options } => {
                let inode = self.disk.open(&path, options)?;
                if !self.ios[io as usize].is_alive {
                    self.disk.close(inode);
                    return Ok(Outcome::Done);
                }
                return Ok(Outcome::Opened(self.new_file(io, inode, options)));
            }
            Op::Rename { from, to } => self.disk.rename(&from, &to)?,
            Op::Remove { path } => self.disk.remove(&path)?,
            Op::RemoveDir { path } => self.disk.remove_dir(&path)?,
            Op::CreateDir { path } => self.disk.create_dir(&path)?,
            Op::SyncDir { path } => self.disk.sync_dir(&path, last_write)?,
            Op::List { path } => {
                let mut entries = self.disk.list(&path)?;
                // No order is promised, so none is given.
                for index in (1..entries.len()).rev() {
                    entries.swap(index, self.disk_rng.in_range(0..=index as u64) as usize);
                }
                return Ok(Outcome::Listed(entries));
            }
            other => unreachable!("{other:?} has a file or is of the network"),
        }
        Ok(Outcome::Done)
    }

    fn carry_out_on_file(
        &mut self,
        pending: &Pending,
        op: Op,
        inode: InodeId,
        options: OpenOptions,
    ) -> io::Result<Outcome> {
        match op {
            Op::Read { offset, buffer, length_bytes, .. } => {
                let bytes = self.read(inode, options, offset, buffer, length_bytes, pending.fault)?;
                return Ok(bytes);
            }
            Op::Write { offset, slice, sync, .. } => {
                check_writable(options)?;
                check_direct(options, offset, slice.len() as u64, slice.as_bytes().as_ptr())?;
                assert!(
                    hash_bytes(slice.as_bytes()) == pending.contents_hash,
                    "a block of {} was changed in memory while a write of it was in flight",
                    self.disk.path(inode),
                );
                let write = self.disk.next_write();
                let room = self.disk.room(inode, offset, slice.len() as u64);
                let fits = &slice.as_bytes()[..room as usize];
                self.disk.change_contents(inode, |contents| {
                    contents.write(write, offset, fits);
                    if sync {
                        contents.sync_write(write, offset, fits.len() as u64);
                    }
                });
                if fits.len() < slice.len() {
                    return Err(error(libc::ENOSPC));
                }
            }
            Op::WriteZeros { offset, length_bytes, .. } => {
                check_writable(options)?;
                if !is_aligned(offset) || !is_aligned(length_bytes) {
                    return Err(error(libc::EINVAL));
                }
                let write = self.disk.next_write();
                let room = self.disk.room(inode, offset, length_bytes);
                self.disk.change_contents(inode, |contents| {
                    contents.write_zeros(write, offset, room);
                    contents.sync_write(write, offset, room);
                });
                if room < length_bytes {
                    return Err(error(libc::ENOSPC));
                }
            }
            Op::Allocate { offset, length_bytes, .. } => {
                check_writable(options)?;
                if self.disk.is_too_large(inode, offset, length_bytes) {
                    return Err(error(libc::ENOSPC));
                }
                let write = self.disk.next_write();
                self.disk.change_contents(inode, |contents| contents.allocate(write, offset, length_bytes));
            }
            Op::Truncate { length_bytes, .. } => {
                check_writable(options)?;
                let write = self.disk.next_write();
                self.disk.change_contents(inode, |contents| contents.truncate(write, length_bytes));
            }
            Op::Sync { .. } => {
                self.disk.change_contents(inode, |contents| contents.sync(pending.last_write));
            }
            Op::Length { .. } => return Ok(Outcome::Length(self.disk.contents(inode).length_bytes())),
            Op::DropCache { .. } => {}
            other => unreachable!("{other:?} has no file or is of the network"),
        }
        Ok(Outcome::Done)
    }

    fn read(
        &mut self,
        inode: InodeId,
        options: OpenOptions,
        offset: u64,
        mut buffer: Buffer,
        length_bytes: u32,
        fault: Option<Fault>,
    ) -> io::Result<Outcome> {
        check_direct(options, offset, u64::from(length_bytes), buffer.as_ptr())?;
        let contents = self.disk.contents(inode);
        let target = &mut buffer[..length_bytes as usize];
        let mut from = offset;
        if fault == Some(Fault::MisdirectedRead) {
            let block_count = contents.length_bytes() / BLOCK_SIZE_BYTES as u64;
            let other = self.loss_rng.in_range(0..=block_count) * BLOCK_SIZE_BYTES as u64;
            from = other + offset % BLOCK_SIZE_BYTES as u64;
        }
        // The length is right even if the bytes are not.
        let bytes = contents.length_bytes().saturating_sub(offset).min(u64::from(length_bytes)) as usize;
        let found = contents.read(from, &mut target[..bytes]);
        target[found..bytes].fill(0);
        self.overlay_writes_in_flight(inode, from, &mut target[..bytes]);
        if fault == Some(Fault::CorruptRead) && bytes > 0 {
            let at = self.loss_rng.in_range(0..bytes as u64) as usize;
            target[at] ^= 1 << self.loss_rng.in_range(0..8);
        }
        Ok(Outcome::Read { buffer, bytes })
    }

    /// A reader may see any of the blocks of a write that is in flight.
    fn overlay_writes_in_flight(&mut self, inode: InodeId, from: u64, target: &mut [u8]) {
        let rng = &mut self.loss_rng;
        for pending in self.ops.values().filter(|pending| pending.file.is_some_and(|(file, _)| file == inode)) {
            let Op::Write { offset, slice, .. } = &pending.op else { continue };
            let (start, end) = (from.max(*offset), (from + target.len() as u64).min(offset + slice.len() as u64));
            let mut at = start;
            while at < end {
                let to = (at + 1).next_multiple_of(BLOCK_SIZE_BYTES as u64).min(end);
                if rng.chance(1, 2) {
                    target[(at - from) as usize..(to - from) as usize]
                        .copy_from_slice(&slice.as_bytes()[(at - offset) as usize..(to - offset) as usize]);
                }
                at = to;
            }
        }
    }

    /// Two writes of one block in flight end in either order: whoever does that to a direct file has lost track.
    pub(super) fn check_overlap(&self, op: &Op, inode: InodeId, options: OpenOptions) {
        let range = |op: &Op| match op {
            Op::Write { offset, slice, .. } => Some((*offset, offset + slice.len() as u64)),
            Op::WriteZeros { offset, length_bytes, .. } => Some((*offset, offset + length_bytes)),
            _ => None,
        };
        let Some((start, end)) = range(op).filter(|_| options.direct) else { return };
        for pending in self.ops.values().filter(|pending| pending.file.is_some_and(|(file, _)| file == inode)) {
            if let Some((other_start, other_end)) = range(&pending.op) {
                assert!(
                    end <= other_start || other_end <= start,
                    "two writes of one block of {} in flight: {start}..{end} beside {other_start}..{other_end}",
                    self.disk.path(inode),
                );
            }
        }
    }

    /// The state that a failed operation leaves: a write may have been carried out in part, and what a failed sync, or
    /// the sync that a write came with, should have covered is never covered by another.
    fn fail_on_file(&mut self, pending: &Pending, op: &Op, inode: InodeId) {
        match op {
            Op::Write { .. } | Op::WriteZeros { .. } => {
                let (write, _) = self.apply_write(inode, op, true);
                if !matches!(op, Op::Write { sync: false, .. }) {
                    self.disk.change_contents(inode, |contents| contents.abandon(write));
                }
            }
            Op::Sync { .. } => {
                self.disk.change_contents(inode, |contents| contents.abandon(pending.last_write));
            }
            _ => {}
        }
    }

    /// Carries out a write without making it durable, and returns its number and offset. With `partly`, only some of
    /// its blocks.
    fn apply_write(&mut self, inode: InodeId, op: &Op, partly: bool) -> (u64, u64) {
        let write = self.disk.next_write();
        let (offset, length_bytes) = match op {
            Op::Write { offset, slice, .. } => (*offset, slice.len() as u64),
            Op::WriteZeros { offset, length_bytes, .. } => (*offset, *length_bytes),
            other => unreachable!("{other:?} is no write"),
        };
        let room = self.disk.room(inode, offset, length_bytes);
        let end = offset + room;
        // One piece, so that the file grows over all of it or not; or blocks, so that some can be left out.
        let piece_bytes = if partly { BLOCK_SIZE_BYTES as u64 } else { u64::MAX / 2 };
        let mut from = offset;
        while from < end {
            let to = (from + 1).next_multiple_of(piece_bytes).min(end);
            if !partly || self.loss_rng.chance(1, 2) {
                self.disk.change_contents(inode, |contents| match op {
                    Op::Write { slice, .. } => {
                        contents.write(
                            write,
                            from,
                            &slice.as_bytes()[(from - offset) as usize..(to - offset) as usize],
                        );
                    }
                    _ => contents.write_zeros(write, from, to - from),
                });
            }
            from = to;
        }
        (write, offset)
    }

    /// The end of the disk operations that were in flight when the power went: writes reach the disk like any write
    /// that is not synced, other changes happen or do not, and then what is not durable is decided.
    pub(super) fn apply_in_flight(&mut self, mut in_flight: Vec<OpId>, met: Option<(OpId, Tear)>) {
        for index in (1..in_flight.len()).rev() {
            in_flight.swap(index, self.loss_rng.in_range(0..=index as u64) as usize);
        }
        let mut met_write = None;
        for id in in_flight {
            let Some(mut pending) = self.ops.remove(&id) else { continue };
            let op = std::mem::replace(&mut pending.op, Op::List { path: Default::default() });
            match (pending.file, &op) {
                (Some((inode, _)), Op::Write { .. } | Op::WriteZeros { .. }) => {
                    let (write, offset) = self.apply_write(inode, &op, false);
                    if met.as_ref().is_some_and(|(met, _)| *met == id) {
                        met_write = Some((inode, write, offset));
                    }
                }
                (Some((inode, _)), Op::Truncate { length_bytes, .. }) if self.loss_rng.chance(1, 2) => {
                    let write = self.disk.next_write();
                    self.disk.change_contents(inode, |contents| contents.truncate(write, *length_bytes));
                }
                (None, Op::Rename { .. } | Op::Remove { .. } | Op::RemoveDir { .. } | Op::CreateDir { .. })
                    if self.loss_rng.chance(1, 2) =>
                {
                    // It may fail, as it would have: there is nobody to tell.
                    let _ = self.carry_out_on_names(&pending, op);
                }
                _ => {}
            }
            self.ops.insert(id, pending);
            self.forget(id);
        }
        let met = match (&met, met_write) {
            (Some((_, tear)), Some((inode, write, offset))) => Some(Met { inode, write, offset, tear }),
            _ => None,
        };
        self.disk.lose(&mut self.loss_rng, self.options.loss, self.options.tear_size_bytes, met);
    }
}
