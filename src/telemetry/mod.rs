//! What a shard counts about itself. Plain numbers owned by the shard, so that counting costs an addition; others
//! get a copy when they ask.

mod occasional;

use std::fmt;

pub use occasional::Occasional;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counts of one shard since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// Every counter with its name.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Adds another shard's counts.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_accepted,
    /// Connections refused because there were too many or no memory was left.
    connections_refused,
    /// Connections that ended for a reason that is not normal.
    connections_broken,
    /// Requests read.
    requests,
    /// Bytes of request frames, size prefixes included.
    request_bytes,
    /// Bytes of record batches that came with Produce requests.
    produce_bytes_received,
    /// Bytes of record batches that this shard appended to its own logs.
    produce_bytes_appended,
    /// Bytes of record batches that were refused, or repeated ones that had been appended before.
    produce_bytes_refused,
    /// Record batches appended.
    produce_batches_appended,
    /// Checks of record batches that came with Produce requests: one for each, however long it is held back.
    produce_batches_checked,
    /// Produce requests that had to wait before they could take effect.
    produce_held,
    /// Synced writes of the journal, each for the commits of several partitions.
    journal_writes,
    /// Bytes that they wrote, without the padding of blocks.
    journal_bytes,
    /// Commits of partitions that they carried.
    journal_commits,
    /// Bytes of batches answered from memory that was written: the tail cache.
    fetch_bytes_tail,
    /// Bytes of batches that went from a sealed segment to the socket without passing user space.
    fetch_bytes_splice,
    /// Bytes of batches read directly, from the active segment behind the tail cache or in small ranges.
    fetch_bytes_direct,
    /// Bytes of batches that had to be copied into the response.
    fetch_bytes_copy,
    /// Reads from disk for fetches that had to wait for others.
    cold_waits,
    /// Times that reads from disk were narrowed because commits beside them took longer.
    cold_narrowed,
    /// Fetches that waited for data.
    fetch_waits,
    /// Fetches that had to wait because too many others waited for data.
    fetch_held,
    /// Requests that had to wait because answers that nobody took held the memory for answers.
    room_waits,
    /// Compactions that came to their end.
    compactions,
    /// Bytes that they read, both passes together.
    compaction_bytes_read,
    /// Bytes of batches that they wrote.
    compaction_bytes_written,
    /// Messages sent to other shards.
    mailbox_messages,
    /// Bytes of record batches in those messages: none, ever.
    mailbox_record_bytes,
    /// Turns of the event loop that took longer than the stall threshold.
    stalls,
    /// Turns of the event loop.
    turns,
}

impl fmt::Display for Counters {
    /// `name=value` of every counter that is not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, value) in self.entries().filter(|(_, value)| *value > 0) {
            write!(f, "{}{name}={value}", if first { "" } else { " " })?;
            first = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_print_what_happened() {
        let mut sum = Counters { requests: 2, ..Counters::default() };
        sum.add(&Counters { requests: 3, stalls: 1, ..Counters::default() });
        assert_eq!(sum.to_string(), "requests=5 stalls=1");
    }
}
