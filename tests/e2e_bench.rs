//! `ottla bench` against a broker of two shards: every subcommand runs, and its figures agree with what the broker
//! and the log have.

mod common;

use std::process::{Command, Output};

use serde_json::Value;

use common::broker::{Broker, Options};

/// Runs `ottla bench` with these arguments, space separated.
fn bench(broker: &Broker, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.arg("bench").args(args.split(' ')).args(["--bootstrap", &broker.bootstrap()]);
    let output = command.output().expect("ottla runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ottla bench {args}: {text}");
    output
}

/// So long that a machine that is busy with other tests answers some requests in it.
fn json(broker: &Broker, args: &str) -> Value {
    let output = bench(broker, &format!("{args} --json --warm-up-ms 300 --duration-ms 3000 --interval-ms 500"));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn produced_batches_are_all_in_the_log_and_can_be_consumed() {
    // Keyed, compressed, over four partitions of two topics on two shards; then read back whole, with its CRCs.
    let broker = Broker::start(Options::shards(2));
    let load = "--topic load --topics 2 --partitions 4 --batch-bytes 4KiB --record-bytes 100 --connections 4";
    let keys = "--keys 100 --key-skew 0.5 --codec zstd --random-percent 50";
    let produced = json(&broker, &format!("produce {load} {keys}"));
    let requests = number(&produced["requests"]);
    assert!(requests > 0.0 && number(&produced["p99_us"]) > 0.0);
    let appended = broker.counter("produce_batches_appended") as f64;
    // What was in flight at the end of the measured time is in neither figure.
    let total = number(&produced["requests_total"]);
    assert!((total..=total + 16.0).contains(&appended), "{appended} batches, {total} requests");
    let args = "consume --topic load --topics 2 --check-crc --json --warm-up-ms 0 --duration-ms 60000";
    let consumed: Value = serde_json::from_slice(&bench(&broker, args).stdout).expect("JSON");
    let stream = &consumed["streams"]["consume"];
    assert_eq!(number(&stream["bytes"]), broker.counter("produce_bytes_appended") as f64);
}

#[test]
fn a_rate_is_kept_and_end_to_end_takes_longer_than_producing() {
    let broker = Broker::start(Options::shards(2));
    let args = "end-to-end --topic tail --partitions 2 --batch-bytes 1KiB --rate 200 --arrivals poisson";
    let result = json(&broker, args);
    let (produce, end_to_end) = (&result["streams"]["produce"], &result["streams"]["end-to-end"]);
    // 600 are due on average in 3 s; a slow machine answers some of them after the measured time.
    assert!(number(&produce["requests"]) > 10.0 && number(&produce["requests"]) < 1000.0, "{result}");
    assert!(number(&end_to_end["requests"]) > 0.0);
    assert!(number(&end_to_end["max_us"]) > 0.0 && number(&result["unanswered"]) == 0.0);
}

#[test]
fn tail_and_catch_up_readers_run_beside_producers() {
    let broker = Broker::start(Options::shards(2));
    let result = json(&broker, "mixed --topic both --partitions 2 --batch-bytes 2KiB --rate 500 --tail 2 --catch-up 2");
    for stream in ["produce", "tail", "end-to-end", "catch-up"] {
        assert!(number(&result["streams"][stream]["requests"]) > 0.0, "{stream}: {result}");
    }
    assert!(number(&result["streams"]["catch-up"]["bytes"]) > number(&result["streams"]["tail"]["bytes"]));
}

#[test]
fn files_are_written_and_bad_flags_are_usage_errors() {
    let broker = Broker::start(Options::shards(1));
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("run");
    let flags = "produce --batches-per-request 2 --partitions 2 --acks 0 --warm-up-ms 0 --duration-ms 200";
    let output = bench(&broker, &format!("{flags} --out {}", out.display()));
    // A table, and no progress line where there is no terminal.
    assert!(String::from_utf8_lossy(&output.stdout).contains("REQUESTS/S"));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("MiB/s")).count(), 0);
    for name in ["result.json", "series.csv", "produce.hlog"] {
        assert!(out.join(name).metadata().is_ok_and(|file| file.len() > 0), "{name}");
    }
    for bad in [
        "produce --batch-bytes 10",
        "produce --rate -1",
        "produce --key-skew 1",
        "end-to-end --acks 0",
        "consume --from end --repeat",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        let status = command.arg("bench").args(bad.split(' ')).args(["--bootstrap", &broker.bootstrap()]).output();
        assert_eq!(status.unwrap().status.code(), Some(2), "{bad}");
    }
}

#[test]
fn a_floor_is_measured_and_reports_are_drawn_beside_it() {
    // The floor on small files for a moment each; a run compared with it; both as one page.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (floor, run, page) = (path("floor.json"), path("run"), path("page.html"));
    let ottla = |args: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ottla")).args(args.split(' ')).output().expect("ottla runs");
        assert!(output.status.success(), "ottla {args}: {}", String::from_utf8_lossy(&output.stderr));
        output
    };
    let data = directory.path().display();
    ottla(&format!("bench floor --dir {data} --file-bytes 32MiB --time-ms 150 --rounds 1 --json --out {floor}"));
    let rows: Value = serde_json::from_slice(&std::fs::read(&floor).unwrap()).unwrap();
    let names: Vec<&str> = rows["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    for name in ["CRC-32C 64 KiB", "loopback transfer", "write 4 KiB written dsync", "fetch by splice"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let broker = Broker::start(Options::shards(1));
    let pid = broker.pid();
    let flags = "--batch-bytes 4KiB --warm-up-ms 100 --duration-ms 300";
    let result = bench(&broker, &format!("produce {flags} --pid {pid} --json --floor {floor} --out {run}"));
    let result: Value = serde_json::from_slice(&result.stdout).unwrap();
    assert!(number(&result["ratios_to_floor"]["CPU per request"]) > 0.0);
    assert!(number(&result["broker_resident_mib"]) > 1.0);
    ottla(&format!("bench report {run} {run} --floor {floor} --output {page}"));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("append 4 KiB written dsync"));
    // Nothing but what was asked for is left.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}
