//! What is known about one config key: its name, type, default, bounds and meaning.
//!
//! The tables in `topic_keys` and `broker` hold one [`ConfigKey`] per key; they are data, and everything else here
//! works from them: checking a value, naming what was expected, and finding the key that was meant.
//!
//! Invariant: every default passes its own key's check (a test holds the tables to it).
//! It must not know where values come from, nor the wire.

use std::fmt;

/// A config's type, as DescribeConfigs tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// 32 bits, signed.
    Int,
    /// 16 bits, signed.
    Short,
    /// 64 bits, signed.
    Long,
    /// A floating-point number.
    Double,
    /// Texts separated by commas.
    List,
    /// A Java class name.
    Class,
    /// A secret: its value is never shown.
    Password,
}

impl ConfigType {
    /// The number that stands for the type in DescribeConfigs from version 3.
    pub const fn number(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Short => 4,
            ConfigType::Long => 5,
            ConfigType::Double => 6,
            ConfigType::List => 7,
            ConfigType::Class => 8,
            ConfigType::Password => 9,
        }
    }
}

impl fmt::Display for ConfigType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConfigType::Boolean => "boolean",
            ConfigType::String => "string",
            ConfigType::Int => "int",
            ConfigType::Short => "short",
            ConfigType::Long => "long",
            ConfigType::Double => "double",
            ConfigType::List => "list",
            ConfigType::Class => "class",
            ConfigType::Password => "password",
        })
    }
}

/// What a value must satisfy beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validator {
    /// Nothing more.
    Any,
    /// A whole number not below the bound.
    AtLeast(i64),
    /// A whole number within both bounds, included.
    Between(i64, i64),
    /// A floating-point number within both bounds, included.
    Fraction(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list that is not empty, of these words, each at most once.
    ListOf(&'static [&'static str]),
}

impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Validator::Any => Ok(()),
            Validator::AtLeast(least) => write!(f, ", at least {least}"),
            Validator::Between(least, greatest) => write!(f, " from {least} to {greatest}"),
            Validator::Fraction(least, greatest) => write!(f, " from {least} to {greatest}"),
            Validator::OneOf(words) => write!(f, ", one of {}", words.join(", ")),
            Validator::ListOf(words) => write!(f, " of one or more of {}", words.join(", ")),
        }
    }
}

/// Whether a key may be changed while a Kafka broker runs: what DescribeConfigs calls read-only, as Kafka has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Fixed at start.
    ReadOnly,
    /// May change while running.
    Dynamic,
}

/// What a value does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The broker acts on it.
    Acted,
    /// Accepted and shown, because tools set it; it means nothing here. The documentation says why.
    Ignored,
    /// Asks for what ottla does not have: only the default is accepted.
    Unsupported,
}

/// One row of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfigKey {
    /// Kafka's name for it.
    pub name: &'static str,
    /// Its type.
    pub config_type: ConfigType,
    /// The value when nothing is set; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// Its bounds.
    pub validator: Validator,
    /// Whether it may change while running.
    pub change: Change,
    /// What it does here.
    pub effect: Effect,
    /// A short text for people.
    pub documentation: &'static str,
}

/// Writes a table: `"name", Type, default, Validator, Change, Effect, "documentation";` per row.
macro_rules! keys {
    ($($name:literal, $type:ident, $default:expr, $validator:ident $(($($bound:expr),*))?, $change:ident, $effect:ident,
        $documentation:literal;)*) => {
        &[$($crate::model::configs::key::ConfigKey {
            name: $name,
            config_type: $crate::model::configs::key::ConfigType::$type,
            default: $default,
            validator: $crate::model::configs::key::Validator::$validator $(($($bound),*))?,
            change: $crate::model::configs::key::Change::$change,
            effect: $crate::model::configs::key::Effect::$effect,
            documentation: $documentation,
        }),*]
    };
}
pub(super) use keys;

/// Why a config is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No key has this name.
    #[error("unknown config {name}{}", suggest(.nearest))]
    UnknownKey {
        /// What was given.
        name: String,
        /// Keys whose names are near it, nearest first.
        nearest: Vec<&'static str>,
    },
    /// The value does not fit the key.
    #[error("invalid value {value:?} for config {name}: expected {expected}")]
    InvalidValue {
        /// The key.
        name: &'static str,
        /// What was given; secrets are left out.
        value: String,
        /// The type and the bounds.
        expected: String,
    },
    /// The value asks for what ottla does not have.
    #[error("config {name}={value} is not supported: {documentation}")]
    Unsupported {
        /// The key.
        name: &'static str,
        /// What was given.
        value: String,
        /// What the key is about.
        documentation: &'static str,
    },
}

fn suggest(nearest: &[&'static str]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) }
}

impl ConfigKey {
    /// True if the value is a secret.
    pub fn is_sensitive(&self) -> bool {
        self.config_type == ConfigType::Password
    }

    /// True if the value cannot change while running.
    pub fn is_read_only(&self) -> bool {
        self.change == Change::ReadOnly
    }

    /// What a value must be, for people: `int, at least 1`.
    pub fn expected(&self) -> String {
        format!("{}{}", self.config_type, self.validator)
    }

    /// Accepts `value`, spaces around it apart, or says what was expected.
    pub fn check<'a>(&self, value: &'a str) -> Result<&'a str, ConfigError> {
        let value = value.trim();
        if !self.has_type(value) || !self.within_bounds(value) {
            let shown = if self.is_sensitive() { "[hidden]" } else { value };
            return Err(ConfigError::InvalidValue {
                name: self.name,
                value: shorten(shown),
                expected: self.expected(),
            });
        }
        if self.effect == Effect::Unsupported && self.default != Some(value) {
            return Err(ConfigError::Unsupported {
                name: self.name,
                value: value.to_owned(),
                documentation: self.documentation,
            });
        }
        Ok(value)
    }

    fn has_type(&self, value: &str) -> bool {
        match self.config_type {
            ConfigType::Boolean => parse_bool(value).is_some(),
            ConfigType::Int => value.parse::<i32>().is_ok(),
            ConfigType::Short => value.parse::<i16>().is_ok(),
            ConfigType::Long => value.parse::<i64>().is_ok(),
            ConfigType::Double => value.parse::<f64>().is_ok_and(|number| !number.is_nan()),
            ConfigType::String | ConfigType::List | ConfigType::Class | ConfigType::Password => true,
        }
    }

    fn within_bounds(&self, value: &str) -> bool {
        let whole = |least: i64, greatest: i64| value.parse().is_ok_and(|n: i64| least <= n && n <= greatest);
        match self.validator {
            Validator::Any => true,
            Validator::AtLeast(least) => whole(least, i64::MAX),
            Validator::Between(least, greatest) => whole(least, greatest),
            Validator::Fraction(least, greatest) => value.parse().is_ok_and(|n: f64| least <= n && n <= greatest),
            Validator::OneOf(words) => words.contains(&value),
            Validator::ListOf(words) => {
                let given: Vec<&str> = list(value).collect();
                let distinct = given.iter().enumerate().all(|(i, word)| !given[..i].contains(word));
                !given.is_empty() && distinct && given.iter().all(|word| words.contains(word))
            }
        }
    }
}

/// `true` and `false` in any case, as Kafka reads them.
pub(super) fn parse_bool(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// The entries of a list, without the spaces around them.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// The error for a name that no key has, with up to three of `names` that are near it.
pub(super) fn unknown_key(name: &str, names: impl Iterator<Item = &'static str>) -> ConfigError {
    let mut near: Vec<(usize, &'static str)> = names
        .filter_map(|candidate| {
            let distance = edit_distance(name, candidate);
            (distance <= 2.max(candidate.len() / 4)).then_some((distance, candidate))
        })
        .collect();
    near.sort_unstable();
    let nearest = near.into_iter().take(3).map(|(_, candidate)| candidate).collect();
    ConfigError::UnknownKey { name: shorten(name), nearest }
}

/// What an error shows of a text that somebody sent: it may be as long as a request.
fn shorten(text: &str) -> String {
    const SHOWN_CHAR_COUNT_MAX: usize = 128;
    match text.char_indices().nth(SHOWN_CHAR_COUNT_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Single-byte insertions, deletions and changes that turn `a` into `b` (Levenshtein). Names longer than any key's
/// are as far as they are long, so that a hostile name costs nothing.
fn edit_distance(a: &str, b: &str) -> usize {
    const NAME_SIZE_BYTES_MAX: usize = 128;
    if a.len() > NAME_SIZE_BYTES_MAX {
        return a.len();
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[ConfigKey] = keys! {
        "count", Int, Some("1"), AtLeast(1), ReadOnly, Acted, "A count.";
        "policy", List, Some("delete"), ListOf(&["compact", "delete"]), Dynamic, Acted, "A policy.";
        "ratio", Double, Some("0.5"), Fraction(0.0, 1.0), Dynamic, Acted, "A ratio.";
        "tier", Boolean, Some("false"), Any, Dynamic, Unsupported, "Tiers.";
        "secret", Password, None, OneOf(&["x"]), ReadOnly, Ignored, "A secret.";
    };

    #[test]
    fn a_value_must_have_the_type_and_lie_within_the_bounds() {
        let [count, policy, ratio, ..] = TABLE else { panic!("table changed") };
        assert_eq!(count.check(" 3 "), Ok("3"));
        for bad in ["0", "x", "", "1.5", "2147483648"] {
            assert!(count.check(bad).is_err(), "{bad}");
        }
        assert_eq!(policy.check("compact, delete"), Ok("compact, delete"));
        for bad in ["", "compact,compact", "shrink"] {
            assert!(policy.check(bad).is_err(), "{bad}");
        }
        assert!(ratio.check("1.0").is_ok() && ratio.check("1.01").is_err() && ratio.check("NaN").is_err());
    }

    #[test]
    fn an_error_names_type_and_range_and_hides_secrets() {
        let error = TABLE[0].check("none").unwrap_err().to_string();
        assert_eq!(error, "invalid value \"none\" for config count: expected int, at least 1");
        let error = TABLE[4].check("hunter2").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_not_supported_accepts_its_default_only() {
        assert_eq!(TABLE[3].check("false"), Ok("false"));
        assert!(matches!(TABLE[3].check("true"), Err(ConfigError::Unsupported { name: "tier", .. })));
    }

    #[test]
    fn the_nearest_names_are_suggested() {
        let names = || ["num.partitions", "num.io.threads", "log.dirs"].into_iter();
        let error = unknown_key("num.partition", names()).to_string();
        assert_eq!(error, "unknown config num.partition; did you mean num.partitions?");
        assert_eq!(unknown_key("zzz", names()).to_string(), "unknown config zzz");
        // A name longer than any key is neither compared nor shown in full.
        assert_eq!(unknown_key(&"x".repeat(1 << 20), names()).to_string().len(), "unknown config ...".len() + 128);
    }

    #[test]
    fn edit_distances_are_levenshtein() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
