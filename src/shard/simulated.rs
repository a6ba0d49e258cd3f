//! A whole node on a simulated world: its shards take turns in one thread, and time passes when none has work.
//!
//! The shards are the real ones; only the threads are missing. The order of turns is the seed's, and a disorderly
//! node now and then leaves a shard out, so that its mail and completions pile up, for a moment: as on a busy machine.
//!
//! Invariant: once the power is cut nothing of the node runs any more; whoever drives it sees `false` or `None`.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::base::mutant;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::base::units::MIB;
use crate::handlers::bounds::Bound;
use crate::handlers::bus::Message;
use crate::handlers::endpoints::Endpoint;
use crate::handlers::options::BrokerOptions;
use crate::handlers::start::Recovered;
#[cfg(test)]
use crate::io::Io;
use crate::io::sim::{SimIo, World};
use crate::model::configs::BrokerConfig;
use crate::model::id::{NodeId, ShardId};
use crate::model::limits::MAILBOX_DEPTH_MAX;
use crate::shard::event_loop::{Phase, Shard};
use crate::shard::mailbox::Mailboxes;
use crate::shard::node::{Place, resources};
#[cfg(test)]
use crate::storage::checkpoint;
use crate::storage::layout::Layout;

/// Where the node lives on the world's disk.
pub const DATA: &str = "/data";
/// How long, in the world's time, anything may take that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a shard of a disorderly node that has something to do may be left out at a time.
const LEFT_OUT_MAX: Duration = Duration::from_millis(10);
/// Some shard always has something to do for so many rounds: then they go round in circles.
const BUSY_ROUNDS_MAX: u32 = 200_000;
/// The greatest answer that clients of a simulation ask for, and a batch.
const ANSWER_SIZE_BYTES_MAX: u64 = 2 * MIB as u64;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Spec {
    pub shard_count: u16,
    /// Broker configs, not checked: segments may be smaller than Kafka allows.
    pub settings: Vec<(&'static str, String)>,
    pub pool_size_bytes: usize,
    pub tail_size_bytes: usize,
    /// Shards are left out of rounds.
    pub is_disorderly: bool,
}

impl Spec {
    /// So many shards and Kafka's defaults, with little memory.
    pub fn new(shard_count: u16) -> Spec {
        Spec {
            shard_count,
            settings: vec![("auto.create.topics.enable", "false".into())],
            pool_size_bytes: 16 * MIB,
            tail_size_bytes: MIB,
            is_disorderly: false,
        }
    }

    pub fn set(mut self, name: &'static str, value: impl ToString) -> Spec {
        self.settings.push((name, value.to_string()));
        self
    }

    fn options(&self) -> BrokerOptions {
        let mut config = BrokerConfig::default();
        for (name, value) in &self.settings {
            config = config.with_unchecked(name, value);
        }
        BrokerOptions {
            node: NodeId(0),
            node_name: "sim".into(),
            fetch_max_bytes: config.fetch_max_bytes(usize::from(self.shard_count)),
            config,
            layout: Layout::new(DATA),
            shard_count: self.shard_count,
            pool_size_bytes: self.pool_size_bytes,
            tail_size_bytes: self.tail_size_bytes,
            splice_size_bytes_min: 8 * 1024,
            reuses_segments: true,
            open_file_count_max: u64::MAX,
            stall_threshold: Duration::from_secs(3600),
        }
    }
}

/// What became of a start.
pub enum Start {
    /// It serves.
    Serving(Box<SimNode>),
    /// The power was cut meanwhile.
    Cut,
    /// It refused to, and said why.
    Refused(String),
}

/// Shards that take turns.
pub struct SimNode {
    pub world: World,
    pub shards: Vec<Shard<SimIo>>,
    pub addresses: Vec<SocketAddr>,
    pub recovered: Vec<Recovered>,
    mailboxes: Mailboxes<Message>,
    rng: Rng,
    is_disorderly: bool,
    /// A shard that gets no turn until then: its thread was preempted, and its mail and completions pile up.
    stalled: Option<(usize, Monotonic)>,
    /// Rounds since nobody had anything to do.
    busy_rounds: u32,
}

/// Runs a part of the node. What it does after the power is cut, panic included, has never happened.
fn unless_cut<R>(world: &World, body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        _ if world.is_power_cut() => None,
        Ok(result) => Some(result),
        Err(panic) => {
            // A simulation tells its seeds itself, and starts that a failing disk refuses are part of it.
            if cfg!(test) {
                eprintln!("seed {}", world.seed());
            }
            resume_unwind(panic)
        }
    }
}

impl SimNode {
    /// Starts a node and waits until it serves.
    pub fn begin(world: &World, spec: &Spec) -> Start {
        if !mutant::is_on("start_without_lock") {
            world.wait_for_lock();
        }
        world.create_dir_all(DATA).expect("a disk");
        let mut node = match SimNode::open(world, spec) {
            None => return Start::Cut,
            Some(Err(why)) => return Start::Refused(why),
            Some(Ok(node)) => Box::new(node),
        };
        let serves = |node: &SimNode| node.shards.iter().all(|shard| shard.phase() == Phase::Serving);
        match catch_unwind(AssertUnwindSafe(|| node.run_until(serves))) {
            Ok(true) => Start::Serving(node),
            Ok(false) => Start::Cut,
            // Shard 0 gives up where it cannot make durable what must be before anything is served.
            Err(panic) => match panic.downcast_ref::<String>() {
                Some(why) if why.contains("so nothing may be") => Start::Refused(why.clone()),
                _ => resume_unwind(panic),
            },
        }
    }

    /// Starts a node that nothing keeps from starting but a power cut: then `None`.
    #[cfg(test)]
    pub fn try_start(world: &World, spec: &Spec) -> Option<SimNode> {
        match SimNode::begin(world, spec) {
            Start::Serving(node) => Some(*node),
            Start::Cut => None,
            Start::Refused(why) => panic!("seed {}: {why}", world.seed()),
        }
    }

    /// Starts a node where nothing cuts the power.
    #[cfg(test)]
    pub fn start(world: &World, spec: &Spec) -> SimNode {
        SimNode::try_start(world, spec).expect("the power stays on")
    }

    /// As `Node::start` does it, on one thread.
    fn open(world: &World, spec: &Spec) -> Option<Result<SimNode, String>> {
        if std::env::var_os("OTTLA_SIM_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).try_init();
        }
        let options = Arc::new(spec.options());
        let mailboxes = Mailboxes::new(usize::from(spec.shard_count));
        let mut rng = Rng::new(world.seed() ^ world.now().monotonic.0);
        // All at once: the first one made after a power cut turns the machine on again.
        let ios: Vec<SimIo> =
            (0..spec.shard_count).map(|shard| world.io(&format!("shard {shard}"), spec.pool_size_bytes)).collect();
        let (mut shards, mut addresses, mut recovered) = (Vec::new(), Vec::new(), Vec::new());
        let mut image = None;
        for (shard, mut io) in ios.into_iter().enumerate() {
            let place = Place {
                shard: ShardId(shard as u16),
                options: options.clone(),
                listen: ([127, 0, 0, 1], 0).into(),
                advertise: Endpoint { host: "127.0.0.1".into(), port: 0 },
                seed: rng.next_u64(),
                mailboxes: mailboxes.clone(),
            };
            let resources = resources(&io, &options);
            let opened = unless_cut(world, || {
                let mut host = None;
                if image.is_none() {
                    let opened = place.open_controller(&mut io, resources.clone());
                    let (controller, first) = opened.map_err(|error| error.to_string())?;
                    (host, image) = (Some(controller), Some(first));
                }
                let image = image.clone().expect("the first shard brings it");
                place.open_shard(io, image, resources, host).map_err(|error| error.to_string())
            });
            let (shard, endpoint, stats) = match opened? {
                Ok(opened) => opened,
                Err(why) => return Some(Err(why)),
            };
            addresses.push(([127, 0, 0, 1], endpoint.port).into());
            shards.push(shard);
            recovered.push(stats);
        }
        let is_disorderly = spec.is_disorderly;
        let (world, stalled) = (world.clone(), None);
        Some(Ok(SimNode {
            world,
            shards,
            addresses,
            recovered,
            mailboxes,
            rng,
            is_disorderly,
            stalled,
            busy_rounds: 0,
        }))
    }

    /// What every shard holds, beside the most that it may.
    pub fn bounds(&self) -> impl Iterator<Item = Bound> {
        let mail = self.mailboxes.longest() as u64;
        let mail = Bound { what: "messages in an inbox", used: mail, max: MAILBOX_DEPTH_MAX as u64 };
        let shards = self.shards.iter().flat_map(|shard| shard.broker().bounds(ANSWER_SIZE_BYTES_MAX));
        shards.chain([mail])
    }

    /// Gives a shard no turn for so long.
    pub fn stall(&mut self, shard: usize, time: Duration) {
        self.stalled = Some((shard, self.world.now().monotonic + time));
    }

    /// One round of turns; then time passes if nobody has anything to do. False once the power is cut.
    #[cfg(test)]
    pub fn step(&mut self) -> bool {
        self.step_by(None)
    }

    /// One round of turns; then time passes if nobody has anything to do, but not beyond `limit`. False once the
    /// power is cut.
    pub fn step_by(&mut self, limit: Option<Monotonic>) -> bool {
        let now = self.world.now().monotonic;
        self.stalled = self.stalled.filter(|(_, until)| *until > now);
        let stalled = self.stalled.map(|(shard, _)| shard);
        let mut order: Vec<usize> = (0..self.shards.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.rng.in_range(0..=at as u64) as usize);
        }
        for shard in order {
            if stalled == Some(shard) || self.is_disorderly && self.rng.chance(1, 3) {
                continue;
            }
            let shard = &mut self.shards[shard];
            if shard.phase() != Phase::Stopped && unless_cut(&self.world, || shard.turn(false)).is_none() {
                return false;
            }
        }
        let has_turns = |(at, shard): &(usize, &Shard<SimIo>)| stalled != Some(*at) && shard.phase() != Phase::Stopped;
        let running = self.shards.iter().enumerate().filter(has_turns).map(|(_, shard)| shard);
        let is_ready = running.clone().any(|shard| shard.broker().io.is_ready());
        self.busy_rounds = if is_ready { self.busy_rounds + 1 } else { 0 };
        assert!(self.busy_rounds < BUSY_ROUNDS_MAX, "seed {}: shards keep each other busy for ever", self.world.seed());
        if is_ready && !(self.is_disorderly && self.rng.chance(1, 2)) {
            return true;
        }
        let others = self.world.next_event_at().into_iter().chain(limit).chain(self.stalled.map(|(_, until)| until));
        let left_out = is_ready.then_some(now + LEFT_OUT_MAX);
        let next = running.map(Shard::next_turn_at).chain(others).chain(left_out).min();
        if let Some(next) = next {
            self.world.advance_to(next);
        }
        !self.world.is_power_cut()
    }

    /// Steps until `is_done`; false if the power was cut first.
    pub fn run_until(&mut self, mut is_done: impl FnMut(&SimNode) -> bool) -> bool {
        let until = self.world.now().monotonic + WAIT_MAX;
        while !is_done(self) {
            if self.world.is_power_cut() || !self.step_by(None) {
                return false;
            }
            if self.world.now().monotonic >= until {
                let shards = self.shards.iter();
                let shards: Vec<String> =
                    shards.map(|shard| format!("{:?} {}", shard.phase(), shard.broker().unfinished())).collect();
                panic!("seed {}: waited for longer than {WAIT_MAX:?}; {}", self.world.seed(), shards.join("; "));
            }
        }
        true
    }

    /// Steps for so long.
    pub fn run_for(&mut self, time: Duration) -> bool {
        let until = self.world.now().monotonic + time;
        self.run_until(|node| node.world.now().monotonic >= until)
    }

    /// Tells every shard to stop.
    pub fn ask_to_stop(&mut self) {
        for shard in 0..self.shards.len() {
            assert!(self.mailboxes.send(ShardId(shard as u16), Message::Stop).is_ok(), "the inbox has room");
        }
    }

    /// Stops cleanly; false if the power was cut meanwhile.
    pub fn stop(mut self) -> bool {
        self.ask_to_stop();
        self.run_until(|node| node.shards.iter().all(|shard| shard.phase() == Phase::Stopped))
    }

    /// What lies in the partitions' directories, for messages.
    #[cfg(test)]
    pub fn describe_disk(&self) -> String {
        let topics = format!("{DATA}/topics");
        let mut text = String::new();
        for dir in self.world.list(&topics).unwrap_or_default() {
            let path = format!("{topics}/{}", dir.name);
            let names: Vec<String> =
                self.world.list(&path).unwrap_or_default().into_iter().map(|entry| entry.name).collect();
            let bytes = self.world.read_file(format!("{path}/checkpoint")).unwrap_or_default();
            let checkpoint = checkpoint::find(&bytes).map(|found| {
                found.map(|f| (f.sequence, f.state.log_start, f.state.active_base_offset, f.state.next_offset))
            });
            text += &format!("\n{}: {names:?}, checkpoint {checkpoint:?}", dir.name);
        }
        text
    }

    /// Bytes of buffers in use, over all shards.
    #[cfg(test)]
    pub fn used_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.broker().io.pool().used_bytes()).sum()
    }
}
