//! Which stage may start when: a state machine over the plan, and pools of resources. Runs nothing itself.

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use pipe_stages::artifact::Resources;
use std::collections::{BTreeSet, VecDeque};

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

/// States of all stages of a plan.
#[derive(Debug)]
pub struct Schedule {
    states: Vec<State>,
    dependents: Vec<Vec<NodeIndex>>,
    /// Stages on the longest way to an end of the graph: those on longer ways start first.
    height: Vec<usize>,
    ready: VecDeque<NodeIndex>,
    queue: BTreeSet<(std::cmp::Reverse<usize>, NodeIndex)>,
}

impl Schedule {
    /// A schedule of the `wanted` stages, which must hold all that they need.
    pub fn new<N, E>(graph: &DiGraph<N, E>, order: &[NodeIndex], wanted: &BTreeSet<NodeIndex>) -> Self {
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
        let mut height = vec![0; graph.node_count()];
        for &node in order.iter().rev() {
            let next: BTreeSet<_> = graph.neighbors(node).filter(|next| wanted.contains(next)).collect();
            height[node.index()] = next.iter().map(|next| height[next.index()] + 1).max().unwrap_or(0);
            dependents[node.index()] = next.into_iter().collect();
        }
        Self { states, dependents, height, ready, queue: BTreeSet::new() }
    }

    pub fn state(&self, node: NodeIndex) -> State {
        self.states[node.index()]
    }

    /// The next stage whose key can be computed. The caller then queues it or ends it.
    pub fn next_ready(&mut self) -> Option<NodeIndex> {
        self.ready.pop_front()
    }

    /// The stage must run.
    pub fn queue(&mut self, node: NodeIndex) {
        debug_assert_eq!(self.state(node), State::Ready);
        self.states[node.index()] = State::Queued;
        self.queue.insert((std::cmp::Reverse(self.height[node.index()]), node));
    }

    /// The most urgent queued stage that `fits`, now running.
    pub fn start(&mut self, mut fits: impl FnMut(NodeIndex) -> bool) -> Option<NodeIndex> {
        let chosen = *self.queue.iter().find(|(_, node)| fits(*node))?;
        self.queue.remove(&chosen);
        self.states[chosen.1.index()] = State::Running;
        Some(chosen.1)
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

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Ends a stage. Stages that waited for it become ready; after a failure they are skipped and returned.
    pub fn end(&mut self, node: NodeIndex, state: State) -> Vec<NodeIndex> {
        debug_assert!(state.is_final() && !self.state(node).is_final());
        self.states[node.index()] = state;
        let succeeded = matches!(state, State::Cached | State::Done);
        let mut skipped = Vec::new();
        for next in self.dependents[node.index()].clone() {
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

/// What the machine has, and what running stages took of it.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    capacity: Resources,
    free: Resources,
}

impl Pool {
    pub fn new(capacity: Resources) -> Self {
        Self { capacity, free: capacity }
    }

    /// No stage fits, whatever it needs.
    pub fn is_full(&self) -> bool {
        self.free.cpu == 0
    }

    /// Takes what a stage needs, clipped to what there is at all; with `rivals` other stages waiting, a stage that
    /// can use more threads gets its share. `None` if it does not fit now.
    pub fn take(&mut self, wanted: Resources, rivals: usize) -> Option<Resources> {
        let cpu = wanted.cpu.clamp(1, self.capacity.cpu);
        let memory_bytes = wanted.memory_bytes.min(self.capacity.memory_bytes);
        let gpu = wanted.gpu.min(self.capacity.gpu);
        if cpu > self.free.cpu || memory_bytes > self.free.memory_bytes || gpu > self.free.gpu {
            return None;
        }
        let share = (self.free.cpu / (rivals + 1)).clamp(cpu, wanted.cpu_max.max(cpu));
        let taken = Resources { cpu: share, cpu_max: share, memory_bytes, gpu };
        self.free.cpu -= taken.cpu;
        self.free.memory_bytes -= memory_bytes;
        self.free.gpu -= gpu;
        Some(taken)
    }

    pub fn give_back(&mut self, taken: Resources) {
        self.free.cpu += taken.cpu;
        self.free.memory_bytes += taken.memory_bytes;
        self.free.gpu += taken.gpu;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a → b → d, a → c, with everything wanted.
    fn diamond() -> (DiGraph<(), ()>, Vec<NodeIndex>) {
        let mut graph = DiGraph::new();
        let nodes: Vec<_> = (0..4).map(|_| graph.add_node(())).collect();
        graph.extend_with_edges([(0, 1), (1, 3), (0, 2)]);
        (graph, nodes)
    }

    fn schedule() -> (Schedule, Vec<NodeIndex>) {
        let (graph, nodes) = diamond();
        (Schedule::new(&graph, &nodes, &nodes.iter().copied().collect()), nodes)
    }

    #[test]
    fn a_stage_is_ready_when_all_it_needs_is_done() {
        let (mut schedule, nodes) = schedule();
        assert_eq!(schedule.next_ready(), Some(nodes[0]));
        assert_eq!(schedule.next_ready(), None);
        schedule.end(nodes[0], State::Cached);
        assert_eq!((schedule.next_ready(), schedule.next_ready()), (Some(nodes[1]), Some(nodes[2])));
    }

    #[test]
    fn the_longest_way_starts_first() {
        let (mut schedule, nodes) = schedule();
        schedule.next_ready();
        schedule.end(nodes[0], State::Done);
        schedule.next_ready();
        schedule.next_ready();
        schedule.queue(nodes[2]);
        schedule.queue(nodes[1]);
        assert_eq!(schedule.start(|_| true), Some(nodes[1]));
        assert_eq!(schedule.start(|_| false), None);
        assert_eq!(schedule.start(|_| true), Some(nodes[2]));
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

    #[test]
    fn requests_above_the_machine_are_clipped_and_threads_are_shared() {
        let mut pool = Pool::new(Resources { cpu: 4, cpu_max: 4, memory_bytes: 100, gpu: 0 });
        let large = Resources { cpu: 99, cpu_max: 99, memory_bytes: 1_000, gpu: 1 };
        let taken = pool.take(large, 0).unwrap();
        assert_eq!((taken.cpu, taken.memory_bytes, taken.gpu), (4, 100, 0));
        assert!(pool.take(Resources::SERIAL, 0).is_none());
        pool.give_back(taken);
        assert_eq!(pool.take(Resources::PARALLEL, 1).unwrap().cpu, 2);
        assert_eq!(pool.take(Resources::SERIAL, 0).unwrap().cpu, 1);
        assert_eq!(pool.take(Resources::PARALLEL, 0).unwrap().cpu, 1);
    }
}
