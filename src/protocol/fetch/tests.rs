//! The Fetch codec against the reference codec, version by version.

use super::*;
use crate::base::rng::Rng;
use crate::model::id::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId};
use crate::protocol::encode::encode_response;
use crate::protocol::samples::{Visitor, visit_served};
use crate::protocol::{DecodeError, ErrorCode, LeaderIdAndEpoch, NodeEndpoint, Topic};
use bytes::Bytes;
use kafka_protocol::messages as km;
use kafka_protocol::protocol::{Decodable, Encodable, Request};

/// All samples of one API.
#[derive(Default)]
struct Samples {
    requests: Vec<(i16, km::FetchRequest)>,
    responses: Vec<(i16, km::FetchResponse)>,
}

impl Visitor for Samples {
    fn request<T: Request + PartialEq + std::fmt::Debug>(&mut self, version: i16, request: T) {
        if T::KEY == API.key() {
            let mut body = Vec::new();
            request.encode(&mut body, version).unwrap();
            self.requests.push((version, Decodable::decode(&mut Bytes::from(body), version).unwrap()));
        }
    }
    fn response<T: Request>(&mut self, version: i16, response: T::Response) {
        if T::KEY == API.key() {
            let mut body = Vec::new();
            response.encode(&mut body, version).unwrap();
            self.responses.push((version, Decodable::decode(&mut Bytes::from(body), version).unwrap()));
        }
    }
}

fn samples() -> Samples {
    let mut samples = Samples::default();
    visit_served(&mut samples);
    assert_eq!(samples.requests.len(), 15);
    samples
}

fn body(version: i16, request: &km::FetchRequest) -> Vec<u8> {
    let mut body = vec![0xee; 5];
    request.encode(&mut body, version).unwrap();
    body
}

/// The request as the reference codec has it, rebuilt from our walk.
fn rebuild(frame: &[u8], version: i16) -> Result<km::FetchRequest, DecodeError> {
    let parsed = FetchRequest::parse(frame, 5, version)?;
    let mut request = km::FetchRequest::default()
        .with_cluster_id(parsed.cluster_id(frame).map(|text| text.to_owned().into()))
        .with_max_wait_ms(parsed.max_wait_ms)
        .with_min_bytes(parsed.min_bytes)
        .with_max_bytes(parsed.max_bytes)
        .with_isolation_level(i8::from(parsed.is_read_committed))
        .with_session_id(parsed.session_id)
        .with_session_epoch(parsed.session_epoch)
        .with_rack_id(parsed.rack(frame).to_owned().into());
    if version < 15 {
        request.replica_id = parsed.replica_id.0.into();
    } else {
        request.replica_state.replica_id = parsed.replica_id.0.into();
        request.replica_state.replica_epoch = parsed.replica_epoch;
    }
    let (mut steps, mut partition_count) = (parsed.steps(), 0);
    while let Some(step) = steps.next(frame) {
        match step {
            FetchStep::Topic { topic, partition_count } => {
                let mut named = km::fetch_request::FetchTopic::default();
                match topic.resolve(frame) {
                    Topic::Name(name) => named.topic = km::TopicName(name.to_owned().into()),
                    Topic::Id(id) => named.topic_id = id.0,
                }
                named.partitions.reserve_exact(partition_count);
                request.topics.push(named);
            }
            FetchStep::Partition(partition) => {
                partition_count += 1;
                request.topics.last_mut().unwrap().partitions.push(
                    km::fetch_request::FetchPartition::default()
                        .with_partition(partition.index.0)
                        .with_current_leader_epoch(partition.current_leader_epoch.0)
                        .with_fetch_offset(partition.fetch_offset.0)
                        .with_last_fetched_epoch(partition.last_fetched_epoch.0)
                        .with_log_start_offset(partition.log_start_offset.0)
                        .with_partition_max_bytes(partition.max_bytes)
                        .with_replica_directory_id(partition.replica_directory_id)
                        .with_high_watermark(partition.high_watermark.0),
                );
            }
        }
    }
    assert_eq!((parsed.topic_count, parsed.partition_count), (request.topics.len(), partition_count));
    let (mut steps, mut partition_count) = (parsed.forgotten_steps(), 0);
    while let Some(step) = steps.next(frame) {
        match step {
            ForgottenStep::Topic { topic, .. } => {
                let mut named = km::fetch_request::ForgottenTopic::default();
                match topic.resolve(frame) {
                    Topic::Name(name) => named.topic = km::TopicName(name.to_owned().into()),
                    Topic::Id(id) => named.topic_id = id.0,
                }
                request.forgotten_topics_data.push(named);
            }
            ForgottenStep::Partition(index) => {
                partition_count += 1;
                request.forgotten_topics_data.last_mut().unwrap().partitions.push(index.0);
            }
        }
    }
    assert_eq!(parsed.forgotten_topic_count, request.forgotten_topics_data.len());
    assert_eq!(parsed.forgotten_partition_count, partition_count);
    Ok(request)
}

/// The response as our encoder writes it, with the records put into the gaps.
fn encode_ours(version: i16, correlation_id: i32, response: &km::FetchResponse) -> Vec<u8> {
    let (mut out, mut gaps) = (vec![9; 3], Vec::new());
    let mut encoder = FetchResponseEncoder::begin(
        &mut out,
        FetchResponseHead {
            version,
            correlation_id,
            throttle_time_ms: response.throttle_time_ms,
            error: ErrorCode::from_code(response.error_code).unwrap(),
            session_id: response.session_id,
            topic_count: response.responses.len(),
        },
    );
    for topic in &response.responses {
        let named = if version >= 13 { Topic::Id(TopicId(topic.topic_id)) } else { Topic::Name(&topic.topic) };
        encoder.topic(named, topic.partitions.len());
        for partition in &topic.partitions {
            let aborted = partition.aborted_transactions.as_ref().map(|list| {
                list.iter().map(|a| (ProducerId(*a.producer_id), Offset(a.first_offset))).collect::<Vec<_>>()
            });
            let diverging = &partition.diverging_epoch;
            let leader = &partition.current_leader;
            let records = partition.records.clone().unwrap();
            let gap = encoder.partition(
                &FetchPartitionResponse {
                    index: PartitionIndex(partition.partition_index),
                    error: ErrorCode::from_code(partition.error_code).unwrap(),
                    high_watermark: Offset(partition.high_watermark),
                    last_stable_offset: Offset(partition.last_stable_offset),
                    log_start_offset: Offset(partition.log_start_offset),
                    aborted_transactions: aborted.as_deref(),
                    preferred_read_replica: BrokerId(*partition.preferred_read_replica),
                    diverging_epoch: (*diverging != Default::default())
                        .then_some((LeaderEpoch(diverging.epoch), Offset(diverging.end_offset))),
                    current_leader: (*leader != Default::default()).then(|| LeaderIdAndEpoch {
                        leader: BrokerId(*leader.leader_id),
                        leader_epoch: LeaderEpoch(leader.leader_epoch),
                    }),
                },
                records.len(),
            );
            gaps.push((gap, records));
        }
    }
    let endpoints: Vec<_> = (response.node_endpoints.iter())
        .map(|e| NodeEndpoint {
            broker: BrokerId(*e.node_id),
            host: &e.host,
            port: e.port as u16,
            rack: e.rack.as_deref(),
        })
        .collect();
    let total = encoder.finish(&endpoints);
    for (gap, records) in gaps.into_iter().rev() {
        out.splice(gap..gap, records);
    }
    assert_eq!(out[..3], [9; 3]);
    assert_eq!(out.len() - 3, total);
    out.split_off(3)
}

#[test]
fn requests_of_every_version_are_read_as_the_reference_codec_wrote_them() {
    for (version, request) in samples().requests {
        assert_eq!(rebuild(&body(version, &request), version).unwrap(), request, "version {version}");
        let plain = km::FetchRequest::default();
        assert_eq!(rebuild(&body(version, &plain), version).unwrap(), plain, "version {version}");
    }
}

#[test]
fn responses_of_every_version_are_those_of_the_reference_codec() {
    // The populated sample and an empty response; the gaps are filled before comparing whole frames.
    for (version, response) in samples().responses {
        for response in [response, km::FetchResponse::default()] {
            let mut expected = Vec::new();
            encode_response(&mut expected, API, version, 31, &response).unwrap();
            assert_eq!(encode_ours(version, 31, &response), expected, "version {version}");
        }
    }
}

#[test]
fn every_truncation_is_refused_and_no_mutation_panics_or_leads_outside() {
    // What passes here must also pass the reference codec and mean the same to it.
    let mut rng = Rng::new(3);
    for (version, request) in samples().requests {
        let sound = body(version, &request);
        for cut in 5..sound.len() {
            assert!(FetchRequest::parse(&sound[..cut], 5, version).is_err(), "version {version} cut {cut}");
        }
        for _ in 0..4_000 {
            let mut frame = sound.clone();
            for _ in 0..rng.in_range(1..4) {
                let at = rng.in_range(5..frame.len() as u64) as usize;
                frame[at] = *[0, 1, 0x7f, 0x80, 0xff, rng.next_u64() as u8].get(rng.in_range(0..6) as usize).unwrap();
            }
            if let Ok(rebuilt) = rebuild(&frame, version) {
                let mut rest = Bytes::from(frame).slice(5..);
                let mut reference = km::FetchRequest::decode(&mut rest, version).unwrap();
                forget_tags(&mut reference);
                assert_eq!(rebuilt, reference, "version {version}");
            }
        }
    }
}

fn forget_tags(request: &mut km::FetchRequest) {
    request.unknown_tagged_fields.clear();
    request.replica_state.unknown_tagged_fields.clear();
    for topic in &mut request.topics {
        topic.unknown_tagged_fields.clear();
        topic.partitions.iter_mut().for_each(|p| p.unknown_tagged_fields.clear());
    }
    request.forgotten_topics_data.iter_mut().for_each(|t| t.unknown_tagged_fields.clear());
}

#[test]
fn tagged_fields_count_only_in_the_versions_that_have_them() {
    // Replica state (tag 1) is of version 15, a partition's directory id (tag 0) of 17 and its high watermark (tag 1)
    // of 18; before, Kafka refuses the tag. Any other tag is passed over in every flexible version.
    // The reference codec writes no known tag where it does not belong, so it writes tag 9, which is then renamed.
    let parse = |version: i16, request: &km::FetchRequest, tag: u8, value: &[u8]| {
        let mut frame = body(version, request);
        let field = [&[9, value.len() as u8], value].concat();
        let at = frame.windows(field.len()).position(|window| *window == field).unwrap();
        frame[at] = tag;
        FetchRequest::parse(&frame, 5, version).map(|parsed| parsed.replica_id.0)
    };
    const STATE: &[u8] = &[0, 0, 3, 235, 0, 0, 0, 0, 0, 0, 0, 6, 0];
    let request = km::FetchRequest::default().with_unknown_tagged_field(9, Bytes::from_static(STATE));
    let refused = Err(DecodeError::Invalid("tag for the version"));
    assert_eq!(parse(14, &request, 1, STATE), refused);
    assert_eq!(parse(14, &request, 9, STATE), Ok(-1));
    assert_eq!(parse(15, &request, 1, STATE), Ok(1003));
    assert_eq!(parse(15, &request, 9, STATE), Ok(-1));

    let in_partition = |version: i16, tag: u8, value: &'static [u8]| {
        let partition = km::fetch_request::FetchPartition::default();
        let partition = partition.with_unknown_tagged_field(9, Bytes::from_static(value));
        let topic = km::fetch_request::FetchTopic::default().with_partitions(vec![partition]);
        parse(version, &km::FetchRequest::default().with_topics(vec![topic]), tag, value)
    };
    assert_eq!(in_partition(16, 0, &[7; 16]), refused);
    assert_eq!(in_partition(17, 0, &[7; 16]), Ok(-1));
    assert_eq!(in_partition(17, 1, &[7; 8]), refused);
    assert_eq!(in_partition(18, 1, &[7; 8]), Ok(-1));
    assert_eq!(in_partition(18, 2, &[7; 3]), Ok(-1));
}
