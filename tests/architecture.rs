//! The rules of the map as tests: who may depend on whom, who may print, which file must say what it owns.

use crate::golden::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crate folder, and which of our crates it may name.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("cache", &[]),
    ("stages/imaging", &[]),
    ("stages/nn", &[]),
    ("stages/onnx", &[]),
    ("stages/metrics", &[]),
    ("stages", &["pipe-cache", "pipe-imaging", "pipe-nn", "pipe-onnx", "pipe-metrics"]),
    (".", &["pipe-cache", "pipe-stages"]),
];

/// A file with more lines has a second subject.
const MAX_LINES: usize = 600;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every `.rs` file below a folder of the repository, with its path in it.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.strip_prefix(root()).unwrap().display().to_string(), read(&path)))
        .collect()
}

/// Sources of every crate, tests left out.
fn sources() -> Vec<(String, String)> {
    MAY_USE.iter().flat_map(|(folder, _)| rust_files(&format!("{folder}/src"))).collect()
}

/// Lines of the dependency sections of a `Cargo.toml`, dev and build ones included.
fn dependency_lines(toml: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in toml.lines() {
        if let Some(section) = line.trim().strip_prefix('[') {
            inside = section.contains("dependencies") && !section.starts_with("workspace");
        } else if inside && !line.trim().is_empty() && !line.trim().starts_with('#') {
            lines.push(line);
        }
    }
    lines
}

/// Names such as `pipe-cache` on a line, wherever they stand: as key, `package =` or path.
fn own_crates(line: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words = line.split(|c| !word(c)).map(|word| word.replace('_', "-"));
    words.filter(|word| word.starts_with("pipe-")).collect()
}

#[track_caller]
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn crates_depend_in_one_direction() {
    let mut broken = Vec::new();
    for (folder, allowed) in MAY_USE {
        let toml = read(&root().join(folder).join("Cargo.toml"));
        let lines = dependency_lines(&toml);
        assert!(!lines.is_empty(), "{folder}/Cargo.toml: no dependency was found");
        for line in lines {
            for name in own_crates(line).iter().filter(|name| !allowed.contains(&name.as_str())) {
                broken.push(format!("{folder}/Cargo.toml may not use {name}: {line}"));
            }
            if line.contains("path =") || line.contains("git =") {
                broken.push(format!(
                    "{folder}/Cargo.toml: paths stand in [workspace.dependencies] alone: {line}"
                ));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_crate_of_the_workspace_has_a_rule() {
    let toml = read(&root().join("Cargo.toml"));
    let members = toml.lines().find(|line| line.starts_with("members")).unwrap();
    let members: BTreeSet<_> = members.split('"').skip(1).step_by(2).collect();
    let ruled: BTreeSet<_> = MAY_USE
        .iter()
        .map(|(folder, _)| *folder)
        .filter(|folder| *folder != ".")
        .chain(["tests/xtask"])
        .collect();
    assert_eq!(members, ruled);
}

#[test]
fn dfdx_stays_in_the_crate_of_the_networks() {
    for (folder, _) in MAY_USE {
        let toml = read(&root().join(folder).join("Cargo.toml"));
        let used = dependency_lines(&toml).iter().any(|line| line.starts_with("dfdx"));
        assert_eq!(used, folder == "stages/nn", "{folder}");
    }
}

#[test]
fn one_file_alone_knows_yaml() {
    let broken: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| {
            path != "src/yaml.rs" && text.lines().any(|line| code(line).contains("serde_yaml"))
        })
        .map(|(path, _)| format!("{path} names serde_yaml"))
        .collect();
    none(&broken);
    for (folder, _) in MAY_USE.iter().filter(|(folder, _)| *folder != ".") {
        assert!(!read(&root().join(folder).join("Cargo.toml")).contains("serde_yaml"), "{folder}");
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn one_file_alone_prints() {
    let macros = ["print", "println", "eprint", "eprintln", "dbg"].map(|name| format!("{name}!"));
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let is_test =
            path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/testing.rs");
        if path == "src/console.rs" || path.starts_with("src/console/") || is_test {
            continue;
        }
        let program = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in program.lines().enumerate() {
            let word = |name: &String| {
                code(line)
                    .match_indices(name.as_str())
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            };
            if macros.iter().any(word) {
                broken.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let files = sources().into_iter().chain(rust_files("tests"));
    let broken: Vec<_> = files
        // A module of tests beside its subject says what it owns by its name.
        .filter(|(path, text)| !path.ends_with("/tests.rs") && !text.starts_with("//! "))
        .map(|(path, _)| format!("{path} does not begin with `//! `"))
        .collect();
    none(&broken);
}

#[test]
fn no_file_is_long() {
    let files = sources().into_iter().chain(rust_files("tests")).chain(rust_files("cache/tests"));
    let broken: Vec<_> = files
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path} has {lines} lines"))
        .collect();
    none(&broken);
}

#[test]
fn every_kind_that_is_written_is_registered() {
    let declaration = "const KIND: &'static str = \"";
    let written: BTreeSet<_> = rust_files("stages/src/kinds")
        .iter()
        .filter(|(path, _)| !path.ends_with("/tests.rs"))
        .flat_map(|(_, text)| {
            text.split(declaration).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned())
        })
        .collect();
    assert!(written.contains("command"), "no kind was found: {written:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_pipe")).arg("stages").output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let registered: BTreeSet<_> =
        listed.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(written, registered);
}

#[test]
fn a_kind_lies_in_the_file_of_its_name() {
    for (path, text) in rust_files("stages/src/kinds") {
        if let Some((_, rest)) = text.split_once("const KIND: &'static str = \"") {
            let kind = rest.split('"').next().unwrap().replace('-', "_");
            assert_eq!(path, format!("stages/src/kinds/{kind}.rs"));
        }
    }
}

#[test]
fn every_test_module_is_part_of_the_runner() {
    let runner = read(&root().join("tests/runner.rs"));
    let declared: BTreeSet<_> = runner
        .lines()
        .filter_map(|line| Some(line.strip_prefix("mod ")?.trim_end_matches(';').to_owned()))
        .collect();
    let mut written = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module =
            path.join("mod.rs").exists() || path.extension().is_some_and(|extension| extension == "rs");
        if is_module && name != "runner" {
            written.insert(name);
        }
    }
    assert_eq!(declared, written);
}

#[test]
fn every_folder_of_cases_is_read_by_a_test() {
    let tests: String = rust_files("tests").into_iter().map(|(_, text)| text).collect();
    for entry in fs::read_dir(root().join("tests/cases")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(tests.contains(&format!("cases(\"{name}\")")), "no test reads tests/cases/{name}");
    }
}

#[test]
fn the_sources_name_no_place_of_one_machine() {
    let places = ["/work", "/root", "/home"].map(|place| format!("{place}/"));
    let files = sources().into_iter().chain(rust_files("tests"));
    let broken: Vec<_> = files
        .filter(|(_, text)| places.iter().any(|place| text.contains(place.as_str())))
        .map(|(path, _)| path)
        .collect();
    none(&broken);
}
