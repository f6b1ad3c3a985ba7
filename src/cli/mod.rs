//! The command line: one file per subcommand, each calling the library.

mod cache;
mod check;
mod diff;
mod doctor;
mod evaluate;
mod graph;
mod history;
mod lock;
mod log;
mod predict;
mod run;
mod schema;
mod select;
mod share;
mod stages;
mod status;
mod tag;
mod watch;
mod why;
mod workspace;

use crate::console;
use crate::history::{FindError, RUN_NAMES, find_run};
use crate::params::Environment;
use crate::pipeline::{Overrides, Pipeline};
use crate::plan::Plan;
use crate::problem::Problems;
use clap::{Args, Parser, Subcommand};
use pipe_cache::{Cache, Digest, RunRecord};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use thiserror::Error;

/// Declarative pipelines with content-hashed, cached stages for medical-image deep learning.
#[derive(Debug, Parser)]
#[command(name = "pipe", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// Work in this folder instead of the current one
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Why(why::WhyArgs),
    Graph(graph::GraphArgs),
    #[command(visible_alias = "list")]
    History(history::HistoryArgs),
    Log(log::LogArgs),
    Diff(diff::DiffArgs),
    Tag(tag::TagArgs),
    Lock(lock::LockArgs),
    Checkout(lock::CheckoutArgs),
    Push(share::PushArgs),
    Pull(share::PullArgs),
    Stages(stages::StagesArgs),
    Schema(schema::SchemaArgs),
    Check(check::CheckArgs),
    Predict(predict::PredictArgs),
    Evaluate(evaluate::EvaluateArgs),
    Doctor(doctor::DoctorArgs),
    Gc(cache::GcArgs),
    Cache(cache::CacheArgs),
}

/// The pipeline and the values that override its params.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Override a param of the pipeline; the value is YAML
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Override params by those in this YAML file
    #[arg(long = "params", value_name = "FILE")]
    pub(crate) params: Vec<PathBuf>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, e.g. --set epochs=5".into()),
    }
}

/// Why a command ended without doing its work.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// The pipeline file is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// An argument is wrong.
    #[error("{message}\n  help: {help}")]
    Usage { message: String, help: String },
    /// The machine or the cache failed.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: help.into() }
    }

    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            // Some errors tell their cause themselves.
            if !text.ends_with(&inner_text) {
                text.push_str(&format!(": {inner_text}"));
            }
            cause = inner.source();
        }
        Self::Failed(text)
    }
}

impl From<FindError> for CliError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Cache(error) => Self::failed(&error),
            FindError::NoRuns => Self::usage(error.to_string(), "`pipe run FILE` makes the first"),
            _ => Self::usage(error.to_string(), RUN_NAMES),
        }
    }
}

/// The record of the run that a text names.
pub(crate) fn load_run(cache: &Cache, name: &str) -> Result<RunRecord, CliError> {
    let id = find_run(cache, name)?;
    let run = cache.runs.load(&id).map_err(|error| CliError::failed(&error))?;
    run.ok_or_else(|| CliError::usage(format!("the record of run {id}, called `{name}`, is gone"), RUN_NAMES))
}

/// A path without `.` parts.
pub(crate) fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

pub(crate) const OK: u8 = 0;
pub(crate) const STAGE_FAILED: u8 = 1;
pub(crate) const USER_ERROR: u8 = 2;
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs the command that the arguments name and returns the exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to stdout; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() { USER_ERROR } else { OK };
        }
    };
    let result = enter(cli.directory.as_deref()).and_then(|()| match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::History(args) => history::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Tag(args) => tag::run(&args),
        Command::Lock(args) => lock::run(&args),
        Command::Checkout(args) => lock::checkout(&args),
        Command::Push(args) => share::push(&args),
        Command::Pull(args) => share::pull(&args),
        Command::Stages(args) => stages::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Gc(args) => cache::collect(&args),
        Command::Cache(args) => cache::run(&args),
    });
    let code = result.unwrap_or_else(|error| tell(&error));
    match console::unprinted() {
        Some(error) if code == OK => tell(&CliError::Failed(format!("cannot write to stdout: {error}"))),
        _ => code,
    }
}

/// Tells why a command ended without doing its work, and returns the exit code.
fn tell(error: &CliError) -> u8 {
    match error {
        CliError::Problems(problems) => {
            console::hint(problems.render(console::color()).trim_end());
            USER_ERROR
        }
        CliError::Usage { .. } => {
            console::error(error);
            USER_ERROR
        }
        CliError::Failed(_) => {
            console::error(error);
            STAGE_FAILED
        }
    }
}

fn enter(directory: Option<&Path>) -> Result<(), CliError> {
    let Some(directory) = directory else { return Ok(()) };
    std::env::set_current_dir(directory).map_err(|error| {
        CliError::usage(
            format!("cannot work in `{}`: {error}", directory.display()),
            "name an existing folder after -C",
        )
    })
}

/// Reads and plans a pipeline file.
pub(crate) fn load(args: &PipelineArgs) -> Result<Plan, CliError> {
    load_defined(args).map(|(plan, _)| plan)
}

/// What a plan was made from.
pub(crate) struct Definition {
    /// Each file, with the digest of the text that was read.
    pub(crate) files: Vec<(PathBuf, Digest)>,
    pub(crate) environment: Rc<Environment>,
}

/// Reads and plans a pipeline file, and says what the plan depends on.
pub(crate) fn load_defined(args: &PipelineArgs) -> Result<(Plan, Definition), CliError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "check the path; pipelines are YAML files such as pipelines/decathlon.yaml"
                }
                _ => "a pipeline is a readable UTF-8 text file",
            };
            CliError::usage(format!("cannot read `{}`: {error}", path.display()), help)
        })
    };
    if args.file.extension().is_some_and(|extension| extension == "lock") {
        let message = format!("`{}` has the name of a lock file", args.file.display());
        return Err(CliError::usage(message, "name the pipeline file, such as pipelines/decathlon.yaml"));
    }
    let text = read(&args.file)?;
    let mut files = Vec::new();
    for path in &args.params {
        files.push((path.clone(), read(path)?));
    }
    // Variables that are not text cannot be used in a text file and are left out.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let environment = Rc::new(Environment::new(environment));
    let digest = |text: &str| Digest::of_bytes(text.as_bytes());
    let read_files = std::iter::once((args.file.clone(), digest(&text)))
        .chain(files.iter().map(|(path, text)| (path.clone(), digest(text))))
        .collect();
    let overrides = Overrides { set: args.set.clone(), files, environment: environment.clone() };
    let plan = Plan::new(&Pipeline::parse(&args.file, &text, &overrides)?)?;
    Ok((plan, Definition { files: read_files, environment }))
}

/// The stages that the patterns name; an error names the pattern that names none.
pub(crate) fn targets(plan: &Plan, patterns: &[String]) -> Result<Vec<petgraph::graph::NodeIndex>, CliError> {
    let mut nodes = Vec::new();
    for pattern in patterns {
        let found = plan.matching(pattern);
        if found.is_empty() {
            let names: std::collections::BTreeSet<_> =
                plan.stages().map(|(_, planned)| planned.id.base.clone()).collect();
            let help = crate::problem::suggest(pattern, names.iter().map(String::as_str), "stages");
            return Err(CliError::usage(
                format!("`{pattern}` names no stage of {}", plan.file.display()),
                help,
            ));
        }
        nodes.extend(found);
    }
    Ok(nodes)
}
