//! Connections as clients meet them.

use super::*;

#[test]
fn bytes_arrive_whole_and_in_order_however_they_are_split() {
    // Echo: random bytes through a receive loop and back, byte by byte in the worst case.
    for (seed, segment_bytes_max) in [(1, 1), (2, 100), (3, 64 * KIB)] {
        let options = WorldOptions { segment_bytes_max, window_bytes: 512, ..WorldOptions::harsh() };
        let (world, mut io) = world(seed, options);
        let (socket, client) = connected(&mut io);
        let mut sent = vec![0; 3000];
        Rng::new(seed).fill(&mut sent);
        client.send(&sent);
        let mut echoed = Vec::new();
        while echoed.len() < sent.len() {
            let bytes = receive(&mut io, &socket).expect("no faults");
            io.submit(Token(5), Op::Send { socket: socket.clone(), gather: gather(&bytes) });
            let mut completions = Vec::new();
            while completions.is_empty() {
                io.poll(Some(world.now().monotonic + Duration::from_micros(50)), &mut completions);
                echoed.extend(client.recv_available());
            }
            world.advance(Duration::from_millis(10));
            echoed.extend(client.recv_available());
        }
        assert_eq!(echoed, sent);
    }
}

#[test]
fn a_client_that_never_reads_holds_its_send_back_until_it_is_cancelled() {
    let (world, mut io) = world(1, WorldOptions { window_bytes: 1000, ..WorldOptions::default() });
    let (socket, client) = connected(&mut io);
    io.submit(Token(5), Op::Send { socket: socket.clone(), gather: gather(&[7; 5000]) });
    let mut completions = Vec::new();
    io.poll(Some(world.now().monotonic + Duration::from_secs(60)), &mut completions);
    assert!(completions.is_empty());
    assert_eq!(client.available_bytes(), 1000);
    assert_eq!(client.recv_at_most(300).len(), 300);
    io.poll(Some(world.now().monotonic + Duration::from_secs(60)), &mut completions);
    assert_eq!(client.available_bytes(), 1000);
    io.cancel(Token(5));
    match &poll_until(&mut io, 1)[0].result {
        Ok(Outcome::Sent { gather, bytes: 1300 }) => assert_eq!(gather.remaining_bytes(), 3700),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ends_and_resets_reach_the_other_side() {
    let (world, mut io) = world(1, WorldOptions::default());
    let (socket, client) = connected(&mut io);
    client.send(b"bye");
    client.close();
    let mut received = Vec::new();
    loop {
        match receive(&mut io, &socket).expect("an orderly end") {
            bytes if bytes.is_empty() => break,
            bytes => received.extend(bytes),
        }
    }
    assert_eq!(received, b"bye");
    drop(socket);

    let (socket, client) = connected(&mut io);
    client.reset();
    assert_eq!(errno(receive(&mut io, &socket)), libc::ECONNRESET);
    let send = Op::Send { socket: socket.clone(), gather: gather(b"x") };
    assert_eq!(errno(io.run(send)), libc::ECONNRESET);

    let (socket, client) = connected(&mut io);
    io.submit(Token(6), Op::Recv { socket: socket.clone(), buffer: io.pool().take(1).expect("budget"), filled: 0 });
    io.poll(Some(Monotonic(0)), &mut Vec::new());
    io.shutdown(&socket);
    assert!(matches!(poll_until(&mut io, 1)[0].result, Ok(Outcome::Received { bytes: 0, .. })));
    world.advance(Duration::from_secs(1));
    assert!(client.is_ended() && !client.is_reset());
    drop(socket);

    let (socket, client) = connected(&mut io);
    client.send(b"never read");
    world.advance(Duration::from_secs(1));
    drop(socket);
    io.poll(Some(Monotonic(0)), &mut Vec::new());
    world.advance(Duration::from_secs(1));
    assert!(client.is_reset());
}

#[test]
fn a_file_is_sent_in_parts_and_its_wait_for_room_is_bounded() {
    let (world, mut io) = world(1, WorldOptions { window_bytes: 5000, ..WorldOptions::default() });
    let bytes: Vec<u8> = (0..12_000u32).map(|at| (at % 251) as u8).collect();
    world.write_file("/data/a", &bytes).expect("empty");
    let file = open(&mut io, "/data/a", CACHED);
    let (socket, client) = connected(&mut io);
    let mut send = |offset: usize| {
        let (socket, file) = (socket.clone(), file.clone());
        match io.run(Op::SendFile { socket, file, offset: offset as u64, length_bytes: 20_000 }) {
            Ok(Outcome::SentFile { bytes }) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
            other => panic!("{other:?}"),
        }
    };
    let (mut sent, mut received) = (0, Vec::new());
    loop {
        match send(sent) {
            None => break,
            Some(0) => {
                world.advance(Duration::from_millis(10));
                received.extend(client.recv_available());
            }
            Some(count) => sent += count,
        }
    }
    world.advance(Duration::from_millis(10));
    received.extend(client.recv_available());
    assert!(received == bytes);
}

#[test]
fn a_power_cut_resets_the_clients_and_a_kill_closes_them_and_both_free_the_port() {
    for kill in [true, false] {
        let (world, mut io) = world(1, WorldOptions::default());
        let (_socket, client) = connected(&mut io);
        let (_listener, address) = io.listen("127.0.0.1:9092".parse().expect("valid")).expect("free");
        if kill {
            world.kill_process()
        } else {
            world.power_cut()
        }
        world.advance(Duration::from_secs(1));
        assert!(client.is_ended());
        assert_eq!(client.is_reset(), !kill);
        assert_eq!(errno(world.connect(address).map(|_| ())), libc::ECONNREFUSED);
        let mut io = world.io("shard 0", MIB);
        io.listen(address).expect("free again");
    }
}

#[test]
fn an_injected_reset_is_one_for_both_sides() {
    let (world, mut io) = world(1, WorldOptions::default());
    let (socket, client) = connected(&mut io);
    world.inject(Rule::new(OpKind::Send, Fault::Error(libc::ECONNRESET)).skip(1).times(1));
    io.run(Op::Send { socket: socket.clone(), gather: gather(b"first") }).expect("not this one");
    assert_eq!(errno(io.run(Op::Send { socket: socket.clone(), gather: gather(b"second") })), libc::ECONNRESET);
    assert_eq!(errno(receive(&mut io, &socket)), libc::ECONNRESET);
    world.advance(Duration::from_secs(1));
    assert!(client.is_reset());
    assert_eq!(client.recv_available(), b"first");
}

#[test]
fn what_a_killed_process_had_sent_still_arrives() {
    let (world, mut io) = world(1, WorldOptions::default());
    let (socket, client) = connected(&mut io);
    io.run(Op::Send { socket, gather: gather(b"acknowledged") }).expect("there is room");
    world.kill_process();
    world.advance(Duration::from_secs(1));
    assert_eq!(client.recv_available(), b"acknowledged");
    assert!(client.is_ended());
}

#[test]
fn an_accept_ends_when_it_is_cancelled_and_connections_wait_for_the_next() {
    let (world, mut io) = world(1, WorldOptions::default());
    let (listener, address) = io.listen("0.0.0.0:9092".parse().expect("valid")).expect("free");
    io.submit(Token(1), Op::Accept { listener: listener.clone() });
    io.cancel(Token(1));
    let completion = poll_until(&mut io, 1).remove(0);
    assert!(!completion.more);
    assert_eq!(errno(completion.result), libc::ECANCELED);
    let client = world.connect(([127, 0, 0, 1], address.port()).into()).expect("it listens");
    world.advance(Duration::from_secs(1));
    io.submit(Token(2), Op::Accept { listener });
    let completion = poll_until(&mut io, 1).remove(0);
    assert!(completion.more && completion.token == Token(2));
    let Ok(Outcome::Accepted { socket, peer, .. }) = completion.result else { panic!() };
    assert_eq!(Some(peer), client.address());
    client.send(b"x");
    assert_eq!(receive(&mut io, &socket).expect("no faults"), b"x");
}
