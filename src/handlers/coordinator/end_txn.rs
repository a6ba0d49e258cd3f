//! EndTxn: commit or abort, answered when the decision is durable.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::transactions::{NeedsProducerId, TransactionTicket};
use crate::coordinator::transaction::TransactionError;
use crate::coordinator::transaction::event::Producer;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::id::{ProducerEpoch, ProducerId};
use crate::protocol::error::ErrorCode;

/// From this version on a fenced producer is told so.
const FENCED_FROM: i16 = 2;
/// From this version on the epoch rises with each transaction, and the answer tells the next one (KIP-890).
const EPOCH_FROM: i16 = 5;

impl<I: Io> Broker<I> {
    /// Takes an EndTxn in.
    pub(in crate::handlers) fn end_txn(&mut self, call: Call, request: &EndTxnRequest) {
        let id = &**request.transactional_id;
        if id.is_empty() {
            return self.refuse_end(call, ErrorCode::InvalidRequest);
        }
        let index = match self.coordinator_of_transaction(id) {
            Ok(index) => index,
            Err(error) => return self.refuse_end(call, error),
        };
        let producer = (ProducerId(request.producer_id.0), ProducerEpoch(request.producer_epoch));
        let client_version = if call.version >= EPOCH_FROM { 2 } else { 0 };
        let ticket = TransactionTicket::Call(call);
        let outcome = self.with_transactions(index, |transactions, context| {
            transactions.end(ticket, id, producer, request.committed, client_version, context)
        });
        if let Some(Err(_)) = outcome {
            self.get_producer_ids(NeedsProducerId::End(call, Box::new(request.clone())));
        }
    }

    /// Answers an EndTxn.
    pub(super) fn answer_end(&mut self, ticket: TransactionTicket, answer: Result<Producer, TransactionError>) {
        let TransactionTicket::Call(call) = ticket else { unreachable!("an end is a request") };
        match answer {
            Ok((producer_id, epoch)) => {
                let mut response = EndTxnResponse::default();
                if call.version >= EPOCH_FROM {
                    response = response.with_producer_id(producer_id.0.into()).with_producer_epoch(epoch.0);
                }
                self.reply(call, &response);
            }
            Err(error) => self.refuse_end(call, errors::of_transaction(error, call.version >= FENCED_FROM)),
        }
    }

    pub(super) fn refuse_end(&mut self, call: Call, error: ErrorCode) {
        self.reply(call, &EndTxnResponse::default().with_error_code(error.code()));
    }
}
