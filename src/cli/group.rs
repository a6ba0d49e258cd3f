//! `ottla group list | describe | reset-offsets | delete`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::exit::{Failed, UsageError};
use super::format::time::parse_timestamp;
use super::output::Output;
use super::remote::RawRemote;
use crate::base::time::Timestamp;
use crate::base::units::counted;
use crate::client::{
    Client, ClientError, EARLIEST, GroupDescription, GroupMember, GroupOffset, IsolationLevel, LATEST, TopicPartition,
};
use crate::model::id::Offset;
use crate::protocol::ErrorCode;

/// Subcommands of `ottla group`.
#[derive(Debug, Subcommand)]
pub enum RawGroup {
    /// List the groups.
    List(RawList),
    /// Show members, committed offsets and lag.
    Describe(RawDescribe),
    /// Move the committed offsets of a group that nobody uses; shows what it would do unless told to do it.
    ResetOffsets(RawReset),
    /// Delete groups that nobody uses, with everything that they have committed.
    Delete(RawDelete),
}

/// Flags of `ottla group list`.
#[derive(Debug, Args)]
pub struct RawList {
    /// Only groups in this state, such as Stable or Empty; may be repeated.
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<String>,
    /// Only groups of this protocol, classic or consumer; may be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla group describe`.
#[derive(Debug, Args)]
pub struct RawDescribe {
    /// Groups.
    #[arg(required = true)]
    names: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla group reset-offsets`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true))]
#[command(group = ArgGroup::new("which").required(true))]
pub struct RawReset {
    /// The group.
    name: String,
    /// A topic, or some partitions of it: flights, flights:0,2; may be repeated.
    #[arg(long = "topic", value_name = "TOPIC[:N,...]", group = "which")]
    topics: Vec<String>,
    /// Every partition for which the group has committed something.
    #[arg(long, group = "which")]
    all_topics: bool,
    /// To this offset.
    #[arg(long, value_name = "OFFSET", group = "where", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record that is kept.
    #[arg(long, group = "where")]
    to_earliest: bool,
    /// Behind the last record.
    #[arg(long, group = "where")]
    to_latest: bool,
    /// To the first record of this time or later: 2023-11-14T22:13:20Z, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", group = "where")]
    to_datetime: Option<String>,
    /// By so many records from where it is: 10 forwards, -10 back.
    #[arg(long, value_name = "N", group = "where", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Do it. Without this, it is only shown what would be done.
    #[arg(long)]
    execute: bool,
    /// Only show what would be done. This is the default.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla group delete`.
#[derive(Debug, Args)]
pub struct RawDelete {
    /// Groups.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    remote: RawRemote,
}

/// Runs the command.
pub fn command(raw: RawGroup) -> anyhow::Result<()> {
    match raw {
        RawGroup::List(raw) => list(&raw),
        RawGroup::Describe(raw) => describe(&raw),
        RawGroup::ResetOffsets(raw) => reset(&raw),
        RawGroup::Delete(raw) => delete(&raw),
    }
}

fn list(raw: &RawList) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let is_wanted = |filter: &[String], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let mut groups = client.list_groups()?;
    groups.retain(|group| is_wanted(&raw.states, &group.state) && is_wanted(&raw.types, &group.group_type));
    let mut out = Output::stdout();
    if raw.json {
        let groups: Vec<_> = groups
            .iter()
            .map(|group| {
                json!({
                    "group": group.id,
                    "state": group.state,
                    "type": group.group_type,
                    "protocol_type": group.protocol_type,
                    "coordinator": group.coordinator,
                })
            })
            .collect();
        out.json(&json!(groups))?;
    } else {
        let rows: Vec<Vec<String>> = groups
            .into_iter()
            .map(|group| {
                let coordinator = group.coordinator.to_string();
                let (group_type, protocol_type) = (or_dash(group.group_type), or_dash(group.protocol_type));
                vec![group.id, or_dash(group.state), group_type, protocol_type, coordinator]
            })
            .collect();
        out.table(&["GROUP", "STATE", "TYPE", "PROTOCOL TYPE", "COORDINATOR"], &rows)?;
    }
    Ok(out.flush()?)
}

/// Where a group is in one partition.
struct Place {
    topic: String,
    partition: i32,
    committed: Option<GroupOffset>,
    /// Where the partition begins and ends; `None` if it cannot say.
    range: Option<(i64, i64)>,
    /// Which of the members has it.
    member: Option<usize>,
}

impl Place {
    /// Records that the group has not read; those that are not kept any more do not count.
    fn lag(&self) -> Option<i64> {
        let (start, end) = self.range?;
        Some((end - self.committed.as_ref()?.offset.0.max(start)).max(0))
    }
}

fn describe(raw: &RawDescribe) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let mut out = Output::stdout();
    let mut documents = Vec::new();
    for (number, name) in raw.names.iter().enumerate() {
        let group = client.describe_group(name)?;
        let offsets = client.group_offsets(name)?;
        if group.state == "Dead" && offsets.is_empty() {
            return Err(Failed {
                message: format!("there is no group {name}"),
                hint: Some("`ottla group list` shows the groups".into()),
            }
            .into());
        }
        let places = places(&mut client, &group, offsets)?;
        if raw.json {
            documents.push(describe_json(name, &group, &places));
        } else {
            if number > 0 {
                writeln!(out)?;
            }
            describe_text(&mut out, name, &group, &places)?;
        }
    }
    if raw.json {
        out.json(&json!(documents))?;
    }
    Ok(out.flush()?)
}

/// Every partition that the group has committed for or that a member has.
fn places(
    client: &mut Client,
    group: &GroupDescription,
    mut offsets: BTreeMap<TopicPartition, GroupOffset>,
) -> Result<Vec<Place>, ClientError> {
    let mut members: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    for (number, member) in group.members.iter().enumerate() {
        members.extend(member.partitions.iter().map(|partition| (partition.clone(), number)));
    }
    let keys: BTreeSet<TopicPartition> = offsets.keys().chain(members.keys()).cloned().collect();
    let ranges = ranges(client, &keys)?;
    let place = |key: TopicPartition| Place {
        committed: offsets.remove(&key),
        range: ranges.get(&key).copied(),
        member: members.get(&key).copied(),
        topic: key.0,
        partition: key.1,
    };
    Ok(keys.into_iter().map(place).collect())
}

/// Where partitions begin and end. Those whose topic is gone are left out.
fn ranges(
    client: &mut Client,
    keys: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, (i64, i64)>, ClientError> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in keys {
        by_topic.entry(topic).or_default().push(*partition);
    }
    let mut ranges = BTreeMap::new();
    for (topic, partitions) in by_topic {
        let known = match client.topic(topic, false) {
            Ok(known) => known,
            Err(error) if error.is_code(ErrorCode::UnknownTopicOrPartition) => continue,
            Err(error) => return Err(error),
        };
        let is_known = |index: &i32| known.partitions.iter().any(|p| p.index == *index);
        let wanted: Vec<i32> = partitions.into_iter().filter(is_known).collect();
        let first = at(client, topic, &wanted, EARLIEST)?;
        let next = at(client, topic, &wanted, LATEST)?;
        let both = first.into_iter().filter_map(|(index, first)| Some((index, (first, *next.get(&index)?))));
        ranges.extend(both.map(|(index, range)| ((topic.to_owned(), index), range)));
    }
    Ok(ranges)
}

/// The offsets of partitions at a time.
fn at(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    time: Timestamp,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let wanted: Vec<_> = partitions.iter().map(|index| (*index, time)).collect();
    let found = client.list_offsets(topic, &wanted, IsolationLevel::ReadUncommitted)?;
    Ok(found.into_iter().map(|(index, at)| (index, at.offset.0)).collect())
}

fn describe_text(out: &mut Output, name: &str, group: &GroupDescription, places: &[Place]) -> std::io::Result<()> {
    let protocol = match group.protocol.as_str() {
        "" => String::new(),
        protocol => format!(", {protocol}"),
    };
    let epochs = match group.epochs {
        Some(epochs) => format!(", epoch {}, assignment epoch {}", epochs.group, epochs.assignment),
        None => String::new(),
    };
    out.heading(&format!(
        "{name}: {}, {}{protocol}{epochs}, {}, coordinator {}",
        group.state,
        if group.protocol_type.is_empty() { "no type" } else { &group.protocol_type },
        counted(group.members.len() as u64, "member"),
        group.coordinator
    ))?;
    let rows: Vec<Vec<String>> = places
        .iter()
        .map(|place| {
            let member = place.member.map(|number| &group.members[number]);
            vec![
                place.topic.clone(),
                place.partition.to_string(),
                number(place.committed.as_ref().map(|committed| committed.offset.0)),
                number(place.range.map(|(_, end)| end)),
                number(place.lag()),
                member.map_or("-".into(), |member| member.id.clone()),
                member.map_or("-".into(), |member| member.client_id.clone()),
                member.map_or("-".into(), |member| member.host.clone()),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.table(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER", "CLIENT", "HOST"], &rows)?;
        let lag: i64 = places.iter().filter_map(Place::lag).sum();
        writeln!(out, "lag in all: {lag}")?;
    }
    let lags = lag_of_members(group, places);
    let idle = group.members.iter().zip(&lags).filter(|(member, _)| member.partitions.is_empty());
    for (member, _) in idle {
        writeln!(out, "member {} ({}, {}) has no partition", member.id, member.client_id, member.host)?;
    }
    if group.epochs.is_some() && !group.members.is_empty() {
        return members_with_epochs(out, group, &lags);
    }
    if group.members.len() > 1 {
        let rows: Vec<Vec<String>> = group
            .members
            .iter()
            .zip(lags)
            .map(|(member, lag)| vec![member.id.clone(), member.partitions.len().to_string(), lag.to_string()])
            .collect();
        out.table(&["MEMBER", "PARTITIONS", "LAG"], &rows)?;
    }
    Ok(())
}

/// Members of the consumer protocol: where each is on the way to what it is to have.
fn members_with_epochs(out: &mut Output, group: &GroupDescription, lags: &[i64]) -> std::io::Result<()> {
    let row = |member: &GroupMember, lag: i64| {
        let progress = member.progress.as_ref();
        let protocol = match progress.and_then(|progress| progress.is_classic) {
            Some(true) => "classic",
            Some(false) => "consumer",
            None => "-",
        };
        let reads = progress.map_or(String::new(), |progress| {
            let pattern = progress.regex.iter().map(|regex| format!("/{regex}/"));
            progress.topics.iter().cloned().chain(pattern).collect::<Vec<_>>().join(",")
        });
        vec![
            member.id.clone(),
            protocol.into(),
            number(progress.map(|progress| i64::from(progress.epoch))),
            member.partitions.len().to_string(),
            progress.map_or("-".into(), |progress| by_topic(&progress.target)),
            or_dash(reads),
            lag.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = group.members.iter().zip(lags).map(|(member, lag)| row(member, *lag)).collect();
    out.table(&["MEMBER", "PROTOCOL", "EPOCH", "PARTITIONS", "TARGET", "READS", "LAG"], &rows)
}

/// Partitions as `orders:0,1 payments:4`.
fn by_topic(partitions: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (topic, index) in partitions {
        topics.entry(topic).or_default().push(index.to_string());
    }
    let topics: Vec<String> = topics.iter().map(|(topic, indexes)| format!("{topic}:{}", indexes.join(","))).collect();
    or_dash(topics.join(" "))
}

fn lag_of_members(group: &GroupDescription, places: &[Place]) -> Vec<i64> {
    let mut lags = vec![0; group.members.len()];
    for place in places {
        if let (Some(member), Some(lag)) = (place.member, place.lag()) {
            lags[member] += lag;
        }
    }
    lags
}

fn describe_json(name: &str, group: &GroupDescription, places: &[Place]) -> serde_json::Value {
    let member = |member: &GroupMember, lag: i64| {
        let list = |partitions: &[TopicPartition]| partitions.iter().map(|(t, p)| json!([t, p])).collect::<Vec<_>>();
        let mut document = json!({
            "member": member.id,
            "instance": member.instance_id,
            "client": member.client_id,
            "host": member.host,
            "lag": lag,
            "partitions": list(&member.partitions),
        });
        if let Some(progress) = &member.progress {
            document["epoch"] = json!(progress.epoch);
            document["target"] = json!(list(&progress.target));
            document["topics"] = json!(progress.topics);
            document["regex"] = json!(progress.regex);
            document["is_classic"] = json!(progress.is_classic);
        }
        document
    };
    let lags = lag_of_members(group, places);
    let place = |place: &Place| {
        json!({
            "topic": place.topic,
            "partition": place.partition,
            "offset": place.committed.as_ref().map(|committed| committed.offset.0),
            "metadata": place.committed.as_ref().map(|committed| &committed.metadata),
            "log_start_offset": place.range.map(|(start, _)| start),
            "log_end_offset": place.range.map(|(_, end)| end),
            "lag": place.lag(),
            "member": place.member.map(|number| &group.members[number].id),
        })
    };
    json!({
        "group": name,
        "state": group.state,
        "type": if group.epochs.is_some() { "consumer" } else { "classic" },
        "epoch": group.epochs.map(|epochs| epochs.group),
        "assignment_epoch": group.epochs.map(|epochs| epochs.assignment),
        "protocol_type": group.protocol_type,
        "protocol": group.protocol,
        "coordinator": group.coordinator.0,
        "lag": places.iter().filter_map(Place::lag).sum::<i64>(),
        "members": group.members.iter().zip(lags).map(|(m, lag)| member(m, lag)).collect::<Vec<_>>(),
        "partitions": places.iter().map(place).collect::<Vec<_>>(),
    })
}

/// What a reset does to one partition.
struct Move {
    topic: String,
    partition: i32,
    from: Option<i64>,
    to: i64,
}

fn reset(raw: &RawReset) -> anyhow::Result<()> {
    let time = raw.to_datetime.as_deref().map(parse_timestamp).transpose().map_err(UsageError::new)?;
    let asked = raw.topics.iter().map(|text| topic_and_partitions(text)).collect::<Result<Vec<_>, _>>()?;
    let mut client = raw.remote.connect()?;
    let group = client.describe_group(&raw.name)?;
    if !matches!(group.state.as_str(), "Empty" | "Dead") {
        return Err(Failed {
            message: format!(
                "group {} is {}: offsets can be moved only while it has no members",
                raw.name, group.state
            ),
            hint: Some("stop its consumers and wait until they have left or their session time-out is over".into()),
        }
        .into());
    }
    let committed = client.group_offsets(&raw.name)?;
    let keys = match raw.all_topics {
        true => committed.keys().cloned().collect(),
        false => partitions_of(&mut client, asked)?,
    };
    let ranges = ranges(&mut client, &keys)?;
    let mut moves = Vec::new();
    for key in keys {
        let from = committed.get(&key).map(|committed| committed.offset.0);
        let Some((start, end)) = ranges.get(&key).copied() else {
            return Err(Failed { message: format!("there is no {}-{}", key.0, key.1), hint: None }.into());
        };
        let wanted = match (raw.to_offset, raw.shift_by, time) {
            (Some(offset), ..) => offset,
            (_, Some(by), _) => match from {
                Some(from) => from.saturating_add(by),
                None => {
                    let message = format!("nothing is committed for {}-{}: it cannot be shifted", key.0, key.1);
                    return Err(
                        Failed { message, hint: Some("--to-earliest, --to-latest or --to-offset".into()) }.into()
                    );
                }
            },
            (_, _, Some(time)) => {
                let found = at(&mut client, &key.0, &[key.1], time)?;
                // No record is that young: the end.
                found.get(&key.1).copied().filter(|offset| *offset >= 0).unwrap_or(end)
            }
            _ if raw.to_earliest => start,
            _ => end,
        };
        moves.push(Move { topic: key.0, partition: key.1, from, to: wanted.clamp(start, end) });
    }
    if raw.execute && !moves.is_empty() {
        let offsets = moves.iter().map(|m| ((m.topic.clone(), m.partition), Offset(m.to))).collect();
        client.commit_group_offsets(&raw.name, &offsets)?;
    }
    show_moves(raw, &moves)
}

fn show_moves(raw: &RawReset, moves: &[Move]) -> anyhow::Result<()> {
    let mut out = Output::stdout();
    if raw.json {
        let partitions: Vec<_> = moves
            .iter()
            .map(|m| json!({ "topic": m.topic, "partition": m.partition, "from": m.from, "to": m.to }))
            .collect();
        out.json(&json!({ "group": raw.name, "executed": raw.execute, "partitions": partitions }))?;
        return Ok(out.flush()?);
    }
    let rows: Vec<Vec<String>> = moves
        .iter()
        .map(|m| vec![m.topic.clone(), m.partition.to_string(), number(m.from), m.to.to_string()])
        .collect();
    out.table(&["TOPIC", "PARTITION", "OFFSET", "NEW OFFSET"], &rows)?;
    out.flush()?;
    if !raw.execute {
        eprintln!("nothing was changed: --execute does it");
    }
    Ok(())
}

/// A topic and some of its partitions, or none for all: `flights`, `flights:0,2`.
fn topic_and_partitions(text: &str) -> Result<(String, Vec<i32>), UsageError> {
    let Some((topic, partitions)) = text.rsplit_once(':') else { return Ok((text.to_owned(), Vec::new())) };
    let partitions = partitions.split(',').map(|part| part.trim().parse().ok().filter(|index| *index >= 0));
    match partitions.collect::<Option<Vec<i32>>>() {
        Some(partitions) if !topic.is_empty() => Ok((topic.to_owned(), partitions)),
        _ => Err(UsageError::new(format!("--topic {text}: expected TOPIC or TOPIC:N,...")).hint("--topic flights:0,2")),
    }
}

fn partitions_of(client: &mut Client, asked: Vec<(String, Vec<i32>)>) -> Result<BTreeSet<TopicPartition>, ClientError> {
    let mut keys = BTreeSet::new();
    for (topic, mut partitions) in asked {
        let known = client.topic(&topic, false)?;
        if partitions.is_empty() {
            partitions = known.partitions.iter().map(|p| p.index).collect();
        }
        for index in partitions {
            client.leader(&topic, index)?;
            keys.insert((topic.clone(), index));
        }
    }
    Ok(keys)
}

/// Goes on after a failure, so that one group in use does not keep the others.
fn delete(raw: &RawDelete) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let mut out = Output::stdout();
    let mut failures = Vec::new();
    for name in &raw.names {
        match client.delete_group(name) {
            Ok(()) => writeln!(out, "group {name} deleted")?,
            Err(error @ ClientError::Broker { .. }) => failures.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    out.flush()?;
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0).into()),
        count => {
            let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
            let message = format!("{count} groups were not deleted: {}", texts.join("; "));
            Err(Failed { message, hint: Some("`ottla group list` shows the groups".into()) }.into())
        }
    }
}

fn number(value: Option<i64>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_given_with_or_without_partitions() {
        assert_eq!(topic_and_partitions("t").unwrap(), ("t".into(), vec![]));
        assert_eq!(topic_and_partitions("t:0, 2").unwrap(), ("t".into(), vec![0, 2]));
        for wrong in ["t:", "t:x", ":1", "t:-1", "t:1,,2"] {
            assert!(topic_and_partitions(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lag_counts_what_is_kept_and_not_read() {
        let place = |offset: Option<i64>, range| Place {
            topic: "t".into(),
            partition: 0,
            committed: offset.map(|offset| GroupOffset {
                offset: Offset(offset),
                leader_epoch: crate::model::id::LeaderEpoch::NONE,
                metadata: String::new(),
            }),
            range,
            member: None,
        };
        assert_eq!(place(Some(3), Some((0, 10))).lag(), Some(7));
        // The log begins behind what was committed, or ends before it.
        assert_eq!(place(Some(3), Some((8, 10))).lag(), Some(2));
        assert_eq!(place(Some(12), Some((0, 10))).lag(), Some(0));
        assert_eq!(place(None, Some((0, 10))).lag(), None);
        assert_eq!(place(Some(3), None).lag(), None);
    }
}
