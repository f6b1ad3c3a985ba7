//! `pipe graph`: the pipeline as a picture, with what is cached and what is stale.

use super::status::{assess, open_to_read};
use super::{CliError, OK, PipelineArgs, load};
use crate::console;
use crate::graph::Picture;
use clap::{Args, ValueEnum};

/// Draw the pipeline, with cached and stale stages marked
#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[arg(long, value_enum, default_value_t = Format::Tree)]
    format: Format,
    /// Draw every stage of a matrix by itself
    #[arg(long)]
    expand: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Tree,
    Dot,
    Mermaid,
    Json,
}

pub(crate) fn run(args: &GraphArgs) -> Result<u8, CliError> {
    let plan = load(&args.pipeline)?;
    let workspace = open_to_read()?;
    let findings = assess(&plan, &workspace, &[])?;
    let standings = findings.into_iter().map(|(node, finding)| (node, finding.standing)).collect();
    let picture = Picture::new(&plan, &standings, args.expand);
    console::data(match args.format {
        Format::Tree => picture.tree(),
        Format::Dot => picture.dot(),
        Format::Mermaid => picture.mermaid(),
        Format::Json => format!("{:#}\n", picture.json()),
    });
    Ok(OK)
}
