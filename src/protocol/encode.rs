//! Responses and requests to bytes: size prefix, header, body.
//!
//! Everything is appended to the caller's vector, so that a connection reuses one. The body comes from
//! `kafka-protocol`; Produce and Fetch responses have encoders of their own, which share the prefix and header here.
//!
//! Invariant: on an error the vector is as it was before.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::protocol::{Encodable, Request};

use crate::invariant;
use crate::protocol::api::{self, ApiKey};
use crate::protocol::decode::{codec_version, response_codec_version};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::PREFIX_SIZE;
use crate::protocol::topic_ids;
use crate::protocol::wire;

/// A response or request that the protocol cannot carry in its version: our own fault, not the peer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} version {version} cannot be encoded: {cause}")]
pub struct EncodeError {
    name: &'static str,
    version: i16,
    cause: String,
}

/// Appends the answer to a request of `api` and `version`: size prefix, response header, body.
///
/// Fails if the body has a field set that the version does not have (and that may not be left out), or text that is
/// too long; `out` is then unchanged.
pub fn encode_response<T: Encodable>(
    out: &mut Vec<u8>,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &T,
) -> Result<(), EncodeError> {
    let start = begin_response(out, api, version, correlation_id);
    if let Err(cause) = response.encode(out, response_codec_version(api.key(), version)) {
        out.truncate(start);
        return Err(EncodeError { name: api.name(), version, cause: cause.to_string() });
    }
    end_response(out, start, 0);
    Ok(())
}

/// Appends a request, for our own client: size prefix, request header, body. On failure `out` is unchanged.
pub fn encode_request<T: Request>(
    out: &mut Vec<u8>,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    request: &T,
) -> Result<(), EncodeError> {
    let start = out.len();
    wire::put_i32(out, 0);
    wire::put_i16(out, T::KEY);
    wire::put_i16(out, version);
    wire::put_i32(out, correlation_id);
    wire::put_text(out, false, client_id);
    if T::header_version(version) >= 2 {
        wire::put_uvarint(out, 0);
    }
    let body_start = out.len();
    let encoded = request.encode(out, codec_version(T::KEY, version)).map_err(|cause| cause.to_string());
    let rewritten = encoded.and_then(|()| match topic_ids::is_rewritten(T::KEY, version) {
        false => Ok(()),
        true => {
            let body = topic_ids::to_ids(T::KEY, &out[body_start..]).map_err(|cause| cause.to_string())?;
            out.truncate(body_start);
            out.extend_from_slice(&body);
            Ok(())
        }
    });
    if let Err(cause) = rewritten {
        out.truncate(start);
        let name = ApiKey::from_key(T::KEY).map_or("a request", ApiKey::name);
        return Err(EncodeError { name, version, cause });
    }
    end_response(out, start, 0);
    Ok(())
}

/// What ApiVersions advertises, as its response has it.
pub fn api_versions() -> Vec<ApiVersion> {
    api::advertised()
        .map(|(key, min, max)| {
            ApiVersion::default().with_api_key(key.key()).with_min_version(min).with_max_version(max)
        })
        .collect()
}

/// Appends the answer to an ApiVersions request whose version is not served: whatever the version, a body of version
/// 0 with UNSUPPORTED_VERSION and our list, from which the client picks one that we know (KIP-511).
pub fn encode_unsupported_api_versions(out: &mut Vec<u8>, correlation_id: i32) {
    let start = begin_response(out, ApiKey::ApiVersions, 0, correlation_id);
    wire::put_i16(out, ErrorCode::UnsupportedVersion.code());
    wire::put_length(out, false, Some(ApiKey::ALL.len()));
    for (key, min, max) in api::advertised() {
        wire::put_i16(out, key.key());
        wire::put_i16(out, min);
        wire::put_i16(out, max);
    }
    end_response(out, start, 0);
}

/// Appends room for the size and the response header; returns where they start, for [`end_response`].
#[inline]
pub(crate) fn begin_response(out: &mut Vec<u8>, api: ApiKey, version: i16, correlation_id: i32) -> usize {
    let start = out.len();
    wire::put_i32(out, 0);
    wire::put_i32(out, correlation_id);
    if api.response_header_version(version) >= 1 {
        wire::put_uvarint(out, 0);
    }
    start
}

/// Patches the size of the frame that starts at `start` and has `elsewhere_bytes` that are not in `out`. Returns the
/// bytes of the whole frame, size prefix included.
#[inline]
pub(crate) fn end_response(out: &mut [u8], start: usize, elsewhere_bytes: usize) -> usize {
    let frame_size_bytes = out.len() - start + elsewhere_bytes;
    let size = i32::try_from(frame_size_bytes - PREFIX_SIZE);
    invariant!(size.is_ok(), "a frame of {frame_size_bytes} bytes");
    out[start..start + PREFIX_SIZE].copy_from_slice(&size.unwrap_or_default().to_be_bytes());
    frame_size_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::decode::{decode, decode_response};
    use crate::protocol::frame::{self, Frame};
    use crate::protocol::header;
    use crate::protocol::wire::DecodeError;
    use bytes::Bytes;
    use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
    use kafka_protocol::messages::{
        ApiVersionsRequest, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    };

    fn content(frame: &[u8]) -> Bytes {
        let Frame::Complete { start, end } = frame::scan_response(frame, 1 << 20) else { panic!("not a whole frame") };
        assert_eq!(end, frame.len());
        Bytes::copy_from_slice(&frame[start..end])
    }

    #[test]
    fn an_unknown_version_of_api_versions_gets_a_version_0_body_with_our_list() {
        // As a client reads it that knows nothing yet: header and body of version 0.
        let mut out = vec![1];
        encode_unsupported_api_versions(&mut out, 77);
        let (correlation_id, response) = decode_response::<ApiVersionsRequest>(content(&out[1..]), 0).unwrap();
        assert_eq!((correlation_id, response.error_code), (77, 35));
        assert_eq!(response.api_keys, api_versions());
        let produce = &response.api_keys[0];
        assert_eq!((produce.api_key, produce.min_version, produce.max_version), (0, 0, 13));
    }

    #[test]
    fn requests_and_responses_survive_the_way_through_a_frame() {
        // Out through the client's half and in through the broker's, and the reverse.
        let request = MetadataRequest::default().with_topics(None);
        for version in [1, 9, 13] {
            let mut out = Vec::new();
            encode_request(&mut out, version, 5, Some("cli"), &request.clone().with_allow_auto_topic_creation(true))
                .unwrap();
            let frame = content(&out);
            let header = header::parse(&frame).unwrap();
            assert_eq!((header.api_key, header.correlation_id, header.client_id), (3, 5, Some("cli")));
            let decoded: MetadataRequest = decode(frame.slice(header.body_offset..), version).unwrap();
            assert_eq!(decoded, request);

            let response = MetadataResponse::default().with_controller_id(3.into());
            let mut out = Vec::new();
            encode_response(&mut out, ApiKey::Metadata, version, 5, &response).unwrap();
            assert_eq!(decode_response::<MetadataRequest>(content(&out), version).unwrap(), (5, response));
        }
    }

    #[test]
    fn list_offsets_11_is_laid_out_like_10() {
        let mut out = Vec::new();
        let request = ListOffsetsRequest::default().with_timeout_ms(9);
        encode_request(&mut out, 11, 5, None, &request).unwrap();
        let frame = content(&out);
        let header = header::parse(&frame).unwrap();
        assert_eq!(header.api_version, 11);
        assert_eq!(decode::<ListOffsetsRequest>(frame.slice(header.body_offset..), 11), Ok(request));
        let (mut eleven, mut ten) = (Vec::new(), Vec::new());
        encode_response(&mut eleven, ApiKey::ListOffsets, 11, 5, &ListOffsetsResponse::default()).unwrap();
        encode_response(&mut ten, ApiKey::ListOffsets, 10, 5, &ListOffsetsResponse::default()).unwrap();
        assert_eq!(eleven, ten);
    }

    #[test]
    fn what_cannot_be_encoded_leaves_the_vector_as_it_was() {
        // Authorized operations exist from version 8 on.
        let topic = MetadataResponseTopic::default().with_topic_authorized_operations(1);
        let response = MetadataResponse::default().with_topics(vec![topic]);
        let mut out = vec![1, 2, 3];
        let refused = encode_response(&mut out, ApiKey::Metadata, 7, 5, &response).unwrap_err();
        assert!(refused.to_string().starts_with("Metadata version 7 cannot be encoded: "), "{refused}");
        assert_eq!(out, [1, 2, 3]);
    }

    #[test]
    fn the_hot_two_and_unknown_versions_are_not_decoded_here() {
        let refused = decode::<kafka_protocol::messages::ProduceRequest>(Bytes::new(), 9);
        assert_eq!(refused, Err(DecodeError::UnsupportedVersion { api_key: 0, version: 9 }));
        let refused = decode::<MetadataRequest>(Bytes::new(), 14);
        assert_eq!(refused, Err(DecodeError::UnsupportedVersion { api_key: 3, version: 14 }));
    }
}
