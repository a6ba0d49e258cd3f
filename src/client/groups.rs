//! Groups: who coordinates one, its members, what it has committed.

use std::collections::BTreeMap;

use kafka_protocol::messages::consumer_group_describe_response::Assignment;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId,
    ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::Request;

use super::cluster::{Client, MAX_VERSION, text, topic_name};
use super::error::ClientError;
use crate::model::id::{BrokerId, LeaderEpoch, Offset};
use crate::protocol::ErrorCode;
use crate::protocol::wire::{self, DecodeError, Reader};

/// A topic and a partition of it.
pub type TopicPartition = (String, i32);

/// A group as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Its id.
    pub id: String,
    /// `consumer`, `connect`, anything; empty if no member ever came.
    pub protocol_type: String,
    /// Empty from brokers older than ListGroups 4.
    pub state: String,
    /// `classic` or `consumer`: the protocol that its members speak. Empty from brokers older than ListGroups 5.
    pub group_type: String,
    /// The broker that listed it: its coordinator.
    pub coordinator: i32,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its coordinator.
    pub coordinator: BrokerId,
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Dead`; of the consumer protocol `Assigning` or
    /// `Reconciling` instead of the two in the middle.
    pub state: String,
    /// What its members are to each other.
    pub protocol_type: String,
    /// The protocol that they have chosen: of consumers the assignor.
    pub protocol: String,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// Set if it is a group of the consumer protocol (KIP-848).
    pub epochs: Option<GroupEpochs>,
}

/// How far a group of the consumer protocol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEpochs {
    /// Raised by every change of its members and topics.
    pub group: i32,
    /// The group epoch that the targets were made for.
    pub assignment: i32,
}

/// Where a member of a group of the consumer protocol is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberProgress {
    /// Its epoch.
    pub epoch: i32,
    /// What it is to have.
    pub target: Vec<TopicPartition>,
    /// Topics that it reads, and the pattern of them.
    pub topics: Vec<String>,
    /// The pattern.
    pub regex: Option<String>,
    /// It speaks the classic protocol; `None` if the broker does not tell.
    pub is_classic: Option<bool>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave it.
    pub id: String,
    /// Its `group.instance.id`, if it is static.
    pub instance_id: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it came from.
    pub host: String,
    /// Its partitions, if it is a consumer.
    pub partitions: Vec<TopicPartition>,
    /// Set in a group of the consumer protocol.
    pub progress: Option<MemberProgress>,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The next record that it wants.
    pub offset: Offset,
    /// Epoch of the last record that it has seen.
    pub leader_epoch: LeaderEpoch,
    /// What the client keeps with it.
    pub metadata: String,
}

impl Client {
    /// The broker that coordinates a group.
    pub fn coordinator(&mut self, group: &str) -> Result<BrokerId, ClientError> {
        let response = self.call_any(MAX_VERSION, |version| match version {
            ..4 => FindCoordinatorRequest::default().with_key(text(group)),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]),
        })?;
        let (code, message, id) = match response.coordinators.first() {
            Some(found) => (found.error_code, found.error_message.clone(), found.node_id),
            None => (response.error_code, response.error_message, response.node_id),
        };
        ClientError::check(code, message.as_deref(), || format!("looking for the coordinator of group {group}"))?;
        Ok(BrokerId(id.0))
    }

    /// A call to the coordinator of a group. Retriable refusals, which `check` finds, are retried there or where the
    /// group has gone.
    fn call_coordinator<R: Request, T>(
        &mut self,
        group: &str,
        build: impl Fn(i16) -> R,
        check: impl Fn(R::Response) -> Result<T, ClientError>,
    ) -> Result<(BrokerId, T), ClientError> {
        self.retry(None, |client| {
            if client.info().brokers.is_empty() {
                client.metadata(Some(&[]))?;
            }
            let coordinator = client.coordinator(group)?;
            let response = client.call_broker(coordinator, MAX_VERSION, &build)?;
            Ok((coordinator, check(response)?))
        })
    }

    /// All groups: every broker is asked for those that it coordinates.
    pub fn list_groups(&mut self) -> Result<Vec<GroupListing>, ClientError> {
        let brokers: Vec<i32> = self.metadata(Some(&[]))?.brokers.keys().copied().collect();
        let mut groups = Vec::new();
        for broker in brokers {
            let response = self.retry(None, |client| {
                let response = client.call_broker(BrokerId(broker), MAX_VERSION, |_| ListGroupsRequest::default())?;
                ClientError::check(response.error_code, None, || format!("listing the groups of broker {broker}"))?;
                Ok(response)
            })?;
            groups.extend(response.groups.into_iter().map(|group| GroupListing {
                id: group.group_id.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
                group_type: group.group_type.to_string(),
                coordinator: broker,
            }));
        }
        groups.sort();
        Ok(groups)
    }

    /// A group with its members, whatever protocol they speak. One that does not exist is `Dead`.
    pub fn describe_group(&mut self, group: &str) -> Result<GroupDescription, ClientError> {
        let classic = self.describe_classic_group(group)?;
        if classic.state != "Dead" {
            return Ok(classic);
        }
        match self.describe_consumer_group(group) {
            Ok(described) => Ok(described.unwrap_or(classic)),
            // It knows no other groups.
            Err(ClientError::Unsupported { .. }) => Ok(classic),
            Err(error) => Err(error),
        }
    }

    /// A group of the consumer protocol with its members; `None` if it is none.
    fn describe_consumer_group(&mut self, group: &str) -> Result<Option<GroupDescription>, ClientError> {
        let build = |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(group))]);
        let (coordinator, described) = self.call_coordinator(group, build, |response| {
            let described = response.groups.into_iter().next();
            let described = described.ok_or_else(|| left_out("ConsumerGroupDescribe"))?;
            if described.error_code == ErrorCode::GroupIdNotFound.code() {
                return Ok(None);
            }
            let message = described.error_message.as_deref();
            ClientError::check(described.error_code, message, || format!("describing group {group}"))?;
            Ok(Some(described))
        })?;
        let Some(described) = described else { return Ok(None) };
        let members = described.members.into_iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            instance_id: member.instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions: partitions_of(&member.assignment),
            progress: Some(MemberProgress {
                epoch: member.member_epoch,
                target: partitions_of(&member.target_assignment),
                topics: member.subscribed_topic_names.iter().map(|name| name.to_string()).collect(),
                regex: member.subscribed_topic_regex.filter(|regex| !regex.is_empty()).map(|regex| regex.to_string()),
                is_classic: match member.member_type {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                },
            }),
        });
        Ok(Some(GroupDescription {
            coordinator,
            state: described.group_state.to_string(),
            protocol_type: "consumer".into(),
            protocol: described.assignor_name.to_string(),
            members: members.collect(),
            epochs: Some(GroupEpochs { group: described.group_epoch, assignment: described.assignment_epoch }),
        }))
    }

    /// A classic group with its members. Whatever else there is of this id is `Dead`.
    fn describe_classic_group(&mut self, group: &str) -> Result<GroupDescription, ClientError> {
        let build = |_| DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let (coordinator, described) = self.call_coordinator(group, build, |response| {
            let described = response.groups.into_iter().next();
            let described = described.ok_or_else(|| left_out("DescribeGroups"))?;
            if described.error_code != ErrorCode::GroupIdNotFound.code() {
                let message = described.error_message.as_deref();
                ClientError::check(described.error_code, message, || format!("describing group {group}"))?;
            }
            Ok(described)
        })?;
        let is_of_consumers = &*described.protocol_type == "consumer";
        let members = described.members.into_iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions: match is_of_consumers {
                true => assigned(&member.member_assignment).unwrap_or_default(),
                false => Vec::new(),
            },
            progress: None,
        });
        Ok(GroupDescription {
            coordinator,
            state: described.group_state.to_string(),
            protocol_type: described.protocol_type.to_string(),
            protocol: described.protocol_data.to_string(),
            members: members.collect(),
            epochs: None,
        })
    }

    /// Everything that a group has committed.
    pub fn group_offsets(&mut self, group: &str) -> Result<BTreeMap<TopicPartition, GroupOffset>, ClientError> {
        let build = |version| match version {
            ..8 => OffsetFetchRequest::default().with_group_id(GroupId(text(group))).with_topics(None),
            _ => {
                let asked = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(None);
                OffsetFetchRequest::default().with_groups(vec![asked.with_member_epoch(-1)])
            }
        };
        let what = || format!("offsets of group {group}");
        let (_, found) =
            self.call_coordinator(group, build, |response: <OffsetFetchRequest as Request>::Response| {
                let mut found = BTreeMap::new();
                let mut note = |topic: &str, index, code, offset, epoch, metadata: Option<&str>| {
                    ClientError::check(code, None, || format!("{}, {topic}-{index}", what()))?;
                    let metadata = metadata.unwrap_or_default().to_owned();
                    let offset = GroupOffset { offset: Offset(offset), leader_epoch: LeaderEpoch(epoch), metadata };
                    if offset.offset != Offset::NONE {
                        found.insert((topic.to_owned(), index), offset);
                    }
                    Ok::<(), ClientError>(())
                };
                ClientError::check(response.error_code, None, what)?;
                for topic in &response.topics {
                    for p in &topic.partitions {
                        let (epoch, metadata) = (p.committed_leader_epoch, p.metadata.as_deref());
                        note(&topic.name, p.partition_index, p.error_code, p.committed_offset, epoch, metadata)?;
                    }
                }
                for answer in &response.groups {
                    ClientError::check(answer.error_code, None, what)?;
                    for topic in &answer.topics {
                        for p in &topic.partitions {
                            let (epoch, metadata) = (p.committed_leader_epoch, p.metadata.as_deref());
                            note(&topic.name, p.partition_index, p.error_code, p.committed_offset, epoch, metadata)?;
                        }
                    }
                }
                Ok(found)
            })?;
        Ok(found)
    }

    /// Commits offsets for a group without members.
    pub fn commit_group_offsets(
        &mut self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, index), offset) in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(offset.0)
                .with_committed_metadata(Some(text("")));
            topics.entry(topic).or_default().push(partition);
        }
        let topics: Vec<OffsetCommitRequestTopic> = topics
            .into_iter()
            .map(|(name, partitions)| {
                OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
            })
            .collect();
        let build = |_| {
            OffsetCommitRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(topics.clone())
        };
        self.call_coordinator(group, build, |response| {
            for topic in &response.topics {
                for p in &topic.partitions {
                    ClientError::check(p.error_code, None, || {
                        format!("committing offsets of group {group}, {}-{}", topic.name.as_str(), p.partition_index)
                    })?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Deletes a group without members, with everything that it has committed.
    pub fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let build = |_| DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
        self.call_coordinator(group, build, |response| {
            let result = response.results.first().ok_or_else(|| left_out("DeleteGroups"))?;
            ClientError::check(result.error_code, None, || format!("deleting group {group}"))
        })?;
        Ok(())
    }
}

fn left_out(api: &str) -> ClientError {
    ClientError::Request(format!("{api} was answered without a group"))
}

/// The partitions in an assignment of the consumer protocol: version, topics with their partitions, and what is the
/// assignor's own.
fn assigned(assignment: &[u8]) -> Result<Vec<TopicPartition>, DecodeError> {
    let mut partitions = Vec::new();
    if assignment.is_empty() {
        return Ok(partitions);
    }
    let mut reader = Reader::new(assignment, 2);
    for _ in 0..reader.count(false, 6)? {
        let range = reader.text_range(false)?;
        let topic = wire::text(assignment, range);
        for _ in 0..reader.count(false, 4)? {
            partitions.push((topic.to_owned(), reader.i32()?));
        }
    }
    partitions.sort();
    Ok(partitions)
}

/// The partitions of an assignment, in order.
fn partitions_of(assignment: &Assignment) -> Vec<TopicPartition> {
    let topics = assignment.topic_partitions.iter();
    let named = topics.flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic_name.to_string(), *index)));
    let mut partitions: Vec<TopicPartition> = named.collect();
    partitions.sort();
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_of_an_assignment_are_found() {
        // By hand from the consumer protocol: version 1, two topics, no data of the assignor's own.
        let first = [&[0, 2][..], b"ab", &[0, 0, 0, 2], &[0, 0, 0, 7], &[0, 0, 0, 1]].concat();
        let second = [&[0, 1][..], b"c", &[0, 0, 0, 0]].concat();
        let bytes = [&[0, 1, 0, 0, 0, 2][..], &first, &second, &[0xff; 4]].concat();
        assert_eq!(assigned(&bytes), Ok(vec![("ab".into(), 1), ("ab".into(), 7)]));
        assert_eq!(assigned(&[]), Ok(Vec::new()));
        for length in 1..bytes.len() - 4 {
            assert!(assigned(&bytes[..length]).is_err(), "{length}");
        }
    }
}
