//! Random histories of connections: every operation completes once, and what is received is what was sent.

use super::*;

/// One end of a connection between two ios.
#[derive(Default)]
struct End {
    socket: Option<Socket>,
    /// Bytes that were reported as sent, and those of a send under way.
    sent: Vec<u8>,
    sending: Option<Vec<u8>>,
    receiving: bool,
    received: Vec<u8>,
    /// It was shut down, dropped or cancelled here: what the other side sends may be lost.
    is_broken: bool,
    has_ended: bool,
}

const SEND: u64 = 0;
const RECEIVE: u64 = 1;

/// Every operation in flight of one end; nothing is left over, nothing completes twice.
fn finish(end: &mut End, completion: Completion) {
    if completion.token.0 & 1 == SEND {
        let bytes = end.sending.take().expect("a send completes once");
        match completion.result {
            Ok(Outcome::Sent { gather, bytes: count }) => {
                assert_eq!(gather.remaining_bytes(), bytes.len() - count);
                end.sent.extend(&bytes[..count]);
                end.is_broken |= count < bytes.len();
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    } else {
        assert!(std::mem::take(&mut end.receiving), "a receive completes once");
        match completion.result {
            Ok(Outcome::Received { buffer, filled, bytes }) => {
                end.received.extend(&buffer[filled..filled + bytes]);
                end.has_ended |= bytes == 0;
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => end.has_ended |= error.raw_os_error() != Some(libc::ECANCELED),
        }
    }
}

fn history(seed: u64) {
    let world = World::new(seed, WorldOptions { segment_bytes_max: 50, window_bytes: 300, ..WorldOptions::harsh() });
    let mut rng = Rng::new(seed);
    let mut ios = [world.io("server", MIB), world.remote_io("client", MIB)];
    let (listener, address) = ios[0].listen("127.0.0.1:0".parse().expect("valid")).expect("free");
    ios[0].submit(Token(9), Op::Accept { listener });
    ios[0].poll(Some(Monotonic(0)), &mut Vec::new());
    let mut ends: [End; 2] = Default::default();
    let Ok(Outcome::Connected(socket)) = ios[1].run(Op::Connect { address }) else { panic!("it listens") };
    ends[1].socket = Some(socket);
    let Ok(Outcome::Accepted { socket, .. }) = poll_until(&mut ios[0], 1).remove(0).result else { panic!() };
    ends[0].socket = Some(socket);

    let breaks = rng.chance(1, 2);
    let steps = rng.in_range(10..200);
    for step in 0.. {
        for (io, end) in ios.iter_mut().zip(&mut ends) {
            let mut completions = Vec::new();
            io.poll(Some(Monotonic(0)), &mut completions);
            for completion in completions.into_iter().filter(|completion| completion.token != Token(9)) {
                finish(end, completion);
            }
            let Some(socket) = end.socket.clone() else { continue };
            if !end.receiving && !end.has_ended && (step >= steps || rng.chance(1, 3)) {
                end.receiving = true;
                let buffer = io.pool().take(1).expect("budget");
                let filled = buffer.len() - rng.in_range(1..200) as usize;
                io.submit(Token(RECEIVE), Op::Recv { socket: socket.clone(), buffer, filled });
            }
            if end.sending.is_none() && step < steps && rng.chance(1, 3) {
                let mut bytes = vec![0; rng.in_range(1..1000) as usize];
                rng.fill(&mut bytes);
                io.submit(Token(SEND), Op::Send { socket: socket.clone(), gather: gather(&bytes) });
                end.sending = Some(bytes);
            }
            drop(socket);
            if breaks && step < steps && rng.chance(1, 100) {
                end.is_broken = true;
                match rng.in_range(0..3) {
                    0 => io.cancel(Token(SEND)),
                    1 => io.cancel(Token(RECEIVE)),
                    _ => io.shutdown(end.socket.as_ref().expect("it is there")),
                }
            }
            // The orderly end: nothing under way, all was received.
            if step >= steps && end.sending.is_none() && !end.has_ended && rng.chance(1, 20) {
                io.shutdown(end.socket.as_ref().expect("it is there"));
                end.is_broken = true;
            }
            if end.has_ended && end.sending.is_none() && !end.receiving {
                end.socket = None;
            }
        }
        if ends.iter().all(|end| end.socket.is_none()) {
            break;
        }
        assert!(step < 100_000, "seed {seed}: it never ends");
        if !ios.iter().any(|io| io.is_ready()) {
            world.step();
        }
    }
    for side in 0..2 {
        let (sent, received) = (&ends[1 - side].sent, &ends[side].received);
        assert!(received.len() <= sent.len() || ends[1 - side].is_broken, "seed {seed}");
        let common = sent.len().min(received.len());
        assert_eq!(sent[..common], received[..common], "seed {seed}");
    }
    for io in &mut ios {
        io.poll(Some(Monotonic(0)), &mut Vec::new());
        assert_eq!(io.pool().used_bytes(), 0, "seed {seed}");
    }
    assert_eq!((ios[0].under_way_count(), ios[1].under_way_count()), (1, 0), "seed {seed}: the accept only");
}

#[test]
fn random_connections_lose_no_operation_and_mix_up_no_byte() {
    for seed in 0..200 {
        history(seed);
    }
}
