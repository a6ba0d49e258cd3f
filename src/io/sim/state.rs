//! What is inside a world: the tables, handing over operations, running events, and the end of processes.
//!
//! The work of operations is in [`super::files`] and [`super::sockets`].
//!
//! Invariants
//! - An operation is in `ops` from the moment it is handed over until it completes, is cancelled, or is forgotten
//!   with its process; it holds its file open meanwhile.
//! - A dead io never gets a completion.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use super::contents::{Tear, WriteId};
use super::disk::{Disk, InodeId};
use super::events::{ConnectionId, Event, Events, OpId, hash_bytes};
use super::faults::{Fault, Faults, OpKind};
use super::network::{Network, Owner};
use super::options::WorldOptions;
use super::record::{WriteHook, WriteRecord};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::io::handle::{Dropped, Kind};
use crate::io::{Completion, File, Listener, Op, OpenOptions, Outcome, Socket, Token};

/// One `SimIo` as the world sees it.
pub(super) struct IoState {
    pub(super) name: String,
    pub(super) is_alive: bool,
    /// It belongs to the process that [`Inside::end_process`] ends.
    pub(super) is_local: bool,
    pub(super) dropped: Dropped,
    pub(super) completions: VecDeque<Completion>,
}

/// An open file of an io.
pub(super) struct OpenFile {
    pub(super) io: u32,
    pub(super) inode: InodeId,
    pub(super) options: OpenOptions,
}

/// A connected socket of an io.
#[derive(Clone, Copy)]
pub(super) struct OpenSocket {
    pub(super) io: u32,
    pub(super) connection: ConnectionId,
    pub(super) side: usize,
}

/// An operation that was handed over.
pub(super) struct Pending {
    pub(super) io: u32,
    pub(super) token: Token,
    pub(super) op: Op,
    pub(super) fault: Option<Fault>,
    /// The file that it holds open, and how that was opened.
    pub(super) file: Option<(InodeId, OpenOptions)>,
    /// The last change that a sync covers: those that had happened when it was handed over.
    pub(super) last_write: WriteId,
    /// A write's contents when it was handed over.
    pub(super) contents_hash: u64,
    /// The power goes when this write is due.
    pub(super) tear: Option<Tear>,
    /// Bytes of a send that are on their way.
    pub(super) sent_bytes: usize,
    /// A `SendFile` is waiting for room.
    pub(super) is_bounded: bool,
}

/// Everything in a world.
pub(super) struct Inside {
    pub(super) options: WorldOptions,
    pub(super) events: Events,
    pub(super) disk: Disk,
    pub(super) network: Network,
    pub(super) faults: Faults,
    pub(super) ios: Vec<IoState>,
    pub(super) files: BTreeMap<u32, OpenFile>,
    pub(super) sockets: BTreeMap<u32, OpenSocket>,
    pub(super) ops: BTreeMap<OpId, Pending>,
    pub(super) next_op: OpId,
    next_handle: u32,
    pub(super) writes: Vec<WriteRecord>,
    pub(super) write_hooks: Vec<WriteHook>,
    pub(super) is_power_cut: bool,
    pub(super) power_cut_count: u64,
    /// Latencies of the disk.
    pub(super) disk_rng: Rng,
    /// What power cuts, kills and half-failed writes leave.
    pub(super) loss_rng: Rng,
    /// Which operations a cancellation catches.
    pub(super) cancel_rng: Rng,
}

pub(super) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Inside {
    pub(super) fn new(seed: u64, options: WorldOptions) -> Inside {
        let mut rng = Rng::new(seed);
        // Every run starts at another time, so that nothing comes to rely on it.
        let start_ns = 1_000_000_000 + rng.in_range(0..1_000_000_000);
        Inside {
            events: Events::new(start_ns, options.wall_start_ms, options.trace_line_count_max),
            disk: Disk::new(options.capacity_bytes),
            network: Network::new(rng.fork()),
            faults: Faults::new(rng.fork()),
            ios: Vec::new(),
            files: BTreeMap::new(),
            sockets: BTreeMap::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            next_handle: 0,
            writes: Vec::new(),
            write_hooks: Vec::new(),
            is_power_cut: false,
            power_cut_count: 0,
            disk_rng: rng.fork(),
            loss_rng: rng.fork(),
            cancel_rng: rng.fork(),
            options,
        }
    }

    // Handing over

    /// Starts an operation.
    pub(super) fn start(&mut self, io: u32, token: Token, op: Op) {
        let id = self.next_op;
        self.next_op += 1;
        let kind = OpKind::of(&op);
        let file = match &op {
            Op::SendFile { file, .. }
            | Op::Read { file, .. }
            | Op::Write { file, .. }
            | Op::WriteZeros { file, .. }
            | Op::Allocate { file, .. }
            | Op::Sync { file }
            | Op::Truncate { file, .. }
            | Op::Length { file }
            | Op::DropCache { file } => {
                let open = self.files.get(&file.index()).filter(|open| open.io == io);
                Some(open.map(|open| (open.inode, open.options)).expect("a file is used with the io that opened it"))
            }
            _ => None,
        };
        if let Some((inode, options)) = file {
            self.check_overlap(&op, inode, options);
            self.disk.keep_open(inode);
        }
        let path = match &op {
            Op::Open { path, .. }
            | Op::Remove { path }
            | Op::RemoveDir { path }
            | Op::CreateDir { path }
            | Op::SyncDir { path }
            | Op::List { path }
            | Op::Rename { from: path, .. } => path.display().to_string(),
            Op::Connect { address } => address.to_string(),
            _ => file.map(|(inode, _)| self.disk.path(inode).to_string()).unwrap_or_default(),
        };
        let fault = self.faults.pick(kind, &path);
        let contents_hash = match &op {
            Op::Write { slice, .. } => hash_bytes(slice.as_bytes()),
            _ => 0,
        };
        self.events.note(kind.name(), token.0, hash_bytes(path.as_bytes()) ^ contents_hash);
        let tear = self.record_write(&op, &path);
        let last_write = self.disk.last_write();
        let pending =
            Pending { io, token, op, fault, file, last_write, contents_hash, tear, sent_bytes: 0, is_bounded: false };
        self.ops.insert(id, pending);
        match kind {
            OpKind::Accept | OpKind::Connect | OpKind::Recv | OpKind::Send | OpKind::SendFile => {
                self.start_network(id, kind);
            }
            _ => self.start_disk(id, kind),
        }
    }

    /// Ends the operations of `token` that can be ended.
    pub(super) fn cancel(&mut self, io: u32, token: Token) {
        let ids: Vec<_> =
            self.ops.iter().filter(|(_, op)| op.io == io && op.token == token).map(|(&id, _)| id).collect();
        for id in ids {
            match OpKind::of(&self.ops[&id].op) {
                OpKind::Accept | OpKind::Connect | OpKind::Recv | OpKind::Send | OpKind::SendFile => {
                    self.cancel_network(id);
                }
                // What a disk has begun it ends; whether it had begun is chance.
                _ if self.cancel_rng.chance(1, 2) => self.complete(id, Err(error(libc::ECANCELED))),
                _ => {}
            }
        }
    }

    // Completing

    /// Ends an operation with its result.
    pub(super) fn complete(&mut self, id: OpId, result: io::Result<Outcome>) {
        let Some(pending) = self.ops.remove(&id) else { return };
        if let Some((inode, _)) = pending.file {
            self.disk.close(inode);
        }
        self.deliver(pending.io, Completion { token: pending.token, more: false, result });
    }

    /// Puts a completion where its io will find it.
    pub(super) fn deliver(&mut self, io: u32, completion: Completion) {
        let value = match &completion.result {
            Err(error) => error.raw_os_error().unwrap_or(-1) as u64,
            Ok(Outcome::Received { buffer, filled, bytes }) => hash_bytes(&buffer[*filled..filled + bytes]),
            Ok(Outcome::Read { buffer, bytes }) => hash_bytes(&buffer[..*bytes]),
            Ok(Outcome::Sent { bytes, .. } | Outcome::SentFile { bytes }) => *bytes as u64,
            Ok(Outcome::Length(length)) => *length,
            Ok(_) => 0,
        };
        self.events.note("complete", completion.token.0, value);
        let state = &mut self.ios[io as usize];
        if state.is_alive {
            state.completions.push_back(completion);
        }
    }

    pub(super) fn new_file(&mut self, io: u32, inode: InodeId, options: OpenOptions) -> File {
        let index = self.handle();
        self.files.insert(index, OpenFile { io, inode, options });
        File::new(index, &self.ios[io as usize].dropped)
    }

    pub(super) fn new_socket(&mut self, io: u32, connection: ConnectionId, side: usize) -> Socket {
        let index = self.handle();
        self.sockets.insert(index, OpenSocket { io, connection, side });
        Socket::new(index, &self.ios[io as usize].dropped)
    }

    pub(super) fn new_listener(&mut self, io: u32) -> Listener {
        let index = self.handle();
        Listener::new(index, &self.ios[io as usize].dropped)
    }

    fn handle(&mut self) -> u32 {
        self.next_handle += 1;
        self.next_handle
    }

    /// Closes what an io dropped.
    pub(super) fn close_dropped(&mut self, io: u32) {
        let dropped = std::mem::take(&mut *self.ios[io as usize].dropped.borrow_mut());
        for (kind, index) in dropped {
            self.close_handle(kind, index);
        }
    }

    fn close_handle(&mut self, kind: Kind, index: u32) {
        match kind {
            Kind::File => {
                if let Some(open) = self.files.remove(&index) {
                    self.disk.close(open.inode);
                }
            }
            Kind::Socket => {
                if let Some(open) = self.sockets.remove(&index) {
                    self.close_side(open.connection, open.side);
                }
            }
            Kind::Listener => self.close_listener(index),
        }
    }

    // Running

    /// Lets the next event happen if it is due by `limit_ns`.
    pub(super) fn step(&mut self, limit_ns: u64) -> bool {
        let Some(event) = self.events.take(limit_ns) else { return false };
        match event {
            Event::DiskDone(op) => self.finish_disk(op),
            Event::Fail { op, errno } => self.fail_network(op, errno),
            Event::Pump { connection, side } => self.pump(connection, side),
            Event::Receive { connection, side } => self.receive(connection, side),
            Event::Bytes { connection, to, bytes } => self.bytes_arrive(connection, to, &bytes),
            Event::End { connection, to } => self.end_arrives(connection, to),
            Event::Reset { connection, to } => self.reset_arrives(connection, to),
            Event::Connect { op } => self.finish_connect(op),
            Event::Arrive { listener, connection } => self.connection_arrives(listener, connection),
            Event::SendFileBound(op) => self.send_file_bound(op),
        }
        true
    }

    /// Lets everything happen that is due by `limit_ns`, and moves the clock there.
    pub(super) fn run_until(&mut self, limit_ns: u64) {
        while self.step(limit_ns) {}
        self.events.advance_to(limit_ns);
    }

    // Ends

    /// The process is killed: its memory and handles are gone. What it had handed to the disk may still happen.
    pub(super) fn kill_process(&mut self) {
        coverage::hit("kill");
        self.events.note("kill", 0, 0);
        let left = self.end_process(false);
        self.orphan(left);
    }

    /// The disk operations of a dead process: some happen, after a while, others do not.
    pub(super) fn orphan(&mut self, left: Vec<OpId>) {
        for id in left {
            let survives = self.loss_rng.chance(1, 2);
            if survives {
                coverage::hit("kill: an operation outlives its process");
                let after_ns = self.loss_rng.in_range(self.options.outlive_ns.clone());
                self.events.schedule(after_ns, Event::DiskDone(id));
            } else {
                self.forget(id);
            }
        }
    }

    /// The power is cut. `met` is the write whose moment it is.
    pub(super) fn cut_power(&mut self, met: Option<(OpId, Tear)>) {
        coverage::hit(match &met {
            None => "power cut: at any moment",
            Some((_, Tear::Random)) => "power cut: at a write, by chance",
            Some((_, Tear::Lost)) => "power cut: at a write, lost",
            Some((_, Tear::Kept)) => "power cut: at a write, kept",
            Some((_, Tear::Blocks(_))) => "power cut: at a write, torn",
        });
        self.is_power_cut = true;
        self.power_cut_count += 1;
        self.events.note("power cut", self.power_cut_count, met.as_ref().map_or(u64::MAX, |(op, _)| *op));
        let mut in_flight = self.end_process(true);
        // What an earlier, killed process left is in flight as well.
        in_flight.extend(self.ops.iter().filter(|(_, op)| !self.ios[op.io as usize].is_alive).map(|(&id, _)| id));
        in_flight.sort_unstable();
        in_flight.dedup();
        self.apply_in_flight(in_flight, met);
    }

    /// True while writes of a process that was killed may still reach the disk.
    pub(super) fn has_orphans(&self) -> bool {
        self.ops.values().any(|op| !self.ios[op.io as usize].is_alive)
    }

    /// Takes the ios of the process down and returns their disk operations under way, whose events are dropped.
    fn end_process(&mut self, is_power_cut: bool) -> Vec<OpId> {
        let mut left = Vec::new();
        for io in 0..self.ios.len() as u32 {
            if self.ios[io as usize].is_alive && self.ios[io as usize].is_local {
                left.extend(self.end_io(io, is_power_cut));
            }
        }
        left
    }

    /// Takes one io down: closes its handles, forgets its network operations, and returns its disk operations. The
    /// kernel of a dead process closes its connections as usual; a machine without power leaves them to be reset.
    pub(super) fn end_io(&mut self, io: u32, is_power_cut: bool) -> Vec<OpId> {
        self.ios[io as usize].is_alive = false;
        self.ios[io as usize].completions.clear();
        let (disk, network): (Vec<OpId>, Vec<OpId>) =
            self.ops.iter().filter(|(_, op)| op.io == io).map(|(&id, _)| id).partition(|id| {
                !matches!(
                    OpKind::of(&self.ops[id].op),
                    OpKind::Accept | OpKind::Connect | OpKind::Recv | OpKind::Send | OpKind::SendFile
                )
            });
        for id in network {
            self.forget(id);
        }
        self.events.retain(|event| !matches!(event, Event::DiskDone(id) if disk.binary_search(id).is_ok()));
        let listeners: Vec<_> = self
            .network
            .listeners
            .iter()
            .filter(|(_, listening)| listening.io == io)
            .map(|(&index, _)| index)
            .collect();
        for listener in listeners {
            self.close_listener(listener);
        }
        let files: Vec<_> = self.files.iter().filter(|(_, open)| open.io == io).map(|(&index, _)| index).collect();
        for file in files {
            self.close_handle(Kind::File, file);
        }
        self.sockets.retain(|_, open| open.io != io);
        let sides: Vec<_> = self
            .network
            .connections
            .iter()
            .flat_map(|(&id, connection)| [0, 1].map(|side| (id, side, connection.sides[side].owner)))
            .filter(|(_, _, owner)| *owner == Owner::Io(io))
            .collect();
        for (connection, side, _) in sides {
            if is_power_cut {
                self.abort_side(connection, side);
            } else {
                self.close_side(connection, side);
            }
        }
        disk
    }

    /// Drops an operation without a completion.
    pub(super) fn forget(&mut self, id: OpId) {
        if let Some(pending) = self.ops.remove(&id)
            && let Some((inode, _)) = pending.file
        {
            self.disk.close(inode);
        }
    }

    /// A new io.
    pub(super) fn add_io(&mut self, name: &str, is_local: bool) -> u32 {
        if is_local {
            self.is_power_cut = false;
        }
        let io = self.ios.len() as u32;
        self.ios.push(IoState {
            name: name.to_string(),
            is_alive: true,
            is_local,
            dropped: Rc::default(),
            completions: VecDeque::new(),
        });
        io
    }
}
