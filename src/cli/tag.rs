//! `pipe tag`: names for runs.

use super::workspace::{ShareArgs, open_workspace};
use super::{CliError, OK};
use crate::console;
use crate::history::find_run;
use clap::Args;
use pipe_cache::check_tag;

/// Give a run a name, or take one away
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Run to name: a tag, `latest`, `latest~1` or the beginning of an id
    #[arg(value_name = "RUN", required_unless_present = "delete")]
    run: Option<String>,
    /// Name to give
    #[arg(value_name = "NAME", required_unless_present = "delete")]
    name: Option<String>,
    /// Take this name away
    #[arg(long, value_name = "NAME", conflicts_with_all = ["run", "name"])]
    delete: Option<String>,
}

pub(crate) fn run(args: &TagArgs) -> Result<u8, CliError> {
    let workspace = open_workspace(&ShareArgs::default())?;
    let runs = &workspace.cache.runs;
    match (&args.delete, &args.run, &args.name) {
        (Some(name), ..) => {
            check(name)?;
            if !runs.untag(name).map_err(|error| CliError::failed(&error))? {
                return Err(CliError::usage(
                    format!("no run is tagged `{name}`"),
                    "`pipe history` lists the tags",
                ));
            }
        }
        (None, Some(run), Some(name)) => {
            check(name)?;
            let id = find_run(&workspace.cache, run)?;
            if let Some(owner) = runs.tag(name, &id).map_err(|error| CliError::failed(&error))? {
                let help = format!("`pipe tag --delete {name}` frees the name");
                return Err(CliError::usage(format!("run {owner} is tagged `{name}`"), help));
            }
            console::hint(format!("run {id} is tagged `{name}`"));
        }
        // The argument parser asks for both.
        (None, ..) => return Err(CliError::usage("no run and name are given", "write `pipe tag RUN NAME`")),
    }
    Ok(OK)
}

fn check(name: &str) -> Result<(), CliError> {
    check_tag(name).map_err(|_| {
        let help =
            "begin with a letter, go on with letters, digits, `_`, `-` or `.`, 64 at most; not `latest`";
        CliError::usage(format!("`{name}` cannot be a tag"), help)
    })
}
