//! `ottla serve` as a child process on a data directory of its own.
//!
//! The first start takes free ports; later starts listen where the first one did, so that clients come back. The
//! child is killed and reaped when the [`Broker`] is dropped, and a test that fails shows its log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::WAIT_MAX;

/// Lines of the log that a failing test shows.
const SHOWN_LINE_COUNT_MAX: usize = 60;

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Options {
    shard_count: usize,
    args: Vec<(String, String)>,
}

impl Options {
    /// So many shards, not pinned (tests share few CPUs), with little memory each.
    pub fn shards(shard_count: usize) -> Options {
        let options = Options { shard_count, args: Vec::new() };
        options.arg("memory-per-shard", "64MiB").arg("tail-cache", "16MiB").arg("pin", "false")
    }

    /// A flag of `ottla serve`, without its dashes; given again it replaces the value.
    pub fn arg(mut self, flag: &str, value: &str) -> Options {
        self.args.retain(|(given, _)| given != flag || flag == "set");
        self.args.push((flag.into(), value.into()));
        self
    }

    /// A broker config under Kafka's name.
    pub fn set(self, key: &str, value: &str) -> Options {
        self.arg("set", &format!("{key}={value}"))
    }

    fn command(&self, data_dir: &Path, listen: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command.arg("serve").arg("--data-dir").arg(data_dir).arg("--listen").arg(listen);
        command.arg("--shards").arg(self.shard_count.to_string()).arg("--log-format").arg("json");
        for (flag, value) in &self.args {
            command.arg(if flag == "pin" { format!("--pin={value}") } else { format!("--{flag}") });
            if flag != "pin" {
                command.arg(value);
            }
        }
        // Nothing but what the test says may configure it.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("OTTLA_")) {
            command.env_remove(key);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// What one shard said when it began to serve.
#[derive(Clone, Debug)]
pub struct Serving {
    /// `HOST:PORT`.
    pub address: String,
    /// Its broker id.
    pub broker: i32,
    /// Bytes that recovery scanned.
    pub scanned_bytes: u64,
    /// Partitions that it found.
    pub partition_count: u64,
}

/// A broker that runs, or ran and will run again.
pub struct Broker {
    options: Options,
    data: TempDir,
    serving: Vec<Serving>,
    process: Option<Process>,
}

impl Broker {
    /// Starts on a new data directory and returns when every shard serves.
    pub fn start(options: Options) -> Broker {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut broker = Broker { options, data, serving: Vec::new(), process: None };
        broker.start_again();
        broker
    }

    /// Starts again on the same directory and, shard by shard, on the same ports.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let known = self.serving.iter().map(|serving| serving.address.clone());
        let listen: Vec<String> =
            known.chain(std::iter::repeat("127.0.0.1:0".to_string())).take(self.options.shard_count).collect();
        let mut child = self.options.command(self.data.path(), &listen.join(",")).spawn().expect("ottla starts");
        let log = Arc::new(Log::default());
        let reader = log.clone().read(child.stderr.take().expect("it is piped"));
        self.process = Some(Process { child, log, reader: Some(reader) });
        let shard_count = self.options.shard_count;
        let lines = self.log().wait(0, "every shard serves", |lines| {
            let serving: Vec<&Value> = lines.iter().filter(|line| line["message"] == "serving").collect();
            (serving.len() == shard_count).then(|| serving.into_iter().cloned().collect::<Vec<_>>())
        });
        self.serving = lines
            .iter()
            .map(|line| Serving {
                address: line["address"].as_str().expect("an address").to_string(),
                broker: number(&line["broker"]) as i32,
                scanned_bytes: number(&line["scanned_bytes"]),
                partition_count: number(&line["partitions"]),
            })
            .collect();
    }

    /// Starts again with other options.
    pub fn start_with(&mut self, options: Options) {
        self.options = options;
        self.start_again();
    }

    /// Kills it as a crash of the process would, and reaps it.
    pub fn kill9(&mut self) {
        let status = self.process.take().expect("it runs").end(Signal::SIGKILL);
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "it had ended before: {status}");
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) {
        let process = self.process.as_ref().expect("it runs");
        let log = process.log.clone();
        let status = self.process.take().expect("it runs").end(Signal::SIGTERM);
        if !status.success() {
            log.show();
            panic!("a clean stop ended with {status}");
        }
    }

    /// Stops it cleanly and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// The process that runs.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").child.id()
    }

    /// All addresses, as clients take them.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<&str> = self.serving.iter().map(|serving| serving.address.as_str()).collect();
        addresses.join(",")
    }

    /// What each shard said, in shard order.
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// The address of a broker by its id.
    pub fn address_of(&self, broker: i32) -> &str {
        &self.serving.iter().find(|serving| serving.broker == broker).expect("such a broker").address
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Bytes that recovery scanned at the last start, of all shards.
    pub fn scanned_bytes(&self) -> u64 {
        self.serving.iter().map(|serving| serving.scanned_bytes).sum()
    }

    /// Tries to start a second broker on the same directory; gives what it said when it ended.
    pub fn start_second(&self) -> (ExitStatus, String) {
        let mut child = self.options.command(self.data.path(), "127.0.0.1:0").spawn().expect("ottla starts");
        let log = Arc::new(Log::default());
        let reader = log.clone().read(child.stderr.take().expect("it is piped"));
        let process = Process { child, log: log.clone(), reader: Some(reader) };
        let status = process.wait();
        (status, log.text())
    }

    /// Each shard's counters as they are now, in shard order: names to values, zeros left out.
    pub fn counters(&self) -> Vec<BTreeMap<String, u64>> {
        let process = self.process.as_ref().expect("it runs");
        let from = process.log.line_count();
        process.signal(Signal::SIGUSR1);
        let lines = process.log.wait(from, "every shard's counters", |lines| {
            let lines: Vec<Value> = lines.iter().filter(|line| line["shard"].is_u64()).cloned().collect();
            (lines.len() == self.options.shard_count).then_some(lines)
        });
        lines.iter().map(|line| counters_of(line["message"].as_str().unwrap_or_default())).collect()
    }

    /// One counter, of all shards together.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters().iter().map(|counters| counters.get(name).copied().unwrap_or(0)).sum()
    }

    /// Log lines that contain `text`.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        let lines = self.log().text();
        lines.lines().filter(|line| line.contains(text)).map(str::to_string).collect()
    }

    fn log(&self) -> &Log {
        &self.process.as_ref().expect("it runs").log
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &self.process
            && std::thread::panicking()
        {
            process.log.show();
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value} is not a number"))
}

fn counters_of(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_string(), value.parse().expect("a count"))).collect()
}

/// A child that is reaped when it is dropped.
struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the child is not reaped yet");
    }

    fn end(self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_MAX;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(2));
        };
        // Its end of the pipe is closed: the reader comes to the end of the log.
        self.reader.take().expect("it was not joined").join().expect("the log's reader");
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing to a child that was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a child wrote, as they come.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<Value>,
    ended: bool,
}

impl Log {
    fn read(self: Arc<Self>, stderr: ChildStderr) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // What is no JSON (a panic, an error at the start) is kept as text.
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                self.state.lock().unwrap().lines.push(line);
                self.changed.notify_all();
            }
            self.state.lock().unwrap().ended = true;
            self.changed.notify_all();
        })
    }

    fn line_count(&self) -> usize {
        self.state.lock().unwrap().lines.len()
    }

    /// Waits until `find` finds what it wants in the lines after the first `from`.
    fn wait<T>(&self, from: usize, what: &str, find: impl Fn(&[Value]) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT_MAX;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(found) = find(&state.lines[from..]) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                drop(state);
                self.show();
                panic!("the broker's log does not say that {what}");
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        let state = self.state.lock().unwrap();
        state.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn show(&self) {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        println!("--- the broker's log, last lines");
        for line in &lines[lines.len().saturating_sub(SHOWN_LINE_COUNT_MAX)..] {
            println!("{line}");
        }
    }
}
