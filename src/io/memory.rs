//! A pool's memory: regions of the size of a huge page, each cut into blocks of one size.
//!
//! 1. A [`Region`](Regions) is mapped when no other has a block to give, and cut into blocks of the size that is asked
//!    for. When all of them are back it is idle, and serves any size next.
//! 2. Regions ask for huge pages, if that is wanted, but for the first few: a shard that does little takes little.
//!    A huge page is one fault, one translation and one segment of a direct write, where its 512 small pages are so
//!    many: producing batches of 64 KiB takes a tenth less processor time.
//! 3. An arena is regions in one piece, there from the start, so that the kernel can be told of it once. Regions come
//!    from there while there is some, and it is never given back.
//!
//! Invariants
//! - Blocks lie at multiples of their size, and a region at a multiple of [`REGION_SIZE_BYTES`].
//! - All memory is initialized: a mapping is zeros, and what was a block keeps its bytes.
//! - A region is full, or listed among those of its size that have room, or idle.
//!
//! It must not know budgets.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::base::units::{KIB, MIB};

/// The smallest block.
pub const BLOCK_SIZE_BYTES_MIN: usize = 4 * KIB;
/// Bytes of a region, and the largest block: a huge page of x86-64, and of aarch64 with pages of 4 KiB.
pub const REGION_SIZE_BYTES: usize = 2 * MIB;
/// The largest size class.
pub const CLASS_COUNT: usize = (REGION_SIZE_BYTES / BLOCK_SIZE_BYTES_MIN).trailing_zeros() as usize + 1;
/// Regions of ordinary pages before the first that asks for a huge one: about one of each size.
const SMALL_PAGES_REGION_COUNT: usize = 8;
const WORD_COUNT: usize = REGION_SIZE_BYTES / BLOCK_SIZE_BYTES_MIN / 64;

/// The class of blocks that hold `size_bytes`, or `None` if that is more than a region.
pub fn class_of(size_bytes: usize) -> Option<usize> {
    let size = size_bytes.max(BLOCK_SIZE_BYTES_MIN).next_power_of_two();
    (size <= REGION_SIZE_BYTES).then(|| (size / BLOCK_SIZE_BYTES_MIN).trailing_zeros() as usize)
}

/// Bytes of a block of `class`.
pub fn class_size_bytes(class: usize) -> usize {
    BLOCK_SIZE_BYTES_MIN << class
}

/// Which region a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSlot(u32);

/// Anonymous memory, zeros at first, unmapped when dropped.
struct Mapping {
    memory: NonNull<u8>,
    size_bytes: usize,
}

impl Mapping {
    /// Maps a multiple of a region's size, aligned to it.
    fn new(size_bytes: usize, huge_pages: bool) -> io::Result<Mapping> {
        // Newer kernels align such a mapping by themselves; otherwise more is mapped, and cut.
        let mut mapping = Mapping::anywhere(size_bytes)?;
        if !mapping.memory.addr().get().is_multiple_of(REGION_SIZE_BYTES) {
            drop(mapping);
            mapping = Mapping::anywhere(size_bytes + REGION_SIZE_BYTES)?.aligned(size_bytes);
        }
        if huge_pages {
            // Without huge pages in the kernel it is as well.
            // SAFETY: the range is this mapping, and the advice changes no contents.
            _ = unsafe { madvise(mapping.memory.cast(), mapping.size_bytes, MmapAdvise::MADV_HUGEPAGE) };
        }
        Ok(mapping)
    }

    fn anywhere(size_bytes: usize) -> io::Result<Mapping> {
        let length = NonZeroUsize::new(size_bytes).expect("regions are not empty");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at a place of the kernel's choice touches nothing that is there.
        let memory = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE) }?;
        Ok(Mapping { memory: memory.cast(), size_bytes })
    }

    /// Unmaps what lies before and behind the first `size_bytes` at a multiple of a region's size.
    fn aligned(self, size_bytes: usize) -> Mapping {
        let before = self.memory.addr().get().next_multiple_of(REGION_SIZE_BYTES) - self.memory.addr().get();
        let behind = self.size_bytes - before - size_bytes;
        // SAFETY: both places lie within the mapping, or at its end.
        let (memory, end) = unsafe { (self.memory.add(before), self.memory.add(before + size_bytes)) };
        drop(Mapping { memory: self.memory, size_bytes: before });
        drop(Mapping { memory: end, size_bytes: behind });
        std::mem::forget(self);
        Mapping { memory, size_bytes }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.size_bytes > 0 {
            // SAFETY: the mapping is this value's, and nobody holds a block of it.
            unsafe { munmap(self.memory.cast(), self.size_bytes) }.expect("a mapping of ours can be unmapped");
        }
    }
}

struct Region {
    memory: NonNull<u8>,
    /// `None`: the arena's.
    mapping: Option<Mapping>,
    class: usize,
    used_count: usize,
    /// A bit for each free block.
    free: [u64; WORD_COUNT],
    /// Its place among those with room.
    place: usize,
}

impl Region {
    fn block_count(&self) -> usize {
        REGION_SIZE_BYTES / class_size_bytes(self.class)
    }

    fn cut(&mut self, class: usize) {
        self.class = class;
        let count = self.block_count();
        self.free = std::array::from_fn(|word| match count.saturating_sub(word * 64) {
            0 => 0,
            rest @ 1..64 => (1 << rest) - 1,
            _ => u64::MAX,
        });
    }

    /// The free block at the lowest address, so that few of its pages are touched.
    fn take(&mut self) -> NonNull<u8> {
        let word = self.free.iter().position(|word| *word != 0).expect("a listed region has room");
        let bit = self.free[word].trailing_zeros() as usize;
        self.free[word] &= !(1 << bit);
        self.used_count += 1;
        // SAFETY: the block lies within the region.
        unsafe { self.memory.add((word * 64 + bit) * class_size_bytes(self.class)) }
    }

    fn give_back(&mut self, memory: NonNull<u8>) {
        let at = (memory.addr().get() - self.memory.addr().get()) / class_size_bytes(self.class);
        debug_assert!(at < self.block_count() && self.free[at / 64] & (1 << (at % 64)) == 0);
        self.free[at / 64] |= 1 << (at % 64);
        self.used_count -= 1;
    }
}

/// See the module.
pub struct Regions {
    regions: Vec<Option<Region>>,
    vacant: Vec<RegionSlot>,
    /// Those of each class that have a block to give.
    with_room: [Vec<RegionSlot>; CLASS_COUNT],
    idle: Vec<RegionSlot>,
    idle_of_arena: Vec<RegionSlot>,
    arena: Option<Mapping>,
    huge_pages: bool,
}

impl Regions {
    /// None yet but for the arena's, whose `arena_bytes` are rounded down to whole regions.
    pub fn new(arena_bytes: usize, huge_pages: bool) -> io::Result<Regions> {
        let arena_bytes = arena_bytes / REGION_SIZE_BYTES * REGION_SIZE_BYTES;
        let arena = (arena_bytes > 0).then(|| Mapping::new(arena_bytes, huge_pages)).transpose()?;
        let mut regions = Regions {
            regions: Vec::new(),
            vacant: Vec::new(),
            with_room: Default::default(),
            idle: Vec::new(),
            idle_of_arena: Vec::new(),
            arena: None,
            huge_pages,
        };
        for start in (0..arena_bytes).step_by(REGION_SIZE_BYTES) {
            let arena = arena.as_ref().expect("it is not empty");
            // SAFETY: the place lies within the arena.
            let memory = unsafe { arena.memory.add(start) };
            let slot = regions.add(memory, None);
            regions.idle_of_arena.push(slot);
        }
        // The first is the next to be taken.
        regions.idle_of_arena.reverse();
        Ok(Regions { arena, ..regions })
    }

    /// Address and size of the arena, if there is one.
    pub fn arena(&self) -> Option<(usize, usize)> {
        self.arena.as_ref().map(|arena| (arena.memory.as_ptr().expose_provenance(), arena.size_bytes))
    }

    /// Bytes of idle regions that can be given back.
    pub fn idle_bytes(&self) -> usize {
        self.idle.len() * REGION_SIZE_BYTES
    }

    /// A block of `class`. Fails if the kernel has no memory to map.
    pub fn take(&mut self, class: usize) -> io::Result<(NonNull<u8>, RegionSlot)> {
        let slot = match self.with_room[class].last() {
            Some(slot) => *slot,
            None => self.cut_next(class)?,
        };
        let region = self.regions[slot.0 as usize].as_mut().expect("it is listed");
        let memory = region.take();
        if region.used_count == region.block_count() {
            self.with_room[class].pop();
        }
        Ok((memory, slot))
    }

    /// Takes a block back that [`take`](Self::take) gave with this slot.
    pub fn give_back(&mut self, memory: NonNull<u8>, slot: RegionSlot) {
        let region = self.regions[slot.0 as usize].as_mut().expect("its block was in use");
        let listed = &mut self.with_room[region.class];
        let was_full = region.used_count == region.block_count();
        region.give_back(memory);
        if region.used_count > 0 {
            if was_full {
                region.place = listed.len();
                listed.push(slot);
            }
            return;
        }
        let of_arena = region.mapping.is_none();
        if !was_full {
            let place = region.place;
            listed.swap_remove(place);
            if let Some(moved) = listed.get(place) {
                self.regions[moved.0 as usize].as_mut().expect("it is listed").place = place;
            }
        }
        if of_arena { self.idle_of_arena.push(slot) } else { self.idle.push(slot) }
    }

    /// Gives idle regions back to the system until at most `limit_bytes` of them are left.
    pub fn trim(&mut self, limit_bytes: usize) {
        while self.idle_bytes() > limit_bytes {
            let Some(slot) = self.idle.pop() else { return };
            self.regions[slot.0 as usize] = None;
            self.vacant.push(slot);
        }
    }

    fn cut_next(&mut self, class: usize) -> io::Result<RegionSlot> {
        let slot = match self.idle_of_arena.pop().or_else(|| self.idle.pop()) {
            Some(slot) => slot,
            None => {
                let huge_pages = self.huge_pages && self.regions.len() >= SMALL_PAGES_REGION_COUNT;
                let mapping = Mapping::new(REGION_SIZE_BYTES, huge_pages)?;
                self.add(mapping.memory, Some(mapping))
            }
        };
        let place = self.with_room[class].len();
        self.with_room[class].push(slot);
        let region = self.regions[slot.0 as usize].as_mut().expect("it is idle");
        region.cut(class);
        region.place = place;
        Ok(slot)
    }

    fn add(&mut self, memory: NonNull<u8>, mapping: Option<Mapping>) -> RegionSlot {
        let region = Region { memory, mapping, class: 0, used_count: 0, free: [0; WORD_COUNT], place: 0 };
        match self.vacant.pop() {
            Some(slot) => {
                self.regions[slot.0 as usize] = Some(region);
                slot
            }
            None => {
                self.regions.push(Some(region));
                RegionSlot(self.regions.len() as u32 - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn region_count(regions: &Regions) -> usize {
        regions.regions.iter().flatten().count()
    }

    #[test]
    fn blocks_in_use_never_overlap_and_lie_at_multiples_of_their_size() {
        // Takes and gives back blocks of all sizes at random; each is filled with its own number and checked.
        let mut rng = Rng::new(1);
        let mut regions = Regions::new(4 * MIB, true).unwrap();
        let mut taken: Vec<(NonNull<u8>, RegionSlot, usize, u8)> = Vec::new();
        for round in 0..4000u32 {
            if rng.in_range(0..100) < 55 && taken.len() < 300 {
                let class = rng.in_range(0..CLASS_COUNT as u64) as usize;
                let (memory, slot) = regions.take(class).unwrap();
                let (size, mark) = (class_size_bytes(class), round as u8);
                assert!(memory.addr().get().is_multiple_of(size));
                // SAFETY: the block was just handed out.
                unsafe { memory.write_bytes(mark, size.min(BLOCK_SIZE_BYTES_MIN)) };
                // SAFETY: as above.
                unsafe { memory.add(size - 1).write(mark) };
                taken.push((memory, slot, size, mark));
            } else if !taken.is_empty() {
                let (memory, slot, size, mark) = taken.swap_remove(rng.in_range(0..taken.len() as u64) as usize);
                // SAFETY: the block is still ours.
                let (first, last) = unsafe { (memory.read(), memory.add(size - 1).read()) };
                assert_eq!((first, last), (mark, mark));
                regions.give_back(memory, slot);
            }
            if round.is_multiple_of(500) {
                regions.trim(0);
            }
        }
        for (memory, slot, ..) in taken {
            regions.give_back(memory, slot);
        }
        regions.trim(0);
        assert_eq!(region_count(&regions), 2, "the arena stays");
        assert!(regions.with_room.iter().all(Vec::is_empty));
    }

    #[test]
    fn a_region_whose_blocks_are_all_back_serves_another_size() {
        let mut regions = Regions::new(0, false).unwrap();
        let small: Vec<_> = (0..512).map(|_| regions.take(0).unwrap()).collect();
        assert_eq!(region_count(&regions), 1);
        for (memory, slot) in small {
            regions.give_back(memory, slot);
        }
        assert_eq!(regions.idle_bytes(), REGION_SIZE_BYTES);
        regions.take(CLASS_COUNT - 1).unwrap();
        assert_eq!((region_count(&regions), regions.idle_bytes()), (1, 0));
    }

    #[test]
    fn a_mapping_that_the_kernel_did_not_align_is_cut() {
        let mapping = Mapping::anywhere(3 * REGION_SIZE_BYTES).unwrap().aligned(REGION_SIZE_BYTES);
        assert!(mapping.memory.addr().get().is_multiple_of(REGION_SIZE_BYTES));
        // SAFETY: the mapping is ours, to its last byte.
        unsafe { mapping.memory.write_bytes(1, mapping.size_bytes) };
    }
}
