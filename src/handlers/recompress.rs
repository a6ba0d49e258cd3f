//! `compression.type` other than `producer`: batches of another codec are stored in the topic's.
//!
//! The records are decompressed under the bound that validation has, walked, and compressed again; a batch of the
//! right codec is stored as it came. One batch is in memory at a time.

use crate::model::batch::Header;
use crate::model::configs::TopicConfig;
use crate::model::limits::RECORDS_SIZE_BYTES_MAX;
use crate::model::records::{self, RecordError, Records};
use crate::model::rewrite;
use crate::protocol::error::ErrorCode;

/// The batch in the topic's codec, or `None` if it has it already or the topic keeps its producers'.
pub(super) fn recompress(
    config: &TopicConfig,
    header: &Header,
    batch: &[u8],
) -> Result<Option<Vec<u8>>, (ErrorCode, String)> {
    let Some((codec, level)) = config.compression else { return Ok(None) };
    if codec.number() == header.attributes.codec() {
        return Ok(None);
    }
    let invalid = |error: RecordError| (ErrorCode::InvalidRecord, error.to_string());
    let section = records::section(header, batch, RECORDS_SIZE_BYTES_MAX).map_err(invalid)?;
    let mut walk = Records::new(&section, header.record_count);
    for record in walk.by_ref() {
        record.map_err(invalid)?;
    }
    if !walk.rest().is_empty() {
        return Err(invalid(RecordError::Trailing));
    }
    let bytes = rewrite::recompressed(header, &section, codec, level);
    if bytes.len() > config.max_message_bytes {
        let message =
            format!("{} bytes in {codec} are more than max.message.bytes={}", bytes.len(), config.max_message_bytes);
        return Err((ErrorCode::MessageTooLarge, message));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::model::batch;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;
    use crate::model::configs::BrokerConfig;

    fn config(settings: &[(&str, &str)]) -> TopicConfig {
        let overrides = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        TopicConfig::resolve(&BrokerConfig::default(), &overrides).unwrap()
    }

    fn sample(codec: Codec) -> (Header, Vec<u8>) {
        let mut builder = BatchBuilder::new(codec);
        builder.push(Timestamp(1), Some(b"k"), Some(&[7; 5000]), &[]);
        let bytes = builder.build();
        (batch::validate(&bytes).expect("sound"), bytes)
    }

    #[test]
    fn a_batch_of_another_codec_is_stored_in_the_topics() {
        for (name, codec) in [("uncompressed", Codec::None), ("gzip", Codec::Gzip), ("zstd", Codec::Zstd)] {
            let config = config(&[("compression.type", name)]);
            for from in Codec::ALL {
                let (header, bytes) = sample(from);
                let after = recompress(&config, &header, &bytes).expect("it can be");
                assert_eq!(after.is_none(), from == codec);
                let after = batch::validate(after.as_deref().unwrap_or(&bytes)).expect("sound");
                assert_eq!((after.attributes.codec(), after.record_count), (codec.number(), 1));
            }
        }
        let (header, bytes) = sample(Codec::Lz4);
        assert_eq!(recompress(&config(&[]), &header, &bytes), Ok(None));
    }

    #[test]
    fn what_becomes_too_large_or_is_no_records_is_refused() {
        let (header, bytes) = sample(Codec::Zstd);
        let small = config(&[("compression.type", "uncompressed"), ("max.message.bytes", "4000")]);
        assert_eq!(recompress(&small, &header, &bytes).unwrap_err().0, ErrorCode::MessageTooLarge);
        let lying = Header { record_count: 2, ..header };
        let other = config(&[("compression.type", "gzip")]);
        assert_eq!(recompress(&other, &lying, &bytes).unwrap_err().0, ErrorCode::InvalidRecord);
    }
}
