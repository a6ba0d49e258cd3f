//! The face of a world: what a test can see and do from above.
//!
//! It holds no logic of its own; see [`super`] for how to use it.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::client::SimClient;
use super::contents::Tear;
use super::faults::Rule;
use super::options::{Loss, WorldOptions};
use super::record::WriteRecord;
use super::shard_io::SimIo;
use super::state::Inside;
use crate::base::time::{Monotonic, Now};
use crate::io::{DirEntry, OpenOptions};

/// A disk, a network and a clock in memory, driven by one seed. Clones are the same world.
#[derive(Clone)]
pub struct World {
    seed: u64,
    inside: Rc<RefCell<Inside>>,
}

impl World {
    /// A world whose whole history follows from `seed`, `options` and what is done to it.
    pub fn new(seed: u64, options: WorldOptions) -> World {
        World { seed, inside: Rc::new(RefCell::new(Inside::new(seed, options))) }
    }

    /// The seed, to be printed when something fails.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A shard's `Io`, with a pool of `pool_budget_bytes`. It belongs to *the process*: power cuts and kills end it.
    /// After a power cut the first one made turns the machine on again.
    pub fn io(&self, name: &str, pool_budget_bytes: usize) -> SimIo {
        let io = self.inside().add_io(name, true);
        SimIo::new(self.clone(), io, pool_budget_bytes)
    }

    /// An `Io` of another machine, for clients: power cuts and kills do not end it. Its files are on the same disk,
    /// so it should not use any.
    pub fn remote_io(&self, name: &str, pool_budget_bytes: usize) -> SimIo {
        let io = self.inside().add_io(name, false);
        SimIo::new(self.clone(), io, pool_budget_bytes)
    }

    // Time

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.inside().events.now()
    }

    /// When the next event will happen, if any is to come.
    pub fn next_event_at(&self) -> Option<Monotonic> {
        self.inside().events.next_at_ns().map(Monotonic)
    }

    /// Lets one event happen, moving the clock to it; false if none is to come.
    pub fn step(&self) -> bool {
        self.inside().step(u64::MAX)
    }

    /// Moves the clock to the next event and lets everything of that moment happen; false if nothing is to come.
    pub fn advance_to_next_event(&self) -> bool {
        let mut inside = self.inside();
        let Some(at_ns) = inside.events.next_at_ns() else { return false };
        inside.run_until(at_ns);
        true
    }

    /// Lets everything happen until `until`, and moves the clock there unless it is later already.
    pub fn advance_to(&self, until: Monotonic) {
        self.inside().run_until(until.0);
    }

    /// Lets everything happen for so long.
    pub fn advance(&self, duration: Duration) {
        let until = self.now().monotonic + duration;
        self.advance_to(until);
    }

    /// Sets the wall clock forward or back; the monotonic one goes on as it is.
    pub fn jump_wall(&self, by_ms: i64) {
        let mut inside = self.inside();
        inside.events.note("wall clock", by_ms as u64, 0);
        inside.events.jump_wall(by_ms);
    }

    // Power and processes

    /// Cuts the power: every io of the process is dead, what was in flight is applied in part or not at all, and what
    /// was not synced is lost as the options say. Clients are reset.
    pub fn power_cut(&self) {
        self.inside().cut_power(None);
    }

    /// True from a power cut until the next [`io`](Self::io).
    pub fn is_power_cut(&self) -> bool {
        self.inside().is_power_cut
    }

    /// Power cuts so far.
    pub fn power_cut_count(&self) -> u64 {
        self.inside().power_cut_count
    }

    /// Cuts the power when the write with this [`WriteRecord::index`] is due, and leaves of it what `tear` says.
    /// What else is in flight or not synced at that moment is lost as the options say.
    pub fn cut_power_at_write(&self, index: u64, tear: Tear) {
        self.on_write(move |write| (write.index == index).then(|| tear.clone()));
    }

    /// Calls `hook` for each write as it is handed over; an answer cuts the power when that write is due. The hook
    /// must not use the world.
    pub fn on_write(&self, hook: impl FnMut(&WriteRecord) -> Option<Tear> + 'static) {
        self.inside().write_hooks.push(Box::new(hook));
    }

    /// Forgets the hooks of [`on_write`](Self::on_write) and [`cut_power_at_write`](Self::cut_power_at_write).
    pub fn clear_write_hooks(&self) {
        self.inside().write_hooks.clear();
    }

    /// Kills the process: every io of it is dead, and the kernel closes its connections (what it had sent still
    /// arrives; unread bytes make it a reset). The disk and the page cache keep
    /// everything that had completed; operations in flight may still happen for a while, see
    /// [`lock_is_free`](Self::lock_is_free).
    pub fn kill_process(&self) {
        self.inside().kill_process();
    }

    /// True once nothing that a killed process left in flight can reach the disk any more: the lock of a data
    /// directory, which lives as long as the last write, can be had. A start that does not wait for this reads a
    /// disk that still changes.
    pub fn lock_is_free(&self) -> bool {
        !self.inside().has_orphans()
    }

    /// Lets time pass until [`lock_is_free`](Self::lock_is_free).
    pub fn wait_for_lock(&self) {
        while !self.lock_is_free() {
            assert!(self.step(), "what a killed process left in flight has an event");
        }
    }

    // Faults

    /// Adds a rule for faults.
    pub fn inject(&self, rule: Rule) {
        self.inside().faults.add(rule);
    }

    /// Removes all rules for faults.
    pub fn clear_faults(&self) {
        self.inside().faults.clear();
    }

    /// Changes the size of the disk; what is there stays.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.inside().disk.set_capacity(capacity_bytes);
    }

    /// Bytes that files occupy on the disk.
    pub fn occupied_bytes(&self) -> u64 {
        self.inside().disk.occupied_bytes()
    }

    /// Changes what the next power cut does.
    pub fn set_loss(&self, loss: Loss) {
        self.inside().options.loss = loss;
    }

    /// Changes how the world behaves from now on; the capacity and the wall clock's start are taken no notice of.
    pub fn change_options(&self, change: impl FnOnce(&mut WorldOptions)) {
        change(&mut self.inside().options);
    }

    /// Overwrites stored bytes behind everyone's back: a rotten disk. Bytes behind the file's end are left out.
    pub fn rot(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inside = self.inside();
        let inode = inside.disk.file_at(path.as_ref())?;
        inside.disk.change_contents(inode, |contents| contents.rot(offset, bytes));
        Ok(())
    }

    // Looking and preparing, in no time

    /// Writes handed over so far, in order.
    pub fn writes(&self) -> Vec<WriteRecord> {
        self.inside().writes.clone()
    }

    /// The number of writes handed over so far: the next one's index.
    pub fn write_count(&self) -> u64 {
        self.inside().writes.len() as u64
    }

    /// A file's bytes as a reader would see them.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let inside = self.inside();
        let contents = inside.disk.contents(inside.disk.file_at(path.as_ref())?);
        let mut bytes = vec![0; contents.length_bytes() as usize];
        contents.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Creates or replaces a file with these bytes; bytes and name are durable.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let path = path.as_ref();
        let mut inside = self.inside();
        let disk = &mut inside.disk;
        let inode = disk.open(path, OpenOptions { write: true, create: true, ..OpenOptions::default() })?;
        let write = disk.next_write();
        disk.change_contents(inode, |contents| {
            contents.truncate(write, 0);
            contents.write(write, 0, bytes);
            contents.sync(write);
        });
        disk.close(inode);
        let last = disk.last_write();
        disk.sync_dir(path.parent().unwrap_or(Path::new("/")), last)
    }

    /// Creates a directory and those above it, durably.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut inside = self.inside();
        let mut above: Vec<_> = path.as_ref().ancestors().collect();
        above.reverse();
        for path in above {
            inside.disk.create_dir(path)?;
            if let Some(parent) = path.parent() {
                let last = inside.disk.last_write();
                inside.disk.sync_dir(parent, last)?;
            }
        }
        Ok(())
    }

    /// A directory's entries by name.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
        self.inside().disk.list(path.as_ref())
    }

    /// A hash of everything that has happened: equal for equal seeds.
    pub fn trace_hash(&self) -> u64 {
        self.inside().events.trace_hash()
    }

    /// The last facts of the trace, oldest first, if [`WorldOptions::trace_line_count_max`] asks for them: the time in
    /// nanoseconds, the operation or event, its token or connection, and a hash of what went with it.
    pub fn trace_lines(&self) -> Vec<String> {
        self.inside().events.lines().cloned().collect()
    }

    // The network

    /// Connects a synchronous client. `ECONNREFUSED` if nobody listens.
    pub fn connect(&self, address: SocketAddr) -> io::Result<SimClient> {
        SimClient::connect(self.clone(), address)
    }

    /// Resets every connection: a switch that lost its tables.
    pub fn reset_connections(&self) {
        let mut inside = self.inside();
        let connections: Vec<_> = inside.network.connections.keys().copied().collect();
        for connection in connections {
            inside.reset_arrives(connection, 0);
            inside.reset_arrives(connection, 1);
        }
    }

    pub(super) fn inside(&self) -> RefMut<'_, Inside> {
        self.inside.borrow_mut()
    }

    pub(super) fn try_inside(&self) -> Option<RefMut<'_, Inside>> {
        self.inside.try_borrow_mut().ok()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(seed {})", self.seed)
    }
}
