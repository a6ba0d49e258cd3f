//! The record of writes, and cutting the power during one of them.

use std::path::PathBuf;

use super::contents::Tear;
use super::state::Inside;
use crate::io::Op;

/// A write as it was handed to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRecord {
    /// Its place among all writes of the world, counted from 0.
    pub index: u64,
    /// Where the file was last opened, created or renamed.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How much.
    pub length_bytes: u64,
    /// It is durable when it completes.
    pub sync: bool,
    /// It is a `WriteZeros`.
    pub is_zeros: bool,
}

/// Sees each write as it is handed over; an answer cuts the power when that write is due, and says what is left of
/// it. It must not use the world.
pub(super) type WriteHook = Box<dyn FnMut(&WriteRecord) -> Option<Tear>>;

impl Inside {
    /// Notes a write, if `op` is one, and asks the hooks.
    pub(super) fn record_write(&mut self, op: &Op, path: &str) -> Option<Tear> {
        let (offset, length_bytes, sync, is_zeros) = match op {
            Op::Write { offset, slice, sync, .. } => (*offset, slice.len() as u64, *sync, false),
            Op::WriteZeros { offset, length_bytes, .. } => (*offset, *length_bytes, true, true),
            _ => return None,
        };
        let index = self.writes.len() as u64;
        let record = WriteRecord { index, path: path.into(), offset, length_bytes, sync, is_zeros };
        let tear = self.write_hooks.iter_mut().filter_map(|hook| hook(&record)).last();
        self.writes.push(record);
        tear
    }
}
