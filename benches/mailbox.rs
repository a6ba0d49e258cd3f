//! One message from shard to shard: put, flushed, collected; and what a turn without mail costs.

use std::hint::black_box;
use std::task::Waker;

use criterion::{Criterion, criterion_group, criterion_main};
use ottla::model::id::ShardId;
use ottla::shard::mailbox::{Mailboxes, Post};

fn hop(c: &mut Criterion) {
    let mailboxes = Mailboxes::new(2);
    let mut sender = Post::new(ShardId(0), mailboxes.clone(), Waker::noop().clone());
    let mut receiver = Post::new(ShardId(1), mailboxes, Waker::noop().clone());
    let mut mail: Vec<u64> = Vec::new();
    c.bench_function("mailbox hop", |b| {
        b.iter(|| {
            sender.send(ShardId(1), black_box(7));
            sender.flush();
            receiver.collect(&mut mail);
            mail.drain(..).sum::<u64>()
        });
    });
    c.bench_function("turn without mail", |b| {
        b.iter(|| {
            receiver.collect(black_box(&mut mail));
            receiver.flush()
        });
    });
}

criterion_group!(benches, hop);
criterion_main!(benches);
