//! The checkpoint, at start: read, and written again before anything is removed by what it says.

use std::io;

use crate::io::{Io, Op};
use crate::model::id::Offset;
use crate::model::limits::{BLOCK_SIZE_BYTES, ENVELOPE_SIZE_BYTES_MAX};

use super::super::checkpoint::{self, PartitionState};
use super::super::event::Boundary;
use super::super::layout::FileName;
use super::directory::{open, read_file};
use super::{Recovery, RecoveryError, corrupt};

impl<I: Io> Recovery<'_, I> {
    /// Reads the checkpoint.
    pub(super) fn checkpoint(&mut self, is_clean: bool) -> Result<Option<PartitionState>, RecoveryError> {
        if !self.files.checkpoint {
            return Ok(None);
        }
        let path = FileName::Checkpoint.path(&self.log.identity.dir);
        let bytes = read_file(self.io, &path, 3 * ENVELOPE_SIZE_BYTES_MAX as u64)?;
        let found =
            checkpoint::find(bytes.as_bytes()).map_err(|_| corrupt(Offset(0), 0, "the checkpoint cannot be read"))?;
        let Some(found) = found else { return Ok(None) };
        let frees = self.files.segments.get(1).is_some_and(|second| second.0 <= found.state.log_start);
        if (!is_clean || frees) && !self.log.options.mutants().trust_what_is_found {
            // Files are removed by what it says, and its write or sync may have failed.
            let (offset, size) = (found.slot.start_bytes, found.slot.size_bytes as usize);
            let buffer = self.io.pool().take_append(size).ok_or(io::ErrorKind::OutOfMemory)?;
            buffer.append(&bytes.as_bytes()[offset as usize..bytes.len().min(offset as usize + size)]);
            let slice = buffer.slice_padded(0..buffer.pad(BLOCK_SIZE_BYTES));
            let file = open(self.io, &path, true)?;
            self.io.run(Op::Write { file, offset, slice, sync: true })?;
        }
        let checkpoints = &mut self.log.checkpoints;
        checkpoints.sequence = found.sequence;
        checkpoints.slot = Some(found.slot);
        checkpoints.log_start = Offset(found.state.log_start);
        checkpoints.tells_gaps = found.state.has_gaps;
        checkpoints.durable = Boundary {
            segment: Offset(found.state.active_base_offset),
            position: found.state.position_bytes,
            offset: Offset(found.state.next_offset),
        };
        Ok(Some(found.state))
    }
}
