//! `pipe check`: plans a file and says what is wrong with it, or what it holds.

use super::{CliError, OK, PipelineArgs, load};
use crate::console;
use clap::Args;

/// Check pipeline files without running anything
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

pub(crate) fn run(args: &CheckArgs) -> Result<u8, CliError> {
    let plan = load(&args.pipeline)?;
    console::data_line(format!("{}: {} stages, no problems", args.pipeline.file.display(), plan.order.len()));
    Ok(OK)
}
