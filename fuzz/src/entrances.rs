//! Every entrance of outside bytes as a function of a slice: what `cargo fuzz` targets and `tests/fuzz.rs` call.
//!
//! A function may do with the bytes what the broker does, and must come back: no panic, no loop without end, no
//! memory beyond [`Entrance::memory_bytes_max`]. Where a checksum stands before the interesting part, the function makes it
//! right first, as somebody who means harm would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::*;
use ottla::base::time::{Monotonic, Now, Timestamp};
use ottla::cli::serve::flags::RawServe;
use ottla::cli::serve::layers;
use ottla::cli::serve::options::{Facts, resolve};
use ottla::controller::image::Image;
use ottla::controller::records::Record;
use ottla::controller::snapshot;
use ottla::coordinator::consumer_group::assignor::Assignor;
use ottla::coordinator::consumer_group::change::{Change, Resolved};
use ottla::coordinator::consumer_group::event::{Settings, Timeouts};
use ottla::coordinator::consumer_group::kept::Kept;
use ottla::coordinator::consumer_group::member::{ClassicProfile, Current, Profile};
use ottla::coordinator::consumer_group::{ConsumerGroups, Topic, assignment_of, records as consumer_records};
use ottla::coordinator::group::event::Protocol;
use ottla::coordinator::records as offset_records;
use ottla::io::Io;
use ottla::io::buffer::Pool;
use ottla::io::sim::{SimIo, World, WorldOptions};
use ottla::model::batch::{self, Header};
use ottla::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use ottla::model::limits::FRAME_SIZE_BYTES_MAX;
use ottla::model::records;
use ottla::protocol::api::{ApiKey, Lookup};
use ottla::protocol::decode::decode;
use ottla::protocol::fetch::FetchRequest as HotFetch;
use ottla::protocol::frame::{self, Frame};
use ottla::protocol::header;
use ottla::protocol::produce::ProduceRequest as HotProduce;
use ottla::shard::metadata_log::MetadataLog;
use ottla::storage::journal::replay;
use ottla::storage::layout::{Layout, format_partition_metadata};
use ottla::storage::sidecar::Sidecar;
use ottla::storage::{FileCache, Identity, Known, LogOptions, Resources, TailBudget, checkpoint, recover};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What the simulated machine gives a log: memory of its own, so it stands outside of the bound.
const POOL_SIZE_BYTES: usize = 16 * MIB;

/// An entrance.
pub struct Entrance {
    /// Its name, and its target's.
    pub name: &'static str,
    /// What is done with the bytes.
    pub enter: fn(&[u8]),
    /// The most memory that it may have taken at a time, whatever the bytes say.
    pub memory_bytes_max: usize,
}

/// All of them.
pub const ENTRANCES: [Entrance; 13] = [
    Entrance { name: "frame", enter: frame, memory_bytes_max: 64 * KIB },
    Entrance { name: "produce", enter: produce, memory_bytes_max: 64 * KIB },
    Entrance { name: "fetch", enter: fetch, memory_bytes_max: 64 * KIB },
    // The limit of the guard, twice: what is counted is not what the allocator rounds it to.
    Entrance { name: "request", enter: request, memory_bytes_max: 64 * MIB },
    Entrance { name: "record_batch", enter: record_batch, memory_bytes_max: 16 * MIB },
    Entrance { name: "segment", enter: segment, memory_bytes_max: POOL_SIZE_BYTES + 16 * MIB },
    Entrance { name: "journal", enter: journal, memory_bytes_max: POOL_SIZE_BYTES + 16 * MIB },
    Entrance { name: "sidecar", enter: sidecar, memory_bytes_max: 4 * MIB },
    Entrance { name: "checkpoint", enter: checkpoint, memory_bytes_max: 8 * MIB },
    Entrance { name: "metadata_record", enter: metadata_record, memory_bytes_max: 4 * MIB },
    Entrance { name: "metadata_log", enter: metadata_log, memory_bytes_max: POOL_SIZE_BYTES + 16 * MIB },
    Entrance { name: "group_records", enter: group_records, memory_bytes_max: MIB },
    Entrance { name: "configuration", enter: configuration, memory_bytes_max: 8 * MIB },
];

/// The size prefix and the header of a request.
pub fn frame(bytes: &[u8]) {
    let found = frame::scan(bytes, FRAME_SIZE_BYTES_MAX);
    if let Frame::Complete { start, end } = found {
        assert!(start <= end && end <= bytes.len());
        let _ = header::parse(&bytes[start..end]);
    }
    let _ = frame::scan_response(bytes, FRAME_SIZE_BYTES_MAX);
    let _ = header::parse(bytes);
}

/// The walk of a Produce request, a whole frame without its prefix.
pub fn produce(bytes: &[u8]) {
    let Ok(header) = header::parse(bytes) else { return };
    if header.lookup != Lookup::Served(ApiKey::Produce) {
        return;
    }
    let (body, version) = (header.body_offset, header.api_version);
    let Ok(request) = HotProduce::parse(bytes, body, version) else { return };
    let _ = request.transactional_id(bytes);
    let mut steps = request.steps();
    while steps.next(bytes).is_some() {}
}

/// The walk of a Fetch request, a whole frame without its prefix.
pub fn fetch(bytes: &[u8]) {
    let Ok(header) = header::parse(bytes) else { return };
    if header.lookup != Lookup::Served(ApiKey::Fetch) {
        return;
    }
    let Ok(request) = HotFetch::parse(bytes, header.body_offset, header.api_version) else { return };
    let (_, _) = (request.cluster_id(bytes), request.rack(bytes));
    let mut steps = request.steps();
    while steps.next(bytes).is_some() {}
    let mut forgotten = request.forgotten_steps();
    while forgotten.next(bytes).is_some() {}
}

/// The guarded decoders, a whole frame without its prefix.
pub fn request(bytes: &[u8]) {
    let Ok(header) = header::parse(bytes) else { return };
    let version = header.api_version;
    let body = || Bytes::copy_from_slice(&bytes[header.body_offset..]);
    match header.lookup {
        Lookup::Served(ApiKey::ApiVersions) => drop(decode::<ApiVersionsRequest>(body(), version)),
        Lookup::Served(ApiKey::Metadata) => drop(decode::<MetadataRequest>(body(), version)),
        Lookup::Served(ApiKey::FindCoordinator) => drop(decode::<FindCoordinatorRequest>(body(), version)),
        Lookup::Served(ApiKey::ListOffsets) => drop(decode::<ListOffsetsRequest>(body(), version)),
        Lookup::Served(ApiKey::CreateTopics) => drop(decode::<CreateTopicsRequest>(body(), version)),
        Lookup::Served(ApiKey::DeleteTopics) => drop(decode::<DeleteTopicsRequest>(body(), version)),
        Lookup::Served(ApiKey::DeleteRecords) => drop(decode::<DeleteRecordsRequest>(body(), version)),
        Lookup::Served(ApiKey::InitProducerId) => drop(decode::<InitProducerIdRequest>(body(), version)),
        Lookup::Served(ApiKey::OffsetForLeaderEpoch) => drop(decode::<OffsetForLeaderEpochRequest>(body(), version)),
        Lookup::Served(ApiKey::ConsumerGroupHeartbeat) => {
            drop(decode::<ConsumerGroupHeartbeatRequest>(body(), version))
        }
        Lookup::Served(ApiKey::ConsumerGroupDescribe) => drop(decode::<ConsumerGroupDescribeRequest>(body(), version)),
        Lookup::Served(ApiKey::DescribeConfigs) => drop(decode::<DescribeConfigsRequest>(body(), version)),
        Lookup::Served(ApiKey::AlterConfigs) => drop(decode::<AlterConfigsRequest>(body(), version)),
        Lookup::Served(ApiKey::DescribeLogDirs) => drop(decode::<DescribeLogDirsRequest>(body(), version)),
        Lookup::Served(ApiKey::CreatePartitions) => drop(decode::<CreatePartitionsRequest>(body(), version)),
        Lookup::Served(ApiKey::ElectLeaders) => drop(decode::<ElectLeadersRequest>(body(), version)),
        Lookup::Served(ApiKey::IncrementalAlterConfigs) => {
            drop(decode::<IncrementalAlterConfigsRequest>(body(), version))
        }
        Lookup::Served(ApiKey::AlterPartitionReassignments) => {
            drop(decode::<AlterPartitionReassignmentsRequest>(body(), version))
        }
        Lookup::Served(ApiKey::ListPartitionReassignments) => {
            drop(decode::<ListPartitionReassignmentsRequest>(body(), version))
        }
        Lookup::Served(ApiKey::DescribeCluster) => drop(decode::<DescribeClusterRequest>(body(), version)),
        Lookup::Served(ApiKey::AddPartitionsToTxn) => drop(decode::<AddPartitionsToTxnRequest>(body(), version)),
        Lookup::Served(ApiKey::AddOffsetsToTxn) => drop(decode::<AddOffsetsToTxnRequest>(body(), version)),
        Lookup::Served(ApiKey::EndTxn) => drop(decode::<EndTxnRequest>(body(), version)),
        Lookup::Served(ApiKey::WriteTxnMarkers) => drop(decode::<WriteTxnMarkersRequest>(body(), version)),
        Lookup::Served(ApiKey::TxnOffsetCommit) => drop(decode::<TxnOffsetCommitRequest>(body(), version)),
        Lookup::Served(ApiKey::DescribeProducers) => drop(decode::<DescribeProducersRequest>(body(), version)),
        Lookup::Served(ApiKey::DescribeTransactions) => drop(decode::<DescribeTransactionsRequest>(body(), version)),
        Lookup::Served(ApiKey::ListTransactions) => drop(decode::<ListTransactionsRequest>(body(), version)),
        Lookup::Served(ApiKey::ListConfigResources) => drop(decode::<ListConfigResourcesRequest>(body(), version)),
        Lookup::Served(ApiKey::DescribeTopicPartitions) => {
            drop(decode::<DescribeTopicPartitionsRequest>(body(), version))
        }
        // The guard knows every API, also those that are not served by these functions yet.
        _ => drop(ottla::protocol::guard::check(header.api_key, version, &bytes[header.body_offset..])),
    }
}

/// A record batch: its header as it is, then with a right CRC its records, compressed or not.
pub fn record_batch(bytes: &[u8]) {
    const LIMIT_BYTES: usize = 4 * MIB;
    let _ = batch::size_of_batch(bytes);
    let _ = batch::batches(bytes).count();
    let mut own = bytes.to_vec();
    let _ = batch::validate(&own);
    if own.len() < 61 {
        return;
    }
    let length = (own.len() - 12) as i32;
    own[8..12].copy_from_slice(&length.to_be_bytes());
    own[16] = 2;
    batch::stamp_crc(&mut own);
    let Ok(header) = batch::validate(&own) else { return };
    let _ = records::validate_records(&header, &own, LIMIT_BYTES, true);
    let _ = records::first_at_or_after(&header, &own, Timestamp(1), Offset(1), LIMIT_BYTES);
    let _ = records::max_timestamp(&header, &own, Offset(1), LIMIT_BYTES);
    batch::stamp_log_append_time(&mut own, Timestamp(7));
    assert!(Header::parse(&own).is_some());
}

/// Recovery of a partition whose active segment holds these bytes; every batch's CRC is made right.
pub fn segment(bytes: &[u8]) {
    let (world, mut io, resources) = machine();
    let dir = "/data/topics/t-0";
    world.create_dir_all(dir).expect("a disk");
    let id = TopicId(uuid::Uuid::from_u128(7));
    world.write_file(format!("{dir}/partition.metadata"), format_partition_metadata(id).as_bytes()).expect("a file");
    world.write_file(format!("{dir}/00000000000000000000.log"), &with_crcs(bytes)).expect("a file");
    let identity =
        Identity { topic_id: id, partition: PartitionIndex(0), parent: "/data/topics".into(), dir: dir.into() };
    let known = Known { had_data: true, clean: None };
    let now = io.now();
    let opened = recover(&mut io, 1 << 16, identity, LogOptions::default(), LeaderEpoch(9), known, resources, now);
    if let Ok((log, _)) = opened {
        assert!(log.log_start() <= log.high_watermark() && log.high_watermark() <= log.log_end());
    }
}

/// A journal that holds these bytes, as they are and with right checksums, before a partition of a few blocks.
pub fn journal(bytes: &[u8]) {
    let mut right = bytes.to_vec();
    for at in (0..bytes.len()).step_by(4 * KIB) {
        let group = &mut right[at..];
        let size = group.get(48..52).map_or(0, |size| u32::from_le_bytes(size.try_into().expect("four")) as usize);
        if (60..=group.len()).contains(&size) {
            let crc = crc32c::crc32c(&group[..size - 4]);
            group[size - 4..size].copy_from_slice(&crc.to_le_bytes());
        }
    }
    for bytes in [bytes, &right] {
        let (world, mut io, _) = machine();
        for dir in ["/data/topics/t-0", "/data/journal/0"] {
            world.create_dir_all(dir).expect("a disk");
        }
        world.write_file("/data/topics/t-0/00000000000000000000.log", &[0; 16 * KIB]).expect("a file");
        world.write_file("/data/journal/0/0.journal", bytes).expect("a file");
        let _ = replay(&mut io, &Layout::new("/data"), |_| Some("/data/topics/t-0".into()));
    }
}

/// A sealed segment's sidecar, as it is and with a right checksum.
pub fn sidecar(bytes: &[u8]) {
    let pool = Pool::new(MIB);
    for bytes in [bytes.to_vec(), sealed(bytes, b"ottla")] {
        let Some(buffer) = pool.take_append(bytes.len().max(1)) else { return };
        buffer.append(&bytes);
        if let Ok(sidecar) = Sidecar::open(buffer.slice(0..bytes.len())) {
            let _ = (sidecar.to_contents(), sidecar.segment(), sidecar.index());
        }
    }
}

/// A checkpoint file and a chunk of a clean-stop file, as they are and with right checksums.
pub fn checkpoint(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), sealed(bytes, b"ottla")] {
        let _ = checkpoint::find(&bytes);
        let _ = checkpoint::clean_stop_chunk_size(&bytes);
        let _ = checkpoint::read_clean_stop_chunk(0, &bytes);
    }
}

/// A record of the metadata log and what it does to an image; and a snapshot.
pub fn metadata_record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        let mut image = Image::default();
        let _ = image.apply(&record);
        assert!(Record::decode(&record.encode()).is_ok(), "what is read can be written");
    }
    let _ = snapshot::decode(bytes);
    let _ = snapshot::decode(&sealed(bytes, b"ottla"));
}

/// A start on a metadata log whose active segment holds these bytes.
pub fn metadata_log(bytes: &[u8]) {
    let (world, mut io, resources) = machine();
    let dir = "/data/meta/__cluster_metadata-0";
    world.create_dir_all(dir).expect("a disk");
    let id = TopicId(uuid::Uuid::from_u128(1));
    world.write_file(format!("{dir}/partition.metadata"), format_partition_metadata(id).as_bytes()).expect("a file");
    world.write_file(format!("{dir}/00000000000000000000.log"), &with_crcs(bytes)).expect("a file");
    let now: Now = io.now();
    let _ = MetadataLog::open(&mut io, &Layout::new("/data"), LogOptions::default(), resources, now);
}

/// Records of `__consumer_offsets`, each after two lengths of 16 bits (a value of 65,535 bytes is null), and the groups
/// that a start makes of them.
pub fn group_records(mut bytes: &[u8]) {
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    while let Some((lengths, rest)) = bytes.split_at_checked(4) {
        let length = |at: usize| usize::from(u16::from_be_bytes([lengths[at], lengths[at + 1]]));
        let Some((key, rest)) = rest.split_at_checked(length(0)) else { break };
        let (value, rest) = match length(2) {
            0xffff => (None, rest),
            size => match rest.split_at_checked(size) {
                Some((value, rest)) => (Some(value), rest),
                None => break,
            },
        };
        bytes = rest;
        let _ = offset_records::decode_key(key);
        let _ = value.map(offset_records::decode_offset);
        let _ = value.map(offset_records::decode_group);
        if let Ok(Some((group, change))) = consumer_records::decode(key, value) {
            let again = consumer_records::encode(&group, &change);
            let read = consumer_records::decode(&again.key, again.value.as_deref());
            assert_eq!(read, Ok(Some((group.clone(), change.clone()))), "what is read can be written");
            kept.entry(group).or_default().apply(change);
        }
    }
    let timeouts = Timeouts { session: Duration::from_secs(45), heartbeat_interval: Duration::from_secs(5) };
    let settings = Settings {
        timeouts,
        timeouts_of: BTreeMap::new(),
        member_count_max: 100,
        classic_member_count_max: 100,
        assignors: vec![Assignor::Uniform],
        can_upgrade: true,
        can_downgrade: true,
    };
    let mut groups = ConsumerGroups::default();
    for (group, kept) in kept {
        groups.restore(&group, kept);
    }
    groups.begin(&settings, Now { monotonic: Monotonic(1), wall: Timestamp(1) });
}

/// The configuration file, up to what the broker would be started with.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = Some((Path::new("ottla.toml"), text));
    let Ok(mut merged) = layers::merge(&RawServe::default(), &BTreeMap::new(), file) else { return };
    let facts = Facts { cpu_count: 2, memory_bytes: Some(1 << 30), stored_shard_count: None, host_name: "host".into() };
    let _ = resolve(&mut merged, &facts);
}

/// Something sound for each entrance to begin with, besides the golden frames.
pub fn examples(name: &str) -> Vec<Vec<u8>> {
    use ottla::model::builder::BatchBuilder;
    use ottla::model::compression::Codec;
    let batch = |codec, base: i64, count: i64| {
        let mut builder = BatchBuilder::new(codec);
        for record in 0..count {
            builder.push(Timestamp(1_000 + record), Some(b"key"), Some(&[b'v'; 40]), &[]);
        }
        let mut bytes = builder.build();
        batch::stamp(&mut bytes, Offset(base), LeaderEpoch(1));
        bytes
    };
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    match name {
        "record_batch" => codecs.into_iter().map(|codec| batch(codec, 0, 5)).collect(),
        "segment" | "metadata_log" => vec![
            (0..40).flat_map(|number| batch(Codec::None, number * 3, 3)).collect(),
            (0..3).flat_map(|number| batch(Codec::Zstd, number * 100, 100)).collect(),
            [batch(Codec::None, 0, 2), vec![0; 9_000], batch(Codec::None, 2, 2)].concat(),
        ],
        "journal" => {
            // As `on_disk_format` has it: two groups of one lap, each with an entry.
            let group = |sequence: u64, position: u64| {
                let batch = batch(Codec::None, 0, 2);
                let mut bytes = b"ottla-j1".to_vec();
                bytes.extend([7; 16]);
                [sequence, 1, 0].iter().for_each(|number: &u64| bytes.extend(number.to_le_bytes()));
                bytes.extend(((60 + 40 + batch.len()) as u32).to_le_bytes());
                bytes.extend(1u32.to_le_bytes());
                bytes.extend([9; 16]);
                bytes.extend(0i32.to_le_bytes());
                bytes.extend((batch.len() as u32).to_le_bytes());
                bytes.extend(0i64.to_le_bytes());
                bytes.extend(position.to_le_bytes());
                bytes.extend(batch);
                let crc = crc32c::crc32c(&bytes);
                bytes.extend(crc.to_le_bytes());
                bytes.resize(4 * KIB, 0);
                bytes
            };
            vec![group(1, 0), [group(1, 0), group(2, 4_090)].concat(), [group(1, 0), group(3, 8_000)].concat()]
        }
        "sidecar" | "checkpoint" => vec![checkpoint::PartitionState::default().encode(3), vec![0; 4096]],
        "metadata_record" => {
            let image = Image::default();
            vec![snapshot::encode(&image), Record::ClusterCreated { cluster_id: ottla::controller::image::ClusterId(uuid::Uuid::from_u128(9)) }.encode()]
        }
        "group_records" => {
            let topic = TopicId(uuid::Uuid::from_u128(7));
            let given = Arc::new(assignment_of([(topic, vec![0, 1, 5])]));
            let protocol = Protocol { name: "range".into(), metadata: Bytes::from_static(b"\0\0") };
            let classic = ClassicProfile { session_timeout_ms: 9, protocols: vec![protocol] };
            let profile = Profile {
                instance_id: Some("i".into()),
                topics: vec!["t".into()],
                regex: Some("t.*".into()),
                classic: Some(classic),
                ..Profile::default()
            };
            let current = Current { epoch: 2, assigned: given.clone(), revoking: given.clone(), ..Current::default() };
            let resolved = Resolved { topics: vec!["t".into()], ..Resolved::default() };
            let changes = [
                Change::Member("m".into(), Some(Arc::new(profile))),
                Change::Topics(Some([("t".into(), Topic { id: topic, partition_count: 6 })].into())),
                Change::Epoch(Some(2)),
                Change::Regex("t.*".into(), Some(resolved)),
                Change::Target("m".into(), Some(given)),
                Change::TargetEpoch(Some(2)),
                Change::Current("m".into(), Some(current)),
                Change::Current("m".into(), None),
            ];
            let framed = |change: &Change| {
                let record = consumer_records::encode("g", change);
                let value = record.value.as_deref();
                let lengths = [record.key.len() as u16, value.map_or(0xffff, |value| value.len() as u16)];
                let lengths = lengths.map(u16::to_be_bytes).concat();
                [&lengths[..], &record.key, value.unwrap_or_default()].concat()
            };
            let each = changes.iter().map(framed).collect::<Vec<_>>();
            vec![each.concat(), each[..7].concat()]
        }
        "configuration" => vec![
            b"data-dir = \"/data\"\nshards = 3\nlisten = \"127.0.0.1:9092\"\n[broker]\n\"log.segment.bytes\" = 1048576\n"
                .to_vec(),
            b"[broker]\nnum.partitions = 3\n".to_vec(),
        ],
        _ => Vec::new(),
    }
}

fn machine() -> (World, SimIo, Resources) {
    let world = World::new(1, WorldOptions::calm());
    let io = world.io("fuzz", POOL_SIZE_BYTES);
    let pool = io.pool().clone();
    let resources = Resources { tail: TailBudget::new(pool.clone(), MIB), files: FileCache::new(16, MIB), pool };
    (world, io, resources)
}

/// The bytes with the CRC of each batch made right, so that a change in it is met as a batch.
fn with_crcs(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + 61) {
        let length = i32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
        let size = usize::try_from(length).unwrap_or(0) + 12;
        if size < 61 || at + size > bytes.len() {
            break;
        }
        batch::stamp_crc(&mut bytes[at..at + size]);
        at += size;
    }
    bytes
}

/// The bytes as an envelope whose length and checksum are right, if they begin like one.
fn sealed(bytes: &[u8], start: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 32 && bytes.starts_with(start) {
        let length = u64::from_le_bytes(bytes[24..32].try_into().expect("eight bytes"));
        let length = (length as usize).min(bytes.len() - 32);
        bytes[24..32].copy_from_slice(&(length as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..32 + length]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}
