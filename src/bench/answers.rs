//! Reading answers to Produce and Fetch where they lie: every error code, offset and batch header, nothing copied.

use crate::model::id::TopicId;
use crate::protocol::Topic;
use crate::protocol::wire::{DecodeError, Reader, text};

use super::route::BY_ID_FROM;

/// One partition of an answer to Produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced<'a> {
    /// Its topic.
    pub topic: Topic<'a>,
    /// Its index.
    pub partition: i32,
    /// 0 or why not.
    pub error_code: i16,
    /// The offset that the batch got.
    pub base_offset: i64,
}

/// One partition of an answer to Fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got<'a> {
    /// Its topic.
    pub topic: Topic<'a>,
    /// Its index.
    pub partition: i32,
    /// 0 or why not.
    pub error_code: i16,
    /// The end of what may be read.
    pub high_watermark: i64,
    /// The first offset that is kept; -1 if the version or the broker does not say.
    pub log_start_offset: i64,
    /// Whole batches; the last may be cut.
    pub records: &'a [u8],
}

/// The correlation id of an answer, `frame` being its content without the size prefix.
#[inline]
pub fn correlation_id(frame: &[u8]) -> Result<i32, DecodeError> {
    Reader::new(frame, 0).i32()
}

/// Calls `each` for every partition of an answer to Produce.
#[inline]
pub fn produced<'a, E: From<DecodeError>>(
    frame: &'a [u8],
    version: i16,
    mut each: impl FnMut(Produced<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let flexible = version >= 9;
    let mut reader = begin(frame, flexible)?;
    for _ in 0..reader.count(flexible, 2)? {
        let topic = topic(&mut reader, frame, flexible, version)?;
        for _ in 0..reader.count(flexible, 14)? {
            let (partition, error_code, base_offset) = (reader.i32()?, reader.i16()?, reader.i64()?);
            reader.skip(8)?;
            if version >= 5 {
                reader.skip(8)?;
            }
            if version >= 8 {
                for _ in 0..reader.count(flexible, 4)? {
                    reader.i32()?;
                    reader.text_range_or_null(flexible)?;
                    if flexible {
                        reader.skip_tagged_fields()?;
                    }
                }
                reader.text_range_or_null(flexible)?;
            }
            if flexible {
                reader.skip_tagged_fields()?;
            }
            each(Produced { topic, partition, error_code, base_offset })?;
        }
        if flexible {
            reader.skip_tagged_fields()?;
        }
    }
    Ok(())
}

/// Calls `each` for every partition of an answer to Fetch. Returns the error code of the answer as a whole.
#[inline]
pub fn fetched<'a, E: From<DecodeError>>(
    frame: &'a [u8],
    version: i16,
    mut each: impl FnMut(Got<'a>) -> Result<(), E>,
) -> Result<i16, E> {
    let flexible = version >= 12;
    let mut reader = begin(frame, flexible)?;
    reader.i32()?;
    let mut error = 0;
    if version >= 7 {
        error = reader.i16()?;
        reader.i32()?;
    }
    for _ in 0..reader.count(flexible, 2)? {
        let topic = topic(&mut reader, frame, flexible, version)?;
        for _ in 0..reader.count(flexible, 22)? {
            let (partition, error_code, high_watermark) = (reader.i32()?, reader.i16()?, reader.i64()?);
            reader.skip(8)?;
            let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
            for _ in 0..reader.count_or_null(flexible, 16)?.unwrap_or(0) {
                reader.skip(16)?;
                if flexible {
                    reader.skip_tagged_fields()?;
                }
            }
            if version >= 11 {
                reader.i32()?;
            }
            let records = reader.bytes_range_or_null(flexible)?.map_or(&[][..], |range| &frame[range]);
            if flexible {
                reader.skip_tagged_fields()?;
            }
            each(Got { topic, partition, error_code, high_watermark, log_start_offset, records })?;
        }
        if flexible {
            reader.skip_tagged_fields()?;
        }
    }
    Ok(error)
}

#[inline]
fn begin(frame: &[u8], flexible: bool) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(frame, 0);
    reader.i32()?;
    if flexible {
        reader.skip_tagged_fields()?;
    }
    Ok(reader)
}

#[inline]
fn topic<'a>(reader: &mut Reader<'_>, frame: &'a [u8], flexible: bool, version: i16) -> Result<Topic<'a>, DecodeError> {
    match version >= BY_ID_FROM {
        true => {
            let range = reader.skip(16)?;
            let id = uuid::Uuid::from_slice(&frame[range]).expect("sixteen bytes");
            Ok(Topic::Id(TopicId(id)))
        }
        false => Ok(Topic::Name(text(frame, reader.text_range(flexible)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{FetchResponse, ProduceResponse, ResponseHeader, TopicName};
    use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

    fn id() -> uuid::Uuid {
        uuid::Uuid::from_u128(77)
    }

    fn encode<T: Encodable + HeaderVersion>(version: i16, response: &T) -> Vec<u8> {
        let mut out = BytesMut::new();
        ResponseHeader::default().with_correlation_id(5).encode(&mut out, T::header_version(version)).unwrap();
        response.encode(&mut out, version).unwrap();
        out.to_vec()
    }

    fn topic_of(version: i16) -> Topic<'static> {
        if version >= 13 { Topic::Id(TopicId(id())) } else { Topic::Name("load") }
    }

    #[test]
    fn answers_to_produce_are_read_in_every_version() {
        // Two partitions, the second refused with everything that a refusal may carry.
        for version in 3..=13 {
            let fine = PartitionProduceResponse::default().with_index(1).with_base_offset(1 << 40);
            let mut refused = PartitionProduceResponse::default().with_index(2).with_error_code(6);
            if version >= 8 {
                let message = Some(StrBytes::from_static_str("why"));
                let record = BatchIndexAndErrorMessage::default().with_batch_index_error_message(message.clone());
                refused = refused.with_error_message(message).with_record_errors(vec![record]);
            }
            let mut topic = TopicProduceResponse::default().with_partition_responses(vec![fine, refused]);
            match version >= 13 {
                true => topic.topic_id = id(),
                false => topic.name = TopicName(StrBytes::from_static_str("load")),
            }
            let frame = encode(version, &ProduceResponse::default().with_responses(vec![topic]));
            let mut found = Vec::new();
            produced::<DecodeError>(&frame, version, |answer| {
                found.push((answer.topic, answer.partition, answer.error_code, answer.base_offset));
                Ok(())
            })
            .unwrap();
            let topic = topic_of(version);
            assert_eq!(found, [(topic, 1, 0, 1 << 40), (topic, 2, 6, 0)], "version {version}");
            assert_eq!(correlation_id(&frame), Ok(5));
        }
    }

    #[test]
    fn answers_to_fetch_are_read_in_every_version_and_cuts_are_refused() {
        for version in 4..=17 {
            let aborted = AbortedTransaction::default().with_first_offset(3);
            let full = PartitionData::default()
                .with_partition_index(1)
                .with_high_watermark(9)
                .with_log_start_offset(if version >= 5 { 4 } else { -1 })
                .with_aborted_transactions(Some(vec![aborted]))
                .with_records(Some(Bytes::from_static(b"records")));
            let empty = PartitionData::default().with_partition_index(2).with_error_code(1).with_records(None);
            let mut topic = FetchableTopicResponse::default().with_partitions(vec![full, empty]);
            match version >= 13 {
                true => topic.topic_id = id(),
                false => topic.topic = TopicName(StrBytes::from_static_str("load")),
            }
            let frame = encode(version, &FetchResponse::default().with_responses(vec![topic]));
            let mut found = Vec::new();
            let error = fetched::<DecodeError>(&frame, version, |got| {
                found.push(got);
                Ok(())
            });
            assert_eq!(error, Ok(0));
            let topic = topic_of(version);
            let log_start_offset = if version >= 5 { 4 } else { -1 };
            let full =
                Got { topic, partition: 1, error_code: 0, high_watermark: 9, log_start_offset, records: b"records" };
            let empty =
                Got { topic, partition: 2, error_code: 1, high_watermark: 0, log_start_offset: -1, records: b"" };
            assert_eq!(found, [full, empty], "version {version}");
            for cut in 0..frame.len() - 1 {
                let _ = fetched::<DecodeError>(&frame[..cut], version, |_| Ok(()));
            }
            assert!(fetched::<DecodeError>(&frame[..20], version, |_| Ok(())).is_err());
        }
    }
}
