//! The control batch that ends a transaction in a partition: one record that says commit or abort.
//!
//! ```text
//! batch   attributes transactional | control, producer id and epoch of the transaction, sequence -1
//! key     version i16 (0), type i16: 0 abort, 1 commit
//! value   version i16 (0), coordinator epoch i32
//! ```
//! A greater version is read as the known one, whose fields come first in it, as Kafka does.

use crate::base::time::Timestamp;
use crate::model::batch::Header;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{ProducerEpoch, ProducerId, Sequence};
use crate::model::records::{Records, section};

/// How a transaction ended, as its marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Committed, or aborted.
    pub commits: bool,
    /// The epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

/// More than the one record of a marker takes.
const RECORD_SIZE_BYTES_MAX: usize = 4096;

impl EndTransactionMarker {
    /// The batch that ends the transaction of a producer.
    pub fn batch(self, producer: ProducerId, epoch: ProducerEpoch, now: Timestamp) -> Vec<u8> {
        let builder = BatchBuilder::new(Codec::None).producer(producer, epoch, Sequence(-1));
        let mut builder = builder.transactional().control();
        let key = [0, 0, 0, u8::from(self.commits)];
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        builder.push(now, Some(&key), Some(&value), &[]);
        builder.build()
    }

    /// What a control batch says; `None` if it is none that ends a transaction.
    pub fn of_batch(header: &Header, batch: &[u8]) -> Option<EndTransactionMarker> {
        let records = section(header, batch, RECORD_SIZE_BYTES_MAX).ok()?;
        let record = Records::new(&records, header.record_count).next()?.ok()?;
        let (key, value) = (record.key?, record.value?);
        let kind = i16::from_be_bytes(*key.get(2..)?.first_chunk()?);
        let coordinator_epoch = i32::from_be_bytes(*value.get(2..)?.first_chunk()?);
        match kind {
            0 | 1 => Some(EndTransactionMarker { commits: kind == 1, coordinator_epoch }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::records::Record;

    #[test]
    fn a_marker_is_read_as_it_was_written_and_is_what_other_implementations_expect() {
        for commits in [false, true] {
            let marker = EndTransactionMarker { commits, coordinator_epoch: 0x0102_0304 };
            let batch = marker.batch(ProducerId(7), ProducerEpoch(3), Timestamp(1000));
            let header = Header::parse(&batch).expect("a header");
            assert!(header.attributes.is_control() && header.attributes.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(7), ProducerEpoch(3)));
            assert_eq!((header.base_sequence, header.record_count), (Sequence(-1), 1));
            assert_eq!(EndTransactionMarker::of_batch(&header, &batch), Some(marker));
            let records = section(&header, &batch, 100).expect("plain");
            let record: Record<'_> = Records::new(&records, 1).next().expect("one").expect("sound");
            assert_eq!(record.key, Some(&[0, 0, 0, u8::from(commits)][..]));
            assert_eq!(record.value, Some(&[0, 0, 1, 2, 3, 4][..]));
        }
    }

    #[test]
    fn other_control_records_and_broken_ones_end_no_transaction() {
        let of = |key: &[u8], value: &[u8]| {
            let mut builder = BatchBuilder::new(Codec::None).transactional().control();
            builder.push(Timestamp(0), Some(key), Some(value), &[]);
            let batch = builder.build();
            EndTransactionMarker::of_batch(&Header::parse(&batch).expect("a header"), &batch)
        };
        assert_eq!(of(&[0, 0, 0, 2], &[0; 6]), None);
        assert_eq!(of(&[0, 0, 0], &[0; 6]), None);
        assert_eq!(of(&[0, 0, 0, 1], &[0; 5]), None);
        let newer = EndTransactionMarker { commits: true, coordinator_epoch: 9 };
        assert_eq!(of(&[0, 1, 0, 1], &[0, 1, 0, 0, 0, 9, 77]), Some(newer));
    }
}
