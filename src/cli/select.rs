//! Which stages of a pipeline a run brings up to date.

use super::{CliError, targets};
use crate::plan::Plan;
use clap::Args;
use petgraph::graph::NodeIndex;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SelectArgs {
    /// Stages to bring up to date with all that they need (default: all); `train[fold=0]` names one of a matrix
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Leave out every stage that needs this one, however far below it; the stage itself runs
    #[arg(long, value_name = "STAGE")]
    until: Vec<String>,
    /// This stage and every stage that needs it, with all that those need
    #[arg(long, value_name = "STAGE")]
    downstream_of: Vec<String>,
}

impl SelectArgs {
    /// The stages, with all that they need. What `until` leaves out nothing else needs.
    pub(crate) fn wanted(&self, plan: &Plan) -> Result<BTreeSet<NodeIndex>, CliError> {
        let mut ends = targets(plan, &self.targets)?;
        ends.extend(plan.with_descendants(&targets(plan, &self.downstream_of)?));
        if self.targets.is_empty() && self.downstream_of.is_empty() {
            ends.clone_from(&plan.order);
        }
        let mut below = BTreeSet::new();
        for node in targets(plan, &self.until)? {
            below.extend(plan.with_descendants(&[node]).into_iter().filter(|other| *other != node));
        }
        let wanted = plan.with_ancestors(&ends);
        Ok(wanted.difference(&below).copied().collect())
    }

    /// Whether it is the whole pipeline.
    pub(crate) fn is_all(&self) -> bool {
        self.targets.is_empty() && self.until.is_empty() && self.downstream_of.is_empty()
    }

    /// One word for each choice. No stage has a name that begins so.
    pub(crate) fn words(&self) -> Vec<String> {
        let until = self.until.iter().map(|stage| format!("--until {stage}"));
        let downstream_of = self.downstream_of.iter().map(|stage| format!("--downstream-of {stage}"));
        self.targets.iter().cloned().chain(until).chain(downstream_of).collect()
    }
}
