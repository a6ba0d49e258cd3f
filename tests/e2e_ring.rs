//! Every choice about the ring, on the real binary: it serves, and says at start what is in force.

mod support_bad;

use std::process::Command;

use support_bad::{Broker, Wire, batch, binary};

/// Starts a broker with these flags, writes and reads through every path, and returns what it said of its rings.
fn serve(flags: &[&str]) -> String {
    let broker = Broker::start(flags);
    exercise(&broker);
    let log = broker.log();
    log.lines().filter(|line| line.contains(": serving ") || line.contains("WARN")).collect::<Vec<_>>().join("\n")
}

fn exercise(broker: &Broker) {
    let mut wire = Wire::open(broker.address());
    wire.create_topic("t", 1, &[("segment.bytes", "1048576")]);
    for offset in 0..20 {
        assert_eq!(wire.produce("t", 0, batch(1, 200_000)), (0, offset));
    }
    // From sealed segments, the active one, and memory.
    let mut offset = 0;
    while offset < 20 {
        let (error, records) = wire.fetch("t", 0, offset, 1 << 20);
        assert_eq!(error, 0);
        let next = ottla::model::batch::batches(&records).last().expect("a batch").0.next_offset().0;
        assert!(next > offset);
        offset = next;
    }
}

#[test]
fn the_default_says_its_entries_flags_and_workers() {
    let said = serve(&[]);
    assert!(said.contains("ring of 256/1024 entries, SINGLE_ISSUER DEFER_TASKRUN COOP_TASKRUN"), "{said}");
    assert!(said.contains("16+8 kernel workers"), "{said}");
    assert!(!said.contains("registered") && !said.contains("fixed"), "{said}");
}

#[test]
fn entries_and_flags_are_as_asked() {
    let said = serve(&["--ring-entries", "64", "--ring-cq-entries", "128", "--ring-no-defer-taskrun"]);
    assert!(said.contains("ring of 64/128 entries, SINGLE_ISSUER,"), "{said}");
}

#[test]
fn a_kernel_thread_takes_submissions() {
    let said = serve(&["--ring-sqpoll=10", "--ring-sqpoll-cpu", "0"]);
    assert!(said.contains("SINGLE_ISSUER SQPOLL") || said.contains("SQPOLL"), "{said}");
    assert!(!said.contains("entries, SINGLE_ISSUER DEFER_TASKRUN"), "{said}");
}

#[test]
fn files_and_sockets_are_registered() {
    let said = serve(&["--ring-fixed-files"]);
    assert!(said.contains(" fixed files"), "{said}");
}

#[test]
fn the_ring_is_polled_before_sleeping() {
    let said = serve(&["--ring-spin-us", "50"]);
    assert!(said.contains("spins for 50 us"), "{said}");
}

#[test]
fn kernel_workers_are_bounded_and_placed() {
    let said = serve(&["--ring-worker-bounded-max=2", "--ring-worker-unbounded-max=3", "--ring-worker-cpus=0"]);
    assert!(said.contains("2+3 kernel workers on CPUs 0"), "{said}");
}

#[test]
fn large_sends_are_zero_copy_sends() {
    let said = serve(&["--ring-send-zc-min-bytes", "32KiB"]);
    assert!(
        said.contains("zero-copy sends from 32.0 KiB") || said.contains("no zero-copy sends: this kernel"),
        "{said}"
    );
    let said = serve(&["--ring-send-zc-min-bytes", "32KiB", "--ring-fixed-files"]);
    assert!(said.contains("no zero-copy sends: SQPOLL and fixed files exclude them"), "{said}");
}

#[test]
fn memory_is_registered_where_it_may_be_locked_and_else_it_says_so() {
    let said = serve(&["--ring-registered-buffers", "8MiB", "--memory-per-shard", "32MiB", "--tail-cache", "8MiB"]);
    let is_limited = said.contains("no registered buffers: memlock is limited to");
    assert!(said.contains("8.0 MiB of registered buffers") || is_limited, "{said}");
    // A limit that holds for everybody but administrators.
    let dir = tempfile::tempdir().unwrap();
    let Some(mut command) = support_bad::as_nobody(dir.path(), &["prlimit", "--memlock=1048576:1048576"]) else {
        return;
    };
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    command.arg("serve").arg("--data-dir").arg(&data).args(["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin"]);
    command.args(["--ring-registered-buffers", "8MiB"]);
    let broker = Broker::start_command(command, &dir.path().join("log"));
    broker.wait_for_log("no registered buffers: memlock is limited to 1.0 MiB");
    exercise(&broker);
}

#[test]
fn nonsense_is_refused_with_its_name() {
    for (flags, name) in [
        (["--ring-entries", "100"], "ring-entries"),
        (["--ring-sqpoll-cpu", "0"], "ring-sqpoll-cpu"),
        (["--ring-registered-buffers", "much"], "ring-registered-buffers"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data-dir").arg(dir.path().join("data")).args(flags);
        let (code, said) = Broker::refused(command, &dir.path().join("log"));
        assert!(code != 0 && said.contains(name), "{said}");
    }
}
