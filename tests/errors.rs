//! Wrong pipeline files. Each folder of `cases/errors` holds one, with exactly what pipe must say of it.
//!
//! `arguments.txt`, where there is one, holds more arguments of `pipe run`, one a line.

use crate::golden::{cases, compare};
use crate::space::{Report, TestSpace};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of the cases, sorted by name.
fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(cases("errors")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// A copy of a case, so that nothing can be left in the repository.
fn space(folder: &Path) -> (TestSpace, Vec<String>) {
    let space = TestSpace::new("");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name != "stderr.txt" {
            fs::copy(&path, space.path(name)).unwrap();
        }
    }
    let arguments = fs::read_to_string(folder.join("arguments.txt")).unwrap_or_default();
    (space, arguments.lines().map(str::to_owned).collect())
}

fn run(space: &TestSpace, command: &str, arguments: &[String]) -> Report {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    space.pipe(&[&[command, "pipeline.yaml"], arguments.as_slice()].concat())
}

#[test]
fn every_wrong_file_is_explained_and_nothing_is_run() {
    let folders = folders();
    assert!(folders.len() >= 40, "{} cases", folders.len());
    let mut wrong = Vec::new();
    for folder in &folders {
        let (space, arguments) = space(folder);
        let report = run(&space, "run", &arguments);
        if report.code != Some(2) || !report.stdout.is_empty() {
            wrong.push(format!(
                "{}: exit code 2 and an empty stdout were expected: {report}",
                folder.display()
            ));
        }
        if space.exists(".pipe") || space.exists("results") {
            wrong.push(format!("{}: something was run", folder.display()));
        }
        wrong.extend(compare(&folder.join("stderr.txt"), &report.stderr).err());
    }
    assert!(wrong.is_empty(), "{} cases are wrong\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn check_tells_the_same_as_run() {
    for folder in folders() {
        let (space, arguments) = space(&folder);
        let (run, check) = (run(&space, "run", &arguments), run(&space, "check", &arguments));
        assert_eq!(run.stderr, check.stderr, "{}", folder.display());
        assert_eq!((check.code, check.stdout.as_str()), (Some(2), ""), "{}", folder.display());
    }
}

/// A message without a place and a way out leaves the reader alone.
#[test]
fn every_problem_has_a_place_and_ends_with_help() {
    let mut wrong = Vec::new();
    for folder in folders() {
        let name = folder.file_name().unwrap().display();
        let text = fs::read_to_string(folder.join("stderr.txt")).unwrap();
        let last = text.lines().last().unwrap_or_default();
        let told = last.split(": ").nth(1).and_then(|count| count.split(' ').next()?.parse::<usize>().ok());
        let Some(problems) = told else {
            wrong.push(format!("{name}: the last line counts no problems: {last}"));
            continue;
        };
        let count = |word: &str| text.lines().filter(|line| line.trim_start().starts_with(word)).count();
        let (helps, places) = (count("help: "), count("╭─["));
        if helps != problems {
            wrong.push(format!("{name}: {problems} problems, {helps} helps"));
        }
        // What comes from the command line has no place in the file.
        if places != problems && !folder.join("arguments.txt").exists() {
            wrong.push(format!("{name}: {problems} problems, {places} places"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_a_user_error() {
    let space = TestSpace::new("");
    let report = space.pipe(&["run", "none.yaml"]);
    report.code(2).says("error: cannot read `none.yaml`").says("help: check the path");
    assert_eq!(report.stdout, "");
    assert!(!space.exists(".pipe"));
    fs::write(space.path("bytes.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    space.pipe(&["run", "bytes.yaml"]).code(2).says("error: cannot read `bytes.yaml`").says("help: ");
    space.pipe(&["run", "."]).code(2).says("error: cannot read `.`").says("help: ");
}

#[test]
fn many_problems_are_counted_after_the_first_fifty() {
    let stages: Vec<_> = (0..80).map(|at| format!("  s{at}: {{ uses: nothing }}\n")).collect();
    let space = TestSpace::new(&format!("stages:\n{}", stages.concat()));
    space.run(&[]).code(2).says("… and 30 more").says("80 problems, nothing was run");
}

#[test]
fn hostile_text_is_refused_without_a_crash() {
    let deep = "[".repeat(20_000);
    let wide = format!("stages: {{ a: {{ uses: command, matrix: {{ {} }} }} }}\n", {
        let axes: Vec<_> = (0..9).map(|axis| format!("x{axis}: {{ range: 1000 }}")).collect();
        axes.join(", ")
    });
    let texts = [
        deep.as_str(),
        wide.as_str(),
        "\u{feff}stages: 1",
        "\0",
        "%YAML 9.9\n---\nstages: 1",
        "stages: &a { b: *a }",
    ];
    for text in texts {
        let space = TestSpace::new(text);
        let report = space.run(&[]);
        report.code(2);
        assert!(!report.stderr.is_empty(), "{:?}", &text[..text.len().min(20)]);
    }
}

#[test]
fn problems_of_every_kind_are_told_at_once() {
    let (space, _) = space(&cases("errors").join("many"));
    let report = space.run(&[]);
    let told = [
        "unknown key `parms`",
        "`${home}` is not known",
        "unknown kind `imprt`",
        "there is no stage `case`",
        "unknown key `wiht`",
        "found `three`",
        "no parameter `zebra`",
        "axis `fold` has no values",
        "`cpu` of `again` cannot be `none`",
        "missing parameter `run`",
    ];
    let missing: Vec<_> = told.into_iter().filter(|text| !report.stderr.contains(text)).collect();
    assert!(missing.is_empty(), "not told: {missing:#?}\n{report}");
}

#[test]
fn an_input_without_a_source_is_told_before_anything_runs() {
    TestSpace::new("stages: { none: { uses: dedup, in: { cases: [] } } }\n").run(&[]).code(2).says("`cases`");
    let space = TestSpace::new(
        "stages: { none: { uses: command, in: { it: [] }, with: { run: 'true', outputs: [o] } } }\n",
    );
    space.run(&[]).code(2).says("`it`");
}

#[test]
fn a_kind_like_no_other_is_answered_with_all_kinds() {
    let kinds = "help: known kinds: import, ";
    TestSpace::new("stages: { a: { uses: segmentation } }\n").run(&[]).code(2).says(kinds);
    TestSpace::new("stages: { a: { uses: [import] } }\n")
        .run(&[])
        .code(2)
        .says(kinds)
        .does_not_say("unknown kind a list");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_file() {
    let space = TestSpace::new(
        "\u{feff}stages:\n  s: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } }\n",
    );
    space.run(&[]).code(0).says("1 ran");
    space.run(&[]).code(0).says("nothing to do");
    space.write("pipeline.yaml", "\u{feff}stages:\n  s: { usess: command }\n");
    space.run(&[]).code(2).says("pipeline.yaml:2:");
}

#[test]
fn brackets_without_end_are_told_at_once_and_with_their_place() {
    for open in ["[", "{a: "] {
        let space = TestSpace::new(&format!("stages:\n  a: {}", open.repeat(200_000)));
        let report = space.pipe(&["check", "pipeline.yaml"]);
        report.code(2).says("this is not YAML: brackets are nested more than 100 deep");
        report.says(&format!("pipeline.yaml:2:{}]", 6 + 100 * open.len()));
    }
}
