//! The request header: what a frame is and whom its answer belongs to.
//!
//! ```text
//! api key i16, api version i16, correlation id i32, client id (i16 length or -1, even in flexible versions),
//! header version 2 only: tagged fields
//! ```
//! The result borrows from the frame; nothing is allocated.
//!
//! An unknown key or version is a value: the caller decides what it answers. Nothing is then known of the bytes behind
//! the client id, so they are not looked at and the body offset points there.

use crate::protocol::api::{self, ApiKey, Lookup};
use crate::protocol::wire::{DecodeError, Reader};

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API's key as it stands in the frame.
    pub api_key: i16,
    /// The version as it stands in the frame.
    pub api_version: i16,
    /// What key and version stand for.
    pub lookup: Lookup,
    /// The number that the answer repeats.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<&'a str>,
    /// Where the body starts, counted from the start of the frame's content.
    pub body_offset: usize,
}

/// Reads the header at the start of `frame`, a frame's content without its size prefix.
///
/// Fails if the header is cut, the client id has a negative length or is no UTF-8, or the tagged fields are broken:
/// close the connection, as Kafka does.
pub fn parse(frame: &[u8]) -> Result<RequestHeader<'_>, DecodeError> {
    let mut reader = Reader::new(frame, 0);
    let api_key = reader.i16()?;
    let api_version = reader.i16()?;
    let correlation_id = reader.i32()?;
    let lookup = api::lookup(api_key, api_version);
    let client_id = reader.text_or_null(false)?;
    if let Lookup::Served(api) = lookup
        && has_tagged_fields(api, api_version)
    {
        reader.skip_tagged_fields()?;
    }
    Ok(RequestHeader { api_key, api_version, lookup, correlation_id, client_id, body_offset: reader.at() })
}

fn has_tagged_fields(api: ApiKey, version: i16) -> bool {
    api.request_header_version(version) >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use kafka_protocol::messages::RequestHeader as Reference;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    fn encode(key: i16, version: i16, client_id: Option<&'static str>, header_version: i16) -> Vec<u8> {
        let mut bytes = Vec::new();
        Reference::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(client_id.map(StrBytes::from_static_str))
            .encode(&mut bytes, header_version)
            .unwrap();
        bytes
    }

    #[test]
    fn headers_of_every_api_and_version_are_read() {
        // Written by the reference codec, with and without a client id, a body behind.
        for api in ApiKey::ALL {
            for version in api.versions() {
                for client_id in [None, Some(""), Some("käse")] {
                    let mut bytes = encode(api.key(), version, client_id, api.request_header_version(version));
                    let body_offset = bytes.len();
                    bytes.extend_from_slice(&[1, 2, 3]);
                    let header = parse(&bytes).unwrap();
                    assert_eq!(header.lookup, Lookup::Served(*api));
                    assert_eq!((header.api_key, header.api_version), (api.key(), version));
                    assert_eq!((header.correlation_id, header.client_id), (77, client_id));
                    assert_eq!(header.body_offset, body_offset);
                    for cut in 0..body_offset {
                        assert!(parse(&bytes[..cut]).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_keys_and_versions_are_not_failures() {
        // An ApiVersions request of a later version must still give its correlation id.
        let header = encode(18, 99, Some("new"), 2);
        let header = parse(&header).unwrap();
        assert_eq!(header.lookup, Lookup::UnknownVersion(ApiKey::ApiVersions));
        assert_eq!((header.correlation_id, header.client_id), (77, Some("new")));
        let header = encode(4711, 0, None, 1);
        assert_eq!(parse(&header).unwrap().lookup, Lookup::UnknownKey);
    }

    #[test]
    fn broken_client_ids_are_refused() {
        let mut bytes = encode(3, 0, Some("ab"), 1);
        bytes[10] = 0xff;
        assert_eq!(parse(&bytes), Err(DecodeError::Utf8));
        bytes[8..10].copy_from_slice(&(-2i16).to_be_bytes());
        assert_eq!(parse(&bytes), Err(DecodeError::NegativeLength(-2)));
        bytes[8..10].copy_from_slice(&i16::MAX.to_be_bytes());
        assert_eq!(parse(&bytes), Err(DecodeError::Truncated { needed_bytes: 32767, left_bytes: 2 }));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Seeded random frames and mutations of good ones.
        let mut rng = Rng::new(2);
        for round in 0..20_000 {
            let mut bytes = encode(rng.in_range(0..80) as i16, rng.in_range(0..20) as i16, Some("client"), 2);
            if round % 3 == 0 {
                rng.fill(&mut bytes);
            } else {
                let at = rng.in_range(0..bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            bytes.truncate(rng.in_range(0..=bytes.len() as u64) as usize);
            if let Ok(header) = parse(&bytes) {
                assert!(header.body_offset <= bytes.len());
            }
        }
    }
}
