//! Base 64 (RFC 4648, section 4), for bytes that are not text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes to text, with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                text.push(ALPHABET[(word >> (18 - 6 * digit) & 63) as usize] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Text to bytes; padding may be left out, and `-` and `_` may stand for `+` and `/`.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let digits = text.trim_ascii();
    let digits = digits.strip_suffix(b"=").unwrap_or(digits);
    let digits = digits.strip_suffix(b"=").unwrap_or(digits);
    if digits.len() % 4 == 1 {
        return Err("not base 64: a digit is missing".into());
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            other => return Err(format!("not base 64: `{}`", other.escape_ascii())),
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_hold_both_ways() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()).unwrap(), plain.as_bytes());
            assert_eq!(decode(text.trim_end_matches('=').as_bytes()).unwrap(), plain.as_bytes());
        }
        assert_eq!(decode(b"-_8").unwrap(), [0xfb, 0xff]);
        assert!(decode(b"Z").is_err() && decode(b"Z!==").is_err());
    }
}
