//! How long stages are expected to take: what they took before, else what others of their kind took.

use super::Run;
use crate::event::Event;
use crate::history::LastResult;
use crate::plan::Plan;
use petgraph::graph::NodeIndex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The end of the run is estimated this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
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
    pub(super) fn new<'l>(plan: &Plan, last: impl Fn(NodeIndex) -> Option<&'l LastResult>) -> Self {
        let took = |node: NodeIndex| last(node).and_then(|last| last.took);
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

impl Run<'_> {
    /// Tells from time to time how long the run may still take, where times are known.
    pub(super) fn look_ahead(&mut self) {
        let now = Instant::now();
        if now < self.next_outlook || self.running == 0 {
            return;
        }
        self.next_outlook = now + LOOK_EVERY;
        if let Some(left) = self.left() {
            self.tell(&Event::Outlook { left });
        }
    }

    /// The work left, done by as many stages at once as now; but no less than the longest way. What is not keyed yet
    /// may be in the cache, then it is over sooner.
    fn left(&self) -> Option<Duration> {
        let (mut work, mut longest) = (Duration::ZERO, Duration::ZERO);
        for &node in &self.options.wanted {
            if self.schedule.state(node).is_final() {
                continue;
            }
            let started = self.stages[node.index()].started;
            let elapsed = started.map_or(Duration::ZERO, |(_, since)| since.elapsed());
            work += self.expected.of(node)?.saturating_sub(elapsed);
            longest = longest.max(self.schedule.height(node).saturating_sub(elapsed));
        }
        Some(longest.max(work / self.running as u32))
    }
}
