//! Where the shards listen, as clients are told.

use std::sync::Arc;

use crate::model::id::{BrokerId, NodeId, ShardId};
use crate::protocol::NodeEndpoint;

/// The advertised address of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The advertised addresses of a node's shards, in shard order, and the node's name as their rack.
#[derive(Clone, Debug)]
pub struct Endpoints {
    node: NodeId,
    rack: Arc<str>,
    shards: Arc<[Endpoint]>,
}

impl Endpoints {
    /// The endpoints of `node`; `rack` is its name, one failure domain for all of its shards.
    pub fn new(node: NodeId, rack: &str, shards: Vec<Endpoint>) -> Endpoints {
        Endpoints { node, rack: rack.into(), shards: shards.into() }
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The node's name.
    pub fn rack(&self) -> &str {
        &self.rack
    }

    /// Every broker with its endpoint.
    pub fn brokers(&self) -> impl Iterator<Item = (BrokerId, &Endpoint)> {
        self.shards.iter().enumerate().map(|(shard, endpoint)| (ShardId(shard as u16).broker(self.node), endpoint))
    }

    /// As Produce and Fetch responses carry them (KIP-951).
    pub fn wire(&self) -> Vec<NodeEndpoint<'_>> {
        self.brokers()
            .map(|(broker, endpoint)| NodeEndpoint {
                broker,
                host: &endpoint.host,
                port: endpoint.port,
                rack: Some(&self.rack),
            })
            .collect()
    }
}
