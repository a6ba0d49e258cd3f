//! The `ottla` binary. See [`ottla::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ottla::cli::main()
}
