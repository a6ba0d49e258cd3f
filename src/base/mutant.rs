//! Rules that are broken on purpose, to prove that a test would notice.
//!
//! A mutant is a name. [`is_on`] stands where a rule is kept and asks whether this thread breaks it; one mutant at a
//! time is on, for as long as a `Guard` lives. In builds without tests or the feature `simulate` the answer is a
//! constant `false`, and the broken branch does not exist.
//!
//! It must not know which rules there are: `simulate::mutants` lists them.

#[cfg(any(test, feature = "simulate"))]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// True while this thread breaks the rule.
    pub fn is_on(rule: &'static str) -> bool {
        ON.get().is_some_and(|on| on == rule)
    }

    /// Breaks a rule on this thread until it is dropped.
    #[derive(Debug)]
    pub struct Guard(Option<&'static str>);

    impl Guard {
        /// Breaks `rule`, or none.
        pub fn new(rule: Option<&'static str>) -> Guard {
            Guard(ON.replace(rule))
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            ON.set(self.0);
        }
    }
}

#[cfg(any(test, feature = "simulate"))]
pub use switch::{Guard, is_on};

/// Every rule is kept: this is neither a test nor a simulation.
#[cfg(not(any(test, feature = "simulate")))]
#[inline(always)]
pub const fn is_on(_rule: &'static str) -> bool {
    false
}
