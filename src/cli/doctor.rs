//! `pipe doctor`: what this machine has, and what pipe would use.

use super::{CliError, OK};
use crate::console;
use clap::Args;

/// Say what this machine has and what pipe would use of it
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {}

pub(crate) fn run(_: &DoctorArgs) -> Result<u8, CliError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    console::data_line(format!("pipe          {}", env!("CARGO_PKG_VERSION")));
    console::data_line(format!("cores         {cores}"));
    Ok(OK)
}
