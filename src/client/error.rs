//! What can go wrong between us and a broker, and what to try next.

use std::io;

use crate::protocol::ErrorCode;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The bootstrap address is not one.
    #[error("`{0}` is not HOST:PORT")]
    Address(String),
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// An established connection failed or stayed silent too long.
    #[error("the connection to {address} failed while {doing}: {}", io_text(source))]
    Connection {
        /// The broker.
        address: String,
        /// `sending` or `waiting for an answer to Metadata`.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The broker's bytes make no sense.
    #[error("{address} does not speak the Kafka protocol as expected: {why}")]
    Protocol {
        /// The broker.
        address: String,
        /// What is wrong with them.
        why: String,
    },
    /// A request that cannot be encoded.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// The broker has no version of an API that we have too.
    #[error("{address} does not support {api} in any version that ottla knows")]
    Unsupported {
        /// The broker.
        address: String,
        /// The API.
        api: &'static str,
    },
    /// The broker refused.
    #[error("{what}: {}{}", code_name(*code), message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Broker {
        /// What was asked, about which topic or partition.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's own words.
        message: Option<String>,
    },
    /// No broker leads the partition now.
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition}; it has {count}")]
    NoPartition {
        /// Topic.
        topic: String,
        /// Partition asked for.
        partition: i32,
        /// Partitions that it has.
        count: usize,
    },
    /// Records that cannot be read.
    #[error("partition {partition}, offset {offset}: {why}")]
    Records {
        /// Partition.
        partition: i32,
        /// Base offset of the batch.
        offset: i64,
        /// What is wrong.
        why: String,
    },
}

impl ClientError {
    /// A refusal with `code`, or `Ok` for 0.
    pub fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<(), ClientError> {
        if code == ErrorCode::None.code() {
            return Ok(());
        }
        let message = message.filter(|text| !text.is_empty()).map(str::to_string);
        Err(ClientError::Broker { what: what(), code, message })
    }

    /// True if the same request may succeed after metadata were asked for again.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Broker { code, .. } => is_retriable(*code),
            ClientError::NoLeader { .. } | ClientError::Connection { .. } => true,
            // A listed broker that cannot be reached may have moved; the bootstrap address is not retried.
            ClientError::Connect { .. } => true,
            _ => false,
        }
    }

    /// True for a refusal with `code`.
    pub fn is_code(&self, code: ErrorCode) -> bool {
        matches!(self, ClientError::Broker { code: found, .. } if *found == code.code())
    }

    /// What the user could do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::Address(_) => Some("--bootstrap 127.0.0.1:9092".into()),
            ClientError::Connect { .. } => {
                Some("start a broker with `ottla serve`, or give its address with --bootstrap HOST:PORT".into())
            }
            ClientError::Protocol { .. } => Some("check that --bootstrap is a broker's plain-text Kafka port".into()),
            ClientError::NoPartition { topic, .. } => Some(format!("ottla topic describe {topic}")),
            ClientError::Broker { code, .. } => match ErrorCode::from_code(*code)? {
                ErrorCode::UnknownTopicOrPartition => {
                    Some("`ottla topic list` shows the topics; `ottla topic create NAME` makes one".into())
                }
                ErrorCode::TopicAlreadyExists => Some("--if-not-exists, or another name".into()),
                ErrorCode::MessageTooLarge => {
                    Some("a smaller --batch-bytes, or a larger max.message.bytes on the topic".into())
                }
                ErrorCode::KafkaStorageError => Some("look at the broker's log: a disk failed or is full".into()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// True if a client may send the request again.
pub fn is_retriable(code: i16) -> bool {
    ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable)
}

/// Kafka's name of a code.
pub fn code_name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |known| known.name().to_string())
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".into(),
        io::ErrorKind::UnexpectedEof => "the broker closed it".into(),
        _ => error.to_string(),
    }
}
