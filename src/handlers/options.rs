//! What a shard's broker is started with, as plain values.

use std::time::Duration;

use super::endpoints::Endpoints;
use crate::model::configs::BrokerConfig;
use crate::model::id::NodeId;
use crate::storage::layout::Layout;

/// The options that all shards of a node share.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// This node.
    pub node: NodeId,
    /// Its name: the rack of all of its shards.
    pub node_name: String,
    /// Broker configs under Kafka's names, parsed.
    pub config: BrokerConfig,
    /// Where files are.
    pub layout: Layout,
    /// Shards of this node.
    pub shard_count: u16,
    /// Buffers of one shard.
    pub pool_size_bytes: usize,
    /// The part of them that holds what was written last.
    pub tail_size_bytes: usize,
    /// Ranges of sealed segments from this size on go out by splice.
    pub splice_size_bytes_min: u32,
    /// The most record bytes of one Fetch response: `fetch.max.bytes` divided by the shards.
    pub fetch_max_bytes: usize,
    /// Freed segment files are overwritten; off on copy-on-write file systems.
    pub reuses_segments: bool,
    /// Descriptors that this process may have open.
    pub open_file_count_max: u64,
    /// Turns of the event loop above this are logged.
    pub stall_threshold: Duration,
}

impl BrokerOptions {
    /// What DescribeConfigs shows of one broker that no configuration file sets.
    pub fn settings_at_start(&self, broker: Option<i32>, endpoints: &Endpoints) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("log.dirs", self.layout.data_dir().display().to_string()),
            ("log.dir", self.layout.data_dir().display().to_string()),
            ("broker.rack", self.node_name.clone()),
            // Of one shard: what is not set is shared out among them.
            ("fetch.max.bytes", self.fetch_max_bytes.to_string()),
        ];
        if let Some((id, endpoint)) = endpoints.brokers().find(|(id, _)| Some(id.0) == broker) {
            let address = format!("PLAINTEXT://{}:{}", endpoint.host, endpoint.port);
            settings.push(("broker.id", id.to_string()));
            settings.push(("node.id", id.to_string()));
            settings.push(("listeners", address.clone()));
            settings.push(("advertised.listeners", address));
        }
        settings
    }
}
