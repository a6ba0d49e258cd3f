//! The two queues of a ring and the one system call between them.
//!
//! Entries that do not fit into the submission queue are kept in order and follow as it empties, linked ones
//! together. Completions that overflow their queue are kept by the kernel (`IORING_FEAT_NODROP`) and fetched here.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, squeue, types};

/// A ring with an unbounded tail to its submission queue (bounded by the slots, which the layers above bound).
pub(super) struct Queue {
    ring: IoUring,
    backlog: VecDeque<squeue::Entry>,
    sqpoll: bool,
    /// System calls made.
    pub(super) enter_count: u64,
    /// Entries that found the submission queue full.
    pub(super) backlog_count: u64,
    /// Times that completions had overflowed their queue.
    pub(super) overflow_count: u64,
}

impl Queue {
    pub(super) fn new(ring: IoUring, sqpoll: bool) -> Queue {
        Queue { ring, backlog: VecDeque::new(), sqpoll, enter_count: 0, backlog_count: 0, overflow_count: 0 }
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Queues one entry.
    ///
    /// # Safety
    /// Whatever the entry points to must stay valid until its last completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            if self.submit().is_ok() {
                // SAFETY: the caller's promise.
                if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                    return;
                }
            }
        }
        self.backlog_count += 1;
        self.backlog.push_back(entry);
    }

    /// Queues two entries of which the first carries the link flag: they must reach the kernel in one submission.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    pub(super) unsafe fn push_linked(&mut self, pair: [squeue::Entry; 2]) {
        if self.backlog.is_empty() {
            if self.room() < 2 {
                // What goes wrong shows in the room that is left.
                let _ = self.submit();
            }
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push_multiple(&pair) }.is_ok() {
                return;
            }
        }
        self.backlog_count += 2;
        self.backlog.extend(pair);
    }

    /// Moves what waits into the submission queue as far as there is room. True if nothing is left waiting.
    pub(super) fn flush_backlog(&mut self) -> bool {
        while let Some(entry) = self.backlog.front() {
            let linked = entry.is_linked();
            if self.room() < if linked { 2 } else { 1 } {
                return false;
            }
            for _ in 0..if linked { 2 } else { 1 } {
                let entry = self.backlog.pop_front().expect("a linked entry has its second behind it");
                // SAFETY: whoever queued the entry promised that what it points to stays valid.
                unsafe { self.ring.submission().push(&entry) }.expect("there is room");
            }
        }
        true
    }

    /// Takes back what the kernel has not seen. For the end.
    pub(super) fn take_backlog(&mut self) -> impl Iterator<Item = u64> {
        std::mem::take(&mut self.backlog).into_iter().map(|entry| entry.get_user_data())
    }

    /// True if a system call would move anything: entries to submit, completions that the kernel keeps back.
    #[inline]
    pub(super) fn needs_enter(&mut self) -> bool {
        let sqpoll = self.sqpoll;
        let submission = self.ring.submission();
        if sqpoll {
            return submission.cq_overflow() || (!submission.is_empty() && submission.need_wakeup());
        }
        !submission.is_empty() || submission.cq_overflow() || submission.taskrun()
    }

    /// Completions are there to be taken.
    #[inline]
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Hands over what is queued and fetches what is complete, without waiting.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.enter(0, None)
    }

    /// Hands over what is queued and waits for a completion, at most for `timeout`.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.enter(1, timeout)
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let full;
        let to_submit = {
            let submission = self.ring.submission();
            if submission.cq_overflow() {
                self.overflow_count += 1;
            }
            full = submission.is_full();
            submission.len() as u32
        };
        if self.sqpoll {
            fence(Ordering::SeqCst);
            let submission = self.ring.submission();
            if submission.need_wakeup_after_intermittent_seqcst() {
                flags |= EnterFlags::SQ_WAKEUP;
            } else if want == 0 && !full && !submission.cq_overflow() {
                return Ok(());
            }
            if full && want == 0 {
                flags |= EnterFlags::SQ_WAIT;
            }
        }
        self.enter_count += 1;
        let timespec;
        let mut args = types::SubmitArgs::new();
        if let Some(timeout) = timeout {
            timespec = types::Timespec::from(timeout);
            args = args.timespec(&timespec);
        }
        // SAFETY: the argument is the structure that EXT_ARG announces and lives until the call returns; what the
        // entries point to was promised to `push`.
        let entered = unsafe { self.ring.submitter().enter(to_submit, want, flags.bits(), Some(&args)) };
        entered.map(drop)
    }

    /// Moves the completions that are there to the end of `completions`.
    #[inline]
    pub(super) fn reap(&mut self, completions: &mut Vec<cqueue::Entry>) {
        completions.extend(self.ring.completion());
    }

    fn room(&mut self) -> usize {
        let submission = self.ring.submission();
        submission.capacity() - submission.len()
    }
}

/// Whether an entry is linked to the next.
trait Linked {
    fn is_linked(&self) -> bool;
}

impl Linked for squeue::Entry {
    fn is_linked(&self) -> bool {
        // The crate does not show an entry's flags; only splices into a pipe are linked here, and they say so in
        // their user data.
        super::slots::UserData::from(self.get_user_data()).step == super::slots::Step::SpliceIn
    }
}
