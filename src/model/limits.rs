//! Every bound of the broker in one place, each with its reason; relations between them are checked when compiling.

use crate::base::units::{KIB, MIB};

/// Direct I/O and the rule against torn batches work in these units: the largest of the physical block, the
/// file-system block and the page on every host we know. Hosts with larger blocks are refused at start.
pub const BLOCK_SIZE_BYTES: usize = 4 * KIB;

/// The greatest write of one commit of one partition. What recovery must look at behind the end of a log, and zero,
/// is one commit: one is in flight at a time. 1 MiB is where throughput stops growing on the disks we measured.
pub const COMMIT_SIZE_BYTES_MAX: usize = MIB;

/// The greatest request frame (Kafka's `socket.request.max.bytes`).
pub const FRAME_SIZE_BYTES_MAX: usize = 100 * MIB;

/// Requests of one connection that may be under way: a client that pipelines deeper waits in its socket.
pub const CONNECTION_REQUEST_COUNT_MAX: usize = 1024;

/// Messages that may wait in one shard's mailbox from one other. A full one makes the sender wait, so it must hold
/// a burst: one per partition of a large topic.
pub const MAILBOX_DEPTH_MAX: usize = 16 * 1024;

/// Shards of one node: broker ids leave room for 1000, ports and memory for fewer.
pub const SHARD_COUNT_MAX: usize = 256;

/// Partitions of one topic that one CreateTopics may ask for.
pub const TOPIC_PARTITION_COUNT_MAX: usize = 100_000;

/// Length of a topic's name (Kafka's own bound: directory names must hold it with the partition).
pub const TOPIC_NAME_SIZE_BYTES_MAX: usize = 249;

/// Batches that an idempotent producer may have in flight, and so the number that is remembered (KIP-98).
pub const PRODUCER_BATCH_COUNT_MAX: usize = 5;

const _: () = assert!(COMMIT_SIZE_BYTES_MAX.is_multiple_of(BLOCK_SIZE_BYTES));
const _: () = assert!(COMMIT_SIZE_BYTES_MAX <= crate::model::limits::FRAME_SIZE_BYTES_MAX);
