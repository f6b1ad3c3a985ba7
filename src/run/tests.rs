//! Runs with an executor that makes nothing and says how long it took.

use super::*;
use crate::event::StageReport;
use crate::pipeline::{Overrides, Pipeline};
use crate::worker::Emit;
use pipe_cache::StatMode;
use std::path::Path;

/// Notes what starts; a stage `s7` "takes" seven seconds.
#[derive(Default)]
struct FakeExecutor {
    started: Mutex<Vec<String>>,
}

impl Executor for FakeExecutor {
    fn execute(&self, job: &Job<'_>, _emit: Emit) -> Result<Finished, JobError> {
        let name = job.planned.id.to_string();
        let seconds = name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let report = StageReport { elapsed: Duration::from_secs(seconds), ..StageReport::default() };
        let outputs = BTreeMap::from([("o".to_owned(), Digest::of_bytes(name.as_bytes()))]);
        self.started.lock().unwrap().push(name);
        Ok(Finished { outputs, report, warning: None, reused: false })
    }
}

/// Runs stages, each with what it reads from, one after the other; then all of them again. What started, both times.
fn twice(stages: &[(&str, &[&str])]) -> [Vec<String>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "stages:\n".to_owned();
    for (name, sources) in stages {
        let inputs: Vec<_> = sources.iter().map(|source| format!("{source}: {source}")).collect();
        let inputs = inputs.join(", ");
        text += &format!(
            "  {name}: {{ uses: command, in: {{ {inputs} }}, with: {{ run: [sh, {name}], outputs: [o] }} }}\n"
        );
    }
    let pipeline = Pipeline::parse(Path::new("p.yaml"), &text, &Overrides::default()).unwrap();
    let plan = Plan::new(&pipeline).unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let (stats, _) = cache.stat_cache(StatMode::Strict);
    let capacity = Capacity { cpu: 1, memory_bytes: 0, gpus: Vec::new() };
    let workspace = Workspace { cache, stats: Arc::new(stats), sources: Arc::default(), capacity };
    let wanted: BTreeSet<_> = plan.order.iter().copied().collect();
    let options = Options { forced: wanted.clone(), wanted, ..Options::default() };
    let mut known = Known::default();
    [(); 2].map(|()| {
        let executor = FakeExecutor::default();
        let summary = run(&plan, &workspace, &executor, &options, &known, &mut |_| {}).unwrap();
        let count = plan.graph.node_count();
        let trace = |made: Option<Made>| made?.trace.map(|(trace, _)| trace);
        known.traces = summary.looked_at.into_values().map(trace).collect();
        known.unchanged = vec![false; count];
        known.placed = vec![false; count];
        executor.started.into_inner().unwrap()
    })
}

#[track_caller]
fn check(stages: &[(&str, &[&str])], first: &str, second: &str) {
    let found = twice(stages).map(|started| started.join(" "));
    assert_eq!(found, [first, second]);
}

#[test]
fn the_way_that_took_longest_starts_first_once_its_time_is_known() {
    // Nothing is known at first: all stages count the same, and the way with more of them is longer.
    check(&[("a1", &[]), ("b2", &["a1"]), ("c9", &[])], "a1 b2 c9", "c9 a1 b2");
    check(&[("a5", &[]), ("b5", &["a5"]), ("c9", &[])], "a5 b5 c9", "a5 c9 b5");
}

#[test]
fn one_long_stage_at_the_end_makes_its_way_urgent() {
    let stages: [(&str, &[&str]); 5] =
        [("a1", &[]), ("b1", &["a1"]), ("c3", &[]), ("d2", &[]), ("e8", &["d2"])];
    check(&stages, "a1 d2 b1 c3 e8", "d2 e8 c3 a1 b1");
}
