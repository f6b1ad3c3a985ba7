//! A folder of its own for each test, in which the built `pipe` runs as a user runs it.
//!
//! What ran is told by the programs themselves: each appends its stage's name to `$LOG`. The console could be wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A shell function for programs of stages: `wait_for NAME` returns once `$DIR/NAME` exists.
pub(crate) const WAIT: &str = r#"
wait_for() {
    tries=0
    while [ ! -e "$DIR/$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || { echo "$1 never came" >&2; exit 1; }
        sleep 0.02
    done
}
"#;

/// How long anything is waited for before a test is called hung. Never how long it should take.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct TestSpace {
    dir: TempDir,
    environment: Vec<(String, String)>,
}

/// What one call of `pipe` did.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Stages whose program was started, sorted; a stage that ran twice stands twice.
    pub(crate) ran: Vec<String>,
}

impl TestSpace {
    /// A space with `pipeline.yaml`, and `wait.sh` with [`WAIT`].
    pub(crate) fn new(pipeline: &str) -> Self {
        let space = Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new() };
        space.write("pipeline.yaml", pipeline);
        space.write("wait.sh", WAIT);
        space
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Replaces a file by a new one, as editors do: results may be hard links.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        fs::write(path, content).unwrap();
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => text,
            Err(error) => panic!("{name}: {error}; there is {:#?}", self.files("")),
        }
    }

    /// Relative paths of all files below a folder, sorted.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        fn collect(dir: &Path, root: &Path, files: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    collect(&path, root, files);
                } else {
                    files.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let (mut files, root) = (Vec::new(), self.path(folder));
        collect(&root, &root, &mut files);
        files.sort();
        files
    }

    /// Sets a variable for all later calls.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.into(), value.into()));
    }

    /// `pipe ARGS…` in this folder with an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(arguments).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("NO_COLOR", "1");
        command.env("LOG", self.path("ran.log")).env("DIR", self.dir.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn pipe(&self, arguments: &[&str]) -> Report {
        let output = self.command(arguments).output().unwrap();
        self.report(output.status, &output.stdout, &output.stderr)
    }

    /// `pipe run pipeline.yaml ARGS…`
    pub(crate) fn run(&self, arguments: &[&str]) -> Report {
        self.pipe(&[&["run", "pipeline.yaml"], arguments].concat())
    }

    /// Starts `pipe run pipeline.yaml ARGS…` and comes back at once.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running<'_> {
        let streams = tempfile::tempdir().unwrap();
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| streams.path().join(name));
        let child = self
            .command(&[&["run", "pipeline.yaml"], arguments].concat())
            .stdout(fs::File::create(stdout).unwrap())
            .stderr(fs::File::create(stderr).unwrap())
            .spawn()
            .unwrap();
        Running { space: self, child, streams }
    }

    fn report(&self, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Report {
        let log = fs::read_to_string(self.path("ran.log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("ran.log"));
        let mut ran: Vec<_> = log.lines().map(str::to_owned).collect();
        ran.sort();
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        assert!(!stderr.contains("panicked"), "{stderr}");
        Report { code: status.code(), stdout, stderr, ran }
    }

    /// Waits for a file that a program makes.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str) {
        wait_until(|| self.exists(name), || format!("`{name}` never came"));
    }
}

impl Report {
    #[track_caller]
    pub(crate) fn code(&self, expected: i32) -> &Self {
        assert_eq!(self.code, Some(expected), "{self}");
        self
    }

    /// Asserts success and which stages ran, in alphabetical order.
    #[track_caller]
    pub(crate) fn ran(&self, expected: &[&str]) -> &Self {
        assert_eq!(self.code, Some(0), "{self}");
        assert_eq!(self.ran, expected, "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no `{text}` on stderr\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn does_not_say(&self, text: &str) -> &Self {
        assert!(!self.stderr.contains(text), "`{text}` on stderr\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn prints(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "no `{text}` on stdout\n{self}");
        self
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { code, stdout, stderr, ran } = self;
        write!(formatter, "exit code {code:?}, ran {ran:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A `pipe` that is still running. Killed if the test ends without it.
pub(crate) struct Running<'a> {
    space: &'a TestSpace,
    child: Child,
    streams: TempDir,
}

impl Running<'_> {
    fn stream(&self, name: &str) -> Vec<u8> {
        fs::read(self.streams.path().join(name)).unwrap()
    }

    /// Waits until a text stands on stderr.
    #[track_caller]
    pub(crate) fn wait_until_it_says(&self, text: &str) {
        let stderr = || String::from_utf8_lossy(&self.stream("stderr")).into_owned();
        wait_until(|| stderr().contains(text), || format!("`{text}` was never said:\n{}", stderr()));
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, e.g. `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Report {
        let mut status = None;
        let child = &mut self.child;
        let mut ended = || {
            status = child.try_wait().unwrap();
            status.is_some()
        };
        wait_until(&mut ended, || "pipe did not end".to_owned());
        self.space.report(status.unwrap(), &self.stream("stdout"), &self.stream("stderr"))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub(crate) fn wait_until(mut done: impl FnMut() -> bool, hung: impl Fn() -> String) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "{}", hung());
        std::thread::sleep(Duration::from_millis(5));
    }
}
