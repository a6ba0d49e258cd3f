//! [`Ring`]: fields, the face towards the shard, routing, and the end.
//!
//! The end: what was not handed to the kernel is taken back, everything else is cancelled and waited for, without a
//! bound, because the kernel may write into a buffer or read from it until then. Only then do slots (buffers, pipes),
//! descriptors, registered files (with them this ring's share of the data lock) and the ring itself go, in this
//! order.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use io_uring::{cqueue, opcode, squeue, types};

use super::delays::Delays;
use super::lock::DataLock;
use super::names::c_path;
use super::options::{RingOptions, WORKER_UNBOUNDED_DEFAULT};
use super::pipes::Pipes;
use super::queue::Queue;
use super::send_file::Stage;
use super::setup::{REGISTERED_PIECE_BYTES, RingError, RingReport, make_pool, set_up};
use super::slots::{Slots, Step, UserData, Work};
use super::sockets::Frame;
use super::table::Table;
use super::wake::Wake;
use crate::base::time::{Monotonic, Now, Timestamp};
use crate::io::handle::{Dropped, Kind};
use crate::io::{Completion, Io, Listener, Op, Outcome, Pool, Socket, Space, Token, TransferLimit};

/// What a ring has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// System calls to submit and wait.
    pub enter_count: u64,
    /// Requests that had to wait for room in the submission queue.
    pub backlog_count: u64,
    /// System calls that found completions overflowed.
    pub overflow_count: u64,
    /// Times that accepting had to pause, mostly for want of descriptors.
    pub accept_pause_count: u64,
    /// Zero-copy sends that were repeated with copying.
    pub zero_copy_refused_count: u64,
    /// Operations under way.
    pub slot_used_count: u64,
    /// Pipes lent to file sends now.
    pub pipe_lent_count: u64,
}

/// Time, disk and network through one io_uring.
pub struct Ring {
    pub(super) queue: Queue,
    pub(super) slots: Slots,
    pub(super) table: Table,
    pub(super) dropped: Dropped,
    /// Completions that the next poll hands over.
    pub(super) ready: Vec<Completion>,
    pub(super) delays: Delays,
    pub(super) pipes: Pipes,
    /// See [`TransferLimit`].
    pub(super) transfer_bytes_max: Option<usize>,
    /// Message headers of sends, for reuse. Boxed, because the kernel knows their addresses.
    #[allow(clippy::vec_box)]
    pub(super) frames: Vec<Box<Frame>>,
    pub(super) report: RingReport,
    pub(super) counters: RingCounters,
    /// Until a device has refused.
    pub(super) device_writes_zeros: bool,
    pub(super) zero_copy_min_bytes: Option<usize>,
    wake: Arc<Wake>,
    /// Where the eventfd is read into; its address is the kernel's while `wake_armed`.
    wake_value: Box<u64>,
    wake_armed: bool,
    /// Descriptors that the kernel is closing.
    closing_count: usize,
    spin: Duration,
    pool: Pool,
    /// Addresses of memory that is registered.
    registered: Range<usize>,
    /// The clock at the last `now`, which spares `poll` a look at it.
    last_now: Monotonic,
    /// When it was last said in the log that accepting had to pause.
    pub(super) accept_warned: Option<Monotonic>,
    /// Kernel completions being looked at. Reused.
    scratch: Vec<cqueue::Entry>,
}

impl Ring {
    /// A ring with a pool of `pool_budget_bytes`, to be used by the calling thread only. It keeps `lock` held until
    /// its last write is done.
    pub fn new(options: RingOptions, pool_budget_bytes: usize, lock: Option<&DataLock>) -> Result<Ring, RingError> {
        let (ring, mut report) = set_up(&options, lock)?;
        let pool = make_pool(&ring, &options, pool_budget_bytes, &mut report);
        let registered = pool.arena().filter(|_| report.registered_buffer_bytes > 0);
        let wake = Wake::new().map_err(|source| RingError::Other { step: "making an eventfd", source })?;
        let pipe_count = match options.worker_unbounded_max {
            0 => WORKER_UNBOUNDED_DEFAULT,
            count => count,
        };
        let zero_copy_min_bytes = options.send_zero_copy_min_bytes.filter(|_| report.send_zero_copy);
        Ok(Ring {
            queue: Queue::new(ring, options.sqpoll.is_some()),
            slots: Slots::default(),
            table: Table::new(report.fixed_file_count),
            dropped: Rc::new(RefCell::new(Vec::new())),
            ready: Vec::new(),
            delays: Delays::default(),
            pipes: Pipes::new(pipe_count as usize),
            transfer_bytes_max: None,
            frames: Vec::new(),
            report,
            counters: RingCounters::default(),
            device_writes_zeros: true,
            zero_copy_min_bytes,
            wake,
            wake_value: Box::new(0),
            wake_armed: false,
            closing_count: 0,
            spin: Duration::from_micros(u64::from(options.spin_us)),
            pool,
            registered: registered.map_or(0..0, |(start, size)| start..start + size),
            last_now: Monotonic::default(),
            accept_warned: None,
            scratch: Vec::new(),
        })
    }

    /// What the ring got of what it was asked for.
    pub fn report(&self) -> &RingReport {
        &self.report
    }

    /// What it has done so far.
    pub fn counters(&self) -> RingCounters {
        RingCounters {
            enter_count: self.queue.enter_count,
            backlog_count: self.queue.backlog_count,
            overflow_count: self.queue.overflow_count,
            slot_used_count: self.slots.used_count() as u64,
            pipe_lent_count: self.pipes.lent_count() as u64,
            ..self.counters
        }
    }

    /// Queues a request of a slot.
    ///
    /// # Safety
    /// What `entry` points to must be owned by the slot, at an address that does not change.
    #[inline]
    pub(super) unsafe fn start(&mut self, index: u32, step: Step, entry: squeue::Entry) {
        let entry = self.slots.begin(index, step, entry);
        // SAFETY: the caller's promise, and a slot lives until its last completion.
        unsafe { self.queue.push(entry) };
    }

    /// Ends an operation.
    pub(super) fn finish(&mut self, index: u32, result: io::Result<Outcome>) {
        let token = self.slots.remove(index);
        self.ready.push(Completion { token, more: false, result });
    }

    /// Ends an operation with the kernel's error.
    pub(super) fn fail(&mut self, index: u32, result: i32) {
        let interrupted = result == -libc::EINTR && self.slots.is_cancelled(index);
        self.finish(index, Err(super::disk::error(if interrupted { -libc::ECANCELED } else { result })));
    }

    /// True if a request that ended with `result` is simply made again.
    pub(super) fn is_retry(&self, index: u32, result: i32) -> bool {
        matches!(-result, libc::EINTR | libc::EAGAIN) && !self.slots.is_cancelled(index)
    }

    /// The number of the registered buffer that holds the memory, if one does.
    pub(super) fn registered_index(&self, memory: *const u8) -> Option<u16> {
        let at = memory.addr();
        self.registered.contains(&at).then(|| ((at - self.registered.start) / REGISTERED_PIECE_BYTES) as u16)
    }

    pub(super) fn read_monotonic(&self) -> Monotonic {
        monotonic()
    }

    fn route(&mut self, index: u32, op: Op) -> io::Result<()> {
        match op {
            Op::Accept { listener } => self.accept(index, listener),
            Op::Connect { address } => self.connect(index, address),
            Op::Recv { socket, buffer, filled } => self.receive(index, socket, buffer, filled),
            Op::Send { socket, gather } => self.send(index, socket, gather),
            Op::SendFile { socket, file, offset, length_bytes } => {
                self.send_file(index, socket, file, offset, length_bytes);
            }
            Op::Open { path, options } => self.open(index, c_path(path)?, options),
            Op::Read { file, offset, buffer, length_bytes } => self.read(index, file, offset, buffer, length_bytes),
            Op::Write { file, offset, slice, sync } => self.write(index, file, offset, slice, sync),
            Op::WriteZeros { file, offset, length_bytes } => self.write_zeros(index, file, offset, length_bytes),
            Op::Allocate { file, offset, length_bytes } => self.allocate(index, file, offset, length_bytes),
            Op::Sync { file } => self.sync(index, file),
            Op::Truncate { file, length_bytes } => self.truncate(index, file, length_bytes),
            Op::Length { file } => self.length(index, file),
            Op::DropCache { file } => self.drop_cache(index, file),
            Op::Rename { from, to } => self.rename(index, c_path(from)?, c_path(to)?),
            Op::Remove { path } => self.remove(index, c_path(path)?),
            Op::RemoveDir { path } => self.remove_dir(index, c_path(path)?),
            Op::CreateDir { path } => self.create_dir(index, c_path(path)?),
            Op::SyncDir { path } => self.sync_dir(index, c_path(path)?),
            Op::List { path } => self.list(index, path),
        }
        Ok(())
    }

    /// Takes the kernel's completions that are there, and the next steps of what they belong to.
    fn reap(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.queue.reap(&mut scratch);
        for entry in scratch.drain(..) {
            self.complete(UserData::from(entry.user_data()), entry.result(), cqueue::more(entry.flags()));
        }
        self.scratch = scratch;
    }

    #[inline]
    fn complete(&mut self, data: UserData, result: i32, more: bool) {
        match data.step {
            Step::Wake => return self.wake_armed = false,
            Step::Cancel => return,
            Step::Close => return self.closing_count -= 1,
            Step::Only | Step::Writable | Step::SpliceIn | Step::SpliceOut => {}
        }
        let index = data.index;
        crate::invariant!(!self.slots.is_stale(index, data.generation), "a completion for a slot that is free");
        if !more {
            self.slots.end(index);
        }
        match self.slots.take(index) {
            Work::Receive(work) => self.receive_done(index, work, result),
            Work::Send(work) => self.send_done(index, work, result, more),
            Work::Write(work) => self.write_done(index, work, result),
            Work::Read(work) => self.read_done(index, work, result),
            Work::SendFile(work) => self.send_file_done(index, work, data.step, result),
            Work::Accept(work) => self.accept_done(index, work, result, more),
            Work::Connect(work) => self.connect_done(index, work, result),
            Work::Open(work) => self.open_done(index, work, result),
            Work::Zero(work) => self.zeros_done(index, work, result),
            Work::Simple(work) => self.simple_done(index, work, result),
            Work::SyncDir(work) => self.sync_dir_done(index, work, result),
            Work::Free => unreachable!("a slot in flight has work"),
        }
    }

    /// Queues the closing of what no handle names any more.
    fn close_dropped(&mut self) {
        if self.dropped.borrow().is_empty() {
            return;
        }
        for (kind, index) in self.dropped.take() {
            let fd = self.table.remove(self.queue.ring(), index);
            let mut entry = opcode::Close::new(types::Fd(fd)).build().user_data(UserData::slotless(Step::Close));
            if kind == Kind::File {
                // The last close of a removed file gives its blocks back, which takes time: not on this thread.
                entry = entry.flags(squeue::Flags::ASYNC);
            }
            self.closing_count += 1;
            // SAFETY: the entry points to nothing.
            unsafe { self.queue.push(entry) };
        }
    }

    /// Acts on the delays that have passed.
    fn expire_delays(&mut self) {
        if self.delays.is_empty() {
            return;
        }
        let (slots, now) = (&self.slots, monotonic());
        self.delays.skip(|delay| slots.is_stale(delay.index, delay.generation));
        while let Some(delay) = self.delays.pop_due(now) {
            if self.slots.is_stale(delay.index, delay.generation) {
                continue;
            }
            match self.slots.work(delay.index) {
                Work::Accept(work) if work.paused => {
                    let listener = work.listener.clone();
                    self.accept(delay.index, listener);
                }
                Work::SendFile(work) if matches!(work.stage, Stage::Room) => {
                    self.cancel_request(delay.index, Step::Writable);
                }
                _ => {}
            }
        }
    }

    /// Asks the kernel to end one request of a slot early.
    fn cancel_request(&mut self, index: u32, step: Step) {
        let target = UserData { index, generation: self.slots.generation(index), step };
        let entry = opcode::AsyncCancel::new(target.into()).build().user_data(UserData::slotless(Step::Cancel));
        // SAFETY: the entry points to nothing.
        unsafe { self.queue.push(entry) };
    }

    fn cancel_slot(&mut self, index: u32) {
        self.slots.set_cancelled(index);
        if self.slots.slot_in_flight(index) == 0 {
            // It waits for us and not for the kernel: a pause, or a pipe.
            self.slots.take(index);
            return self.fail(index, -libc::ECANCELED);
        }
        match self.slots.work(index) {
            Work::SendFile(work) if matches!(work.stage, Stage::Room) => self.cancel_request(index, Step::Writable),
            Work::SendFile(_) => {
                self.cancel_request(index, Step::SpliceIn);
                self.cancel_request(index, Step::SpliceOut);
            }
            Work::Send(work) if work.awaits_notification() => self.abort_send(work),
            _ => self.cancel_request(index, Step::Only),
        }
    }

    /// Looks for completions for a while before sleeping. True if there is something.
    fn spin(&mut self, until: Option<Monotonic>) -> bool {
        let start = monotonic();
        loop {
            if self.queue.has_completions() || self.queue.needs_enter() || self.wake.is_notified() {
                return true;
            }
            let now = monotonic();
            if now.since(start) >= self.spin || until.is_some_and(|until| now >= until) {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Hands over and waits until something completes, the waker is called or `until` has come.
    fn sleep(&mut self, until: Option<Monotonic>) {
        if !self.wake_armed {
            let address: *mut u64 = &raw mut *self.wake_value;
            let entry = opcode::Read::new(types::Fd(self.wake.event()), address.cast(), size_of::<u64>() as u32);
            self.wake_armed = true;
            // SAFETY: the value is on the heap of this ring, whose drop waits for the request to end.
            unsafe { self.queue.push(entry.build().user_data(UserData::slotless(Step::Wake))) };
        }
        if !self.queue.flush_backlog() {
            // The queue took no more: what is under way must be let on first.
            return self.hand_over();
        }
        let until = [until, self.delays.next()].into_iter().flatten().min();
        let timeout = until.map(|until| until.since(monotonic()));
        if !self.wake.fall_asleep() {
            return self.hand_over();
        }
        let result = self.queue.submit_and_wait(timeout);
        // A notification stays noticed: the caller asks for it. Here only the state changes back.
        self.wake.stay_awake();
        Self::check(result);
    }

    fn hand_over(&mut self) {
        let result = self.queue.submit();
        Self::check(result);
    }

    fn check(result: io::Result<()>) {
        let Err(error) = result else { return };
        match error.raw_os_error() {
            // The deadline; a signal; completions to be taken first; no memory for now. All are tried again.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
            _ => panic!("the ring cannot be entered: {error}"),
        }
    }

    /// At the end: a completion of a slot whose operation nobody waits for.
    fn let_go(&mut self, index: u32, result: i32, more: bool) {
        let opened = match self.slots.work(index) {
            Work::Accept(_) | Work::Open(_) => result >= 0,
            Work::SyncDir(work) => result >= 0 && work.is_opening(),
            _ => false,
        };
        if opened {
            // SAFETY: the kernel has just made the descriptor for us; nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(result) });
        }
        if !more {
            self.slots.end(index);
        }
    }

    fn is_past(&self, until: Option<Monotonic>) -> bool {
        until.is_some_and(|until| until <= self.last_now || until <= monotonic())
    }
}

impl Io for Ring {
    fn now(&mut self) -> Now {
        self.last_now = monotonic();
        Now { monotonic: self.last_now, wall: wall() }
    }

    fn submit(&mut self, token: Token, op: Op) {
        let index = self.slots.insert(token);
        if let Err(error) = self.route(index, op) {
            self.finish(index, Err(error));
        }
    }

    fn cancel(&mut self, token: Token) {
        for index in self.slots.with_token(token) {
            self.cancel_slot(index);
        }
    }

    fn poll(&mut self, until: Option<Monotonic>, completions: &mut Vec<Completion>) {
        self.close_dropped();
        self.expire_delays();
        if self.queue.has_completions() {
            self.reap();
        }
        loop {
            let flushed = self.queue.flush_backlog();
            let idle = self.ready.is_empty() && flushed && !self.wake.is_notified() && !self.is_past(until);
            if idle && (self.spin.is_zero() || !self.spin(until)) {
                self.sleep(until);
            } else if self.queue.needs_enter() {
                self.hand_over();
            }
            self.reap();
            if !self.ready.is_empty() || self.wake.is_notified() || self.is_past(until) {
                if self.queue.flush_backlog() {
                    break;
                }
                continue;
            }
            self.expire_delays();
        }
        self.wake.take_notification();
        completions.append(&mut self.ready);
    }

    fn waker(&self) -> Waker {
        Waker::from(self.wake.clone())
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
        self.open_listener(address)
    }

    fn shutdown(&mut self, socket: &Socket) {
        self.shut_down(socket);
    }

    fn space(&mut self, path: &Path) -> io::Result<Space> {
        super::names::space(path)
    }

    fn limit_transfers(&mut self, limit: TransferLimit) {
        self.pipes.limit(limit.count_max);
        self.transfer_bytes_max = limit.size_bytes_max;
        self.start_waiting_for_pipes();
    }

    fn transfer_count(&self) -> usize {
        self.pipes.lent_count()
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for data in self.queue.take_backlog().map(UserData::from).collect::<Vec<_>>() {
            match data.step {
                Step::Wake => self.wake_armed = false,
                Step::Close => self.closing_count -= 1,
                Step::Cancel => {}
                _ => self.slots.end(data.index),
            }
        }
        let mut asked = false;
        while self.slots.in_flight() > 0 || self.wake_armed || self.closing_count > 0 {
            if !asked {
                let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
                // SAFETY: the entry points to nothing.
                unsafe { self.queue.push(entry.user_data(UserData::slotless(Step::Cancel))) };
                asked = true;
            }
            self.queue.flush_backlog();
            for work in self.slots.works() {
                if let Work::Send(work) = work {
                    self.abort_send(work);
                }
            }
            // Errors pass: a signal, a full completion queue.
            let _ = self.queue.submit_and_wait(Some(Duration::from_millis(100)));
            let mut scratch = std::mem::take(&mut self.scratch);
            self.queue.reap(&mut scratch);
            for entry in scratch.drain(..) {
                let data = UserData::from(entry.user_data());
                match data.step {
                    Step::Wake => self.wake_armed = false,
                    Step::Close => self.closing_count -= 1,
                    Step::Cancel => {}
                    _ => self.let_go(data.index, entry.result(), cqueue::more(entry.flags())),
                }
            }
            self.scratch = scratch;
        }
        self.slots = Slots::default();
        self.ready.clear();
        self.dropped.borrow_mut().clear();
        self.table.clear();
        // Explicitly, for the kernel tears a closed ring down later: the lock must be free when we return.
        if self.report.holds_data_lock || self.report.fixed_file_count > 0 {
            let _ = self.queue.ring().submitter().unregister_files();
        }
    }
}

fn monotonic() -> Monotonic {
    let time = clock(libc::CLOCK_MONOTONIC);
    Monotonic(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn wall() -> Timestamp {
    let time = clock(libc::CLOCK_REALTIME);
    Timestamp(time.tv_sec * 1000 + time.tv_nsec / 1_000_000)
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the structure, which outlives it. Both clocks exist on every Linux, so it succeeds.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}
