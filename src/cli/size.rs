//! Sizes and switches as people write them: `64KiB`, `1g`, `1048576`; `on`, `false`.

/// Reads a size in bytes: a whole number, optionally with `K`, `M`, `G`, `T` or `KiB`, `MiB`, `GiB`, `TiB` (powers of
/// 1024) or `KB`, `MB`, `GB`, `TB` (powers of 1000). Case does not matter.
pub fn parse_size_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.replace('_', "").parse().map_err(|_| format!("`{text}` is not a size; write 65536, 64KiB or 1GiB"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("`{other}` is not a unit of size; use KiB, MiB, GiB or none")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

/// Writes a size so that [`parse_size_bytes`] reads it back exactly.
pub fn exact_size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Reads a switch.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        assert_eq!(parse_size_bytes("65536"), Ok(65536));
        assert_eq!(parse_size_bytes("64KiB"), Ok(65536));
        assert_eq!(parse_size_bytes("64 k"), Ok(65536));
        assert_eq!(parse_size_bytes("1MB"), Ok(1_000_000));
        assert_eq!(parse_size_bytes("1_000"), Ok(1000));
        for bad in ["", "MiB", "12 parsecs", "-1", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn printed_sizes_read_back_exactly() {
        for bytes in [0, 1, 1023, 1024, 1536, 65536, 3 << 30, (3 << 30) + 1] {
            assert_eq!(parse_size_bytes(&exact_size(bytes)), Ok(bytes));
        }
        assert_eq!(exact_size(64 << 20), "64MiB");
    }
}
