//! `invariant!`: an assertion that is always on.
//!
//! An error says whose fault it is. The peer's, the operator's and the disk's are values and are handled; ours is a
//! broken invariant, and then the only safe thing is to stop with the state printed.

/// Stops the process with the broken condition and the state that led to it. On in release builds too.
#[macro_export]
macro_rules! invariant {
    ($condition:expr $(,)?) => {
        if !$condition {
            panic!("invariant broken: {}", stringify!($condition));
        }
    };
    ($condition:expr, $($state:tt)+) => {
        if !$condition {
            panic!("invariant broken: {}: {}", stringify!($condition), format_args!($($state)+));
        }
    };
}
