//! `pipe schema`: the JSON Schema of pipeline files.

use super::{CliError, OK};
use crate::{console, schema::pipeline_schema};
use clap::Args;

/// Print the JSON Schema of pipeline files, for editors
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {}

#[expect(clippy::unnecessary_wraps, reason = "every subcommand has this signature")]
pub(crate) fn run(_: &SchemaArgs) -> Result<u8, CliError> {
    console::data_line(format!("{:#}", pipeline_schema()));
    Ok(OK)
}
