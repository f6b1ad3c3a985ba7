//! What `pipe run` says where it does not talk to a person at a terminal.

use crate::running::{CHAIN, chain};
use crate::space::{Report, TestSpace};
use std::collections::BTreeMap;

/// The objects that were printed, each with the names of its fields.
fn events(report: &Report) -> Vec<(String, serde_json::Map<String, serde_json::Value>)> {
    let object = |line: &str| {
        let object: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        (object["event"].as_str().unwrap().to_owned(), object)
    };
    report.stdout.lines().map(object).collect()
}

fn names(report: &Report) -> Vec<String> {
    events(report)
        .into_iter()
        .filter(|(event, _)| event != "outlook")
        .map(|(event, object)| {
            object
                .get("stage")
                .and_then(|stage| stage.as_str())
                .map_or(event.clone(), |stage| format!("{event} {stage}"))
        })
        .collect()
}

#[test]
fn json_is_one_object_an_event_and_nothing_else_on_stdout() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    let report = space.run(&["--json"]);
    let expected = [
        "started",
        "cached clean",
        "cached other",
        "running scale",
        "done scale",
        "running total",
        "done total",
        "ended",
    ];
    let mut found = names(report.ran(&["scale", "total"]));
    // The two that are cached need nothing of each other.
    found[1..3].sort();
    assert_eq!(found, expected, "{report}");
    let events: BTreeMap<_, _> = events(&report).into_iter().collect();
    assert_eq!(events["started"]["stages"], 4);
    assert_eq!((&events["ended"]["ran"], &events["ended"]["cached"]), (&2.into(), &2.into()));
    assert_eq!(events["running"]["threads"], 1);
    assert!(events["done"]["elapsed"].as_f64().unwrap() > 0.0);
    let run = events["started"]["run"].as_str().unwrap();
    space.pipe(&["log", run]).code(0).prints(run);
}

#[test]
fn json_tells_failures_retries_and_runs_with_nothing_to_do() {
    let space = TestSpace::new(
        "stages:\n  bad: { uses: command, retries: { times: 1, wait: 0s }, with: { run: 'exit 3', outputs: [o] } }\n  \
         next: { uses: command, in: { bad: bad }, with: { run: 'true', outputs: [o] } }\n",
    );
    let report = space.run(&["--json"]);
    let expected =
        ["started", "running bad", "retrying bad", "running bad", "failed bad", "skipped next", "ended"];
    assert_eq!(names(report.code(1)), expected, "{report}");
    let failed = &events(&report)[4].1;
    assert!(failed["error"].as_str().unwrap().contains("exit status: 3"), "{report}");
    assert!(space.exists(failed["log"].as_str().unwrap()), "{report}");
    // Once all that it watches has settled, a run with nothing to do reads no plan.
    let space = chain();
    std::thread::sleep(std::time::Duration::from_millis(50));
    space.run(&[]).code(0);
    let report = space.run(&["--json"]);
    assert_eq!(names(report.code(0)), ["started", "ended"], "{report}");
    assert_eq!(events(&report)[1].1["cached"], 4);
}

/// A field that is renamed breaks programs of other people.
#[test]
fn the_fields_of_every_object_are_as_they_were() {
    let space = TestSpace::new(
        "stages:\n  good: { uses: command, with: { run: 'echo hello; touch out/o/f', outputs: [o] } }\n  \
         bad: { uses: command, in: { good: good }, resources: { cpu: 99 }, retries: { times: 1, wait: 0s }, with: \
         { run: 'exit 3', outputs: [o] } }\n  next: { uses: command, in: { bad: bad }, with: { run: 'true', outputs: [o] } }\n",
    );
    let reports = [space.run(&["--json", "--dry-run"]), space.run(&["--json"]), space.run(&["--json"])];
    let all = reports.iter().flat_map(events);
    let fields = |object: serde_json::Map<_, _>| {
        object.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    };
    let found: BTreeMap<_, _> = all.map(|(event, object)| (event, fields(object))).collect();
    let found: Vec<_> = found.iter().map(|(event, fields)| format!("{event}: {fields}")).collect();
    assert_eq!(
        found,
        [
            "cached: event stage time",
            "done: elapsed event facts items_made items_reused stage time unchanged",
            "ended: cached event failed interrupted ran skipped stopped time",
            "failed: elapsed error event log stage time",
            "may-run: because event stage time",
            "note: event stage text time",
            "outlook: event left time",
            "retrying: elapsed error event failed stage time tries wait",
            "running: event expected reasons stage threads time",
            "skipped: because event stage time",
            "started: event pipeline run stages time",
            "warning: event stage text time",
            "would-run: event reasons stage time",
        ]
    );
}

#[test]
fn json_is_printed_whole_where_it_is_quiet_too() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    let report = space.run(&["--json", "--quiet"]);
    assert!(names(report.code(0)).contains(&"done scale".to_owned()), "{report}");
}

#[test]
fn quiet_tells_failures_and_a_last_line() {
    let space = chain();
    space
        .write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2").replace("echo other >>", "exit 4; echo"));
    let report = space.run(&["--quiet", "--keep-going"]);
    report.code(1).says("FAILED other").says("exit status: 4").says("2 ran, 1 cached, 1 FAILED");
    report.does_not_say("running").does_not_say("done").does_not_say("cached clean");
    assert_eq!(report.stdout, "");
}

#[test]
fn control_characters_of_programs_are_shown_and_not_obeyed() {
    let space = TestSpace::new(
        "stages:\n  a: { uses: command, with: { run: 'printf \"one\\033[2J\\000two\\n\"; printf \"\\033[31mred\\n\" >&2; exit 1', \
         outputs: [o] } }\n",
    );
    let report = space.run(&[]);
    report.code(1).says("one␛[2J␀two").says("␛[31mred");
    let log = space.pipe(&["log", "a"]);
    log.code(0).prints("one␛[2J␀two");
    assert!(!format!("{report}{log}").contains(['\x1b', '\0']), "{report}");
}
