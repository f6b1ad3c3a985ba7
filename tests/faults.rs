//! Kills, interrupts, damage and edits at the wrong moment: nothing wrong is served, and the next run is right.

use crate::running::chain;
use crate::space::TestSpace;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

const NOTHING: [&str; 0] = [];

/// `slow` makes half of its output, then waits for `go`; `next` copies it.
const SLOW: &str = r#"
stages:
  slow:
    uses: command
    with:
      run: |
        . ./wait.sh
        echo slow >> "$LOG"
        echo half > out/o/f
        echo $$ > "$DIR/pid"
        touch "$DIR/started"
        wait_for go
        cat data.txt > out/o/f
      outputs: [o]
      files: [wait.sh, data.txt]
      environment: [LOG, DIR]
  next:
    uses: command
    in: { slow: slow }
    with: { run: 'echo next >> "$LOG"; cp in/slow/f out/o/f', outputs: [o], environment: [LOG] }
"#;

fn slow() -> TestSpace {
    let space = TestSpace::new(SLOW);
    space.write("data.txt", "whole");
    space
}

/// What a broken-off run of [`slow`] must leave: no result, and a next run that does all of it.
#[track_caller]
fn finishes_next_time(space: &TestSpace) {
    assert_eq!(space.files("results"), NOTHING);
    assert_eq!(space.files(".pipe/actions-v1"), NOTHING);
    space.write("go", "");
    space.run(&[]).ran(&["next", "slow"]);
    assert_eq!(space.read("results/pipeline/next/o/f"), "whole");
    assert_eq!(left_over(space), NOTHING);
    space.run(&[]).ran(&[]);
}

/// Files of processes that are gone.
fn left_over(space: &TestSpace) -> Vec<String> {
    let mut files =
        [space.files(".pipe/work"), space.files(".pipe/tmp"), space.files(".pipe/claims-v1")].concat();
    let folders = fs::read_dir(space.path(".pipe/work")).unwrap();
    files.extend(folders.map(|entry| entry.unwrap().path().display().to_string()));
    files
}

#[test]
fn an_interrupted_run_ends_with_130_and_the_next_one_finishes() {
    for signal in ["INT", "TERM"] {
        let space = slow();
        let running = space.start(&[]);
        space.wait_for("started");
        running.signal(signal);
        let report = running.finish();
        report.code(130).says("stopped slow").says("skipped next").says("interrupted, run again to go on");
        report.says("1 stopped, 1 skipped");
        assert_eq!(report.ran, ["slow"]);
        let program = format!("/proc/{}", space.read("pid").trim());
        assert!(!Path::new(&program).exists(), "the program of the stage is still there");
        finishes_next_time(&space);
    }
}

#[test]
fn an_interrupt_ends_the_programs_that_the_program_started() {
    let space = TestSpace::new(
        "stages: { slow: { uses: command, with: { run: 'sleep 300 & echo $! > $DIR/pid; touch $DIR/started; wait; \
         touch out/o/f', outputs: [o], environment: [DIR] } } }\n",
    );
    let running = space.start(&[]);
    space.wait_for("started");
    running.signal("INT");
    running.finish().code(130);
    let pid = space.read("pid");
    // An orphan that was killed stays as a zombie until init takes its status.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let alive = !(state.is_empty() || state.contains(") Z "));
    let _ = std::process::Command::new("kill").arg(pid.trim()).stderr(std::process::Stdio::null()).status();
    assert!(!alive, "`sleep` outlived the run");
}

#[test]
fn what_was_done_before_an_interrupt_is_kept() {
    let first = SLOW.replace(
        "    uses: command\n    with:\n      run: |",
        "    uses: command\n    in: { first: first }\n    with:\n      run: |",
    );
    let space = TestSpace::new(&format!(
        "{first}  first: {{ uses: command, with: {{ run: 'echo first >> $LOG; touch out/o/f', outputs: [o], environment: [LOG] }} }}\n"
    ));
    space.write("data.txt", "whole");
    let running = space.start(&[]);
    space.wait_for("started");
    running.signal("INT");
    running.finish().code(130);
    space.write("go", "");
    space.run(&[]).ran(&["next", "slow"]);
}

#[test]
fn a_killed_run_leaves_nothing_and_the_next_one_finishes() {
    let space = slow();
    let running = space.start(&[]);
    space.wait_for("started");
    running.signal("KILL");
    assert_eq!(running.finish().code, None);
    finishes_next_time(&space);
}

#[test]
fn the_record_of_an_interrupted_run_says_so() {
    let space = slow();
    let running = space.start(&[]);
    space.wait_for("started");
    running.signal("INT");
    running.finish().code(130);
    space.pipe(&["list"]).code(0).prints("1 skipped, 1 interrupted");
    space.pipe(&["why", "pipeline.yaml", "slow"]).code(0).prints("was interrupted").prints("now: would run");
}

#[test]
fn an_input_edited_while_the_stage_runs_is_not_recorded() {
    let space = slow();
    let running = space.start(&[]);
    space.wait_for("started");
    space.write("data.txt", "later");
    space.write("go", "");
    running.finish().code(0).says("changed while the stage ran").says("data.txt");
    space.run(&[]).ran(&["next", "slow"]);
    assert_eq!(space.read("results/pipeline/next/o/f"), "later");
    space.run(&[]).ran(&[]);
}

#[test]
fn an_input_edited_and_changed_back_while_the_stage_runs_is_not_recorded() {
    let space = slow();
    let running = space.start(&[]);
    space.wait_for("started");
    space.write("data.txt", "other");
    space.write("data.txt", "whole");
    space.write("go", "");
    running.finish().code(0).says("changed while the stage ran");
    let again = space.run(&[]);
    again.code(0);
    assert!(again.ran.contains(&"slow".to_owned()), "{again}");
}

/// The object that holds exactly `content`.
#[track_caller]
fn object(space: &TestSpace, content: &str) -> std::path::PathBuf {
    let files = space.files(".pipe/objects-v1");
    let found = files.iter().map(|file| space.path(".pipe/objects-v1").join(file));
    let found: Vec<_> = found.filter(|file| fs::read(file).unwrap() == content.as_bytes()).collect();
    assert_eq!(found.len(), 1, "objects with {content:?}: {found:?}");
    found[0].clone()
}

fn overwrite(file: &Path, content: &[u8]) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(file, content).unwrap();
}

/// While nothing changes a run looks at results only; here it is to look at the cache, as after any change.
fn forget(space: &TestSpace) {
    fs::remove_dir_all(space.path(".pipe/state-v1")).unwrap();
}

#[test]
fn a_corrupt_object_is_made_again_and_never_served() {
    let space = chain();
    overwrite(&object(&space, "one x1\ntwo x1\n"), b"one x1\ntwo x2\n");
    fs::remove_dir_all(space.path("results")).unwrap();
    space.run(&[]).ran(&["scale"]).says("running scale");
    assert_eq!(space.read("results/chain/scale/scaled/lines"), "one x1\ntwo x1\n");
    space.run(&[]).ran(&[]);
}

#[test]
fn a_missing_or_cut_object_is_made_again() {
    let space = chain();
    fs::remove_file(object(&space, "one x1\ntwo x1\n2\n")).unwrap();
    overwrite(&object(&space, "other"), b"oth");
    forget(&space);
    space.run(&[]).ran(&["other", "total"]);
    space.run(&[]).ran(&[]);
}

#[test]
fn an_empty_cache_is_filled_again_and_the_results_stay_right() {
    let space = chain();
    fs::remove_dir_all(space.path(".pipe/objects-v1")).unwrap();
    forget(&space);
    space.run(&[]).ran(&["clean", "other", "scale", "total"]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
    fs::remove_dir_all(space.path(".pipe")).unwrap();
    space.run(&[]).ran(&["clean", "other", "scale", "total"]);
}

#[test]
fn a_large_result_written_through_its_link_is_made_again() {
    let space = TestSpace::new(
        "stages: { large: { uses: command, with: { run: 'echo large >> $LOG; seq 1 40000 > out/o/f', outputs: [o], \
         environment: [LOG] } } }\n",
    );
    space.run(&[]).ran(&["large"]);
    let result = space.path("results/pipeline/large/o/f");
    let right = fs::read(&result).unwrap();
    let mut wrong = right.clone();
    wrong[1_000] ^= 1;
    overwrite(&result, &wrong);
    space.run(&[]).code(0);
    assert!(fs::read(&result).unwrap() == right, "the tampered result stands");
    space.run(&[]).ran(&[]);
}

#[test]
fn damaged_records_cost_time_and_nothing_else() {
    let space = chain();
    for file in space.files(".pipe/actions-v1") {
        overwrite(&space.path(".pipe/actions-v1").join(file), b"{");
    }
    forget(&space);
    let report = space.run(&[]);
    report.ran(&["clean", "other", "scale", "total"]).says("the record of its result is damaged");
    for file in space.files(".pipe/runs") {
        overwrite(&space.path(".pipe/runs").join(file), b"garbage");
    }
    overwrite(&space.path(".pipe/stat-v1"), b"garbage");
    for file in space.files(".pipe/state-v1") {
        overwrite(&space.path(".pipe/state-v1").join(file), b"garbage");
    }
    space.run(&[]).ran(&[]).says("warning");
    space.run(&[]).ran(&[]);
}

#[test]
fn what_a_stage_makes_must_be_files_and_folders() {
    let make = |run: &str| {
        let space = TestSpace::new(&format!(
            "stages: {{ odd: {{ uses: command, with: {{ run: '{run}', outputs: [o] }} }} }}\n"
        ));
        let report = space.start(&[]).finish();
        (report, space.files("results/pipeline/odd/o"))
    };
    // A link to a file stands for what it holds: results must not lead out of their folder.
    let (report, files) = make("echo text > out/o/f; ln -s f out/o/link");
    report.code(0);
    assert_eq!(files, ["f", "link"]);
    let (report, files) = make("ln -s nowhere out/o/link");
    report.code(1).says("out/o/link");
    assert_eq!(files, NOTHING);
    let (report, files) = make("mkfifo out/o/tube");
    report.code(1).says("out/o/tube");
    assert_eq!(files, NOTHING);
}

#[test]
fn something_of_the_user_in_the_way_of_a_result_is_named_and_kept() {
    let space = chain();
    fs::remove_dir_all(space.path("results/chain/other/copy")).unwrap();
    space.write("results/chain/other/copy/file/mine.txt", "mine");
    space.run(&[]).code(1).says("results/chain/other/copy/file` is in the way");
    assert_eq!(space.read("results/chain/other/copy/file/mine.txt"), "mine");
}

#[test]
fn a_cache_that_cannot_be_written_is_named_with_the_reason() {
    let space = chain();
    space.write("data.txt", "three\n");
    fs::set_permissions(space.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = space.command(&["run", "pipeline.yaml"]);
    // Nothing is read-only to root: another user, to whom all of it is.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    } else {
        let read_only = std::process::Command::new("chmod")
            .args(["-R", "a-w", ".pipe"])
            .current_dir(space.path("."))
            .status();
        assert!(read_only.unwrap().success());
    }
    let Ok(output) = command.output() else {
        eprintln!("SKIPPED: another user may not start {}", env!("CARGO_BIN_EXE_pipe"));
        return;
    };
    let _ = std::process::Command::new("chmod")
        .args(["-R", "u+w", ".pipe"])
        .current_dir(space.path("."))
        .status();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: cannot ") && stderr.contains(".pipe"), "{stderr}");
    assert!(stderr.contains("Permission denied") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_file_where_the_cache_should_be_is_named() {
    let space =
        TestSpace::new("stages: { a: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } } }\n");
    space.write(".pipe", "");
    space.run(&[]).code(1).says("error: cannot create the cache folder").says(".pipe");
}

/// Mounts a small file system at a folder; unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(folder: std::path::PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&folder);
        let mounted = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_the_stage_and_the_next_run_finishes_when_there_is_room() {
    let space = TestSpace::new(
        "stages:\n  small: { uses: command, with: { run: 'echo small >> $LOG; echo 1 > out/o/f', outputs: [o], \
         environment: [LOG] } }\n  large: { uses: command, in: { small: small }, with: { run: 'echo large >> $LOG; \
         head -c 3000000 /dev/zero > out/o/f', outputs: [o], environment: [LOG] } }\n",
    );
    let Some(_disk) = SmallDisk::mount(space.path(".pipe"), "4m") else {
        eprintln!("SKIPPED: only root may mount a small disk to fill");
        return;
    };
    space.write(".pipe/ballast", "x".repeat(2_500_000));
    let report = space.run(&[]);
    report.code(1).says("FAILED large").says("No space left on device");
    space.pipe(&["cache", "verify"]).code(0).prints("all whole");
    fs::remove_file(space.path(".pipe/ballast")).unwrap();
    space.run(&[]).ran(&["large"]);
    assert_eq!(fs::read(space.path("results/pipeline/large/o/f")).unwrap(), vec![0; 3_000_000]);
}

#[test]
fn a_clock_that_jumps_back_hides_no_edit_and_no_result() {
    let space = chain();
    // What is there was made a day from now, by a clock that has been set right since.
    let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_hours(24);
    for file in [space.path("data.txt"), space.path("other.txt"), space.path(".pipe/stat-v1")] {
        if let Ok(file) = fs::File::options().write(true).open(file) {
            file.set_modified(tomorrow).unwrap();
        }
    }
    space.run(&[]).ran(&[]);
    space.write("other.txt", "later");
    space.run(&[]).ran(&["other"]);
    assert_eq!(space.read("results/chain/other/copy/file"), "later");
    space.run(&[]).ran(&[]);
}

#[test]
fn the_latest_run_is_the_last_one_although_the_clock_went_back() {
    let space = chain();
    let id = space.files(".pipe/runs")[0].trim_end_matches(".json").to_owned();
    let later = format!("2999{}", &id[4..]);
    let record = space.read(&format!(".pipe/runs/{id}.json")).replace(&id, &later);
    space.write(&format!(".pipe/runs/{later}.json"), record);
    fs::remove_file(space.path(&format!(".pipe/runs/{id}.json"))).unwrap();
    space.write("other.txt", "later");
    space.run(&["-m", "after the clock was set"]).ran(&["other"]);
    space.pipe(&["log", "latest"]).prints("after the clock was set");
    space.pipe(&["log", "latest~1"]).prints(&later);
}

#[test]
fn an_input_that_may_not_be_read_fails_its_stage_and_nothing_else() {
    let space = chain();
    space.write("data.txt", "secret\n");
    space.write("other.txt", "open");
    fs::set_permissions(space.path("data.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = space.command(&["run", "--keep-going", "pipeline.yaml"]);
    if rustix::process::geteuid().is_root() {
        // To root every file is readable.
        for path in std::iter::once(".".to_owned()).chain(space.files(".")).filter(|path| path != "data.txt")
        {
            let path = space.path(&path);
            for path in path.ancestors().take_while(|path| path.starts_with(space.path(""))) {
                let _ = std::os::unix::fs::chown(path, Some(65_534), Some(65_534));
            }
        }
        let _ = std::process::Command::new("chown")
            .args(["-R", "65534", ".pipe"])
            .current_dir(space.path("."))
            .status();
        command.uid(65_534);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("FAILED clean") && stderr.contains("data.txt"), "{stderr}");
    assert!(stderr.contains("Permission denied") && !stderr.contains("panicked"), "{stderr}");
    assert!(stderr.contains("done other"), "{stderr}");
}

#[test]
fn a_file_that_changes_all_the_time_is_told_and_never_served_half() {
    let space = TestSpace::new(
        "stages: { copy: { uses: command, with: { run: 'cp growing out/o/f', files: [growing], outputs: [o] } } }\n",
    );
    space.write("growing", "x".repeat(300_000));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let path = space.path("growing");
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, b"y").unwrap();
            }
        });
        let report = space.run(&[]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        report
    });
    report.says("growing");
    assert!(format!("{report}").contains("chang"), "{report}");
    assert_eq!(space.files(".pipe/actions-v1"), NOTHING, "{report}");
    space.run(&[]).code(0);
    assert_eq!(fs::read(space.path("results/pipeline/copy/o/f")).unwrap(), fs::read(&path).unwrap());
}
