//! `pipe status`: what a run would do, without doing it.

use super::run::{execute, wanted};
use super::workspace::{STATE, ShareArgs, open_workspace, open_workspace_at};
use super::{CliError, OK, PipelineArgs, load};
use crate::console;
use crate::event::Event;
use crate::graph::Standing;
use crate::plan::Plan;
use crate::run::{Options, Workspace};
use crate::state::Known;
use clap::Args;
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;
use std::path::Path;

/// Say which stages are up to date and why the others are not
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages and what they need
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a run would do with one stage, and why.
pub(crate) struct Finding {
    pub(crate) standing: Standing,
    pub(crate) reasons: Vec<String>,
}

pub(crate) fn run(args: &StatusArgs) -> Result<u8, CliError> {
    let plan = load(&args.pipeline)?;
    let workspace = open_to_read()?;
    let findings = assess(&plan, &workspace, &args.targets)?;
    if args.json {
        let stages: Vec<_> = findings
            .iter()
            .map(|(node, finding)| {
                serde_json::json!({ "stage": plan.graph[*node].id.to_string(),
                    "state": finding.standing.word(), "reasons": finding.reasons })
            })
            .collect();
        console::data_line(format!("{:#}", serde_json::Value::from(stages)));
        return Ok(OK);
    }
    for (node, planned) in plan.stages() {
        if let Some(finding) = findings.get(&node) {
            let reasons = finding.reasons.join("; ");
            let gap = if reasons.is_empty() { "" } else { "  " };
            console::data_line(format!("{:<7} {}{gap}{reasons}", finding.standing.word(), planned.id));
        }
    }
    Ok(OK)
}

/// A workspace for a command that only reads: where there is no cache it is an empty one elsewhere, gone afterwards.
pub(crate) struct Reading {
    workspace: Workspace,
    _elsewhere: Option<tempfile::TempDir>,
}

impl std::ops::Deref for Reading {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        &self.workspace
    }
}

pub(crate) fn open_to_read() -> Result<Reading, CliError> {
    if Path::new(STATE).exists() {
        return Ok(Reading { workspace: open_workspace(&ShareArgs::default())?, _elsewhere: None });
    }
    let elsewhere = tempfile::tempdir().map_err(|error| CliError::failed(&error))?;
    let workspace = open_workspace_at(elsewhere.path(), &ShareArgs::default())?;
    Ok(Reading { workspace, _elsewhere: Some(elsewhere) })
}

/// What a run would do with each wanted stage.
pub(crate) fn assess(
    plan: &Plan,
    workspace: &Workspace,
    patterns: &[String],
) -> Result<BTreeMap<NodeIndex, Finding>, CliError> {
    // What one stage cannot read is no news of those that do not need it.
    let options =
        Options { wanted: wanted(plan, patterns)?, dry: true, keep_going: true, ..Options::default() };
    let nodes: BTreeMap<String, NodeIndex> =
        plan.stages().map(|(node, planned)| (planned.id.to_string(), node)).collect();
    let mut findings = BTreeMap::new();
    let mut warnings = Vec::new();
    execute(plan, workspace, &options, &Known::default(), &mut |event| {
        let (stage, standing, reasons) = match event {
            Event::Cached { stage } => (stage, Standing::Cached, Vec::new()),
            Event::WouldRun { stage, reasons } => (stage, Standing::Stale, reasons.clone()),
            Event::Failed { stage, error, .. } => (stage, Standing::Failing, vec![error.clone()]),
            Event::MightRun { stage, because } | Event::Skipped { stage, because } => {
                (stage, Standing::Unsure, vec![because.clone()])
            }
            Event::Warning(text) => return warnings.push(text.clone()),
            _ => return,
        };
        findings.insert(nodes[stage], Finding { standing, reasons });
    })?;
    for warning in warnings {
        console::hint(format!("warning: {warning}"));
    }
    // What was hashed is worth keeping; a failure to do so costs time, not correctness.
    let _ = workspace.stats.save();
    Ok(findings)
}
