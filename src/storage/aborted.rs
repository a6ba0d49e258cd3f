//! The search for the aborted transactions that overlap a range of offsets, over segments in memory and sidecars.
//!
//! A transaction is noted where its marker is, which may be segments behind its records. Which segments have markers of
//! transactions that reach back far enough is known in memory; only their sidecars are read, one after the other.
//!
//! It must not know who asks.

use crate::io::Io;
use crate::model::id::Offset;

use super::event::ReadError;
use super::log::Log;
use super::segment::Index;
use super::sidecar::AbortedTransaction;
use super::source::Source;

/// A search under way.
pub(super) struct AbortedWalk {
    /// Transactions whose marker is at or above.
    from: Offset,
    /// Transactions that begin below.
    to: Offset,
    /// Segments below were looked into.
    next: Offset,
    /// By ascending offset of the marker within each segment.
    pub found: Vec<AbortedTransaction>,
}

impl AbortedWalk {
    /// For the records from `from` up to `to`, which is not one of them.
    pub fn new(from: Offset, to: Offset) -> AbortedWalk {
        AbortedWalk { from, to, next: Offset(0), found: Vec::new() }
    }

    /// Goes on; false if an operation was submitted whose completion is the source's.
    pub fn go_on(&mut self, source: &mut Source, io: &mut impl Io, log: &Log) -> Result<bool, ReadError> {
        let (from, to) = (self.from, self.to);
        let overlaps = |entry: &AbortedTransaction| entry.last_offset >= from.0 && entry.first_offset < to.0;
        let at = log.segments.partition_point(|segment| segment.next_offset <= from || segment.base_offset < self.next);
        for segment in log.segments.range(at..) {
            if segment.aborted.first_offset.is_some_and(|first| first < to) {
                match &segment.index {
                    Index::Memory(_) => {
                        self.found.extend(segment.aborted.entries.iter().copied().filter(overlaps));
                    }
                    Index::Sidecar => {
                        let Some(sidecar) = source.sidecar(io, log, segment.base_offset) else { return Ok(false) };
                        self.found.extend(sidecar.aborted().filter(overlaps));
                    }
                }
            }
            self.next = Offset(segment.base_offset.0 + 1);
        }
        Ok(true)
    }
}
