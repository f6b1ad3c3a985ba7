//! What differs between two runs: where they ran, params, and for each stage what its result depends on and what it
//! told. Compares records; prints nothing.

use crate::explain;
use pipe_cache::{ActionKey, Cache, Digest, Manifest, Outcome, RunRecord, StageRecord};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A named value that differs; `None` where it is not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub name: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
    /// How much it grew, of two numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
}

/// What differs of one stage that is in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageDifference {
    pub stage: String,
    /// How it ended, if it gave a result in one run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<(Outcome, Outcome)>,
    /// What of its parameters, seed, inputs and environment differs, as sentences.
    pub reasons: Vec<String>,
    /// Facts that it told, such as a score.
    pub facts: Vec<Change>,
    /// Outputs with other bytes.
    pub outputs: Vec<String>,
}

/// All that differs between two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Machine, versions and commit.
    pub run: Vec<Change>,
    pub params: Vec<Change>,
    pub stages: Vec<StageDifference>,
    pub only_old: Vec<String>,
    pub only_new: Vec<String>,
    /// Stages in both runs of which nothing differs.
    pub same: usize,
}

/// Compares two runs; manifests that differ are read from the cache.
pub fn compare(old: &RunRecord, new: &RunRecord, cache: &Cache) -> Comparison {
    let stages = |run: &RunRecord| -> BTreeMap<String, StageRecord> {
        run.stages.iter().map(|stage| (stage.name.clone(), stage.clone())).collect()
    };
    let (before, after) = (stages(old), stages(new));
    let only = |these: &BTreeMap<String, StageRecord>, others: &BTreeMap<String, StageRecord>| {
        these.keys().filter(|name| !others.contains_key(*name)).cloned().collect::<Vec<_>>()
    };
    // In the order of the plan, so that a cause stands above its effects.
    let both = new.stages.iter().filter_map(|stage| Some((before.get(&stage.name)?, stage)));
    let (mut same, mut differing) = (0, Vec::new());
    for (old, new) in both {
        match difference(old, new, cache) {
            Some(difference) => differing.push(difference),
            None => same += 1,
        }
    }
    Comparison {
        run: changes(&setting(old), &setting(new)),
        params: changes(&old.params, &new.params),
        stages: differing,
        only_old: only(&before, &after),
        only_new: only(&after, &before),
        same,
    }
}

/// Where and by what a run was made.
fn setting(run: &RunRecord) -> BTreeMap<String, Value> {
    let mut setting: BTreeMap<String, Value> =
        run.versions.iter().map(|(name, version)| (name.clone(), version.as_str().into())).collect();
    setting.insert("pipeline".into(), run.pipeline.as_str().into());
    let known = [
        ("commit", run.commit.as_deref().map(Value::from)),
        ("host", run.host.as_deref().map(Value::from)),
        ("device", run.device.as_deref().map(Value::from)),
        ("cores", run.cores.map(Value::from)),
        ("threads", run.threads.map(Value::from)),
    ];
    setting.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    setting
}

fn changes(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| {
            let [old, new] = [old, new].map(|values| values.get(name).cloned());
            let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
            let difference = number(&new).zip(number(&old)).map(|(new, old)| new - old);
            Change { name: name.clone(), old, new, difference }
        })
        .collect()
}

fn difference(old: &StageRecord, new: &StageRecord, cache: &Cache) -> Option<StageDifference> {
    let gave = |stage: &StageRecord| matches!(stage.outcome, Outcome::Ran | Outcome::Cached);
    let ports: BTreeSet<&String> = old.outputs.keys().chain(new.outputs.keys()).collect();
    // Where one has no result at all, its outcome says so.
    let both = gave(old) && gave(new);
    let outputs = ports.into_iter().filter(|port| both && old.outputs.get(*port) != new.outputs.get(*port));
    let difference = StageDifference {
        stage: new.name.clone(),
        outcome: (gave(old) != gave(new)).then_some((old.outcome, new.outcome)),
        reasons: reasons(old, new, cache),
        facts: if both { changes(&facts(old), &facts(new)) } else { Vec::new() },
        outputs: outputs.cloned().collect(),
    };
    let StageDifference { outcome, reasons, facts, outputs, .. } = &difference;
    let nothing = outcome.is_none() && reasons.is_empty() && facts.is_empty() && outputs.is_empty();
    (!nothing).then_some(difference)
}

fn facts(stage: &StageRecord) -> BTreeMap<String, Value> {
    let facts = stage.summary.as_object().into_iter().flatten();
    facts.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn reasons(old: &StageRecord, new: &StageRecord, cache: &Cache) -> Vec<String> {
    let key =
        |stage: &StageRecord| -> Option<(ActionKey, Option<Digest>)> { Some((stage.key?, stage.manifest)) };
    let (Some((old_key, old)), Some((new_key, new_manifest))) = (key(old), key(new)) else {
        return Vec::new();
    };
    if old_key == new_key {
        return Vec::new();
    }
    let read = |digest: Option<Digest>| Manifest::get(&cache.store, &digest?).ok();
    match (read(old), read(new_manifest)) {
        (Some(old), Some(newer)) => explain::describe(&newer.diff(&old), &new.sources, &cache.store),
        _ => vec!["what its result depends on differs, but the cache no longer knows in what".into()],
    }
}
