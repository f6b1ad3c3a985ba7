//! Runs a program of the user's with declared inputs, outputs, files and environment.

use crate::artifact::{External, Ports};
use crate::artifacts::Files;
use crate::artifacts::files::copy_tree;
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use rustix::process::{Pid, Signal, kill_process_group};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

pub struct Command;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of YAML keys")]
pub struct Params {
    /// Program and arguments; as text it is run by `sh -c`, as a list without a shell.
    run: Run,
    /// Names of the outputs. The program writes each as files under `out/NAME/`.
    outputs: Vec<String>,
    /// Scripts and other files that the program reads, relative to the working directory. They lie at the same
    /// relative place when it runs, and their content is part of what the result depends on.
    #[serde(default)]
    files: Vec<PathBuf>,
    /// Environment variables that the program sees besides `PATH`. Their values are part of what the result
    /// depends on.
    #[serde(default)]
    environment: Vec<String>,
    /// Values for the program, given to it as JSON in the file that `$PIPE_PARAMS` names.
    #[serde(default)]
    params: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Run {
    Shell(String),
    Program(Vec<String>),
}

const EXTERNAL: &str = "files";

impl Stage for Command {
    const KIND: &'static str = "command";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Runs a program with declared inputs (`in/NAME/`), outputs (`out/NAME/`) and files.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        let empty = match &params.run {
            Run::Shell(text) => text.trim().is_empty(),
            Run::Program(words) => words.is_empty(),
        };
        if empty {
            problem("run", "there is nothing to run".into(), "name a program, e.g. `run: python3 train.py`");
        }
        if params.outputs.is_empty() {
            problem("outputs", "no output is declared".into(), "name at least one, e.g. `outputs: [model]`");
        }
        for (at, name) in params.outputs.iter().enumerate() {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                problem(
                    "outputs",
                    format!("`{name}` cannot name an output"),
                    "use letters, digits, `_` and `-`",
                );
            }
            if params.outputs[..at].contains(name) {
                problem("outputs", format!("the output `{name}` is declared twice"), "remove one of them");
            }
        }
        for path in &params.files {
            let inside =
                path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !inside {
                let message = format!("`{}` is not inside the working directory", path.display());
                problem("files", message, "give paths relative to the working directory, without `..`");
            }
        }
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        ports.open_inputs = true;
        for name in &params.outputs {
            ports.writes_named::<Files>(Cow::Owned(name.clone()));
        }
        if !params.files.is_empty() {
            ports.reads_files(External {
                name: EXTERNAL,
                parameter: "files",
                path: PathBuf::from("."),
                parts: params.files.clone(),
            });
        }
        for name in &params.environment {
            ports.reads_environment(name);
        }
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let folder = &context.scratch;
        lay_out(params, context, folder)?;
        let mut child = start(params, context, folder)?;
        let streams = [
            child.stdout.take().map(|pipe| drain(Box::new(pipe))),
            child.stderr.take().map(|pipe| drain(Box::new(pipe))),
        ];
        let status = wait(&mut child, context)?;
        let [stdout, stderr] =
            streams.map(|stream| stream.and_then(|thread| thread.join().ok()).unwrap_or_default());
        for line in stdout.lines().chain(stderr.lines()) {
            context.note(line);
        }
        if !status.success() {
            let last: Vec<_> = stderr.lines().rev().take(10).collect();
            let tail = last.into_iter().rev().collect::<Vec<_>>().join("\n    ");
            let tail = if tail.is_empty() { "it printed no error".to_owned() } else { tail };
            return Err(StageError::Data(format!("the program ended with {status}:\n    {tail}")));
        }
        for name in &params.outputs {
            let made = folder.join("out").join(name);
            let is_empty = fs_err::read_dir(&made).map_or(true, |mut entries| entries.next().is_none());
            if is_empty {
                return Err(StageError::Data(format!(
                    "the program ended well but wrote nothing into its output `out/{name}/`"
                )));
            }
            copy_tree(&made, &context.outputs[name])?;
        }
        Ok(())
    }
}

/// Inputs, files, parameters and empty outputs, where the program expects them.
fn lay_out(params: &Params, context: &StageContext, folder: &Path) -> Result<(), StageError> {
    for (name, inputs) in &context.inputs {
        let target = folder.join("in").join(name);
        match inputs.as_slice() {
            [input] => copy_tree(&input.dir, &target)?,
            inputs => {
                for input in inputs {
                    copy_tree(&input.dir, &target.join(&input.label))?;
                }
            }
        }
    }
    if !params.files.is_empty() {
        require_files(params, context)?;
        for file in &context.external(EXTERNAL)?.files {
            let target = folder.join(&file.path);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(StageError::io("create", parent))?;
            }
            let source = context.source(&file.digest)?;
            std::fs::copy(&source, &target).map_err(StageError::io("copy", &source))?;
        }
    }
    for name in &params.outputs {
        let dir = folder.join("out").join(name);
        std::fs::create_dir_all(&dir).map_err(StageError::io("create", &dir))?;
    }
    let values = serde_json::to_vec_pretty(&params.params)
        .map_err(|error| StageError::Internal(format!("parameters are not JSON: {error}")))?;
    let path = folder.join("params.json");
    std::fs::write(&path, values).map_err(StageError::io("write", &path))
}

/// Every declared file or folder must be there.
fn require_files(params: &Params, context: &StageContext) -> Result<(), StageError> {
    let found = &context.external(EXTERNAL)?.files;
    for path in &params.files {
        let name: Vec<_> = path.components().filter(|part| *part != Component::CurDir).collect();
        let name: PathBuf = name.into_iter().collect();
        if !found.iter().any(|file| Path::new(&file.path).starts_with(&name)) {
            return Err(StageError::Data(format!(
                "`{}`, declared under `files`, is not there or an empty folder",
                path.display()
            )));
        }
    }
    Ok(())
}

fn start(params: &Params, context: &StageContext, folder: &Path) -> Result<Child, StageError> {
    let mut process = match &params.run {
        Run::Shell(text) => {
            let mut process = Process::new("sh");
            process.arg("-c").arg(text);
            process
        }
        Run::Program(words) => {
            let mut process = Process::new(&words[0]);
            process.args(&words[1..]);
            process
        }
    };
    process
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(path) = std::env::var_os("PATH") {
        process.env("PATH", path);
    }
    process.env("HOME", folder).env("PIPE_PARAMS", "params.json");
    for (name, value) in &context.environment {
        if let Some(value) = value {
            process.env(name, value);
        }
    }
    // A group of its own, so that what the program started can be ended with it.
    process.process_group(0);
    let program = process.get_program().to_owned();
    process.spawn().map_err(StageError::io("start the program", Path::new(&program)))
}

/// Reads a stream to its end on a thread of its own, so that the program never blocks on a full pipe.
fn drain(mut pipe: Box<dyn Read + Send>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What arrived before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the program, or ends it when the run is interrupted.
fn wait(child: &mut Child, context: &StageContext) -> Result<std::process::ExitStatus, StageError> {
    let mut pause = Duration::from_millis(1);
    loop {
        let ended = child.try_wait().map_err(StageError::io("wait for", Path::new("the program")))?;
        if let Some(status) = ended {
            // What it left running would hold its output open and could still write.
            end_group(child);
            return Ok(status);
        }
        if context.interrupted() {
            end_group(child);
            // It is dead; waiting only takes its status away.
            let _ = child.wait();
            return Err(StageError::Interrupted);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Ends the program and all that it started.
fn end_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An error means that nothing of the group is left.
        let _ = kill_process_group(group, Signal::KILL);
    }
}
