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
        host: Some("workstation".to_owned()),
        cores: Some(8),
        threads: Some(4),
        device: Some("cpu".to_owned()),
        versions: BTreeMap::from([("pipe".to_owned(), "0.1.0".to_owned())]),
        peak_memory_bytes: Some(1 << 30),
        overrides: vec!["--set epochs=9".to_owned()],
        params: BTreeMap::from([("epochs".to_owned(), json!(9))]),
        tags: Vec::new(),
        unchanged: None,
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
            failed_tries: Vec::new(),
            summary: json!({ "loss": 0.25 }),
            sources: BTreeMap::from([("volumes".to_owned(), "crop".to_owned())]),
            threads: Some(2),
            peak_memory_bytes: Some(5 << 20),
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
    assert_eq!(space.cache.runs.ids().unwrap(), [run.id.clone()]);
    assert_eq!(space.cache.runs.load(&run.id).unwrap(), Some(run));
}

#[test]
fn the_latest_runs_come_first_and_a_damaged_one_is_an_error() {
    let space = Space::new();
    let runs: Vec<_> = [5, 1, 4, 2, 3].map(|day| run(day * 86_400_000)).into();
    for run in &runs {
        space.cache.runs.save(run).unwrap();
    }
    let damaged = space.cache.layout.run(&runs[2].id);
    fs::write(&damaged, "{\"format\": 1, \"run\": {").unwrap();
    space.write(".pipe/runs/notes.txt", "not a run");

    let ids = space.cache.runs.ids().unwrap();
    assert_eq!(ids, [0, 2, 4, 3, 1].map(|at| runs[at].id.clone()));
    assert!(space.cache.runs.load(&runs[2].id).is_err());
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

/// Written by the first version, which knew neither host nor params.
#[test]
fn a_record_of_an_older_version_still_reads() {
    let space = Space::new();
    let id: RunId = "20261123-003900-298-34ad35".parse().unwrap();
    fs::write(space.cache.layout.run(&id), include_str!("run-v1.json")).unwrap();
    let run = space.cache.runs.load(&id).unwrap().unwrap();
    assert_eq!((run.message.as_deref(), run.host, run.params.len()), (Some("before tags"), None, 0));
    let outcomes: Vec<_> = run.stages.iter().map(|stage| (stage.name.as_str(), stage.outcome)).collect();
    assert_eq!(outcomes, [("clean", Outcome::Ran), ("scale", Outcome::Ran), ("bad", Outcome::Failed)]);
}

#[test]
fn a_tag_names_one_run_until_it_is_deleted() {
    let space = Space::new();
    let runs = &space.cache.runs;
    let [one, two] = [1, 2].map(|day| RunId::at(Timestamp(day * 86_400_000)));
    assert_eq!(runs.tags().unwrap(), BTreeMap::new());
    assert_eq!(runs.tag("best", &one).unwrap(), None);
    assert_eq!(runs.tag("best", &one).unwrap(), None);
    assert_eq!(runs.tag("best", &two).unwrap(), Some(one.clone()));
    assert_eq!(runs.tag("paper.v1", &two).unwrap(), None);
    let tags = BTreeMap::from([("best".to_owned(), one), ("paper.v1".to_owned(), two)]);
    assert_eq!(runs.tags().unwrap(), tags);
    assert!(runs.untag("best").unwrap());
    assert!(!runs.untag("best").unwrap());
    assert_eq!(runs.tags().unwrap().len(), 1);
}

#[test]
fn a_tag_cannot_be_taken_for_a_path_or_a_run() {
    let space = Space::new();
    let id = RunId::at(Timestamp(0));
    for wrong in
        ["", ".hidden", "../runs/x", "a/b", "2026", "latest", "latest~1", "a b", "-d", &"x".repeat(65)]
    {
        assert!(space.cache.runs.tag(wrong, &id).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_run_comes_after_the_latest_one_although_the_clock_went_back() {
    let check = |time, latest: &str, expected: &str| {
        let latest: RunId = latest.parse().unwrap();
        let id = RunId::after(Timestamp(time), Some(&latest));
        assert!(id > latest && id.to_string().starts_with(expected), "{id} after {latest}");
    };
    // 2026-03-01T09:05:00.250Z
    check(1_772_355_900_250, "20260228-235959-999-ffffff", "20260301-090500-250-");
    check(1_772_355_900_250, "20260301-090500-250-ffffff", "20260301-090500-25");
    check(1_772_355_900_250, "20270101-000000-000-ffffff", "20270101-000000-001-");
    check(1_772_355_900_250, "20270101-235959-999-ffffff", "20270101-235960-000-");
    let mut ids: Vec<RunId> = vec!["20270101-000000-998-ffffff".parse().unwrap()];
    for _ in 0..1_500 {
        ids.push(RunId::after(Timestamp(0), ids.last()));
    }
    assert!(ids.is_sorted());
}
