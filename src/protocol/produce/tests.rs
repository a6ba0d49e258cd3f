//! The Produce codec against the reference codec, version by version.

use super::*;
use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::model::id::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::protocol::encode::encode_response;
use crate::protocol::samples::{Visitor, visit_served};
use crate::protocol::{DecodeError, ErrorCode, LeaderIdAndEpoch, NodeEndpoint, Topic};
use bytes::Bytes;
use kafka_protocol::messages as km;
use kafka_protocol::protocol::{Decodable, Encodable, Request};

#[derive(Default)]
struct Samples {
    requests: Vec<(i16, km::ProduceRequest)>,
    responses: Vec<(i16, km::ProduceResponse)>,
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
    assert_eq!(samples.requests.len(), 11);
    samples
}

fn body(version: i16, request: &km::ProduceRequest) -> Vec<u8> {
    let mut body = vec![0xee; 5];
    request.encode(&mut body, version).unwrap();
    body
}

/// The request as the reference codec has it, rebuilt from our walk.
fn rebuild(frame: &[u8], version: i16) -> Result<km::ProduceRequest, DecodeError> {
    let parsed = ProduceRequest::parse(frame, 5, version)?;
    let transactional_id = parsed.transactional_id(frame).map(|id| km::TransactionalId(id.to_owned().into()));
    let mut request = km::ProduceRequest::default()
        .with_transactional_id(transactional_id)
        .with_acks(parsed.acks)
        .with_timeout_ms(parsed.timeout_ms);
    let (mut steps, mut partition_count, mut size_bytes) = (parsed.steps(), 0, 0);
    while let Some(step) = steps.next(frame) {
        match step {
            ProduceStep::Topic { topic, .. } => {
                let mut named = km::produce_request::TopicProduceData::default();
                match topic.resolve(frame) {
                    Topic::Name(name) => named.name = km::TopicName(name.to_owned().into()),
                    Topic::Id(id) => named.topic_id = id.0,
                }
                request.topic_data.push(named);
            }
            ProduceStep::Partition { index, records } => {
                partition_count += 1;
                size_bytes += records.as_ref().map_or(0, |range| range.len());
                request.topic_data.last_mut().unwrap().partition_data.push(
                    km::produce_request::PartitionProduceData::default()
                        .with_index(index.0)
                        .with_records(records.map(|range| Bytes::copy_from_slice(&frame[range]))),
                );
            }
        }
    }
    let counts = (parsed.topic_count, parsed.partition_count, parsed.records_size_bytes);
    assert_eq!(counts, (request.topic_data.len(), partition_count, size_bytes));
    Ok(request)
}

fn encode_ours(version: i16, correlation_id: i32, response: &km::ProduceResponse) -> Vec<u8> {
    let mut out = vec![9; 3];
    let mut encoder = ProduceResponseEncoder::begin(&mut out, version, correlation_id, response.responses.len());
    for topic in &response.responses {
        let named = if version >= 13 { Topic::Id(TopicId(topic.topic_id)) } else { Topic::Name(&topic.name) };
        encoder.topic(named, topic.partition_responses.len());
        for partition in &topic.partition_responses {
            let leader = &partition.current_leader;
            let record_errors: Vec<_> = (partition.record_errors.iter())
                .map(|e| RecordError { batch_index: e.batch_index, message: e.batch_index_error_message.as_deref() })
                .collect();
            encoder.partition(&ProducePartitionResponse {
                index: PartitionIndex(partition.index),
                error: ErrorCode::from_code(partition.error_code).unwrap(),
                base_offset: Offset(partition.base_offset),
                log_append_time: Timestamp(partition.log_append_time_ms),
                log_start_offset: Offset(partition.log_start_offset),
                record_errors: &record_errors,
                error_message: partition.error_message.as_deref(),
                current_leader: (*leader != Default::default()).then(|| LeaderIdAndEpoch {
                    leader: BrokerId(*leader.leader_id),
                    leader_epoch: LeaderEpoch(leader.leader_epoch),
                }),
            });
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
    encoder.finish(response.throttle_time_ms, &endpoints);
    assert_eq!(out[..3], [9; 3]);
    out.split_off(3)
}

#[test]
fn requests_of_every_version_are_read_as_the_reference_codec_wrote_them() {
    for (version, request) in samples().requests {
        assert_eq!(rebuild(&body(version, &request), version).unwrap(), request, "version {version}");
        let plain = km::ProduceRequest::default();
        assert_eq!(rebuild(&body(version, &plain), version).unwrap(), plain, "version {version}");
    }
    let refused = ProduceRequest::parse(&[0; 64], 5, 2).map(|_| ());
    assert_eq!(refused, Err(DecodeError::UnsupportedVersion { api_key: 0, version: 2 }));
}

#[test]
fn responses_of_every_version_are_those_of_the_reference_codec() {
    for (version, response) in samples().responses {
        for response in [response, km::ProduceResponse::default()] {
            let mut expected = Vec::new();
            encode_response(&mut expected, API, version, 31, &response).unwrap();
            assert_eq!(encode_ours(version, 31, &response), expected, "version {version}");
        }
    }
}

#[test]
fn records_may_be_stamped_in_place_during_the_walk() {
    // Overwrites each partition's bytes as the walk comes by; the walk goes on undisturbed.
    let (version, request) = samples().requests.pop().unwrap();
    let mut frame = body(version, &request);
    let parsed = ProduceRequest::parse(&frame, 5, version).unwrap();
    let (mut steps, mut seen) = (parsed.steps(), 0);
    while let Some(step) = steps.next(&frame) {
        seen += 1;
        if let ProduceStep::Partition { records: Some(range), .. } = step {
            frame[range].fill(0xff);
        }
    }
    assert_eq!(seen, parsed.topic_count + parsed.partition_count);
}

#[test]
fn every_truncation_is_refused_and_no_mutation_panics_or_leads_outside() {
    // What passes here must also pass the reference codec and mean the same to it.
    let mut rng = Rng::new(4);
    for (version, request) in samples().requests {
        let sound = body(version, &request);
        for cut in 5..sound.len() {
            assert!(ProduceRequest::parse(&sound[..cut], 5, version).is_err(), "version {version} cut {cut}");
        }
        for _ in 0..4_000 {
            let mut frame = sound.clone();
            for _ in 0..rng.in_range(1..4) {
                let at = rng.in_range(5..frame.len() as u64) as usize;
                frame[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next_u64() as u8][rng.in_range(0..6) as usize];
            }
            if let Ok(rebuilt) = rebuild(&frame, version) {
                let mut rest = Bytes::from(frame).slice(5..);
                let mut reference = km::ProduceRequest::decode(&mut rest, version).unwrap();
                reference.unknown_tagged_fields.clear();
                for topic in &mut reference.topic_data {
                    topic.unknown_tagged_fields.clear();
                    topic.partition_data.iter_mut().for_each(|p| p.unknown_tagged_fields.clear());
                }
                assert_eq!(rebuilt, reference, "version {version}");
            }
        }
    }
}

#[test]
fn absurd_counts_are_refused_before_they_cost_anything() {
    // A count of topics that would need more bytes than there are, in both encodings.
    let mut fixed = vec![0xff, 0xff, 0, 1, 0, 0, 0, 0];
    fixed.extend_from_slice(&i32::MAX.to_be_bytes());
    assert!(matches!(ProduceRequest::parse(&fixed, 0, 3), Err(DecodeError::Truncated { .. })));
    let compact = [0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(ProduceRequest::parse(&compact, 0, 9), Err(DecodeError::Truncated { .. })));
}

#[test]
fn a_frame_of_nothing_but_empty_topics_is_refused_at_once() {
    // Version 9: no transactional id, acks, timeout, a million topics of three bytes.
    let mut frame = vec![0, 0, 1, 0, 0, 0, 0];
    crate::protocol::wire::put_uvarint(&mut frame, 1_000_001);
    for _ in 0..1_000_000 {
        frame.extend_from_slice(&[1, 1, 0]);
    }
    frame.push(0);
    let refused = ProduceRequest::parse(&frame, 0, 9).map(|_| ());
    assert_eq!(refused, Err(DecodeError::TooLarge("number of topics and partitions")));
}
