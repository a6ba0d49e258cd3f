//! The tail of logs in memory: staged, in flight and written buffers, the written ones under one budget per shard.
//!
//! 1. A log's tail is a row of [`Chunk`]s. A chunk is an append buffer that mirrors a block-aligned place of a
//!    segment; its head may repeat (carry) the unfinished last block of the chunk before it.
//! 2. A written chunk is registered with the shard's [`TailBudget`], which takes memory back from the oldest chunks
//!    of all logs when the budget is passed. The last chunk of a log is shrunk to its unfinished block instead.
//! 3. A slice handed out keeps its memory by count, so taking back never harms a reader.
//!
//! Invariants
//! - Chunks of one log are in order, and what is in memory is one contiguous run up to the log's end.
//! - A chunk with bytes that are not written yet, or with a write in flight, is never taken back.
//!
//! It must not know offsets beyond naming a segment.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::base::units::{align_down, align_up};
use crate::io::{AppendBuffer, Pool, Slice};
use crate::model::id::Offset;
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::event::Boundary;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;
/// Chunks that one registration looks at when the budget is passed: busy ones go to the end of the queue, and the
/// next registration goes on.
const EVICT_LOOK_COUNT_MAX: usize = 32;

/// A buffer that mirrors a part of a segment.
pub(super) struct Chunk {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Position in the segment of the buffer's first byte; block-aligned. Moves up when shrunk.
    position: Cell<u64>,
    buffer: RefCell<Option<AppendBuffer>>,
    /// Up to here the segment is written (raw position, not padded).
    pub written: Cell<u64>,
    /// Up to here (padded) a write is in flight; 0 if none is.
    pub in_flight: Cell<u64>,
    /// The first block boundary that a header of a batch not yet handed to a write crosses; 0 if none.
    pub crossing: Cell<u64>,
    /// The log's last batch boundary that lies in this chunk or before it.
    pub boundary: Cell<Boundary>,
    /// The log appends to it.
    pub current: Cell<bool>,
    /// Its room is counted on: it is not to be shrunk or given back.
    pub held: Cell<bool>,
    registered_bytes: Cell<usize>,
}

impl Chunk {
    /// An empty chunk for `segment` from the block-aligned `position` on.
    pub fn new(segment: Offset, position: u64, buffer: AppendBuffer, boundary: Boundary) -> Rc<Chunk> {
        debug_assert!(position.is_multiple_of(BLOCK));
        Rc::new(Chunk {
            segment,
            position: Cell::new(position),
            buffer: RefCell::new(Some(buffer)),
            written: Cell::new(position),
            in_flight: Cell::new(0),
            crossing: Cell::new(0),
            boundary: Cell::new(boundary),
            current: Cell::new(true),
            held: Cell::new(false),
            registered_bytes: Cell::new(0),
        })
    }

    /// Position of the first byte in memory.
    pub fn position(&self) -> u64 {
        self.position.get()
    }

    /// Position behind the last byte in memory; the position if it was taken back.
    pub fn end(&self) -> u64 {
        self.position.get() + self.buffer.borrow().as_ref().map_or(0, |buffer| buffer.len() as u64)
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.buffer.borrow().as_ref().map_or(0, AppendBuffer::room)
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.buffer.borrow().as_ref().map_or(0, AppendBuffer::capacity)
    }

    /// True if its memory was taken back.
    pub fn is_gone(&self) -> bool {
        self.buffer.borrow().is_none()
    }

    /// True while bytes of it are still to be written or being written.
    pub fn is_busy(&self) -> bool {
        self.in_flight.get() > 0 || self.written.get() < self.end()
    }

    /// True for a log's last block: there is nothing to take back.
    fn is_minimal(&self) -> bool {
        self.current.get() && self.capacity() <= BLOCK_SIZE_BYTES
    }

    /// Copies `bytes` to the end; they must fit.
    pub fn append(&self, bytes: &[u8]) {
        self.buffer.borrow().as_ref().expect("a log's current chunk has memory").append(bytes);
    }

    /// The bytes from position `from` to `to`, which must be in memory.
    pub fn slice(&self, from: u64, to: u64) -> Slice {
        let start = self.position.get();
        let buffer = self.buffer.borrow();
        buffer.as_ref().expect("asked within what is in memory").slice((from - start) as usize..(to - start) as usize)
    }

    /// The blocks from `from` to the end, the last one padded with zeros, for one write.
    pub fn slice_padded(&self, from: u64, to: u64) -> Slice {
        let start = self.position.get();
        let buffer = self.buffer.borrow();
        let buffer = buffer.as_ref().expect("asked within what is in memory");
        if to > start + buffer.len() as u64 {
            let end = buffer.pad(BLOCK_SIZE_BYTES);
            debug_assert_eq!(start + end as u64, to);
        }
        buffer.slice_padded((from - start) as usize..(to - start) as usize)
    }

    /// Gives up the memory. Slices handed out keep theirs.
    pub fn release(&self) {
        self.buffer.borrow_mut().take();
    }

    /// Keeps nothing but the unfinished last block, in a buffer of one block. Does nothing if that would not save
    /// memory or no block is to be had.
    pub fn shrink(&self, pool: &Pool) {
        let end = self.end();
        let from = align_down(end, BLOCK);
        if self.capacity() <= BLOCK_SIZE_BYTES || from < self.position.get() {
            return;
        }
        let Some(small) = pool.take_append(BLOCK_SIZE_BYTES) else { return };
        small.append(self.slice(from, end).as_bytes());
        *self.buffer.borrow_mut() = Some(small);
        self.position.set(from);
    }

    /// Tries to give memory back and returns how many bytes it still holds.
    fn evict(&self, pool: &Pool) -> usize {
        if !self.is_busy() && !self.held.get() {
            match self.current.get() {
                true => self.shrink(pool),
                false => self.release(),
            }
        }
        self.capacity()
    }
}

/// The shard's budget of written buffers. Clones are the same budget.
#[derive(Clone)]
pub struct TailBudget(Rc<BudgetInner>);

struct BudgetInner {
    pool: Pool,
    budget_bytes: usize,
    used_bytes: Cell<usize>,
    oldest_first: RefCell<VecDeque<Rc<Chunk>>>,
}

impl TailBudget {
    /// A budget of `budget_bytes` out of what `pool` hands out.
    pub fn new(pool: Pool, budget_bytes: usize) -> TailBudget {
        TailBudget(Rc::new(BudgetInner {
            pool,
            budget_bytes,
            used_bytes: Cell::new(0),
            oldest_first: RefCell::new(VecDeque::new()),
        }))
    }

    /// Bytes of written buffers now.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.get()
    }

    /// Counts a written chunk, once, and takes memory back if the budget is passed.
    pub(super) fn register(&self, chunk: &Rc<Chunk>) {
        let bytes = chunk.capacity();
        let before = chunk.registered_bytes.replace(bytes);
        self.0.used_bytes.set(self.0.used_bytes.get() + bytes - before);
        if before == 0 {
            self.0.oldest_first.borrow_mut().push_back(chunk.clone());
        }
        self.evict_to(self.0.budget_bytes, EVICT_LOOK_COUNT_MAX);
    }

    /// Takes back at least `bytes` if that many are to be had, for an appender that found the pool exhausted.
    pub(super) fn give_back(&self, bytes: usize) {
        self.evict_to(self.used_bytes().saturating_sub(bytes), usize::MAX);
    }

    /// Takes a chunk's memory back for its log. Its place in the queue goes when it is looked at next.
    fn forget(&self, chunk: &Chunk) {
        chunk.release();
        let bytes = chunk.registered_bytes.replace(0);
        self.0.used_bytes.set(self.0.used_bytes.get() - bytes);
    }

    fn evict_to(&self, limit_bytes: usize, look_count_max: usize) {
        let mut queue = self.0.oldest_first.borrow_mut();
        // Each chunk is looked at once: one that must stay goes to the end.
        for _ in 0..queue.len().min(look_count_max) {
            if self.0.used_bytes.get() <= limit_bytes {
                return;
            }
            let Some(chunk) = queue.pop_front() else { return };
            let mut left = chunk.evict(&self.0.pool);
            if chunk.is_minimal() {
                // What the next append needs stays, and is not the cache's.
                left = 0;
            }
            let before = chunk.registered_bytes.replace(left);
            self.0.used_bytes.set(self.0.used_bytes.get() + left - before);
            if left > 0 {
                queue.push_back(chunk);
            }
        }
    }
}

/// One log's tail.
pub(super) struct Tail {
    budget: TailBudget,
    /// Wholly written, superseded by later ones.
    cached: VecDeque<Rc<Chunk>>,
    /// From the first that is still to be written to the one being appended to.
    staged: VecDeque<Rc<Chunk>>,
}

impl Tail {
    pub fn new(budget: TailBudget) -> Tail {
        Tail { budget, cached: VecDeque::new(), staged: VecDeque::new() }
    }

    /// The chunk being appended to.
    pub fn current(&self) -> Option<&Rc<Chunk>> {
        self.staged.back()
    }

    /// Starts a new current chunk.
    pub fn push(&mut self, chunk: Rc<Chunk>) {
        if let Some(last) = self.staged.back() {
            last.current.set(false);
        }
        self.staged.push_back(chunk);
    }

    /// Takes the current chunk away again, unused.
    pub fn pop_unused(&mut self) {
        self.staged.pop_back();
        if let Some(last) = self.staged.back() {
            last.current.set(true);
        }
    }

    /// The newest `count` chunks, oldest of them first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &Rc<Chunk>> {
        self.staged.iter().skip(self.staged.len() - count)
    }

    /// The bytes of the unfinished block before `position`, which is the log's end.
    pub fn unfinished_block(&self, segment: Offset, position: u64) -> Slice {
        let chunk =
            self.newest_first().find(|chunk| chunk.segment == segment && chunk.end() == position && !chunk.is_gone());
        chunk.expect("the unfinished block stays in memory").slice(align_down(position, BLOCK), position)
    }

    /// The oldest chunk with bytes that are not written yet.
    pub fn first_dirty(&self) -> Option<&Rc<Chunk>> {
        self.staged.iter().find(|chunk| chunk.is_busy())
    }

    /// Puts written chunks under the budget. Called when a write has completed.
    pub fn settle(&mut self) {
        while self.staged.len() > 1 && self.staged.front().is_some_and(|chunk| !chunk.is_busy()) {
            let chunk = self.staged.pop_front().expect("there is more than one");
            self.budget.register(&chunk);
            self.cached.push_back(chunk);
        }
        if let Some(chunk) = self.staged.front().filter(|chunk| !chunk.is_busy() && !chunk.is_minimal()) {
            self.budget.register(chunk);
        }
        while self.cached.front().is_some_and(|chunk| chunk.is_gone()) {
            self.cached.pop_front();
        }
    }

    /// A new append buffer; the budget gives memory back if the pool is exhausted.
    pub fn take(&self, size_bytes: usize) -> Option<AppendBuffer> {
        let pool = &self.budget.0.pool;
        pool.take_append(size_bytes).or_else(|| {
            self.budget.give_back(2 * size_bytes);
            pool.take_append(size_bytes)
        })
    }

    /// The slices of `segment` up to position `to`, from the lowest position not below `from` that is contiguously
    /// in memory. They are appended to `slices` in order; returns that position (`to` if nothing is in memory).
    pub fn slices(&self, segment: Offset, from: u64, to: u64, slices: &mut Vec<Slice>) -> u64 {
        let first = slices.len();
        let mut start = to;
        for chunk in self.newest_first() {
            if start <= from || chunk.is_gone() || chunk.segment < segment {
                break;
            }
            if chunk.segment > segment || chunk.position() >= start {
                continue;
            }
            if chunk.end() < start {
                break;
            }
            let lower = chunk.position().max(from);
            slices.push(chunk.slice(lower, start));
            start = lower;
        }
        slices[first..].reverse();
        start
    }

    /// Copies the bytes of `segment` from `position` on into `target` if all of them are in memory.
    pub fn peek(&self, segment: Offset, position: u64, target: &mut [u8]) -> bool {
        let (mut end, from) = (position + target.len() as u64, position);
        for chunk in self.newest_first() {
            if end <= from || chunk.is_gone() || chunk.segment < segment {
                break;
            }
            if chunk.segment > segment || chunk.position() >= end {
                continue;
            }
            if chunk.end() < end {
                return false;
            }
            let lower = chunk.position().max(from);
            let bytes = chunk.slice(lower, end);
            target[(lower - from) as usize..(end - from) as usize].copy_from_slice(bytes.as_bytes());
            end = lower;
        }
        end <= from
    }

    /// True if everything of `segment` from `position` on is in memory. Near the log's end this looks at few chunks.
    pub fn holds(&self, segment: Offset, position: u64) -> bool {
        let mut first = None;
        for chunk in self.newest_first() {
            if chunk.is_gone() || chunk.segment < segment {
                return false;
            }
            if chunk.segment == segment {
                if first.is_some_and(|first| chunk.end() < first) {
                    return false;
                }
                if chunk.position() <= position {
                    return true;
                }
                first = Some(chunk.position());
            }
        }
        false
    }

    /// Keeps only what the next append needs; for a log that has been quiet.
    pub fn shrink(&mut self) {
        for chunk in self.cached.drain(..) {
            self.budget.forget(&chunk);
        }
        if let Some(chunk) = self.staged.back().filter(|chunk| self.staged.len() == 1 && !chunk.is_busy()) {
            chunk.shrink(&self.budget.0.pool);
            let bytes = if chunk.is_minimal() { 0 } else { chunk.capacity() };
            let before = chunk.registered_bytes.replace(bytes.min(chunk.registered_bytes.get()));
            self.budget.0.used_bytes.set(self.budget.0.used_bytes.get() + chunk.registered_bytes.get() - before);
        }
    }

    /// Forgets what is in memory of a segment whose file is replaced; all of it is written.
    pub fn forget_segment(&mut self, segment: Offset) {
        for chunks in [&mut self.cached, &mut self.staged] {
            for chunk in chunks.iter().filter(|chunk| chunk.segment == segment) {
                debug_assert!(!chunk.is_busy());
                self.budget.forget(chunk);
            }
            chunks.retain(|chunk| chunk.segment != segment);
        }
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.cached.iter().chain(&self.staged).map(|chunk| chunk.capacity()).sum()
    }

    fn newest_first(&self) -> impl Iterator<Item = &Rc<Chunk>> {
        self.staged.iter().rev().chain(self.cached.iter().rev())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        for chunk in self.cached.iter().chain(&self.staged) {
            self.budget.forget(chunk);
        }
    }
}

/// The padded end of a position.
pub(super) fn block_end(position: u64) -> u64 {
    align_up(position, BLOCK)
}
