//! Seeded smoke runs of the fuzzers: golden frames and other sound bytes, changed at random, into every entrance of
//! outside bytes. No panic, no hang, no memory beyond the entrance's bound.
//!
//! The functions are those of the `cargo fuzz` targets in `fuzz/`. `OTTLA_FUZZ_SECONDS` sets how many
//! seconds of processor time each entrance gets (a moment by default), `OTTLA_FUZZ_SEED` where the changes begin,
//! `OTTLA_FUZZ_ONLY` which entrance.

#![allow(unsafe_code)] // A counting allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use entrances::{ENTRANCES, Entrance, examples};
use nix::time::{ClockId, clock_gettime};

#[path = "../fuzz/src/entrances.rs"]
mod entrances;

/// Inputs that every entrance gets, however fast it is.
const INPUT_COUNT_MIN: u64 = 300;
/// What one input may take: far more than it does on a slow machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts what this thread holds.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(added: usize, removed: usize) {
    // While a thread ends its counters may be gone.
    let _ = USED.try_with(|used| {
        used.set(used.get().saturating_add(added).saturating_sub(removed));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(used.get())));
    });
}

// SAFETY: every call is the system allocator's; the counters are plain numbers of the thread and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// A small generator of its own: the tests of randomness are not what is tested here.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes that find what parsers get wrong: bits, lengths at their limits, pieces twice, ends cut off.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(9) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => drop(bytes.remove(at)),
            5 => {
                let limits = [0, 1, -1, i32::MAX, i32::MIN, 0x0100_0000, 0x7fff, 0xffff];
                let number = limits[random.below(limits.len())].to_be_bytes();
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            6 => {
                // A varint that claims as much as it can.
                let end = bytes.len().min(at + 4);
                bytes[at..end].fill(0xff);
            }
            7 => {
                let end = bytes.len().min(at + 1 + random.below(200));
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let (from, length) = (random.below(bytes.len()), random.below(64));
                let end = bytes.len().min(from + length);
                let piece = bytes[from..end].to_vec();
                let end = bytes.len().min(at + piece.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
        }
    }
}

/// Golden request frames without their size prefixes, and with them for the entrance that reads it.
fn golden(name: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut frames = Vec::new();
    for entry in std::fs::read_dir(dir).expect("golden frames") {
        let path = entry.expect("a directory entry").path();
        let api = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_lowercase();
        let is_hot = ["produce", "fetch"].contains(&api.as_str());
        let fits = match name {
            "frame" => true,
            "produce" | "fetch" => api == name,
            "request" => !is_hot,
            _ => false,
        };
        if !fits || path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        for line in std::fs::read_to_string(&path).expect("text").lines() {
            let mut words = line.split(' ');
            if words.next() != Some("request") {
                continue;
            }
            let hex = words.nth(1).expect("a frame");
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
            let frame: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            frames.push(if name == "frame" { frame } else { frame[4..].to_vec() });
        }
    }
    frames.sort();
    frames
}

/// Of this thread, so that a run beside others is as long as one alone.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock that every Linux has").into()
}

fn try_entrance(entrance: &Entrance, seed: u64, time: Duration) -> u64 {
    let sound = [golden(entrance.name), examples(entrance.name)].concat();
    assert!(!sound.is_empty(), "{} has nothing to begin with", entrance.name);
    let mut random = Random(seed);
    let started = processor_time();
    let mut number = 0;
    while number < INPUT_COUNT_MIN || processor_time() - started < time {
        let mut bytes = sound[number as usize % sound.len()].clone();
        if number >= sound.len() as u64 {
            change(&mut bytes, &mut random);
        }
        let who = format!("{}, seed {seed}, input {number}", entrance.name);
        let before = USED.get();
        PEAK.set(before);
        let entered = processor_time();
        let result = std::panic::catch_unwind(|| (entrance.enter)(&bytes));
        let (took, peak) = (processor_time() - entered, PEAK.get() - before);
        assert!(result.is_ok(), "{who}: a panic at {bytes:02x?}");
        assert!(took < INPUT_TIME_MAX, "{who}: {took:?} for {bytes:02x?}");
        let bound = entrance.memory_bytes_max + 16 * bytes.len();
        assert!(peak <= bound, "{who}: {peak} bytes at a time, more than {bound}, for {bytes:02x?}");
        number += 1;
    }
    number
}

#[test]
fn no_outside_bytes_panic_hang_or_take_memory_beyond_the_bound() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let only = std::env::var("OTTLA_FUZZ_ONLY").ok();
    let (seed, seconds) = (number("OTTLA_FUZZ_SEED", 1), number("OTTLA_FUZZ_SECONDS", 0));
    let time = if seconds > 0 { Duration::from_secs(seconds) } else { Duration::from_millis(300) };
    for entrance in &ENTRANCES {
        if only.as_ref().is_none_or(|only| only == entrance.name) {
            let count = try_entrance(entrance, seed, time);
            println!("{}: {count} inputs from seed {seed}", entrance.name);
        }
    }
}

#[test]
fn the_allocator_counts_what_is_taken_at_a_time() {
    // A check of the check: two buffers, one after the other, count once.
    let before = USED.get();
    PEAK.set(before);
    for _ in 0..2 {
        std::hint::black_box(vec![1u8; 1 << 20]);
    }
    let peak = PEAK.get() - before;
    assert!((1 << 20..2 << 20).contains(&peak), "{peak}");
}
