//! Several shards in one world, blocking and stepped.

use super::*;

#[test]
fn two_shards_of_one_world_talk_and_wake_each_other() {
    let (world, mut a) = world(1, WorldOptions::default());
    let mut b = world.io("shard 1", MIB);
    let (listener, address) = b.listen("127.0.0.1:9092".parse().expect("valid")).expect("free");
    assert_eq!(errno(a.listen(address)), libc::EADDRINUSE);
    b.submit(Token(1), Op::Accept { listener });
    b.poll(Some(Monotonic(0)), &mut Vec::new());
    let Ok(Outcome::Connected(from_a)) = a.run(Op::Connect { address }) else { panic!("it listens") };
    let Ok(Outcome::Accepted { socket: from_b, .. }) = poll_until(&mut b, 1).remove(0).result else { panic!() };
    a.run(Op::Send { socket: from_a.clone(), gather: gather(b"hello") }).expect("there is room");
    let mut received = Vec::new();
    while received.len() < 5 {
        received.extend(receive(&mut b, &from_b).expect("no faults"));
    }
    assert_eq!(received, b"hello");

    let before = world.now().monotonic;
    b.waker().wake();
    assert!(b.is_ready() && !a.is_ready());
    b.poll(None, &mut Vec::new());
    assert!(world.now().monotonic - before < Duration::from_micros(10));
    assert_eq!(errno(a.run(Op::Connect { address: "127.0.0.1:1".parse().expect("valid") })), libc::ECONNREFUSED);
}

#[test]
fn a_wake_up_from_another_thread_ends_a_poll_in_a_world_where_nothing_is_to_come() {
    let (_, mut io) = world(1, WorldOptions::default());
    let waker = io.waker();
    let thread = std::thread::spawn(move || waker.wake());
    io.poll(None, &mut Vec::new());
    thread.join().expect("it does not panic");
}

#[test]
#[should_panic(expected = "waits for ever")]
fn waiting_for_nothing_is_a_deadlock() {
    let (_, mut io) = world(1, WorldOptions::default());
    io.poll(None, &mut Vec::new());
}

/// A shard that passes a counter on to the next one.
struct Runner {
    io: SimIo,
    socket: Option<Socket>,
    next: std::net::SocketAddr,
    seen: Vec<u8>,
    completions: Vec<Completion>,
}

impl Runner {
    fn turn(&mut self) {
        self.io.poll(Some(Monotonic(0)), &mut self.completions);
        for completion in std::mem::take(&mut self.completions) {
            match completion.result.expect("no faults") {
                Outcome::Accepted { socket, .. } => self.receive(socket),
                Outcome::Connected(socket) => self.socket = Some(socket),
                Outcome::Received { buffer, bytes, .. } => {
                    self.seen.extend(&buffer[..bytes]);
                    let next = gather(&[buffer[bytes - 1] + 1]);
                    self.io
                        .submit(Token(2), Op::Send { socket: self.socket.clone().expect("connected"), gather: next });
                }
                _ => {}
            }
        }
    }

    fn receive(&mut self, socket: Socket) {
        for _ in 0..50 {
            let buffer = self.io.pool().take(1).expect("budget");
            self.io.submit(Token(1), Op::Recv { socket: socket.clone(), buffer, filled: 0 });
        }
    }
}

/// The loop of the module's documentation.
fn ring_of_shards(seed: u64) -> (Vec<Vec<u8>>, u64) {
    let world = World::new(seed, WorldOptions::default());
    let addresses: Vec<std::net::SocketAddr> = (9092..9095).map(|port| ([127, 0, 0, 1], port).into()).collect();
    let mut shards: Vec<Runner> = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let mut io = world.io(&format!("shard {index}"), MIB);
        let (listener, _) = io.listen(*address).expect("free");
        io.submit(Token(0), Op::Accept { listener });
        let next = addresses[(index + 1) % addresses.len()];
        shards.push(Runner { io, socket: None, next, seen: Vec::new(), completions: Vec::new() });
    }
    for shard in &mut shards {
        let address = shard.next;
        shard.io.submit(Token(3), Op::Connect { address });
    }
    let mut is_started = false;
    while shards.iter().map(|shard| shard.seen.len()).sum::<usize>() < 30 {
        for shard in &mut shards {
            shard.turn();
        }
        if !is_started && let Some(socket) = shards.iter().all(|s| s.socket.is_some()).then(|| shards[0].socket.clone())
        {
            is_started = true;
            shards[0].io.submit(Token(2), Op::Send { socket: socket.expect("all have one"), gather: gather(&[0]) });
        }
        if !shards.iter().any(|shard| shard.io.is_ready()) {
            assert!(world.advance_to_next_event(), "deadlock");
        }
    }
    (shards.iter().map(|shard| shard.seen.clone()).collect(), world.trace_hash())
}

#[test]
fn stepped_shards_share_one_clock_and_replay_from_one_seed() {
    // A number goes round three shards, one higher at each.
    let (seen, hash) = ring_of_shards(7);
    assert_eq!(seen[1], [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]);
    assert_eq!(seen[0], [2, 5, 8, 11, 14, 17, 20, 23, 26, 29]);
    assert_eq!(ring_of_shards(7), (seen, hash));
    assert_ne!(ring_of_shards(8).1, hash);
}
