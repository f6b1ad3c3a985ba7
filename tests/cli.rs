//! What the commands print: pictures, lists, help, schema, and the real pipelines of the repository.

use crate::golden::{cases, check, root};
use crate::running::chain;
use crate::space::TestSpace;
use std::fs;
use std::process::{Command, Output};

/// `pipe ARGS…` in the root of the repository.
fn at_root(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(arguments).current_dir(root()).env_clear().env("NO_COLOR", "1");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).output().unwrap()
}

/// The pipeline of `cases/graph`, where `data.txt` has changed after a run: cached, stale and unsure stages.
fn half_stale() -> TestSpace {
    let space = TestSpace::new(&fs::read_to_string(cases("graph").join("pipeline.yaml")).unwrap());
    space.write("data.txt", "1");
    space.run(&[]).code(0);
    space.write("data.txt", "2");
    space
}

#[track_caller]
fn graph(name: &str, arguments: &[&str]) {
    let report = half_stale().pipe(&[&["graph", "pipeline.yaml"], arguments].concat());
    report.code(0);
    assert_eq!(report.stderr, "");
    check(&cases("graph").join(name), &report.stdout);
}

#[test]
fn a_graph_is_a_tree_unless_asked_otherwise() {
    graph("tree.txt", &[]);
    graph("tree.txt", &["--format", "tree"]);
    graph("tree-expanded.txt", &["--expand"]);
}

#[test]
fn a_graph_is_drawn_for_graphviz() {
    graph("graph.dot", &["--format", "dot"]);
    graph("graph-expanded.dot", &["--format", "dot", "--expand"]);
}

#[test]
fn a_graph_is_drawn_for_mermaid() {
    graph("graph.mmd", &["--format", "mermaid"]);
    graph("graph-expanded.mmd", &["--format", "mermaid", "--expand"]);
}

#[test]
fn a_graph_is_data_for_machines() {
    graph("graph.json", &["--format", "json"]);
    graph("graph-expanded.json", &["--format", "json", "--expand"]);
    let report = half_stale().pipe(&["graph", "pipeline.yaml", "--format", "json", "--expand"]);
    let graph: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(graph["stages"].as_array().unwrap().len(), 7);
}

#[test]
fn quotes_and_backslashes_of_names_do_not_end_a_label() {
    let space = TestSpace::new(
        "stages: { s: { uses: command, matrix: { x: ['a\\b\"c', d] }, with: { run: [touch, out/o/f], outputs: [o] } } }\n",
    );
    let dot = space.pipe(&["graph", "pipeline.yaml", "--format", "dot", "--expand"]);
    dot.code(0).prints(r#"[label="s[x=a\\b\"c]\ncommand", "#);
}

#[test]
fn keys_that_begin_with_x_hold_anchors() {
    let space = TestSpace::new(
        "x-common: &common { uses: command, with: { run: 'true', outputs: [o] } }\nstages: { a: *common, b: *common }\n",
    );
    space.pipe(&["check", "pipeline.yaml"]).code(0).prints("2 stages, no problems");
    space.write(
        "pipeline.yaml",
        "stages: { a: { uses: command, x-more: 1, with: { run: 'true', outputs: [o] } } }\n",
    );
    space.pipe(&["check", "pipeline.yaml"]).code(2).says("has an unknown key `x-more`");
}

#[test]
fn an_unknown_format_is_a_user_error() {
    chain().pipe(&["graph", "pipeline.yaml", "--format", "bmp"]).code(2).says("mermaid");
}

#[test]
fn stages_lists_every_kind_with_a_sentence() {
    let output = at_root(&["stages"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        let (kind, sentence) = line.split_once(' ').unwrap();
        let sentence = sentence.trim();
        assert!(kind.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{line}");
        assert!(sentence.ends_with('.') && sentence.starts_with(|c: char| c.is_uppercase()), "{line}");
    }
    assert!(text.contains("command"), "{text}");
}

#[test]
fn stages_describes_every_parameter_of_every_kind() {
    let kinds = String::from_utf8(at_root(&["stages"]).stdout).unwrap();
    assert!(kinds.contains("command"), "{kinds}");
    let mut silent = Vec::new();
    for kind in kinds.lines().map(|line| line.split(' ').next().unwrap()) {
        let output = at_root(&["stages", kind]);
        assert_eq!(output.status.code(), Some(0), "{kind}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let is_parameter = line.starts_with("  ") && !line.starts_with("   ") && *line != "  none";
            let is_described = lines.get(at + 1).is_some_and(|next| next.starts_with("      "));
            if is_parameter && (!is_described || line.contains("any value")) {
                silent.push(format!("{kind}:{line}"));
            }
        }
    }
    assert!(silent.is_empty(), "without a description or type:\n{}", silent.join("\n"));
}

#[test]
fn stages_describes_one_kind() {
    let output = at_root(&["stages", "command"]);
    assert_eq!(output.status.code(), Some(0));
    check(&cases("stages").join("command.txt"), &String::from_utf8(output.stdout).unwrap());
}

#[test]
fn an_unknown_kind_is_a_user_error_with_a_suggestion() {
    let output = at_root(&["stages", "comand"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("there is no stage kind `comand`") && stderr.contains("did you mean `command`?"),
        "{stderr}"
    );
}

#[test]
fn the_schema_for_editors_is_up_to_date() {
    let output = at_root(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    check(&root().join("pipelines/schema.json"), &String::from_utf8(output.stdout).unwrap());
}

#[test]
fn the_schema_names_every_definition_that_it_uses() {
    fn references(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                found.extend(map.get("$ref").and_then(|name| name.as_str()).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let schema: serde_json::Value = serde_json::from_slice(&at_root(&["schema"]).stdout).unwrap();
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let place = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
        assert!(schema.pointer(place).is_some(), "{reference} names nothing");
    }
}

#[test]
fn every_pipeline_of_the_repository_plans() {
    let entries = fs::read_dir(root().join("pipelines")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|name| name == "yaml")).collect();
    files.sort();
    assert!(!files.is_empty(), "there is no pipeline");
    for file in files {
        let file = format!("pipelines/{}", file.file_name().unwrap().display());
        let output = at_root(&["check", &file]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{file}:\n{stderr}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("no problems"), "{file}");
        let text = fs::read_to_string(root().join(&file)).unwrap();
        assert!(
            text.contains("# yaml-language-server: $schema=schema.json"),
            "{file} names no schema for editors"
        );
    }
}

#[test]
fn check_counts_the_stages_and_makes_no_cache() {
    let space = TestSpace::new(
        "stages: { a: { uses: command, matrix: { x: [1, 2] }, with: { run: x, outputs: [o] } } }\n",
    );
    space.pipe(&["check", "pipeline.yaml"]).code(0).prints("pipeline.yaml: 2 stages, no problems\n");
    assert_eq!(space.files(""), ["pipeline.yaml", "wait.sh"]);
}

#[test]
fn the_version_is_that_of_the_crate() {
    let output = at_root(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("pipe {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_goes_to_stdout_and_a_wrong_argument_to_stderr() {
    let help = at_root(&["run", "--help"]);
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("--keep-going"));
    for arguments in [&["run"][..], &["rnu"], &["run", "a.yaml", "--jobs", "0"], &[]] {
        let wrong = at_root(arguments);
        assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(!wrong.stderr.is_empty());
    }
}

#[test]
fn another_folder_can_be_worked_in() {
    let space = TestSpace::new("");
    space.write(
        "inner/pipeline.yaml",
        "stages: { a: { uses: command, with: { run: 'cp f out/o/f', outputs: [o], files: [f] } } }\n",
    );
    space.write("inner/f", "1");
    space.pipe(&["-C", "inner", "run", "pipeline.yaml"]).code(0);
    assert!(
        space.exists("inner/.pipe") && space.exists("inner/results/pipeline/a/o/f") && !space.exists(".pipe")
    );
    space.pipe(&["-C", "nowhere", "list"]).code(2).says("cannot work in `nowhere`").says("help: ");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    // The schema is larger than what a pipe holds, so `pipe` is still writing when `head` ends.
    let script = format!("{{ '{}' schema; echo $? >&2; }} | head -c 1", env!("CARGO_BIN_EXE_pipe"));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "0\n");
}

#[test]
fn without_a_terminal_nothing_is_coloured_and_nothing_is_drawn_over() {
    let space =
        TestSpace::new("stages: { a: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } } }\n");
    let report = space.command(&["run", "pipeline.yaml"]).env_remove("NO_COLOR").output().unwrap();
    let stderr = String::from_utf8(report.stderr).unwrap();
    assert!(stderr.contains("done a"), "{stderr}");
    assert!(!stderr.contains('\x1b') && !stderr.contains('\r'), "{stderr:?}");
    assert_eq!(report.stdout, b"");
}
