//! The small blocking Kafka client behind the command line (and the load generator).
//!
//! [`Client`] knows the brokers and retries; [`Producer`] fills batches and sends them to the partitions' leaders;
//! [`Fetcher`] long-polls all leaders at once. It speaks to any Kafka broker.
//!
//! It is not part of a shard: it blocks on std's sockets and reads the clock, which nothing below `client` may do. It
//! must not know shards, rings or files.

mod admin;
mod changes;
mod cluster;
mod connection;
mod error;
mod fetcher;
mod groups;
mod offsets;
mod partitioner;
mod producer;
#[cfg(test)]
mod test_broker;
#[cfg(test)]
mod tests;
mod transactions;

pub use admin::{ClusterDescription, ConfigEntry, CreatedTopic, NewTopic};
pub use changes::StoredBytes;
pub use cluster::{BrokerInfo, Client, ClientOptions, ClusterInfo, PartitionInfo, TopicInfo};
pub use connection::{Connection, ConnectionOptions};
pub use error::{ClientError, code_name};
pub use fetcher::{Consumed, FetchOptions, Fetched, Fetcher};
pub use groups::{
    GroupDescription, GroupEpochs, GroupListing, GroupMember, GroupOffset, MemberProgress, TopicPartition,
};
pub use offsets::{EARLIEST, IsolationLevel, LATEST, OffsetAt};
pub use partitioner::{Partitioner, murmur2};
pub use producer::{OutRecord, Producer, ProducerOptions, Totals};
pub use transactions::{PartitionProducer, TransactionDescription, TransactionListing};
