//! What request bodies look like, as far as lengths and counts go: one descriptor per API for the guard.
//!
//! A descriptor names fields by kind and versions, in wire order, after Kafka's public message definitions. To add an
//! API, add its descriptor and a row in [`of`]; the guard's tests want a populated example and compare every version
//! with `kafka-protocol`. The hot two are not here: they have walks of their own.

use kafka_protocol::messages as km;

/// A request body.
#[derive(Debug)]
pub(crate) struct Schema {
    /// Versions that `kafka-protocol` decodes (with the substitutions of `decode`).
    pub(crate) versions: (i16, i16),
    /// The first version with compact lengths and tagged fields; [`NEVER`] if there is none.
    pub(crate) flexible_from: i16,
    /// The fields in wire order.
    pub(crate) fields: &'static [Field],
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    /// First and last version that have it.
    pub(crate) versions: (i16, i16),
    /// The first version in which it may be null.
    pub(crate) null_from: i16,
}

/// What stands in a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string.
    Text,
    /// A byte string.
    Bytes,
    /// Elements without tagged fields of their own, and the size of a decoded one.
    Array(&'static Kind, usize),
    /// Structures, and the size of a decoded one.
    Structs(&'static [Field], usize),
    /// One structure that a marker byte (1, or -1 for none) precedes.
    OptionalStruct(&'static [Field]),
}

/// No version.
pub(crate) const NEVER: i16 = i16::MAX;

const fn field(kind: Kind) -> Field {
    Field { kind, versions: (0, i16::MAX), null_from: NEVER }
}

impl Field {
    const fn since(self, version: i16) -> Field {
        Field { versions: (version, self.versions.1), ..self }
    }
    const fn until(self, version: i16) -> Field {
        Field { versions: (self.versions.0, version), ..self }
    }
    const fn or_null(self) -> Field {
        Field { null_from: 0, ..self }
    }
    const fn or_null_since(self, version: i16) -> Field {
        Field { null_from: version, ..self }
    }
}

const BOOL: Field = field(Kind::Fixed(1));
const I8: Field = field(Kind::Fixed(1));
const I16: Field = field(Kind::Fixed(2));
const I32: Field = field(Kind::Fixed(4));
const I64: Field = field(Kind::Fixed(8));
const UUID: Field = field(Kind::Fixed(16));
const TEXT: Field = field(Kind::Text);
const BYTES: Field = field(Kind::Bytes);
const I32S: Field = field(Kind::Array(&Kind::Fixed(4), 4));
const TEXTS: Field = field(Kind::Array(&Kind::Text, size_of::<kafka_protocol::protocol::StrBytes>()));

const fn structs<T>(fields: &'static [Field]) -> Field {
    field(Kind::Structs(fields, size_of::<T>()))
}

const fn schema(versions: (i16, i16), flexible_from: i16, fields: &'static [Field]) -> Schema {
    Schema { versions, flexible_from, fields }
}

/// The descriptor of the API with this key, if it has one.
pub(crate) const fn of(api_key: i16) -> Option<&'static Schema> {
    Some(match api_key {
        2 => &LIST_OFFSETS,
        3 => &METADATA,
        8 => &OFFSET_COMMIT,
        9 => &OFFSET_FETCH,
        10 => &FIND_COORDINATOR,
        11 => &JOIN_GROUP,
        12 => &HEARTBEAT,
        13 => &LEAVE_GROUP,
        14 => &SYNC_GROUP,
        15 => &DESCRIBE_GROUPS,
        16 => &LIST_GROUPS,
        18 => &API_VERSIONS,
        19 => &CREATE_TOPICS,
        20 => &DELETE_TOPICS,
        21 => &DELETE_RECORDS,
        22 => &INIT_PRODUCER_ID,
        23 => &OFFSET_FOR_LEADER_EPOCH,
        24 => &ADD_PARTITIONS_TO_TXN,
        25 => &ADD_OFFSETS_TO_TXN,
        26 => &END_TXN,
        27 => &WRITE_TXN_MARKERS,
        28 => &TXN_OFFSET_COMMIT,
        32 => &DESCRIBE_CONFIGS,
        33 => &ALTER_CONFIGS,
        35 => &DESCRIBE_LOG_DIRS,
        37 => &CREATE_PARTITIONS,
        42 => &DELETE_GROUPS,
        43 => &ELECT_LEADERS,
        44 => &INCREMENTAL_ALTER_CONFIGS,
        45 => &ALTER_PARTITION_REASSIGNMENTS,
        46 => &LIST_PARTITION_REASSIGNMENTS,
        47 => &OFFSET_DELETE,
        60 => &DESCRIBE_CLUSTER,
        61 => &DESCRIBE_PRODUCERS,
        65 => &DESCRIBE_TRANSACTIONS,
        66 => &LIST_TRANSACTIONS,
        68 => &CONSUMER_GROUP_HEARTBEAT,
        69 => &CONSUMER_GROUP_DESCRIBE,
        74 => &LIST_CONFIG_RESOURCES,
        75 => &DESCRIBE_TOPIC_PARTITIONS,
        _ => return None,
    })
}

// Version 11 is laid out like 10 (KIP-1023).
static LIST_OFFSETS: Schema = schema(
    (1, 11),
    6,
    &[
        I32,
        I8.since(2),
        structs::<km::list_offsets_request::ListOffsetsTopic>(&[
            TEXT,
            structs::<km::list_offsets_request::ListOffsetsPartition>(&[I32, I32.since(4), I64]),
        ]),
        I32.since(10),
    ],
);

static METADATA: Schema = schema(
    (0, 13),
    9,
    &[
        structs::<km::metadata_request::MetadataRequestTopic>(&[UUID.since(10), TEXT.or_null_since(10)])
            .or_null_since(1),
        BOOL.since(4),
        BOOL.since(8).until(10),
        BOOL.since(8),
    ],
);

static API_VERSIONS: Schema = schema((0, 4), 3, &[TEXT.since(3), TEXT.since(3)]);

static CREATE_TOPICS: Schema = schema(
    (2, 7),
    5,
    &[
        structs::<km::create_topics_request::CreatableTopic>(&[
            TEXT,
            I32,
            I16,
            structs::<km::create_topics_request::CreatableReplicaAssignment>(&[I32, I32S]),
            structs::<km::create_topics_request::CreatableTopicConfig>(&[TEXT, TEXT.or_null()]),
        ]),
        I32,
        BOOL,
    ],
);

static DELETE_TOPICS: Schema = schema(
    (1, 6),
    4,
    &[structs::<km::delete_topics_request::DeleteTopicState>(&[TEXT.or_null(), UUID]).since(6), TEXTS.until(5), I32],
);

static INIT_PRODUCER_ID: Schema = schema((0, 5), 2, &[TEXT.or_null(), I32, I64.since(3), I16.since(3)]);

static ADD_PARTITIONS_TO_TXN: Schema = schema(
    (0, 5),
    3,
    &[
        structs::<km::add_partitions_to_txn_request::AddPartitionsToTxnTransaction>(&[
            TEXT,
            I64,
            I16,
            BOOL,
            structs::<km::add_partitions_to_txn_request::AddPartitionsToTxnTopic>(&[TEXT, I32S]),
        ])
        .since(4),
        TEXT.until(3),
        I64.until(3),
        I16.until(3),
        structs::<km::add_partitions_to_txn_request::AddPartitionsToTxnTopic>(&[TEXT, I32S]).until(3),
    ],
);

static ADD_OFFSETS_TO_TXN: Schema = schema((0, 4), 3, &[TEXT, I64, I16, TEXT]);

static END_TXN: Schema = schema((0, 5), 3, &[TEXT, I64, I16, BOOL]);

static WRITE_TXN_MARKERS: Schema = schema(
    (1, 1),
    1,
    &[structs::<km::write_txn_markers_request::WritableTxnMarker>(&[
        I64,
        I16,
        BOOL,
        structs::<km::write_txn_markers_request::WritableTxnMarkerTopic>(&[TEXT, I32S]),
        I32,
    ])],
);

static TXN_OFFSET_COMMIT: Schema = schema(
    (0, 5),
    3,
    &[
        TEXT,
        TEXT,
        I64,
        I16,
        I32.since(3),
        TEXT.since(3),
        TEXT.since(3).or_null(),
        structs::<km::txn_offset_commit_request::TxnOffsetCommitRequestTopic>(&[
            TEXT,
            structs::<km::txn_offset_commit_request::TxnOffsetCommitRequestPartition>(&[
                I32,
                I64,
                I32.since(2),
                TEXT.or_null(),
            ]),
        ]),
    ],
);

static DESCRIBE_PRODUCERS: Schema =
    schema((0, 0), 0, &[structs::<km::describe_producers_request::TopicRequest>(&[TEXT, I32S])]);

static DESCRIBE_TRANSACTIONS: Schema = schema((0, 0), 0, &[TEXTS]);

static LIST_TRANSACTIONS: Schema =
    schema((0, 2), 0, &[TEXTS, field(Kind::Array(&Kind::Fixed(8), 8)), I64.since(1), TEXT.since(2).or_null()]);

static OFFSET_FOR_LEADER_EPOCH: Schema = schema(
    (2, 4),
    4,
    &[
        I32.since(3),
        structs::<km::offset_for_leader_epoch_request::OffsetForLeaderTopic>(&[
            TEXT,
            structs::<km::offset_for_leader_epoch_request::OffsetForLeaderPartition>(&[I32, I32, I32]),
        ]),
    ],
);

static DESCRIBE_CONFIGS: Schema = schema(
    (1, 4),
    4,
    &[
        structs::<km::describe_configs_request::DescribeConfigsResource>(&[I8, TEXT, TEXTS.or_null()]),
        BOOL,
        BOOL.since(3),
    ],
);

static DESCRIBE_CLUSTER: Schema = schema((0, 2), 0, &[BOOL, I8.since(1), BOOL.since(2)]);

static DESCRIBE_TOPIC_PARTITIONS: Schema = schema(
    (0, 0),
    0,
    &[
        structs::<km::describe_topic_partitions_request::TopicRequest>(&[TEXT]),
        I32,
        field(Kind::OptionalStruct(&[TEXT, I32])),
    ],
);

// Up to version 9 a topic goes by name, from 10 on by id (`topic_ids`).
static OFFSET_COMMIT: Schema = schema(
    (2, 10),
    8,
    &[
        TEXT,
        I32,
        TEXT,
        TEXT.since(7).or_null(),
        I64.until(4),
        structs::<km::offset_commit_request::OffsetCommitRequestTopic>(&[
            TEXT.until(9),
            UUID.since(10),
            structs::<km::offset_commit_request::OffsetCommitRequestPartition>(&[
                I32,
                I64,
                I32.since(6),
                TEXT.or_null(),
            ]),
        ]),
    ],
);

static OFFSET_FETCH: Schema = schema(
    (1, 10),
    6,
    &[
        TEXT.until(7),
        structs::<km::offset_fetch_request::OffsetFetchRequestTopic>(&[TEXT, I32S]).until(7).or_null_since(2),
        structs::<km::offset_fetch_request::OffsetFetchRequestGroup>(&[
            TEXT,
            TEXT.since(9).or_null(),
            I32.since(9),
            structs::<km::offset_fetch_request::OffsetFetchRequestTopics>(&[TEXT.until(9), UUID.since(10), I32S])
                .or_null(),
        ])
        .since(8),
        BOOL.since(7),
    ],
);

static FIND_COORDINATOR: Schema = schema((0, 6), 3, &[TEXT.until(3), I8.since(1), TEXTS.since(4)]);

static JOIN_GROUP: Schema = schema(
    (0, 9),
    6,
    &[
        TEXT,
        I32,
        I32.since(1),
        TEXT,
        TEXT.since(5).or_null(),
        TEXT,
        structs::<km::join_group_request::JoinGroupRequestProtocol>(&[TEXT, BYTES]),
        TEXT.since(8).or_null(),
    ],
);

static HEARTBEAT: Schema = schema((0, 4), 4, &[TEXT, I32, TEXT, TEXT.since(3).or_null()]);

static LEAVE_GROUP: Schema = schema(
    (0, 5),
    4,
    &[
        TEXT,
        TEXT.until(2),
        structs::<km::leave_group_request::MemberIdentity>(&[TEXT, TEXT.or_null(), TEXT.since(5).or_null()]).since(3),
    ],
);

static SYNC_GROUP: Schema = schema(
    (0, 5),
    4,
    &[
        TEXT,
        I32,
        TEXT,
        TEXT.since(3).or_null(),
        TEXT.since(5).or_null(),
        TEXT.since(5).or_null(),
        structs::<km::sync_group_request::SyncGroupRequestAssignment>(&[TEXT, BYTES]),
    ],
);

static DESCRIBE_GROUPS: Schema = schema((0, 6), 5, &[TEXTS, BOOL.since(3)]);

static LIST_GROUPS: Schema = schema((0, 5), 3, &[TEXTS.since(4), TEXTS.since(5)]);

static CONSUMER_GROUP_HEARTBEAT: Schema = schema(
    (0, 1),
    0,
    &[
        TEXT,
        TEXT,
        I32,
        TEXT.or_null(),
        TEXT.or_null(),
        I32,
        TEXTS.or_null(),
        TEXT.since(1).or_null(),
        TEXT.or_null(),
        structs::<km::consumer_group_heartbeat_request::TopicPartitions>(&[UUID, I32S]).or_null(),
    ],
);

static CONSUMER_GROUP_DESCRIBE: Schema = schema((0, 1), 0, &[TEXTS, BOOL]);

static DELETE_GROUPS: Schema = schema((0, 2), 2, &[TEXTS]);

static OFFSET_DELETE: Schema = schema(
    (0, 0),
    NEVER,
    &[
        TEXT,
        structs::<km::offset_delete_request::OffsetDeleteRequestTopic>(&[
            TEXT,
            structs::<km::offset_delete_request::OffsetDeleteRequestPartition>(&[I32]),
        ]),
    ],
);

static DELETE_RECORDS: Schema = schema(
    (0, 2),
    2,
    &[
        structs::<km::delete_records_request::DeleteRecordsTopic>(&[
            TEXT,
            structs::<km::delete_records_request::DeleteRecordsPartition>(&[I32, I64]),
        ]),
        I32,
    ],
);

static ALTER_CONFIGS: Schema = schema(
    (0, 2),
    2,
    &[
        structs::<km::alter_configs_request::AlterConfigsResource>(&[
            I8,
            TEXT,
            structs::<km::alter_configs_request::AlterableConfig>(&[TEXT, TEXT.or_null()]),
        ]),
        BOOL,
    ],
);

static INCREMENTAL_ALTER_CONFIGS: Schema = schema(
    (0, 1),
    1,
    &[
        structs::<km::incremental_alter_configs_request::AlterConfigsResource>(&[
            I8,
            TEXT,
            structs::<km::incremental_alter_configs_request::AlterableConfig>(&[TEXT, I8, TEXT.or_null()]),
        ]),
        BOOL,
    ],
);

static CREATE_PARTITIONS: Schema = schema(
    (0, 3),
    2,
    &[
        structs::<km::create_partitions_request::CreatePartitionsTopic>(&[
            TEXT,
            I32,
            structs::<km::create_partitions_request::CreatePartitionsAssignment>(&[I32S]).or_null(),
        ]),
        I32,
        BOOL,
    ],
);

static DESCRIBE_LOG_DIRS: Schema =
    schema((1, 4), 2, &[structs::<km::describe_log_dirs_request::DescribableLogDirTopic>(&[TEXT, I32S]).or_null()]);

static ELECT_LEADERS: Schema = schema(
    (0, 2),
    2,
    &[I8.since(1), structs::<km::elect_leaders_request::TopicPartitions>(&[TEXT, I32S]).or_null(), I32],
);

static ALTER_PARTITION_REASSIGNMENTS: Schema = schema(
    (0, 1),
    0,
    &[
        I32,
        BOOL.since(1),
        structs::<km::alter_partition_reassignments_request::ReassignableTopic>(&[
            TEXT,
            structs::<km::alter_partition_reassignments_request::ReassignablePartition>(&[I32, I32S.or_null()]),
        ]),
    ],
);

static LIST_PARTITION_REASSIGNMENTS: Schema = schema(
    (0, 0),
    0,
    &[
        I32,
        structs::<km::list_partition_reassignments_request::ListPartitionReassignmentsTopics>(&[TEXT, I32S]).or_null(),
    ],
);

static LIST_CONFIG_RESOURCES: Schema = schema((0, 1), 0, &[field(Kind::Array(&Kind::Fixed(1), 1)).since(1)]);
