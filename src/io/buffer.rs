//! Aligned memory under one budget per shard.
//!
//! 1. A [`Pool`] hands out block-aligned memory in powers of two from [`SIZE_MIN_BYTES`] to [`SIZE_MAX_BYTES`] and
//!    refuses above its budget; larger requests are served exactly, from the same budget. What comes back is kept
//!    for reuse, in [regions](super::memory).
//! 2. A [`Buffer`] has one owner who may write everywhere: receive buffers, reads from disk.
//! 3. An [`AppendBuffer`] is shared and only ever appended to: bytes below its length never change again, bytes
//!    above it are never read by anyone but the disk (as padding). That is why the appender may go on filling it
//!    while slices of it are being sent. Staging and tail cache are made of these.
//! 4. A [`Slice`] is a counted, immutable view of either.
//! 5. A slice that is [lent](Slice::lend) waits for somebody outside to take its bytes. The pool knows how much of its
//!    memory is held like that, each block counted once, however many slices of it are lent.
//!
//! Invariants
//! - Memory goes back to the pool when its last owner is gone, be it an operation in the ring.
//! - The pool counts what is handed out, not what it keeps; idle regions are trimmed so that both stay in budget. Beyond
//!   it there may be what is free in regions that are not idle.
//! - `Rc`s: nothing here leaves its shard.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

use super::memory::{BLOCK_SIZE_BYTES_MIN, REGION_SIZE_BYTES, RegionSlot, Regions, class_of, class_size_bytes};
use crate::base::units::{KIB, MIB, align_up};

/// Alignment of all memory here: at least the block that direct I/O needs.
pub const ALIGN_BYTES: usize = 4 * KIB;
/// The smallest size handed out.
pub const SIZE_MIN_BYTES: usize = BLOCK_SIZE_BYTES_MIN;
/// The largest size that is kept for reuse.
pub const SIZE_MAX_BYTES: usize = REGION_SIZE_BYTES;

/// Idle memory that is not given back: the first touch of a huge page takes as long as many requests.
const IDLE_KEPT_BYTES: usize = 8 * MIB;

/// How a pool takes memory from the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolOptions {
    /// The most that is handed out at a time.
    pub budget_bytes: usize,
    /// So much is there from the start, in one piece; at most the budget, rounded down to whole largest blocks. 0: none.
    pub arena_bytes: usize,
    /// Ask for huge pages.
    pub huge_pages: bool,
}

/// A shard's budget of aligned memory. Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Rc<PoolInner>);

struct PoolInner {
    budget_bytes: usize,
    used_bytes: Cell<usize>,
    /// The least that was idle since it was last looked: that much was of no use.
    unused_bytes: Cell<usize>,
    lent_bytes: Cell<usize>,
    regions: RefCell<Regions>,
}

/// Memory that knows its pool.
struct Block {
    memory: NonNull<u8>,
    size_bytes: usize,
    /// `None`: larger than a region, and allocated by itself.
    region: Option<RegionSlot>,
    pool: Rc<PoolInner>,
}

impl Pool {
    /// A pool that hands out at most `budget_bytes` at a time. Memory is taken from the system as it is used.
    pub fn new(budget_bytes: usize) -> Pool {
        Pool::with(PoolOptions { budget_bytes, ..PoolOptions::default() })
    }

    /// The same with more said about its memory. Without memory for the arena there is none.
    pub fn with(options: PoolOptions) -> Pool {
        let arena_bytes = options.arena_bytes.min(options.budget_bytes);
        let regions = Regions::new(arena_bytes, options.huge_pages)
            .or_else(|_| Regions::new(0, options.huge_pages))
            .expect("no regions take no memory");
        Pool(Rc::new(PoolInner {
            budget_bytes: options.budget_bytes,
            used_bytes: Cell::new(0),
            unused_bytes: Cell::new(0),
            lent_bytes: Cell::new(0),
            regions: RefCell::new(regions),
        }))
    }

    /// A buffer of at least `size_bytes`, or `None` when that would exceed the budget. Its contents are arbitrary
    /// but initialized.
    pub fn take(&self, size_bytes: usize) -> Option<Buffer> {
        self.block(size_bytes).map(Buffer)
    }

    /// An empty append-only buffer of at least `size_bytes`, or `None` when that would exceed the budget.
    pub fn take_append(&self, size_bytes: usize) -> Option<AppendBuffer> {
        let block = self.block(size_bytes)?;
        Some(AppendBuffer(Rc::new(Appendable::new(block, 0))))
    }

    /// Bytes handed out now.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.get()
    }

    /// The most that may be handed out at a time.
    pub fn budget_bytes(&self) -> usize {
        self.0.budget_bytes
    }

    /// Address and size of the arena, if there is one.
    pub fn arena(&self) -> Option<(usize, usize)> {
        self.0.regions.borrow().arena()
    }

    /// Bytes of memory that lent slices hold.
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.get()
    }

    /// Gives half of the regions that were idle since the last call back to the system: all but the last few in the
    /// end, if the shard stays quiet. About once a second.
    pub fn trim_unused(&self) {
        let mut regions = self.0.regions.borrow_mut();
        let unused = self.0.unused_bytes.get().min(regions.idle_bytes()).saturating_sub(IDLE_KEPT_BYTES);
        let idle = regions.idle_bytes();
        regions.trim(idle - align_up(unused as u64 / 2, REGION_SIZE_BYTES as u64) as usize);
        self.0.unused_bytes.set(regions.idle_bytes());
    }

    fn block(&self, size_bytes: usize) -> Option<Block> {
        let class = class_of(size_bytes);
        let size = match class {
            Some(class) => class_size_bytes(class),
            None => align_up(size_bytes as u64, ALIGN_BYTES as u64) as usize,
        };
        let used = self.0.used_bytes.get().checked_add(size)?;
        if used > self.0.budget_bytes {
            return None;
        }
        let mut regions = self.0.regions.borrow_mut();
        let (memory, region) = match class {
            Some(class) => {
                let (memory, region) = regions.take(class).ok()?;
                (memory, Some(region))
            }
            None => {
                regions.trim(self.0.budget_bytes - used);
                (allocate(size), None)
            }
        };
        self.0.unused_bytes.set(self.0.unused_bytes.get().min(regions.idle_bytes()));
        self.0.used_bytes.set(used);
        Some(Block { memory, size_bytes: size, region, pool: self.0.clone() })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.used_bytes.set(self.pool.used_bytes.get() - self.size_bytes);
        match self.region {
            Some(region) => self.pool.regions.borrow_mut().give_back(self.memory, region),
            // SAFETY: this block owns its memory, which was allocated with this layout; nobody else frees it.
            None => unsafe { dealloc(self.memory.as_ptr(), layout(self.size_bytes)) },
        }
    }
}

fn layout(size_bytes: usize) -> Layout {
    Layout::from_size_align(size_bytes, ALIGN_BYTES).expect("sizes are bounded by the budget")
}

/// Zeros, so that handing them out as `&mut [u8]` is sound even where nothing was written yet.
fn allocate(size_bytes: usize) -> NonNull<u8> {
    let layout = layout(size_bytes);
    // SAFETY: the size is not zero: it is more than a region's.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Memory with one owner, who may write everywhere.
pub struct Buffer(Block);

impl Buffer {
    /// Ends writing: the first `length_bytes` become an immutable, shareable slice.
    pub fn freeze(self, length_bytes: usize) -> Slice {
        assert!(length_bytes <= self.0.size_bytes);
        let appendable = Appendable::new(self.0, length_bytes);
        Slice { owner: Rc::new(appendable), start: 0, length: length_bytes, is_lent: false }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the block owns that many initialized bytes, and `&self` keeps writers out.
        unsafe { std::slice::from_raw_parts(self.0.memory.as_ptr(), self.0.size_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.0.memory.as_ptr(), self.0.size_bytes) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.0.size_bytes)
    }
}

struct Appendable {
    block: Block,
    length: Cell<usize>,
    lent_count: Cell<usize>,
}

impl Appendable {
    fn new(block: Block, length: usize) -> Appendable {
        Appendable { block, length: Cell::new(length), lent_count: Cell::new(0) }
    }

    fn lend(&self) {
        if self.lent_count.replace(self.lent_count.get() + 1) == 0 {
            let lent_bytes = &self.block.pool.lent_bytes;
            lent_bytes.set(lent_bytes.get() + self.block.size_bytes);
        }
    }

    fn take_back(&self) {
        if self.lent_count.replace(self.lent_count.get() - 1) == 1 {
            let lent_bytes = &self.block.pool.lent_bytes;
            lent_bytes.set(lent_bytes.get() - self.block.size_bytes);
        }
    }
}

/// Shared memory that is only ever appended to. Clones are the same buffer.
#[derive(Clone)]
pub struct AppendBuffer(Rc<Appendable>);

impl AppendBuffer {
    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.0.length.get()
    }

    /// True if nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most it can hold.
    pub fn capacity(&self) -> usize {
        self.0.block.size_bytes
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Copies `bytes` behind what is there. They must fit.
    #[inline]
    pub fn append(&self, bytes: &[u8]) {
        let length = self.len();
        assert!(bytes.len() <= self.room(), "append of {} with {} left", bytes.len(), self.room());
        // SAFETY: the target lies within the block and above the length, so no slice of counted bytes covers it;
        // `bytes` is initialized memory that a shared reference keeps unchanged, so it cannot be that target.
        unsafe {
            self.0.block.memory.as_ptr().add(length).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.0.length.set(length + bytes.len());
    }

    /// Zeros the bytes from the length up to the next multiple of `align_bytes`, so that the disk is given defined
    /// padding, and returns that multiple. The length stays.
    pub fn pad(&self, align_bytes: usize) -> usize {
        let length = self.len();
        let end = align_up(length as u64, align_bytes as u64) as usize;
        assert!(end <= self.capacity());
        // SAFETY: within the block, above the length, so no slice of counted bytes covers it. A padded slice that is
        // being written may cover it, but the bytes it covers were zeroed when it was made, and the appender starts
        // a new buffer rather than touch a block in flight.
        unsafe { self.0.block.memory.as_ptr().add(length).write_bytes(0, end - length) };
        end
    }

    /// A view of `range`, which must lie below the length.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        Slice { owner: self.0.clone(), start: range.start, length: range.len(), is_lent: false }
    }

    /// A view for the disk that may reach above the length, into padding made by [`pad`](Self::pad). The owner must
    /// not append into it while it is in use.
    pub fn slice_padded(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.capacity());
        Slice { owner: self.0.clone(), start: range.start, length: range.len(), is_lent: false }
    }
}

impl fmt::Debug for AppendBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendBuffer({} of {} bytes)", self.len(), self.capacity())
    }
}

/// A counted view of bytes that do not change any more.
pub struct Slice {
    owner: Rc<Appendable>,
    start: usize,
    length: usize,
    is_lent: bool,
}

impl Clone for Slice {
    fn clone(&self) -> Slice {
        let &Slice { ref owner, start, length, is_lent } = self;
        if is_lent {
            owner.lend();
        }
        Slice { owner: owner.clone(), start, length, is_lent }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if self.is_lent {
            self.owner.take_back();
        }
    }
}

impl Slice {
    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the range was checked against the block when the slice was made, its bytes are initialized, and
        // bytes below an append buffer's length are never written again.
        unsafe { std::slice::from_raw_parts(self.owner.block.memory.as_ptr().add(self.start), self.length) }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A part of this slice.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.length);
        Slice { owner: self.owner.clone(), start: self.start + range.start, length: range.len(), is_lent: false }
    }

    /// The same view, counted as waiting for somebody outside until it and its clones are gone.
    pub fn lend(mut self) -> Slice {
        if !std::mem::replace(&mut self.is_lent, true) {
            self.owner.lend();
        }
        self
    }

    /// Bytes of memory that it keeps from going back to the pool, at least as many as it shows.
    pub fn memory_bytes(&self) -> usize {
        self.owner.block.size_bytes
    }

    /// Bytes of memory that lending it would add to what is lent.
    pub fn lending_bytes(&self) -> usize {
        if self.owner.lent_count.get() == 0 { self.owner.block.size_bytes } else { 0 }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded_and_what_comes_back_is_reused() {
        let pool = Pool::new(64 * KIB);
        let big = pool.take(40 * KIB).expect("64 KiB fit exactly");
        assert_eq!((big.len(), pool.used_bytes()), (64 * KIB, 64 * KIB));
        assert!(pool.take(1).is_none());
        let memory = big.as_ptr();
        drop(big);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.take(64 * KIB).expect("it is free again").as_ptr(), memory);
    }

    #[test]
    fn idle_memory_makes_room_for_a_block_larger_than_a_region() {
        let pool = Pool::new(8 * MIB);
        let idle_bytes = || pool.0.regions.borrow().idle_bytes();
        drop((0..4).map(|_| pool.take(2 * MIB).expect("within the budget")).collect::<Vec<_>>());
        assert_eq!(idle_bytes(), 8 * MIB);
        let large = pool.take(5 * MIB).expect("within the budget");
        assert_eq!((large.len(), idle_bytes()), (5 * MIB, 2 * MIB));
    }

    #[test]
    fn blocks_come_from_the_arena_while_there_is_some_and_go_back_to_it() {
        let pool = Pool::with(PoolOptions { budget_bytes: 16 * MIB, arena_bytes: 5 * MIB, huge_pages: false });
        let (start, size) = pool.arena().expect("asked for");
        assert_eq!((size, start % SIZE_MAX_BYTES), (4 * MIB, 0), "whole greatest blocks");
        let is_inside = |buffer: &Buffer| (start..start + size).contains(&(buffer.as_ptr() as usize));
        let small = pool.take(4 * KIB).expect("within the budget");
        let large: Vec<Buffer> = (0..3).map(|_| pool.take(2 * MIB).expect("within the budget")).collect();
        assert!(is_inside(&small));
        assert_eq!(
            large.iter().filter(|buffer| is_inside(buffer)).count(),
            1,
            "the other region is cut into small ones"
        );
        drop((small, large));
        assert!(is_inside(&pool.take(2 * MIB).expect("within the budget")));
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn idle_memory_that_nobody_uses_goes_back_by_and_by() {
        let pool = Pool::new(64 * MIB);
        let idle_bytes = || pool.0.regions.borrow().idle_bytes();
        drop((0..16).map(|_| pool.take(2 * MIB).expect("within the budget")).collect::<Vec<_>>());
        pool.trim_unused();
        assert_eq!(idle_bytes(), 32 * MIB, "it was in use a moment ago");
        // A buffer that comes and goes all the time is kept.
        for _ in 0..10 {
            drop(pool.take(2 * MIB));
            pool.trim_unused();
        }
        assert_eq!(idle_bytes(), IDLE_KEPT_BYTES + 2 * MIB);
        for _ in 0..3 {
            pool.trim_unused();
        }
        assert_eq!(idle_bytes(), IDLE_KEPT_BYTES);
    }

    #[test]
    fn sizes_above_the_largest_class_are_served_exactly() {
        let pool = Pool::new(8 * MIB);
        let buffer = pool.take(SIZE_MAX_BYTES + 1).expect("within the budget");
        assert_eq!(buffer.len(), SIZE_MAX_BYTES + ALIGN_BYTES);
        assert_eq!(buffer.as_ptr() as usize % ALIGN_BYTES, 0);
    }

    #[test]
    fn lent_memory_is_counted_once_for_each_block_until_the_last_slice_is_gone() {
        let pool = Pool::new(MIB);
        let buffer = pool.take_append(64 * KIB).expect("within the budget");
        buffer.append(&[7; 100]);
        let (first, second) = (buffer.slice(0..10), buffer.slice(50..60).lend());
        assert_eq!((pool.lent_bytes(), first.lending_bytes()), (64 * KIB, 0));
        let (first, copy) = (first.lend().lend(), second.clone());
        let other = pool.take(4 * KIB).expect("within the budget").freeze(4);
        assert_eq!(other.lending_bytes(), 4 * KIB);
        assert_eq!(other.lend().slice(0..2).len(), 2, "a part that is not lent itself");
        drop((second, first));
        assert_eq!(pool.lent_bytes(), 64 * KIB);
        drop(copy);
        assert_eq!((pool.lent_bytes(), pool.used_bytes()), (0, 64 * KIB));
    }

    #[test]
    fn slices_keep_their_bytes_while_the_buffer_grows() {
        let pool = Pool::new(MIB);
        let buffer = pool.take_append(4 * KIB).expect("within the budget");
        buffer.append(b"hello");
        let slice = buffer.slice(1..4);
        buffer.append(b" world");
        assert_eq!(slice.as_bytes(), b"ell");
        assert_eq!(buffer.slice(0..11).as_bytes(), b"hello world");
        assert_eq!(buffer.pad(16), 16);
        assert_eq!(buffer.slice_padded(0..16).as_bytes(), b"hello world\0\0\0\0\0");
        drop(buffer);
        assert_eq!(slice.slice(0..1).as_bytes(), b"e");
        assert!(pool.used_bytes() > 0);
        drop(slice);
        assert_eq!(pool.used_bytes(), 0);
    }
}
