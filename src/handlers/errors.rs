//! The one table from what went wrong to Kafka's codes.

use crate::coordinator::group::GroupError;
use crate::coordinator::transaction::TransactionError;
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
        ProducerError::NotTransactional { .. } => ErrorCode::InvalidTxnState,
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
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

/// A request about a group that fails.
pub fn of_group(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        GroupError::UnreleasedInstanceId => ErrorCode::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        GroupError::InvalidRegularExpression => ErrorCode::InvalidRegularExpression,
        GroupError::UnsupportedVersion => ErrorCode::UnsupportedVersion,
        // As Kafka, when the offsets topic refuses a record for its size.
        GroupError::TooLarge => ErrorCode::UnknownServerError,
    }
}

/// Why the record of a group was not written.
pub fn to_group(error: ErrorCode) -> GroupError {
    match error {
        ErrorCode::NotCoordinator => GroupError::NotCoordinator,
        ErrorCode::UnknownServerError => GroupError::TooLarge,
        _ => GroupError::CoordinatorNotAvailable,
    }
}

/// A request of a transactional producer that fails. Clients that do not know that they can be fenced
/// (`is_fenced_told`) are told the older code.
pub fn of_transaction(error: TransactionError, is_fenced_told: bool) -> ErrorCode {
    match error {
        TransactionError::InvalidRequest => ErrorCode::InvalidRequest,
        TransactionError::InvalidTransactionTimeout => ErrorCode::InvalidTransactionTimeout,
        TransactionError::ConcurrentTransactions => ErrorCode::ConcurrentTransactions,
        TransactionError::InvalidProducerIdMapping => ErrorCode::InvalidProducerIdMapping,
        TransactionError::ProducerFenced if is_fenced_told => ErrorCode::ProducerFenced,
        TransactionError::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        TransactionError::InvalidTxnState => ErrorCode::InvalidTxnState,
        TransactionError::TransactionAbortable => ErrorCode::TransactionAbortable,
        TransactionError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        TransactionError::NotCoordinator => ErrorCode::NotCoordinator,
        // As Kafka, when the transactions' topic refuses a record for its size.
        TransactionError::TooLarge => ErrorCode::UnknownServerError,
        TransactionError::NoProducerId => ErrorCode::CoordinatorNotAvailable,
    }
}

/// Why the record of a transactional id was not written.
pub fn to_transaction(error: ErrorCode) -> TransactionError {
    match error {
        ErrorCode::NotCoordinator => TransactionError::NotCoordinator,
        ErrorCode::UnknownServerError => TransactionError::TooLarge,
        _ => TransactionError::CoordinatorNotAvailable,
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
