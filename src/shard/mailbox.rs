//! Messages between the shards of a node. Metadata only: record bytes never cross.
//!
//! Every shard has one inbox that all others may put into. Sending never blocks: what a full inbox does not take
//! waits in the sender's outbox and is offered again every turn, in order. An inbox that holds something wakes its
//! shard through the shard's own [`Waker`], which costs nothing while the shard is awake.
//!
//! Invariants
//! - Messages from one shard to another arrive in the order in which they were sent.
//! - An inbox holds at most [`MAILBOX_DEPTH_MAX`] messages.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

use crate::model::id::ShardId;
use crate::model::limits::MAILBOX_DEPTH_MAX;

#[derive(Debug)]
struct Inbox<M> {
    messages: Mutex<VecDeque<M>>,
    // True while `messages` may hold something, so that a turn without mail takes no lock.
    has_mail: AtomicBool,
    waker: OnceLock<Waker>,
}

impl<M> Inbox<M> {
    fn new() -> Inbox<M> {
        Inbox { messages: Mutex::new(VecDeque::new()), has_mail: AtomicBool::new(false), waker: OnceLock::new() }
    }

    /// Puts as many of `letters` in as fit and wakes the owner.
    fn put(&self, letters: &mut VecDeque<M>) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let count = letters.len().min(MAILBOX_DEPTH_MAX - messages.len());
        if count == 0 {
            return;
        }
        messages.extend(letters.drain(..count));
        self.has_mail.store(true, Ordering::Release);
        drop(messages);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// The inboxes of a node's shards. Clones are the same ones; anybody who has one may send.
#[derive(Debug)]
pub struct Mailboxes<M>(Arc<[Inbox<M>]>);

impl<M> Clone for Mailboxes<M> {
    fn clone(&self) -> Self {
        Mailboxes(self.0.clone())
    }
}

impl<M> Mailboxes<M> {
    /// One empty inbox for each of `shard_count` shards.
    pub fn new(shard_count: usize) -> Mailboxes<M> {
        Mailboxes((0..shard_count).map(|_| Inbox::new()).collect())
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.0.len()
    }

    /// The most messages that wait in one inbox.
    #[cfg(any(test, feature = "simulate"))]
    pub fn longest(&self) -> usize {
        let inboxes = self.0.iter();
        inboxes.map(|inbox| inbox.messages.lock().unwrap_or_else(PoisonError::into_inner).len()).max().unwrap_or(0)
    }

    /// Sends from outside of any shard (the control thread), or gives the message back if the inbox is full.
    pub fn send(&self, to: ShardId, message: M) -> Result<(), M> {
        let mut letter = VecDeque::from([message]);
        self.0[usize::from(to.0)].put(&mut letter);
        letter.pop_front().map_or(Ok(()), Err)
    }
}

/// One shard's place at the mailboxes.
#[derive(Debug)]
pub struct Post<M> {
    me: ShardId,
    mailboxes: Mailboxes<M>,
    outboxes: Vec<VecDeque<M>>,
}

impl<M> Post<M> {
    /// The place of shard `me`, woken by `waker`. Once for each shard.
    pub fn new(me: ShardId, mailboxes: Mailboxes<M>, waker: Waker) -> Post<M> {
        let inbox = &mailboxes.0[usize::from(me.0)];
        inbox.waker.set(waker).expect("each shard takes its place once");
        let outboxes = (0..mailboxes.shard_count()).map(|_| VecDeque::new()).collect();
        Post { me, mailboxes, outboxes }
    }

    /// Queues a message; it leaves with the next [`flush`](Self::flush). A message to oneself is mail as well.
    pub fn send(&mut self, to: ShardId, message: M) {
        self.outboxes[usize::from(to.0)].push_back(message);
    }

    /// Queues a message to every shard, this one included.
    pub fn send_to_all(&mut self, message: M)
    where
        M: Clone,
    {
        for outbox in &mut self.outboxes {
            outbox.push_back(message.clone());
        }
    }

    /// Hands over what was queued. Returns false if an inbox was full: flush again soon.
    pub fn flush(&mut self) -> bool {
        let mut all = true;
        for (inbox, outbox) in self.mailboxes.0.iter().zip(&mut self.outboxes) {
            if !outbox.is_empty() {
                inbox.put(outbox);
                all &= outbox.is_empty();
            }
        }
        all
    }

    /// Appends the mail that has come to `mail`.
    pub fn collect(&mut self, mail: &mut Vec<M>) {
        let inbox = &self.mailboxes.0[usize::from(self.me.0)];
        if inbox.has_mail.swap(false, Ordering::AcqRel) {
            mail.extend(inbox.messages.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_arrives_in_order_and_a_full_inbox_loses_nothing() {
        // Sends twice what fits while the receiver is busy, then collects until it is all there.
        let mailboxes = Mailboxes::new(2);
        let mut sender = Post::new(ShardId(0), mailboxes.clone(), Waker::noop().clone());
        let mut receiver = Post::new(ShardId(1), mailboxes, Waker::noop().clone());
        let count = 2 * MAILBOX_DEPTH_MAX;
        for number in 0..count {
            sender.send(ShardId(1), number);
        }
        assert!(!sender.flush());
        let mut mail = Vec::new();
        receiver.collect(&mut mail);
        assert_eq!(mail.len(), MAILBOX_DEPTH_MAX);
        assert!(sender.flush());
        receiver.collect(&mut mail);
        assert_eq!(mail, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn mail_from_other_threads_is_never_missed() {
        // Two threads send while the receiver collects without locks unless there is mail.
        let mailboxes = Mailboxes::new(3);
        let mut receiver = Post::new(ShardId(0), mailboxes.clone(), Waker::noop().clone());
        std::thread::scope(|scope| {
            for me in 1..3u16 {
                let mut sender = Post::new(ShardId(me), mailboxes.clone(), Waker::noop().clone());
                scope.spawn(move || {
                    for number in 0..10_000u64 {
                        sender.send(ShardId(0), (me, number));
                        while !sender.flush() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut mail = Vec::new();
            while mail.len() < 20_000 {
                receiver.collect(&mut mail);
            }
            for me in 1..3 {
                let numbers: Vec<u64> = mail.iter().filter(|m| m.0 == me).map(|m| m.1).collect();
                assert_eq!(numbers, (0..10_000).collect::<Vec<_>>());
            }
        });
    }
}
