//! The `ottla` binary. See [`ottla::cli`].
fn main() {}
