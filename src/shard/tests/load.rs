//! A load that remembers what it was told, and the plain model that checks what is read back.
//!
//! Every partition has one writer: batches of a few records, in order, some of them of an idempotent producer, several
//! requests in flight on one connection a shard. What was not acknowledged when a connection ended is sent again by
//! idempotent writers and given up by the others.
//!
//! The model is the list of batches sent, in order, and which of them were acknowledged where. What is read back must
//! be: sound batches that were sent to this partition, byte for byte (but for what the broker stamps), in the order
//! of sending, none twice, without a gap between offsets, with everything acknowledged at its offset; and of an
//! idempotent writer no batch left out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, ProduceRequest, ProduceResponse};

use super::client::{self, Client, FETCH_BY_ID, PRODUCE_BY_ID, fetch_request, partition_of, produce_request};
use super::node::TestNode;
use crate::base::rng::Rng;
use crate::model::batch::{self, CRC_COVERED_FROM, Header};
use crate::model::id::{ProducerId, TopicId};
use crate::protocol::ErrorCode;

/// One partition and its writer.
pub struct Part {
    pub topic: TopicId,
    pub index: i32,
    /// Who leads it: read from the metadata after every start.
    pub leader: usize,
    pub producer: Option<ProducerId>,
    /// Batches in order of sending, without what the broker stamps, and how many records each has.
    pub sent: Vec<(Vec<u8>, i32)>,
    /// Base offsets of acknowledged batches.
    pub acked: BTreeMap<i64, usize>,
    /// Batches to be sent (again) before new ones.
    again: VecDeque<usize>,
    in_flight: VecDeque<usize>,
    sequence: i32,
    /// The greatest log start that was seen.
    pub log_start: i64,
    pub is_deleted: bool,
    /// An error ended the writing.
    pub is_refused: Option<ErrorCode>,
    by_bytes: BTreeMap<Vec<u8>, usize>,
}

/// Everything that is written to one node.
pub struct Load {
    pub parts: Vec<Part>,
    pub rng: Rng,
    pub value_size_bytes_max: u64,
    pub depth_max: usize,
    /// Readers ask for what is written, at any offset.
    pub has_readers: bool,
    links: Vec<Link>,
}

/// The connections to one shard, and what was asked on them, oldest first.
struct Link {
    writer: Client,
    written: VecDeque<usize>,
    reader: Client,
    /// Partition, offset, and the end of what was acknowledged then.
    read: VecDeque<(usize, i64, i64)>,
}

impl Load {
    pub fn new(seed: u64) -> Load {
        Load {
            parts: Vec::new(),
            rng: Rng::new(seed),
            value_size_bytes_max: 3_000,
            depth_max: 4,
            has_readers: true,
            links: Vec::new(),
        }
    }

    /// Adds the partitions of a topic.
    pub fn add_topic(&mut self, topic: TopicId, partitions: i32, producer: Option<ProducerId>) {
        for index in 0..partitions {
            self.parts.push(Part {
                topic,
                index,
                leader: usize::MAX,
                producer,
                sent: Vec::new(),
                acked: BTreeMap::new(),
                again: VecDeque::new(),
                in_flight: VecDeque::new(),
                sequence: 0,
                log_start: 0,
                is_deleted: false,
                is_refused: None,
                by_bytes: BTreeMap::new(),
            });
        }
    }

    /// Forgets all connections, as their ends do: of what was in flight nothing is known.
    pub fn disconnect(&mut self) {
        self.links.clear();
        for part in &mut self.parts {
            let mut lost = std::mem::take(&mut part.in_flight);
            if part.producer.is_some() {
                lost.append(&mut part.again);
                part.again = lost;
            }
        }
    }

    /// Finds the leaders and connects; false if the power was cut.
    pub fn connect(&mut self, node: &mut TestNode) -> bool {
        self.disconnect();
        let mut client = Client::connect(node, 0);
        let Some(metadata) = client.metadata(node) else { return false };
        for part in &mut self.parts {
            let found = metadata.topics.iter().find(|topic| topic.topic_id == part.topic.0);
            if part.is_deleted {
                assert!(found.is_none(), "a deleted topic is listed");
                continue;
            }
            let seed = node.world.seed();
            let topic = found.unwrap_or_else(|| panic!("seed {seed}: an acknowledged topic is gone"));
            part.leader = topic.partitions[part.index as usize].leader_id.0 as usize - 1;
        }
        self.links = (0..node.shards.len())
            .map(|shard| Link {
                writer: Client::connect(node, shard),
                written: VecDeque::new(),
                reader: Client::connect(node, shard),
                read: VecDeque::new(),
            })
            .collect();
        true
    }

    /// Takes answers and sends more. Call it between steps.
    pub fn pump(&mut self, node: &TestNode, may_send: bool) {
        for shard in 0..self.links.len() {
            let seed = node.world.seed();
            let Link { writer, written, reader, read } = &mut self.links[shard];
            while let Some(response) = writer.take::<ProduceRequest>(PRODUCE_BY_ID) {
                let part = written.pop_front().expect("it was asked");
                self.parts[part].answered(seed, response);
            }
            while let Some(mut response) = reader.take::<FetchRequest>(FETCH_BY_ID) {
                let (part, offset, end) = read.pop_front().expect("it was asked");
                self.parts[part].was_read(seed, offset, end, response.responses.remove(0).partitions.remove(0));
            }
            let is_over = writer.is_over() || reader.is_over();
            assert!(!is_over || node.world.is_power_cut(), "seed {seed}: shard {shard} ended a connection");
            let ready: Vec<usize> = (0..self.parts.len())
                .filter(|at| {
                    let part = &self.parts[*at];
                    let may = !part.is_deleted && part.is_refused.is_none() && part.leader == shard;
                    may && part.in_flight.len() < self.depth_max && (may_send || !part.again.is_empty())
                })
                .collect();
            if !ready.is_empty() && self.rng.chance(1, 3) {
                let at = ready[self.rng.in_range(0..ready.len() as u64) as usize];
                let part = &mut self.parts[at];
                let bytes = part.next_batch(node, &mut self.rng, self.value_size_bytes_max);
                writer.send(PRODUCE_BY_ID, &produce_request(part.topic, part.index, bytes));
                written.push_back(at);
            }
            if self.has_readers && may_send && read.len() < 4 && self.rng.chance(1, 10) {
                let at = self.rng.in_range(0..self.parts.len() as u64) as usize;
                let part = &self.parts[at];
                if part.leader == shard && !part.is_deleted && part.is_refused.is_none() {
                    let end = part.acked_end();
                    let from = part.log_start.min(end) as u64;
                    let offset = self.rng.in_range(from..=end as u64) as i64;
                    let wait_ms = [0, 0, 20][self.rng.in_range(0..3) as usize];
                    let request = fetch_request(part.topic, part.index, offset).with_max_wait_ms(wait_ms);
                    reader.send(FETCH_BY_ID, &request);
                    read.push_back((at, offset, end));
                }
            }
        }
    }

    /// Batches that are not answered.
    pub fn in_flight_count(&self) -> usize {
        let again = |part: &Part| if part.is_refused.is_none() { part.again.len() } else { 0 };
        self.parts.iter().map(|part| part.in_flight.len() + again(part)).sum()
    }

    /// Batches that were acknowledged.
    pub fn acked_count(&self) -> usize {
        self.parts.iter().map(|part| part.acked.len()).sum()
    }

    /// Writes until so many batches more are acknowledged, then lets everything be answered. False if the power was
    /// cut.
    pub fn run(&mut self, node: &mut TestNode, batch_count: usize) -> bool {
        if !self.parts.iter().any(|part| !part.is_deleted && part.is_refused.is_none()) {
            return true;
        }
        let goal = self.acked_count() + batch_count;
        let until = node.world.now().monotonic + Duration::from_secs(100);
        node.run_until(|node| {
            assert!(node.world.now().monotonic < until, "seed {}: {}", node.world.seed(), self.describe());
            let may_send = self.acked_count() < goal;
            self.pump(node, may_send);
            !may_send && self.in_flight_count() == 0 && self.links.iter().all(|link| link.read.is_empty())
        })
    }

    fn describe(&self) -> String {
        let parts = self.parts.iter().map(|part| {
            let counts = (part.sent.len(), part.acked.len(), part.again.len(), part.in_flight.len());
            format!("\n{}-{}: at {}, {counts:?}, {:?}", part.topic, part.index, part.leader, part.is_refused)
        });
        let links = self.links.iter().map(|link| format!("\n{:?} {:?}", link.written, link.read));
        parts.chain(links).collect()
    }

    /// Reads everything back and compares it with the model. False if the power was cut.
    pub fn verify(&mut self, node: &mut TestNode) -> bool {
        let mut clients: Vec<Client> = (0..node.shards.len()).map(|shard| Client::connect(node, shard)).collect();
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            if part.is_deleted {
                continue;
            }
            if part.leader >= clients.len() {
                panic!("connect() comes first");
            }
            if !part.verify(node, &mut clients[part.leader]) {
                return false;
            }
        }
        true
    }
}

impl Part {
    fn next_batch(&mut self, node: &TestNode, rng: &mut Rng, size_max: u64) -> Vec<u8> {
        if let Some(number) = self.again.pop_front() {
            self.in_flight.push_back(number);
            let mut bytes = vec![0; CRC_COVERED_FROM];
            bytes.extend_from_slice(&self.sent[number].0);
            // Base offset and epoch are the broker's; length and magic go by the rest.
            let length = (bytes.len() - 12) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            batch::stamp_crc(&mut bytes);
            return bytes;
        }
        let number = self.sent.len();
        let count = rng.in_range(1..=4) as i32;
        let values: Vec<Vec<u8>> = (0..count)
            .map(|record| {
                let mut value = format!("{}-{} {number} {record} ", self.topic, self.index).into_bytes();
                let size = value.len() + rng.in_range(0..=size_max) as usize;
                value.resize(size, b'a' + (number % 26) as u8);
                value
            })
            .collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let producer = self.producer.map(|id| (id, self.sequence));
        self.sequence += count;
        let bytes = client::batch(node.world.now().wall, producer, &values);
        self.sent.push((bytes[CRC_COVERED_FROM..].to_vec(), count));
        self.by_bytes.insert(bytes[CRC_COVERED_FROM..].to_vec(), number);
        self.in_flight.push_back(number);
        bytes
    }

    /// A batch that somebody else sent and that may be there or not.
    pub fn add_unacknowledged(&mut self, bytes: &[u8]) {
        self.by_bytes.insert(bytes[CRC_COVERED_FROM..].to_vec(), self.sent.len());
        self.sent.push((bytes[CRC_COVERED_FROM..].to_vec(), 1));
    }

    fn answered(&mut self, seed: u64, response: ProduceResponse) {
        let number = self.in_flight.pop_front().expect("it was in flight");
        let answer = partition_of(response);
        match ErrorCode::from_code(answer.error_code).expect("a known code") {
            ErrorCode::None => {
                let before = self.acked.insert(answer.base_offset, number);
                assert!(before.is_none_or(|before| before == number), "seed {seed}: an offset given twice");
            }
            error => {
                println!("seed {seed}: {}-{}: batch {number} is refused: {answer:?}", self.topic, self.index);
                self.is_refused = Some(error);
            }
        }
    }

    /// Where the last acknowledged batch ends.
    pub fn acked_end(&self) -> i64 {
        self.acked.last_key_value().map_or(0, |(offset, number)| offset + i64::from(self.sent[*number].1))
    }

    /// One answer of many: what a reader has seen must stay as it is, as if it had been acknowledged.
    fn was_read(&mut self, seed: u64, offset: i64, acked_end: i64, data: PartitionData) {
        let who = format!("seed {seed}, {}-{} from {offset}", self.topic, self.index);
        if data.error_code == ErrorCode::OffsetOutOfRange.code() {
            // Retention was here; where the log starts is for the next comparison.
            return;
        }
        assert_eq!(data.error_code, 0, "{who}: {data:?}");
        assert!(data.high_watermark >= acked_end, "{who}: {acked_end} was acknowledged: {data:?}");
        let mut expected = None;
        for (header, bytes) in batch::batches(&data.records.unwrap_or_default()) {
            let base = header.base_offset.0;
            batch::validate(bytes).unwrap_or_else(|error| panic!("{who}: {error} at {base}"));
            let continues = expected.map_or(base <= offset, |expected| expected == base);
            assert!(continues, "{who}: {expected:?} was expected, {base} came");
            expected = Some(header.next_offset().0);
            let number = *self.by_bytes.get(&bytes[CRC_COVERED_FROM..]).unwrap_or_else(|| {
                panic!("{who}: the batch at {base} was never sent: {header:?}");
            });
            let before = self.acked.insert(base, number);
            assert!(before.is_none_or(|before| before == number), "{who}: {before:?} became {number} at {base}");
        }
        let is_missing = expected.is_none() && offset < data.high_watermark;
        assert!(!is_missing, "{who}: nothing below {}", data.high_watermark);
    }

    fn verify(&mut self, node: &mut TestNode, client: &mut Client) -> bool {
        let seed = node.world.seed();
        let who = format!("seed {seed}, {}-{}", self.topic, self.index);
        let mut from = self.log_start;
        let (found, data) = loop {
            match client.read_all(node, self.topic, self.index, from) {
                None => return false,
                Some(Ok(found)) => break found,
                Some(Err(data)) if data.error_code == ErrorCode::OffsetOutOfRange.code() => {
                    let Some(start) = client.try_log_start(node, self.topic, self.index) else { return false };
                    assert!(start > from, "{who}: {from} is out of range, the log starts at {start}");
                    from = start;
                }
                Some(Err(data)) => panic!("{who}: {data:?}{}", node.describe_disk()),
            }
        };
        assert!(data.log_start_offset >= self.log_start, "{who}: the log start went back");
        self.log_start = self.log_start.max(data.log_start_offset);
        self.check(&who, from, data.high_watermark, &found);
        true
    }

    fn check(&self, who: &str, from: i64, high_watermark: i64, found: &[(Header, Vec<u8>)]) {
        let mut at: BTreeMap<i64, usize> = BTreeMap::new();
        let (mut expected, mut last, mut epoch) = (None, None, -1);
        for (header, bytes) in found {
            let offset = header.base_offset.0;
            assert!(
                expected.is_none_or(|expected| expected == offset),
                "{who}: {expected:?} is missing, {offset} came"
            );
            expected = Some(header.next_offset().0);
            let number = *self.by_bytes.get(&bytes[CRC_COVERED_FROM..]).unwrap_or_else(|| {
                panic!("{who}: the batch at {offset} was never sent: {header:?}");
            });
            let in_order = last.is_none_or(|last| last < number);
            assert!(in_order, "{who}: batch {number} at {offset} follows batch {last:?}");
            let has_gap = last.is_some_and(|last| self.producer.is_some() && last + 1 != number);
            assert!(!has_gap, "{who}: batch {number} at {offset} follows batch {last:?}: there is a gap");
            last = Some(number);
            assert!(header.leader_epoch.0 >= epoch, "{who}: the epoch went back at {offset}");
            epoch = header.leader_epoch.0;
            at.insert(offset, number);
        }
        assert_eq!(expected.unwrap_or(high_watermark), high_watermark, "{who}: the end");
        for (&offset, &number) in self.acked.range(from..) {
            assert_eq!(at.get(&offset), Some(&number), "{who}: batch {number} was acknowledged at {offset}");
        }
        let end = self.acked_end();
        assert!(high_watermark >= end, "{who}: acknowledged up to {end}, there up to {high_watermark}");
    }
}
