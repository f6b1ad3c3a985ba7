//! `pipe check`: plans a file and says what is wrong with it, or what it holds and what could be better.

use super::{CliError, OK, PipelineArgs, load};
use crate::console;
use crate::problem::Problems;
use clap::Args;

/// Check pipeline files without running anything
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

pub(crate) fn run(args: &CheckArgs) -> Result<u8, CliError> {
    let plan = load(&args.pipeline)?;
    let file = args.pipeline.file.display().to_string();
    console::data_line(format!("{file}: {} stages, no problems", plan.order.len()));
    if !plan.advice.is_empty() {
        let text = std::fs::read_to_string(&args.pipeline.file).map_err(|error| {
            CliError::usage(format!("cannot read `{file}`: {error}"), "it was there a moment ago: try again")
        })?;
        let advice = Problems::new(&file, &text, plan.advice);
        console::hint(advice.render_advice(console::color()).trim_end());
    }
    Ok(OK)
}
