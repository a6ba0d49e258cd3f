//! InitProducerId with a transactional id: the beginning of a transactional producer, which fences the one before it.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::transactions::{NeedsProducerId, TransactionTicket};
use crate::controller::controller::Event;
use crate::coordinator::transaction::TransactionError;
use crate::coordinator::transaction::event::Producer;
use crate::handlers::broker::Broker;
use crate::handlers::bus::Pending;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::id::{ProducerEpoch, ProducerId};
use crate::protocol::error::ErrorCode;

/// From this version on a fenced producer is told so, and may name its id and epoch.
const FENCED_FROM: i16 = 4;

impl<I: Io> Broker<I> {
    /// Takes an InitProducerId with a transactional id in.
    pub(in crate::handlers) fn init_transaction(&mut self, call: Call, request: &InitProducerIdRequest) {
        let id = request.transactional_id.as_deref().map_or("", |id| id);
        let expected = match (request.producer_id.0, request.producer_epoch) {
            (-1, -1) => None,
            (producer_id, epoch) if producer_id >= 0 && epoch >= 0 => {
                Some((ProducerId(producer_id), ProducerEpoch(epoch)))
            }
            _ => return self.refuse_init(call, ErrorCode::InvalidRequest),
        };
        if id.is_empty() {
            return self.refuse_init(call, ErrorCode::InvalidRequest);
        }
        let index = match self.coordinator_of_transaction(id) {
            Ok(index) => index,
            Err(error) => return self.refuse_init(call, error),
        };
        let timeout_ms = request.transaction_timeout_ms;
        let ticket = TransactionTicket::Call(call);
        let outcome = self.with_transactions(index, |transactions, context| {
            transactions.init(ticket, id, timeout_ms, expected, context)
        });
        if let Some(Err(_)) = outcome {
            let waits = NeedsProducerId::Init(call, Box::new(request.clone()));
            self.get_producer_ids(waits);
        }
    }

    /// Gets a block of producer ids for a request, which is then taken in again.
    pub(super) fn get_producer_ids(&mut self, waits: NeedsProducerId) {
        self.ask_controller(|ticket| Event::AllocateProducerIds { ticket }, Pending::TransactionalProducer(waits));
    }

    /// The controller has answered: there are producer ids, or none.
    pub(in crate::handlers) fn transactional_ids_came(
        &mut self,
        waits: NeedsProducerId,
        result: Result<(), ErrorCode>,
    ) {
        match (waits, result) {
            (NeedsProducerId::Init(call, request), Ok(())) => self.init_transaction(call, &request),
            (NeedsProducerId::Init(call, _), Err(error)) => self.refuse_init(call, error),
            (NeedsProducerId::End(call, request), Ok(())) => self.end_txn(call, &request),
            (NeedsProducerId::End(call, _), Err(error)) => self.refuse_end(call, error),
        }
    }

    /// Answers an InitProducerId.
    pub(super) fn answer_init_transaction(
        &mut self,
        ticket: TransactionTicket,
        answer: Result<Producer, TransactionError>,
    ) {
        let TransactionTicket::Call(call) = ticket else { unreachable!("an init is a request") };
        match answer {
            Ok((producer_id, epoch)) => {
                let response = InitProducerIdResponse::default()
                    .with_producer_id(producer_id.0.into())
                    .with_producer_epoch(epoch.0);
                self.reply(call, &response);
            }
            Err(error) => self.refuse_init(call, errors::of_transaction(error, call.version >= FENCED_FROM)),
        }
    }

    fn refuse_init(&mut self, call: Call, error: ErrorCode) {
        let response = InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        self.reply(call, &response);
    }
}
