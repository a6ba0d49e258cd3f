//! Open transactions, at start: where the batch stands that each began with.

use crate::io::Io;
use crate::model::batch::{HEADER_SIZE, Header};
use crate::model::id::Offset;
use crate::model::limits::ENVELOPE_SIZE_BYTES_MAX;

use super::super::event::Boundary;
use super::super::layout::FileName;
use super::super::scanner::Scanner;
use super::super::segment::Index;
use super::super::sidecar::Sidecar;
use super::directory::read_file;
use super::{Recovery, RecoveryError};

impl<I: Io> Recovery<'_, I> {
    /// Every open transaction gets its place: those that began in what was scanned have it.
    pub(super) fn find_open_transactions(&mut self) -> Result<(), RecoveryError> {
        let mut open: Vec<Offset> = self.log.producers.open_transactions().collect();
        open.sort_unstable();
        self.log.transactions.retain_open(|first| open.binary_search(&first).is_ok());
        for first in open {
            if !self.log.transactions.is_open(first) {
                let start = self.find_batch(first)?;
                self.log.transactions.begin(start);
            }
        }
        Ok(())
    }

    /// Where the batch begins that holds an offset; the log's begin if it is gone.
    fn find_batch(&mut self, offset: Offset) -> Result<Boundary, RecoveryError> {
        let at = self.log.segments.partition_point(|segment| segment.base_offset <= offset);
        let Some(at) = at.checked_sub(1) else {
            let first = self.log.segments.front().expect("there is one").base_offset;
            return Ok(Boundary { segment: first, position: 0, offset });
        };
        let segment = &self.log.segments[at];
        let (base, end, direct) = (segment.base_offset, segment.size_bytes, segment.direct.clone());
        let mut position = match &segment.index {
            Index::Memory(index) => u64::from(index.view().floor(offset)),
            Index::Sidecar => {
                let path = FileName::Sidecar(base).path(&self.log.identity.dir);
                let bytes = read_file(self.io, &path, 2 * ENVELOPE_SIZE_BYTES_MAX as u64)?;
                Sidecar::open(bytes).map_or(0, |sidecar| u64::from(sidecar.index().floor(offset)))
            }
        };
        let file = match direct {
            Some(file) => file,
            None => self.open(base)?,
        };
        let mut scanner = Scanner::new(self.io, file)?;
        while position + HEADER_SIZE as u64 <= end {
            let header = Header::parse(scanner.bytes(position, position + HEADER_SIZE as u64)?);
            let Some(header) = header.filter(|header| header.next_offset() <= offset) else { break };
            position += header.size_bytes as u64;
        }
        Ok(Boundary { segment: base, position, offset })
    }
}
