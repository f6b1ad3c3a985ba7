//! What earlier runs left: records, names for them, logs of stages, and what differs between two runs.

use crate::running::{CHAIN, chain};
use crate::space::{TestSpace, wait_until};
use serde_json::{Value, json};

/// The records, the latest first.
fn records(space: &TestSpace, arguments: &[&str]) -> Vec<Value> {
    let report = space.pipe(&[&["history", "--json"], arguments].concat());
    report.code(0);
    serde_json::from_str(&report.stdout).unwrap()
}

/// The id of the run that so many were made after.
fn id(space: &TestSpace, back: usize) -> String {
    records(space, &[])[back]["id"].as_str().unwrap().to_owned()
}

/// [`chain`] and a second run with another `step`.
fn two_runs() -> TestSpace {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&["-m", "with two"]).ran(&["scale", "total"]);
    space
}

#[test]
fn history_shows_the_latest_run_first() {
    let space = two_runs();
    let history = space.pipe(&["history"]);
    history.code(0);
    let lines: Vec<_> = history.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(lines[0].starts_with("run ") && lines[0].contains("when"), "{history}");
    assert!(
        lines[1].contains("  chain     2 ran, 2 cached  ") && lines[1].ends_with("with two"),
        "{history}"
    );
    assert!(lines[2].contains("  chain     4 ran            "), "{history}");
    assert_eq!(space.pipe(&["list"]).stdout, history.stdout);
    assert_eq!(space.pipe(&["history", "-n", "1"]).stdout.lines().count(), 2);
}

#[test]
fn times_are_local_and_say_so() {
    let mut space = chain();
    space.set_env("TZ", "TEST-5:30");
    space.pipe(&["history"]).code(0).prints("+05:30  chain");
    space.pipe(&["log"]).code(0).prints("+05:30\n");
}

#[test]
fn history_of_one_pipeline_leaves_out_the_others() {
    let space = chain();
    space.write(
        "other.yaml",
        "stages: { a: { uses: command, with: { run: touch out/o/f, outputs: [o] } } }\n",
    );
    space.pipe(&["run", "other.yaml"]).code(0);
    assert_eq!(records(&space, &[]).len(), 2);
    let others = records(&space, &["./other.yaml"]);
    assert_eq!((others.len(), &others[0]["pipeline"]), (1, &json!("other")));
    space.pipe(&["history", "none.yaml"]).code(0).says("no run of `none.yaml` is on record");
}

#[test]
fn commands_that_only_read_make_no_cache() {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "one\n");
    space.write("other.txt", "");
    let before = space.files("");
    space.pipe(&["history"]).code(0).says("`pipe run FILE` makes the first");
    space.pipe(&["log"]).code(2).says("no run is on record here");
    space.pipe(&["diff"]).code(2).says("no run is on record here");
    space.pipe(&["status", "pipeline.yaml"]).code(0).prints("stale   clean");
    space.pipe(&["graph", "pipeline.yaml"]).code(0).prints("[stale]");
    space.pipe(&["why", "pipeline.yaml"]).code(0).prints("no run is on record");
    assert_eq!(space.files(""), before);
    assert!(!space.exists(".pipe"));
}

#[test]
fn a_record_tells_where_and_with_what_the_run_was_made() {
    let mut space = chain();
    space.set_env("PIPE_PARAM_step", "7");
    space.run(&["--set", "step=3", "-j", "1", "-m", "three"]).code(0);
    let run = &records(&space, &[])[0];
    assert_eq!(run["params"], json!({ "step": 3 }));
    assert_eq!(run["overrides"], json!(["--set step=3", "PIPE_PARAM_step=7"]));
    assert_eq!(run["versions"]["pipe"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&run["threads"], &run["device"], &run["message"]),
        (&json!(1), &json!("cpu"), &json!("three"))
    );
    assert!(run["cores"].as_u64().unwrap() >= 1);
    assert!(!run["host"].as_str().unwrap().is_empty());
    let megabytes = run["peak_memory_bytes"].as_u64().unwrap() >> 20;
    assert!((1..4096).contains(&megabytes), "{megabytes} MiB");
    let shown = space.pipe(&["log", "latest"]);
    for fact in
        ["message      three\n", "overrides    --set step=3, PIPE_PARAM_step=7\n", "params       step: 3\n"]
    {
        shown.code(0).prints(fact);
    }
    shown.prints("ran      scale").prints("because parameter `params.step`: 1 → 3").prints("cached   clean");
}

#[test]
fn a_record_names_the_commit_and_whether_something_was_not_committed() {
    let mut space = TestSpace::new(CHAIN);
    space.write("data.txt", "one\n");
    space.write("other.txt", "");
    space.set_env("HOME", space.path("").to_str().unwrap());
    let git = |arguments: &str| {
        let script = format!("git -c user.name=t -c user.email=t@t {arguments}");
        let status = space.command(&[]).get_envs().fold(
            std::process::Command::new("sh"),
            |mut shell, (name, value)| {
                shell.env(name, value.unwrap_or_default());
                shell
            },
        );
        let mut shell = status;
        assert!(
            shell.args(["-ec", &script]).current_dir(space.path("")).output().unwrap().status.success(),
            "{script}"
        );
    };
    git("init -q . && git add pipeline.yaml && git -c user.name=t -c user.email=t@t commit -qm one");
    space.run(&[]).code(0);
    let commit = records(&space, &[])[0]["commit"].as_str().unwrap().to_owned();
    assert_eq!(commit.len(), 12, "{commit}");
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&[]).code(0);
    assert_eq!(records(&space, &[])[0]["commit"], format!("{commit}+"));
}

#[test]
fn a_run_is_found_by_its_age_the_beginning_of_its_id_or_a_tag() {
    let space = two_runs();
    let (latest, first) = (id(&space, 0), id(&space, 1));
    let found = |name: &str| {
        let report = space.pipe(&["log", name, "--json"]);
        report.code(0);
        serde_json::from_str::<Value>(&report.stdout).unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        [found("latest"), found("latest~0"), found(&latest), found(&latest[..24])],
        [(); 4].map(|()| latest.clone())
    );
    space.pipe(&["tag", "latest~1", "paper"]).code(0).says(&format!("run {first} is tagged `paper`"));
    assert_eq!([found("latest~1"), found(&first), found("paper")], [(); 3].map(|()| first.clone()));
    let unknown = |name: &str, message: &str| {
        space.pipe(&["log", name]).code(2).says(message).says("help: ");
    };
    unknown("latest~2", "`latest~2` goes back too far: 2 runs are on record");
    unknown("20", &format!("the id of more than one run begins with `20`: {latest}, {first}"));
    unknown("papre", "no run is called `papre`");
}

#[test]
fn a_tag_stays_with_its_run_until_it_is_deleted() {
    let space = two_runs();
    let (latest, first) = (id(&space, 0), id(&space, 1));
    space.pipe(&["tag", &first, "best"]).code(0);
    space.pipe(&["tag", &first, "best"]).code(0);
    space
        .pipe(&["tag", "latest", "best"])
        .code(2)
        .says(&format!("run {first} is tagged `best`"))
        .says("--delete best");
    assert_eq!(
        (&records(&space, &[])[0]["tags"], &records(&space, &[])[1]["tags"]),
        (&json!([]), &json!(["best"]))
    );
    space.pipe(&["history"]).prints("  best\n");
    space.pipe(&["tag", "--delete", "best"]).code(0);
    space.pipe(&["tag", "--delete", "best"]).code(2).says("no run is tagged `best`");
    space.pipe(&["tag", "best", "best"]).code(2).says("no run is called `best`");
    space.pipe(&["tag", &latest, "best"]).code(0);
    for wrong in ["latest", "2026", "../x", "a b"] {
        space.pipe(&["tag", "latest", wrong]).code(2).says(&format!("`{wrong}` cannot be a tag"));
    }
    space.pipe(&["tag", "latest"]).code(2).says("NAME");
}

#[test]
fn a_stage_has_a_log_of_what_it_told() {
    let space = TestSpace::new(
        "stages:\n  talk: { uses: command, with: { run: 'echo hello; echo twice >&2; touch out/o/f', outputs: [o] } }\n",
    );
    space.run(&[]).code(0);
    let log = space.pipe(&["log", "talk"]);
    log.code(0);
    let words: Vec<(&str, &str)> = log
        .stdout
        .lines()
        .filter_map(|line| line[12..].split_once(' '))
        .map(|(word, text)| (word, text.trim()))
        .collect();
    assert!(words[0].0 == "begin" && words[0].1.starts_with("talk at 2"), "{log}");
    assert_eq!(words[1], ("because", "it has no result on record"));
    assert!(words.contains(&("note", "hello")) && words.contains(&("note", "twice")), "{log}");
    assert_eq!(words.last(), Some(&("end", "done")));
    // Seconds since it began.
    let seconds: Vec<f64> = log.stdout.lines().map(|line| line[..10].trim().parse().unwrap()).collect();
    assert!(seconds.is_sorted() && seconds[0] < 60.0, "{seconds:?}");
}

#[test]
fn the_memory_of_a_program_is_on_record_where_it_can_be_told() {
    let space = TestSpace::new(
        "stages:\n  large: { uses: command, with: { run: 'head -c 200000000 /dev/zero | tail -c 100000000 > /dev/null; touch out/o/f', \
         outputs: [o] } }\n  small: { uses: command, in: { large: large }, with: { run: 'touch out/o/f', outputs: [o] } }\n",
    );
    space.run(&[]).code(0);
    let stages = &records(&space, &[])[0]["stages"];
    let megabytes = stages[0]["peak_memory_bytes"].as_u64().unwrap() as f64 / 1_048_576.0;
    assert!((95.0..400.0).contains(&megabytes), "{megabytes} MiB");
    space.pipe(&["log", "large"]).code(0).prints(&format!("memory    {megabytes:.1} MiB at most\n"));
    // It held less than pipe did when it started it.
    assert_eq!(stages[1]["peak_memory_bytes"], Value::Null);
}

#[test]
fn a_failed_stage_names_its_log_and_one_that_never_started_has_none() {
    let space = TestSpace::new(
        "stages:\n  bad: { uses: command, with: { run: 'echo before; exit 3', outputs: [o] } }\n\
         \x20 after: { uses: command, in: { bad: bad }, with: { run: 'true', outputs: [o] } }\n\
         \x20 lost: { uses: command, with: { run: 'true', outputs: [o], files: [none.txt] } }\n",
    );
    let report = space.run(&["-k"]);
    report.code(1).says(&format!("log: .pipe/logs/{}/bad.log\n", id(&space, 0)));
    let log = space.read(&format!(".pipe/logs/{}/bad.log", id(&space, 0)));
    assert!(
        log.contains("note      before\n") && log.contains("failed    the program ended with exit status: 3"),
        "{log}"
    );
    assert_eq!(space.pipe(&["log", "bad"]).stdout, log);
    let skipped = space.pipe(&["log", "after", "--run", "latest"]);
    skipped.code(0).says("`after` was not run").says("`bad` failed");
    assert_eq!(skipped.stdout, "");
    space
        .pipe(&["log", "bda", "--run", "latest"])
        .code(2)
        .says("has no stage `bda`")
        .says("did you mean `bad`?");
}

#[test]
fn the_log_of_a_stage_is_there_while_it_runs_and_after_its_run_was_killed() {
    let space = TestSpace::new(
        "stages: { slow: { uses: command, with: { run: 'echo hello; touch $DIR/started; sleep 60', outputs: [o], \
         environment: [DIR] } } }\n",
    );
    let running = space.start(&[]);
    space.wait_for("started");
    let tells = || space.pipe(&["log", "slow"]).stdout.contains("note      hello");
    wait_until(tells, || format!("the log never came: {}", space.pipe(&["log", "slow"])));
    space.pipe(&["log", "slow"]).code(0).says("`slow` is running in run");
    running.signal("KILL");
    running.finish();
    let files = space.files(".pipe/logs");
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(space.read(&format!(".pipe/logs/{}", files[0])).contains("begin     slow at "));
    space.pipe(&["log", "slow"]).code(0).prints("note      hello").says("or was killed with it");
    space.pipe(&["history"]).code(0).prints("unfinished");
}

#[test]
fn the_log_of_a_cached_stage_is_that_of_the_run_that_made_it() {
    let space = two_runs();
    let report = space.pipe(&["log", "clean", "--run", "latest"]);
    let (latest, first) = (id(&space, 0), id(&space, 1));
    report.code(0).says(&format!("`clean` was cached in run {latest}; this is its log in run {first}"));
    report.prints("begin     clean at ");
    assert_eq!(space.pipe(&["log", "clean"]).stdout, report.stdout);
    space
        .pipe(&["log", "scale", "--run", "latest~1"])
        .code(0)
        .prints("because   it has no result on record\n");
    space.pipe(&["log", "scale"]).code(0).prints("because   parameter `params.step`: 1 → 2\n");
}

#[test]
fn the_stages_of_a_matrix_have_a_log_each() {
    let space = TestSpace::new(
        "stages:\n  s: { uses: command, matrix: { x: [1, a b] }, with: { run: 'echo is ${matrix.x}; touch out/o/f', outputs: [o] } }\n",
    );
    space.run(&[]).code(0);
    let one = space.pipe(&["log", "s[x=a b]"]);
    one.code(0).prints("note      is a b\n");
    assert!(!one.stdout.contains("==>"), "{one}");
    let both = space.pipe(&["log", "s"]);
    both.code(0).prints("==> s[x=1] <==\n").prints("==> s[x=a b] <==\n").prints("note      is 1\n");
    let id = id(&space, 0);
    assert_eq!(space.files(".pipe/logs"), [format!("{id}/s[x=1].log"), format!("{id}/s[x=a%20b].log")]);
}

#[test]
fn a_name_that_is_both_a_run_and_a_stage_must_be_told_apart() {
    let space = chain();
    space.pipe(&["tag", "latest", "clean"]).code(0);
    space.pipe(&["log", "clean"]).code(2).says("`clean` is both a run and a stage").says("--run RUN");
    space.pipe(&["log", "clean", "--run", "clean"]).code(0).prints("begin     clean at ");
    space.pipe(&["log", "total", "--json"]).code(2).says("`--json` shows a run");
}

/// Facts come from a kind that tells some; the synthetic cohort is small.
const COHORT: &str = r#"
name: cohort
params: { cases: 4, old: 1 }
stages:
  cases: { uses: import, with: { from: phantom, phantom: { cases: "${cases}", seed: 1, shape: [16, 16, 16] } } }
  split: { uses: split, in: { cases: cases }, with: { folds: 2, test: 0.5, group_by: case }, seed: 7 }
  look: { uses: command, with: { run: 'echo $MODE > out/o/f', outputs: [o], environment: [MODE] } }
  gone: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } }
"#;

#[test]
fn a_diff_tells_params_facts_inputs_environment_seeds_and_stages() {
    let mut space = TestSpace::new(COHORT);
    space.set_env("MODE", "slow");
    space.run(&["-m", "four"]).code(0);
    let changed = COHORT
        .replace("cases: 4, old: 1", "cases: 6")
        .replace("seed: 7", "seed: 8")
        .replace("  gone:", "  more:");
    space.write("pipeline.yaml", &changed);
    space.set_env("MODE", "fast");
    space.run(&["-m", "six"]).code(0);
    let diff = space.pipe(&["diff"]);
    diff.code(0);
    for text in [
        "  four\nnew  ",
        "\nparams\n  cases: 4 → 6 (+2)\n  old: 1 → none\n",
        "\nstage cases\n  parameter `phantom.cases`: 4 → 6\n",
        "  cases: 4 → 6 (+2)\n",
        "\nstage split\n  input `cases` from stage `cases` changed: `cases.csv` changed",
        "  seed: 7 → 8\n",
        "\nstage look\n  environment `MODE`: slow → fast\n  other bytes in o\n",
        "\nonly in the old run: gone\n",
        "\nonly in the new run: more\n",
        "\n0 stages are the same\n",
    ] {
        diff.prints(text);
    }
    let machine = space.pipe(&["diff", "latest~1", "latest", "--json"]);
    let value: Value = serde_json::from_str(&machine.code(0).stdout).unwrap();
    let stages: Vec<_> =
        value["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["cases", "split", "look"]);
    assert_eq!(value["params"][0], json!({ "name": "cases", "old": 4, "new": 6, "difference": 2.0 }));
    assert_eq!((&value["old"], &value["new"]), (&json!(id(&space, 1)), &json!(id(&space, 0))));
    // The other way round, and with itself.
    space.pipe(&["diff", "latest", "latest~1"]).code(0).prints("  cases: 6 → 4 (-2)\n");
    space.pipe(&["diff", "latest", "latest"]).code(0).prints("\n4 stages are the same\n");
}

#[test]
fn a_diff_tells_how_a_stage_ended_where_it_gave_no_result() {
    let space = chain();
    space.write("data.txt", "# nothing is left\n");
    space.run(&[]).code(1);
    let diff = space.pipe(&["diff"]);
    diff.code(0).prints(
        "stage clean\n  ran → failed\n  external files `files/data.txt` changed: `data.txt` changed\n",
    );
    diff.prints("stage total\n  ran → skipped\n");
}

#[test]
fn a_diff_needs_two_runs_of_one_pipeline() {
    let space = chain();
    space.pipe(&["diff"]).code(2).says("is the first of `chain` on record");
    space.write(
        "other.yaml",
        "stages: { a: { uses: command, with: { run: touch out/o/f, outputs: [o] } } }\n",
    );
    space.pipe(&["run", "other.yaml"]).code(0);
    space.pipe(&["diff"]).code(2).says("is the first of `other` on record");
    // Asked for by name, any two may be compared.
    space.pipe(&["diff", "latest~1", "latest"]).code(0).prints("  pipeline: chain → other\n");
}

#[test]
fn a_damaged_tag_hides_no_run() {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "one");
    space.write("other.txt", "other");
    space.run(&[]).code(0);
    space.pipe(&["tag", "latest", "good"]).code(0);
    space.write(".pipe/tags/bad", "");
    space.pipe(&["history"]).code(0).prints("good").does_not_say("warning");
}

#[test]
fn every_id_that_history_prints_names_its_run() {
    let space = chain();
    for message in ["two", "three"] {
        space.run(&["-m", message]).code(0);
    }
    // As if all of them had begun in the same second.
    let ids: Vec<String> =
        records(&space, &[]).iter().map(|run| run["id"].as_str().unwrap().into()).collect();
    for (at, id) in ids.iter().rev().enumerate() {
        let same = format!("20240102-030405-00{at}-00000{at}");
        let record = space.read(&format!(".pipe/runs/{id}.json")).replace(id, &same);
        std::fs::remove_file(space.path(&format!(".pipe/runs/{id}.json"))).unwrap();
        space.write(&format!(".pipe/runs/{same}.json"), record);
    }
    for count in ["1", "2", "3"] {
        let table = space.pipe(&["history", "-n", count]).stdout;
        let told: Vec<&str> = table.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(told.len().to_string(), count, "{table}");
        for id in told {
            space.pipe(&["log", id]).code(0).prints(&format!("run {id}"));
        }
    }
}
