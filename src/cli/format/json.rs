//! One record as one line of JSON, the same for `produce` and `consume`:
//! `{"topic":…,"partition":0,"offset":7,"timestamp":…,"key":"k","value":"v","headers":[{"key":"h","value":"x"}]}`.
//!
//! Keys, values and header values are text where they are UTF-8, `{"base64":"…"}` where they are not (always base 64
//! as plain text with `--base64`), and null where they are null.

use serde_json::{Map, Value, json};

use super::base64;

/// Bytes as JSON.
pub fn from_bytes(bytes: Option<&[u8]>, all_base64: bool) -> Value {
    match bytes {
        None => Value::Null,
        Some(bytes) if all_base64 => Value::String(base64::encode(bytes)),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::String(text.to_string()),
            Err(_) => json!({ "base64": base64::encode(bytes) }),
        },
    }
}

/// JSON as bytes. Numbers, switches, lists and other objects become their JSON text.
pub fn to_bytes(value: &Value, all_base64: bool) -> Result<Option<Vec<u8>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if all_base64 => base64::decode(text.as_bytes()).map(Some),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        Value::Object(fields) => match sole_base64(fields) {
            Some(text) => base64::decode(text.as_bytes()).map(Some),
            None => Ok(Some(value.to_string().into_bytes())),
        },
        other => Ok(Some(other.to_string().into_bytes())),
    }
}

fn sole_base64(fields: &Map<String, Value>) -> Option<&str> {
    fields.get("base64").filter(|_| fields.len() == 1)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_json_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [None, Some(&b""[..]), Some(b"text"), Some(&[0xff, 0]), Some(&all)] {
            for all_base64 in [false, true] {
                let back = to_bytes(&from_bytes(bytes, all_base64), all_base64).unwrap();
                assert_eq!(back.as_deref(), bytes);
            }
        }
        assert_eq!(to_bytes(&json!({ "a": 1 }), false).unwrap().unwrap(), b"{\"a\":1}");
        assert_eq!(to_bytes(&json!(5), false).unwrap().unwrap(), b"5");
    }
}
