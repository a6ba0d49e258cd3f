//! Golden wire frames: one request and one response of each served API and version, as they stood on the wire when
//! they were recorded. A change in a codec, in the table of versions or in a dependency that changes a byte shows
//! here.
//!
//! `tests/golden/<Api>.hex` has a line for each frame: what it is, the version, the whole frame with its size prefix.
//! What the bytes mean is in `src/protocol/samples.rs`. `scripts/clients.sh golden` has every frame decoded and encoded
//! again, byte for byte, by a codec that has nothing in common with ours (kafka-python's, made from Kafka's definitions).
//! After a wanted change record them anew with `OTTLA_RECORD_GOLDEN_FRAMES=1 cargo test --test golden_frames`, look at
//! the difference and run that.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use bytes::Bytes;
use kafka_protocol::protocol::Request;
use ottla::model::limits::FRAME_SIZE_BYTES_MAX;
use ottla::protocol::api::Lookup;
use ottla::protocol::decode::{decode, decode_response};
use ottla::protocol::encode::{encode_request, encode_response, encode_unsupported_api_versions};
use ottla::protocol::fetch::FetchRequest;
use ottla::protocol::frame::{self, Frame};
use ottla::protocol::produce::ProduceRequest;
use ottla::protocol::{ApiKey, header};
use samples::{Visitor, visit_served};
use samples_admin::visit_admin;

#[path = "../src/protocol/samples.rs"]
mod samples;
#[path = "../src/protocol/samples_admin.rs"]
mod samples_admin;

const CLIENT_ID: &str = "golden";

/// Which frame: API, request or response, version.
type Name = (ApiKey, &'static str, i16);

fn correlation_id(version: i16) -> i32 {
    0x0102_0300 + i32::from(version)
}

fn path(api: ApiKey) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{}.hex", api.name()))
}

/// The content of a whole frame.
fn content(frame: &[u8]) -> Bytes {
    match frame::scan_response(frame, FRAME_SIZE_BYTES_MAX) {
        Frame::Complete { start, end } if end == frame.len() => Bytes::copy_from_slice(&frame[start..end]),
        other => panic!("{other:?} of {} bytes", frame.len()),
    }
}

/// Encodes every sample as the broker and its client do.
#[derive(Default)]
struct Encoded(BTreeMap<Name, Vec<u8>>);

impl Visitor for Encoded {
    fn request<T: Request + PartialEq + Debug>(&mut self, version: i16, request: T) {
        let mut frame = Vec::new();
        encode_request(&mut frame, version, correlation_id(version), Some(CLIENT_ID), &request).unwrap();
        self.0.insert((ApiKey::from_key(T::KEY).unwrap(), "request", version), frame);
    }
    fn response<T: Request>(&mut self, version: i16, response: T::Response)
    where
        T::Response: PartialEq + Debug,
    {
        let api = ApiKey::from_key(T::KEY).unwrap();
        let mut frame = Vec::new();
        encode_response(&mut frame, api, version, correlation_id(version), &response).unwrap();
        self.0.insert((api, "response", version), frame);
    }
}

/// Decodes every golden frame and compares it with the sample.
struct Decoded(BTreeMap<Name, Vec<u8>>);

impl Visitor for Decoded {
    fn request<T: Request + PartialEq + Debug>(&mut self, version: i16, request: T) {
        let api = ApiKey::from_key(T::KEY).unwrap();
        let frame = content(&self.0[&(api, "request", version)]);
        let header = header::parse(&frame).unwrap();
        assert_eq!(header.lookup, Lookup::Served(api));
        assert_eq!((header.api_key, header.api_version), (api.key(), version));
        assert_eq!((header.correlation_id, header.client_id), (correlation_id(version), Some(CLIENT_ID)));
        let body = frame.slice(header.body_offset..);
        let decoded: T = match api {
            // The hot two have walks of their own, which their unit tests compare with the reference codec.
            ApiKey::Produce => {
                assert!(ProduceRequest::parse(&frame, header.body_offset, version).is_ok());
                T::decode(&mut body.clone(), version).unwrap()
            }
            ApiKey::Fetch => {
                assert!(FetchRequest::parse(&frame, header.body_offset, version).is_ok());
                T::decode(&mut body.clone(), version).unwrap()
            }
            _ => decode(body, version).unwrap(),
        };
        assert_eq!(decoded, request, "{} version {version}", api.name());
    }
    fn response<T: Request>(&mut self, version: i16, response: T::Response)
    where
        T::Response: PartialEq + Debug,
    {
        let api = ApiKey::from_key(T::KEY).unwrap();
        let frame = content(&self.0[&(api, "response", version)]);
        let decoded = decode_response::<T>(frame, version).unwrap();
        assert_eq!(decoded, (correlation_id(version), response), "{} version {version}", api.name());
    }
}

fn encoded() -> BTreeMap<Name, Vec<u8>> {
    let mut encoded = Encoded::default();
    visit_served(&mut encoded);
    visit_admin(&mut encoded);
    encoded.0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}

/// Reads the golden frames, or records them first if that was asked for.
fn golden() -> BTreeMap<Name, Vec<u8>> {
    static RECORD: std::sync::Once = std::sync::Once::new();
    RECORD.call_once(|| {
        if std::env::var_os("OTTLA_RECORD_GOLDEN_FRAMES").is_some() {
            for api in ApiKey::ALL {
                let frames = encoded();
                let frames = frames.iter().filter(|((of, _, _), _)| of == api);
                let lines = frames.map(|((_, what, version), frame)| format!("{what} {version} {}\n", hex(frame)));
                std::fs::write(path(*api), lines.collect::<String>()).unwrap();
            }
        }
    });
    let mut frames = BTreeMap::new();
    for api in ApiKey::ALL {
        for line in std::fs::read_to_string(path(*api)).unwrap().lines() {
            let mut words = line.split(' ');
            let what = match words.next() {
                Some("request") => "request",
                Some("response") => "response",
                other => panic!("{other:?} in {:?}", path(*api)),
            };
            let version = words.next().unwrap().parse().unwrap();
            frames.insert((*api, what, version), unhex(words.next().unwrap()));
        }
    }
    frames
}

#[test]
fn there_is_a_golden_frame_for_each_served_api_and_version() {
    let golden = golden();
    for api in ApiKey::ALL {
        for version in api.versions() {
            for what in ["request", "response"] {
                assert!(golden.contains_key(&(*api, what, version)), "{} {what} {version}", api.name());
            }
        }
    }
}

#[test]
fn what_is_encoded_is_the_golden_frame() {
    let golden = golden();
    for (name, frame) in encoded() {
        assert_eq!(hex(&frame), hex(&golden[&name]), "{name:?}");
    }
}

#[test]
fn what_a_golden_frame_means_is_the_sample() {
    let mut decoded = Decoded(golden());
    visit_served(&mut decoded);
    visit_admin(&mut decoded);
}

#[test]
fn the_answer_to_an_unknown_version_of_api_versions_is_golden() {
    // It carries the whole table of versions, so every change of the table shows here.
    let mut frame = Vec::new();
    encode_unsupported_api_versions(&mut frame, 7);
    let expected = concat!(
        "00000106",
        "00000007",
        "0023",
        "0000002a",
        "00000000000d",
        "000100040012",
        "00020001000b",
        "00030000000d",
        "00080002000a",
        "00090001000a",
        "000a00000006",
        "000b00000009",
        "000c00000004",
        "000d00000005",
        "000e00000005",
        "000f00000006",
        "001000000005",
        "001200000004",
        "001300020007",
        "001400010006",
        "001500000002",
        "001600000005",
        "001700020004",
        "001800000005",
        "001900000004",
        "001a00000005",
        "001b00010001",
        "001c00000005",
        "002000010004",
        "002100000002",
        "002300010004",
        "002500000003",
        "002a00000002",
        "002b00000002",
        "002c00000001",
        "002d00000001",
        "002e00000000",
        "002f00000000",
        "003c00000002",
        "003d00000000",
        "004100000000",
        "004200000002",
        "004400000001",
        "004500000001",
        "004a00000001",
        "004b00000000",
    );
    assert_eq!(hex(&frame), expected);
}
