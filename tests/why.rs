//! `pipe why` and `pipe why --plan`, one test for each kind of cause: what the user reads must name it.

use crate::running::{CHAIN, chain};
use crate::space::TestSpace;
use pipe_cache::{Cache, Manifest};
use std::fs;
use std::path::PathBuf;

/// Asserts that `why` gives exactly these reasons for `stage`, before the run, in the run and after it.
#[track_caller]
fn check(space: &TestSpace, stage: &str, reasons: &[&str]) {
    let lines: String = reasons.iter().map(|reason| format!("    because {reason}\n")).collect();
    space.pipe(&["why", "pipeline.yaml", stage]).code(0).prints(&format!("  now: would run\n{lines}"));
    let plan = space.pipe(&["why", "--plan", "pipeline.yaml", stage]);
    plan.code(0).prints(&format!("would run  {stage}  because {}\n", reasons.join("; ")));
    space.run(&[stage]).code(0).says(&format!("running {stage}  {}", reasons[0]));
    let after = space.pipe(&["why", "pipeline.yaml", stage]);
    after.code(0).prints(&format!("\n{lines}")).prints("  now: up to date\n");
    assert!(after.stdout.contains(": ran in "), "{after}");
}

/// One stage that copies nothing, with `with` for its parameters beside `run` and `outputs`.
fn single(with: &str) -> String {
    format!("stages:\n  s:\n    uses: command\n    with: {{ run: 'touch out/o/f', outputs: [o], {with} }}\n")
}

/// Runs one pipeline, then asks why another would run.
#[track_caller]
fn check_edit(before: &str, after: &str, stage: &str, reasons: &[&str]) {
    let space = TestSpace::new(before);
    for name in ["x.txt", "y.txt"] {
        space.write(name, name);
    }
    space.run(&[]).code(0);
    space.write("pipeline.yaml", after);
    check(&space, stage, reasons);
}

#[test]
fn a_stage_that_never_ran() {
    check(&TestSpace::new(&single("")), "s", &["it has no result on record"]);
}

#[test]
fn a_forced_stage() {
    let space = chain();
    space.run(&["--force", "clean"]).ran(&["clean"]);
    space
        .pipe(&["why", "pipeline.yaml", "clean"])
        .code(0)
        .prints("    because it was forced\n  now: up to date\n");
}

#[test]
fn a_changed_an_added_and_a_removed_param() {
    let [one, two] = ["params: { a: 1, gone: x }", "params: { a: { b: [2] }, more: true }"].map(single);
    let reasons = [
        "parameter `params.a`: 1 → {\"b\":[2]}",
        "parameter `params.gone` removed, was \"x\"",
        "parameter `params.more` added: true",
    ];
    check_edit(&one, &two, "s", &reasons);
}

#[test]
fn an_external_file_that_changed_was_added_or_is_no_longer_read() {
    let space = TestSpace::new(&single("files: [x.txt]"));
    space.write("x.txt", "1");
    space.run(&[]).code(0);
    space.write("x.txt", "2");
    check(&space, "s", &["external files `files/x.txt` changed: `x.txt` changed"]);
    check_edit(
        &single("files: [x.txt]"),
        &single("files: [y.txt]"),
        "s",
        &[
            "parameter `files`: [\"x.txt\"] → [\"y.txt\"]",
            "external files `files/x.txt` removed",
            "external files `files/y.txt` added",
        ],
    );
}

#[test]
fn files_of_a_folder_are_named_and_counted() {
    let space = TestSpace::new(&single("files: [data]"));
    for name in ["a", "b", "c"] {
        space.write(&format!("data/{name}"), name);
    }
    space.run(&[]).code(0);
    fs::remove_file(space.path("data/a")).unwrap();
    for name in ["b", "d", "e"] {
        space.write(&format!("data/{name}"), "new");
    }
    check(
        &space,
        "s",
        &["external files `files/data` changed: `a` removed, `b` changed, `d` added, and 1 more"],
    );
}

#[test]
fn an_input_with_other_content_names_its_stage_and_its_files() {
    let space = chain();
    space.write("data.txt", "three\n");
    let plan = space.pipe(&["why", "--plan", "pipeline.yaml"]);
    let expected = "would run  clean  because external files `files/data.txt` changed: `data.txt` changed\n\
                    may run    scale  because it needs `clean`, which would run\n\
                    may run    total  because it needs `clean`, which would run\n\
                    1 stage is up to date\n";
    assert_eq!(plan.code(0).stdout, expected);
    space.run(&["clean"]).ran(&["clean"]);
    check(&space, "scale", &["input `text` from stage `clean` changed: `lines` changed"]);
}

#[test]
fn nothing_would_run() {
    let plan = chain().pipe(&["why", "--plan", "pipeline.yaml"]);
    assert_eq!(plan.code(0).stdout, "nothing would run: 4 stages are up to date\n");
}

/// `all` reads `a` and `b`.
const SEVERAL: &str = r"
stages:
  a: { uses: command, with: { run: 'echo a > out/o/f', outputs: [o] } }
  b: { uses: command, with: { run: 'echo b > out/o/f', outputs: [o] } }
  all: { uses: command, in: { parts: [a, b] }, with: { run: 'touch out/o/f', outputs: [o] } }
";

#[test]
fn an_input_that_was_added_or_removed() {
    let one = SEVERAL.replace("[a, b]", "[a]");
    check_edit(&one, SEVERAL, "all", &["input `parts` from stage `b` added"]);
    check_edit(SEVERAL, &one, "all", &["input `parts` from stage `b` removed"]);
}

#[test]
fn inputs_in_another_order() {
    let turned = SEVERAL.replace("[a, b]", "[b, a]");
    check_edit(
        SEVERAL,
        &turned,
        "all",
        &["input `parts`: same elements in another order, or in other folders"],
    );
}

#[test]
fn an_output_that_was_added_or_removed() {
    let [one, two] = [("touch out/o/f", "[o]"), ("touch out/o/f out/p/f", "[o, p]")]
        .map(|(run, outputs)| single("").replace("touch out/o/f", run).replace("[o]", outputs));
    for (before, after, reasons) in [
        (
            &one,
            &two,
            "parameter `outputs`: [\"o\"] → [\"o\",\"p\"]; parameter `run`: \"touch out/o/f\" → \"touch out/o/f out/p/f\"; output `p` added",
        ),
        (
            &two,
            &one,
            "parameter `outputs`: [\"o\",\"p\"] → [\"o\"]; parameter `run`: \"touch out/o/f out/p/f\" → \"touch out/o/f\"; output `p` removed",
        ),
    ] {
        let space = TestSpace::new(before);
        space.run(&[]).code(0);
        space.write("pipeline.yaml", after);
        space
            .pipe(&["why", "--plan", "pipeline.yaml"])
            .code(0)
            .prints(&format!("would run  s  because {reasons}\n"));
    }
}

#[test]
fn an_environment_variable() {
    let mut space = TestSpace::new(&single("environment: [MODE]"));
    space.run(&[]).code(0);
    space.set_env("MODE", "fast");
    check(&space, "s", &["environment `MODE`: none → fast"]);
    space.set_env("MODE", "slow");
    check(&space, "s", &["environment `MODE`: fast → slow"]);
}

#[test]
fn a_seed() {
    let pipeline = |seed: u32| {
        format!(
            "stages:\n  cases: {{ uses: import, with: {{ from: phantom, phantom: {{ cases: 4, seed: 1, shape: [16, 16, 16] }} }} }}\n\
             \x20 split: {{ uses: split, in: {{ cases: cases }}, with: {{ folds: 2, test: 0.5, group_by: case }}, seed: {seed} }}\n"
        )
    };
    check_edit(&pipeline(7), &pipeline(8), "split", &["seed: 7 → 8"]);
}

#[test]
fn another_kind() {
    let space = TestSpace::new(
        "stages: { s: { uses: import, with: { from: phantom, phantom: { cases: 2, seed: 1, shape: [16, 16, 16] } } } }\n",
    );
    space.run(&[]).code(0);
    space.write("pipeline.yaml", single(""));
    let why = space.pipe(&["why", "pipeline.yaml", "s"]);
    why.code(0).prints("    because kind: `import` → `command`\n");
}

/// Makes the record of the last run say that the stage was made by another manifest, as if by another pipe.
fn made_by_another_pipe(space: &TestSpace, change: impl FnOnce(&mut Manifest)) {
    let cache = Cache::open(&space.path(".pipe")).unwrap();
    let id = cache.runs.ids().unwrap().remove(0);
    let mut run = cache.runs.load(&id).unwrap().unwrap();
    let stage = &mut run.stages[0];
    let mut manifest = Manifest::get(&cache.store, &stage.manifest.unwrap()).unwrap();
    change(&mut manifest);
    (stage.key, stage.manifest) = (Some(manifest.key()), Some(manifest.put(&cache.store).unwrap()));
    cache.runs.save(&run).unwrap();
    fs::remove_dir_all(space.path(".pipe/actions-v1")).unwrap();
}

#[test]
fn another_version_of_the_code_another_format_or_another_device() {
    let space = TestSpace::new(&single(""));
    space.run(&[]).code(0);
    made_by_another_pipe(&space, |manifest| {
        manifest.version += 1;
        manifest.outputs.get_mut("o").unwrap().format += 1;
        manifest.device = Some("cuda".into());
    });
    let plan = space.pipe(&["why", "--plan", "pipeline.yaml"]);
    let cache = Cache::open(&space.path(".pipe")).unwrap();
    let run = cache.runs.load(&cache.runs.ids().unwrap()[0]).unwrap().unwrap();
    let other = Manifest::get(&cache.store, &run.stages[0].manifest.unwrap()).unwrap();
    let (version, format) = (other.version, other.outputs["o"].format);
    let name = &other.outputs["o"].name;
    plan.code(0).prints(&format!(
        "because version of the code: {version} → {}; port `o`: {name} format {format} → {name} format {}; device: cuda → none\n",
        version - 1,
        format - 1
    ));
}

/// The only file below a folder of `.pipe`.
fn only_file(space: &TestSpace, folder: &str) -> PathBuf {
    let files = space.files(folder);
    assert_eq!(files.len(), 1, "{files:?}");
    space.path(folder).join(&files[0])
}

#[test]
fn a_result_whose_files_are_gone() {
    let space = TestSpace::new(
        "stages: { s: { uses: command, with: { run: 'echo text > out/o/f', outputs: [o] } } }\n",
    );
    space.run(&[]).code(0);
    let content = fs::canonicalize(space.path("results/pipeline/s/o/f")).unwrap();
    let text = fs::read(content).unwrap();
    let object = space
        .files(".pipe/objects-v1")
        .into_iter()
        .map(|name| space.path(".pipe/objects-v1").join(name))
        .find(|path| fs::read(path).unwrap() == text)
        .unwrap();
    fs::remove_file(object).unwrap();
    check(&space, "s", &["its outputs are no longer in the cache"]);
}

#[test]
fn a_damaged_record_of_a_result() {
    let space = TestSpace::new(&single(""));
    space.run(&[]).code(0);
    let record = only_file(&space, ".pipe/actions-v1");
    let text = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    fs::write(&record, &text[..text.len() / 2]).unwrap();
    space
        .pipe(&["why", "pipeline.yaml", "s"])
        .code(0)
        .prints("    because the record of its result is damaged: ");
    space.run(&[]).code(0).says("the record of its result is damaged");
    space.pipe(&["why", "pipeline.yaml", "s"]).code(0).prints("  now: up to date\n");
}

#[test]
fn a_stage_that_failed_before() {
    let space = TestSpace::new("stages: { s: { uses: command, with: { run: 'exit 1', outputs: [o] } } }\n");
    space.run(&[]).code(1);
    let why = space.pipe(&["why", "pipeline.yaml"]);
    why.code(0).prints(": failed in ").prints("  now: would run\n    because it has no result on record\n");
}

#[test]
fn an_unknown_stage_is_a_user_error() {
    TestSpace::new(CHAIN).pipe(&["why", "pipeline.yaml", "totl"]).code(2).says("did you mean `total`?");
}

#[test]
fn a_stage_that_failed_last_time_is_told_apart_from_its_last_result() {
    let space = TestSpace::new(&single("files: [x.txt]").replace("run: '", "run: 'grep -q good x.txt && "));
    space.write("x.txt", "good 1");
    space.run(&[]).code(0);
    space.write("x.txt", "bad");
    for _ in 0..2 {
        space.run(&[]).code(1).says("running s  external files `files/x.txt` changed: `x.txt` changed");
    }
}

#[test]
fn what_cannot_be_hashed_would_fail_and_says_nothing_of_others() {
    let space = TestSpace::new(
        "stages:\n  a: { uses: command, with: { run: 'touch out/o/f', outputs: [o], files: [loop] } }\n  b: { uses: command, \
         in: { a: a }, with: { run: 'touch out/o/f', outputs: [o] } }\n  c: { uses: command, with: { run: 'echo c > out/o/f', \
         outputs: [o] } }\n",
    );
    space.write("loop/file", "");
    std::os::unix::fs::symlink(".", space.path("loop/again")).unwrap();
    let plan = space.pipe(&["why", "--plan", "pipeline.yaml"]);
    plan.code(0).prints("would fail  a  because ").prints("links back to a folder that holds it");
    plan.prints("may run    b  because it needs `a`, which would fail\n");
    plan.prints("would run  c  because it has no result on record\n");
    space.pipe(&["status", "pipeline.yaml"]).code(0).prints("failing a");
}
