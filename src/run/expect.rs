//! How long stages are expected to take: what they took before, else what others of their kind took.

use crate::history::LastResult;
use crate::plan::Plan;
use petgraph::graph::NodeIndex;
use std::collections::HashMap;
use std::time::Duration;

/// For a kind that never ran.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Expected times by the index of the stage.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) times: Vec<Duration>,
    /// Whether the stage itself, or one of its kind, ran before.
    known: Vec<bool>,
}

impl Expected {
    pub(super) fn new(plan: &Plan, last: &[Option<LastResult>]) -> Self {
        let took = |node: NodeIndex| last[node.index()].as_ref().and_then(|last| last.took);
        let mut by_kind: HashMap<&str, (Duration, u32)> = HashMap::new();
        for (node, planned) in plan.stages() {
            if let Some(took) = took(node) {
                let (sum, count) = by_kind.entry(planned.kind()).or_default();
                (*sum, *count) = (sum.saturating_add(took), *count + 1);
            }
        }
        let expected = |node: NodeIndex| {
            let of_kind = by_kind.get(plan.graph[node].kind()).map(|(sum, count)| *sum / *count);
            took(node).or(of_kind)
        };
        let expected: Vec<_> = plan.graph.node_indices().map(expected).collect();
        Self {
            times: expected.iter().map(|time| time.unwrap_or(UNKNOWN)).collect(),
            known: expected.iter().map(Option::is_some).collect(),
        }
    }

    /// `None` where there is nothing to go by.
    pub(super) fn of(&self, node: NodeIndex) -> Option<Duration> {
        self.known[node.index()].then_some(self.times[node.index()])
    }
}
