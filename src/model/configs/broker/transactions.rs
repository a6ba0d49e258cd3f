//! Broker config keys: producer ids and transactions.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "producer.id.expiration.ms", Int, Some("86400000"), AtLeast(1), Dynamic, Acted,
        "A producer that is silent for this long is forgotten, in milliseconds.";
    "transactional.id.expiration.ms", Int, Some("604800000"), AtLeast(1), ReadOnly, Acted,
        "A transactional id that is silent for this long is forgotten, in milliseconds.";
    "transaction.max.timeout.ms", Int, Some("900000"), AtLeast(1), ReadOnly, Acted,
        "Greatest transaction timeout that a producer may ask for, in milliseconds.";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms", Int, Some("10000"), AtLeast(1), ReadOnly, Acted,
        "How often transactions past their timeout are looked for, in milliseconds.";
    "transaction.remove.expired.transaction.cleanup.interval.ms", Int, Some("3600000"), AtLeast(1), ReadOnly, Acted,
        "How often expired transactional ids are looked for, in milliseconds.";
    "transaction.partition.verification.enable", Boolean, Some("true"), Any, Dynamic, Acted,
        "Check with the coordinator that a transaction includes a partition before it is written to.";
    "transaction.two.phase.commit.enable", Boolean, Some("false"), Any, ReadOnly, Ignored,
        "Let producers keep transactions open for two-phase commit; ottla does not have it yet.";
    "transaction.state.log.num.partitions", Int, Some("50"), AtLeast(1), ReadOnly, Acted,
        "Partitions of the transaction topic, fixed when it is created.";
    "transaction.state.log.segment.bytes", Int, Some("104857600"), AtLeast(1), ReadOnly, Acted,
        "Segment size of the transaction topic, in bytes.";
    "transaction.state.log.replication.factor", Short, Some("3"), AtLeast(1), ReadOnly, Ignored,
        "Copies of the transaction topic; one node keeps one.";
    "transaction.state.log.min.isr", Int, Some("2"), AtLeast(1), ReadOnly, Ignored,
        "In-sync replicas of the transaction topic; one node has one.";
    "transaction.state.log.load.buffer.size", Int, Some("5242880"), AtLeast(1), ReadOnly, Ignored,
        "Bytes that Kafka reads at once when it loads transactions.";
    "add.partitions.to.txn.retry.backoff.ms", Int, Some("20"), Any, ReadOnly, Ignored,
        "First pause of Kafka's verification of partitions.";
    "add.partitions.to.txn.retry.backoff.max.ms", Int, Some("100"), Any, ReadOnly, Ignored,
        "Greatest pause of Kafka's verification of partitions.";
};
