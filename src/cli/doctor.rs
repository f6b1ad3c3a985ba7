//! `pipe doctor`: what this machine has, and what pipe would use.

use super::{CliError, OK};
use crate::console;
use clap::Args;

/// Say what this machine has and what pipe would use of it
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {}

#[expect(clippy::unnecessary_wraps, reason = "every subcommand has this signature")]
pub(crate) fn run(_: &DoctorArgs) -> Result<u8, CliError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let own = [("pipe", env!("CARGO_PKG_VERSION").to_owned()), ("cores", cores.to_string())];
    for (name, finding) in own.into_iter().chain(pipe_stages::machine::findings()) {
        console::data_line(format!("{name:<14}{finding}"));
    }
    Ok(OK)
}
