//! Whether a partition is in a transaction: asked of the transaction's coordinator before the first batch of the
//! transaction is taken (KIP-890), so that nothing late opens a transaction that nobody ends.
//!
//! 1. A Produce with such a batch is held, and the coordinator's shard is asked by a message. From Produce 12 on the
//!    question also brings the partition into the transaction, which is answered when that is durable.
//! 2. The answer is kept in the partition until the batch comes again. A marker of the producer drops it: what was true
//!    before the end of the transaction is not any more; and an answer to a question that was dropped is not looked at.
//! 3. A TxnOffsetCommit waits in the same way.

use super::broker::Broker;
use super::bus::Message;
use super::coordinator::transactions::TransactionTicket;
use super::coordinator::txn_offsets::WaitingCommit;
use super::deadlines::Deadline;
use crate::coordinator::transaction::event::Producer;
use crate::coordinator::transaction::metadata::Partitions;
use crate::io::Io;
use crate::model::id::{PartitionIndex, ProducerEpoch, ShardId, TopicIdPartition};
use crate::model::limits::OPEN_TRANSACTION_COUNT_MAX;
use crate::protocol::error::ErrorCode;

/// From this version on a Produce brings its partitions into the transaction.
const ADDS_FROM: i16 = 12;
/// From this version on clients know that a transaction can only be aborted.
const ABORTABLE_FROM: i16 = 11;

/// A question to a transaction's coordinator.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose transaction.
    pub transactional_id: Box<str>,
    /// Its producer, as the client says.
    pub producer: Producer,
    /// The topic.
    pub topic: Box<str>,
    /// The partition.
    pub partition: PartitionIndex,
    /// The partition comes into the transaction.
    pub adds: bool,
    /// The shard that asks.
    pub asker: ShardId,
    /// Its number for the question.
    pub number: u64,
}

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Asked {
    /// A batch for this partition.
    Produce(TopicIdPartition, Producer),
    /// Offsets.
    Commit(Box<WaitingCommit>),
}

/// What is known of a producer's transaction in a partition.
#[derive(Clone, Copy, Debug)]
pub struct Verification {
    epoch: ProducerEpoch,
    number: u64,
    result: Option<Result<(), ErrorCode>>,
}

impl<I: Io> Broker<I> {
    /// Whether a batch may begin its producer's transaction in the partition; `None`: it is being asked, and whoever
    /// waits for the partition is looked at again.
    pub(super) fn verified(
        &mut self,
        slot: u32,
        transactional_id: &str,
        producer: Producer,
        version: i16,
    ) -> Option<Result<(), ErrorCode>> {
        let adds = version >= ADDS_FROM;
        if !adds && !self.options.config.transaction_partition_verification_enable {
            return Some(Ok(()));
        }
        if self.partitions.get_mut(slot).verifications.get(&producer.0).is_none_or(|known| known.epoch != producer.1) {
            self.ask_for(slot, transactional_id, producer, adds);
        }
        let partition = self.partitions.get_mut(slot);
        let result = partition.verifications.get(&producer.0)?.result?;
        if result.is_err() {
            // The next attempt asks again.
            partition.verifications.remove(&producer.0);
        }
        Some(result.map_err(|error| match error {
            ErrorCode::TransactionAbortable if version < ABORTABLE_FROM => ErrorCode::InvalidTxnState,
            ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
            // Errors of a coordinator that clients do not expect of a partition: this one makes them try again.
            ErrorCode::ConcurrentTransactions if adds => ErrorCode::ConcurrentTransactions,
            ErrorCode::ConcurrentTransactions
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
            other => other,
        }))
    }

    fn ask_for(&mut self, slot: u32, transactional_id: &str, producer: Producer, adds: bool) {
        let number = self.questions.asked + 1;
        let partition = self.partitions.get_mut(slot);
        if partition.verifications.len() >= OPEN_TRANSACTION_COUNT_MAX {
            // Left by clients that have gone.
            partition.verifications.clear();
        }
        partition.verifications.insert(producer.0, Verification { epoch: producer.1, number, result: None });
        let question = Question {
            transactional_id: transactional_id.into(),
            producer,
            topic: (&*partition.topic).into(),
            partition: partition.id.partition,
            adds,
            asker: self.shard,
            number: 0,
        };
        let id = partition.id;
        self.ask_transaction(question, Asked::Produce(id, producer));
    }

    /// Asks a transaction's coordinator; the answer may come at once.
    pub(super) fn ask_transaction(&mut self, mut question: Question, asked: Asked) {
        self.questions.asked += 1;
        question.number = self.questions.asked;
        self.questions.open.insert(question.number, asked);
        match self.shard_of_transaction(&question.transactional_id) {
            None => self.question_answered(question.number, Err(ErrorCode::CoordinatorNotAvailable)),
            Some((shard, _)) if shard == self.shard => self.take_question(question),
            Some((shard, _)) => self.outbox.push((shard, Message::AskTransaction(Box::new(question)))),
        }
    }

    /// A question to a coordinator of this shard.
    pub fn take_question(&mut self, question: Question) {
        let Question { transactional_id, producer, topic, partition, adds, .. } = &question;
        if !adds {
            let result = self.verify_transaction(transactional_id, *producer, topic, *partition);
            return self.answer_question(question, result);
        }
        let mut partitions = Partitions::new();
        partitions.entry(topic.clone()).or_default().insert(*partition);
        let (id, producer) = (transactional_id.clone(), *producer);
        self.add_to_transaction(TransactionTicket::Question(question), &id, producer, &partitions, 2);
    }

    /// Answers the shard that asked.
    pub(super) fn answer_question(&mut self, question: Question, result: Result<(), ErrorCode>) {
        match question.asker == self.shard {
            true => self.question_answered(question.number, result),
            false => self.outbox.push((question.asker, Message::TransactionAnswer { number: question.number, result })),
        }
    }

    /// The coordinator has answered.
    pub fn question_answered(&mut self, number: u64, result: Result<(), ErrorCode>) {
        match self.questions.open.remove(&number) {
            None => {}
            Some(Asked::Commit(waiting)) => self.commit_verified(*waiting, result),
            Some(Asked::Produce(id, producer)) => {
                let Some(slot) = self.partitions.find(id) else { return };
                let partition = self.partitions.get_mut(slot);
                if let Some(known) = partition.verifications.get_mut(&producer.0)
                    && known.number == number
                {
                    known.result = Some(result);
                }
                // It may have come within the request that asks, or at the end of a turn.
                self.answered_slots.push(slot);
                self.deadlines.push(self.now.monotonic, Deadline::Coordinator);
            }
        }
    }

    /// Looks at the requests that wait for an answer which has come. Each turn; there is usually nothing to do.
    pub(super) fn serve_answered(&mut self) {
        for slot in std::mem::take(&mut self.answered_slots) {
            if self.partitions.is_used(slot) {
                self.serve_held(slot);
            }
        }
    }
}

/// Questions of this shard that are not answered yet.
#[derive(Debug, Default)]
pub struct Questions {
    open: std::collections::BTreeMap<u64, Asked>,
    asked: u64,
}
