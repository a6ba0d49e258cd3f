//! `ottla group` against the real binary: lag, resets with and without `--execute`, deletion, and what it refuses.

mod common;

use std::process::{Command, Output};

use common::broker::{Broker, Options};
use common::clients::{Admin, consumer, send_all};
use common::until;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

const GROUP: &str = "readers";

/// Runs `ottla group` with these arguments.
fn group(broker: &Broker, args: &[&str]) -> Output {
    let bootstrap = broker.bootstrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.arg("group").args(args).args(["--bootstrap", &bootstrap, "--timeout", "20"]);
    command.output().expect("ottla starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// What it prints as JSON.
fn json_of(broker: &Broker, args: &[&str]) -> Value {
    let output = group(broker, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Partition, offset and lag of everything that the group has committed.
fn described(broker: &Broker) -> Vec<(i64, Value, Value)> {
    let groups = json_of(broker, &["describe", GROUP]);
    let partitions = groups[0]["partitions"].as_array().expect("a list").clone();
    let one = |p: &Value| (p["partition"].as_i64().expect("a number"), p["offset"].clone(), p["lag"].clone());
    partitions.iter().map(one).collect()
}

/// A broker with 20 records in each of three partitions, of which the group has read some of two.
fn prepared() -> Broker {
    let broker = Broker::start(Options::shards(2));
    Admin::new(&broker.bootstrap()).create("read", 3, &[]);
    for partition in 0..3 {
        let values: Vec<String> = (0..20).map(|number| format!("{partition}/{number}")).collect();
        send_all(&broker.bootstrap(), "read", partition, &values);
    }
    let reader = consumer(&broker.bootstrap(), "read", &[(0, Offset::Stored)], &[("group.id", GROUP)]);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("read", 0, Offset::Offset(5)).expect("an offset");
    offsets.add_partition_offset("read", 1, Offset::Offset(20)).expect("an offset");
    reader.commit(&offsets, CommitMode::Sync).expect("committed");
    broker
}

#[test]
fn lag_is_shown_and_offsets_are_moved_when_told_to() {
    let broker = prepared();
    let listed = json_of(&broker, &["list"]);
    assert_eq!(listed[0]["group"], json!(GROUP));
    assert_eq!(described(&broker), [(0, json!(5), json!(15)), (1, json!(20), json!(0))]);
    let shown = group(&broker, &["describe", GROUP]);
    assert!(text(&shown.stdout).contains("lag in all: 15"), "{}", text(&shown.stdout));

    // Only shown; then done.
    let reset = ["reset-offsets", GROUP, "--topic", "read:0,2", "--to-latest"];
    let planned = json_of(&broker, &reset);
    assert_eq!(planned["executed"], json!(false));
    assert_eq!(planned["partitions"][0], json!({ "topic": "read", "partition": 0, "from": 5, "to": 20 }));
    assert_eq!(planned["partitions"][1], json!({ "topic": "read", "partition": 2, "from": null, "to": 20 }));
    assert_eq!(described(&broker)[0], (0, json!(5), json!(15)));
    let done = json_of(&broker, &[&reset[..], &["--execute"]].concat());
    assert_eq!(done["executed"], json!(true));
    assert_eq!(described(&broker), [0, 1, 2].map(|index| (index, json!(20), json!(0))));

    // Every way to say where; what is outside of the log ends at its edge.
    let moved = |to: &[&str], expected: i64| {
        json_of(&broker, &[&["reset-offsets", GROUP, "--topic", "read:1", "--execute"], to].concat());
        assert_eq!(described(&broker)[1].1, json!(expected), "{to:?}");
    };
    moved(&["--to-offset", "7"], 7);
    moved(&["--shift-by", "-3"], 4);
    moved(&["--shift-by", "100"], 20);
    moved(&["--to-earliest"], 0);
    moved(&["--to-datetime", "2100-01-01T00:00:00Z"], 20);
    moved(&["--to-datetime", "2001-01-01"], 0);
    moved(&["--to-offset", "99"], 20);
    json_of(&broker, &["reset-offsets", GROUP, "--all-topics", "--to-offset", "1", "--execute"]);
    assert_eq!(described(&broker), [0, 1, 2].map(|index| (index, json!(1), json!(19))));
}

#[test]
fn a_group_is_deleted_with_its_offsets_and_what_makes_no_sense_is_refused() {
    let broker = prepared();
    let fails = |args: &[&str], code: i32, words: &str| {
        let output = group(&broker, args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    };
    fails(&["describe", "nobody"], 1, "there is no group nobody");
    fails(&["delete", "nobody"], 1, "GROUP_ID_NOT_FOUND");
    fails(&["reset-offsets", GROUP, "--topic", "missing", "--to-latest"], 1, "UNKNOWN_TOPIC_OR_PARTITION");
    fails(&["reset-offsets", GROUP, "--topic", "read:9", "--to-latest"], 1, "no partition 9");
    fails(&["reset-offsets", GROUP, "--topic", "read:2", "--shift-by", "1"], 1, "cannot be shifted");
    fails(&["reset-offsets", GROUP, "--topic", "read", "--to-datetime", "yesterday"], 2, "is no time");
    fails(&["reset-offsets", GROUP, "--topic", "read"], 2, "--to-offset");
    fails(&["reset-offsets", GROUP, "--topic", "read", "--to-latest", "--to-earliest"], 2, "cannot be used with");

    let deleted = group(&broker, &["delete", GROUP]);
    assert!(deleted.status.success(), "{}", text(&deleted.stderr));
    assert_eq!(json_of(&broker, &["list"]), json!([]));
    fails(&["describe", GROUP], 1, "there is no group");
}

#[test]
fn a_group_with_members_is_shown_with_them_and_left_alone() {
    let broker = prepared();
    let settings = [("group.id", GROUP), ("client.id", "the-reader"), ("session.timeout.ms", "6000")];
    let member = consumer(&broker.bootstrap(), "read", &[], &settings);
    member.unassign().expect("nothing assigned");
    member.subscribe(&["read"]).expect("subscribed");
    let joined = until("the member has its partitions", || {
        let _ = member.poll(std::time::Duration::from_millis(50));
        let described = json_of(&broker, &["describe", GROUP])[0].clone();
        let has_all = described["members"][0]["partitions"].as_array().is_some_and(|partitions| partitions.len() == 3);
        has_all.then_some(described)
    });
    assert_eq!((&joined["state"], &joined["protocol_type"]), (&json!("Stable"), &json!("consumer")));
    assert_eq!(joined["members"][0]["client"], json!("the-reader"));
    assert_eq!(joined["partitions"].as_array().map(Vec::len), Some(3));
    assert!(joined["partitions"][2]["member"].is_string() && joined["partitions"][2]["offset"].is_null());
    let refused = group(&broker, &["reset-offsets", GROUP, "--all-topics", "--to-latest", "--execute"]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("has no members"));
    let refused = group(&broker, &["delete", GROUP]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("NON_EMPTY_GROUP"));
}
