//! Broker config keys of ottla's own, all under `ottla.`.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family.
pub const KEYS: &[ConfigKey] = keys! {
    "ottla.ack.after", String, Some("sync"), OneOf(&["sync", "write", "memory"]), ReadOnly, Acted,
        "When acks=1 and acks=all are answered: sync (durable), write (the write completed), memory (staged).";
    "ottla.validate", String, Some("header"), OneOf(&["header", "records"]), ReadOnly, Acted,
        "How much of a batch is checked: header (CRC and header), records (decompressed and walked too).";
    "ottla.prepare", String, Some("write"), OneOf(&["write", "allocate", "none"]), ReadOnly, Acted,
        "How space is prepared: write (blocks are written before), allocate (allocated only), none.";
    "ottla.journal.bytes", Long, Some("67108864"), AtLeast(0), ReadOnly, Acted,
        "Bytes of a shard's journal, which commits small batches of many partitions by one write; 0: none.";
    "ottla.journal.min.partitions", Int, Some("4"), AtLeast(1), ReadOnly, Acted,
        "So many partitions must commit at a time for the journal to be used; fewer write for themselves.";
    "ottla.replication.factor.policy", String, Some("truthful"), OneOf(&["truthful", "refuse", "pretend"]),
        ReadOnly, Acted,
        "A replication factor above the nodes: truthful (accept, answer what is), refuse, pretend (answer as asked).";
};
