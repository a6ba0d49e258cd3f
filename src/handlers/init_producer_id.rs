//! InitProducerId: an identity for an idempotent producer.
//!
//! Ids come from blocks that the controller has made durable, so that no id is given twice, whatever happens; a shard
//! asks for its next block when its own is used up.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::broker::Broker;
use super::bus::Pending;
use super::call::Call;
use crate::controller::controller::Event;
use crate::io::Io;
use crate::model::id::ProducerId;
use crate::protocol::error::ErrorCode;

/// The ids that a shard may give away.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerIdBlock {
    next: i64,
    end: i64,
}

impl ProducerIdBlock {
    /// `count` ids from `first` on.
    pub fn new(first: ProducerId, count: i64) -> ProducerIdBlock {
        ProducerIdBlock { next: first.0, end: first.0 + count }
    }

    /// The next id.
    pub(super) fn take(&mut self) -> Option<ProducerId> {
        (self.next < self.end).then(|| {
            self.next += 1;
            ProducerId(self.next - 1)
        })
    }
}

impl<I: Io> Broker<I> {
    /// Answers with a new id and epoch 0, as Kafka does for every producer without a transactional id.
    pub(super) fn init_producer_id(&mut self, call: Call, request: &InitProducerIdRequest) {
        if request.transactional_id.is_some() {
            return self.init_transaction(call, request);
        }
        match self.producer_ids.take() {
            Some(id) => self.reply(call, &given(id)),
            None => self.ask_controller(|ticket| Event::AllocateProducerIds { ticket }, Pending::ProducerId(call)),
        }
    }

    /// The controller has answered: a new block, or none.
    pub(super) fn producer_ids_came(&mut self, call: Call, block: Result<ProducerIdBlock, ErrorCode>) {
        match block {
            Err(error) => self.reply(call, &refused(error)),
            Ok(block) => {
                // Several requests may have asked while the old block was used up; the last block is as good as any.
                self.producer_ids = block;
                let id = self.producer_ids.take().expect("a block is not empty");
                self.reply(call, &given(id));
            }
        }
    }
}

fn given(id: ProducerId) -> InitProducerIdResponse {
    InitProducerIdResponse::default().with_producer_id(id.0.into()).with_producer_epoch(0)
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id((-1).into())
        .with_producer_epoch(-1)
}
