//! One message from shard to shard: put, flushed, collected; and what a turn without mail costs.

mod harness;

use std::hint::black_box;
use std::task::Waker;

use criterion::Throughput;
use harness::Subject;
use ottla::model::id::ShardId;
use ottla::shard::mailbox::{Mailboxes, Post};

fn hop() -> Subject {
    let mailboxes = Mailboxes::new(2);
    let mut sender = Post::new(ShardId(0), mailboxes.clone(), Waker::noop().clone());
    let mut receiver = Post::new(ShardId(1), mailboxes, Waker::noop().clone());
    let mut mail: Vec<u64> = Vec::new();
    Subject::new("mailbox", "hop", Throughput::Elements(1), move || {
        sender.send(ShardId(1), black_box(7));
        sender.flush();
        receiver.collect(&mut mail);
        mail.drain(..).sum::<u64>()
    })
}

fn turn() -> Subject {
    let mut receiver = Post::new(ShardId(1), Mailboxes::new(2), Waker::noop().clone());
    let mut mail: Vec<u64> = Vec::new();
    Subject::new("mailbox", "turn without mail", Throughput::Elements(1), move || {
        receiver.collect(black_box(&mut mail));
        receiver.flush()
    })
}

fn main() {
    harness::main(vec![hop(), turn()]);
}
