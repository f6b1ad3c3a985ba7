//! Run records: dated, sorted, and passed over when damaged.

use crate::space::Space;
use pipe_cache::{Digest, DirtyReason, Outcome, RunId, RunRecord, StageRecord, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

fn run(started_at: u64) -> RunRecord {
    RunRecord {
        id: RunId::at(Timestamp(started_at)),
        pipeline: "decathlon".to_owned(),
        file: "pipelines/decathlon.yaml".to_owned(),
        message: Some("try a larger patch".to_owned()),
        started_at: Timestamp(started_at),
        finished_at: None,
        command: vec!["pipe".to_owned(), "run".to_owned()],
        commit: None,
        stages: vec![StageRecord {
            name: "train[fold=0]".to_owned(),
            kind: "train".to_owned(),
            key: None,
            manifest: Some(Digest::of_bytes(b"manifest")),
            outcome: Outcome::Interrupted,
            reasons: vec![DirtyReason::NeverRan, DirtyReason::VersionChanged { old: 1, new: 2 }],
            started_at: Some(Timestamp(started_at)),
            duration: Some(Duration::from_millis(1500)),
            outputs: BTreeMap::from([("model".to_owned(), Digest::of_bytes(b"tree"))]),
            error: None,
            memo_hits: 3,
            memo_misses: 1,
            summary: json!({ "loss": 0.25 }),
        }],
    }
}

#[test]
fn a_run_reads_back_and_its_end_replaces_its_beginning() {
    let space = Space::new();
    let mut run = run(1_700_000_000_123);
    space.cache.runs.save(&run).unwrap();
    assert_eq!(space.cache.runs.load(&run.id).unwrap(), Some(run.clone()));
    run.finished_at = Some(Timestamp(1_700_000_009_000));
    space.cache.runs.save(&run).unwrap();
    assert_eq!(space.cache.runs.latest(9).unwrap(), (vec![run], vec![]));
}

#[test]
fn the_latest_runs_come_first_and_a_damaged_one_is_a_warning() {
    let space = Space::new();
    let runs: Vec<_> = [5, 1, 4, 2, 3].map(|day| run(day * 86_400_000)).into();
    for run in &runs {
        space.cache.runs.save(run).unwrap();
    }
    let damaged = space.cache.layout.run(&runs[2].id);
    fs::write(&damaged, "{\"format\": 1, \"run\": {").unwrap();
    space.write(".pipe/runs/notes.txt", "not a run");

    let (latest, warnings) = space.cache.runs.latest(3).unwrap();
    let days: Vec<_> = latest.iter().map(|run| run.started_at.0 / 86_400_000).collect();
    assert_eq!(days, [5, 3, 2]);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].path, damaged);
}

#[test]
fn a_run_of_another_format_or_under_another_name_is_an_error() {
    let space = Space::new();
    let [one, two] = [1, 2].map(|day| run(day * 86_400_000));
    space.cache.runs.save(&one).unwrap();
    let path = space.cache.layout.run(&one.id);
    fs::copy(&path, space.cache.layout.run(&two.id)).unwrap();
    assert!(space.cache.runs.load(&two.id).unwrap_err().to_string().contains(&one.id.to_string()));
    let text = fs::read_to_string(&path).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    fs::write(&path, text).unwrap();
    let error = space.cache.runs.load(&one.id).unwrap_err().to_string();
    assert!(error.contains("format 2, this pipe reads 1"), "{error}");
}

#[test]
fn ids_sort_by_time_and_name_no_other_path() {
    let times = [0, 1, 999, 1000, 86_399_999, 86_400_000, 1_700_000_000_000, 4_102_444_800_000];
    let ids: Vec<_> = times.map(|time| RunId::at(Timestamp(time))).into();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_ne!(RunId::at(Timestamp(5)), RunId::at(Timestamp(5)));
    assert!(ids[6].to_string().starts_with("20231114-221320-000-"), "{}", ids[6]);
    for id in &ids {
        assert_eq!(&id.to_string().parse::<RunId>().unwrap(), id);
    }
    for wrong in ["", "..", "../../etc/passwd0000000000", "20231114-221320-000-ZZZZZZ"] {
        assert!(wrong.parse::<RunId>().is_err(), "{wrong:?}");
    }
}
