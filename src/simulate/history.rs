//! One history: a world, a node that lives and dies in it several times, clients, faults, and the model.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::admin::Admin;
use super::audit::Audit;
use super::chaos::{Chaos, Clients};
use super::committer::Committer;
use super::compacted::Compacted;
use super::consumer::{Consumer, SESSION};
use super::member::Member;
use super::model::{End, Model, PartKey, TopicState};
use super::plan::{Plan, Shape};
use super::reader::Reader;
use super::scene::{Excuses, Scene, Story};
use super::transactor::Transactor;
use super::violation::{Checker, Violation, violated};
use super::writer::Writer;
use crate::base::coverage::{self, Counts};
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::base::units::{KIB, MIB};
use crate::io::sim::World;
use crate::shard::simulated::{SimNode, Spec, Start};

/// How long, in the world's time, clients may take to end what they began when everything works.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
/// A write at which the power is to be cut may never come: after so many lives' worth of batches it is not waited for.
const GOALS_TO_A_CUT: u64 = 20;
/// A partition may hold this much of the pool when it is quiet.
const QUIET_PARTITION_BYTES: usize = 32 * KIB;

/// What a history has been through.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Branches and how often.
    pub branches: Counts,
    /// Batches that were acknowledged.
    pub acked_count: u64,
    /// Requests that shards have taken.
    pub request_count: u64,
    /// Power cuts.
    pub cut_count: u64,
    /// Kills.
    pub kill_count: u64,
    /// Clean stops.
    pub stop_count: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// The hash of everything that happened.
    pub trace: u64,
}

/// How a history went.
pub struct Outcome {
    /// What it has been through.
    pub told: Told,
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// What happened at last, if it was asked for.
    pub story: Story,
}

/// Runs the history of a plan. With `is_told` what happens is kept for people.
pub fn run(plan: &Plan, is_told: bool) -> Outcome {
    coverage::take();
    let mut history = History::new(plan, Story::new(is_told));
    let ran = quietly(|| catch_unwind(AssertUnwindSafe(|| history.run())));
    let violation = match ran {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(_) => Some(Violation { checker: Checker::Panic, what: PANIC.take() }),
    };
    let mut told = std::mem::take(&mut history.told);
    told.branches = coverage::take();
    told.acked_count = history.model.acked_count;
    told.cut_count = history.world.power_cut_count();
    told.trace = history.world.trace_hash();
    told.virtual_ns = history.world.now().monotonic.0;
    let story = std::mem::take(&mut history.story);
    // A world that ended in a panic may be half borrowed.
    match violation {
        Some(Violation { checker: Checker::Panic, .. }) => std::mem::forget(history),
        _ => drop(history),
    }
    Outcome { told, violation, story }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static IS_QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Panics of this thread are noted instead of printed.
fn quietly<R>(body: impl FnOnce() -> R) -> R {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match IS_QUIET.get() {
            true => PANIC.set(info.to_string()),
            false => before(info),
        }));
    });
    IS_QUIET.set(true);
    let result = body();
    IS_QUIET.set(false);
    result
}

struct History<'a> {
    plan: &'a Plan,
    world: World,
    model: Model,
    story: Story,
    told: Told,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    admin: Admin,
    committer: Committer,
    compacted: Option<Compacted>,
    transactor: Option<Transactor>,
    members: Vec<Member>,
    consumers: Vec<Consumer>,
    /// When the last life ended.
    ended_at: Monotonic,
}

/// What a life ends with, and whether it came from a power cut on the way.
enum Played {
    AsWanted,
    Cut,
}

impl<'a> History<'a> {
    fn new(plan: &'a Plan, story: Story) -> History<'a> {
        let mut rng = Rng::new(plan.seed ^ 0xc11e);
        History {
            plan,
            world: World::new(plan.seed, plan.world_options()),
            model: Model::default(),
            story,
            told: Told::default(),
            compacted: plan.has_compacted.then(|| Compacted::new(Rng::new(plan.seed ^ 0xc0a9))),
            transactor: plan.has_transactions.then(|| Transactor::new(Rng::new(plan.seed ^ 0x7ac7))),
            admin: Admin::new(rng.fork()),
            committer: Committer::new(0, rng.fork()),
            members: (0..plan.member_count).map(|id| Member::new(id, rng.fork())).collect(),
            consumers: (0..plan.consumer_count)
                .map(|id| Consumer::new(id, Rng::new(plan.seed ^ 0x848 ^ u64::from(id) << 32)))
                .collect(),
            ended_at: Monotonic(0),
            writers: (0..plan.writer_count)
                .map(|id| Writer::new(id, Rng::new(plan.seed ^ u64::from(id) << 32)))
                .collect(),
            readers: (0..plan.reader_count)
                .map(|id| Reader::new(id, Rng::new(plan.seed ^ 0xead ^ u64::from(id) << 32)))
                .collect(),
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        for life in 0..self.plan.life_count {
            let mut rng = Rng::new(self.plan.seed ^ (life + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (end, has_errors) = self.live(life, &mut rng)?;
            self.model.end_life(end, has_errors);
            self.ended_at = self.world.now().monotonic;
            match end {
                End::Stop => self.told.stop_count += 1,
                End::Kill => self.told.kill_count += 1,
                End::Cut => {}
            }
        }
        // Whatever became of them: a last life without faults tells what is left.
        self.story.tell(self.world.now().monotonic, || "-- the last life: no faults, only comparing".into());
        self.world.clear_faults();
        self.world.clear_write_hooks();
        self.world.set_capacity(u64::MAX);
        let spec = self.spec(&mut Rng::new(self.plan.seed), 1);
        let Start::Serving(mut node) = SimNode::begin(&self.world, &spec) else {
            return violated(Checker::Start, "the last start".into());
        };
        Audit::new(&mut node, &mut self.model, Excuses::default()).run()?;
        Ok(())
    }

    fn spec(&self, rng: &mut Rng, shard_count: u16) -> Spec {
        let segment_kib = match self.plan.shape {
            Shape::Uniform(_) if self.plan.has_tiny_segments => 12,
            Shape::Uniform(_) => 40,
            Shape::Mixed => [64, 72, 256][rng.in_range(0..3) as usize],
        };
        let mut spec = Spec::new(shard_count)
            .set("log.segment.bytes", segment_kib * KIB)
            .set("log.retention.check.interval.ms", 200)
            .set("num.partitions", 2)
            .set("log.cleaner.backoff.ms", 20)
            .set("log.cleaner.dedupe.buffer.size", if self.plan.seed % 4 == 3 { 24 * 40 } else { MIB })
            .set("ottla.journal.bytes", self.plan.journal_kib * 1024)
            .set("ottla.journal.min.partitions", self.plan.journal_min_partitions)
            .set("offsets.topic.segment.bytes", 16 * KIB)
            .set("offsets.topic.num.partitions", 3)
            .set("transaction.state.log.num.partitions", 3)
            .set("transaction.state.log.segment.bytes", 16 * KIB)
            .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", 200)
            .set("group.min.session.timeout.ms", 500)
            .set("group.initial.rebalance.delay.ms", 100)
            .set("group.consumer.min.session.timeout.ms", SESSION.as_millis())
            .set("group.consumer.session.timeout.ms", SESSION.as_millis())
            .set("group.consumer.min.heartbeat.interval.ms", 100)
            .set("group.consumer.heartbeat.interval.ms", 100);
        spec.tail_size_bytes = [64 * KIB, MIB][rng.in_range(0..2) as usize];
        spec.is_disorderly = rng.chance(1, 3);
        spec
    }

    fn live(&mut self, life: u64, rng: &mut Rng) -> Result<(End, bool), Violation> {
        let shard_count = 1 + rng.in_range(0..u64::from(self.plan.shard_count_max)) as u16;
        let spec = self.spec(rng, shard_count);
        let mut chaos = Chaos::new(self.plan, &self.world, rng);
        let (now, excuses) = (self.world.now().monotonic, chaos.excuses);
        self.live_with(life, rng, shard_count, &spec, &mut chaos, now).map(|end| (end, excuses.storage))
    }

    fn live_with(
        &mut self,
        life: u64,
        rng: &mut Rng,
        shard_count: u16,
        spec: &Spec,
        chaos: &mut Chaos,
        now: Monotonic,
    ) -> Result<End, Violation> {
        let excuses = chaos.excuses;
        self.story.tell(now, || format!("-- life {life}: {shard_count} shards, {excuses:?}, {:?}", chaos.end));
        let mut node = match SimNode::begin(&self.world, spec) {
            Start::Serving(node) => node,
            Start::Cut => return Ok(self.cut()),
            Start::Refused(_) if excuses.storage => {
                coverage::hit("start refused by a failing disk");
                self.world.kill_process();
                self.world.clear_faults();
                return Ok(End::Kill);
            }
            Start::Refused(why) => return violated(Checker::Start, why),
        };
        coverage::hit("start");
        if Audit::new(&mut node, &mut self.model, excuses).run()?.is_none() {
            return Ok(self.cut());
        }
        chaos.begin(&self.world, self.world.now().monotonic);
        self.writers.iter_mut().for_each(Writer::begin_life);
        self.readers.iter_mut().for_each(|reader| reader.begin_life(usize::from(shard_count), self.plan.slow_readers));
        self.admin.begin_life();
        self.committer.begin_life();
        let wall_ms = self.world.now().wall.0;
        self.compacted.iter_mut().for_each(|client| client.begin_life(wall_ms));
        self.transactor.iter_mut().for_each(Transactor::begin_life);
        self.model.group.begin_life();
        let ended_at = self.ended_at;
        self.members.iter_mut().for_each(|member| member.begin_life(ended_at, now));
        for consumer in &mut self.consumers {
            let until = consumer.begin_life(ended_at, now);
            self.model.owners.lives(consumer.id(), until);
        }
        let played = self.play(&mut node, chaos, rng)?;
        self.told.request_count += node.shards.iter().map(|shard| shard.broker().counters.requests).sum::<u64>();
        match (played, chaos.end) {
            (Played::Cut, _) => Ok(self.cut()),
            (_, End::Cut) => {
                self.world.power_cut();
                drop(node);
                Ok(self.cut())
            }
            (_, End::Kill) => {
                self.story.tell(self.world.now().monotonic, || "-- the process is killed".into());
                coverage::hit("end: kill");
                self.world.kill_process();
                Ok(End::Kill)
            }
            (_, End::Stop) => {
                self.story.tell(self.world.now().monotonic, || "-- the node is stopped".into());
                coverage::hit("end: stop");
                match node.stop() {
                    true => Ok(End::Stop),
                    false => Ok(self.cut()),
                }
            }
        }
    }

    fn cut(&mut self) -> End {
        self.story.tell(self.world.now().monotonic, || "-- the power is cut".into());
        coverage::hit("end: power cut");
        self.world.clear_write_hooks();
        End::Cut
    }

    /// Clients act until the life's goal is reached, and then to its end.
    fn play(&mut self, node: &mut SimNode, chaos: &mut Chaos, rng: &mut Rng) -> Result<Played, Violation> {
        let goal = self.model.acked_count + rng.in_range(1..=self.plan.goal_max);
        let until = self.world.now().monotonic + chaos.time_max;
        // Long polls wait on, time passes.
        let idle = rng.chance(1, 2).then(|| Duration::from_secs(rng.in_range(11..120)));
        while self.model.acked_count < goal && self.world.now().monotonic < until {
            if !self.step(node, chaos, true)? {
                return Ok(Played::Cut);
            }
        }
        if chaos.end == End::Stop || rng.chance(1, 3) {
            chaos.end_faults(&self.world);
            if !self.settle(node, chaos, idle)? {
                return Ok(Played::Cut);
            }
        } else if chaos.end == End::Cut && rng.chance(3, 4) {
            // At one of the next writes, while everybody goes on.
            chaos.cut_at_next_write(&self.world, self.plan.shape, rng);
            let until = self.world.now().monotonic + Duration::from_secs(5);
            let enough = self.model.acked_count + GOALS_TO_A_CUT * self.plan.goal_max;
            while self.world.now().monotonic < until && self.model.acked_count < enough {
                if !self.step(node, chaos, true)? {
                    return Ok(Played::Cut);
                }
            }
        } else {
            for _ in 0..rng.in_range(0..60) {
                if !self.step(node, chaos, true)? {
                    return Ok(Played::Cut);
                }
            }
        }
        Ok(Played::AsWanted)
    }

    /// A step of the node, then everybody's.
    fn step(&mut self, node: &mut SimNode, chaos: &mut Chaos, is_busy: bool) -> Result<bool, Violation> {
        let clients = self.writers.iter().map(Writer::next_at).chain(self.readers.iter().map(Reader::next_at));
        let clients = clients.chain(self.compacted.iter().map(Compacted::next_at));
        let clients = clients.chain(self.transactor.iter().map(Transactor::next_at));
        let now = self.world.now().monotonic;
        let wanted = clients
            .chain(self.members.iter().map(Member::next_at))
            .chain(self.consumers.iter().map(Consumer::next_at))
            .chain([self.admin.next_at(), self.committer.next_at(), chaos.next_at()])
            .filter(|at| *at > now)
            .min();
        let limit = if is_busy { wanted } else { Some(chaos.next_at()).filter(|at| *at > now) };
        if !node.step_by(limit) {
            return Ok(false);
        }
        let clients = Clients {
            writers: &mut self.writers,
            readers: &mut self.readers,
            members: &mut self.members,
            consumers: &mut self.consumers,
        };
        chaos.act(&self.world, node, clients, &mut self.story);
        self.check_memory(node)?;
        let now = self.world.now();
        let mut scene = Scene {
            world: &self.world,
            addresses: &node.addresses,
            model: &mut self.model,
            excuses: chaos.excuses,
            story: &mut self.story,
            plan: self.plan,
            now: now.monotonic,
            wall_ms: now.wall.0,
            is_busy,
        };
        for writer in &mut self.writers {
            writer.act(&mut scene)?;
        }
        for reader in &mut self.readers {
            reader.act(&mut scene)?;
            if !chaos.excuses.slow && !chaos.excuses.storage && !chaos.excuses.network {
                reader.check_wake(&scene)?;
            }
        }
        self.admin.act(&mut scene)?;
        self.committer.act(&mut scene)?;
        self.compacted.iter_mut().try_for_each(|client| client.act(&mut scene))?;
        self.transactor.iter_mut().try_for_each(|client| client.act(&mut scene))?;
        for member in &mut self.members {
            member.act(&mut scene)?;
        }
        self.consumers.iter_mut().try_for_each(|consumer| consumer.act(&mut scene))?;
        Ok(!self.world.is_power_cut())
    }

    /// Nothing new begins; everything that was begun comes to its end. Then time passes and memory is looked at.
    fn settle(&mut self, node: &mut SimNode, chaos: &mut Chaos, idle: Option<Duration>) -> Result<bool, Violation> {
        let until = self.world.now().monotonic + SETTLE_TIME_MAX;
        loop {
            let offline = |key: &PartKey| {
                let part = self.model.parts.get(key);
                let is_live = self.model.state(key.topic) == TopicState::Live;
                !is_live || part.is_none_or(|part| part.is_offline || part.is_open) || chaos.excuses.storage
            };
            let open: usize = self.writers.iter().map(|writer| writer.open_count(offline)).sum();
            let asked: usize = self.readers.iter().map(Reader::under_way_count).sum();
            let asked = asked + self.compacted.as_ref().map_or(0, Compacted::under_way_count);
            let asked = asked + self.transactor.as_ref().map_or(0, Transactor::under_way_count);
            let asked = asked + self.members.iter().map(Member::under_way_count).sum::<usize>();
            let asked = asked + self.consumers.iter().map(Consumer::under_way_count).sum::<usize>();
            if open + asked + self.admin.under_way_count() + self.committer.under_way_count() == 0 {
                break;
            }
            if self.world.now().monotonic > until {
                let shards: Vec<String> = node.shards.iter().map(|shard| shard.broker().unfinished()).collect();
                let text = format!(
                    "after {SETTLE_TIME_MAX:?} {open} batches and {asked} other questions are open: {shards:?}"
                );
                return violated(Checker::Answers, text);
            }
            if !self.step(node, chaos, false)? {
                return Ok(false);
            }
        }
        coverage::hit("settled");
        if let Some(idle) = idle {
            coverage::hit("idle");
            let until = self.world.now().monotonic + idle;
            while self.world.now().monotonic < until {
                if !node.step_by(Some(until)) {
                    return Ok(false);
                }
            }
            // On a slow disk a compaction of many segments may take longer than that, but it ends.
            let until = self.world.now().monotonic + SETTLE_TIME_MAX;
            while node.shards.iter().any(|shard| shard.broker().has_compaction()) {
                if self.world.now().monotonic > until {
                    return violated(Checker::Compaction, format!("a compaction goes on after {SETTLE_TIME_MAX:?}"));
                }
                if !node.step_by(None) {
                    return Ok(false);
                }
            }
            self.check_quiet(node)?;
        }
        Ok(true)
    }

    fn check_memory(&self, node: &SimNode) -> Result<(), Violation> {
        for bound in node.bounds() {
            if bound.used > bound.max {
                return violated(Checker::Memory, format!("{}: {} of {}", bound.what, bound.used, bound.max));
            }
        }
        Ok(())
    }

    /// What a quiet node holds: its tail cache and a little for each connection and partition.
    fn check_quiet(&self, node: &SimNode) -> Result<(), Violation> {
        for shard in &node.shards {
            let broker = shard.broker();
            let used = broker.io.pool_use().0;
            let bound = broker.quiet_bytes_max(QUIET_PARTITION_BYTES);
            if used > bound {
                let shares = broker.memory_shares();
                let text = format!("a quiet shard holds {used} bytes, more than {bound}: {shares}");
                return violated(Checker::Memory, text);
            }
        }
        Ok(())
    }
}

trait PoolUse {
    /// Bytes in use and the budget.
    fn pool_use(&self) -> (usize, usize);
}

impl PoolUse for crate::io::sim::SimIo {
    fn pool_use(&self) -> (usize, usize) {
        use crate::io::Io;
        (self.pool().used_bytes(), self.pool().budget_bytes())
    }
}

/// The time of the world at which something is due.
pub fn later(now: Monotonic, rng: &mut Rng, ms: std::ops::Range<u64>) -> Monotonic {
    now + Duration::from_millis(rng.in_range(ms))
}
