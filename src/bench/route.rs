//! Where the load goes: topics, their partitions, and the brokers that lead them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, ensure};
use kafka_protocol::messages::{FetchRequest, ProduceRequest};

use crate::client::{Client, ClientError, NewTopic, TopicInfo};
use crate::model::id::TopicId;
use crate::protocol::{ErrorCode, Topic};

/// The newest versions that are spoken here.
pub const PRODUCE_VERSION_MAX: i16 = 13;
/// The same of Fetch.
pub const FETCH_VERSION_MAX: i16 = 17;
/// From these versions on topics go by id (KIP-516).
pub const BY_ID_FROM: i16 = 13;

/// A topic under load.
#[derive(Clone, Debug)]
pub struct LoadTopic {
    /// Its name.
    pub name: String,
    /// Its id; nil from brokers that have none.
    pub id: TopicId,
    /// All its partitions, also those that get no load.
    pub partition_count: usize,
}

impl LoadTopic {
    /// True if an answer's topic is this one.
    pub fn is(&self, topic: Topic<'_>) -> bool {
        match topic {
            Topic::Name(name) => self.name == name,
            Topic::Id(id) => self.id == id,
        }
    }
}

/// One partition under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the topic in [`Route::topics`].
    pub topic: u32,
    /// The partition's index.
    pub partition: i32,
    /// Its number among all partitions under load, from 0.
    pub id: u32,
}

/// A broker and what it leads.
#[derive(Clone, Debug)]
pub struct BrokerRoute {
    /// Where it listens.
    pub address: SocketAddr,
    /// The Produce version to speak with it.
    pub produce_version: i16,
    /// The Fetch version to speak with it.
    pub fetch_version: i16,
    /// The partitions that it leads, at least one.
    pub places: Vec<Place>,
}

/// Topics and brokers.
#[derive(Clone, Debug)]
pub struct Route {
    /// The topics.
    pub topics: Vec<LoadTopic>,
    /// The brokers that lead a partition, by id.
    pub brokers: Vec<BrokerRoute>,
}

/// The topics that are asked for.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// The topic, or with several the part before `-0`, `-1` and so on.
    pub name: String,
    /// How many topics.
    pub count: usize,
    /// Partitions of each if it is created.
    pub partition_count: i32,
    /// Replicas if it is created; -1: the broker's default.
    pub replication_factor: i16,
    /// Configs if it is created.
    pub configs: Vec<(String, String)>,
    /// Create those that are not there; otherwise that is an error.
    pub create: bool,
}

impl TopicPlan {
    /// The names.
    pub fn names(&self) -> Vec<String> {
        match self.count {
            1 => vec![self.name.clone()],
            count => (0..count).map(|index| format!("{}-{index}", self.name)).collect(),
        }
    }
}

impl Route {
    /// Asks the brokers, and creates what is missing if the plan says so.
    pub fn find(client: &mut Client, plan: &TopicPlan) -> anyhow::Result<Route> {
        let mut route = Route { topics: Vec::new(), brokers: Vec::new() };
        let mut brokers: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
        let mut id = 0;
        for name in plan.names() {
            let topic = topic(client, plan, &name)?;
            let index = route.topics.len() as u32;
            for partition in &topic.partitions {
                let leader = client.leader(&name, partition.index)?;
                let place = Place { topic: index, partition: partition.index, id };
                brokers.entry(leader.0).or_default().push(place);
                id += 1;
            }
            route.topics.push(LoadTopic { name, id: topic.id, partition_count: topic.partitions.len() });
        }
        let ids_known = route.topics.iter().all(|topic| !topic.id.0.is_nil());
        let bound = |version: i16| if ids_known { version } else { version.min(BY_ID_FROM - 1) };
        for (broker, places) in brokers {
            let broker = crate::model::id::BrokerId(broker);
            let connection = client.broker(broker)?;
            let produce_version = connection.version_of::<ProduceRequest>(bound(PRODUCE_VERSION_MAX))?;
            let fetch_version = connection.version_of::<FetchRequest>(bound(FETCH_VERSION_MAX))?;
            let address = client.info().brokers[&broker.0].address.clone();
            let address = address
                .to_socket_addrs()
                .with_context(|| format!("the address {address} of broker {}", broker.0))?
                .next()
                .with_context(|| format!("the name {address} of broker {} resolves to nothing", broker.0))?;
            route.brokers.push(BrokerRoute { address, produce_version, fetch_version, places });
        }
        ensure!(!route.brokers.is_empty(), "there is no partition to put a load on");
        Ok(route)
    }

    /// All partitions.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.brokers.iter().flat_map(|broker| &broker.places)
    }

    /// The number of partitions.
    pub fn place_count(&self) -> usize {
        self.places().count()
    }

    /// Each connection with the partitions that are its share: at least one connection for each broker, and
    /// otherwise `connection_count` in all. Where there are more connections than partitions, several share one.
    pub fn shares(&self, connection_count: usize) -> Vec<(&BrokerRoute, Vec<Place>)> {
        let count = connection_count.max(self.brokers.len());
        let mut shares = Vec::with_capacity(count);
        for (number, broker) in self.brokers.iter().enumerate() {
            let own_count = count / self.brokers.len() + usize::from(number < count % self.brokers.len());
            for own in 0..own_count {
                let share = match broker.places.len() > own_count {
                    true => broker.places.iter().copied().skip(own).step_by(own_count).collect(),
                    false => vec![broker.places[own % broker.places.len()]],
                };
                shares.push((broker, share));
            }
        }
        shares
    }
}

fn topic(client: &mut Client, plan: &TopicPlan, name: &str) -> anyhow::Result<TopicInfo> {
    match client.topic(name, false) {
        Err(error) if plan.create && error.is_code(ErrorCode::UnknownTopicOrPartition) => {}
        other => return Ok(other?),
    }
    let new = NewTopic {
        name: name.to_string(),
        partition_count: plan.partition_count,
        replication_factor: plan.replication_factor,
        configs: plan.configs.clone(),
    };
    match client.create_topic(&new, false) {
        Ok(_) => {}
        // Somebody was faster.
        Err(error) if error.is_code(ErrorCode::TopicAlreadyExists) => {}
        Err(error) => return Err(error.into()),
    }
    // Known everywhere only a moment later on some brokers; and every partition needs its leader.
    Ok(client.retry(None, |client| {
        let info = client.topic(name, true)?;
        match info.partitions.iter().find(|partition| partition.leader.is_none()) {
            Some(partition) => Err(ClientError::NoLeader { topic: name.to_string(), partition: partition.index }),
            None => Ok(info),
        }
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(counts: &[usize]) -> Route {
        let mut id = 0;
        let mut brokers = Vec::new();
        for count in counts {
            let places = (0..*count).map(|index| {
                id += 1;
                Place { topic: 0, partition: index as i32, id: id - 1 }
            });
            let places = places.collect();
            let address = "127.0.0.1:1".parse().unwrap();
            brokers.push(BrokerRoute { address, produce_version: 13, fetch_version: 17, places });
        }
        let name = "t".to_string();
        let partition_count = id as usize;
        Route { topics: vec![LoadTopic { name, id: TopicId(uuid::Uuid::nil()), partition_count }], brokers }
    }

    #[test]
    fn every_partition_is_in_a_share_and_no_broker_is_left_out() {
        for counts in [&[1][..], &[7], &[3, 3], &[10, 1, 4]] {
            let route = route(counts);
            for connections in [1, 2, 3, 8, 40] {
                let shares = route.shares(connections);
                assert_eq!(shares.len(), connections.max(counts.len()));
                let mut seen: Vec<u32> = shares.iter().flat_map(|(_, share)| share).map(|place| place.id).collect();
                assert!(shares.iter().all(|(_, share)| !share.is_empty()));
                seen.sort();
                seen.dedup();
                assert_eq!(seen.len(), route.place_count(), "{counts:?} over {connections}");
            }
        }
    }
}
