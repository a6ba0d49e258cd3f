//! Looks at a request body before `kafka-protocol` may allocate for it.
//!
//! That crate reserves what an array's count claims before it reads the first element, so a frame of ten bytes could
//! abort the process. [`check`] walks the body along its descriptor, without allocating, and refuses:
//! - a length or count that does not fit into the bytes that are left, each element taken at its least size;
//! - null where the protocol has none, text that is not UTF-8, varints of more than 32 bits, broken tagged fields;
//! - a body above [`COLD_FRAME_SIZE_BYTES_MAX`], or whose decoded form would exceed [`COLD_DECODED_SIZE_BYTES_MAX`].
//!   The decoded form counts every array element at the size of its Rust structure and every set of tagged fields
//!   at its map's; strings and bytes are slices of the body and cost nothing more.
//!
//! Bytes behind the body are ignored, as Kafka does: clients that send a newer field too many still work.
//!
//! Invariant: what passed here makes `kafka-protocol` allocate no more than the bound, whatever it then says of it.

use crate::model::limits::{COLD_DECODED_SIZE_BYTES_MAX, COLD_FRAME_SIZE_BYTES_MAX};
use crate::protocol::schema::{self, Field, Kind};
use crate::protocol::wire::{DecodeError, Reader};

/// What a map of unknown tagged fields costs with its first entry (one B-tree leaf for eleven), and each entry more
/// at the least filling of the leaves.
const TAG_MAP_SIZE_BYTES: usize = 480;
const TAG_SIZE_BYTES: usize = 96;

/// Walks the `body` of a request of `api_key` and `version`. Returns where the body ends: what follows is ignored.
///
/// Fails with [`DecodeError::UnsupportedVersion`] for a key or version without a descriptor, the hot two included.
pub fn check(api_key: i16, version: i16, body: &[u8]) -> Result<usize, DecodeError> {
    let schema = schema::of(api_key)
        .filter(|schema| version >= schema.versions.0 && version <= schema.versions.1)
        .ok_or(DecodeError::UnsupportedVersion { api_key, version })?;
    if body.len() > COLD_FRAME_SIZE_BYTES_MAX {
        return Err(DecodeError::TooLarge("request of an API that carries no records"));
    }
    let flexible = version >= schema.flexible_from;
    let mut walk = Walk { reader: Reader::new(body, 0), version, flexible, budget_bytes: COLD_DECODED_SIZE_BYTES_MAX };
    walk.structure(schema.fields)?;
    Ok(walk.reader.at())
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    /// What the decoded form may still take.
    budget_bytes: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), DecodeError> {
        for field in fields {
            if is_present(field, self.version) {
                self.value(field.kind, self.version >= field.null_from)?;
            }
        }
        if self.flexible {
            let count = self.reader.skip_tagged_fields()?;
            if count > 0 {
                self.spend(TAG_MAP_SIZE_BYTES, 1)?;
                self.spend(TAG_SIZE_BYTES, count)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind, nullable: bool) -> Result<(), DecodeError> {
        let null = match kind {
            Kind::Fixed(size_bytes) => {
                self.reader.skip(size_bytes)?;
                false
            }
            Kind::Text => self.reader.text_range_or_null(self.flexible)?.is_none(),
            Kind::Bytes => self.reader.bytes_range_or_null(self.flexible)?.is_none(),
            Kind::Array(element, decoded_size_bytes) => {
                match self.count(self.size_min(*element), decoded_size_bytes)? {
                    None => true,
                    Some(count) => {
                        for _ in 0..count {
                            self.value(*element, false)?;
                        }
                        false
                    }
                }
            }
            Kind::Structs(fields, decoded_size_bytes) => {
                match self.count(self.structure_size_min(fields), decoded_size_bytes)? {
                    None => true,
                    Some(count) => {
                        for _ in 0..count {
                            self.structure(fields)?;
                        }
                        false
                    }
                }
            }
            // Any marker but 1 means that nothing follows, to kafka-protocol as to Kafka (which asks for -1).
            Kind::OptionalStruct(fields) => {
                match self.reader.i8()? {
                    1 => self.structure(fields)?,
                    -1 => {}
                    _ => return Err(DecodeError::Invalid("marker of an optional structure")),
                }
                false
            }
        };
        if null && !nullable { Err(DecodeError::Null) } else { Ok(()) }
    }

    fn count(&mut self, size_bytes_min: usize, decoded_size_bytes: usize) -> Result<Option<usize>, DecodeError> {
        let count = self.reader.count_or_null(self.flexible, size_bytes_min)?;
        self.spend(decoded_size_bytes, count.unwrap_or(0))?;
        Ok(count)
    }

    fn spend(&mut self, size_bytes: usize, count: usize) -> Result<(), DecodeError> {
        let left = self.budget_bytes.checked_sub(size_bytes.saturating_mul(count));
        self.budget_bytes = left.ok_or(DecodeError::TooLarge("decoded request"))?;
        Ok(())
    }

    /// The least bytes that a value of `kind` takes: empty or null where it can be.
    fn size_min(&self, kind: Kind) -> usize {
        match (kind, self.flexible) {
            (Kind::Fixed(size_bytes), _) => size_bytes,
            (Kind::OptionalStruct(_), _) | (_, true) => 1,
            (Kind::Text, false) => 2,
            (Kind::Bytes | Kind::Array(..) | Kind::Structs(..), false) => 4,
        }
    }

    fn structure_size_min(&self, fields: &[Field]) -> usize {
        let fields = fields.iter().filter(|field| is_present(field, self.version));
        fields.map(|field| self.size_min(field.kind)).sum::<usize>() + usize::from(self.flexible)
    }
}

fn is_present(field: &Field, version: i16) -> bool {
    version >= field.versions.0 && version <= field.versions.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::protocol::api::ApiKey;
    use crate::protocol::decode::codec_version;
    use crate::protocol::samples::{Visitor, visit_served};
    use crate::protocol::samples_admin::visit_admin;
    use crate::protocol::topic_ids;
    use bytes::Bytes;
    use kafka_protocol::protocol::{Decodable, Request};

    /// Decodes a body by the reference codec; the bytes it used, if it could.
    type Reference = fn(Bytes, i16) -> Option<usize>;

    struct Sample {
        api_key: i16,
        version: i16,
        body: Vec<u8>,
        reference: Reference,
    }

    #[derive(Default)]
    struct Samples(Vec<Sample>);

    impl Visitor for Samples {
        fn request<T: Request + PartialEq + std::fmt::Debug>(&mut self, version: i16, request: T) {
            if T::KEY > 1 {
                let mut body = Vec::new();
                request.encode(&mut body, codec_version(T::KEY, version)).unwrap();
                if topic_ids::is_rewritten(T::KEY, version) {
                    body = topic_ids::to_ids(T::KEY, &body).unwrap().into();
                }
                self.0.push(Sample { api_key: T::KEY, version, body, reference: reference::<T> });
            }
        }
        fn response<T: Request>(&mut self, _version: i16, _response: T::Response) {}
    }

    fn reference<T: Request>(body: Bytes, version: i16) -> Option<usize> {
        if topic_ids::is_rewritten(T::KEY, version) {
            let (mut named, used_bytes) = topic_ids::to_named(T::KEY, &body).ok()?;
            <T as Decodable>::decode(&mut named, codec_version(T::KEY, version)).ok()?;
            return named.is_empty().then_some(used_bytes);
        }
        let mut rest = body.clone();
        <T as Decodable>::decode(&mut rest, codec_version(T::KEY, version)).ok()?;
        Some(body.len() - rest.len())
    }

    fn samples() -> Vec<Sample> {
        let mut samples = Samples::default();
        visit_served(&mut samples);
        visit_admin(&mut samples);
        samples.0
    }

    #[test]
    fn every_served_api_but_the_hot_two_has_a_descriptor_and_samples_of_every_version() {
        let samples = samples();
        for api in ApiKey::ALL.iter().filter(|api| api.key() > 1) {
            let schema = schema::of(api.key()).expect("an API without a descriptor");
            assert_eq!(schema.versions, api.versions().into_inner(), "{}", api.name());
            assert_eq!(schema.flexible_from, api.api().flexible_from, "{}", api.name());
        }
        for key in 0..128 {
            let Some(schema) = schema::of(key) else { continue };
            for version in schema.versions.0..=schema.versions.1 {
                let known = samples.iter().any(|sample| (sample.api_key, sample.version) == (key, version));
                assert!(known, "no sample of API {key} version {version}");
            }
        }
    }

    #[test]
    fn what_the_reference_codec_wrote_passes_to_its_last_byte() {
        // Populated requests of every API and version; bytes behind the body do not matter.
        for Sample { api_key, version, mut body, .. } in samples() {
            let size_bytes = body.len();
            assert_eq!(check(api_key, version, &body), Ok(size_bytes), "API {api_key} version {version}");
            body.extend_from_slice(&[0xff; 7]);
            assert_eq!(check(api_key, version, &body), Ok(size_bytes), "API {api_key} version {version}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for Sample { api_key, version, body, .. } in samples() {
            for cut in 0..body.len() {
                let refused = check(api_key, version, &body[..cut]);
                assert!(refused.is_err(), "API {api_key} version {version} cut at {cut}");
            }
        }
    }

    /// What the guard lets pass must decode: then every count was true, for the codec has read as many elements.
    fn assert_refused_or_true(sample: &Sample, body: Vec<u8>) {
        if let Ok(end) = check(sample.api_key, sample.version, &body) {
            let used = (sample.reference)(Bytes::from(body), sample.version);
            assert_eq!(used, Some(end), "API {} version {}", sample.api_key, sample.version);
        }
    }

    #[test]
    fn no_false_count_reaches_the_codec() {
        // Absurd lengths of each encoding at every position, so also wherever a length or count stands.
        const ABSURD: [&[u8]; 8] = [
            &[0x7f, 0xff, 0xff, 0xff],
            &[0x00, 0x10, 0x00, 0x00],
            &[0xff, 0xff, 0xff, 0xfe],
            &[0x7f, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xff, 0xff, 0x7f],
            &[0x7f],
        ];
        for sample in samples() {
            for at in 0..sample.body.len() {
                for absurd in ABSURD {
                    // Overwriting, and put between.
                    let end = (at + absurd.len()).min(sample.body.len());
                    let mut body = sample.body.clone();
                    body[at..end].copy_from_slice(&absurd[..end - at]);
                    assert_refused_or_true(&sample, body);
                    let mut body = sample.body.clone();
                    body.splice(at..at + 1, absurd.iter().copied());
                    assert_refused_or_true(&sample, body);
                }
            }
        }
    }

    #[test]
    fn mutations_are_refused_or_true_and_never_panic() {
        // Seeded: single bytes, cuts and repeats, a few at a time.
        let mut rng = Rng::new(5);
        for sample in samples().iter().filter(|sample| !sample.body.is_empty()) {
            for _ in 0..1_000 {
                let mut body = sample.body.clone();
                for _ in 0..rng.in_range(1..4) {
                    let at = rng.in_range(0..body.len() as u64) as usize;
                    match rng.in_range(0..6) {
                        0 => body.truncate(at + 1),
                        1 => body.extend_from_within(at..),
                        _ => body[at] = [0, 1, 2, 0x7f, 0x80, 0xff, rng.next_u64() as u8][rng.in_range(0..7) as usize],
                    }
                }
                assert_refused_or_true(sample, body);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut rng = Rng::new(6);
        for _ in 0..20_000 {
            let mut body = vec![0; rng.in_range(0..80) as usize];
            rng.fill(&mut body);
            let (key, version) = (rng.in_range(0..80) as i16, rng.in_range(0..16) as i16);
            let _ = check(key, version, &body);
        }
    }

    #[test]
    fn a_small_frame_cannot_claim_a_large_array() {
        // Metadata with 2^31 - 1 topics, and what a varint can say.
        assert_eq!(
            check(3, 1, &i32::MAX.to_be_bytes()),
            Err(DecodeError::Truncated { needed_bytes: 2 * i32::MAX as usize, left_bytes: 0 })
        );
        assert!(matches!(check(3, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(DecodeError::Truncated { .. })));
        assert_eq!(check(3, 1, &(-2i32).to_be_bytes()), Err(DecodeError::NegativeLength(-2)));
        assert_eq!(check(3, 0, &(-1i32).to_be_bytes()), Err(DecodeError::Null));
    }

    #[test]
    fn a_frame_that_would_grow_beyond_the_bound_when_decoded_is_refused() {
        // Half a million empty names in 1 MiB would be 36 MiB of structures; 100,000 names of ten bytes are fine.
        let topics = |count: u32, name: &[u8]| {
            let mut body = Vec::new();
            crate::protocol::wire::put_uvarint(&mut body, count + 1);
            for _ in 0..count {
                body.push(name.len() as u8 + 1);
                body.extend_from_slice(name);
                body.push(0);
            }
            body.extend_from_slice(&[0; 4]);
            body
        };
        assert_eq!(check(3, 9, &topics(500_000, b"")), Err(DecodeError::TooLarge("decoded request")));
        assert!(check(3, 9, &topics(100_000, b"ten-bytes.")).is_ok());
        assert!(matches!(check(3, 9, &vec![0; COLD_FRAME_SIZE_BYTES_MAX + 1]), Err(DecodeError::TooLarge(_))));
    }
}
