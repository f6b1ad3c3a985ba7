//! The safety battery: what a rerun may do, must do and must not do after each kind of change, one test each. `a` keeps
//! the first line of `in.txt` in `mid.txt`, `b` copies that to `out.txt`.

use crate::space::TestSpace;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

const A: &str = r#"echo a >> "$LOG"; head -n 1 in.txt > out/mid/mid.txt"#;
const NOTHING: [&str; 0] = [];
const MID: &str = "results/pipeline/a/mid/mid.txt";
const OUT: &str = "results/pipeline/b/out/out.txt";

fn pipeline(a: &str) -> String {
    format!(
        "stages:\n  a:\n    uses: command\n    with:\n      run: |\n        {}\n      outputs: [mid]\n      \
         files: [in.txt, wait.sh]\n      environment: [LOG, DIR]\n  b:\n    uses: command\n    in: {{ mid: a }}\n    \
         with: {{ run: 'echo b >> $LOG; cat in/mid/mid.txt > out/out/out.txt', outputs: [out], environment: [LOG] }}\n",
        a.replace('\n', "\n        ")
    )
}

/// After a first run on `line1`.
fn space() -> TestSpace {
    let space = TestSpace::new(&pipeline(A));
    space.write("in.txt", "line1\nxxxx\n");
    space.run(&[]).ran(&["a", "b"]);
    is(&space, "line1\n");
    space
}

#[track_caller]
fn is(space: &TestSpace, line: &str) {
    assert_eq!((space.read(MID).as_str(), space.read(OUT).as_str()), (line, line));
}

#[test]
fn nothing_changed_runs_nothing() {
    let space = space();
    space.run(&[]).ran(&NOTHING);
}

#[test]
fn a_touched_input_runs_nothing() {
    let space = space();
    let file = File::options().append(true).open(space.path("in.txt")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_mins(1)).unwrap();
    space.run(&[]).ran(&NOTHING);
}

#[test]
fn an_edit_that_gives_the_same_mid_stops_there_and_then_nothing_runs() {
    let space = space();
    space.write("in.txt", "line1\nyyyy\n");
    space.run(&[]).ran(&["a"]);
    space.run(&[]).ran(&NOTHING);
    is(&space, "line1\n");
}

#[test]
fn an_edit_that_gives_another_mid_runs_both() {
    let space = space();
    space.write("in.txt", "line2\nxxxx\n");
    space.run(&[]).ran(&["a", "b"]);
    is(&space, "line2\n");
}

#[test]
fn an_edit_of_the_same_size_with_its_old_time_is_seen() {
    let space = space();
    // In place, at once and with the old mtime: all that a weaker check could go by is as it was.
    let path = space.path("in.txt");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "line3\nxxxx\n").unwrap();
    File::options().append(true).open(&path).unwrap().set_modified(before).unwrap();
    space.run(&[]).ran(&["a", "b"]);
    is(&space, "line3\n");
}

#[test]
fn going_back_to_an_older_input_restores_the_older_result_without_running() {
    let space = space();
    space.write("in.txt", "line2\nxxxx\n");
    space.run(&[]).ran(&["a", "b"]);
    space.write("in.txt", "line1\nxxxx\n");
    space.run(&[]).ran(&NOTHING);
    is(&space, "line1\n");
}

#[test]
fn an_edit_of_the_command_alone_runs_its_stage() {
    let space = space();
    space.write("pipeline.yaml", pipeline(&A.replace("-n 1", "-n 01")));
    space.run(&[]).ran(&["a"]);
    is(&space, "line1\n");
}

#[test]
fn deleted_and_tampered_results_are_restored_without_running() {
    let check = |damage: &dyn Fn(&TestSpace)| {
        let space = space();
        damage(&space);
        space.run(&[]).ran(&NOTHING);
        is(&space, "line1\n");
    };
    check(&|space| fs::remove_file(space.path(MID)).unwrap());
    check(&|space| fs::remove_file(space.path(OUT)).unwrap());
    check(&|space| space.write(OUT, "tampered\n"));
    check(&|space| space.write(OUT, "line9\n"));
    check(&|space| fs::remove_dir_all(space.path("results")).unwrap());
}

#[test]
fn a_large_result_that_was_edited_with_its_old_time_is_made_again_before_anybody_reads_it() {
    let space = TestSpace::new(
        "params: { k: 1 }\nstages:\n  a: { uses: command, with: { run: 'head -c 100000 /dev/zero > out/o/x', outputs: [o] } }\n  \
         b: { uses: command, in: { a: a }, with: { run: 'cksum < in/a/x > out/o/y', outputs: [o], params: { k: \"${k}\" } } }\n",
    );
    space.run(&[]).code(0).says("2 ran");
    let result = space.path("results/pipeline/a/o/x");
    let sum = space.read("results/pipeline/b/o/y");
    for again in [false, true] {
        let before = fs::metadata(&result).unwrap();
        fs::set_permissions(&result, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        // Longer than a tick of the file system's clock.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&result, vec![1; 100_000]).unwrap();
        File::options().append(true).open(&result).unwrap().set_modified(before.modified().unwrap()).unwrap();
        fs::set_permissions(&result, before.permissions()).unwrap();
        let step = if again { "k=3" } else { "k=2" };
        space.run(&["--set", step]).code(0);
        assert_eq!(space.read("results/pipeline/b/o/y"), sum);
        assert_eq!(fs::read(&result).unwrap(), vec![0; 100_000]);
    }
    space.pipe(&["cache", "verify"]).code(0);
}

/// `a` reads its input, then waits for `go`.
const SLOW: &str =
    ". ./wait.sh\necho a >> \"$LOG\"; head -n 1 in.txt > out/mid/mid.txt; touch $DIR/read; wait_for go";

#[test]
fn an_input_edited_while_its_stage_runs_is_not_served() {
    let space = space();
    space.write("pipeline.yaml", pipeline(SLOW));
    space.write("in.txt", "line5\nxxxx\n");
    let running = space.start(&[]);
    space.wait_for("read");
    space.write("in.txt", "line6\nxxxx\n");
    space.write("go", "");
    running.finish().code(0).says("changed while the stage ran");
    space.run(&[]).ran(&["a", "b"]);
    is(&space, "line6\n");
    // What was made of the input before the edit was not recorded for it either.
    space.write("in.txt", "line5\nxxxx\n");
    assert!(space.run(&[]).code(0).ran.contains(&"a".to_owned()));
    is(&space, "line5\n");
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_half_done() {
    let space = space();
    let part = SLOW.replace("head -n 1 in.txt", "echo part") + "; head -n 1 in.txt > out/mid/mid.txt";
    space.write("pipeline.yaml", pipeline(&part));
    space.write("in.txt", "line7\nxxxx\n");
    let running = space.start(&[]);
    space.wait_for("read");
    running.signal("KILL");
    assert_eq!(running.finish().code, None);
    is(&space, "line1\n");
    space.write("go", "");
    space.run(&[]).ran(&["a", "b"]);
    is(&space, "line7\n");
    space.run(&[]).ran(&NOTHING);
}
