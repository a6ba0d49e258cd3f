//! What every implementation of [`Io`] must do: one function a promise, over any world.
//!
//! Each function takes a fresh world and an empty directory in it, and checks by completions only. Both worlds run
//! all of them: see [`conformance_suite`].
//!
//! They know no implementation: no real paths, clocks or descriptors.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{
    Buffer, Completion, DirEntry, File, Gather, Io, Listener, Op, OpenOptions, Outcome, Piece, Slice, Socket, Token,
};
use crate::base::units::{KIB, MIB};

const BLOCK: usize = 4 * KIB;

/// Makes a `#[test]` of every function here: `conformance_suite!(with_world)`, where `with_world` is a function that
/// is given a `FnOnce(&mut impl Io, &Path)`.
macro_rules! conformance_suite {
    ($with_world:path) => {
        $crate::io::conformance::conformance_suite! { $with_world:
            what_is_written_is_read_back,
            a_synced_write_completes_like_a_plain_one,
            reads_are_short_only_at_the_end_of_the_file,
            an_overwrite_changes_its_range_only,
            zeros_replace_what_was_there_and_grow_the_file,
            allocation_and_truncation_set_the_length,
            create_new_refuses_an_existing_file,
            opening_what_is_not_there_fails,
            rename_replaces_and_keeps_the_contents,
            an_open_file_follows_its_rename_and_outlives_its_removal,
            directories_are_made_listed_and_removed,
            a_file_system_tells_its_room,
            writes_of_many_files_complete_once_each,
            the_two_ends_of_a_connection_know_each_other,
            one_listener_accepts_many,
            bytes_arrive_in_the_order_of_sending,
            many_pieces_are_one_send,
            a_large_transfer_arrives_whole,
            a_receive_fills_behind_what_is_there,
            a_dropped_socket_ends_the_peers_side,
            shutdown_ends_what_waits_on_both_sides,
            connecting_to_nobody_fails,
            a_cancelled_receive_completes_once,
            a_cancelled_accept_completes_for_the_last_time,
            cancelling_nothing_does_nothing,
            a_stuck_send_that_is_cancelled_tells_what_was_sent,
            a_file_is_sent_exactly,
            a_file_send_stops_at_the_end_of_the_file,
            a_file_send_to_a_stopped_receiver_gives_up_and_resumes,
            a_wake_ends_a_poll,
            a_wake_before_the_poll_is_not_lost,
            a_poll_ends_at_its_deadline,
            a_past_deadline_does_not_wait,
            the_clock_does_not_go_back,
            a_handle_closes_with_its_last_clone,
            an_operation_keeps_its_buffer_until_it_is_done,
        }
    };
    ($with_world:path: $($name:ident,)*) => {
        $(#[test] fn $name() { $with_world(|io, base| $crate::io::conformance::$name(io, base)) })*
    };
}
pub(crate) use conformance_suite;

/// Polls until `count` completions are there, and fails rather than wait for ever.
fn collect(io: &mut impl Io, count: usize) -> Vec<Completion> {
    let mut completions = Vec::new();
    let deadline = io.now().monotonic + Duration::from_secs(20);
    while completions.len() < count {
        io.poll(Some(deadline), &mut completions);
        assert!(io.now().monotonic < deadline, "{} of {count} completions: {completions:?}", completions.len());
    }
    completions
}

/// Submits one operation and takes its completion, which is the only one.
fn run(io: &mut impl Io, op: Op) -> std::io::Result<Outcome> {
    io.submit(Token(7), op);
    let mut completions = collect(io, 1);
    assert_eq!(completions.len(), 1, "{completions:?}");
    let completion = completions.pop().expect("counted");
    assert_eq!((completion.token, completion.more), (Token(7), false));
    completion.result
}

fn done(io: &mut impl Io, op: Op) {
    let result = run(io, op);
    assert!(matches!(result, Ok(Outcome::Done)), "{result:?}");
}

/// Polls for a while and expects nothing.
fn expect_quiet(io: &mut impl Io) {
    let mut completions = Vec::new();
    let deadline = io.now().monotonic + Duration::from_millis(20);
    while io.now().monotonic < deadline {
        io.poll(Some(deadline), &mut completions);
    }
    assert!(completions.is_empty(), "{completions:?}");
}

fn open(io: &mut impl Io, path: &Path, options: OpenOptions) -> File {
    match run(io, Op::Open { path: path.to_owned(), options }) {
        Ok(Outcome::Opened(file)) => file,
        other => panic!("{}: {other:?}", path.display()),
    }
}

fn create(io: &mut impl Io, path: &Path, direct: bool) -> File {
    open(io, path, OpenOptions { write: true, create: true, create_new: true, direct })
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}

fn slice(io: &impl Io, bytes: &[u8]) -> Slice {
    let buffer = io.pool().take_append(bytes.len()).expect("within the budget");
    buffer.append(bytes);
    buffer.slice(0..bytes.len())
}

fn buffer(io: &impl Io, length: usize) -> Buffer {
    io.pool().take(length).expect("within the budget")
}

fn read(io: &mut impl Io, file: &File, offset: u64, length: usize) -> Vec<u8> {
    let op = Op::Read { file: file.clone(), offset, buffer: buffer(io, length), length_bytes: length as u32 };
    match run(io, op) {
        Ok(Outcome::Read { buffer, bytes }) => buffer[..bytes].to_vec(),
        other => panic!("{other:?}"),
    }
}

fn write(io: &mut impl Io, file: &File, offset: u64, bytes: &[u8], sync: bool) {
    let slice = slice(io, bytes);
    done(io, Op::Write { file: file.clone(), offset, slice, sync });
}

fn length(io: &mut impl Io, file: &File) -> u64 {
    match run(io, Op::Length { file: file.clone() }) {
        Ok(Outcome::Length(length)) => length,
        other => panic!("{other:?}"),
    }
}

fn list(io: &mut impl Io, path: &Path) -> Vec<DirEntry> {
    match run(io, Op::List { path: path.to_owned() }) {
        Ok(Outcome::Listed(mut entries)) => {
            entries.sort();
            entries
        }
        other => panic!("{other:?}"),
    }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

const ACCEPT: Token = Token(1001);
const CONNECT: Token = Token(1002);

/// A listener whose accept goes on, and both ends of a connection: the accepted and the connected one.
fn connected(io: &mut impl Io) -> (Listener, Socket, Socket) {
    let (listener, address) = io.listen(any_port()).expect("a free port");
    io.submit(ACCEPT, Op::Accept { listener: listener.clone() });
    let (accepted, connected) = connect(io, address);
    (listener, accepted, connected)
}

fn connect(io: &mut impl Io, address: SocketAddr) -> (Socket, Socket) {
    io.submit(CONNECT, Op::Connect { address });
    let (mut accepted, mut connected) = (None, None);
    for completion in collect(io, 2) {
        match (completion.token, completion.result) {
            (ACCEPT, Ok(Outcome::Accepted { socket, .. })) => accepted = Some(socket),
            (CONNECT, Ok(Outcome::Connected(socket))) => connected = Some(socket),
            other => panic!("{other:?}"),
        }
    }
    (accepted.expect("one of two"), connected.expect("one of two"))
}

fn owned(bytes: &[u8]) -> Gather {
    let mut gather = Gather::new();
    gather.push(Piece::Owned(bytes.to_vec()));
    gather
}

const SEND: Token = Token(2001);
const RECV: Token = Token(2002);
const SEND_FILE: Token = Token(2003);

fn receive(io: &mut impl Io, socket: &Socket, length: usize) {
    let buffer = buffer(io, length);
    io.submit(RECV, Op::Recv { socket: socket.clone(), buffer, filled: 0 });
}

/// Receives one piece, which must be there or come.
fn receive_some(io: &mut impl Io, socket: &Socket) -> Vec<u8> {
    receive(io, socket, 64 * KIB);
    let completion = collect(io, 1).pop().expect("counted");
    match (completion.token, completion.result) {
        (RECV, Ok(Outcome::Received { buffer, filled: 0, bytes })) => buffer[..bytes].to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Sends `gather` from one end and receives as much at the other, both at a time.
fn transfer(io: &mut impl Io, from: &Socket, to: &Socket, gather: Gather) -> Vec<u8> {
    let total = gather.remaining_bytes();
    io.submit(SEND, Op::Send { socket: from.clone(), gather });
    let mut received = Vec::new();
    let mut sent = None;
    receive(io, to, 256 * KIB);
    while received.len() < total || sent.is_none() {
        for completion in collect(io, 1) {
            match (completion.token, completion.result) {
                (SEND, Ok(Outcome::Sent { gather, bytes })) => {
                    assert!(gather.is_empty());
                    sent = Some(bytes);
                }
                (RECV, Ok(Outcome::Received { buffer, filled: 0, bytes })) => {
                    assert!(bytes > 0, "the connection ended after {} of {total} bytes", received.len());
                    received.extend_from_slice(&buffer[..bytes]);
                    if received.len() < total {
                        io.submit(RECV, Op::Recv { socket: to.clone(), buffer, filled: 0 });
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(sent, Some(total));
    received
}

// Files.

pub(crate) fn what_is_written_is_read_back(io: &mut impl Io, base: &Path) {
    // Direct and through the page cache, at the start and behind a hole.
    for (name, direct) in [("buffered", false), ("direct", true)] {
        let file = create(io, &base.join(name), direct);
        let bytes = pattern(64 * KIB, 1);
        write(io, &file, 0, &bytes, false);
        write(io, &file, 128 * KIB as u64, &bytes[..BLOCK], false);
        assert_eq!(length(io, &file), (128 * KIB + BLOCK) as u64);
        assert_eq!(read(io, &file, 0, 64 * KIB), bytes);
        assert_eq!(read(io, &file, 64 * KIB as u64, BLOCK), vec![0; BLOCK]);
        assert_eq!(read(io, &file, 128 * KIB as u64, BLOCK), bytes[..BLOCK]);
        done(io, Op::Sync { file: file.clone() });
        done(io, Op::DropCache { file: file.clone() });
        assert_eq!(read(io, &file, BLOCK as u64, BLOCK), bytes[BLOCK..2 * BLOCK]);
    }
}

pub(crate) fn a_synced_write_completes_like_a_plain_one(io: &mut impl Io, base: &Path) {
    // What synced means is the power-cut tests' business; here: it is written.
    let file = create(io, &base.join("file"), true);
    let bytes = pattern(MIB, 2);
    write(io, &file, 0, &bytes, true);
    assert_eq!(read(io, &file, 0, MIB), bytes);
}

pub(crate) fn reads_are_short_only_at_the_end_of_the_file(io: &mut impl Io, base: &Path) {
    // A file that ends within a block, and one that ends with a block.
    for direct in [false, true] {
        let file = create(io, &base.join(format!("file-{direct}")), direct);
        write(io, &file, 0, &pattern(2 * BLOCK, 3), false);
        assert_eq!(read(io, &file, 0, 4 * BLOCK).len(), 2 * BLOCK);
        done(io, Op::Truncate { file: file.clone(), length_bytes: BLOCK as u64 + 100 });
        assert_eq!(read(io, &file, 0, 4 * BLOCK), pattern(2 * BLOCK, 3)[..BLOCK + 100]);
        assert!(read(io, &file, 2 * BLOCK as u64, BLOCK).is_empty());
    }
}

pub(crate) fn an_overwrite_changes_its_range_only(io: &mut impl Io, base: &Path) {
    let file = create(io, &base.join("file"), true);
    write(io, &file, 0, &pattern(4 * BLOCK, 4), true);
    write(io, &file, BLOCK as u64, &pattern(BLOCK, 5), true);
    let mut expected = pattern(4 * BLOCK, 4);
    expected[BLOCK..2 * BLOCK].copy_from_slice(&pattern(BLOCK, 5));
    assert_eq!(read(io, &file, 0, 4 * BLOCK), expected);
}

pub(crate) fn zeros_replace_what_was_there_and_grow_the_file(io: &mut impl Io, base: &Path) {
    // More than one piece of zeros, from within the old contents to beyond them.
    let file = create(io, &base.join("file"), true);
    write(io, &file, 0, &pattern(4 * BLOCK, 6), true);
    let (offset, count) = (BLOCK as u64, (2 * MIB + BLOCK) as u64);
    done(io, Op::WriteZeros { file: file.clone(), offset, length_bytes: count });
    assert_eq!(length(io, &file), offset + count);
    assert_eq!(read(io, &file, 0, BLOCK), pattern(4 * BLOCK, 6)[..BLOCK]);
    assert!(read(io, &file, offset, count as usize).iter().all(|&byte| byte == 0));
}

pub(crate) fn allocation_and_truncation_set_the_length(io: &mut impl Io, base: &Path) {
    let file = create(io, &base.join("file"), false);
    done(io, Op::Allocate { file: file.clone(), offset: 0, length_bytes: MIB as u64 });
    assert_eq!(length(io, &file), MIB as u64);
    assert_eq!(read(io, &file, 0, BLOCK), vec![0; BLOCK]);
    write(io, &file, 0, b"hello", false);
    done(io, Op::Truncate { file: file.clone(), length_bytes: 3 });
    assert_eq!(length(io, &file), 3);
    done(io, Op::Truncate { file: file.clone(), length_bytes: 6 });
    assert_eq!(read(io, &file, 0, BLOCK), b"hel\0\0\0");
}

pub(crate) fn create_new_refuses_an_existing_file(io: &mut impl Io, base: &Path) {
    let path = base.join("file");
    drop(create(io, &path, false));
    let options = OpenOptions { write: true, create: true, create_new: true, direct: false };
    let error = run(io, Op::Open { path: path.clone(), options }).expect_err("it is there");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    // Plain create takes what is there.
    let file = open(io, &path, OpenOptions { write: true, create: true, ..OpenOptions::default() });
    assert_eq!(length(io, &file), 0);
}

pub(crate) fn opening_what_is_not_there_fails(io: &mut impl Io, base: &Path) {
    for op in [
        Op::Open { path: base.join("none"), options: OpenOptions::default() },
        Op::Remove { path: base.join("none") },
        Op::RemoveDir { path: base.join("none") },
        Op::Rename { from: base.join("none"), to: base.join("other") },
        Op::List { path: base.join("none") },
        Op::CreateDir { path: base.join("none").join("child") },
    ] {
        let name = format!("{op:?}");
        let error = run(io, op).expect_err(&name);
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}");
    }
}

pub(crate) fn rename_replaces_and_keeps_the_contents(io: &mut impl Io, base: &Path) {
    let (old, new) = (base.join("old"), base.join("new"));
    let file = create(io, &old, false);
    write(io, &file, 0, b"old", false);
    let replaced = create(io, &new, false);
    write(io, &replaced, 0, b"replaced", false);
    done(io, Op::Rename { from: old, to: new.clone() });
    done(io, Op::SyncDir { path: base.to_owned() });
    let file = open(io, &new, OpenOptions::default());
    assert_eq!(read(io, &file, 0, BLOCK), b"old");
    assert_eq!(list(io, base), [DirEntry { name: "new".into(), is_dir: false }]);
}

pub(crate) fn an_open_file_follows_its_rename_and_outlives_its_removal(io: &mut impl Io, base: &Path) {
    let file = create(io, &base.join("a"), false);
    done(io, Op::Rename { from: base.join("a"), to: base.join("b") });
    write(io, &file, 0, b"renamed", false);
    done(io, Op::Remove { path: base.join("b") });
    assert_eq!(read(io, &file, 0, BLOCK), b"renamed");
    assert!(list(io, base).is_empty());
}

pub(crate) fn directories_are_made_listed_and_removed(io: &mut impl Io, base: &Path) {
    let directory = base.join("directory");
    done(io, Op::CreateDir { path: directory.clone() });
    // Once more: success.
    done(io, Op::CreateDir { path: directory.clone() });
    drop(create(io, &directory.join("file"), false));
    done(io, Op::CreateDir { path: directory.join("inner") });
    done(io, Op::SyncDir { path: directory.clone() });
    let expected = [DirEntry { name: "file".into(), is_dir: false }, DirEntry { name: "inner".into(), is_dir: true }];
    assert_eq!(list(io, &directory), expected);
    // A file of that name is no directory, and a directory that holds something stays.
    assert!(run(io, Op::CreateDir { path: directory.join("file") }).is_err());
    assert!(run(io, Op::RemoveDir { path: directory.clone() }).is_err());
    done(io, Op::Remove { path: directory.join("file") });
    done(io, Op::RemoveDir { path: directory.join("inner") });
    // Whole directories move with what they hold.
    done(io, Op::Rename { from: directory, to: base.join("moved") });
    assert_eq!(list(io, base), [DirEntry { name: "moved".into(), is_dir: true }]);
    done(io, Op::RemoveDir { path: base.join("moved") });
    assert!(list(io, base).is_empty());
}

/// Others may write meanwhile: what is left is only compared with the whole.
pub(crate) fn a_file_system_tells_its_room(io: &mut impl Io, base: &Path) {
    let space = io.space(base).expect("it is there");
    assert!(space.total_bytes > 0 && space.usable_bytes <= space.total_bytes, "{space:?}");
}

pub(crate) fn writes_of_many_files_complete_once_each(io: &mut impl Io, base: &Path) {
    // More operations at a time than any queue has entries, each with a token of its own.
    const FILE_COUNT: usize = 16;
    const WRITE_COUNT: usize = 100;
    let files: Vec<File> = (0..FILE_COUNT).map(|i| create(io, &base.join(i.to_string()), false)).collect();
    let bytes = slice(io, &pattern(WRITE_COUNT + 100, 7));
    for write in 0..WRITE_COUNT {
        for (index, file) in files.iter().enumerate() {
            let op = Op::Write {
                file: file.clone(),
                offset: (write * 100) as u64,
                slice: bytes.slice(write..write + 100),
                sync: false,
            };
            io.submit(Token((write * FILE_COUNT + index) as u64), op);
        }
    }
    let completions = collect(io, FILE_COUNT * WRITE_COUNT);
    let mut tokens: Vec<u64> = completions.iter().map(|completion| completion.token.0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..(FILE_COUNT * WRITE_COUNT) as u64).collect::<Vec<_>>());
    assert!(completions.iter().all(|completion| matches!(completion.result, Ok(Outcome::Done))));
    for file in &files {
        let contents = read(io, file, 0, 100 * WRITE_COUNT);
        for write in 0..WRITE_COUNT {
            assert_eq!(contents[write * 100..][..100], bytes.as_bytes()[write..write + 100]);
        }
    }
    expect_quiet(io);
}

// Sockets.

pub(crate) fn the_two_ends_of_a_connection_know_each_other(io: &mut impl Io, _: &Path) {
    let (listener, address) = io.listen(any_port()).expect("a free port");
    assert_ne!(address.port(), 0);
    io.submit(ACCEPT, Op::Accept { listener });
    let (server, client) = connect(io, address);
    assert_eq!(transfer(io, &client, &server, owned(b"question")), b"question");
    assert_eq!(transfer(io, &server, &client, owned(b"answer")), b"answer");
}

pub(crate) fn one_listener_accepts_many(io: &mut impl Io, _: &Path) {
    // All connect at once; each accepted socket is another connection with another peer.
    const COUNT: usize = 20;
    let (listener, address) = io.listen(any_port()).expect("a free port");
    io.submit(ACCEPT, Op::Accept { listener });
    for _ in 0..COUNT {
        io.submit(CONNECT, Op::Connect { address });
    }
    let (mut peers, mut sockets) = (Vec::new(), Vec::new());
    for completion in collect(io, 2 * COUNT) {
        match completion.result {
            Ok(Outcome::Accepted { peer, socket, .. }) => {
                assert!(completion.more);
                peers.push(peer);
                sockets.push(socket);
            }
            Ok(Outcome::Connected(socket)) => sockets.push(socket),
            other => panic!("{other:?}"),
        }
    }
    peers.sort_unstable();
    peers.dedup();
    assert_eq!((peers.len(), sockets.len()), (COUNT, 2 * COUNT));
}

pub(crate) fn bytes_arrive_in_the_order_of_sending(io: &mut impl Io, _: &Path) {
    // One send after the other; boundaries may move, bytes may not.
    let (_listener, server, client) = connected(io);
    let mut expected = Vec::new();
    for round in 0..50u8 {
        let bytes = pattern(usize::from(round) * 7 + 1, round);
        let result = {
            io.submit(SEND, Op::Send { socket: client.clone(), gather: owned(&bytes) });
            collect(io, 1).pop().expect("counted").result
        };
        assert!(matches!(result, Ok(Outcome::Sent { bytes: count, .. }) if count == bytes.len()), "{result:?}");
        expected.extend(bytes);
    }
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.extend(receive_some(io, &server));
    }
    assert_eq!(received, expected);
}

pub(crate) fn many_pieces_are_one_send(io: &mut impl Io, _: &Path) {
    // More pieces than one message takes, owned and shared, some empty, the first one begun already.
    let (_listener, server, client) = connected(io);
    let shared = slice(io, &pattern(10_000, 8));
    let (mut gather, mut expected) = (Gather::new(), Vec::new());
    for index in 0..200 {
        if index % 3 == 0 {
            let part = shared.slice(index * 10..index * 40);
            expected.extend_from_slice(part.as_bytes());
            gather.push(Piece::Shared(part));
        } else {
            expected.extend(pattern(index % 5, 9));
            gather.push(Piece::Owned(pattern(index % 5, 9)));
        }
    }
    gather.advance(1);
    assert_eq!(transfer(io, &client, &server, gather), expected[1..]);
}

pub(crate) fn a_large_transfer_arrives_whole(io: &mut impl Io, _: &Path) {
    // More than any socket buffer holds, so that the send has to wait for the receiver again and again.
    let (_listener, server, client) = connected(io);
    let bytes = pattern(16 * MIB, 10);
    let mut gather = Gather::new();
    for part in bytes.chunks(MIB) {
        gather.push(Piece::Shared(slice(io, part)));
    }
    assert!(transfer(io, &client, &server, gather) == bytes);
}

pub(crate) fn a_receive_fills_behind_what_is_there(io: &mut impl Io, _: &Path) {
    let (_listener, server, client) = connected(io);
    let mut buffer = buffer(io, BLOCK);
    buffer[..3].copy_from_slice(b"old");
    io.submit(RECV, Op::Recv { socket: server.clone(), buffer, filled: 3 });
    io.submit(SEND, Op::Send { socket: client.clone(), gather: owned(b"new") });
    for completion in collect(io, 2) {
        if let Ok(Outcome::Received { buffer, filled, bytes }) = completion.result {
            assert_eq!((filled, bytes, &buffer[..6]), (3, 3, &b"oldnew"[..]));
            return;
        }
    }
    panic!("nothing was received");
}

pub(crate) fn a_dropped_socket_ends_the_peers_side(io: &mut impl Io, _: &Path) {
    // What was sent before still arrives, then the end.
    let (_listener, server, client) = connected(io);
    io.submit(SEND, Op::Send { socket: client.clone(), gather: owned(b"last words") });
    collect(io, 1);
    drop(client);
    assert_eq!(receive_some(io, &server), b"last words");
    assert_eq!(receive_some(io, &server), b"");
    assert_eq!(receive_some(io, &server), b"");
}

pub(crate) fn shutdown_ends_what_waits_on_both_sides(io: &mut impl Io, _: &Path) {
    let (_listener, server, client) = connected(io);
    receive(io, &server, BLOCK);
    receive(io, &client, BLOCK);
    expect_quiet(io);
    io.shutdown(&server);
    for completion in collect(io, 2) {
        assert_eq!(completion.token, RECV);
        // The end, or an error that says as much.
        assert!(!matches!(completion.result, Ok(Outcome::Received { bytes, .. }) if bytes > 0));
    }
    let result = run(io, Op::Send { socket: server, gather: owned(b"too late") });
    assert!(result.is_err(), "{result:?}");
}

pub(crate) fn connecting_to_nobody_fails(io: &mut impl Io, _: &Path) {
    // A port that was just listened on and is not any more.
    let (listener, address) = io.listen(any_port()).expect("a free port");
    drop(listener);
    expect_quiet(io);
    let error = run(io, Op::Connect { address }).expect_err("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

pub(crate) fn a_cancelled_receive_completes_once(io: &mut impl Io, _: &Path) {
    // Cancelled when it waits, and cancelled before it was ever handed over; the connection goes on.
    let (_listener, server, client) = connected(io);
    for wait in [true, false] {
        receive(io, &server, BLOCK);
        if wait {
            expect_quiet(io);
        }
        io.cancel(RECV);
        io.cancel(RECV);
        let completion = collect(io, 1).pop().expect("counted");
        assert_eq!((completion.token, completion.more), (RECV, false));
        let error = completion.result.expect_err("nothing was there to receive");
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        expect_quiet(io);
    }
    assert_eq!(transfer(io, &client, &server, owned(b"still there")), b"still there");
}

pub(crate) fn a_cancelled_accept_completes_for_the_last_time(io: &mut impl Io, _: &Path) {
    let (_listener, _server, _client) = connected(io);
    io.cancel(ACCEPT);
    let completion = collect(io, 1).pop().expect("counted");
    assert_eq!((completion.token, completion.more), (ACCEPT, false));
    assert_eq!(completion.result.expect_err("no connection").raw_os_error(), Some(libc::ECANCELED));
    expect_quiet(io);
}

pub(crate) fn cancelling_nothing_does_nothing(io: &mut impl Io, base: &Path) {
    io.cancel(Token(99));
    expect_quiet(io);
    let file = create(io, &base.join("file"), false);
    write(io, &file, 0, b"x", false);
    io.cancel(Token(7));
    expect_quiet(io);
}

pub(crate) fn a_stuck_send_that_is_cancelled_tells_what_was_sent(io: &mut impl Io, _: &Path) {
    // Nobody receives 32 MiB; after the cancellation exactly the reported bytes can be received.
    let (_listener, server, client) = connected(io);
    let bytes = pattern(MIB, 11);
    let mut gather = Gather::new();
    for _ in 0..32 {
        gather.push(Piece::Shared(slice(io, &bytes)));
    }
    io.submit(SEND, Op::Send { socket: client.clone(), gather });
    expect_quiet(io);
    io.cancel(SEND);
    let sent = match collect(io, 1).pop().expect("counted").result {
        Ok(Outcome::Sent { gather, bytes }) => {
            assert_eq!(gather.remaining_bytes(), 32 * MIB - bytes);
            bytes
        }
        other => panic!("{other:?}"),
    };
    assert!(sent > 0 && sent < 32 * MIB, "{sent}");
    drop(client);
    let mut received = 0;
    loop {
        let part = receive_some(io, &server);
        if part.is_empty() {
            break;
        }
        for (index, byte) in part.iter().enumerate() {
            assert!(*byte == bytes[(received + index) % MIB], "byte {} differs", received + index);
        }
        received += part.len();
    }
    assert_eq!(received, sent);
}

/// A file of `length` bytes, opened for reading through the page cache.
fn file_to_send(io: &mut impl Io, base: &Path, contents: &[u8]) -> File {
    let path = base.join("to-send");
    let file = create(io, &path, false);
    for (index, part) in contents.chunks(MIB).enumerate() {
        write(io, &file, (index * MIB) as u64, part, false);
    }
    open(io, &path, OpenOptions::default())
}

/// Sends `length` bytes from `offset`, asking again where a send stops, while the other end receives.
fn transfer_file(io: &mut impl Io, file: &File, from: &Socket, to: &Socket, offset: u64, length: usize) -> Vec<u8> {
    let send = |io: &mut _, sent: usize| {
        let op = Op::SendFile {
            socket: from.clone(),
            file: file.clone(),
            offset: offset + sent as u64,
            length_bytes: (length - sent) as u32,
        };
        Io::submit(io, SEND_FILE, op);
    };
    let (mut sent, mut received) = (0, Vec::new());
    send(io, 0);
    receive(io, to, 256 * KIB);
    while sent < length || received.len() < length {
        for completion in collect(io, 1) {
            match (completion.token, completion.result) {
                (SEND_FILE, Ok(Outcome::SentFile { bytes })) => {
                    sent += bytes;
                    assert!(sent <= length);
                    if sent < length {
                        send(io, sent);
                    }
                }
                (RECV, Ok(Outcome::Received { buffer, filled: 0, bytes })) => {
                    received.extend_from_slice(&buffer[..bytes]);
                    if received.len() < length {
                        io.submit(RECV, Op::Recv { socket: to.clone(), buffer, filled: 0 });
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(received.len(), sent);
    received
}

pub(crate) fn a_file_is_sent_exactly(io: &mut impl Io, base: &Path) {
    // From and to places within a page, less than one, and more than a pipe or a socket buffer holds.
    let contents = pattern(12 * MIB, 12);
    let file = file_to_send(io, base, &contents);
    let (_listener, server, client) = connected(io);
    for (offset, length) in [(0, 10), (5, 3 * KIB), (100, 300 * KIB), (4095, 2), (1, 12 * MIB - 1), (0, 12 * MIB)] {
        let received = transfer_file(io, &file, &client, &server, offset as u64, length);
        assert!(received == contents[offset..offset + length], "{length} bytes from {offset}");
    }
}

pub(crate) fn a_file_send_stops_at_the_end_of_the_file(io: &mut impl Io, base: &Path) {
    let file = file_to_send(io, base, &pattern(10_000, 13));
    let (_listener, server, client) = connected(io);
    for (offset, expected) in [(0, 10_000), (9_999, 1), (10_000, 0), (20_000, 0)] {
        let mut sent = 0;
        loop {
            let op = Op::SendFile {
                socket: client.clone(),
                file: file.clone(),
                offset: offset + sent as u64,
                length_bytes: 50_000,
            };
            match run(io, op) {
                Ok(Outcome::SentFile { bytes }) => sent += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sent, expected);
    }
    let mut received = Vec::new();
    while received.len() < 10_001 {
        received.extend(receive_some(io, &server));
    }
    assert_eq!(received[..10_000], pattern(10_000, 13));
}

pub(crate) fn a_file_send_to_a_stopped_receiver_gives_up_and_resumes(io: &mut impl Io, base: &Path) {
    // Asks until nothing goes out any more, then receives: exactly the reported bytes, and the rest follows.
    let contents = pattern(24 * MIB, 14);
    let file = file_to_send(io, base, &contents);
    let (_listener, server, client) = connected(io);
    let mut sent = 0;
    loop {
        let op = Op::SendFile {
            socket: client.clone(),
            file: file.clone(),
            offset: sent as u64,
            length_bytes: (contents.len() - sent) as u32,
        };
        match run(io, op) {
            Ok(Outcome::SentFile { bytes: 0 }) => break,
            Ok(Outcome::SentFile { bytes }) => sent += bytes,
            other => panic!("{other:?}"),
        }
    }
    assert!(sent > 0 && sent < contents.len(), "{sent}");
    let mut received = Vec::new();
    while received.len() < sent {
        received.extend(receive_some(io, &server));
    }
    assert_eq!(received.len(), sent);
    received.extend(transfer_file(io, &file, &client, &server, sent as u64, contents.len() - sent));
    assert!(received == contents);
}

// Time and waking.

pub(crate) fn a_wake_ends_a_poll(io: &mut impl Io, _: &Path) {
    // From another thread, some time after the poll began; without it the poll would wait for ever.
    let waker = io.waker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        waker.wake();
    });
    let mut completions = Vec::new();
    io.poll(None, &mut completions);
    assert!(completions.is_empty());
    thread.join().expect("it only wakes");
}

pub(crate) fn a_wake_before_the_poll_is_not_lost(io: &mut impl Io, _: &Path) {
    for _ in 0..3 {
        io.waker().wake_by_ref();
        io.waker().wake();
        let mut completions = Vec::new();
        io.poll(None, &mut completions);
        assert!(completions.is_empty());
    }
    // Both calls were one notification: the next poll waits again.
    let before = io.now().monotonic;
    io.poll(Some(before + Duration::from_millis(20)), &mut Vec::new());
    assert!(io.now().monotonic.since(before) >= Duration::from_millis(20));
}

pub(crate) fn a_poll_ends_at_its_deadline(io: &mut impl Io, _: &Path) {
    let (_listener, server, _client) = connected(io);
    receive(io, &server, BLOCK);
    let before = io.now().monotonic;
    let mut completions = Vec::new();
    io.poll(Some(before + Duration::from_millis(50)), &mut completions);
    let passed = io.now().monotonic.since(before);
    assert!(completions.is_empty());
    assert!(passed >= Duration::from_millis(50) && passed < Duration::from_secs(5), "{passed:?}");
}

pub(crate) fn a_past_deadline_does_not_wait(io: &mut impl Io, base: &Path) {
    // Nothing is there, and nothing is waited for; but what was submitted is handed over.
    let now = io.now().monotonic;
    let mut completions = Vec::new();
    for _ in 0..10 {
        io.poll(Some(now), &mut completions);
    }
    assert!(completions.is_empty());
    assert!(io.now().monotonic.since(now) < Duration::from_secs(5));
    io.submit(Token(1), Op::CreateDir { path: base.join("directory") });
    io.poll(Some(now), &mut completions);
    if completions.is_empty() {
        completions = collect(io, 1);
    }
    assert_eq!(completions.len(), 1);
}

pub(crate) fn the_clock_does_not_go_back(io: &mut impl Io, _: &Path) {
    let mut last = io.now();
    for _ in 0..100 {
        let now = io.now();
        assert!(now.monotonic >= last.monotonic);
        last = now;
    }
    assert!(last.wall.0 > 0);
}

pub(crate) fn a_handle_closes_with_its_last_clone(io: &mut impl Io, _: &Path) {
    // The peer hears of the end when the last clone is gone, and not before.
    let (_listener, server, client) = connected(io);
    let clone = client.clone();
    assert!(client.is_shared() && client.is_same(&clone) && !client.is_same(&server));
    drop(client);
    receive(io, &server, BLOCK);
    expect_quiet(io);
    assert!(!clone.is_shared());
    drop(clone);
    let completion = collect(io, 1).pop().expect("counted");
    assert!(matches!(completion.result, Ok(Outcome::Received { bytes: 0, .. })), "{completion:?}");
}

pub(crate) fn an_operation_keeps_its_buffer_until_it_is_done(io: &mut impl Io, _: &Path) {
    // The pool counts the buffer as used while the receive waits, and no longer.
    let (_listener, server, _client) = connected(io);
    let before = io.pool().used_bytes();
    receive(io, &server, BLOCK);
    expect_quiet(io);
    assert!(io.pool().used_bytes() > before);
    io.cancel(RECV);
    collect(io, 1);
    assert_eq!(io.pool().used_bytes(), before);
}
