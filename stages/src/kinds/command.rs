//! Runs a program of the user's with declared inputs, outputs, files and environment.
//!
//! | where | what the program finds |
//! |---|---|
//! | `in/NAME/` | an input, read-only; of an input with several artifacts, or a pattern such as `train[*]`, `in/NAME/STAGE/` |
//! | as declared | the declared `files`, read-only copies |
//! | `params.json` | `params`, where there are any |
//! | `out/NAME/` | an empty folder for each output |
//! | `$HOME`, `$TMPDIR` | folders outside of the working folder, thrown away |
//!
//! Anything else that it leaves in its working folder, an input that it changed and an output that it did not write
//! are errors. `programs.rs` finds what is run, `words.rs` reads shell text, `sandbox.rs` and `outputs.rs` own the
//! folder, `process.rs` the process, `lines.rs` what it prints.

use crate::artifact::{Absent, External, Ports};
use crate::artifacts::Files;
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

mod lines;
mod outputs;
mod process;
mod programs;
mod sandbox;
mod words;
mod written;

use programs::SearchPath;
use sandbox::Sandbox;
use written::{Environment, Run};

pub struct Command;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of YAML keys")]
pub struct Params {
    /// Program and arguments; as text it is run by `sh -c`, as a list without a shell. The file of the program, and
    /// for text those of `sh` and of every program that the text names, are part of what the result depends on.
    run: Run,
    /// Names of the outputs. The program writes each as files under `out/NAME/`.
    outputs: Vec<String>,
    /// Scripts and other files that the program reads, relative to the working directory. They lie at the same
    /// relative place when it runs, and their content is part of what the result depends on.
    #[serde(default)]
    files: Vec<PathBuf>,
    /// Further programs that are run, found on `PATH`. Their files are part of what the result depends on.
    #[serde(default)]
    programs: Vec<String>,
    /// Environment variables that the program sees besides `PATH`, `HOME`, `TMPDIR` and a UTF-8 locale: as a list
    /// the names of some that `pipe` has, as a mapping with their values. They are part of what the result depends
    /// on.
    #[serde(default)]
    #[schemars(with = "written::EnvironmentSchema")]
    environment: Environment,
    /// Values for the program, given to it as JSON in the file that `$PIPE_PARAMS` names.
    #[serde(default)]
    params: BTreeMap<String, serde_json::Value>,
}

const FILES: &str = "files";
const PARAMS: &str = "params.json";

/// Names that stand in the working folder of every program.
const TAKEN: [&str; 3] = ["in", "out", PARAMS];

impl Stage for Command {
    const KIND: &'static str = "command";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "Runs a program with declared inputs (`in/NAME/`), outputs (`out/NAME/`) and files.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Problems::default();
        params.check_run(&mut problems);
        params.check_outputs(&mut problems);
        params.check_files(&mut problems);
        params.check_environment(&mut problems);
        if problems.0.is_empty() {
            params.check_programs(&mut problems);
            params.check_scripts(&mut problems);
        }
        problems.0
    }

    fn declare(params: &Params, ports: &mut Ports) {
        ports.open_inputs = true;
        for name in &params.outputs {
            ports.writes_named::<Files>(Cow::Owned(name.clone()));
        }
        if !params.files.is_empty() {
            ports.reads_files(External {
                name: Cow::Borrowed(FILES),
                parameter: "files",
                path: PathBuf::from("."),
                parts: params.files.iter().map(|path| plain(path)).collect(),
                absent: Absent::Refused,
            });
        }
        let search = params.search_path();
        for name in params.programs_by_name() {
            ports.would_find(search.earlier(name));
            // Those that are needed for certain were checked; a word of a shell text may be anything.
            if let Some(path) = search.find(name) {
                ports.reads_files(External {
                    name: Cow::Owned(format!("program/{}", name.trim_start_matches('/'))),
                    parameter: "programs",
                    path,
                    parts: Vec::new(),
                    absent: Absent::LeftOut,
                });
            }
        }
        for name in params.environment.passed() {
            ports.reads_environment(name);
        }
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let sandbox = Sandbox::lay_out(params, context)?;
        let mut command = process::prepare(params, context, &sandbox)?;
        process::run(&mut command, context)?;
        sandbox.check()?;
        sandbox.settle_outputs()
    }
}

#[derive(Default)]
struct Problems(Vec<ParamProblem>);

impl Problems {
    fn add(&mut self, parameter: &'static str, message: String, help: impl Into<String>) {
        self.0.push(ParamProblem { parameter, message, help: help.into() });
    }
}

impl Params {
    fn check_run(&self, problems: &mut Problems) {
        let empty = match &self.run {
            Run::Shell(text) => text.trim().is_empty(),
            Run::Program(words) => words.first().is_none_or(String::is_empty),
        };
        if empty {
            let help = "name a program, e.g. `run: python3 train.py`";
            problems.add("run", "there is nothing to run".into(), help);
        }
    }

    fn check_outputs(&self, problems: &mut Problems) {
        if self.outputs.is_empty() {
            let help = "name at least one, e.g. `outputs: [model]`";
            problems.add("outputs", "no output is declared".into(), help);
        }
        for (at, name) in self.outputs.iter().enumerate() {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                let message = format!("`{name}` cannot name an output");
                problems.add("outputs", message, "use letters, digits, `_` and `-`");
            }
            if self.outputs[..at].contains(name) {
                let message = format!("the output `{name}` is declared twice");
                problems.add("outputs", message, "remove one of them");
            }
        }
    }

    fn check_files(&self, problems: &mut Problems) {
        for path in &self.files {
            let shown = path.display();
            let inside =
                path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !inside {
                let message = format!("`{shown}` is not inside the working directory");
                problems.add("files", message, "give paths relative to the working directory, without `..`");
                continue;
            }
            match plain(path).iter().next() {
                None => {
                    let message = format!("`{shown}` is the whole working directory, with all results in it");
                    problems.add("files", message, "name the files and folders that the program reads");
                }
                Some(first) if TAKEN.iter().any(|taken| first == *taken) => {
                    let message =
                        format!("`{shown}` would lie where the program finds what the pipeline gives it");
                    let help = format!("rename it: {} are taken", list(&TAKEN));
                    problems.add("files", message, help);
                }
                Some(_) => {}
            }
        }
    }

    fn check_environment(&self, problems: &mut Problems) {
        for name in self.environment.0.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("`{name}` cannot name an environment variable");
                let help = "write `environment: [NAME]`, or `environment: { NAME: value }`";
                problems.add("environment", message, help);
            }
        }
        for name in self.environment.passed() {
            if std::env::var_os(name).is_some_and(|value| value.to_str().is_none()) {
                let message = format!("the value of the environment variable `{name}` is not UTF-8 text");
                let help = format!("set `{name}` to UTF-8 text, or take it out of `environment`");
                problems.add("environment", message, help);
            }
        }
    }

    /// What is run for certain must be there before anything runs.
    fn check_programs(&self, problems: &mut Problems) {
        let search = self.search_path();
        for name in &self.programs {
            if name.is_empty() || name.contains('/') {
                let message = format!("`{name}` is not the name of a program on `PATH`");
                let help = "name programs without their folder; a script of yours belongs under `files`";
                problems.add("programs", message, help);
            } else if search.find(name).is_none() {
                problems.add("programs", not_found(name), search.help());
            }
        }
        let needed = match &self.run {
            // By its name it may be a function; by its path it is a program.
            Run::Shell(text) => {
                let by_path = words::programs(text).into_iter().filter(|word| is_absolute(word));
                ["sh"].into_iter().chain(by_path).collect()
            }
            Run::Program(words) => {
                let first = words.first().map(String::as_str);
                first.into_iter().filter(|word| !is_relative(word)).collect::<Vec<_>>()
            }
        };
        for program in needed.into_iter().filter(|program| search.find(program).is_none()) {
            problems.add("run", not_found(program), search.help());
        }
    }

    /// A file of the working directory that a program names, as `train.py` in `python3 train.py`, is not there when
    /// it runs unless it is declared.
    fn check_scripts(&self, problems: &mut Problems) {
        let words = match &self.run {
            Run::Shell(text) => words::plain_words(text),
            Run::Program(words) => words.iter().map(String::as_str).collect(),
        };
        let mut told = Vec::new();
        for word in words {
            let path = plain(Path::new(word));
            let is_name = word.contains(['.', '/']) && !is_absolute(word);
            let given = path.iter().next().is_none_or(|first| TAKEN.iter().any(|taken| first == *taken));
            let declared = self.files.iter().any(|file| path.starts_with(plain(file)));
            if is_name && !given && !declared && !told.contains(&path) && path.is_file() {
                let shown = path.display();
                let message = format!("`{shown}` is read by the program but not declared under `files`");
                let help = format!("add `files: [{shown}]`, so that a change of it is seen");
                problems.add("run", message, help);
                told.push(path);
            }
        }
    }

    fn search_path(&self) -> SearchPath {
        SearchPath::new(self.environment.fixed("PATH"))
    }

    /// The programs whose files are part of the key, by name or absolute path. One given by a relative path is among
    /// the declared files or the inputs.
    fn programs_by_name(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.programs.iter().map(String::as_str).collect();
        match &self.run {
            Run::Shell(text) => names.extend(["sh"].into_iter().chain(words::programs(text))),
            Run::Program(words) => names.extend(words.first().map(String::as_str)),
        }
        names.retain(|name| !is_relative(name));
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn is_absolute(program: &str) -> bool {
    program.starts_with('/')
}

/// Whether this is a path from the working folder and not the name of a program.
fn is_relative(program: &str) -> bool {
    program.contains('/') && !is_absolute(program)
}

fn not_found(program: &str) -> String {
    format!("the program `{program}` was not found")
}

/// A relative path without `.` parts.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Names for a message; many are counted.
fn list(names: &[impl AsRef<str>]) -> String {
    const NAMED: usize = 5;
    let more = names.len().saturating_sub(NAMED);
    let mut text = names[..names.len() - more]
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
