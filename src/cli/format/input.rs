//! Lines to records.

use std::borrow::Cow;

use serde_json::Value;

use super::{base64, json};
use crate::base::time::Timestamp;

/// What a line of input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// The value.
    Value,
    /// Key, separator, value.
    KeyValue,
    /// One JSON object; see [`super::json`].
    Json,
}

/// A header's key and its value, or null.
pub type OwnedHeader = (String, Option<Vec<u8>>);

/// A record as a line gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputRecord<'a> {
    /// Key, or null.
    pub key: Option<Cow<'a, [u8]>>,
    /// Value, or null.
    pub value: Option<Cow<'a, [u8]>>,
    /// Headers in order.
    pub headers: Vec<OwnedHeader>,
    /// The partition, if the line names one.
    pub partition: Option<i32>,
    /// The timestamp, if the line names one.
    pub timestamp: Option<Timestamp>,
}

/// How lines are read.
#[derive(Clone, Debug)]
pub struct LineParser {
    /// What a line is.
    pub format: InputFormat,
    /// Between key and value.
    pub key_separator: Vec<u8>,
    /// Keys and values are base 64.
    pub base64: bool,
    /// A key or value that is exactly this is null.
    pub null: Option<Vec<u8>>,
}

impl LineParser {
    /// Reads one line, its end excluded.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<InputRecord<'a>, String> {
        match self.format {
            InputFormat::Value => Ok(InputRecord { value: self.field(line)?, ..InputRecord::default() }),
            InputFormat::KeyValue => {
                let separator = &self.key_separator;
                match line.windows(separator.len()).position(|window| window == separator.as_slice()) {
                    Some(at) => Ok(InputRecord {
                        key: self.field(&line[..at])?,
                        value: self.field(&line[at + separator.len()..])?,
                        ..InputRecord::default()
                    }),
                    None => Err(format!(
                        "no key separator `{}` in the line (--key-separator names it)",
                        separator.escape_ascii()
                    )),
                }
            }
            InputFormat::Json => self.json(line),
        }
    }

    fn field<'a>(&self, text: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, String> {
        if self.null.as_deref() == Some(text) {
            return Ok(None);
        }
        if self.base64 {
            base64::decode(text).map(|bytes| Some(Cow::Owned(bytes)))
        } else {
            Ok(Some(Cow::Borrowed(text)))
        }
    }

    fn json(&self, line: &[u8]) -> Result<InputRecord<'static>, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
        let Value::Object(fields) = value else { return Err("not a JSON object".into()) };
        let mut record = InputRecord::default();
        for (name, value) in &fields {
            let bad = |what: &str| format!("{name}: {what}, not {value}");
            match name.as_str() {
                "key" => record.key = json::to_bytes(value, self.base64)?.map(Cow::Owned),
                "value" => record.value = json::to_bytes(value, self.base64)?.map(Cow::Owned),
                "partition" if value.is_null() => {}
                "partition" => {
                    let index = value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|p| *p >= 0);
                    record.partition = Some(index.ok_or_else(|| bad("a partition number"))?);
                }
                "timestamp" if value.is_null() => {}
                "timestamp" => {
                    let number = value.as_i64().filter(|t| *t >= 0);
                    record.timestamp = Some(Timestamp(number.ok_or_else(|| bad("milliseconds since 1970"))?));
                }
                "headers" => record.headers = self.json_headers(value).map_err(|why| format!("headers: {why}"))?,
                // What `consume` adds and a producer cannot choose.
                "offset" | "topic" => {}
                other => {
                    return Err(format!(
                        "unknown field `{other}`; known are key, value, headers, partition, timestamp"
                    ));
                }
            }
        }
        Ok(record)
    }

    /// A list of `{"key":…,"value":…}`, or an object where order and repetition do not matter.
    fn json_headers(&self, value: &Value) -> Result<Vec<OwnedHeader>, String> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| Ok((key.clone(), json::to_bytes(value, self.base64)?))).collect()
            }
            Value::Array(entries) => entries
                .iter()
                .map(|entry| {
                    let key = entry.get("key").and_then(Value::as_str).ok_or("a header without a key")?;
                    let value = entry.get("value").unwrap_or(&Value::Null);
                    Ok((key.to_string(), json::to_bytes(value, self.base64)?))
                })
                .collect(),
            other => Err(format!("a list or an object, not {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(format: InputFormat) -> LineParser {
        LineParser { format, key_separator: b"\t".to_vec(), base64: false, null: None }
    }

    fn pair<'a>(record: &'a InputRecord<'_>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        (record.key.as_deref(), record.value.as_deref())
    }

    #[test]
    fn a_line_is_a_value_or_a_key_and_a_value() {
        assert_eq!(pair(&parser(InputFormat::Value).parse(b"a\tb").unwrap()), (None, Some(&b"a\tb"[..])));
        let keyed = parser(InputFormat::KeyValue);
        assert_eq!(pair(&keyed.parse(b"a\tb\tc").unwrap()), (Some(&b"a"[..]), Some(&b"b\tc"[..])));
        assert_eq!(pair(&keyed.parse(b"\t").unwrap()), (Some(&b""[..]), Some(&b""[..])));
        assert!(keyed.parse(b"ab").unwrap_err().contains("\\t"));
        let wide = LineParser { key_separator: b"::".to_vec(), ..keyed };
        assert_eq!(pair(&wide.parse(b"a:b::c").unwrap()), (Some(&b"a:b"[..]), Some(&b"c"[..])));
    }

    #[test]
    fn nulls_and_base_64_are_read_where_asked_for() {
        let parser = LineParser { base64: true, null: Some(b"NULL".to_vec()), ..parser(InputFormat::KeyValue) };
        assert_eq!(pair(&parser.parse(b"Zm9v\tNULL").unwrap()), (Some(&b"foo"[..]), None));
        assert!(parser.parse(b"!\tZm9v").is_err());
    }

    #[test]
    fn a_json_line_names_everything() {
        let parser = parser(InputFormat::Json);
        let line = br#"{"key":null,"value":{"base64":"/wA="},"partition":2,"timestamp":5,"offset":9,"topic":"t",
            "headers":[{"key":"a","value":"1"},{"key":"a","value":null}]}"#;
        let record = parser.parse(line).unwrap();
        assert_eq!(pair(&record), (None, Some(&[0xff, 0][..])));
        assert_eq!((record.partition, record.timestamp), (Some(2), Some(Timestamp(5))));
        assert_eq!(record.headers, [("a".into(), Some(b"1".to_vec())), ("a".into(), None)]);
        for bad in
            [&b"[]"[..], b"{", b"{\"vaule\":1}", b"{\"partition\":-1}", b"{\"timestamp\":\"x\"}", b"{\"headers\":1}"]
        {
            assert!(parser.parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
