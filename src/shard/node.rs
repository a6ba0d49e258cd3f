//! A node: all shards of a process, from the data directory's lock to the last synced byte.
//!
//! 1. The directory is locked; what a killed process still writes is waited for.
//! 2. Shard 0 recovers the metadata log. Together with the start that is about to be recorded it says who owns what.
//! 3. Every shard recovers its partitions, listens, and greets the controller, which records the start: leader epochs
//!    are raised durably before anything is served.
//! 4. [`Node::stop`] has every shard close its logs; the next start recovers nothing.
//!
//! The control thread is the caller's. It never touches a ring.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clean_stop;
use super::controller_host::ControllerHost;
use super::event_loop::Shard;
use super::mailbox::Mailboxes;
use super::metadata_log::{MetadataLog, MetadataLogError};
use super::threads;
use crate::base::rng::Rng;
use crate::base::units::MIB;
use crate::controller::controller::Controller;
use crate::controller::image::Image;
use crate::controller::records::{DATA_FORMAT, Record};
use crate::handlers::broker::Broker;
use crate::handlers::bus::Message;
use crate::handlers::endpoints::Endpoint;
use crate::handlers::options::BrokerOptions;
use crate::handlers::start::Recovered;
use crate::io::Io;
use crate::io::uring::{DataLock, LockError, Ring, RingError, RingOptions, RingReport};
use crate::model::id::ShardId;
use crate::storage::journal::JournalError;
use crate::storage::{FileCache, LogOptions, Resources, TailBudget};
use crate::telemetry::Counters;

/// How long the last writes of a killed process are waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Sealed files and sidecars that one shard keeps open.
const OPEN_FILE_COUNT_MAX: usize = 256;
/// Sidecars that one shard keeps in memory.
const SIDECAR_SIZE_BYTES_MAX: usize = 8 * MIB;
/// How often a start looks whether every shard's thread is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long counters are waited for.
const REPORT_WAIT: Duration = Duration::from_secs(5);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What all shards share.
    pub broker: BrokerOptions,
    /// One address per shard; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// What clients are told, one per shard; port 0 stands for the port that was bound.
    pub advertise: Vec<Endpoint>,
    /// The rings.
    pub ring: RingOptions,
    /// The CPU of each shard's thread; empty: not pinned.
    pub cpus: Vec<usize>,
    /// Where random numbers begin; the same seed gives the same ids.
    pub seed: u64,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be made.
    #[error("the data directory {} cannot be made: {source}", path.display())]
    DataDirectory {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel gives no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataLogError),
    /// What was acknowledged may be missing.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An address cannot be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// A thread cannot be started, or has ended before it served.
    #[error("shard {shard}: {what}")]
    Thread {
        /// Whose.
        shard: ShardId,
        /// What happened.
        what: String,
    },
}

/// What one shard says when clients can connect.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which shard.
    pub shard: ShardId,
    /// Its CPU, if it is pinned.
    pub cpu: Option<usize>,
    /// Where clients find it.
    pub endpoint: Endpoint,
    /// What its ring got.
    pub ring: RingReport,
    /// What recovery took.
    pub recovered: Recovered,
}

/// A running node.
pub struct Node {
    mailboxes: Mailboxes<Message>,
    threads: Vec<JoinHandle<()>>,
    reports: Vec<ShardReport>,
    _lock: Arc<DataLock>,
}

/// What a shard is started with, whatever thread and world it runs on.
pub(super) struct Place {
    pub shard: ShardId,
    pub options: Arc<BrokerOptions>,
    pub listen: SocketAddr,
    pub advertise: Endpoint,
    pub seed: u64,
    pub mailboxes: Mailboxes<Message>,
}

/// What a shard's thread needs.
struct Seat {
    place: Place,
    ring: RingOptions,
    cpu: Option<usize>,
    lock: Arc<DataLock>,
    ready: mpsc::Sender<Result<ShardReport, NodeError>>,
}

impl Node {
    /// Starts every shard and returns when clients can connect.
    pub fn start(options: NodeOptions) -> Result<Node, NodeError> {
        let data = options.broker.layout.data_dir().to_owned();
        std::fs::create_dir_all(&data).map_err(|source| NodeError::DataDirectory { path: data.clone(), source })?;
        let lock = Arc::new(DataLock::acquire_within(&data, LOCK_WAIT)?);
        let shard_count = usize::from(options.broker.shard_count);
        let mailboxes = Mailboxes::new(shard_count);
        let shared = Arc::new(options.broker.clone());
        let mut rng = Rng::new(options.seed);
        let (ready, is_ready) = mpsc::channel();
        let mut seats: Vec<Seat> = (0..shard_count)
            .map(|shard| Seat {
                place: Place {
                    shard: ShardId(shard as u16),
                    options: shared.clone(),
                    listen: options.listen[shard],
                    advertise: options.advertise[shard].clone(),
                    seed: rng.next_u64(),
                    mailboxes: mailboxes.clone(),
                },
                ring: options.ring.clone(),
                cpu: options.cpus.get(shard).copied(),
                lock: lock.clone(),
                ready: ready.clone(),
            })
            .collect();
        drop(ready);
        let first = seats.remove(0);
        let mut node = Node { mailboxes, threads: Vec::new(), reports: Vec::new(), _lock: lock };

        let (images, image) = mpsc::channel();
        node.spawn(first, move |seat, io| seat.run_first(io, &images))?;
        let Ok(image) = image.recv() else { return Err(node.abort(&is_ready)) };
        for seat in seats {
            let image = Arc::clone(&image);
            node.spawn(seat, move |seat, io| seat.run_other(io, image))?;
        }
        while node.reports.len() < shard_count {
            match is_ready.recv_timeout(LOOK_EVERY) {
                Ok(Ok(report)) => node.reports.push(report),
                Ok(Err(error)) => {
                    node.stop_threads();
                    return Err(error);
                }
                // The others wait for a shard that has ended, and would for ever.
                Err(RecvTimeoutError::Timeout) if !node.is_broken() => {}
                Err(_) => return Err(node.abort(&is_ready)),
            }
        }
        node.reports.sort_by_key(|report| report.shard);
        Ok(node)
    }

    /// What every shard said when it was ready, in shard order.
    pub fn reports(&self) -> &[ShardReport] {
        &self.reports
    }

    /// Each shard's counters, in shard order.
    pub fn counters(&self) -> Vec<Counters> {
        let (sender, receiver) = mpsc::channel();
        for shard in 0..self.mailboxes.shard_count() {
            // A full inbox belongs to a busy shard: its counters are left out.
            let _ = self.mailboxes.send(ShardId(shard as u16), Message::Report(sender.clone()));
        }
        drop(sender);
        let until = Instant::now() + REPORT_WAIT;
        let mut counters = Vec::new();
        while let Ok(counted) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            counters.push(counted);
        }
        counters.sort_by_key(|(shard, _)| *shard);
        counters.into_iter().map(|(_, counters)| counters).collect()
    }

    /// Stops cleanly: connections end, everything becomes durable, the next start needs no recovery.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    /// True if a shard's thread has ended by itself: the node must be stopped.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    fn stop_threads(&mut self) {
        for shard in 0..self.mailboxes.shard_count() {
            let mut message = Message::Stop;
            while let Err(refused) = self.mailboxes.send(ShardId(shard as u16), message) {
                if self.threads.get(shard).is_none_or(JoinHandle::is_finished) {
                    break;
                }
                message = refused;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard's thread has panicked");
            }
        }
    }

    /// A shard has ended before it was ready; what it said is the cause.
    fn abort(&mut self, is_ready: &mpsc::Receiver<Result<ShardReport, NodeError>>) -> NodeError {
        let said = is_ready.try_iter().find_map(Result::err);
        self.stop_threads();
        said.unwrap_or(NodeError::Thread { shard: ShardId(0), what: "its thread has ended".into() })
    }

    fn spawn(
        &mut self,
        seat: Seat,
        body: impl FnOnce(Seat, Ring) -> Result<(), NodeError> + Send + 'static,
    ) -> Result<(), NodeError> {
        let (shard, cpu) = (seat.place.shard, seat.cpu);
        let thread = threads::spawn(shard, cpu, move || {
            let ready = seat.ready.clone();
            let result = seat.ring().and_then(|ring| body(seat, ring));
            if let Err(error) = result {
                let _ = ready.send(Err(error));
            }
        });
        self.threads.push(thread.map_err(|error| NodeError::Thread { shard, what: error.to_string() })?);
        Ok(())
    }
}

impl Seat {
    /// The ring, made on the thread that uses it.
    fn ring(&self) -> Result<Ring, NodeError> {
        Ok(Ring::new(self.ring.clone(), self.place.options.pool_size_bytes, Some(&self.lock))?)
    }

    fn run_first(self, mut io: Ring, images: &mpsc::Sender<Arc<Image>>) -> Result<(), NodeError> {
        let resources = resources(&io, &self.place.options);
        let (host, image) = self.place.open_controller(&mut io, resources.clone())?;
        let _ = images.send(image.clone());
        self.serve(io, image, resources, Some(host))
    }

    fn run_other(self, io: Ring, image: Arc<Image>) -> Result<(), NodeError> {
        let resources = resources(&io, &self.place.options);
        self.serve(io, image, resources, None)
    }

    fn serve(
        self,
        io: Ring,
        image: Arc<Image>,
        resources: Resources,
        host: Option<ControllerHost>,
    ) -> Result<(), NodeError> {
        let ring = io.report().clone();
        let shard = self.place.shard;
        let (mut opened, endpoint, recovered) = self.place.open_shard(io, image, resources, host)?;
        let report = ShardReport { shard, cpu: self.cpu, endpoint, ring, recovered };
        let ready = self.ready;
        opened.run(move |_| drop(ready.send(Ok(report))));
        Ok(())
    }
}

impl Place {
    /// Recovers the metadata log: the controller, and the metadata for every shard to begin with. The first shard's.
    pub(super) fn open_controller(
        &self,
        io: &mut impl Io,
        resources: Resources,
    ) -> Result<(ControllerHost, Arc<Image>), MetadataLogError> {
        let (log, image) = open_metadata(io, &self.options, resources)?;
        let preview = Arc::new(preview(&image, &self.options));
        let config = Arc::new(self.options.config.clone());
        let controller = Controller::new(config, image, self.options.shard_count, Rng::new(self.seed));
        Ok((ControllerHost::new(self.options.clone(), controller, log), preview))
    }

    /// Listens and recovers the shard's partitions.
    pub(super) fn open_shard<I: Io>(
        self,
        mut io: I,
        image: Arc<Image>,
        resources: Resources,
        host: Option<ControllerHost>,
    ) -> Result<(Shard<I>, Endpoint, Recovered), NodeError> {
        let address = self.listen;
        let (listener, bound) = io.listen(address).map_err(|source| NodeError::Listen { address, source })?;
        let port = if self.advertise.port == 0 { bound.port() } else { self.advertise.port };
        let endpoint = Endpoint { host: self.advertise.host, port };
        let mut states = clean_stop::read(&mut io, &self.options.layout);
        let mut broker = Broker::new(io, self.shard, self.options, image, resources, self.seed);
        let recovered = broker.recover_partitions(&mut states)?;
        drop(states);
        let shard = Shard::new(broker, self.mailboxes, host, listener, endpoint.clone(), recovered.needs_journals);
        Ok((shard, endpoint, recovered))
    }
}

/// Buffers and budgets of one shard.
pub(super) fn resources(io: &impl Io, options: &BrokerOptions) -> Resources {
    let pool = io.pool().clone();
    Resources {
        tail: TailBudget::new(pool.clone(), options.tail_size_bytes),
        files: FileCache::new(OPEN_FILE_COUNT_MAX, SIDECAR_SIZE_BYTES_MAX),
        pool,
    }
}

/// Recovers the metadata log.
fn open_metadata(
    io: &mut impl Io,
    options: &BrokerOptions,
    resources: Resources,
) -> Result<(MetadataLog, Image), MetadataLogError> {
    let now = io.now();
    let log_options = LogOptions { reuse: options.reuses_segments, ..LogOptions::default() };
    MetadataLog::open(io, &options.layout, log_options, resources, now)
}

/// The image as it will be once this start is recorded: who owns what, and under which leader epoch.
fn preview(image: &Image, options: &BrokerOptions) -> Image {
    let mut preview = image.clone();
    let start = Record::NodeStarted { node: options.node, shard_count: options.shard_count, format: DATA_FORMAT };
    // Before the first start there is nothing to own, and nothing to preview.
    if image.cluster_id().is_some() {
        preview.apply(&start).expect("the controller will record the same");
    }
    preview
}
