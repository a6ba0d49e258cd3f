//! Tests of the model itself: what they share, and determinism.

mod conformance;
mod disk;
mod model;
mod network;
mod shards;
mod streams;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::base::units::{KIB, MIB};
use crate::io::{Completion, File, Gather, Io, Op, OpenOptions, Outcome, Piece, Slice, Socket, Token};

const BLOCK: usize = 4 * KIB;
const DIRECT: OpenOptions = OpenOptions { write: true, create: true, create_new: false, direct: true };
const CACHED: OpenOptions = OpenOptions { direct: false, ..DIRECT };

fn world(seed: u64, options: WorldOptions) -> (World, SimIo) {
    let world = World::new(seed, options);
    world.create_dir_all("/data").expect("an empty disk");
    let io = world.io("shard 0", 16 * MIB);
    (world, io)
}

fn open(io: &mut SimIo, path: &str, options: OpenOptions) -> File {
    match io.run(Op::Open { path: path.into(), options }) {
        Ok(Outcome::Opened(file)) => file,
        other => panic!("{path}: {other:?}"),
    }
}

fn slice(io: &SimIo, byte: u8, length_bytes: usize) -> Slice {
    let mut buffer = io.pool().take(length_bytes).expect("budget");
    buffer[..length_bytes].fill(byte);
    buffer.freeze(length_bytes)
}

fn write_op(io: &SimIo, file: &File, offset: usize, byte: u8, length_bytes: usize, sync: bool) -> Op {
    Op::Write { file: file.clone(), offset: offset as u64, slice: slice(io, byte, length_bytes), sync }
}

fn write(io: &mut SimIo, file: &File, offset: usize, byte: u8, blocks: usize, sync: bool) -> io::Result<()> {
    let op = write_op(io, file, offset, byte, blocks * BLOCK, sync);
    io.run(op).map(|_| ())
}

fn sync_dir(io: &mut SimIo) {
    io.run(Op::SyncDir { path: "/data".into() }).expect("no faults");
}

fn errno(result: io::Result<impl std::fmt::Debug>) -> i32 {
    result.expect_err("it should fail").raw_os_error().expect("from the world")
}

/// The byte that each block is full of; -1 if it is mixed.
fn blocks(world: &World, path: impl AsRef<Path>) -> Vec<i32> {
    let fill = |block: &[u8]| if block.iter().all(|&b| b == block[0]) { i32::from(block[0]) } else { -1 };
    world.read_file(path).expect("it is there").chunks(BLOCK).map(fill).collect()
}

fn poll_until(io: &mut SimIo, count: usize) -> Vec<Completion> {
    let mut completions = Vec::new();
    while completions.len() < count {
        io.poll(None, &mut completions);
    }
    completions
}

fn accept(io: &mut SimIo, client: impl FnOnce(&World, std::net::SocketAddr) -> SimClient) -> (Socket, SimClient) {
    let (listener, address) = io.listen("127.0.0.1:0".parse().expect("valid")).expect("free");
    io.submit(Token(77), Op::Accept { listener });
    io.poll(Some(Monotonic(0)), &mut Vec::new());
    let client = client(&io.world().clone(), address);
    let mut completions = poll_until(io, 1);
    match completions.remove(0) {
        Completion { token: Token(77), more: true, result: Ok(Outcome::Accepted { socket, peer, .. }) } => {
            assert_eq!(Some(peer), client.address());
            (socket, client)
        }
        other => panic!("{other:?}"),
    }
}

fn connected(io: &mut SimIo) -> (Socket, SimClient) {
    accept(io, |world, address| world.connect(address).expect("it listens"))
}

fn gather(bytes: &[u8]) -> Gather {
    let mut gather = Gather::new();
    gather.push(Piece::Owned(bytes.to_vec()));
    gather
}

fn receive(io: &mut SimIo, socket: &Socket) -> io::Result<Vec<u8>> {
    let buffer = io.pool().take(BLOCK).expect("budget");
    match io.run(Op::Recv { socket: socket.clone(), buffer, filled: 0 })? {
        Outcome::Received { buffer, filled: 0, bytes } => Ok(buffer[..bytes].to_vec()),
        other => panic!("{other:?}"),
    }
}

fn busy_run(seed: u64) -> u64 {
    let (world, mut io) = world(seed, WorldOptions::harsh());
    world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).chance(1, 20));
    let file = open(&mut io, "/data/a", DIRECT);
    let (socket, client) = connected(&mut io);
    for round in 0..20u8 {
        for index in 0..4 {
            let op = write_op(&io, &file, index * BLOCK, round, BLOCK, index == 0);
            io.submit(Token(index as u64), op);
        }
        client.send(&[round; 300]);
        let mut completions = poll_until(&mut io, 4);
        completions.clear();
        receive(&mut io, &socket).expect("no faults of the network");
    }
    world.power_cut();
    world.advance(Duration::from_secs(1));
    let state = world.read_file("/data/a").unwrap_or_default();
    world.trace_hash() ^ state.iter().fold(0, |hash: u64, &byte| hash.rotate_left(7) ^ u64::from(byte))
}

#[test]
fn one_seed_gives_one_history() {
    for seed in 0..10 {
        assert_eq!(busy_run(seed), busy_run(seed), "seed {seed}");
    }
    let histories: BTreeSet<_> = (0..10).map(busy_run).collect();
    assert_eq!(histories.len(), 10);
}
