//! The operations that a client may perform: all of them, for no authorizer runs.

/// Bit `n` is operation number `n` of Kafka's `AclOperation`: create, alter, describe, cluster action, describe
/// configs, alter configs, idempotent write.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// Read, write, create, delete, alter, describe, describe configs, alter configs.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// Read, delete, describe, describe configs, alter configs.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;
/// What stands there if the client did not ask.
pub const NOT_ASKED: i32 = i32::MIN;
