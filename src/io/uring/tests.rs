//! The ring keeps every promise of `Io` whatever its options are, and promises of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use super::options::SubmissionPolling;
use super::{DataLock, LockError, Ring, RingOptions};
use crate::base::units::{KIB, MIB};
use crate::io::{Completion, File, Gather, Io, Op, OpenOptions, Outcome, Piece, Socket, Token};

fn with_options(options: RingOptions, test: impl FnOnce(&mut Ring, &Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut ring = Ring::new(options, 256 * MIB, None).expect("a ring");
    test(&mut ring, directory.path());
    // Whatever a test leaves under way is ended, and no buffer is lost.
    let pool = ring.pool().clone();
    drop(ring);
    assert_eq!(pool.used_bytes(), 0);
}

macro_rules! conformance_with {
    ($name:ident, $options:expr) => {
        mod $name {
            use super::*;

            fn with_world(test: impl FnOnce(&mut Ring, &Path)) {
                with_options($options, test);
            }
            crate::io::conformance::conformance_suite!(with_world);
        }
    };
}

conformance_with!(default_options, RingOptions::default());
conformance_with!(
    no_flags_and_tiny_queues,
    RingOptions {
        sq_entries: 2,
        cq_entries: 4,
        single_issuer: false,
        defer_taskrun: false,
        coop_taskrun: false,
        worker_bounded_max: 1,
        worker_unbounded_max: 1,
        ..RingOptions::default()
    }
);
conformance_with!(tiny_deferred_queues, RingOptions { sq_entries: 2, cq_entries: 4, ..RingOptions::default() });
conformance_with!(
    everything_unusual,
    RingOptions {
        sqpoll: Some(SubmissionPolling { idle_ms: 1, cpu: None }),
        fixed_files: true,
        spin_us: 50,
        worker_cpus: Some(vec![0]),
        ..RingOptions::default()
    }
);
conformance_with!(registered_buffers, RingOptions { registered_buffer_bytes: 4 * MIB, ..RingOptions::default() });
conformance_with!(fixed_files, RingOptions { fixed_files: true, spin_us: 20, ..RingOptions::default() });

#[test]
fn zero_copy_sends_keep_the_promises_of_sends() {
    // All of them but one: cancelling a stuck send resets the connection, so what was sent cannot be received.
    use crate::io::conformance::*;
    let zero_copy = || RingOptions { send_zero_copy_min_bytes: Some(1), ..RingOptions::default() };
    with_options(zero_copy(), many_pieces_are_one_send);
    with_options(zero_copy(), a_large_transfer_arrives_whole);
    with_options(zero_copy(), bytes_arrive_in_the_order_of_sending);
    with_options(zero_copy(), a_dropped_socket_ends_the_peers_side);
    with_options(zero_copy(), shutdown_ends_what_waits_on_both_sides);
}

#[test]
fn a_stuck_zero_copy_send_ends_with_cancel_shutdown_or_the_ring() {
    // Nobody receives, so the kernel goes on reading our memory until the connection is reset.
    for how in 0..3 {
        let options = RingOptions { send_zero_copy_min_bytes: Some(1), ..RingOptions::default() };
        let mut ring = Ring::new(options, 64 * MIB, None).expect("a ring");
        let (server, _client) = connection(&mut ring);
        let mut gather = Gather::new();
        gather.push(Piece::Owned(vec![1; 32 * MIB]));
        ring.submit(Token(1), Op::Send { socket: server.clone(), gather });
        let mut completions = Vec::new();
        let deadline = ring.now().monotonic + Duration::from_millis(30);
        ring.poll(Some(deadline), &mut completions);
        assert!(completions.is_empty(), "{completions:?}");
        match how {
            0 => ring.cancel(Token(1)),
            1 => ring.shutdown(&server),
            _ => return drop(ring),
        }
        let deadline = ring.now().monotonic + Duration::from_secs(10);
        while completions.is_empty() {
            ring.poll(Some(deadline), &mut completions);
            assert!(ring.now().monotonic < deadline, "case {how} is stuck");
        }
        assert_eq!(completions.len(), 1);
    }
}

fn ring() -> Ring {
    Ring::new(RingOptions::default(), 64 * MIB, None).expect("a ring")
}

/// Both ends of a connection; the listener is closed again.
fn connection(ring: &mut Ring) -> (Socket, Socket) {
    let (listener, address) = ring.listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    ring.submit(Token(1), Op::Accept { listener });
    ring.submit(Token(2), Op::Connect { address });
    let (mut server, mut client, mut accept_ended) = (None, None, false);
    let mut completions = Vec::new();
    while !accept_ended {
        ring.poll(None, &mut completions);
        for completion in completions.drain(..) {
            match completion.result {
                Ok(Outcome::Accepted { socket, .. }) => server = Some(socket),
                Ok(Outcome::Connected(socket)) => client = Some(socket),
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => accept_ended = true,
                other => panic!("{other:?}"),
            }
        }
        if server.is_some() && client.is_some() {
            ring.cancel(Token(1));
        }
    }
    (server.expect("accepted"), client.expect("connected"))
}

fn file_of(ring: &mut Ring, directory: &Path, size_bytes: usize) -> File {
    let path = directory.join("file");
    std::fs::write(&path, (0..size_bytes).map(|i| (i / 7) as u8).collect::<Vec<_>>()).expect("there is room");
    match ring.run(Op::Open { path, options: OpenOptions::default() }) {
        Ok(Outcome::Opened(file)) => file,
        other => panic!("{other:?}"),
    }
}

fn file_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has it");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raising to the hard limit is allowed");
    hard as usize
}

#[test]
fn stopped_receivers_do_not_hold_up_a_live_one() {
    // A thousand connections, or as many as there are descriptors for, whose receivers never read, and one that
    // does: it must get its 64 MiB while all the others are asked for again and again.
    let stopped_count = ((file_limit().saturating_sub(200)) / 4).min(1000);
    let directory = tempfile::tempdir().expect("a directory");
    let mut ring = Ring::new(RingOptions::default(), 64 * MIB, None).expect("a ring");
    let file = file_of(&mut ring, directory.path(), 8 * MIB);
    let stopped: Vec<_> = (0..stopped_count).map(|_| connection(&mut ring)).collect();
    let (live_server, live_client) = connection(&mut ring);
    const LIVE: Token = Token(1_000_000);
    const RECV: Token = Token(1_000_001);
    const LENGTH: u32 = 8 * MIB as u32;
    const TOTAL: usize = 64 * MIB;
    let send = |ring: &mut Ring, token: Token, socket: &Socket, offset: u64| {
        let (socket, file) = (socket.clone(), file.clone());
        ring.submit(token, Op::SendFile { socket, file, offset, length_bytes: LENGTH - offset as u32 });
    };
    for (index, (server, _)) in stopped.iter().enumerate() {
        send(&mut ring, Token(index as u64), server, 0);
    }
    send(&mut ring, LIVE, &live_server, 0);
    let buffer = ring.pool().take(256 * KIB).expect("within the budget");
    ring.submit(RECV, Op::Recv { socket: live_client.clone(), buffer, filled: 0 });
    let (mut live_sent, mut received, mut stopped_tries) = (0, 0, 0);
    let start = Instant::now();
    let mut completions = Vec::new();
    while received < TOTAL {
        assert!(start.elapsed() < Duration::from_secs(60), "the live one got {received} bytes of {TOTAL}");
        ring.poll(None, &mut completions);
        for Completion { token, result, .. } in completions.drain(..) {
            match (token, result) {
                (LIVE, Ok(Outcome::SentFile { bytes })) => {
                    live_sent += bytes;
                    if live_sent < TOTAL {
                        send(&mut ring, LIVE, &live_server, (live_sent % LENGTH as usize) as u64);
                    }
                }
                (RECV, Ok(Outcome::Received { buffer, bytes, .. })) => {
                    received += bytes;
                    ring.submit(RECV, Op::Recv { socket: live_client.clone(), buffer, filled: 0 });
                }
                (Token(index), Ok(Outcome::SentFile { .. })) => {
                    stopped_tries += 1;
                    send(&mut ring, token, &stopped[index as usize].0, 0);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    println!(
        "{stopped_count} stopped receivers, asked {stopped_tries} times; 64 MiB to the live one in {:?}; {:?}",
        start.elapsed(),
        ring.counters()
    );
}

#[test]
fn a_splice_into_a_full_socket_ends_in_time() {
    // What the estimate of a socket's room should prevent, brought about on purpose: a blocking splice of more than
    // fits returns when the send timeout has passed, with what it moved or EAGAIN.
    let mut ring = ring();
    let directory = tempfile::tempdir().expect("a directory");
    let file = file_of(&mut ring, directory.path(), 16 * MIB);
    let (server, _client) = connection(&mut ring);
    // Sets the timeout, fills the socket.
    loop {
        let op = Op::SendFile { socket: server.clone(), file: file.clone(), offset: 0, length_bytes: 16 * MIB as u32 };
        match ring.run(op) {
            Ok(Outcome::SentFile { bytes: 0 }) => break,
            Ok(Outcome::SentFile { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut pipe = [0; 2];
    // SAFETY: the array holds the two descriptors; the process keeps them to its end.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let bytes = [0u8; 4096];
    let start = Instant::now();
    let mut moved = 0;
    loop {
        // SAFETY: the bytes outlive the calls, and the descriptors are open.
        let result = unsafe {
            assert_eq!(libc::write(pipe[1], bytes.as_ptr().cast(), bytes.len()), bytes.len() as isize);
            let socket = ring.table.fd(server.index());
            libc::splice(pipe[0], std::ptr::null_mut(), socket, std::ptr::null_mut(), bytes.len(), 0)
        };
        if result < 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
            break;
        }
        moved += result;
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{moved} bytes in {:?}", start.elapsed());
}

#[test]
fn a_dropped_ring_waits_for_its_writes_and_gives_everything_back() {
    // Writes, a waiting receive, accept and file send are under way; after the drop the pool is whole and every
    // write that completed is in the file.
    let directory = tempfile::tempdir().expect("a directory");
    let mut ring = ring();
    let pool = ring.pool().clone();
    let (listener, _) = ring.listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let (server, client) = connection(&mut ring);
    let options = OpenOptions { write: true, create: true, create_new: true, direct: true };
    let Ok(Outcome::Opened(file)) = ring.run(Op::Open { path: directory.path().join("log"), options }) else {
        panic!("it is a new file");
    };
    let buffer = pool.take_append(MIB).expect("within the budget");
    buffer.append(&vec![7; MIB]);
    for index in 0..300u64 {
        let slice = buffer.slice(0..MIB);
        ring.submit(Token(index), Op::Write { file: file.clone(), offset: index % 8 * MIB as u64, slice, sync: true });
    }
    ring.submit(Token(1000), Op::Accept { listener });
    let receive = Op::Recv { socket: server.clone(), buffer: pool.take(KIB).expect("within the budget"), filled: 0 };
    ring.submit(Token(1001), receive);
    let now = ring.now().monotonic;
    ring.poll(Some(now), &mut Vec::new());
    drop((buffer, client));
    assert!(pool.used_bytes() > 0);
    drop(ring);
    assert_eq!(pool.used_bytes(), 0);
    // Handles that outlive their ring are harmless.
    drop((server, file));
}

#[test]
fn the_data_lock_lives_as_long_as_a_ring_that_knows_it() {
    // The lock itself is dropped first; the ring's registered file still holds it.
    for fixed_files in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let lock = DataLock::acquire(directory.path()).expect("nobody has it");
        let options = RingOptions { fixed_files, ..RingOptions::default() };
        let ring = Ring::new(options, MIB, Some(&lock)).expect("a ring");
        assert!(ring.report().holds_data_lock);
        drop(lock);
        assert!(matches!(DataLock::acquire(directory.path()), Err(LockError::Held { .. })));
        drop(ring);
        DataLock::acquire_within(directory.path(), Duration::from_secs(5)).expect("the ring is gone");
    }
}

#[test]
fn eight_rings_live_within_a_memlock_limit_of_64_kib() {
    // With the options that fit; where no limit applies to the tests' user, as many rings just exist.
    let options = RingOptions::default().within_memlock(8, Some(64 * KIB as u64));
    let rings: Vec<_> = (0..8).map(|_| Ring::new(options.clone(), MIB, None).expect("a ring")).collect();
    for ring in &rings {
        assert!(ring.report().fallbacks.is_empty(), "{}", ring.report());
    }
}

#[test]
fn a_turn_with_nothing_to_do_costs_no_system_call() {
    // Polls that must not wait, on an idle ring with a receive waiting, and wakes of an awake shard.
    let mut ring = ring();
    let (server, _client) = connection(&mut ring);
    let buffer = ring.pool().take(KIB).expect("within the budget");
    ring.submit(Token(1), Op::Recv { socket: server, buffer, filled: 0 });
    let waker = ring.waker();
    let mut completions = Vec::new();
    let now = ring.now().monotonic;
    ring.poll(Some(now), &mut completions);
    let before = ring.counters().enter_count;
    for _ in 0..100 {
        waker.wake_by_ref();
        ring.poll(None, &mut completions);
        ring.poll(Some(now), &mut completions);
    }
    assert!(completions.is_empty());
    assert_eq!(ring.counters().enter_count, before);
}

#[test]
fn no_wake_is_lost_in_a_race() {
    // Two threads hand tickets over as fast as they can; a lost wake would stop the game.
    const COUNT: u32 = 20_000;
    let mut ring = ring();
    let waker = ring.waker();
    let tickets = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let thread = {
        let (tickets, seen) = (tickets.clone(), seen.clone());
        std::thread::spawn(move || {
            use std::sync::atomic::Ordering::SeqCst;
            for ticket in 1..=COUNT {
                tickets.store(ticket, SeqCst);
                waker.wake_by_ref();
                while seen.load(SeqCst) != ticket {
                    std::thread::yield_now();
                }
            }
        })
    };
    use std::sync::atomic::Ordering::SeqCst;
    let mut completions = Vec::new();
    while seen.load(SeqCst) < COUNT {
        let deadline = ring.now().monotonic + Duration::from_secs(10);
        ring.poll(Some(deadline), &mut completions);
        assert!(ring.now().monotonic < deadline, "a wake was lost after {}", seen.load(SeqCst));
        seen.store(tickets.load(SeqCst), SeqCst);
    }
    thread.join().expect("it only wakes");
    // A waker may outlive its ring.
    let waker = ring.waker();
    drop(ring);
    waker.wake();
}

#[test]
fn operations_of_one_token_are_cancelled_together() {
    // Some are in the kernel, some not handed over yet, one waits for room in a socket.
    let mut ring = ring();
    let directory = tempfile::tempdir().expect("a directory");
    let file = file_of(&mut ring, directory.path(), MIB);
    let (server, client) = connection(&mut ring);
    // Fills the socket.
    let send = || Op::SendFile { socket: server.clone(), file: file.clone(), offset: 0, length_bytes: MIB as u32 };
    while !matches!(ring.run(send()), Ok(Outcome::SentFile { bytes: 0 })) {}
    const TOKEN: Token = Token(5);
    ring.submit(TOKEN, send());
    let receive = |ring: &mut Ring| {
        let buffer = ring.pool().take(KIB).expect("within the budget");
        ring.submit(TOKEN, Op::Recv { socket: server.clone(), buffer, filled: 0 });
    };
    receive(&mut ring);
    let mut completions = Vec::new();
    let now = ring.now().monotonic;
    ring.poll(Some(now), &mut completions);
    receive(&mut ring);
    ring.cancel(TOKEN);
    while completions.len() < 3 {
        let deadline = ring.now().monotonic + Duration::from_secs(10);
        ring.poll(Some(deadline), &mut completions);
        assert!(ring.now().monotonic < deadline, "{completions:?}");
    }
    for completion in completions {
        let error = completion.result.expect_err("none of them can have happened");
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    }
    drop(client);
}

#[test]
fn an_error_after_a_part_was_sent_shows_at_the_next_send() {
    // The peer closes with bytes unread while a send of more than the buffers hold is under way.
    let mut ring = ring();
    let (server, client) = connection(&mut ring);
    let mut gather = Gather::new();
    for _ in 0..16 {
        gather.push(Piece::Owned(vec![1; MIB]));
    }
    ring.submit(Token(1), Op::Send { socket: server.clone(), gather });
    let mut completions = Vec::new();
    let deadline = ring.now().monotonic + Duration::from_millis(50);
    ring.poll(Some(deadline), &mut completions);
    assert!(completions.is_empty(), "{completions:?}");
    drop(client);
    while completions.is_empty() {
        ring.poll(None, &mut completions);
    }
    match completions.pop().expect("one").result {
        Ok(Outcome::Sent { gather, bytes }) => {
            assert!(bytes > 0 && bytes < 16 * MIB);
            assert_eq!(gather.remaining_bytes(), 16 * MIB - bytes);
            let result = ring.run(Op::Send { socket: server, gather });
            assert!(result.is_err(), "{result:?}");
        }
        other => panic!("{other:?}"),
    }
}
