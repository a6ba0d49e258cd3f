//! Regular expressions of topic names, as RE2 understands them: whole names are matched, in linear time.

use regex::{Regex, RegexBuilder};

use super::Topics;
use super::change::Resolved;
use crate::base::time::Timestamp;
use crate::coordinator::group::event::GroupError;
use crate::model::limits::{GROUP_PATTERN_PROGRAM_SIZE_BYTES_MAX, GROUP_PATTERN_SIZE_BYTES_MAX};

/// The expression, anchored at both ends.
pub(super) fn compile(pattern: &str) -> Result<Regex, GroupError> {
    if pattern.len() > GROUP_PATTERN_SIZE_BYTES_MAX {
        return Err(GroupError::InvalidRegularExpression);
    }
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(GROUP_PATTERN_PROGRAM_SIZE_BYTES_MAX)
            .dfa_size_limit(GROUP_PATTERN_PROGRAM_SIZE_BYTES_MAX)
            .build()
            .map_err(|_| GroupError::InvalidRegularExpression)
    };
    // It must be one by itself, not only between the brackets: `a)(b` is none.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// The topics that an expression matches now.
pub(super) fn resolve(pattern: &str, topics: &dyn Topics, at: Timestamp) -> Result<Resolved, GroupError> {
    let regex = compile(pattern)?;
    let mut found: Vec<Box<str>> = Vec::new();
    topics.visit_names(&mut |name| {
        if regex.is_match(name) {
            found.push(name.into());
        }
    });
    found.sort_unstable();
    Ok(Resolved { topics: found, version: topics.version() as i64, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        let matches = |pattern: &str, name: &str| compile(pattern).unwrap().is_match(name);
        assert!(matches("foo.*", "foobar") && matches("a|ab", "ab") && matches("", ""));
        assert!(!matches("foo", "foobar") && !matches("bar", "foobar") && !matches("a|b", "ab"));
        assert!(matches(r"t-\d+", "t-12") && matches("^t$", "t") && matches("(?i)T", "t"));
    }

    #[test]
    fn what_is_no_pattern_or_too_large_a_one_is_refused() {
        let long = "x".repeat(GROUP_PATTERN_SIZE_BYTES_MAX + 1);
        for wrong in ["(", "a)(b", "*", "[", r"(a)\1", "(?=a)", "((a{100}){100}){100}", &long] {
            assert_eq!(compile(wrong).err(), Some(GroupError::InvalidRegularExpression), "{wrong:.20}");
        }
    }
}
