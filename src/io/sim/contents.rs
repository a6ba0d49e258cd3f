//! One file's bytes: what a reader sees, what is durable, and every version in between.
//!
//! The model
//! 1. A file is blocks of 4 KiB. A block has a durable image and the images that later writes left, oldest first; a
//!    reader sees the last.
//! 2. A sync makes durable what had completed when it was handed over; a synced write makes durable its own blocks
//!    only (as `RWF_DSYNC` may), and the file's length.
//! 3. Changes of the length are durable in order, as in a journal. A truncation that is undone brings back what it
//!    cut off, and undoes what was written behind it since.
//! 4. A power cut decides for each write that is not durable: lost, kept, or torn, which decides block by block
//!    (or by 512 bytes). Writes are independent of each other: a later one may be kept where an earlier one is lost.
//!
//! Invariants
//! - The durable image of a block only changes by a sync, by a synced write, or by a power cut.
//! - A block without an entry reads as zeros and occupies no space.
//!
//! It must not know names, operations or time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::options::Loss;
use crate::base::rng::Rng;

/// The unit of space, of direct I/O and of tearing.
pub(super) const BLOCK_SIZE_BYTES: usize = 4096;

/// Images that a block keeps beside the durable one; the oldest is forgotten, so that a tail block rewritten for
/// ever without a sync does not grow.
const VERSION_COUNT_MAX: usize = 16;

type Image = Rc<[u8; BLOCK_SIZE_BYTES]>;

/// A write, across all its blocks. Later ones have greater numbers.
pub(super) type WriteId = u64;

thread_local! {
    static ZERO: Image = Rc::new([0; BLOCK_SIZE_BYTES]);
}

fn zero() -> Image {
    ZERO.with(Rc::clone)
}

/// What becomes of a write that the power cut met, chosen by a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tear {
    /// By the seed.
    Random,
    /// Nothing of it reached the disk.
    Lost,
    /// All of it did.
    Kept,
    /// Only these blocks of 4 KiB did, counted from the one that its offset lies in.
    Blocks(BTreeSet<u64>),
}

enum Fate {
    Lost,
    Kept,
    Torn,
    Chosen { first_block: u64, blocks: BTreeSet<u64> },
}

struct Version {
    write: WriteId,
    /// Truncations of the file before it.
    truncate_count: u32,
    /// It is the zeros that a truncation left.
    is_truncate: bool,
    /// A sync that should have covered it failed.
    abandoned: bool,
    image: Image,
}

struct Block {
    durable: Image,
    allocated: bool,
    versions: Vec<Version>,
}

impl Block {
    fn new() -> Block {
        Block { durable: zero(), allocated: false, versions: Vec::new() }
    }

    fn current(&self) -> &Image {
        self.versions.last().map_or(&self.durable, |version| &version.image)
    }

    fn push(&mut self, version: Version) {
        // Not the zeros of a truncation: whether they are kept is the journal's business.
        if self.versions.len() >= VERSION_COUNT_MAX
            && let Some(oldest) = self.versions.iter().position(|version| !version.is_truncate)
        {
            self.versions.remove(oldest);
        }
        self.versions.push(version);
    }

    fn make_durable(&mut self, index: usize) {
        self.durable = self.versions[index].image.clone();
        self.versions.drain(..=index);
    }

    fn is_empty(&self) -> bool {
        !self.allocated && self.versions.is_empty() && Rc::ptr_eq(&self.durable, &zero())
    }
}

struct LengthChange {
    write: WriteId,
    length_bytes: u64,
    truncate_count: u32,
}

/// The bytes of one file.
#[derive(Default)]
pub(super) struct Contents {
    length_bytes: u64,
    durable_length_bytes: u64,
    length_changes: Vec<LengthChange>,
    truncate_count: u32,
    durable_truncate_count: u32,
    blocks: BTreeMap<u64, Block>,
    dirty: BTreeSet<u64>,
    allocated_count: u64,
}

fn block_range(offset: u64, length_bytes: u64) -> std::ops::Range<u64> {
    let block = BLOCK_SIZE_BYTES as u64;
    if length_bytes == 0 { 0..0 } else { offset / block..(offset + length_bytes).div_ceil(block) }
}

impl Contents {
    /// The length that a reader sees.
    pub(super) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Blocks that occupy space.
    pub(super) fn allocated_count(&self) -> u64 {
        self.allocated_count
    }

    /// Blocks that a write or reservation of the range would have to allocate.
    pub(super) fn missing_count(&self, offset: u64, length_bytes: u64) -> u64 {
        let range = block_range(offset, length_bytes);
        let there = self.blocks.range(range.clone()).filter(|(_, block)| block.allocated).count();
        range.end - range.start - there as u64
    }

    /// The greatest prefix of the range, in bytes, that allocates no more than `block_count` blocks.
    pub(super) fn prefix_within(&self, offset: u64, length_bytes: u64, mut block_count: u64) -> u64 {
        for index in block_range(offset, length_bytes) {
            if !self.blocks.get(&index).is_some_and(|block| block.allocated) {
                if block_count == 0 {
                    return (index * BLOCK_SIZE_BYTES as u64).saturating_sub(offset);
                }
                block_count -= 1;
            }
        }
        length_bytes
    }

    /// Copies what is there at `offset` into `target` and returns its length: short only at the end of the file.
    pub(super) fn read(&self, offset: u64, target: &mut [u8]) -> usize {
        let end = self.length_bytes.min(offset.saturating_add(target.len() as u64));
        let length = end.saturating_sub(offset) as usize;
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = (at % BLOCK_SIZE_BYTES as u64) as usize;
            let part = (BLOCK_SIZE_BYTES - within).min(length - done);
            match self.blocks.get(&(at / BLOCK_SIZE_BYTES as u64)) {
                Some(block) => {
                    target[done..done + part].copy_from_slice(&block.current()[within..within + part]);
                }
                None => target[done..done + part].fill(0),
            }
            done += part;
        }
        length
    }

    /// Writes `bytes`, not durable yet.
    pub(super) fn write(&mut self, write: WriteId, offset: u64, bytes: &[u8]) {
        for index in block_range(offset, bytes.len() as u64) {
            let block_start = index * BLOCK_SIZE_BYTES as u64;
            let from = offset.max(block_start);
            let to = (offset + bytes.len() as u64).min(block_start + BLOCK_SIZE_BYTES as u64);
            let source = &bytes[(from - offset) as usize..(to - offset) as usize];
            let mut image = match self.blocks.get(&index) {
                Some(block) if source.len() < BLOCK_SIZE_BYTES => **block.current(),
                _ => [0; BLOCK_SIZE_BYTES],
            };
            image[(from - block_start) as usize..(to - block_start) as usize].copy_from_slice(source);
            self.put(write, index, Rc::new(image));
        }
        self.grow(write, offset + bytes.len() as u64);
    }

    /// Writes zeros over whole blocks, not durable yet.
    pub(super) fn write_zeros(&mut self, write: WriteId, offset: u64, length_bytes: u64) {
        for index in block_range(offset, length_bytes) {
            self.put(write, index, zero());
        }
        self.grow(write, offset + length_bytes);
    }

    fn put(&mut self, write: WriteId, index: u64, image: Image) {
        let block = self.blocks.entry(index).or_insert_with(Block::new);
        self.allocated_count += u64::from(!block.allocated);
        block.allocated = true;
        let truncate_count = self.truncate_count;
        block.push(Version { write, truncate_count, is_truncate: false, abandoned: false, image });
        self.dirty.insert(index);
    }

    /// Reserves blocks and grows the file over them.
    pub(super) fn allocate(&mut self, write: WriteId, offset: u64, length_bytes: u64) {
        for index in block_range(offset, length_bytes) {
            let block = self.blocks.entry(index).or_insert_with(Block::new);
            self.allocated_count += u64::from(!block.allocated);
            block.allocated = true;
        }
        self.grow(write, offset + length_bytes);
    }

    fn grow(&mut self, write: WriteId, length_bytes: u64) {
        if length_bytes > self.length_bytes {
            self.set_length(write, length_bytes);
        }
    }

    fn set_length(&mut self, write: WriteId, length_bytes: u64) {
        self.length_bytes = length_bytes;
        self.length_changes.push(LengthChange { write, length_bytes, truncate_count: self.truncate_count });
    }

    /// Sets the length, not durable yet. What lies behind it reads as zeros if the file grows again.
    pub(super) fn truncate(&mut self, write: WriteId, length_bytes: u64) {
        if length_bytes < self.length_bytes {
            self.truncate_count += 1;
            let truncate_count = self.truncate_count;
            let within = (length_bytes % BLOCK_SIZE_BYTES as u64) as usize;
            for (&index, block) in self.blocks.range_mut(length_bytes / BLOCK_SIZE_BYTES as u64..) {
                let partly = within > 0 && index == length_bytes / BLOCK_SIZE_BYTES as u64;
                let image = if partly {
                    let mut image = **block.current();
                    image[within..].fill(0);
                    Rc::new(image)
                } else {
                    self.allocated_count -= u64::from(block.allocated);
                    block.allocated = false;
                    zero()
                };
                block.push(Version { write, truncate_count, is_truncate: true, abandoned: false, image });
                self.dirty.insert(index);
            }
        }
        if length_bytes != self.length_bytes {
            self.set_length(write, length_bytes);
        }
    }

    /// Makes durable what writes up to `last` did, and the length they gave the file.
    pub(super) fn sync(&mut self, last: WriteId) {
        for index in std::mem::take(&mut self.dirty) {
            let block = self.blocks.get_mut(&index).expect("dirty blocks have entries");
            if let Some(last) = block.versions.iter().rposition(|v| v.write <= last && !v.abandoned) {
                block.make_durable(last);
            }
            self.tidy(index);
        }
        self.sync_length(last);
    }

    /// Makes one write's blocks durable, and the length that the file had after it.
    pub(super) fn sync_write(&mut self, write: WriteId, offset: u64, length_bytes: u64) {
        for index in block_range(offset, length_bytes) {
            let Some(block) = self.blocks.get_mut(&index) else { continue };
            if let Some(own) = block.versions.iter().rposition(|v| v.write == write) {
                block.make_durable(own);
            }
            self.tidy(index);
        }
        self.sync_length(write);
    }

    fn sync_length(&mut self, last: WriteId) {
        let durable = self.length_changes.partition_point(|change| change.write <= last);
        if let Some(change) = self.length_changes.drain(..durable).next_back() {
            self.durable_length_bytes = change.length_bytes;
            self.durable_truncate_count = change.truncate_count;
        }
    }

    /// A sync of the writes up to `last` failed: no later sync makes them durable.
    pub(super) fn abandon(&mut self, last: WriteId) {
        for index in &self.dirty {
            let block = self.blocks.get_mut(index).expect("dirty blocks have entries");
            for version in block.versions.iter_mut().filter(|version| version.write <= last && !version.is_truncate) {
                version.abandoned = true;
            }
        }
    }

    fn tidy(&mut self, index: u64) {
        let Some(block) = self.blocks.get(&index) else { return };
        if block.versions.is_empty() {
            self.dirty.remove(&index);
        } else {
            self.dirty.insert(index);
        }
        if block.is_empty() {
            self.blocks.remove(&index);
        }
    }

    /// Changes stored bytes behind everyone's back, in every version: a rotten disk. Bytes behind the end stay.
    pub(super) fn rot(&mut self, offset: u64, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.length_bytes.saturating_sub(offset) as usize)];
        for index in block_range(offset, bytes.len() as u64) {
            let block_start = index * BLOCK_SIZE_BYTES as u64;
            let from = offset.max(block_start);
            let to = (offset + bytes.len() as u64).min(block_start + BLOCK_SIZE_BYTES as u64);
            let source = &bytes[(from - offset) as usize..(to - offset) as usize];
            let block = self.blocks.entry(index).or_insert_with(Block::new);
            let images = block.versions.iter_mut().map(|version| &mut version.image);
            for image in images.chain([&mut block.durable]) {
                let target = Rc::make_mut(image);
                target[(from - block_start) as usize..(to - block_start) as usize].copy_from_slice(source);
            }
        }
    }

    /// The power is cut: what is not durable is decided, and then everything is. `met` is the write that the test
    /// chose a fate for, with its offset.
    pub(super) fn lose(
        &mut self,
        rng: &mut Rng,
        loss: Loss,
        tear_size_bytes: usize,
        met: Option<(WriteId, u64, &Tear)>,
    ) {
        let mut fates = BTreeMap::new();
        let mut kept_length_change_count = match loss {
            Loss::Random => rng.in_range(0..=self.length_changes.len() as u64) as usize,
            Loss::All => 0,
            Loss::Nothing => self.length_changes.len(),
        };
        if let Some((write, offset, tear)) = met {
            let first_block = offset / BLOCK_SIZE_BYTES as u64;
            let fate = match tear {
                Tear::Random => None,
                Tear::Lost => Some(Fate::Lost),
                Tear::Kept => Some(Fate::Kept),
                Tear::Blocks(blocks) => Some(Fate::Chosen { first_block, blocks: blocks.clone() }),
            };
            // What a test wants kept must be visible: the length goes with it.
            let wants_length = matches!(&fate, Some(Fate::Kept))
                || matches!(&fate, Some(Fate::Chosen { blocks, .. }) if !blocks.is_empty());
            let own = self.length_changes.iter().position(|change| change.write == write);
            if let (true, Some(own)) = (wants_length, own) {
                kept_length_change_count = kept_length_change_count.max(own + 1);
            }
            fates.extend(fate.map(|fate| (write, fate)));
        }
        let kept = kept_length_change_count.checked_sub(1).map(|last| &self.length_changes[last]);
        let length_bytes = kept.map_or(self.durable_length_bytes, |change| change.length_bytes);
        let truncate_count = kept.map_or(self.durable_truncate_count, |change| change.truncate_count);

        for index in std::mem::take(&mut self.dirty) {
            let block = self.blocks.get_mut(&index).expect("dirty blocks have entries");
            for version in std::mem::take(&mut block.versions) {
                if version.truncate_count > truncate_count {
                    continue;
                }
                if version.is_truncate {
                    block.durable = version.image;
                    continue;
                }
                let fate = fates.entry(version.write).or_insert_with(|| match (loss, rng.in_range(0..3)) {
                    (Loss::All, _) | (Loss::Random, 0) => Fate::Lost,
                    (Loss::Nothing, _) | (Loss::Random, 1) => Fate::Kept,
                    (Loss::Random, _) => Fate::Torn,
                });
                match fate {
                    Fate::Lost => {}
                    Fate::Kept => block.durable = version.image,
                    Fate::Torn => {
                        let mut image = *block.durable;
                        for from in (0..BLOCK_SIZE_BYTES).step_by(tear_size_bytes) {
                            if rng.chance(1, 2) {
                                let part = from..from + tear_size_bytes;
                                image[part.clone()].copy_from_slice(&version.image[part]);
                            }
                        }
                        block.durable = Rc::new(image);
                    }
                    Fate::Chosen { first_block, blocks } => {
                        if blocks.contains(&(index - *first_block)) {
                            block.durable = version.image;
                        }
                    }
                }
            }
        }
        self.length_changes.clear();
        self.length_bytes = length_bytes;
        self.durable_length_bytes = length_bytes;
        self.truncate_count = truncate_count;
        self.durable_truncate_count = truncate_count;
        self.cut_behind_length();
    }

    /// Behind the end nothing survives: a file that grows again shows zeros there.
    fn cut_behind_length(&mut self) {
        let block_count = self.length_bytes.div_ceil(BLOCK_SIZE_BYTES as u64);
        self.blocks.split_off(&block_count);
        let within = (self.length_bytes % BLOCK_SIZE_BYTES as u64) as usize;
        if within > 0
            && let Some(block) = self.blocks.get_mut(&(block_count - 1))
            && block.durable[within..].iter().any(|&byte| byte != 0)
        {
            let mut image = *block.durable;
            image[within..].fill(0);
            block.durable = Rc::new(image);
        }
        for block in self.blocks.values_mut() {
            block.allocated |= !Rc::ptr_eq(&block.durable, &zero());
        }
        self.blocks.retain(|_, block| !block.is_empty());
        self.allocated_count = self.blocks.values().filter(|block| block.allocated).count() as u64;
    }
}
