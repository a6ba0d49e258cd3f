//! Whether a partition is in a transaction: asked of the transaction's coordinator before the first batch of the
//! transaction is taken (KIP-890), so that nothing late opens a transaction that nobody ends.
//!
//! 1. A Produce with such a batch is held, and the coordinator's shard is asked by a message. From Produce 12 on the
//!    question also brings the partition into the transaction, which is answered when that is durable. Where another
//!    change of the transaction is under way, another partition that comes in or the end of the one before, the question
//!    waits at the coordinator: its client would have to, and longer.
//! 2. The answer is kept in the partition until the batch comes again. A marker of the producer drops it: what was true
//!    before the end of the transaction is not any more; and an answer to a question that was dropped is not looked at.
//! 3. What is known is known of a producer in one epoch: one that was fenced and its successor may ask at the same time.
//! 4. Of a producer that the partition does not know the first batch may have any sequence. So where one was refused
//!    none that follows it is taken before it: clients send several at a time.
//! 5. A TxnOffsetCommit waits in the same way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::broker::Broker;
use super::bus::Message;
use super::coordinator::transactions::TransactionTicket;
use super::coordinator::txn_offsets::WaitingCommit;
use super::deadlines::Deadline;
use crate::base::time::Monotonic;
use crate::coordinator::transaction::event::Producer;
use crate::coordinator::transaction::metadata::Partitions;
use crate::io::Io;
use crate::model::id::{PartitionIndex, Sequence, ShardId, TopicIdPartition};
use crate::model::limits::OPEN_TRANSACTION_COUNT_MAX;
use crate::protocol::error::ErrorCode;

/// From this version on a Produce brings its partitions into the transaction.
const ADDS_FROM: i16 = 12;
/// From this version on clients know that a transaction can only be aborted.
const ABORTABLE_FROM: i16 = 11;

/// When a question is asked again that has met another change of its transaction: about as long as one takes.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(2);
/// How often; after these two seconds its client is told to try again.
const ASKED_COUNT_MAX: u16 = 1000;

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
    /// How often it has met another change.
    pub met_count: u16,
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
    /// The question's number; `None`: nothing was asked since the last one was answered with an error.
    number: Option<u64>,
    result: Option<Result<(), ErrorCode>>,
    /// The least sequence that was refused.
    refused: Option<Sequence>,
}

impl<I: Io> Broker<I> {
    /// Whether a batch with this sequence may begin its producer's transaction in the partition; `None`: it is being
    /// asked, and whoever waits for the partition is looked at again.
    pub(super) fn verified(
        &mut self,
        slot: u32,
        transactional_id: &str,
        producer: Producer,
        sequence: Sequence,
        version: i16,
    ) -> Option<Result<(), ErrorCode>> {
        let adds = version >= ADDS_FROM;
        if !adds && !self.options.config.transaction_partition_verification_enable {
            return Some(Ok(()));
        }
        let partition = self.partitions.get_mut(slot);
        let known = partition.verifications.get(&producer);
        let (number, refused) = known.map_or((None, None), |known| (known.number, known.refused));
        if refused.is_some_and(|refused| sequence > refused) && partition.log.producers().get(producer.0).is_none() {
            return Some(Err(ErrorCode::OutOfOrderSequenceNumber));
        }
        if number.is_none() && !self.ask_for(slot, transactional_id, producer, refused, adds) {
            return Some(Err(ErrorCode::NotEnoughReplicas));
        }
        let partition = self.partitions.get_mut(slot);
        let known = partition.verifications.get_mut(&producer)?;
        let result = known.result?;
        if result.is_err() {
            // The next attempt asks again.
            (known.number, known.result) = (None, None);
            known.refused = Some(known.refused.map_or(sequence, |refused| refused.min(sequence)));
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

    /// False: as many as may be are being asked for the partition.
    fn ask_for(
        &mut self,
        slot: u32,
        transactional_id: &str,
        producer: Producer,
        refused: Option<Sequence>,
        adds: bool,
    ) -> bool {
        let number = self.questions.asked + 1;
        let partition = self.partitions.get_mut(slot);
        if partition.verifications.len() >= OPEN_TRANSACTION_COUNT_MAX {
            // Left by clients that have gone, unless an answer is on its way.
            partition.verifications.retain(|_, known| known.number.is_some() && known.result.is_none());
            if partition.verifications.len() >= OPEN_TRANSACTION_COUNT_MAX {
                return false;
            }
        }
        let verification = Verification { number: Some(number), result: None, refused };
        partition.verifications.insert(producer, verification);
        let question = Question {
            transactional_id: transactional_id.into(),
            producer,
            topic: (&*partition.topic).into(),
            partition: partition.id.partition,
            adds,
            asker: self.shard,
            number: 0,
            met_count: 0,
        };
        let id = partition.id;
        self.ask_transaction(question, Asked::Produce(id, producer));
        true
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

    /// Another change of the transaction is under way.
    pub(super) fn ask_again(&mut self, mut question: Question) {
        if question.met_count >= ASKED_COUNT_MAX {
            return self.answer_question(question, Err(ErrorCode::ConcurrentTransactions));
        }
        question.met_count += 1;
        let due = self.now.monotonic + ASK_AGAIN_AFTER;
        self.questions.late.push_back((due, question));
        self.deadlines.push(due, Deadline::Coordinator);
    }

    /// Asks again what is due. Each turn; there is usually nothing to do.
    pub(super) fn retry_questions(&mut self) {
        let now = self.now.monotonic;
        while let Some((_, question)) = self.questions.late.pop_front_if(|(due, _)| *due <= now) {
            self.take_question(question);
        }
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
                if let Some(known) = partition.verifications.get_mut(&producer)
                    && known.number == Some(number)
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

/// Questions of this shard that are not answered yet, and those to its coordinators that are asked again.
#[derive(Debug, Default)]
pub struct Questions {
    open: BTreeMap<u64, Asked>,
    asked: u64,
    /// By the time when they are due.
    late: VecDeque<(Monotonic, Question)>,
}

impl Questions {
    /// Questions that are not answered yet.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }
}
