//! Bodies of all APIs but the hot two: bytes to `kafka-protocol`'s structures, behind the [`guard`].
//!
//! `kafka-protocol` reserves what an array's count claims before it reads the first element; 2 GiB in a frame of ten
//! bytes would abort the process. So no body reaches it that [`guard::check`] has not walked.
//!
//! Strings and bytes of the result are slices of the body that was given: they keep its memory alive. A handler that
//! stores a name copies it.

use bytes::Bytes;
use kafka_protocol::protocol::{Decodable, Request};

use crate::protocol::guard;
use crate::protocol::topic_ids;
use crate::protocol::wire::{DecodeError, Reader};

/// A request's body of `version` (header excluded).
///
/// Bytes behind the body are ignored, as Kafka does. Fails on anything that the peer got wrong: close the connection
/// or answer INVALID_REQUEST.
pub fn decode<T: Request>(mut body: Bytes, version: i16) -> Result<T, DecodeError> {
    guard::check(T::KEY, version, &body)?;
    if topic_ids::is_rewritten(T::KEY, version) {
        (body, _) = topic_ids::to_named(T::KEY, &body)?;
    }
    T::decode(&mut body, codec_version(T::KEY, version)).map_err(|cause| DecodeError::Codec(cause.to_string()))
}

/// A response frame (size prefix excluded) to a request `T` of `version`, for our own client: the correlation id and
/// the body. The frame is a broker's, which the client chose to trust: no guard looks at it.
pub fn decode_response<T: Request>(mut frame: Bytes, version: i16) -> Result<(i32, T::Response), DecodeError> {
    let mut reader = Reader::new(&frame, 0);
    let correlation_id = reader.i32()?;
    if <T::Response as kafka_protocol::protocol::HeaderVersion>::header_version(version) >= 1 {
        reader.skip_tagged_fields()?;
    }
    let body_offset = reader.at();
    let mut body = frame.split_off(body_offset);
    let response = T::Response::decode(&mut body, response_codec_version(T::KEY, version))
        .map_err(|cause| DecodeError::Codec(cause.to_string()))?;
    Ok((correlation_id, response))
}

/// The version of a request to give to `kafka-protocol`, whose ListOffsets ends at 10. Version 11 (KIP-1023) is laid
/// out like 10 and only adds a special timestamp. What is rewritten is given as the version that it becomes.
pub(crate) fn codec_version(api_key: i16, version: i16) -> i16 {
    match (api_key, version) {
        (8 | 9, 10) => 9,
        _ => response_codec_version(api_key, version),
    }
}

/// The version of a response to give to `kafka-protocol`.
pub(crate) fn response_codec_version(api_key: i16, version: i16) -> i16 {
    match (api_key, version) {
        (2, 11) => 10,
        _ => version,
    }
}
