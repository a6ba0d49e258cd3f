//! Random histories against a reference that only knows sets: for each block the bytes that it may hold after a power
//! cut, for the file the lengths that it may have.

use std::collections::BTreeMap;

use super::*;

const BLOCK_COUNT: usize = 8;

/// What a file may be after a power cut.
struct Reference {
    /// Per block: the byte that a reader sees now, and all that it may be after a cut.
    blocks: BTreeMap<usize, (i32, BTreeSet<i32>)>,
    length: usize,
    lengths: BTreeSet<usize>,
}

impl Reference {
    fn new() -> Reference {
        let blocks = (0..BLOCK_COUNT).map(|index| (index, (0, BTreeSet::from([0])))).collect();
        Reference { blocks, length: 0, lengths: BTreeSet::from([0]) }
    }

    fn write(&mut self, from: usize, count: usize, byte: i32, sync: bool) {
        for index in from..from + count {
            let (now, maybe) = self.blocks.get_mut(&index).expect("in range");
            *now = byte;
            if sync {
                maybe.clear();
            }
            maybe.insert(byte);
        }
        self.set_length(self.length.max(from + count), sync);
    }

    fn set_length(&mut self, length: usize, sync: bool) {
        self.length = length;
        if sync {
            self.lengths.clear();
        }
        self.lengths.insert(length);
    }

    fn truncate(&mut self, length: usize) {
        for (_, (now, maybe)) in self.blocks.range_mut(length..) {
            *now = 0;
            maybe.insert(0);
        }
        self.set_length(length, false);
    }

    fn sync(&mut self) {
        for (now, maybe) in self.blocks.values_mut() {
            *maybe = BTreeSet::from([*now]);
        }
        self.lengths = BTreeSet::from([self.length]);
    }

    fn check_now(&self, found: &[i32]) {
        assert_eq!(found.len(), self.length);
        for (index, byte) in found.iter().enumerate() {
            assert_eq!(*byte, self.blocks[&index].0, "block {index} of {found:?}");
        }
    }

    fn check_after_cut(&self, found: &[i32]) {
        assert!(self.lengths.contains(&found.len()), "{found:?} has none of the lengths {:?}", self.lengths);
        for (index, byte) in found.iter().enumerate() {
            let maybe = &self.blocks[&index].1;
            assert!(maybe.contains(byte), "block {index} of {found:?} is none of {maybe:?}");
        }
    }
}

#[test]
fn random_histories_leave_nothing_but_what_the_model_allows() {
    // Writes, synced writes, truncations and syncs by one seed, cut at a random point, then on with what is left.
    for seed in 0..300 {
        let (world, mut io) = world(seed, WorldOptions { capacity_bytes: MIB as u64, ..WorldOptions::calm() });
        let mut rng = Rng::new(seed);
        open(&mut io, "/data/a", DIRECT);
        sync_dir(&mut io);
        let mut reference = Reference::new();
        for _ in 0..3 {
            let file = open(&mut io, "/data/a", DIRECT);
            for _ in 0..rng.in_range(0..20) {
                let from = rng.in_range(0..BLOCK_COUNT as u64) as usize;
                let count = rng.in_range(1..=(BLOCK_COUNT - from) as u64) as usize;
                let byte = rng.in_range(1..256) as u8;
                match rng.in_range(0..10) {
                    0 => {
                        io.run(Op::Sync { file: file.clone() }).expect("no faults");
                        reference.sync();
                    }
                    1 => {
                        let length_bytes = (from * BLOCK) as u64;
                        io.run(Op::Truncate { file: file.clone(), length_bytes }).expect("no faults");
                        reference.truncate(from);
                    }
                    kind => {
                        let sync = kind < 5;
                        write(&mut io, &file, from * BLOCK, byte, count, sync).expect("no faults");
                        reference.write(from, count, i32::from(byte), sync);
                    }
                }
                reference.check_now(&blocks(&world, "/data/a"));
            }
            drop(file);
            if rng.chance(1, 2) {
                continue;
            }
            world.power_cut();
            io = world.io("shard 0", MIB);
            let found = blocks(&world, "/data/a");
            reference.check_after_cut(&found);
            // What is left is durable.
            for (index, (now, maybe)) in &mut reference.blocks {
                *now = found.get(*index).copied().unwrap_or(0);
                *maybe = BTreeSet::from([*now]);
            }
            reference.set_length(found.len(), true);
            assert_eq!(world.occupied_bytes() % BLOCK as u64, 0);
            assert!(world.occupied_bytes() <= (found.len() * BLOCK) as u64);
        }
    }
}

#[test]
fn space_is_counted_the_same_after_any_history_of_names() {
    // Files are created, written, renamed over each other and removed, with cuts between: in the end everything is
    // removed, and nothing is occupied.
    for seed in 0..200 {
        let (world, mut io) = world(seed, WorldOptions::default());
        world.create_dir_all("/data/d").expect("empty");
        let mut rng = Rng::new(seed);
        let name = |rng: &mut Rng| format!("/data/{}{}", ["", "d/"][rng.in_range(0..2) as usize], rng.in_range(0..3));
        for _ in 0..40 {
            match rng.in_range(0..8) {
                0..3 => {
                    let file = open(&mut io, &name(&mut rng), DIRECT);
                    write(&mut io, &file, 0, 1, 1 + rng.in_range(0..3) as usize, rng.chance(1, 2)).expect("no faults");
                }
                3 => drop(io.run(Op::Remove { path: name(&mut rng).into() })),
                4 | 5 => {
                    let (from, to) = (name(&mut rng).into(), name(&mut rng).into());
                    drop(io.run(Op::Rename { from, to }));
                }
                6 => sync_dir(&mut io),
                _ if rng.chance(1, 3) => {
                    world.power_cut();
                    io = world.io("shard 0", MIB);
                }
                _ => {}
            }
        }
        for dir in ["/data/d", "/data"] {
            for entry in world.list(dir).expect("durable").into_iter().filter(|entry| !entry.is_dir) {
                io.run(Op::Remove { path: format!("{dir}/{}", entry.name).into() }).expect("it is there");
            }
            io.run(Op::SyncDir { path: dir.into() }).expect("it is there");
        }
        io.poll(Some(Monotonic(0)), &mut Vec::new());
        assert_eq!(world.occupied_bytes(), 0, "seed {seed}");
        world.power_cut();
        assert_eq!(world.occupied_bytes(), 0, "seed {seed}");
        assert_eq!(world.list("/data").expect("durable").len(), 1);
    }
}
