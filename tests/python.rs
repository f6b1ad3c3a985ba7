//! The pipeline with the user's own Python: it runs anywhere, and what it depends on reruns it.

use crate::golden::root;
use crate::space::TestSpace;
use std::fs;
use std::process::Command;

const FILE: &str = "pipelines/python.yaml";
const REQUIREMENTS: &str = "pipelines/python/requirements.txt";

/// A space with the pipeline and its scripts; `None`, loudly, without Python.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn space() -> Option<TestSpace> {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: there is no python3 on PATH");
        return None;
    }
    let space = TestSpace::new("");
    let scripts = fs::read_dir(root().join("pipelines/python")).unwrap();
    let scripts = scripts.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for path in scripts.chain([root().join(FILE)]) {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        space.write(&name, fs::read_to_string(&path).unwrap());
    }
    Some(space)
}

#[test]
fn a_regression_in_plain_python_learns_and_reruns_only_what_changed() {
    let Some(space) = space() else { return };
    let run = |more: &[&str]| space.pipe(&[&["run", FILE], more].concat());
    run(&["--set", "epochs=1"]).code(0).says("note train  epoch 0: loss 0.").says("6 ran");
    let metrics = space.read("results/python/score/metrics/metrics.csv");
    let scores: Vec<f64> =
        metrics.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(scores.len(), 4, "{metrics}");
    // To call every voxel part of the structure would give 0.1 to 0.2.
    assert!(scores.iter().all(|score| (0.4..1.0).contains(score)), "{metrics}");
    run(&["--set", "epochs=1"]).code(0).says("nothing to do");
    // A script belongs to the stage that declares it, and bytes that do not change stop there.
    let script = "pipelines/python/score.py";
    space.write(script, &(space.read(script) + "# a comment\n"));
    run(&["--set", "epochs=1"]).code(0).says("1 ran").says("done score").does_not_say("running train");
}

#[test]
fn another_requirement_reruns_and_a_missing_package_is_told() {
    let Some(space) = space() else { return };
    let run = || space.pipe(&["run", FILE, "train", "--set", "epochs=1"]);
    run().code(0);
    space.write(REQUIREMENTS, "no-such-package==1.0 # why\n");
    let missing = run();
    missing
        .code(1)
        .says("`requirements.txt` changed")
        .says("no-such-package is not installed, 1.0 is needed");
    missing.says("pip install -r requirements.txt");
    space.write(REQUIREMENTS, "no-such-package\n");
    run().code(1).says("`no-such-package` pins no version: write no-such-package==VERSION");
}
