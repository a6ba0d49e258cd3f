//! Every bound of the broker in one place, each with its reason; relations between them are checked when compiling.

use std::time::Duration;

use crate::base::units::{KIB, MIB};

/// Direct I/O and the rule against torn batches work in these units: the largest of the physical block, the
/// file-system block and the page on every host we know. Hosts with larger blocks are refused at start.
pub const BLOCK_SIZE_BYTES: usize = 4 * KIB;

/// The greatest write of one commit of one partition. What recovery must look at behind the end of a log, and zero,
/// is one commit: one is in flight at a time. 1 MiB is where throughput stops growing on the disks we measured.
pub const COMMIT_SIZE_BYTES_MAX: usize = MIB;

/// The greatest request frame (Kafka's `socket.request.max.bytes`).
pub const FRAME_SIZE_BYTES_MAX: usize = 100 * MIB;

/// The greatest request frame of an API that carries no records. The largest that clients have reason to send, group
/// assignments of thousands of members and manual assignments of 100,000 partitions, stay below.
pub const COLD_FRAME_SIZE_BYTES_MAX: usize = 8 * MIB;

/// What such a request may take once decoded, array elements at the size of their structures: an empty name is one
/// byte on the wire and 32 to 120 decoded. With the frame it is what one hostile request can make a shard allocate.
pub const COLD_DECODED_SIZE_BYTES_MAX: usize = 32 * MIB;

/// One part in so many of the descriptors that the process may open is kept for files: a connection that would take one
/// of them is refused. Without a descriptor a partition's next file cannot be made and the partition goes offline, while
/// a client that is refused connects again later. Of 1,024, an ordinary limit, 128 are the first files of 32 partitions.
pub const FILES_DESCRIPTOR_SHARE: u64 = 8;

/// Requests of one connection that may be under way: a client that pipelines deeper waits in its socket.
pub const CONNECTION_REQUEST_COUNT_MAX: usize = 1024;

/// One part in so many of a shard's memory is what answers may hold together until their clients have taken them:
/// receiving may take two of these parts, so most of one is always left for what is being appended and read. A quarter
/// more is kept for clients that take what they are sent while those who do not are being closed.
pub const ANSWERS_POOL_SHARE: usize = 4;

/// Where half of that is taken, an answer may take one part in so many of the rest. A thousand clients that stop
/// reading in the middle of an answer leave some, and an answer is still some KiB.
pub const ANSWER_COUNT_WHERE_SHORT: usize = 128;

/// Fetches that wait may take one part in so many of the size of a shard's memory, beside it. A long poll of every
/// connection fits, and some tens of consumers of thousands of partitions.
pub const FETCH_TASKS_POOL_SHARE: usize = 8;

/// Partitions that the fetch sessions of one shard may name together, 200 bytes each: 50 MiB. Kafka's thousand
/// sessions of 250 partitions.
pub const SESSIONS_PARTITION_COUNT_MAX: usize = 256 * 1024;

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

/// Idempotent producers whose state one partition remembers. Kafka has no bound but the expiry; a client that takes a
/// new id for every message must not fill the memory, so the oldest are forgotten: 160 bytes each, 640 KiB.
pub const PRODUCER_COUNT_MAX: usize = 4096;

/// Transactions that may be open in one partition. Their producers are never forgotten, and others must find a place
/// beside them. A batch that would begin one more is refused, and its producer tries again.
pub const OPEN_TRANSACTION_COUNT_MAX: usize = PRODUCER_COUNT_MAX / 2;

/// Producers whose transaction one compaction has seen the beginning of and not the end: 1 MiB. With more of them the
/// markers that come later in that compaction stay.
pub const COMPACTION_PRODUCER_COUNT_MAX: usize = 64 * 1024;

/// Aborted transactions that one compaction remembers: 16 MiB, and as much again while they are sorted. A log with more
/// of them below its last stable offset is left as it is.
pub const COMPACTION_ABORTED_COUNT_MAX: usize = 512 * 1024;

/// Aborted transactions that one segment's sidecar lists: 32 bytes each, 2 MiB. A log in which more end rolls, which
/// at 150 bytes for the least of them is after 10 MB.
pub const ABORTED_TRANSACTION_COUNT_MAX: usize = 64 * 1024;

/// Bytes of group changes that go into one batch of the offsets topic, unless one change alone is larger: what
/// consumers of the topic expect of a batch at most (Kafka's `max.message.bytes`).
pub const COORDINATOR_BATCH_SIZE_BYTES_MAX: usize = MIB;

/// Bytes of group changes of one shard that may wait to get into their logs: some batches, for a disk that is slow.
/// What comes then is refused and tried again by its client. A single change, at most a request, is always taken.
pub const COORDINATOR_QUEUE_SIZE_BYTES_MAX: usize = 2 * COLD_FRAME_SIZE_BYTES_MAX;

/// About what the committed offsets of one shard may take in memory: a million of them. Kafka has no bound; a client
/// that commits for a new group each time must not fill the memory. New ones are refused then, known ones move on.
pub const COMMITTED_OFFSETS_SIZE_BYTES_MAX: usize = 192 * MIB;

/// Partitions of the offsets topic that a shard reads at once at a start: enough to keep a disk busy.
pub const COORDINATOR_LOAD_COUNT_MAX: usize = 2;

/// Bytes of one chunk of such a read, unless a batch is larger: some thousand records, a few milliseconds.
pub const COORDINATOR_LOAD_SIZE_BYTES: u32 = 256 * KIB as u32;

/// Members of one group, and ids that it has given out to members to be: every rebalance walks them all.
pub const GROUP_MEMBER_COUNT_MAX: usize = 10_000;

/// Protocols that one member may offer. Clients have a handful.
pub const GROUP_PROTOCOL_COUNT_MAX: usize = 128;

/// What one group may take: ids, metadata and assignments of all members, which its record must hold and its leader
/// is told. Far above the largest groups: 1,000 members with 8 KiB each.
pub const GROUP_SIZE_BYTES_MAX: usize = 2 * COLD_FRAME_SIZE_BYTES_MAX;

/// Groups of one shard: some KiB each with a few members.
pub const SHARD_GROUP_COUNT_MAX: usize = 100_000;

/// What all groups of one shard may take, offsets not counted. At the limit no more members are taken.
pub const SHARD_GROUPS_SIZE_BYTES_MAX: usize = 128 * MIB;

/// Metadata and assignments that one DescribeGroups is answered with, and with them the last group's.
pub const DESCRIBED_GROUPS_SIZE_BYTES_MAX: usize = 2 * GROUP_SIZE_BYTES_MAX;

/// Length of a text that group records hold: their lengths are 16 bits.
pub const GROUP_TEXT_SIZE_BYTES_MAX: usize = i16::MAX as usize;

/// How long the JoinGroup of a new member may wait, in milliseconds (Kafka's own): it has no id to send heartbeats
/// with, and if its client has given up it would hold up the group at every rebalance.
pub const NEW_MEMBER_JOIN_MS_MAX: i32 = 5 * 60 * 1000;

/// Length of a regular expression of topic names.
pub const GROUP_PATTERN_SIZE_BYTES_MAX: usize = 4 * KIB;

/// What such an expression may become when it is compiled, and its matcher while it is used.
pub const GROUP_PATTERN_PROGRAM_SIZE_BYTES_MAX: usize = MIB;

/// Length of a transactional id: its record's lengths are 16 bits.
pub const TRANSACTIONAL_ID_SIZE_BYTES_MAX: usize = i16::MAX as usize;

/// Transactional ids of one shard: some hundred bytes each while they do nothing. Kafka has no bound; a client that
/// takes a new id each time must not fill the memory. New ones are refused then, and old ones expire.
pub const SHARD_TRANSACTIONAL_ID_COUNT_MAX: usize = 200_000;

/// Names and numbers of one transaction's partitions, which its record must hold: 10,000 topics of usual names, or
/// 100,000 partitions. Kafka refuses what does not fit into a megabyte.
pub const TRANSACTION_PARTITIONS_SIZE_BYTES_MAX: usize = MIB / 2;

/// How long what begins a transaction may wait for the markers of the one before: they take milliseconds, and where they
/// do not (a shard that is stalled, a disk that hangs) its client is told to ask again, and learns that we are alive.
/// Looked at about once a second.
pub const HELD_ADD_WAIT_MAX: Duration = Duration::from_secs(2);

/// Producers that one DescribeProducers is answered with, and with them the last partition's: 64 partitions that remember
/// all they can, 13 MiB. A request of 4 bytes a partition could else be answered with gigabytes.
pub const DESCRIBED_PRODUCER_COUNT_MAX: usize = 64 * PRODUCER_COUNT_MAX;

/// Partitions of transactions that one DescribeTransactions is answered with, and with them the last transaction's: for
/// the same reason.
pub const DESCRIBED_TRANSACTION_PARTITION_COUNT_MAX: usize = 256 * 1024;

/// Markers that one WriteTxnMarkers may ask for: some ten milliseconds. Tools end one transaction in one partition.
pub const WRITTEN_MARKER_COUNT_MAX: usize = 16 * 1024;

/// Transactions whose completion is written in one go, some milliseconds: the rest follows with the next look.
pub const COMPLETED_TRANSACTION_COUNT_MAX: usize = 5000;

/// Transactional ids that are forgotten in one go, some milliseconds: the rest follows with the next look.
pub const EXPIRED_TRANSACTIONAL_ID_COUNT_MAX: usize = 5000;

/// Leader epochs that one partition remembers: every start that is followed by an append adds one.
pub const LEADER_EPOCH_COUNT_MAX: usize = 1024;

/// Entries of one segment's index: 16 bytes each, 128 KiB, which is every 128 KiB of a segment of 1 GiB.
pub const INDEX_ENTRY_COUNT_MAX: usize = 8192;

/// Bytes of one checkpoint, one sidecar or one chunk of the clean-stop file. What the three bounds above can make
/// of one partition fits several times.
pub const ENVELOPE_SIZE_BYTES_MAX: usize = 16 * MIB;

/// Partitions that one shard may own, so a cluster may have this times its brokers: an empty partition costs at most
/// 32 KiB of memory, and 100,000 of them 3 GiB.
pub const SHARD_PARTITION_COUNT_MAX: usize = 100_000;

/// Groups that may have settings of their own: every change of one copies the map of all.
pub const GROUP_CONFIG_COUNT_MAX: usize = 10_000;

/// Length of a config's value: Kafka's own bound for a text in a request before compact texts.
pub const CONFIG_VALUE_SIZE_BYTES_MAX: usize = 32 * KIB - 1;

/// Metadata changes that may wait to be durable and known to every shard. A full mailbox's worth: more requests are
/// answered with an error at once.
pub const METADATA_CHANGE_COUNT_MAX: usize = MAILBOX_DEPTH_MAX;

/// Bytes of records that go into one batch of the metadata log, unless one record alone is larger.
pub const METADATA_BATCH_SIZE_BYTES_MAX: usize = COMMIT_SIZE_BYTES_MAX / 2;

/// Producer ids of one durable block (Kafka's own size): one metadata write for a thousand new producers.
pub const PRODUCER_ID_BLOCK_COUNT: i32 = 1000;

/// What the records of one batch may become when they are decompressed, for validation, for a lookup by time or for
/// printing: as much as the largest request could have carried without compression.
pub const RECORDS_SIZE_BYTES_MAX: usize = FRAME_SIZE_BYTES_MAX;

/// Topics and partitions together that one Produce or Fetch may name: a walk of some milliseconds. A frame of
/// [`FRAME_SIZE_BYTES_MAX`] could hold 30 million and stop a shard for a second. Every partition of the largest topic
/// fits twice.
pub const REQUEST_PARTITION_COUNT_MAX: usize = 256 * 1024;

/// How long a DeleteRecords may wait for its log starts to be durable, whatever its client says: a checkpoint takes
/// milliseconds, and what waits for a disk that stays full must not pile up behind clients that have left.
pub const DELETE_RECORDS_WAIT_MAX: Duration = Duration::from_secs(60);

/// Segments that compaction makes one of at a time: each is a file to remove while the log's other jobs wait.
pub const COMPACTION_GROUP_COUNT_MAX: usize = 64;

/// Partitions whose need of compaction is looked at in one turn of the event loop: some ten microseconds.
pub const COMPACTION_LOOK_COUNT: usize = 256;

/// Bytes of batches, or of what they become when decompressed, that compaction looks at in one turn of the event loop
/// before requests get theirs: some hundred microseconds. One larger batch is looked at as a whole.
pub const COMPACTION_STEP_SIZE_BYTES: usize = 64 * KIB;

/// What compaction reads and writes at once: it holds two buffers of this size, and larger ones for larger batches.
pub const COMPACTION_IO_SIZE_BYTES: usize = 256 * KIB;

/// Tagged fields of one structure. Kafka's own structures have fewer than ten.
pub const TAGGED_FIELD_COUNT_MAX: usize = 256;

const _: () = assert!(COMMIT_SIZE_BYTES_MAX.is_multiple_of(BLOCK_SIZE_BYTES));
const _: () = assert!(COMMIT_SIZE_BYTES_MAX <= crate::model::limits::FRAME_SIZE_BYTES_MAX);
const _: () = assert!(
    PRODUCER_COUNT_MAX * 192
        + LEADER_EPOCH_COUNT_MAX * 16
        + INDEX_ENTRY_COUNT_MAX * 16
        + ABORTED_TRANSACTION_COUNT_MAX * 32
        < ENVELOPE_SIZE_BYTES_MAX / 2
);

const _: () = assert!(COMPACTION_IO_SIZE_BYTES.is_multiple_of(BLOCK_SIZE_BYTES));
const _: () = assert!(COLD_FRAME_SIZE_BYTES_MAX <= FRAME_SIZE_BYTES_MAX);
const _: () = assert!(COLD_FRAME_SIZE_BYTES_MAX <= COLD_DECODED_SIZE_BYTES_MAX);
