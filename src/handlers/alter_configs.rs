//! AlterConfigs and IncrementalAlterConfigs: settings of topics and groups, changed while they are in use.
//!
//! Both become the same [`ConfigChange`], which the controller judges; the answer comes when the change is durable and
//! every shard acts on it ([`Broker::reconfigure`]). What is wrong with a request in itself is told here, in Kafka's
//! order and words, and keeps nobody else's resource from being changed.
//!
//! A broker's own configs are those of its start: its shards share them, and what cannot take effect is refused rather
//! than accepted and ignored.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    alter_configs_response, incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::bus::Pending;
use super::call::Call;
use super::describe_configs::{BROKER, GROUP, TOPIC};
use super::topics::code_of;
use crate::controller::configs::{ConfigChange, ConfigOp, ConfigResource};
use crate::controller::controller::{ControllerError, Event, TopicResults};
use crate::io::Io;
use crate::model::configs::broker;
use crate::protocol::ApiKey;
use crate::protocol::error::ErrorCode;

/// Kafka's numbers of what is to be done with a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Why a resource is refused, in a code and in words.
type Refusal = (ErrorCode, String);

/// A resource of a request and what is known of its answer.
#[derive(Debug)]
pub(super) struct Answer {
    resource_type: i8,
    name: StrBytes,
    result: Judged,
}

#[derive(Debug)]
enum Judged {
    /// By the controller, whose results come in the order of these.
    Later,
    Now(Result<(), Refusal>),
}

/// A resource as it was asked for.
struct Asked {
    resource_type: i8,
    name: StrBytes,
    entries: Vec<Entry>,
}

struct Entry {
    name: StrBytes,
    op: i8,
    value: Option<StrBytes>,
}

impl<I: Io> Broker<I> {
    /// AlterConfigs: the resources have these settings and no others.
    pub(super) fn alter_configs(&mut self, call: Call, request: AlterConfigsRequest) {
        let asked = request.resources.into_iter().map(|resource| Asked {
            resource_type: resource.resource_type,
            name: resource.resource_name,
            entries: resource
                .configs
                .into_iter()
                .map(|config| Entry { name: config.name, op: SET, value: config.value })
                .collect(),
        });
        self.alter(call, asked.collect(), request.validate_only);
    }

    /// IncrementalAlterConfigs: the named settings of the resources are changed.
    pub(super) fn incremental_alter_configs(&mut self, call: Call, request: IncrementalAlterConfigsRequest) {
        let asked = request.resources.into_iter().map(|resource| Asked {
            resource_type: resource.resource_type,
            name: resource.resource_name,
            entries: resource
                .configs
                .into_iter()
                .map(|config| Entry { name: config.name, op: config.config_operation, value: config.value })
                .collect(),
        });
        self.alter(call, asked.collect(), request.validate_only);
    }

    fn alter(&mut self, call: Call, asked: Vec<Asked>, validate_only: bool) {
        let mut counts: BTreeMap<(i8, StrBytes), usize> = BTreeMap::new();
        for resource in &asked {
            *counts.entry((resource.resource_type, resource.name.clone())).or_default() += 1;
        }
        let mut resources = Vec::new();
        let mut answers = Vec::with_capacity(asked.len());
        for resource in asked {
            let (resource_type, name) = (resource.resource_type, resource.name.clone());
            let is_repeated = counts[&(resource_type, name.clone())] > 1;
            let result = match is_repeated {
                true => Judged::Now(Err(invalid("Each resource must appear at most once."))),
                false => self.judge(call.api, resource, &mut resources),
            };
            answers.push(Answer { resource_type, name, result });
        }
        if resources.is_empty() {
            return self.answer_altered(call, answers);
        }
        let event = |ticket| Event::AlterConfigs { ticket, resources, validate_only };
        self.ask_controller(event, Pending::AlterConfigs(call, answers));
    }

    /// Judges what can be judged here; what the controller is to judge goes to `later`.
    fn judge(&self, api: ApiKey, asked: Asked, later: &mut Vec<(ConfigResource, ConfigChange)>) -> Judged {
        if let Err(refusal) = check_entries(&asked.entries) {
            return Judged::Now(Err(refusal));
        }
        match asked.resource_type {
            TOPIC | GROUP => match change_of(api, &asked.entries) {
                Ok(change) => {
                    let name = asked.name.to_string();
                    let is_topic = asked.resource_type == TOPIC;
                    let resource = if is_topic { ConfigResource::Topic(name) } else { ConfigResource::Group(name) };
                    later.push((resource, change));
                    Judged::Later
                }
                Err(refusal) => Judged::Now(Err(refusal)),
            },
            BROKER => Judged::Now(self.judge_broker(&asked)),
            other => Judged::Now(Err(invalid(format!("Unknown resource type {other}")))),
        }
    }

    fn judge_broker(&self, asked: &Asked) -> Result<(), Refusal> {
        let own = self.broker_id();
        if !asked.name.is_empty() {
            let id: i32 = asked
                .name
                .parse()
                .map_err(|_| invalid(format!("Node id must be an integer, but it is: {}", &*asked.name)))?;
            if id != own.0 {
                return Err(invalid(format!("Unexpected broker id, expected {own}, but received {id}")));
            }
        }
        for entry in &asked.entries {
            let name = &*entry.name;
            match entry.op {
                // Nothing is set while running, so there is nothing to take back.
                DELETE => {}
                SET | APPEND | SUBTRACT => {
                    let key = broker::find(name).map_err(|error| invalid(error.to_string()))?;
                    return Err(invalid(match key.is_read_only() {
                        true => format!("Cannot update these configs dynamically: {name}"),
                        false => format!(
                            "Cannot update these configs dynamically: {name}. ottla's broker configs are those of its \
                             start (--set {name}=VALUE); a topic's own configs can be changed at any time."
                        ),
                    }));
                }
                other => return Err(invalid(format!("Unknown operations type {other}"))),
            }
        }
        Ok(())
    }

    /// The controller has judged.
    pub(super) fn configs_altered(
        &mut self,
        call: Call,
        answers: Vec<Answer>,
        results: TopicResults<ConfigResource, ()>,
    ) {
        let mut results = results.into_iter();
        let answers = answers.into_iter().map(|answer| match answer.result {
            Judged::Now(_) => answer,
            Judged::Later => {
                let (_, result) = results.next().expect("a result for each resource");
                let result = result.map_err(|error| (code_of(&error), error.to_string()));
                Answer { result: Judged::Now(result), ..answer }
            }
        });
        let answers = answers.collect();
        self.answer_altered(call, answers);
    }

    /// The controller could not judge.
    pub(super) fn configs_not_altered(
        &mut self,
        call: Call,
        answers: Vec<Answer>,
        error: ErrorCode,
        cause: &ControllerError,
    ) {
        tracing::error!(%cause, code = error.name(), "the configs were not changed");
        let answers = answers.into_iter().map(|answer| match answer.result {
            Judged::Now(_) => answer,
            Judged::Later => Answer { result: Judged::Now(Err((error, cause.to_string()))), ..answer },
        });
        let answers = answers.collect();
        self.answer_altered(call, answers);
    }

    fn answer_altered(&mut self, call: Call, answers: Vec<Answer>) {
        let told = answers.into_iter().map(|Answer { resource_type, name, result }| {
            let (code, message) = match result {
                Judged::Now(Ok(())) => (ErrorCode::None, None),
                Judged::Now(Err((code, message))) => (code, Some(StrBytes::from_string(message))),
                Judged::Later => unreachable!("the controller has judged"),
            };
            (resource_type, name, code.code(), message)
        });
        if call.api == ApiKey::AlterConfigs {
            let responses = told.map(|(resource_type, name, code, message)| {
                alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_resource_type(resource_type)
                    .with_resource_name(name)
                    .with_error_code(code)
                    .with_error_message(message)
            });
            let response = AlterConfigsResponse::default().with_responses(responses.collect());
            return self.reply(call, &response);
        }
        let responses = told.map(|(resource_type, name, code, message)| {
            incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_resource_type(resource_type)
                .with_resource_name(name)
                .with_error_code(code)
                .with_error_message(message)
        });
        let response = IncrementalAlterConfigsResponse::default().with_responses(responses.collect());
        self.reply(call, &response);
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    (ErrorCode::InvalidRequest, message.into())
}

/// Each setting once, and with a value unless it is taken back.
fn check_entries(entries: &[Entry]) -> Result<(), Refusal> {
    let mut names: Vec<&str> = entries.iter().map(|entry| &*entry.name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(invalid("Error due to duplicate config keys"));
    }
    let nulls = entries.iter().filter(|entry| entry.op != DELETE && entry.value.is_none());
    let nulls: Vec<&str> = nulls.map(|entry| &*entry.name).collect();
    match nulls.is_empty() {
        true => Ok(()),
        false => Err(invalid(format!("Null value not supported for : {}", nulls.join(", ")))),
    }
}

fn change_of(api: ApiKey, entries: &[Entry]) -> Result<ConfigChange, Refusal> {
    let value = |entry: &Entry| entry.value.as_deref().unwrap_or_default().to_owned();
    if api == ApiKey::AlterConfigs {
        let settings = entries.iter().map(|entry| (entry.name.to_string(), value(entry)));
        return Ok(ConfigChange::Replace(settings.collect()));
    }
    let ops = entries.iter().map(|entry| {
        let op = match entry.op {
            SET => ConfigOp::Set(value(entry)),
            DELETE => ConfigOp::Delete,
            APPEND => ConfigOp::Append(value(entry)),
            SUBTRACT => ConfigOp::Subtract(value(entry)),
            other => return Err(invalid(format!("Unknown operations type {other}"))),
        };
        Ok((entry.name.to_string(), op))
    });
    Ok(ConfigChange::Edit(ops.collect::<Result<_, _>>()?))
}
