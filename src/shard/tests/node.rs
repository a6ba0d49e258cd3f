//! A node on the simulated world, as the tests know it.

pub use crate::shard::simulated::{DATA, SimNode as TestNode, Spec, Start};

use super::client::Client;
use crate::io::sim::{World, WorldOptions};

#[test]
fn a_shard_that_has_something_to_do_is_left_out_for_a_moment_only() {
    // Topics made one after the other on an otherwise quiet node: each takes some operations of the disk, and what they
    // wait for is not the next tick.
    for seed in 0..4 {
        let world = World::new(seed, WorldOptions::calm());
        let mut node = TestNode::start(&world, &Spec { is_disorderly: true, ..Spec::new(2) });
        let mut client = Client::connect(&node, 0);
        let start = world.now().monotonic;
        for number in 0..50 {
            client.create(&mut node, &format!("t{number}"), 1, &[]);
        }
        let took = world.now().monotonic.since(start);
        assert!(took < std::time::Duration::from_secs(5), "seed {seed}: {took:?}");
    }
}
