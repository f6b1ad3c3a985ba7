//! `resources`, `retries` and `timeout` of a stage: how it may run, which is never part of its key.

use super::Planner;
use crate::matrix::StageId;
use crate::params::Scope;
use crate::pipeline::StageDecl;
use crate::problem::{Problem, suggest};
use crate::quantity;
use crate::yaml::{Key, Node, Value};
use pipe_stages::artifact::Resources;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often a stage may try, and how long each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Further tries after one that failed.
    pub retries: u32,
    /// Pause before the second try; before each later one it is twice as long.
    pub wait: Duration,
    pub timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { retries: 0, wait: Duration::from_secs(1), timeout: None }
    }
}

impl Limits {
    /// No pause is longer, unless the file says so.
    const LONGEST_PAUSE: Duration = Duration::from_mins(10);

    /// How long to rest after this many failed tries.
    pub fn pause(&self, failed: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        self.wait.saturating_mul(factor).min(Self::LONGEST_PAUSE.max(self.wait))
    }
}

const TIMES: &str = "write a whole number and a unit, such as `90s`, `15m`, `2h` or `1d`";
const RETRIES: &str = "write `retries: 2`, or `retries: { times: 2, wait: 10s }`";

impl Planner {
    pub(super) fn limits(&mut self, id: &StageId, decl: &StageDecl, scope: &Scope) -> Limits {
        let mut limits = Limits::default();
        if let Some(node) = &decl.retries {
            let node = scope.fill(node, &mut self.problems);
            self.retries(id, &node, &mut limits);
        }
        if let Some(node) = &decl.timeout {
            let node = scope.fill(node, &mut self.problems);
            limits.timeout = self.time(id, "timeout", &node).filter(|limit| {
                if limit.is_zero() {
                    let message =
                        format!("`timeout` of `{id}` cannot be `{}`", node.text().unwrap_or_default());
                    let help = "leave `timeout` out for a stage that may take as long as it likes";
                    self.problems.push(Problem::new(node.id, message).help(help));
                }
                !limit.is_zero()
            });
        }
        limits
    }

    fn retries(&mut self, id: &StageId, node: &Node, limits: &mut Limits) {
        match &node.value {
            Value::Map(pairs) => {
                for (key, value) in pairs {
                    match key.text.as_str() {
                        "times" => limits.retries = self.times(id, "times", value),
                        "wait" => limits.wait = self.time(id, "wait", value).unwrap_or_default(),
                        _ => self.unknown_key(id, "retries", key, &["times", "wait"]),
                    }
                }
                // A key that is not known may be meant for it.
                if pairs.iter().all(|(key, _)| key.text == "wait") {
                    let message = format!("`retries` of `{id}` does not say how many `times`");
                    self.problems.push(Problem::new(node.id, message).help(RETRIES));
                }
            }
            _ => limits.retries = self.times(id, "retries", node),
        }
    }

    fn times(&mut self, id: &StageId, name: &str, node: &Node) -> u32 {
        let times = node.text().and_then(|text| text.parse().ok());
        if times.is_none() {
            let message = format!("`{name}` of `{id}` cannot be {}", node.describe());
            self.problems.push(Problem::new(node.id, message).help(RETRIES));
        }
        times.unwrap_or_default()
    }

    fn time(&mut self, id: &StageId, name: &str, node: &Node) -> Option<Duration> {
        let time = node.text().and_then(quantity::time);
        if time.is_none() {
            let message = format!("`{name}` of `{id}` cannot be {}", node.describe());
            self.problems.push(Problem::new(node.id, message).help(TIMES));
        }
        time
    }

    fn unknown_key(&mut self, id: &StageId, what: &str, key: &Key, known: &[&str]) {
        let message = format!("`{what}` of `{id}` has an unknown key `{}`", key.text);
        let help = suggest(&key.text, known.iter().copied(), "keys");
        self.problems.push(Problem::new(key.id, message).help(help));
    }

    pub(super) fn resources(&mut self, id: &StageId, node: &Node) -> DeclaredResources {
        let mut declared = DeclaredResources::default();
        let Value::Map(pairs) = &node.value else {
            let message = format!("`resources` of `{id}` must be a mapping, not {}", node.describe());
            self.problems
                .push(Problem::new(node.id, message).help("write `resources: { cpu: 2, memory: 4G }`"));
            return declared;
        };
        for (key, value) in pairs {
            let text = value.text().unwrap_or_default();
            let fits = match key.text.as_str() {
                "cpu" => text.parse().ok().filter(|cpu| *cpu > 0).map(|cpu| declared.cpu = Some(cpu)),
                "gpu" => text.parse().ok().map(|gpu| declared.gpu = Some(gpu)),
                "memory" => quantity::bytes(text).map(|bytes| declared.memory_bytes = Some(bytes)),
                _ => {
                    self.unknown_key(id, "resources", key, &["cpu", "memory", "gpu"]);
                    continue;
                }
            };
            if fits.is_none() {
                let message = format!("`{}` of `{id}` cannot be {}", key.text, value.describe());
                let help = "cpu and gpu are whole numbers, memory is a size such as `512M` or `4G`";
                self.problems.push(Problem::new(value.id, message).help(help));
            }
        }
        declared
    }
}

/// `resources:` as written: what is there wins over what the kind declares.
#[derive(Default)]
pub(super) struct DeclaredResources {
    cpu: Option<usize>,
    gpu: Option<usize>,
    memory_bytes: Option<u64>,
}

impl DeclaredResources {
    pub(super) fn apply(&self, resources: &mut Resources) {
        if let Some(cpu) = self.cpu {
            resources.cpu = cpu;
            resources.cpu_max = cpu;
        }
        resources.gpu = self.gpu.unwrap_or(resources.gpu);
        resources.memory_bytes = self.memory_bytes.unwrap_or(resources.memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wait: u64, pauses: &[u64]) {
        let limits = Limits { retries: 9, wait: Duration::from_secs(wait), timeout: None };
        let found: Vec<_> = (1..).take(pauses.len()).map(|failed| limits.pause(failed).as_secs()).collect();
        assert_eq!(found, pauses);
    }

    #[test]
    fn a_pause_doubles_up_to_ten_minutes_and_is_never_shorter_than_the_first() {
        check(0, &[0, 0, 0]);
        check(1, &[1, 2, 4, 8, 16]);
        check(200, &[200, 400, 600, 600]);
        check(3_600, &[3_600, 3_600]);
        assert_eq!(Limits::default().pause(4_000), Duration::from_mins(10));
    }
}
