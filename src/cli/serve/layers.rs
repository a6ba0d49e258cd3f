//! Flags over variables over the file over the data directory over defaults: which text each setting has, and whence.
//!
//! Everything arrives as values (the environment too), so that precedence can be tested without a process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::flags::RawServe;
use super::settings::{self, SETTINGS};
use crate::cli::exit::UsageError;
use crate::cli::suggest::did_you_mean;

/// Where a value comes from, strongest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The command line.
    Flag,
    /// The named variable.
    Environment(String),
    /// The configuration file.
    File(PathBuf),
    /// What the data directory remembers.
    DataDirectory,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("flag"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::DataDirectory => f.write_str("data directory"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// A text and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As written.
    pub text: String,
    /// Where.
    pub source: Source,
}

impl Value {
    /// An error about this value.
    pub fn error(&self, key: &str, why: impl fmt::Display) -> UsageError {
        UsageError::new(format!("{}: {why}", self.place(key)))
    }

    /// How the user would point at it.
    fn place(&self, key: &str) -> String {
        match &self.source {
            Source::Flag if key.contains('.') => format!("--set {key}={}", self.text),
            Source::Flag => format!("--{key} {}", self.text),
            Source::Environment(name) => format!("{name}={}", self.text),
            Source::File(path) => format!("{}: {key} = {}", path.display(), self.text),
            Source::DataDirectory | Source::Default => format!("{key} = {} ({})", self.text, self.source),
        }
    }
}

/// The outcome of merging.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Settings that somebody gave or that have a default, by key.
    pub values: BTreeMap<&'static str, Value>,
    /// Broker configs by Kafka's names.
    pub broker: BTreeMap<String, Value>,
    /// What should be said but stops nothing.
    pub warnings: Vec<String>,
}

/// Variables that other commands read, or that name the file and the broker configs.
const OTHER_VARIABLES: [&str; 3] = ["OTTLA_CONFIG", "OTTLA_SET", "OTTLA_BOOTSTRAP"];

/// The file to read, if any: `--config`, else `OTTLA_CONFIG`.
pub fn config_path(raw: &RawServe, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    raw.config.clone().or_else(|| environment.get("OTTLA_CONFIG").filter(|s| !s.is_empty()).map(PathBuf::from))
}

/// Merges the layers. `file` is the configuration file's path and text.
pub fn merge(
    raw: &RawServe,
    environment: &BTreeMap<String, String>,
    file: Option<(&Path, &str)>,
) -> Result<Merged, UsageError> {
    let mut merged = Merged::default();
    for setting in SETTINGS {
        if let Some(text) = setting.default {
            merged.values.insert(setting.key, Value { text: text.into(), source: Source::Default });
        }
    }
    if let Some((path, text)) = file {
        merge_file(&mut merged, path, text)?;
    }
    merge_environment(&mut merged, environment)?;
    for (key, text) in &raw.values {
        merged.values.insert(key, Value { text: text.clone(), source: Source::Flag });
    }
    for pair in &raw.set {
        let (key, text) = split_pair(pair).ok_or_else(|| {
            UsageError::new(format!("--set {pair}: expected KEY=VALUE")).hint("--set num.partitions=3")
        })?;
        merged.broker.insert(key, Value { text, source: Source::Flag });
    }
    Ok(merged)
}

fn merge_environment(merged: &mut Merged, environment: &BTreeMap<String, String>) -> Result<(), UsageError> {
    let known: Vec<(String, &'static str)> = SETTINGS.iter().map(|s| (settings::variable(s.key), s.key)).collect();
    for (name, text) in environment.range("OTTLA_".to_string()..).take_while(|(name, _)| name.starts_with("OTTLA_")) {
        let source = Source::Environment(name.clone());
        if let Some((_, key)) = known.iter().find(|(variable, _)| variable == name) {
            // An empty variable is how many deployment tools say "not set".
            if !text.is_empty() {
                merged.values.insert(key, Value { text: text.clone(), source });
            }
        } else if name == "OTTLA_SET" {
            for pair in text.split([';', '\n']).map(str::trim).filter(|pair| !pair.is_empty()) {
                let (key, text) = split_pair(pair).ok_or_else(|| {
                    UsageError::new(format!("OTTLA_SET: `{pair}` is not KEY=VALUE"))
                        .hint("OTTLA_SET='num.partitions=3;message.max.bytes=2097152'")
                })?;
                merged.broker.insert(key, Value { text, source: source.clone() });
            }
        } else if !OTHER_VARIABLES.contains(&name.as_str()) {
            let names = known.iter().map(|(n, _)| n.as_str()).chain(OTHER_VARIABLES);
            merged.warnings.push(format!("the variable {name} means nothing to ottla{}", did_you_mean(name, names)));
        }
    }
    Ok(())
}

fn merge_file(merged: &mut Merged, path: &Path, text: &str) -> Result<(), UsageError> {
    let table: toml::Table =
        text.parse().map_err(|error| UsageError::new(format!("{}: {error}", path.display()).trim_end().to_string()))?;
    let fail = |key: &str, why: String| UsageError::new(format!("{}: {key}: {why}", path.display()));
    let source = Source::File(path.to_path_buf());
    for (key, value) in table {
        if key == "set" {
            let toml::Value::Table(pairs) = value else {
                return Err(fail("set", "must be a table of broker configs".into())
                    .hint("[set]\n       \"num.partitions\" = 3"));
            };
            flatten_dotted(&mut merged.broker, String::new(), pairs, &source)
                .map_err(|(key, why)| fail(&format!("set.{key}"), why))?;
            continue;
        }
        // `[ring] entries = 256` is `ring-entries = 256`.
        let prefix = format!("{key}-");
        match value {
            toml::Value::Table(inner) if SETTINGS.iter().any(|s| s.key.starts_with(&prefix)) => {
                for (name, value) in inner {
                    insert(merged, &format!("{prefix}{name}"), &value, &source, &fail)?;
                }
            }
            value => insert(merged, &key, &value, &source, &fail)?,
        }
    }
    Ok(())
}

fn insert(
    merged: &mut Merged,
    key: &str,
    value: &toml::Value,
    source: &Source,
    fail: &impl Fn(&str, String) -> UsageError,
) -> Result<(), UsageError> {
    let Some(setting) = settings::find(key) else {
        let near = did_you_mean(key, SETTINGS.iter().map(|s| s.key).chain(["set"]));
        let error = fail(key, format!("unknown setting{near}"));
        return Err(if key.contains('.') {
            error.hint("put broker configs under Kafka's names into the table [set]")
        } else {
            error.hint("`ottla serve --print-config` lists every setting")
        });
    };
    let text = scalar(value).map_err(|why| fail(key, why))?;
    merged.values.insert(setting.key, Value { text, source: source.clone() });
    Ok(())
}

/// `"num.partitions" = 3` and `num.partitions = 3` mean the same: TOML reads the second as nested tables.
fn flatten_dotted(
    broker: &mut BTreeMap<String, Value>,
    prefix: String,
    table: toml::Table,
    source: &Source,
) -> Result<(), (String, String)> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten_dotted(broker, key, inner, source)?,
            value => {
                let text = scalar(&value).map_err(|why| (key.clone(), why))?;
                broker.insert(key, Value { text, source: source.clone() });
            }
        }
    }
    Ok(())
}

/// A TOML value as the text that the flag would have; an array is a comma list.
fn scalar(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(switch) => Ok(switch.to_string()),
        toml::Value::Array(entries) => Ok(entries.iter().map(scalar).collect::<Result<Vec<_>, _>>()?.join(",")),
        toml::Value::Datetime(_) | toml::Value::Table(_) => {
            Err("must be a text, a number, true or false, or a list of them".into())
        }
    }
}

fn split_pair(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    let key = key.trim();
    (!key.is_empty()).then(|| (key.to_string(), value.trim().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn flags(pairs: &[(&'static str, &str)]) -> RawServe {
        RawServe { values: pairs.iter().map(|(k, v)| (*k, v.to_string())).collect(), ..RawServe::default() }
    }

    #[test]
    fn flags_beat_variables_beat_the_file_beats_defaults() {
        // One setting per layer on top of a file that gives all of them.
        let file = "shards = 1\nnode-id = 1\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n[ring]\nentries = 64";
        let env = environment(&[("OTTLA_SHARDS", "2"), ("OTTLA_NODE_ID", "2"), ("OTTLA_LISTEN", "")]);
        let merged = merge(&flags(&[("shards", "3")]), &env, Some((Path::new("o.toml"), file))).unwrap();
        let file = Source::File("o.toml".into());
        let at = |key: &str| merged.values[key].clone();
        assert_eq!(at("shards"), Value { text: "3".into(), source: Source::Flag });
        assert_eq!(at("node-id"), Value { text: "2".into(), source: Source::Environment("OTTLA_NODE_ID".into()) });
        assert_eq!(at("listen"), Value { text: "127.0.0.1:1,127.0.0.1:2".into(), source: file.clone() });
        assert_eq!(at("ring-entries"), Value { text: "64".into(), source: file });
        assert_eq!(at("log-format"), Value { text: "text".into(), source: Source::Default });
        assert_eq!(merged.warnings, Vec::<String>::new());
    }

    #[test]
    fn broker_configs_come_from_all_three_and_may_hold_commas_and_equals_signs() {
        let file = "[set]\nnum.partitions = 3\n\"cleanup.policy\" = \"compact,delete\"\na = \"file\"";
        let env = environment(&[("OTTLA_SET", "a=env; b=x=y\n c=1")]);
        let raw = RawServe { set: vec!["c=2".into(), "c=3".into()], ..RawServe::default() };
        let merged = merge(&raw, &env, Some((Path::new("o.toml"), file))).unwrap();
        let texts: Vec<_> = merged.broker.iter().map(|(k, v)| format!("{k}={} {}", v.text, v.source)).collect();
        assert_eq!(
            texts,
            [
                "a=env environment OTTLA_SET",
                "b=x=y environment OTTLA_SET",
                "c=3 flag",
                "cleanup.policy=compact,delete file o.toml",
                "num.partitions=3 file o.toml"
            ]
        );
    }

    #[test]
    fn unknown_keys_in_the_file_are_errors_and_unknown_variables_warnings_both_with_a_suggestion() {
        let fail = |text: &str| merge(&flags(&[]), &environment(&[]), Some((Path::new("o.toml"), text))).unwrap_err();
        assert_eq!(fail("shard = 1").message, "o.toml: shard: unknown setting; did you mean `shards`?");
        assert_eq!(
            fail("[ring]\nentires = 1").message,
            "o.toml: ring-entires: unknown setting; did you mean `ring-entries`?"
        );
        assert!(fail("num.partitions = 3").message.contains("num: unknown setting"));
        assert!(fail("shards = ").message.contains("o.toml"));
        let env = environment(&[("OTTLA_SHARD", "1"), ("OTTLA_BOOTSTRAP", "x"), ("PATH", "y")]);
        let warnings = merge(&flags(&[]), &env, None).unwrap().warnings;
        assert_eq!(warnings, ["the variable OTTLA_SHARD means nothing to ottla; did you mean `OTTLA_SHARDS`?"]);
    }
}
