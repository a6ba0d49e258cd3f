//! A consuming connection: one Fetch under way, positions that follow from what came back.
//!
//! Invariant: offsets of a partition never go back, else the run is over.

use anyhow::{Context, bail, ensure};
use rustc_hash::FxHashMap;

use super::link::Link;
use crate::base::time::Monotonic;
use crate::bench::answers;
use crate::bench::fetch_frame::FetchFrame;
use crate::bench::recorder::Counts;
use crate::bench::route::{LoadTopic, Place};
use crate::client::code_name;
use crate::io::{Io, Piece};
use crate::model::batch;
use crate::protocol::ErrorCode;

/// Where consuming begins and what happens at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Wait for more, as tail consumers do.
    Wait,
    /// Begin again where the log starts.
    Repeat,
    /// Be done.
    Stop,
}

/// What a consuming connection needs to know.
#[derive(Clone, Debug)]
pub struct ConsumerSetup {
    /// Its request.
    pub frame: FetchFrame,
    /// The Fetch version.
    pub version: i16,
    /// The partitions in the request's order.
    pub places: Vec<Place>,
    /// Where each begins.
    pub positions: Vec<i64>,
    /// What to do when all is read.
    pub at_end: AtEnd,
    /// Check the CRC of every batch.
    pub check_crc: bool,
}

struct Partition {
    position: i64,
    log_start_offset: i64,
    high_watermark: i64,
}

/// A connection that fetches.
pub(super) struct Consumer {
    pub(super) link: Link,
    /// Index of its stream.
    pub(super) stream: usize,
    setup: ConsumerSetup,
    partitions: Vec<Partition>,
    by_place: FxHashMap<(u32, i32), u32>,
    correlation_id: i32,
    asked: Monotonic,
    /// It has read all that it was to read.
    pub(super) is_done: bool,
}

impl Consumer {
    pub(super) fn new(link: Link, stream: usize, setup: ConsumerSetup) -> Consumer {
        let partitions = setup.positions.iter();
        let partitions = partitions
            .map(|position| Partition { position: *position, log_start_offset: *position, high_watermark: i64::MAX })
            .collect();
        let numbered = setup.places.iter().zip(0..);
        let by_place = numbered.map(|(place, index)| ((place.topic, place.partition), index)).collect();
        let asked = Monotonic::default();
        let mut consumer =
            Consumer { link, stream, setup, partitions, by_place, correlation_id: 0, asked, is_done: false };
        for (index, partition) in consumer.partitions.iter().enumerate() {
            consumer.setup.frame.set_offset(index, partition.position);
        }
        consumer
    }

    /// Asks for what comes next.
    pub(super) fn ask(&mut self, io: &mut impl Io, now: Monotonic) {
        if self.is_done || !self.link.can_send() {
            return;
        }
        self.correlation_id = (self.correlation_id + 1) & 0x3fff_ffff;
        self.asked = now;
        let request = self.setup.frame.request(self.correlation_id);
        self.link.send(io, |gather| gather.push(Piece::Owned(request)));
    }

    /// An answer: what it held, and since when it was asked for. `saw` is called with the place and base offset of
    /// every batch.
    #[inline]
    pub(super) fn answered(
        &mut self,
        answer: &[u8],
        topics: &[LoadTopic],
        mut saw: impl FnMut(u32, i64),
    ) -> anyhow::Result<(Monotonic, Counts)> {
        let id = answers::correlation_id(answer)?;
        ensure!(id == self.correlation_id, "an answer to request {id} instead of {}", self.correlation_id);
        let Consumer { setup, partitions, by_place, .. } = self;
        let mut counts = Counts { requests: 1, ..Counts::default() };
        let mut topic_last = 0;
        let error = answers::fetched::<anyhow::Error>(answer, setup.version, |got| {
            if !topics[topic_last].is(got.topic) {
                let found = topics.iter().position(|topic| topic.is(got.topic));
                topic_last = found.context("an answer for a topic that was not asked")?;
            }
            let index = *by_place
                .get(&(topic_last as u32, got.partition))
                .context("an answer for a partition that was not asked")?;
            let (place, partition) = (setup.places[index as usize], &mut partitions[index as usize]);
            let before = partition.position;
            if got.error_code == ErrorCode::OffsetOutOfRange.code() && partition.log_start_offset > before {
                // Retention was faster.
                partition.position = partition.log_start_offset;
            } else if got.error_code != 0 {
                bail!("the broker answered {} for partition {}", code_name(got.error_code), got.partition);
            } else {
                partition.high_watermark = got.high_watermark;
                partition.log_start_offset = partition.log_start_offset.max(got.log_start_offset);
            }
            for (header, bytes) in batch::batches(got.records) {
                let next = header.next_offset().0;
                ensure!(
                    next > partition.position,
                    "partition {} gave offset {} again after {}",
                    got.partition,
                    header.base_offset.0,
                    partition.position
                );
                if setup.check_crc {
                    ensure!(batch::crc_of(bytes) == header.crc, "a batch with a wrong CRC at {}", header.base_offset);
                }
                partition.position = next;
                counts.bytes += bytes.len() as u64;
                counts.records += header.record_count as u64;
                saw(place.id, header.base_offset.0);
            }
            if partition.position != before {
                setup.frame.set_offset(index as usize, partition.position);
            }
            Ok(())
        })?;
        ensure!(error == 0, "the broker answered a Fetch with {}", code_name(error));
        if self.setup.at_end != AtEnd::Wait && self.partitions.iter().all(|p| p.position >= p.high_watermark) {
            self.end();
        }
        Ok((self.asked, counts))
    }

    fn end(&mut self) {
        if self.setup.at_end == AtEnd::Stop {
            self.is_done = true;
            return;
        }
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            partition.position = partition.log_start_offset;
            self.setup.frame.set_offset(index, partition.position);
        }
    }
}
