//! The process of a program: started in its sandbox, read from while it runs, ended with all that it started.

use super::lines::{LineBuffer, Lines, Stream};
use super::sandbox::Sandbox;
use super::written::Run;
use super::{PARAMS, Params, not_found};
use crate::context::{StageContext, StageEvent};
use crate::error::StageError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use wait4::Wait4;

/// How soon an interrupt is seen.
const TICK: Duration = Duration::from_millis(50);
/// So long a program may take to put its things in order once it is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Where the end of a process cannot be waited for together with its output, it is asked for this often.
const TICK_WITHOUT_PIDFD: Duration = Duration::from_millis(2);
/// More than a pipe holds: what is read after the end of the program.
const LAST_WORDS_BYTES: usize = 1024 * 1024;

/// The process as it will be started, but for its streams.
pub(super) fn prepare(
    params: &Params,
    context: &StageContext,
    sandbox: &Sandbox,
) -> Result<Process, StageError> {
    let search = params.search_path();
    // An absolute path, else the standard library forks: it does not search another `PATH` than its own.
    let find = |name: &str| -> Result<PathBuf, StageError> {
        if super::is_relative(name) {
            return Ok(sandbox.work().join(super::plain(Path::new(name))));
        }
        search.find(name).ok_or_else(|| StageError::Data(format!("{}; {}", not_found(name), search.help())))
    };
    let mut process = match &params.run {
        Run::Shell(text) => {
            let mut process = Process::new(find("sh")?);
            process.arg("-c").arg(text);
            process
        }
        Run::Program(words) => {
            let (program, arguments) =
                words.split_first().ok_or_else(|| StageError::Internal("no program was checked".into()))?;
            let mut process = Process::new(find(program)?);
            process.args(arguments);
            process
        }
    };
    process
        .current_dir(sandbox.work())
        .env_clear()
        .env("PATH", search.value())
        .env("HOME", sandbox.scratch())
        .env("TMPDIR", sandbox.scratch())
        // Not `LC_ALL`: the other categories are then those of `C` too, without a look for two dozen files.
        .env("LC_CTYPE", "C.UTF-8")
        // Python would write beside the scripts.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if !params.params.is_empty() {
        process.env("PIPE_PARAMS", PARAMS);
    }
    if !context.gpus.is_empty() {
        process.env("CUDA_VISIBLE_DEVICES", context.gpus.join(","));
    }
    for name in params.environment.passed() {
        if let Some(Some(value)) = context.environment.get(name) {
            process.env(name, value);
        }
    }
    for (name, value) in &params.environment.0 {
        if let Some(value) = value.as_ref().filter(|_| name != "PATH") {
            process.env(name, value);
        }
    }
    Ok(process)
}

/// Runs the process to its end and logs what it prints.
pub(super) fn run(process: &mut Process, context: &StageContext) -> Result<(), StageError> {
    let program = PathBuf::from(process.get_program());
    // A group of its own, so that what the program started can be ended with it.
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = process.spawn().map_err(StageError::io("start the program", &program))?;
    let own_peak = crate::machine::peak_memory_bytes();
    let mut running = Running::new(child, context);
    let ended = running.wait(context);
    // Before its status is taken away, so that the number of the group cannot be another's. What it left running
    // would hold its output open and could still write.
    running.end_group();
    running.read_rest();
    let end = loop {
        match running.child.wait4() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            end => break end.map_err(StageError::io("wait for", &program))?,
        }
    };
    let status = end.status;
    // Until it becomes the program, the child counts the memory of pipe as its own; a smaller number says nothing.
    if own_peak.is_some_and(|own| end.rusage.maxrss > own) {
        context.services.emit(StageEvent::PeakMemory { bytes: end.rusage.maxrss });
    }
    let failed = !status.success();
    let [stdout, stderr] = &mut running.pipes;
    stdout.lines.finish(&mut running.lines);
    stderr.lines.finish(&mut running.lines);
    let last = running.lines.finish(failed && ended.is_ok());
    ended?;
    if failed {
        let last: String = last.iter().map(|line| format!("\n    {line}")).collect();
        let colon = if last.is_empty() { "" } else { ":" };
        return Err(StageError::Data(format!("the program ended with {}{colon}{last}", describe(status))));
    }
    Ok(())
}

/// One end of a pipe, until the program closes the other.
struct Pipe {
    file: Option<File>,
    lines: LineBuffer,
}

struct Running<'a> {
    child: Child,
    /// Readable once the program has ended; `None` where the system has no such thing.
    exit: Option<OwnedFd>,
    pipes: [Pipe; 2],
    lines: Lines<'a>,
    buffer: Vec<u8>,
}

impl<'a> Running<'a> {
    fn new(mut child: Child, context: &'a StageContext) -> Self {
        let stdout = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let stderr = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let pipe = |file, stream| Pipe { file, lines: LineBuffer::new(stream) };
        Self {
            exit: pidfd(&child),
            child,
            pipes: [pipe(stdout, Stream::Stdout), pipe(stderr, Stream::Stderr)],
            lines: Lines::new(context),
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Reads until the program has ended, or until the run is interrupted.
    fn wait(&mut self, context: &StageContext) -> Result<(), StageError> {
        let tick = if self.exit.is_some() { TICK } else { TICK_WITHOUT_PIDFD };
        loop {
            let ended = self.read_for(tick)?;
            self.lines.tell_old();
            if ended {
                return Ok(());
            }
            if context.interrupted() {
                self.ask_to_end(context, tick)?;
                return Err(StageError::Interrupted);
            }
        }
    }

    /// Tells the program and all that it started to end, and reads on until it did or its time is up.
    fn ask_to_end(&mut self, context: &StageContext, tick: Duration) -> Result<(), StageError> {
        // An error means that nothing of the group is left.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
        let since = Instant::now();
        while !self.read_for(tick)? && since.elapsed() < GRACE && !context.insisted() {
            self.lines.tell_old();
        }
        Ok(())
    }

    /// Waits at most this long for something to read, or the end, and reads once from each stream that has something.
    /// True once the program has ended.
    fn read_for(&mut self, time: Duration) -> Result<bool, StageError> {
        let mut watched: Vec<PollFd> = Vec::with_capacity(3);
        let mut readable = [None; 2];
        for (pipe, place) in self.pipes.iter().zip(&mut readable) {
            if let Some(file) = &pipe.file {
                *place = Some(watched.len());
                watched.push(PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
            }
        }
        if let Some(exit) = &self.exit {
            watched.push(PollFd::from_borrowed_fd(exit.as_fd(), PollFlags::IN));
        }
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut watched, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(StageError::io("wait for", Path::new("the program"))(error.into())),
        }
        let news: Vec<bool> = watched.iter().map(|watched| !watched.revents().is_empty()).collect();
        let ended = if self.exit.is_some() { news.last() == Some(&true) } else { has_ended(&self.child) };
        for (pipe, place) in self.pipes.iter_mut().zip(readable) {
            if place.is_some_and(|place| news[place]) {
                pipe.read(&mut self.buffer, &mut self.lines);
            }
        }
        Ok(ended)
    }

    /// Reads what the pipes still hold, without waiting for what might come.
    fn read_rest(&mut self) {
        for pipe in &mut self.pipes {
            let mut read = 0;
            while read < LAST_WORDS_BYTES && pipe.has_something() {
                read += pipe.read(&mut self.buffer, &mut self.lines);
            }
        }
    }

    /// Ends the program and all that it started.
    fn end_group(&self) {
        // An error means that nothing of the group is left.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

impl Pipe {
    fn has_something(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut watched = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
        poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Reads once; the pipe is given up at its end, or where it cannot be read.
    fn read(&mut self, buffer: &mut [u8], lines: &mut Lines) -> usize {
        let Some(file) = &mut self.file else { return 0 };
        match file.read(buffer) {
            Ok(0) => self.file = None,
            Ok(read) => {
                self.lines.push(&buffer[..read], lines);
                return read;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.file = None,
        }
        0
    }
}

#[cfg(target_os = "linux")]
fn pidfd(child: &Child) -> Option<OwnedFd> {
    use rustix::process::{PidfdFlags, pidfd_open};
    // Kernels before 5.3 and some containers refuse it.
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_child: &Child) -> Option<OwnedFd> {
    None
}

/// Whether the process has ended; its status is left to be taken.
fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(child)), options).is_ok_and(|status| status.is_some())
}

/// `exit status: 3`, `signal SIGSEGV (it touched memory that is not its own)`.
fn describe(status: ExitStatus) -> String {
    let name = |signal| match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL (an instruction that this processor does not have)",
        6 => "SIGABRT (it gave up by itself)",
        7 => "SIGBUS",
        8 => "SIGFPE (a division by zero, or the like)",
        9 => "SIGKILL (somebody ended it: often the system, when memory runs out)",
        11 => "SIGSEGV (it touched memory that is not its own)",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU (its limit of processor time)",
        25 => "SIGXFSZ (its limit of file size)",
        31 => "SIGSYS (a system call that it may not make)",
        _ => "",
    };
    match (status.signal(), status.code()) {
        (Some(signal), _) if name(signal).is_empty() => format!("signal {signal}"),
        (Some(signal), _) => format!("signal {}", name(signal)),
        // So a shell tells of a program that it ran.
        (None, Some(code)) if code > 128 && !name(code - 128).is_empty() => {
            format!("exit status: {code}, for signal {}", name(code - 128))
        }
        (None, _) => status.to_string(),
    }
}
