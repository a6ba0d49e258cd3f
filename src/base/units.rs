//! Sizes in bytes and the arithmetic of blocks.

/// 1,024 bytes.
pub const KIB: usize = 1 << 10;
/// 1,024 KiB.
pub const MIB: usize = 1 << 20;
/// 1,024 MiB.
pub const GIB: usize = 1 << 30;

/// The greatest multiple of `align` (a power of two) that is not above `value`.
#[inline]
pub const fn align_down(value: u64, align: u64) -> u64 {
    debug_assert!(align.is_power_of_two());
    value & !(align - 1)
}

/// The least multiple of `align` (a power of two) that is not below `value`.
#[inline]
pub const fn align_up(value: u64, align: u64) -> u64 {
    debug_assert!(align.is_power_of_two());
    (value + align - 1) & !(align - 1)
}

/// A size for people: `1.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count for people: `1 batch`, `2 batches`.
pub fn counted(count: u64, noun: &str) -> String {
    let ending = match count {
        1 => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_rounds_to_the_neighbouring_multiples() {
        assert_eq!((align_down(4097, 4096), align_up(4097, 4096)), (4096, 8192));
        assert_eq!((align_down(4096, 4096), align_up(4096, 4096)), (4096, 4096));
        assert_eq!((align_down(0, 4096), align_up(0, 4096)), (0, 0));
    }

    #[test]
    fn sizes_are_printed_in_the_largest_unit_that_fits() {
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "batch")), ["0 batches", "1 batch", "2 batches"]);
        assert_eq!((counted(1, "record"), counted(2, "record")), ("1 record".into(), "2 records".into()));
    }
}
