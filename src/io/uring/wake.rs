//! Waking a shard that sleeps in the ring, from any thread.
//!
//! One atomic says awake, asleep or notified. A wake of an awake shard only sets *notified*, which the next sleep
//! sees; a wake of a sleeping one also writes the eventfd whose read is armed on the ring. Both sides change the
//! state by swap or compare-exchange, so exactly one of them sees the other: either the shard does not fall asleep,
//! or the waker writes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Shared by a ring and its wakers, which may outlive it.
pub(super) struct Wake {
    state: AtomicU8,
    event: OwnedFd,
}

impl Wake {
    pub(super) fn new() -> io::Result<Arc<Wake>> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else; `OwnedFd` closes it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Arc::new(Wake { state: AtomicU8::new(AWAKE), event }))
    }

    /// The eventfd to read from while asleep.
    pub(super) fn event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The shard is about to sleep. False: it was notified and must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The shard slept and does not any more. A notification stays.
    pub(super) fn stay_awake(&self) {
        // It fails if there is a notification, and then there is nothing to do.
        let _ = self.state.compare_exchange(ASLEEP, AWAKE, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The shard, awake, is about to look at what it may have been notified of.
    pub(super) fn take_notification(&self) {
        // The load keeps the swap, which locks the cache line, off the turns that nobody notified.
        if self.state.load(Ordering::Acquire) != AWAKE {
            self.state.swap(AWAKE, Ordering::AcqRel);
        }
    }

    /// True if the shard was notified and has not taken it; for the shard while awake.
    pub(super) fn is_notified(&self) -> bool {
        self.state.load(Ordering::Acquire) == NOTIFIED
    }
}

impl std::task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the descriptor is open as long as `self`, and `one` outlives the call. The write can only fail
            // when the counter is full, and then the reader has enough to wake up for.
            unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}
