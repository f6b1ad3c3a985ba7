//! Which stage may start when: a state machine over the plan. Runs nothing itself.

use crate::pool::{Pool, Scarce, Taken};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use pipe_stages::artifact::Resources;
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Where a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Some stages that it reads from are not done.
    Waiting(usize),
    /// All that it reads is there; its key can be computed.
    Ready,
    /// It must run and waits for resources.
    Queued,
    Running,
    /// A try failed; it pauses before the next.
    Resting,
    /// Its result was in the cache.
    Cached,
    Done,
    Failed,
    /// A stage that it needs failed, was skipped or was not run.
    Skipped,
    /// Not wanted by this run.
    Unwanted,
}

impl State {
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Waiting(_) | Self::Ready | Self::Queued | Self::Running | Self::Resting)
    }
}

/// So many less urgent stages may start before one that does not fit.
const PATIENCE: u32 = 8;

/// States of all stages of a plan.
#[derive(Debug)]
pub struct Schedule {
    states: Vec<State>,
    dependents: Vec<Vec<NodeIndex>>,
    /// Expected time from the start of a stage to the end of all that hangs on it: the longest starts first.
    height: Vec<Duration>,
    ready: VecDeque<NodeIndex>,
    queue: BTreeSet<(Reverse<Duration>, NodeIndex)>,
    /// How often a less urgent stage started while this one was queued.
    overtaken: Vec<u32>,
}

impl Schedule {
    /// A schedule of the `wanted` stages, which must hold all that they need. `times` says how long each is expected
    /// to take.
    pub fn new<N, E>(
        graph: &DiGraph<N, E>,
        order: &[NodeIndex],
        wanted: &BTreeSet<NodeIndex>,
        times: &[Duration],
    ) -> Self {
        let mut states = vec![State::Unwanted; graph.node_count()];
        let mut ready = VecDeque::new();
        for &node in order.iter().filter(|node| wanted.contains(node)) {
            let needs: BTreeSet<_> = graph.neighbors_directed(node, Direction::Incoming).collect();
            states[node.index()] = if needs.is_empty() { State::Ready } else { State::Waiting(needs.len()) };
            if needs.is_empty() {
                ready.push_back(node);
            }
        }
        let mut dependents = vec![Vec::new(); graph.node_count()];
        let mut height = times.to_vec();
        for &node in order.iter().rev() {
            let next: BTreeSet<_> = graph.neighbors(node).filter(|next| wanted.contains(next)).collect();
            let below = next.iter().map(|next| height[next.index()]).max().unwrap_or_default();
            height[node.index()] += below;
            dependents[node.index()] = next.into_iter().collect();
        }
        let overtaken = vec![0; graph.node_count()];
        Self { states, dependents, height, ready, queue: BTreeSet::new(), overtaken }
    }

    pub fn state(&self, node: NodeIndex) -> State {
        self.states[node.index()]
    }

    /// Expected time from the start of the stage to the end of all that hangs on it.
    pub fn height(&self, node: NodeIndex) -> Duration {
        self.height[node.index()]
    }

    /// The next stage whose key can be computed. The caller then queues it or ends it.
    pub fn next_ready(&mut self) -> Option<NodeIndex> {
        self.ready.pop_front()
    }

    /// The stage must run.
    pub fn queue(&mut self, node: NodeIndex) {
        debug_assert_eq!(self.state(node), State::Ready);
        self.states[node.index()] = State::Queued;
        self.overtaken[node.index()] = 0;
        self.queue.insert((Reverse(self.height[node.index()]), node));
    }

    /// The most urgent queued stage that fits into the pool, now running, with what it was given.
    ///
    /// Less urgent stages may overtake one that does not fit, but not for ever: after `PATIENCE` of them, nothing that
    /// takes of what it waits for starts before it.
    pub fn start(
        &mut self,
        pool: &mut Pool,
        wanted: impl Fn(NodeIndex) -> Resources,
    ) -> Option<(NodeIndex, Taken)> {
        if pool.is_full() {
            return None;
        }
        let rivals = self.queue.len().saturating_sub(1);
        let mut kept = Scarce::default();
        let mut chosen = None;
        let mut passed = Vec::new();
        for &(height, node) in &self.queue {
            let resources = wanted(node);
            if !kept.used_by(resources)
                && let Some(taken) = pool.take(resources, rivals)
            {
                chosen = Some((height, node, taken));
                break;
            }
            if kept == Scarce::default() && self.overtaken[node.index()] >= PATIENCE {
                kept = pool.lacks(resources);
            }
            passed.push(node);
        }
        let (height, node, taken) = chosen?;
        for node in passed {
            self.overtaken[node.index()] += 1;
        }
        self.queue.remove(&(height, node));
        self.states[node.index()] = State::Running;
        Some((node, taken))
    }

    /// A running stage pauses.
    pub fn rest(&mut self, node: NodeIndex) {
        debug_assert_eq!(self.state(node), State::Running);
        self.states[node.index()] = State::Resting;
    }

    /// The pause of a stage is over: its key is computed anew, for its inputs may have changed.
    pub fn wake(&mut self, node: NodeIndex) {
        debug_assert_eq!(self.state(node), State::Resting);
        self.states[node.index()] = State::Ready;
        self.ready.push_back(node);
    }

    /// Ends a stage. Stages that waited for it become ready; after a failure they are skipped and returned.
    pub fn end(&mut self, node: NodeIndex, state: State) -> Vec<NodeIndex> {
        debug_assert!(state.is_final() && !self.state(node).is_final());
        self.states[node.index()] = state;
        let succeeded = matches!(state, State::Cached | State::Done);
        let mut skipped = Vec::new();
        for next in std::mem::take(&mut self.dependents[node.index()]) {
            match self.state(next) {
                State::Waiting(1) if succeeded => {
                    self.states[next.index()] = State::Ready;
                    self.ready.push_back(next);
                }
                State::Waiting(count) if succeeded => self.states[next.index()] = State::Waiting(count - 1),
                State::Waiting(_) => {
                    skipped.push(next);
                    skipped.extend(self.end(next, State::Skipped));
                }
                _ => {}
            }
        }
        skipped
    }

    /// Everything that has neither ended nor started, now skipped.
    pub fn abandon(&mut self) -> Vec<NodeIndex> {
        self.queue.clear();
        self.ready.clear();
        let open = |state: &State| !state.is_final() && *state != State::Running;
        let nodes: Vec<_> =
            (0..self.states.len()).filter(|&at| open(&self.states[at])).map(NodeIndex::new).collect();
        for node in &nodes {
            self.states[node.index()] = State::Skipped;
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Capacity;

    /// a → b → d, a → c, with everything wanted.
    fn diamond() -> (DiGraph<(), ()>, Vec<NodeIndex>) {
        let mut graph = DiGraph::new();
        let nodes: Vec<_> = (0..4).map(|_| graph.add_node(())).collect();
        graph.extend_with_edges([(0, 1), (1, 3), (0, 2)]);
        (graph, nodes)
    }

    fn schedule_of(times: [u64; 4]) -> (Schedule, Vec<NodeIndex>) {
        let (graph, nodes) = diamond();
        let times = times.map(Duration::from_secs);
        (Schedule::new(&graph, &nodes, &nodes.iter().copied().collect(), &times), nodes)
    }

    fn schedule() -> (Schedule, Vec<NodeIndex>) {
        schedule_of([1; 4])
    }

    fn pool(cpu: usize, memory_bytes: u64) -> Pool {
        Pool::new(Capacity { cpu, memory_bytes, gpus: Vec::new() })
    }

    #[test]
    fn a_stage_is_ready_when_all_it_needs_is_done() {
        let (mut schedule, nodes) = schedule();
        assert_eq!(schedule.next_ready(), Some(nodes[0]));
        assert_eq!(schedule.next_ready(), None);
        schedule.end(nodes[0], State::Cached);
        assert_eq!((schedule.next_ready(), schedule.next_ready()), (Some(nodes[1]), Some(nodes[2])));
    }

    #[track_caller]
    fn check_second(times: [u64; 4], expected: usize) {
        let (mut schedule, nodes) = schedule_of(times);
        schedule.next_ready();
        schedule.end(nodes[0], State::Done);
        for _ in 0..2 {
            let node = schedule.next_ready().unwrap();
            schedule.queue(node);
        }
        let mut pool = pool(1, 0);
        let (first, taken) = schedule.start(&mut pool, |_| Resources::SERIAL).unwrap();
        assert_eq!(first, nodes[expected]);
        assert_eq!(schedule.start(&mut pool, |_| Resources::SERIAL), None);
        pool.give_back(taken);
        assert_eq!(schedule.start(&mut pool, |_| Resources::SERIAL).unwrap().0, nodes[3 - expected]);
    }

    #[test]
    fn the_stage_with_the_most_time_below_it_starts_first() {
        check_second([1, 1, 1, 1], 1);
        check_second([1, 1, 3, 1], 2);
        check_second([1, 1, 3, 5], 1);
    }

    /// Stages without edges: one that needs all the memory, among many that need a part.
    #[track_caller]
    fn check_overtaking(small: Resources, expected: usize) {
        let mut graph = DiGraph::<(), ()>::new();
        let nodes: Vec<_> = (0..40).map(|_| graph.add_node(())).collect();
        let mut times = vec![Duration::from_secs(1); 40];
        // More urgent than all but the first, which holds memory when it comes.
        (times[0], times[1]) = (Duration::from_secs(9), Duration::from_secs(5));
        let mut schedule = Schedule::new(&graph, &nodes, &nodes.iter().copied().collect(), &times);
        while let Some(node) = schedule.next_ready() {
            schedule.queue(node);
        }
        let large = Resources { memory_bytes: 100, ..Resources::SERIAL };
        let part = Resources { memory_bytes: 10, ..Resources::SERIAL };
        let wanted = |node| match node {
            node if node == nodes[0] => part,
            node if node == nodes[1] => large,
            _ => small,
        };
        let mut pool = pool(2, 100);
        let mut running = VecDeque::new();
        let mut started = Vec::new();
        while started.last() != Some(&nodes[1]) {
            while let Some((node, taken)) = schedule.start(&mut pool, wanted) {
                started.push(node);
                running.push_back((node, taken));
            }
            let (node, taken) = running.pop_front().unwrap();
            schedule.end(node, State::Done);
            pool.give_back(taken);
        }
        assert_eq!(started.len(), expected, "{started:?}");
    }

    #[test]
    fn a_large_stage_does_not_wait_for_ever_behind_small_ones() {
        // The first, then as many as may overtake, then the large one.
        check_overtaking(Resources { memory_bytes: 10, ..Resources::SERIAL }, 1 + PATIENCE as usize + 1);
        // What needs no memory takes none from it, and need not wait.
        check_overtaking(Resources::SERIAL, 3);
    }

    #[test]
    fn a_failure_skips_what_hangs_on_it_and_nothing_else() {
        let (mut schedule, nodes) = schedule();
        schedule.next_ready();
        schedule.end(nodes[0], State::Done);
        schedule.next_ready();
        assert_eq!(schedule.end(nodes[1], State::Failed), [nodes[3]]);
        assert_eq!((schedule.state(nodes[2]), schedule.state(nodes[3])), (State::Ready, State::Skipped));
    }
}
