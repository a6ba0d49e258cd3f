//! Records to bytes on stdout: nothing is changed on the way, so binary values come out as they are.

use std::io::{self, Write};

use serde_json::json;

use super::{base64, json as record_json};
use crate::client::Consumed;

/// What is printed for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// The value and a newline.
    Value,
    /// Key, separator, value and a newline.
    KeyValue,
    /// One line of JSON; see [`super::json`].
    Json,
    /// Parts in order, nothing added.
    Template(Vec<Part>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(Vec<u8>),
    /// `%k`.
    Key,
    /// `%v`.
    Value,
    /// `%o`.
    Offset,
    /// `%p`.
    Partition,
    /// `%t`: milliseconds since 1970.
    Timestamp,
    /// `%h`: `a=1,b=2`.
    Headers,
    /// `%T`.
    Topic,
}

impl std::str::FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<OutputFormat, String> {
        match text {
            "value" => Ok(OutputFormat::Value),
            "key-value" => Ok(OutputFormat::KeyValue),
            "json" => Ok(OutputFormat::Json),
            template if template.contains('%') => parse_template(template).map(OutputFormat::Template),
            _ => Err("expected value, key-value, json or a template such as '%p %o %k %v\\n'".into()),
        }
    }
}

fn parse_template(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        let part = match c {
            '%' => match chars.next() {
                Some('k') => Part::Key,
                Some('v') => Part::Value,
                Some('o') => Part::Offset,
                Some('p') => Part::Partition,
                Some('t') => Part::Timestamp,
                Some('h') => Part::Headers,
                Some('T') => Part::Topic,
                Some('%') => {
                    text.push(b'%');
                    continue;
                }
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("unknown `%{other}`: known are %k %v %o %p %t %h %T %%"));
                }
            },
            '\\' => {
                text.push(match chars.next() {
                    Some('n') => b'\n',
                    Some('t') => b'\t',
                    Some('r') => b'\r',
                    Some('0') => 0,
                    Some('\\') => b'\\',
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(format!("unknown `\\{other}`: known are \\n \\t \\r \\0 \\\\"));
                    }
                });
                continue;
            }
            other => {
                text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(part);
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// Prints records in one format.
#[derive(Clone, Debug)]
pub struct RecordWriter {
    /// What is printed.
    pub format: OutputFormat,
    /// Between key and value.
    pub key_separator: Vec<u8>,
    /// Keys, values and header values in base 64.
    pub base64: bool,
    /// For null keys and values.
    pub null: Vec<u8>,
    /// The topic's name.
    pub topic: String,
}

impl RecordWriter {
    /// Prints one record.
    pub fn write(&self, out: &mut impl Write, record: &Consumed<'_>) -> io::Result<()> {
        match &self.format {
            OutputFormat::Value => {
                self.field(out, record.value)?;
                out.write_all(b"\n")
            }
            OutputFormat::KeyValue => {
                self.field(out, record.key)?;
                out.write_all(&self.key_separator)?;
                self.field(out, record.value)?;
                out.write_all(b"\n")
            }
            OutputFormat::Json => self.json(out, record),
            OutputFormat::Template(parts) => parts.iter().try_for_each(|part| self.part(out, record, part)),
        }
    }

    fn part(&self, out: &mut impl Write, record: &Consumed<'_>, part: &Part) -> io::Result<()> {
        match part {
            Part::Text(text) => out.write_all(text),
            Part::Key => self.field(out, record.key),
            Part::Value => self.field(out, record.value),
            Part::Offset => write!(out, "{}", record.offset),
            Part::Partition => write!(out, "{}", record.partition),
            Part::Timestamp => write!(out, "{}", record.timestamp.0),
            Part::Topic => out.write_all(self.topic.as_bytes()),
            Part::Headers => {
                for (at, header) in record.headers.enumerate() {
                    out.write_all(if at == 0 { b"" } else { b"," })?;
                    out.write_all(header.key)?;
                    out.write_all(b"=")?;
                    self.field(out, header.value)?;
                }
                Ok(())
            }
        }
    }

    fn field(&self, out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
        match bytes {
            None => out.write_all(&self.null),
            Some(bytes) if self.base64 => out.write_all(base64::encode(bytes).as_bytes()),
            Some(bytes) => out.write_all(bytes),
        }
    }

    fn json(&self, out: &mut impl Write, record: &Consumed<'_>) -> io::Result<()> {
        let headers: Vec<_> = record
            .headers
            .map(|header| {
                let key = String::from_utf8_lossy(header.key);
                json!({ "key": key, "value": record_json::from_bytes(header.value, self.base64) })
            })
            .collect();
        let line = json!({
            "topic": self.topic,
            "partition": record.partition,
            "offset": record.offset.0,
            "timestamp": record.timestamp.0,
            "key": record_json::from_bytes(record.key, self.base64),
            "value": record_json::from_bytes(record.value, self.base64),
            "headers": headers,
        });
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::model::batch::Header;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;
    use crate::model::id::Offset;
    use crate::model::records::{Records, section};

    /// Prints a record with the given key and value, one header `h=1` and one null header, at offset 7 of t-2.
    fn print(format: &str, base64: bool, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(7));
        builder.push(Timestamp(5), key, value, &[("h", Some(b"1")), ("n", None)]);
        let bytes = builder.build();
        let header = Header::parse(&bytes).unwrap();
        let records = section(&header, &bytes, 1 << 20).unwrap();
        let record = Records::new(&records, 1).next().unwrap().unwrap();
        let consumed = Consumed {
            partition: 2,
            offset: record.offset(&header),
            timestamp: record.timestamp(&header),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let writer = RecordWriter {
            format: format.parse().unwrap(),
            key_separator: b"|".to_vec(),
            base64,
            null: b"NULL".to_vec(),
            topic: "t".into(),
        };
        let mut out = Vec::new();
        writer.write(&mut out, &consumed).unwrap();
        out
    }

    #[test]
    fn values_come_out_byte_for_byte() {
        assert_eq!(print("value", false, None, Some(&[0, 0xff, 10])), [0, 0xff, 10, 10]);
        assert_eq!(print("key-value", false, Some(b"k"), None), b"k|NULL\n");
        assert_eq!(print("key-value", true, Some(b"f"), Some(b"fo")), b"Zg==|Zm8=\n");
    }

    #[test]
    fn templates_print_every_field_and_nothing_else() {
        let template = "%T-%p@%o %t [%h] %k=%v 100%%\\n";
        assert_eq!(print(template, false, Some(b"k"), Some(b"v")), b"t-2@7 5 [h=1,n=NULL] k=v 100%\n");
        assert!("%x".parse::<OutputFormat>().unwrap_err().contains("%k"));
        assert!("%k\\q".parse::<OutputFormat>().is_err());
        assert!("vaule".parse::<OutputFormat>().is_err());
    }

    #[test]
    fn json_lines_are_what_produce_reads() {
        let line = print("json", false, Some(&[0xff]), Some(b"v"));
        let parser = super::super::LineParser {
            format: super::super::InputFormat::Json,
            key_separator: Vec::new(),
            base64: false,
            null: None,
        };
        let record = parser.parse(&line).unwrap();
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&[0xff][..]), Some(&b"v"[..])));
        assert_eq!((record.partition, record.timestamp), (Some(2), Some(Timestamp(5))));
        assert_eq!(record.headers, [("h".into(), Some(b"1".to_vec())), ("n".into(), None)]);
    }
}
