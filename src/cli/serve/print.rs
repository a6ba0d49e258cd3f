//! `--print-config`: every value with its source, as TOML that can be used as a configuration file, or as JSON.

use std::fmt::Write;

use serde_json::json;

use super::layers::{Merged, Source, Value};
use super::settings::{Kind, SETTINGS, Setting};
use crate::model::configs::broker;
use crate::model::configs::key::Effect;

/// Printed as the broker config that it is short for.
const SHORT_FORM: &str = "replication-factor-policy";

/// TOML with the sources as comments. Settings without a value are comments.
pub fn toml_text(merged: &Merged) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for setting in SETTINGS.iter().filter(|setting| setting.key != SHORT_FORM) {
        match merged.values.get(setting.key) {
            Some(value) => {
                lines.push((format!("{} = {}", setting.key, literal(setting, &value.text)), value.source.to_string()));
            }
            None => lines.push((format!("# {} =", setting.key), "not set".into())),
        }
    }
    let mut text = aligned(&lines);
    text.push_str("\n[set]\n");
    let pairs: Vec<_> = broker_values(merged)
        .map(|(key, value)| match value {
            Some(value) => (format!("{} = {}", quoted(key), quoted(&value.text)), value.source.to_string()),
            None => (format!("# {} =", quoted(key)), "not set".into()),
        })
        .collect();
    text.push_str(&aligned(&pairs));
    text
}

/// Broker configs that were set or that the broker acts on, in the order of their names. Kafka's other keys are what
/// DescribeConfigs is for.
fn broker_values(merged: &Merged) -> impl Iterator<Item = (&'static str, Option<Value>)> {
    broker::all().filter(|key| key.effect == Effect::Acted || merged.broker.contains_key(key.name)).map(|key| {
        let default = || key.default.map(|text| Value { text: text.into(), source: Source::Default });
        let value = merged.broker.get(key.name).cloned().or_else(default);
        // A secret that was written into a file is not for the terminal.
        let hidden = value.map(|value| match key.is_sensitive() {
            true => Value { text: "(hidden)".into(), ..value },
            false => value,
        });
        (key.name, hidden)
    })
}

/// One object: `settings` and `broker`, each key with `value` and `source`.
pub fn json_value(merged: &Merged) -> serde_json::Value {
    let entry = |value: Option<&Value>| match value {
        Some(value) => {
            let mut entry = json!({ "value": value.text, "source": source_name(&value.source) });
            match &value.source {
                Source::Environment(name) => entry["variable"] = json!(name),
                Source::File(path) => entry["file"] = json!(path.display().to_string()),
                Source::Flag | Source::DataDirectory | Source::Default => {}
            }
            entry
        }
        None => json!({ "value": null, "source": "default" }),
    };
    let settings: serde_json::Map<_, _> = SETTINGS
        .iter()
        .filter(|s| s.key != SHORT_FORM)
        .map(|s| (s.key.to_string(), entry(merged.values.get(s.key))))
        .collect();
    let broker: serde_json::Map<_, _> =
        broker_values(merged).map(|(k, v)| (k.to_string(), entry(v.as_ref()))).collect();
    json!({ "settings": settings, "broker": broker })
}

fn source_name(source: &Source) -> &'static str {
    match source {
        Source::Flag => "flag",
        Source::Environment(_) => "environment",
        Source::File(_) => "file",
        Source::DataDirectory => "data directory",
        Source::Default => "default",
    }
}

fn aligned(lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0).min(48);
    let mut text = String::new();
    for (left, comment) in lines {
        let _ = writeln!(text, "{left:width$}  # {}", comment.replace('\n', " "));
    }
    text
}

fn literal(setting: &Setting, text: &str) -> String {
    let bare = match setting.kind {
        Kind::Number => text.parse::<i64>().is_ok(),
        Kind::Switch | Kind::SwitchOn => matches!(text, "true" | "false"),
        Kind::OptionalNumber => matches!(text, "true" | "false") || text.parse::<i64>().is_ok(),
        Kind::Text => false,
    };
    if bare { text.to_string() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::flags::RawServe;
    use super::super::layers::merge;
    use super::super::options::{Facts, resolve};
    use super::*;

    fn example() -> Merged {
        let raw = RawServe {
            values: [("listen", "127.0.0.1:7000".to_string()), ("ring-sqpoll", "50".to_string())].into(),
            set: vec!["num.partitions=3".into()],
            ..RawServe::default()
        };
        let environment = BTreeMap::from([
            ("OTTLA_NODE_ID".to_string(), "4".to_string()),
            ("OTTLA_REPLICATION_FACTOR_POLICY".to_string(), "refuse".to_string()),
        ]);
        let file = "memory-per-shard = \"128MiB\"";
        let mut merged = merge(&raw, &environment, Some((Path::new("o.toml"), file))).unwrap();
        let facts = Facts { cpu_count: 2, memory_bytes: None, stored_shard_count: Some(3), host_name: "box".into() };
        resolve(&mut merged, &facts).unwrap();
        merged
    }

    #[test]
    fn every_setting_is_printed_with_its_source() {
        let text = toml_text(&example());
        let want = [
            ("data-dir = \"./ottla-data\"", "default"),
            ("listen = \"127.0.0.1:7000\"", "flag"),
            ("# advertise =", "not set"),
            ("shards = 3", "data directory"),
            ("node-id = 4", "environment OTTLA_NODE_ID"),
            ("memory-per-shard = \"128MiB\"", "file o.toml"),
            ("ring-sqpoll = 50", "flag"),
            ("[set]", ""),
            ("\"num.partitions\" = \"3\"", "flag"),
            ("\"message.max.bytes\" = \"1048588\"", "default"),
            ("\"ottla.replication.factor.policy\" = \"refuse\"", "environment OTTLA_REPLICATION_FACTOR_POLICY"),
        ];
        let lines: Vec<(&str, &str)> =
            text.lines().map(|l| l.rsplit_once("  # ").unwrap_or((l, ""))).map(|(l, r)| (l.trim(), r)).collect();
        for line in want {
            assert!(lines.contains(&line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_used_as_the_file() {
        let printed = toml_text(&example());
        let again = merge(&RawServe::default(), &BTreeMap::new(), Some((Path::new("p.toml"), &printed))).unwrap();
        let texts = |m: &Merged| m.values.iter().map(|(k, v)| (*k, v.text.clone())).collect::<Vec<_>>();
        assert_eq!(texts(&again), texts(&example()));
        assert_eq!(again.broker["num.partitions"].text, "3");
    }

    #[test]
    fn json_names_value_and_source() {
        let json = json_value(&example());
        assert_eq!(json["settings"]["shards"], json!({ "value": "3", "source": "data directory" }));
        assert_eq!(json["settings"]["node-id"]["variable"], "OTTLA_NODE_ID");
        assert_eq!(json["settings"]["ring-sqpoll-cpu"]["value"], json!(null));
        assert_eq!(json["broker"]["num.partitions"]["value"], "3");
    }
}
