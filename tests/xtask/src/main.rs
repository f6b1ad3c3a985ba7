//! `cargo xtask check`: everything that must hold before a commit, in the order in which it fails fastest.
#![expect(clippy::print_stderr, reason = "a chore runner talks to its user")]

use std::process::{Command, ExitCode};
use std::time::Instant;

/// Name, program and arguments, environment of each step. The schema and the pipelines are checked by the tests.
type Step = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const STEPS: &[Step] = &[
    ("format", &["fmt", "--all", "--check"], &[]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[]),
    ("docs", &["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")]),
    ("tests", &["test", "--workspace", "--locked"], &[]),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => check(STEPS),
        ["check", "--no-tests"] => check(&STEPS[..STEPS.len() - 1]),
        _ => {
            eprintln!("usage: cargo xtask check [--no-tests]");
            ExitCode::from(2)
        }
    }
}

/// Runs every step, also after one failed, and tells at the end which did.
fn check(steps: &[Step]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut failed = Vec::new();
    for (name, arguments, environment) in steps {
        eprintln!("== {name}: cargo {}", arguments.join(" "));
        let since = Instant::now();
        let status = Command::new(&cargo).args(*arguments).envs(environment.iter().copied()).status();
        let ok = status.is_ok_and(|status| status.success());
        eprintln!("== {name}: {} after {} s", if ok { "ok" } else { "FAILED" }, since.elapsed().as_secs());
        if !ok {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        eprintln!("== all {} steps passed", steps.len());
        return ExitCode::SUCCESS;
    }
    eprintln!("== FAILED: {}", failed.join(", "));
    ExitCode::FAILURE
}
