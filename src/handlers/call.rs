//! The way of a request to the handler of its API, and of small answers back.
//!
//! Produce and Fetch read the frame where it lies. Everything else is rare: its body is copied once, checked by the
//! guard and decoded by `kafka-protocol`, and its answer is encoded into a vector of its own.

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ListPartitionReassignmentsRequest};
use kafka_protocol::protocol::{Encodable, Request};

use super::broker::{Broker, Handled};
use super::room::Room;
use crate::io::Io;
use crate::model::limits::COLD_FRAME_SIZE_BYTES_MAX;
use crate::net::{CloseReason, ConnectionId, Ticket};
use crate::protocol::DecodeError;
use crate::protocol::api::{ApiKey, Lookup};
use crate::protocol::{decode, encode, header};

/// What a request's header says, without its borrow of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestInfo {
    pub lookup: Lookup,
    pub version: i16,
    pub correlation_id: i32,
    pub body_offset: usize,
}

/// A request that is not one of the hot two: whom its answer goes to and how it is to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Where the answer goes.
    pub ticket: Ticket,
    /// Which API.
    pub api: ApiKey,
    /// Which version of it.
    pub version: i16,
    /// What the answer repeats.
    pub correlation_id: i32,
}

impl<I: Io> Broker<I> {
    /// Gives a request to the handler of its API.
    pub(super) fn dispatch(&mut self, id: ConnectionId, info: RequestInfo, frame: &mut [u8]) -> Handled {
        if self.room() == Room::None && !matches!(info.lookup, Lookup::Served(ApiKey::Produce)) {
            self.wait_for_room(id);
            return Handled::Hold;
        }
        let api = match info.lookup {
            Lookup::Served(ApiKey::Produce) => return self.produce(id, info, frame),
            Lookup::Served(ApiKey::Fetch) => return self.fetch(id, info, frame),
            Lookup::Served(api) => api,
            Lookup::UnknownVersion(ApiKey::ApiVersions) => {
                let ticket = self.open_ticket(id);
                let mut bytes = Vec::new();
                encode::encode_unsupported_api_versions(&mut bytes, info.correlation_id);
                self.answer(ticket, Some(bytes.into()));
                return Handled::Done;
            }
            Lookup::UnknownVersion(_) => return Handled::Close(CloseReason::Malformed("unsupported API version")),
            Lookup::UnknownKey => return Handled::Close(CloseReason::Malformed("unknown API key")),
        };
        if frame.len() > COLD_FRAME_SIZE_BYTES_MAX {
            return Handled::Close(CloseReason::FrameSize(frame.len() as i64));
        }
        let body = Bytes::copy_from_slice(&frame[info.body_offset..]);
        let ticket = self.open_ticket(id);
        let call = Call { ticket, api, version: info.version, correlation_id: info.correlation_id };
        match self.handle_control(call, frame, body) {
            Ok(()) => Handled::Done,
            Err(error) => {
                tracing::debug!(api = api.name(), version = info.version, %error, "request cannot be decoded");
                Handled::Close(CloseReason::Malformed(api.name()))
            }
        }
    }

    fn handle_control(&mut self, call: Call, frame: &[u8], body: Bytes) -> Result<(), DecodeError> {
        match call.api {
            ApiKey::Produce | ApiKey::Fetch => unreachable!("dispatch has taken them"),
            ApiKey::ApiVersions => {
                let request = self.decode::<ApiVersionsRequest>(call, body)?;
                self.api_versions(call, &request);
            }
            ApiKey::Metadata => {
                let request = self.decode(call, body)?;
                self.metadata(call, request);
            }
            ApiKey::ListOffsets => {
                let request = self.decode(call, body)?;
                self.list_offsets(call, request);
            }
            ApiKey::CreateTopics => {
                let request = self.decode(call, body)?;
                self.create_topics(call, request);
            }
            ApiKey::DeleteTopics => {
                let request = self.decode(call, body)?;
                self.delete_topics(call, request);
            }
            ApiKey::OffsetCommit => {
                let request = self.decode(call, body)?;
                self.offset_commit(call, request);
            }
            ApiKey::OffsetFetch => {
                let request = self.decode(call, body)?;
                self.offset_fetch(call, request);
            }
            ApiKey::OffsetDelete => {
                let request = self.decode(call, body)?;
                self.offset_delete(call, request);
            }
            ApiKey::JoinGroup => {
                let request = self.decode(call, body)?;
                self.join_group(call, request, client_id(frame));
            }
            ApiKey::Heartbeat => {
                let request = self.decode(call, body)?;
                self.heartbeat(call, &request);
            }
            ApiKey::LeaveGroup => {
                let request = self.decode(call, body)?;
                self.leave_group(call, &request);
            }
            ApiKey::SyncGroup => {
                let request = self.decode(call, body)?;
                self.sync_group(call, &request);
            }
            ApiKey::ConsumerGroupHeartbeat => {
                let request = self.decode(call, body)?;
                self.consumer_group_heartbeat(call, &request, &client_id(frame));
            }
            ApiKey::ConsumerGroupDescribe => {
                let request = self.decode(call, body)?;
                self.consumer_group_describe(call, &request);
            }
            ApiKey::DescribeGroups => {
                let request = self.decode(call, body)?;
                self.describe_groups(call, &request);
            }
            ApiKey::ListGroups => {
                let request = self.decode(call, body)?;
                self.list_groups(call, &request);
            }
            ApiKey::DeleteGroups => {
                let request = self.decode(call, body)?;
                self.delete_groups(call, &request);
            }
            ApiKey::AddPartitionsToTxn => {
                let request = self.decode(call, body)?;
                self.add_partitions_to_txn(call, request);
            }
            ApiKey::AddOffsetsToTxn => {
                let request = self.decode(call, body)?;
                self.add_offsets_to_txn(call, request);
            }
            ApiKey::EndTxn => {
                let request = self.decode(call, body)?;
                self.end_txn(call, &request);
            }
            ApiKey::WriteTxnMarkers => {
                let request = self.decode(call, body)?;
                self.write_txn_markers(call, request);
            }
            ApiKey::TxnOffsetCommit => {
                let request = self.decode(call, body)?;
                self.txn_offset_commit(call, &request);
            }
            ApiKey::DescribeProducers => {
                let request = self.decode(call, body)?;
                self.describe_producers(call, &request);
            }
            ApiKey::DescribeTransactions => {
                let request = self.decode(call, body)?;
                self.describe_transactions(call, &request);
            }
            ApiKey::ListTransactions => {
                let request = self.decode(call, body)?;
                self.list_transactions(call, &request);
            }
            ApiKey::FindCoordinator => {
                let request = self.decode(call, body)?;
                self.find_coordinator(call, request);
            }
            ApiKey::InitProducerId => {
                let request = self.decode(call, body)?;
                self.init_producer_id(call, &request);
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = self.decode(call, body)?;
                self.offset_for_leader_epoch(call, request);
            }
            ApiKey::AlterConfigs => {
                let request = self.decode(call, body)?;
                self.alter_configs(call, request);
            }
            ApiKey::IncrementalAlterConfigs => {
                let request = self.decode(call, body)?;
                self.incremental_alter_configs(call, request);
            }
            ApiKey::CreatePartitions => {
                let request = self.decode(call, body)?;
                self.create_partitions(call, request);
            }
            ApiKey::DeleteRecords => {
                let request = self.decode(call, body)?;
                self.delete_records(call, request);
            }
            ApiKey::DescribeLogDirs => {
                let request = self.decode(call, body)?;
                self.describe_log_dirs(call, &request);
            }
            ApiKey::ElectLeaders => {
                let request = self.decode(call, body)?;
                self.elect_leaders(call, &request);
            }
            ApiKey::AlterPartitionReassignments => {
                let request = self.decode(call, body)?;
                self.alter_partition_reassignments(call, &request);
            }
            ApiKey::ListPartitionReassignments => {
                self.decode::<ListPartitionReassignmentsRequest>(call, body)?;
                self.list_partition_reassignments(call);
            }
            ApiKey::ListConfigResources => {
                let request = self.decode(call, body)?;
                self.list_config_resources(call, &request);
            }
            ApiKey::DescribeConfigs => {
                let request = self.decode(call, body)?;
                self.describe_configs(call, &request);
            }
            ApiKey::DescribeCluster => {
                let request = self.decode(call, body)?;
                self.describe_cluster(call, &request);
            }
            ApiKey::DescribeTopicPartitions => {
                let request = self.decode(call, body)?;
                self.describe_topic_partitions(call, &request);
            }
        }
        Ok(())
    }

    fn decode<R: Request>(&self, call: Call, body: Bytes) -> Result<R, DecodeError> {
        decode::decode(body, call.version)
    }

    /// Encodes an answer and sends it when its turn comes.
    pub(super) fn reply<T: Encodable>(&mut self, call: Call, response: &T) {
        let mut bytes = Vec::new();
        match encode::encode_response(&mut bytes, call.api, call.version, call.correlation_id, response) {
            Ok(()) => self.answer(call.ticket, Some(bytes.into())),
            Err(error) => {
                // Our own fault: the client must not wait for an answer that cannot come.
                tracing::error!(%error, "an answer could not be encoded");
                self.close(call.ticket.connection, CloseReason::Malformed("no encodable answer"));
            }
        }
    }
}

/// What the sender of a frame calls itself. Its header was read before.
fn client_id(frame: &[u8]) -> Box<str> {
    header::parse(frame).ok().and_then(|header| header.client_id).unwrap_or_default().into()
}
