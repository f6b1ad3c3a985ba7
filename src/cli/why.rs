//! `pipe why`: why a stage ran in its last run, and why it would run now.

use super::run::open_workspace;
use super::status::assess;
use super::{CliError, OK, PipelineArgs, load, targets};
use crate::graph::Standing;
use crate::{console, explain};
use clap::Args;
use pipe_cache::{Cache, Outcome, StageRecord, Timestamp};

/// Say why stages ran, and why they would run now
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages to explain (default: all)
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Only say what would run now
    #[arg(long)]
    plan: bool,
}

pub(crate) fn run(args: &WhyArgs) -> Result<u8, CliError> {
    let plan = load(&args.pipeline)?;
    let workspace = open_workspace(None)?;
    let chosen = if args.stages.is_empty() { plan.order.clone() } else { targets(&plan, &args.stages)? };
    let findings = assess(&plan, &workspace, &args.stages)?;
    for node in chosen {
        let name = plan.graph[node].id.to_string();
        console::data_line(&name);
        if !args.plan {
            match last_run(&workspace.cache, &plan.name, &name)? {
                Some((time, stage)) => {
                    console::data_line(format!("  {time}: {}", outcome(&stage)));
                    for reason in explain::describe(&stage.reasons, &workspace.cache.store) {
                        console::data_line(format!("    because {reason}"));
                    }
                }
                None => console::data_line("  no run is on record"),
            }
        }
        if let Some(finding) = findings.get(&node) {
            match finding.standing {
                Standing::Cached => console::data_line("  now: up to date"),
                Standing::Stale => console::data_line("  now: would run"),
                Standing::Unsure => console::data_line("  now: may run"),
            }
            for reason in &finding.reasons {
                console::data_line(format!("    because {reason}"));
            }
        }
    }
    Ok(OK)
}

/// The last run in which the stage did something.
fn last_run(cache: &Cache, pipeline: &str, name: &str) -> Result<Option<(Timestamp, StageRecord)>, CliError> {
    for id in cache.runs.ids().map_err(|error| CliError::failed(&error))? {
        // A damaged record of a run hides that run only.
        let Ok(Some(run)) = cache.runs.load(&id) else { continue };
        if run.pipeline != pipeline {
            continue;
        }
        let acted = |stage: &&StageRecord| {
            stage.name == name && !matches!(stage.outcome, Outcome::Cached | Outcome::Skipped)
        };
        if let Some(stage) = run.stages.iter().find(acted) {
            return Ok(Some((stage.started_at.unwrap_or(run.started_at), stage.clone())));
        }
    }
    Ok(None)
}

fn outcome(stage: &StageRecord) -> String {
    let time = stage.duration.map(|time| format!(" in {}", console::duration(time))).unwrap_or_default();
    match (stage.outcome, &stage.error) {
        (Outcome::Ran, _) => format!("ran{time}"),
        (Outcome::Failed, Some(error)) => format!("failed{time}: {error}"),
        (Outcome::Failed, None) => format!("failed{time}"),
        (Outcome::Interrupted, _) => "was interrupted".into(),
        (Outcome::Cached | Outcome::Skipped, _) => "did not run".into(),
    }
}
