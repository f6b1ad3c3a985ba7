//! Exit codes only: 0 ok, 1 a stage failed, 2 the user's file or arguments, 130 interrupted.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(pipe::cli::main())
}
