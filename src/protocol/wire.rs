//! The protocol's primitive types, read with every length checked and written into a plain vector.
//!
//! "Flexible" versions (KIP-482) write lengths as unsigned varints of length + 1 and end every structure with tagged
//! fields; the others write `i16` and `i32` lengths with -1 for null.
//!
//! Invariant: a [`Reader`] never stands behind the end of its bytes and never allocates; whatever it returns lies
//! within them.

use std::ops::Range;

use uuid::Uuid;

use crate::model::id::{BrokerId, LeaderEpoch, TopicId};
use crate::model::limits::TAGGED_FIELD_COUNT_MAX;

/// Why bytes from the peer are not a request (or a response). Always the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field ends behind the bytes.
    #[error("truncated: a field needs {needed_bytes} bytes and {left_bytes} are left")]
    Truncated {
        /// Bytes that the field, or at least so many array elements, take.
        needed_bytes: usize,
        /// Bytes that are there.
        left_bytes: usize,
    },
    /// A negative length or count other than the -1 that stands for null.
    #[error("negative length {0}")]
    NegativeLength(i32),
    /// Null where the protocol has none.
    #[error("null in a field that may not be null")]
    Null,
    /// A varint of more than 32 bits.
    #[error("a varint of more than 32 bits")]
    Varint,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// A field whose value no version of the protocol knows, or a tagged field whose size is not its own.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// More than the bounds of `model::limits` allow, though well-formed.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The version is not one that is decoded.
    #[error("version {version} of API {api_key} is not decoded")]
    UnsupportedVersion {
        /// The API's key.
        api_key: i16,
        /// The version.
        version: i16,
    },
    /// What kafka-protocol said.
    #[error("{0}")]
    Codec(String),
}

/// Reads primitives from bytes, front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at `at`, which must not be behind the end.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { bytes, at: at.min(bytes.len()) }
    }

    /// Position of the next byte.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that were not read yet.
    #[inline]
    pub(crate) fn left_bytes(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The range of the next `size_bytes`, which are passed over.
    #[inline]
    pub(crate) fn skip(&mut self, size_bytes: usize) -> Result<Range<usize>, DecodeError> {
        if size_bytes > self.left_bytes() {
            return Err(DecodeError::Truncated { needed_bytes: size_bytes, left_bytes: self.left_bytes() });
        }
        let start = self.at;
        self.at += size_bytes;
        Ok(start..self.at)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let range = self.skip(N)?;
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[range]);
        Ok(value)
    }

    #[inline]
    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    #[inline]
    pub(crate) fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    /// An unsigned varint of at most 32 bits in at most five bytes.
    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u32, DecodeError> {
        // Nearly all of them are one byte.
        if let Some(&byte) = self.bytes.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u32::from(byte));
        }
        self.long_uvarint()
    }

    #[cold]
    fn long_uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.fixed::<1>()?[0];
            if shift == 28 && byte > 0x0f {
                return Err(DecodeError::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// An `i32` length or count, or a varint of it plus one. `None` is null.
    #[inline]
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        non_negative(self.i32()?)
    }

    /// Text or null: its range.
    #[inline]
    pub(crate) fn text_range_or_null(&mut self, flexible: bool) -> Result<Option<Range<usize>>, DecodeError> {
        let text = self.text_or_null(flexible)?;
        Ok(text.map(|text| self.at - text.len()..self.at))
    }

    /// Text or null.
    #[inline]
    pub(crate) fn text_or_null(&mut self, flexible: bool) -> Result<Option<&'a str>, DecodeError> {
        let length = if flexible { self.length(true)? } else { non_negative(i32::from(self.i16()?))? };
        let Some(length) = length else { return Ok(None) };
        let range = self.skip(length)?;
        std::str::from_utf8(&self.bytes[range]).map(Some).map_err(|_| DecodeError::Utf8)
    }

    /// Text: its range.
    #[inline]
    pub(crate) fn text_range(&mut self, flexible: bool) -> Result<Range<usize>, DecodeError> {
        self.text_range_or_null(flexible)?.ok_or(DecodeError::Null)
    }

    /// Bytes or null: their range.
    #[inline]
    pub(crate) fn bytes_range_or_null(&mut self, flexible: bool) -> Result<Option<Range<usize>>, DecodeError> {
        match self.length(flexible)? {
            Some(length) => self.skip(length).map(Some),
            None => Ok(None),
        }
    }

    /// An array's count or null, refused if so many elements of at least `element_size_bytes_min` cannot be left.
    #[inline]
    pub(crate) fn count_or_null(
        &mut self,
        flexible: bool,
        element_size_bytes_min: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        let needed_bytes = count.saturating_mul(element_size_bytes_min);
        if needed_bytes > self.left_bytes() {
            return Err(DecodeError::Truncated { needed_bytes, left_bytes: self.left_bytes() });
        }
        Ok(Some(count))
    }

    /// [`Reader::count_or_null`] of an array that may not be null.
    #[inline]
    pub(crate) fn count(&mut self, flexible: bool, element_size_bytes_min: usize) -> Result<usize, DecodeError> {
        self.count_or_null(flexible, element_size_bytes_min)?.ok_or(DecodeError::Null)
    }

    /// The tagged fields that end a structure of a flexible version. `field` is given each tag with a reader of
    /// exactly the field's bytes and says whether it knows the tag; a known field must be read to its end, and
    /// unknown ones are passed over. Returns how many there were.
    #[inline]
    pub(crate) fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<bool, DecodeError>,
    ) -> Result<usize, DecodeError> {
        // A tag and a size of no bytes: two bytes at least.
        let count = self.uvarint()? as usize;
        if count > TAGGED_FIELD_COUNT_MAX {
            return Err(DecodeError::TooLarge("number of tagged fields"));
        }
        let needed_bytes = 2 * count;
        if needed_bytes > self.left_bytes() {
            return Err(DecodeError::Truncated { needed_bytes, left_bytes: self.left_bytes() });
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size_bytes = self.uvarint()? as usize;
            let range = self.skip(size_bytes)?;
            let mut inner = Reader { bytes: &self.bytes[..range.end], at: range.start };
            if field(tag, &mut inner)? && inner.left_bytes() != 0 {
                return Err(DecodeError::Invalid("size of a tagged field"));
            }
        }
        Ok(count)
    }

    /// Passes over tagged fields, none of which is known.
    #[inline]
    pub(crate) fn skip_tagged_fields(&mut self) -> Result<usize, DecodeError> {
        if self.bytes.get(self.at) == Some(&0) {
            self.at += 1;
            return Ok(0);
        }
        self.tagged_fields(|_, _| Ok(false))
    }
}

#[inline]
fn non_negative(length: i32) -> Result<Option<usize>, DecodeError> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| DecodeError::NegativeLength(length)),
    }
}

/// The text at `range`, which a parse has checked to be UTF-8.
#[inline]
pub(crate) fn text(frame: &[u8], range: Range<usize>) -> &str {
    std::str::from_utf8(&frame[range]).expect("the range is of the frame that was parsed, which checked it")
}

/// A topic in a request: by name up to a version, by id from then on. Ranges are positions in the frame that was
/// parsed, so that the frame's records may change while this is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRef {
    /// Where the name's bytes are.
    Name(Range<usize>),
    /// The id.
    Id(TopicId),
}

impl TopicRef {
    /// The name or id, borrowed from the `frame` that was parsed; panics if it is another frame.
    pub fn resolve<'a>(&self, frame: &'a [u8]) -> Topic<'a> {
        match self {
            TopicRef::Name(range) => Topic::Name(text(frame, range.clone())),
            TopicRef::Id(id) => Topic::Id(*id),
        }
    }
}

/// A topic by name or by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// By name.
    Name(&'a str),
    /// By id.
    Id(TopicId),
}

/// Who leads a partition, told to a client that asked the wrong broker (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// The leader.
    pub leader: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Where a broker named by a [`LeaderIdAndEpoch`] listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEndpoint<'a> {
    /// The broker.
    pub broker: BrokerId,
    /// Its advertised host.
    pub host: &'a str,
    /// Its advertised port.
    pub port: u16,
    /// Its rack.
    pub rack: Option<&'a str>,
}

/// Bytes that [`put_uvarint`] writes for `value`.
#[inline]
pub(crate) const fn uvarint_size(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        _ => 5,
    }
}

#[inline]
pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// An array's count or the length of bytes; `None` is null.
#[inline]
pub(crate) fn put_length(out: &mut Vec<u8>, flexible: bool, length: Option<usize>) {
    let length = length.map(|length| i32::try_from(length).expect("counts and lengths are bounded far below 2^31"));
    match (flexible, length) {
        (true, length) => put_uvarint(out, length.map_or(0, |length| length as u32 + 1)),
        (false, length) => put_i32(out, length.unwrap_or(-1)),
    }
}

/// Text or null. Text that is longer than a version that is not flexible can carry (32,767 bytes) is cut, which only
/// error messages can meet.
#[inline]
pub(crate) fn put_text(out: &mut Vec<u8>, flexible: bool, text: Option<&str>) {
    let Some(text) = text else {
        return if flexible { put_uvarint(out, 0) } else { put_i16(out, -1) };
    };
    if flexible {
        put_length(out, true, Some(text.len()));
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut size_bytes = text.len().min(i16::MAX as usize);
    while !text.is_char_boundary(size_bytes) {
        size_bytes -= 1;
    }
    put_i16(out, size_bytes as i16);
    out.extend_from_slice(&text.as_bytes()[..size_bytes]);
}

/// A topic as the version writes it: by name or by id. Naming it the other way is a bug of the caller.
#[inline]
pub(crate) fn put_topic(out: &mut Vec<u8>, flexible: bool, by_id: bool, topic: Topic<'_>) {
    match topic {
        Topic::Name(name) if !by_id => put_text(out, flexible, Some(name)),
        Topic::Id(id) if by_id => out.extend_from_slice(id.0.as_bytes()),
        _ => panic!("invariant broken: the topic is not named as the version names it: {topic:?}, by id: {by_id}"),
    }
}

/// The content of a tagged LeaderIdAndEpoch with its size, without the tag.
pub(crate) fn put_tagged_leader(out: &mut Vec<u8>, leader: LeaderIdAndEpoch) {
    put_uvarint(out, 9);
    put_i32(out, leader.leader.0);
    put_i32(out, leader.leader_epoch.0);
    put_uvarint(out, 0);
}

/// The tagged fields that end a Produce or Fetch response: NodeEndpoints (tag 0) if the version has them and there
/// are any.
pub(crate) fn put_node_endpoints(out: &mut Vec<u8>, endpoints: &[NodeEndpoint<'_>]) {
    if endpoints.is_empty() {
        put_uvarint(out, 0);
        return;
    }
    let text_size = |text: &str| uvarint_size(text.len() as u32 + 1) + text.len();
    let size: usize = endpoints.iter().map(|e| 4 + text_size(e.host) + 4 + e.rack.map_or(1, text_size) + 1).sum();
    put_uvarint(out, 1);
    put_uvarint(out, 0);
    put_uvarint(out, (uvarint_size(endpoints.len() as u32 + 1) + size) as u32);
    put_length(out, true, Some(endpoints.len()));
    for endpoint in endpoints {
        put_i32(out, endpoint.broker.0);
        put_text(out, true, Some(endpoint.host));
        put_i32(out, i32::from(endpoint.port));
        put_text(out, true, endpoint.rack);
        put_uvarint(out, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive_and_longer_ones_are_refused() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, 0xfff_ffff, 0x1000_0000, u32::MAX] {
            let mut bytes = Vec::new();
            put_uvarint(&mut bytes, value);
            assert_eq!(bytes.len(), uvarint_size(value));
            assert_eq!(Reader::new(&bytes, 0).uvarint(), Ok(value));
        }
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], 0).uvarint(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 0).uvarint(), Err(DecodeError::Varint));
        assert!(matches!(Reader::new(&[0x80], 0).uvarint(), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn a_known_tagged_field_must_fill_its_size() {
        // One field, tag 0, four bytes: read as an i32 it fits, read as an i16 it does not.
        let bytes = [1, 0, 4, 0, 0, 0, 9];
        let mut value = 0;
        let count = Reader::new(&bytes, 0).tagged_fields(|_, field| {
            value = field.i32()?;
            Ok(true)
        });
        assert_eq!((count, value), (Ok(1), 9));
        let refused = Reader::new(&bytes, 0).tagged_fields(|_, field| field.i16().map(|_| true));
        assert_eq!(refused, Err(DecodeError::Invalid("size of a tagged field")));
    }

    #[test]
    fn text_that_is_too_long_for_its_length_field_is_cut_at_a_character() {
        let long = "é".repeat(20_000);
        let mut bytes = Vec::new();
        put_text(&mut bytes, false, Some(&long));
        let range = Reader::new(&bytes, 0).text_range(false).unwrap();
        assert_eq!(range.len(), 32_766);
    }
}
