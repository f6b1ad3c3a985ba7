//! `pipe why`: why a stage ran in its last run, and why it would run now.

use super::status::{Finding, assess, open_to_read};
use super::{CliError, OK, PipelineArgs, load, targets};
use crate::graph::Standing;
use crate::history::acted;
use crate::plan::Plan;
use crate::{console, explain, when};
use clap::Args;
use petgraph::graph::NodeIndex;
use pipe_cache::{Cache, Outcome, StageRecord, Timestamp};
use std::collections::BTreeMap;

/// Say why stages ran, and why they would run now
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages to explain (default: all)
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Only say what a run would do now, and why: a line a stage
    #[arg(long)]
    plan: bool,
}

pub(crate) fn run(args: &WhyArgs) -> Result<u8, CliError> {
    let plan = load(&args.pipeline)?;
    let workspace = open_to_read()?;
    let chosen = if args.stages.is_empty() { plan.order.clone() } else { targets(&plan, &args.stages)? };
    let findings = assess(&plan, &workspace, &args.stages)?;
    if args.plan {
        // All that a run of these stages would do, so with the stages that they need.
        outline(&plan, &findings);
    } else {
        for node in chosen {
            explain_stage(&plan, node, &findings, &workspace.cache)?;
        }
    }
    Ok(OK)
}

/// What a run would do: a line for each stage that is not up to date.
fn outline(plan: &Plan, findings: &BTreeMap<NodeIndex, Finding>) {
    let mut up_to_date = 0;
    for (node, planned) in plan.stages() {
        let Some(Finding { standing, reasons }) = findings.get(&node) else { continue };
        let word = match standing {
            Standing::Cached => {
                up_to_date += 1;
                continue;
            }
            Standing::Stale => "would run",
            Standing::Unsure => "may run",
            Standing::Failing => "would fail",
        };
        console::data_line(format!("{word:<9}  {}  because {}", planned.id, reasons.join("; ")));
    }
    let others = if up_to_date == findings.len() { "nothing would run: " } else { "" };
    let plural = if up_to_date == 1 { "stage is" } else { "stages are" };
    console::data_line(format!("{others}{up_to_date} {plural} up to date"));
}

fn explain_stage(
    plan: &Plan,
    node: NodeIndex,
    findings: &BTreeMap<NodeIndex, Finding>,
    cache: &Cache,
) -> Result<(), CliError> {
    let name = plan.graph[node].id.to_string();
    console::data_line(&name);
    match last_run(cache, &plan.name, &name)? {
        Some((time, stage)) => {
            console::data_line(format!("  {}: {}", when::local(time), outcome(&stage)));
            for reason in explain::describe(&stage.reasons, &stage.sources, &cache.store) {
                console::data_line(format!("    because {reason}"));
            }
        }
        None => console::data_line("  no run is on record"),
    }
    if let Some(finding) = findings.get(&node) {
        match finding.standing {
            Standing::Cached => console::data_line("  now: up to date"),
            Standing::Stale => console::data_line("  now: would run"),
            Standing::Unsure => console::data_line("  now: may run"),
            Standing::Failing => console::data_line("  now: would fail"),
        }
        for reason in &finding.reasons {
            console::data_line(format!("    because {reason}"));
        }
    }
    Ok(())
}

/// The last run in which the stage did something.
fn last_run(cache: &Cache, pipeline: &str, name: &str) -> Result<Option<(Timestamp, StageRecord)>, CliError> {
    for id in cache.runs.ids().map_err(|error| CliError::failed(&error))? {
        // A damaged record of a run hides that run only.
        let Ok(Some(run)) = cache.runs.load_news(&id) else { continue };
        if run.pipeline != pipeline {
            continue;
        }
        if let Some(stage) = run.stages.iter().find(|stage| stage.name == name && acted(stage)) {
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
