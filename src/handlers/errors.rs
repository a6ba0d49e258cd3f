//! The one table from what went wrong to Kafka's codes.

use crate::model::batch::BatchError;
use crate::protocol::error::ErrorCode;
use crate::storage::producer_state::ProducerError;
use crate::storage::{AppendError, ReadError};

/// A batch that is no batch.
pub fn of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Truncated | BatchError::Crc => ErrorCode::CorruptMessage,
        // An old format as well: since Produce 3 a request that carries one is wrong in itself.
        BatchError::Trailing | BatchError::Magic(_) | BatchError::Invalid(_) => ErrorCode::InvalidRecord,
    }
}

/// A batch that its producer may not write.
pub fn of_producer(error: &ProducerError) -> ErrorCode {
    match error {
        ProducerError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        ProducerError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
    }
}

/// A batch that the log does not take.
pub fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotReady | AppendError::NoMemory => ErrorCode::RequestTimedOut,
        AppendError::DiskFull | AppendError::Offline(_) => ErrorCode::KafkaStorageError,
        AppendError::TooLarge => ErrorCode::RecordListTooLarge,
        AppendError::Closed => ErrorCode::NotLeaderOrFollower,
    }
}

/// A read that gave nothing.
pub fn of_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        // The client asks again, as it does after any storage error; without memory that is the right thing too.
        ReadError::Offline(_) | ReadError::Corrupt { .. } | ReadError::Failed(_) | ReadError::NoMemory => {
            ErrorCode::KafkaStorageError
        }
    }
}
