//! Timestamps as people write them: milliseconds since 1970, or a date and time in UTC.

use crate::base::time::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// Reads `1700000000000`, `2023-11-14`, `2023-11-14T22:13:20`, with `.123` and `Z` if wanted.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    if let Ok(milliseconds) = text.parse::<i64>() {
        return if milliseconds >= 0 { Ok(Timestamp(milliseconds)) } else { Err(form(text)) };
    }
    parse_date_time(text).map(Timestamp).ok_or_else(|| form(text))
}

fn form(text: &str) -> String {
    format!("`{text}` is no time: write milliseconds since 1970, or 2023-11-14T22:13:20Z")
}

fn parse_date_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    let milliseconds = match time {
        Some(time) => parse_time(time)?,
        None => 0,
    };
    let total = days_since_1970(year, month, day) * DAY_MS + milliseconds;
    (total >= 0).then_some(total)
}

fn parse_time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let (hours, minutes) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let seconds = parts.next().map_or(Some(0), |part| number(part, 2))?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || (fraction.is_empty() && text.contains('.')) {
        return None;
    }
    let milliseconds: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let to_year = before * 365 + leap_days;
    let to_month: i64 = (1..month).map(|m| days_of(year, m)).sum();
    // Day 1 of year 1 is day 0; 719,162 days later is 1970.
    to_year + to_month + day - 1 - 719_162
}

/// Writes a timestamp as a date and time in UTC, with milliseconds.
pub fn date_time(timestamp: Timestamp) -> String {
    if timestamp.0 < 0 {
        return "-".into();
    }
    let (mut days, rest) = (timestamp.0 / DAY_MS, timestamp.0 % DAY_MS);
    let mut year = 1970 + days / 366;
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    days -= days_since_1970(year, 1, 1);
    let mut month = 1;
    while days >= days_of(year, month) {
        days -= days_of(year, month);
        month += 1;
    }
    let (seconds, milliseconds) = (rest / 1000, rest % 1000);
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{milliseconds:03}Z",
        days + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_milliseconds_name_the_same_moment() {
        let moments = [
            ("1970-01-01", 0),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
            ("2000-03-01T00:00:00.5", 951_868_800_500),
            ("2100-12-31 12:30", 4_133_939_400_000),
        ];
        for (text, milliseconds) in moments {
            assert_eq!(parse_timestamp(text), Ok(Timestamp(milliseconds)), "{text}");
            assert_eq!(parse_timestamp(&date_time(Timestamp(milliseconds))), Ok(Timestamp(milliseconds)));
        }
        assert_eq!(parse_timestamp("1700000000000"), Ok(Timestamp(1_700_000_000_000)));
        for bad in ["", "-5", "2023-13-01", "2023-02-29", "2023-1-1", "2023-01-01T24:00", "2023-01-01T1:00", "soon"] {
            assert!(parse_timestamp(bad).is_err(), "{bad}");
        }
    }
}
