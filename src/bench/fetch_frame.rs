//! The Fetch request of one consuming connection: made once, its offsets and correlation id patched in place.
//!
//! Outside of fetch sessions: every request names every partition.

use std::collections::BTreeMap;

use anyhow::Context;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::protocol::encode::encode_request;

use super::route::{BY_ID_FROM, LoadTopic, Place};

/// How a consumer asks.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// How long the broker may wait for `min_bytes`.
    pub wait_ms_max: i32,
    /// Answer at once when so much is there.
    pub min_bytes: i32,
    /// Per answer.
    pub max_bytes: i32,
    /// Per partition and answer.
    pub partition_max_bytes: i32,
}

/// A request that is sent again and again.
#[derive(Clone, Debug)]
pub struct FetchFrame {
    bytes: Vec<u8>,
    /// Where the offset of each partition stands.
    offsets_at: Vec<usize>,
}

const AT_CORRELATION_ID: usize = 8;

impl FetchFrame {
    /// A request for `places`; all offsets are 0.
    pub fn new(
        topics: &[LoadTopic],
        places: &[Place],
        version: i16,
        limits: FetchLimits,
    ) -> anyhow::Result<FetchFrame> {
        // Offsets that stand nowhere else show where they come to stand.
        let marker = |index: usize| 0x7a5c_e3b1_0000_0000 + index as i64;
        let mut by_topic: BTreeMap<u32, Vec<FetchPartition>> = BTreeMap::new();
        for (index, place) in places.iter().enumerate() {
            let partition = FetchPartition::default()
                .with_partition(place.partition)
                .with_fetch_offset(marker(index))
                .with_partition_max_bytes(limits.partition_max_bytes);
            by_topic.entry(place.topic).or_default().push(partition);
        }
        let named = |(topic, partitions): (u32, Vec<FetchPartition>)| {
            let topic = &topics[topic as usize];
            let named = FetchTopic::default().with_partitions(partitions);
            match version >= BY_ID_FROM {
                true => named.with_topic_id(topic.id.0),
                false => named.with_topic(TopicName(StrBytes::from_string(topic.name.clone()))),
            }
        };
        let mut request = FetchRequest::default()
            .with_max_wait_ms(limits.wait_ms_max)
            .with_min_bytes(limits.min_bytes)
            .with_max_bytes(limits.max_bytes)
            .with_session_epoch(-1)
            .with_topics(by_topic.into_iter().map(named).collect());
        if version < 15 {
            request.replica_id = (-1).into();
        }
        let mut bytes = Vec::new();
        encode_request(&mut bytes, version, 0, Some("ottla-bench"), &request).context("a Fetch request")?;
        let found: BTreeMap<i64, usize> = bytes
            .windows(8)
            .enumerate()
            .filter(|(_, window)| window[..4] == marker(0).to_be_bytes()[..4])
            .map(|(at, window)| (i64::from_be_bytes(window.try_into().expect("eight bytes")), at))
            .collect();
        let offsets_at = (0..places.len()).map(|index| found.get(&marker(index)).copied());
        let offsets_at: Vec<usize> =
            offsets_at.collect::<Option<_>>().context("an offset that is not in its request")?;
        let mut frame = FetchFrame { bytes, offsets_at };
        for index in 0..places.len() {
            frame.set_offset(index, 0);
        }
        Ok(frame)
    }

    /// Where the next request begins in the partition with this index among the places.
    pub fn set_offset(&mut self, index: usize, offset: i64) {
        self.bytes[self.offsets_at[index]..][..8].copy_from_slice(&offset.to_be_bytes());
    }

    /// The bytes of a request with this correlation id, size prefix included.
    pub fn request(&mut self, correlation_id: i32) -> Vec<u8> {
        self.bytes[AT_CORRELATION_ID..][..4].copy_from_slice(&correlation_id.to_be_bytes());
        self.bytes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::TopicId;
    use crate::protocol::fetch::{FetchRequest as Walked, FetchStep};
    use crate::protocol::header;

    #[test]
    fn offsets_and_the_correlation_id_are_where_the_broker_reads_them() {
        let id = |id| TopicId(uuid::Uuid::from_u128(id));
        let topics = [
            LoadTopic { name: "one".into(), id: id(1), partition_count: 9 },
            LoadTopic { name: "two".into(), id: id(2), partition_count: 9 },
        ];
        let place = |topic, partition| Place { topic, partition, id: 0 };
        let places = [place(1, 5), place(0, 3), place(1, 0)];
        let limits = FetchLimits { wait_ms_max: 500, min_bytes: 1, max_bytes: 1 << 20, partition_max_bytes: 1 << 16 };
        for version in [4, 11, 12, 13, 17] {
            let mut frame = FetchFrame::new(&topics, &places, version, limits).unwrap();
            for (index, offset) in [(0, 1000), (1, i64::MAX), (2, 3)] {
                frame.set_offset(index, offset);
            }
            let bytes = frame.request(4711);
            let content = &bytes[4..];
            let header = header::parse(content).unwrap();
            assert_eq!(header.correlation_id, 4711);
            let request = Walked::parse(content, header.body_offset, version).unwrap();
            assert_eq!((request.min_bytes, request.max_wait_ms, request.max_bytes), (1, 500, 1 << 20));
            let mut steps = request.steps();
            let mut found = Vec::new();
            while let Some(step) = steps.next(content) {
                if let FetchStep::Partition(partition) = step {
                    found.push((partition.index.0, partition.fetch_offset.0));
                }
            }
            assert_eq!(found, [(3, i64::MAX), (5, 1000), (0, 3)], "version {version}");
        }
    }
}
