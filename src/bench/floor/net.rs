//! What loopback gives to plain blocking sockets: a stream of bytes, and a byte there and back.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use core_affinity::CoreId;
use hdrhistogram::Histogram;

use super::Row;

const TRANSFER_SIZE_BYTES: usize = 128 << 10;

/// Transfer and round trip, for about `time` each; the other side on `other_cpu` if that is given.
pub fn measure(time: Duration, other_cpu: Option<usize>) -> anyhow::Result<Vec<Row>> {
    Ok(vec![
        transfer(time, other_cpu).context("a transfer over loopback")?,
        round_trip(time, other_cpu).context("round trips over loopback")?,
    ])
}

/// A connection to a thread that does `side` with its end.
fn pair<T: Send + 'static>(
    other_cpu: Option<usize>,
    side: impl FnOnce(TcpStream) -> io::Result<T> + Send + 'static,
) -> io::Result<(TcpStream, thread::JoinHandle<io::Result<T>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let other = thread::spawn(move || {
        if let Some(cpu) = other_cpu {
            // Where that is refused the scheduler chooses, as without the flag.
            core_affinity::set_for_current(CoreId { id: cpu });
        }
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        side(stream)
    });
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok((stream, other))
}

fn joined<T>(other: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    other.join().unwrap_or_else(|_| Err(io::Error::other("the other side failed")))
}

fn transfer(time: Duration, other_cpu: Option<usize>) -> io::Result<Row> {
    let (mut stream, other) = pair(other_cpu, |mut stream| {
        let mut buffer = vec![0; TRANSFER_SIZE_BYTES];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                bytes => total += bytes,
            }
        }
    })?;
    let bytes = vec![1; TRANSFER_SIZE_BYTES];
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&bytes)?;
    }
    drop(stream);
    let total = joined(other)?;
    let mib_per_second = Some(total as f64 / (1 << 20) as f64 / start.elapsed().as_secs_f64());
    Ok(Row { name: "loopback transfer".into(), mib_per_second, ..Row::default() })
}

fn round_trip(time: Duration, other_cpu: Option<usize>) -> io::Result<Row> {
    let (mut stream, other) = pair(other_cpu, |mut stream| {
        let mut byte = [0; 64];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte)?;
        }
        Ok(())
    })?;
    let mut taken_ns = Histogram::<u64>::new(3).map_err(io::Error::other)?;
    let mut byte = [0; 64];
    let start = Instant::now();
    while start.elapsed() < time {
        let began = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        taken_ns.saturating_record(began.elapsed().as_nanos() as u64);
    }
    drop(stream);
    joined(other)?;
    Ok(super::disk::row("loopback round trip of 64 B", &taken_ns, start.elapsed(), 64))
}
