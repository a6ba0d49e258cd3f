//! Which branches a simulated run has been through, and how often.
//!
//! `hit` counts on the calling thread; a simulation runs on one. In builds without tests or the feature `simulate` it
//! is an empty function that the compiler removes.
//!
//! It must not know what the branches are: their names come from where they are.

#[cfg(any(test, feature = "simulate"))]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// Branches by name, and how often each was taken.
    pub type Counts = BTreeMap<&'static str, u64>;

    thread_local! {
        static COUNTS: RefCell<Counts> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Counts one pass through `branch` on this thread.
    pub fn hit(branch: &'static str) {
        COUNTS.with(|counts| *counts.borrow_mut().entry(branch).or_default() += 1);
    }

    /// What this thread has counted since the last call.
    pub fn take() -> Counts {
        COUNTS.with(RefCell::take)
    }
}

#[cfg(any(test, feature = "simulate"))]
pub use counting::{Counts, hit, take};

/// Counts nothing: this is neither a test nor a simulation.
#[cfg(not(any(test, feature = "simulate")))]
#[inline(always)]
pub fn hit(_branch: &'static str) {}
