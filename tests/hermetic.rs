//! A program of the user's reads what is declared, writes what is declared, and is told when it does anything else.

use crate::space::{Report, TestSpace};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const NOTHING: [&str; 0] = [];

/// A stage `s` with one output `o`, and more under `with:`.
fn stage(run: &str, more: &str) -> String {
    let body = run.trim().replace('\n', "\n        ");
    format!(
        "stages:\n  s:\n    uses: command\n    with:\n      outputs: [o]\n      {more}\n      run: |\n        {body}\n"
    )
}

/// Runs a program that must fail, and leave nothing.
#[track_caller]
fn refused(run: &str, more: &str) -> Report {
    let space = TestSpace::new(&stage(run, more));
    space.write("given.txt", "given\n");
    let report = space.run(&[]);
    report.code(1);
    assert_eq!(space.files("results"), NOTHING, "{report}");
    assert_eq!(space.files(".pipe/actions-v1"), NOTHING, "{report}");
    assert_eq!(space.read("given.txt"), "given\n", "the file of the user was changed");
    report
}

#[test]
fn files_outside_of_the_outputs_are_named_with_what_to_do() {
    refused("touch out/o/f stray; mkdir -p a/b empty; touch a/b/deep out/other", "")
        .says("wrote outside of its outputs `a/b/deep`, `empty/`, `out/other`, `stray`")
        .says("write below a declared `out/NAME/`, or to `$TMPDIR`");
    // The program's own failure is what matters then.
    refused("touch stray; exit 4", "").says("exit status: 4").does_not_say("stray");
}

#[test]
fn home_and_tmpdir_are_free_to_write_and_thrown_away() {
    let space = TestSpace::new(&stage(
        "touch $HOME/mine $TMPDIR/mine; mkdir -m 555 $TMPDIR/locked; ls -A $HOME $TMPDIR > out/o/f\n\
         case $HOME in $PWD*) exit 1;; esac",
        "",
    ));
    space.run(&[]).code(0);
    assert_eq!(space.read("results/pipeline/s/o/f").matches("mine").count(), 2);
    assert!(space.files(".pipe").iter().all(|file| !file.contains("mine")), "{:?}", space.files(".pipe"));
}

#[test]
fn changed_and_deleted_files_are_named() {
    let more = "files: [given.txt]\n      params: { a: 1 }";
    refused("chmod +w given.txt; echo more >> given.txt; touch out/o/f", more)
        .says("changed the read-only `given.txt`");
    refused("rm -f given.txt params.json; touch out/o/f", more)
        .says("deleted the read-only `given.txt`, `params.json`");
    // Not even with the same bytes: what else the program did in between, nobody knows.
    refused("cp given.txt $TMPDIR/x; rm -f given.txt; cp $TMPDIR/x given.txt; touch out/o/f", more)
        .says("changed the read-only `given.txt`");
}

/// `make` writes a small and a large file, which `use` reads as its input `made`.
fn two(run: &str) -> TestSpace {
    TestSpace::new(&format!(
        "stages:\n  make: {{ uses: command, with: {{ run: 'mkdir out/o/d; seq 9 > out/o/d/small; seq 40000 > out/o/large', \
         outputs: [o] }} }}\n  use: {{ uses: command, in: {{ made: make }}, with: {{ run: '{run}', outputs: [o] }} }}\n"
    ))
}

#[test]
fn inputs_are_read_only_small_or_large() {
    let space = two(
        "cat in/made/d/small in/made/large > out/o/f; stat -c %a in/made/d/small in/made/large >> out/o/f",
    );
    space.run(&[]).code(0);
    assert!(space.read("results/pipeline/use/o/f").ends_with("40000\n444\n444\n"));
    let check = |run: &str, said: &str| {
        let space = two(run);
        space.run(&[]).code(1).says(said);
        // Whatever it did to its input, the input of the next is right.
        let good = "stages:\n  use: { uses: command, in: { made: make }, with: { run: 'wc -l < in/made/large > out/o/f; \
                    wc -l < in/made/d/small >> out/o/f', outputs: [o] } }\n";
        let make = fs::read_to_string(space.path("pipeline.yaml")).unwrap();
        let make = make.lines().find(|line| line.contains("make:")).unwrap();
        space.write("pipeline.yaml", format!("{good}{make}\n"));
        space.run(&[]).code(0);
        assert_eq!(space.read("results/pipeline/use/o/f"), "40000\n9\n", "after {run}");
    };
    check(
        "chmod +w in/made/d/small; echo >> in/made/d/small; touch out/o/f",
        "changed the read-only `in/made/d/small`",
    );
    check(
        "chmod +w in/made/large; echo >> in/made/large; touch out/o/f",
        "changed the read-only `in/made/large`",
    );
    check("rm -rf in/made/d; touch out/o/f", "deleted the read-only `in/made/d`");
    check("touch in/made/more out/o/f", "wrote outside of its outputs `in/made/more`");
    check("mv in/made/large out/o/f", "deleted the read-only `in/made/large`");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let report = refused(
        "rm -f given.txt; touch stray; chmod 600 params.json",
        "files: [given.txt]\n      params: { a: 1 }",
    );
    report.says("wrote outside of its outputs `stray`").says("changed the read-only `params.json`");
    report.says("deleted the read-only `given.txt`").says("wrote nothing into its output `out/o/`");
}

#[test]
fn an_output_must_be_a_folder_with_something_in_it() {
    for run in ["rm -r out/o", "true"] {
        refused(run, "").says("wrote nothing into its output `out/o/`");
    }
    for run in ["rm -r out/o; touch out/o", "rm -r out/o; ln -s $TMPDIR out/o"] {
        refused(run, "").says("made no folder of its output `out/o` (an output is a folder: write below it)");
    }
}

#[test]
fn links_in_outputs_stand_for_what_they_lead_to_inside_of_the_sandbox() {
    let space = TestSpace::new(&stage(
        "mkdir out/o/d; echo text > out/o/d/f; echo tmp > $TMPDIR/t\n\
         ln -s d out/o/latest; ln -s f out/o/d/g; ln -s $TMPDIR/t out/o/t; ln -s ../../params.json out/o/p; chmod 555 out/o/d",
        "params: { a: 1 }",
    ));
    space.run(&[]).code(0);
    let files = ["d/f", "d/g", "latest/f", "latest/g", "p", "t"];
    assert_eq!(space.files("results/pipeline/s/o"), files);
    assert_eq!(space.read("results/pipeline/s/o/latest/g"), "text\n");
    for file in files {
        let kind = fs::symlink_metadata(space.path("results/pipeline/s/o").join(file)).unwrap().file_type();
        assert!(kind.is_file(), "{file} is {kind:?}");
    }
}

#[test]
fn links_that_lead_elsewhere_are_refused() {
    let check = |run: &str, said: &str| {
        refused(run, "environment: [DIR]").says(said);
    };
    check("ln -s $DIR/given.txt out/o/f", "is outside of the sandbox");
    check("ln -s /etc/hostname $TMPDIR/x; ln -s $TMPDIR/x out/o/f", "is outside of the sandbox");
    check(
        "mkdir $TMPDIR/d; ln -s $DIR/given.txt $TMPDIR/d/x; ln -s $TMPDIR/d out/o/d",
        "is outside of the sandbox",
    );
    check("ln -s nowhere out/o/f", "`out/o/f` is a symbolic link to `nowhere`, which is not there");
    check("ln -s . out/o/f", "which holds the link");
    check("mkdir out/o/a out/o/b; ln -s ../a out/o/b/x; ln -s ../b out/o/a/y", "inside of a linked folder");
    check("mkfifo out/o/tube", "`out/o/tube` is neither a file nor a folder");
}

#[test]
fn the_environment_is_what_is_declared_and_the_same_everywhere() {
    let mut space =
        TestSpace::new(&stage("env | cut -d= -f1 | sort > out/o/f; locale charmap > out/o/l", ""));
    space.set_env("SECRET", "1");
    space.set_env("LANG", "C");
    space.run(&[]).code(0);
    let names = space.read("results/pipeline/s/o/f");
    let names: Vec<_> = names.lines().filter(|name| !["_", "OLDPWD", "SHLVL"].contains(name)).collect();
    let expected = ["HOME", "LC_CTYPE", "PATH", "PWD", "PYTHONDONTWRITEBYTECODE", "TMPDIR"];
    assert_eq!(names, expected);
    assert_eq!(space.read("results/pipeline/s/o/l"), "UTF-8\n");
}

#[test]
fn a_variable_may_have_a_value_or_that_of_the_caller() {
    let pipeline = stage(
        "echo s >> $LOG; echo $MODE $THREADS > out/o/f",
        "environment: { MODE: fast, THREADS: 2, LOG: }",
    );
    let mut space = TestSpace::new(&pipeline);
    space.set_env("MODE", "slow");
    space.run(&[]).ran(&["s"]);
    assert_eq!(space.read("results/pipeline/s/o/f"), "fast 2\n");
    space.write("pipeline.yaml", pipeline.replace("THREADS: 2", "THREADS: 3"));
    space.run(&[]).ran(&["s"]).says("parameter `environment.THREADS`: \"2\" → \"3\"");
    // The two ways of writing the same are the same.
    let list = stage("echo s >> $LOG; touch out/o/f", "environment: [LOG]");
    space.write("pipeline.yaml", &list);
    space.run(&[]).ran(&["s"]);
    space.write("pipeline.yaml", list.replace("[LOG]", "{ LOG: null }"));
    space.run(&[]).ran(&[]);
}

/// Writes an executable shell script.
fn script(space: &TestSpace, name: &str, text: &str) {
    space.write(name, format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(space.path(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A space whose `PATH` begins with its folder `bin`, which is given as a relative path.
fn with_tools(pipeline: &str) -> TestSpace {
    let mut space = TestSpace::new(pipeline);
    let path = format!("bin:{}", std::env::var("PATH").unwrap());
    space.set_env("PATH", &path);
    script(&space, "bin/tool", "echo one");
    script(&space, "bin/helper", "echo help");
    space
}

#[test]
fn a_program_that_changes_runs_again() {
    let shell = stage("tool > out/o/f; echo s >> $LOG", "environment: [LOG]");
    let quoted = stage("(tool > out/o/f); echo s >> $LOG", "environment: [LOG]\n      programs: [tool]");
    for pipeline in [shell, quoted] {
        let space = with_tools(&pipeline);
        space.run(&[]).ran(&["s"]);
        space.run(&[]).ran(&[]);
        script(&space, "bin/helper", "echo other help");
        space.run(&[]).ran(&[]);
        script(&space, "bin/tool", "echo two");
        space.run(&[]).ran(&["s"]).says("external files `program/tool` changed: ").says("`tool` changed");
        assert_eq!(space.read("results/pipeline/s/o/f"), "two\n");
    }
    let list = "stages: { s: { uses: command, with: { run: [tool, 1], outputs: [o] } } }\n";
    let space = with_tools(list);
    script(&space, "bin/tool", "echo $1 > out/o/f");
    space.run(&[]).code(0).says("1 ran");
    script(&space, "bin/tool", "echo $1$1 > out/o/f");
    space.run(&[]).code(0).says("1 ran");
    assert_eq!(space.read("results/pipeline/s/o/f"), "11\n");
}

#[test]
fn the_same_program_elsewhere_runs_nothing() {
    let mut space = with_tools(&stage("tool > out/o/f; echo s >> $LOG", "environment: [LOG]"));
    space.run(&[]).ran(&["s"]);
    fs::rename(space.path("bin"), space.path("elsewhere")).unwrap();
    let path = format!("{}:{}", space.path("elsewhere").display(), std::env::var("PATH").unwrap());
    space.set_env("PATH", &path);
    space.run(&[]).ran(&[]);
}

#[test]
fn a_program_that_is_not_there_is_told_before_anything_runs() {
    let first = "stages:\n  first: { uses: command, with: { run: 'echo first >> $LOG; touch out/o/f', outputs: [o], environment: [LOG] } }\n";
    let check = |with: &str, said: &str| {
        let space = TestSpace::new(&format!(
            "{first}  s: {{ uses: command, in: {{ f: first }}, with: {{ {with}, outputs: [o] }} }}\n"
        ));
        let report = space.run(&[]);
        report.code(2).says(said);
        assert_eq!(report.ran, NOTHING, "{report}");
    };
    check("run: [no-such-tool, x]", "the program `no-such-tool` was not found");
    check("run: A=1 /no/such/tool x", "the program `/no/such/tool` was not found");
    check("run: [/no/such/tool]", "the program `/no/such/tool` was not found");
    check("run: 'true', programs: [no-such-tool]", "add its folder to `PATH`, which is /");
    check("run: 'true', programs: [./tool]", "a script of yours belongs under `files`");
}

#[test]
fn a_script_that_is_not_declared_is_told_before_anything_runs() {
    let check = |run: &str, more: &str| {
        let space = TestSpace::new(&format!(
            "stages: {{ s: {{ uses: command, with: {{ run: {run}, outputs: [o]{more} }} }} }}\n"
        ));
        space.write("scripts/make.sh", "touch out/o/f");
        script(&space, "run.sh", "touch out/o/f");
        space.run(&[])
    };
    check("sh scripts/make.sh", "")
        .code(2)
        .says("`scripts/make.sh` is read by the program but not declared under `files`");
    check("[sh, ./scripts/make.sh]", "").code(2).says("add `files: [scripts/make.sh]`");
    check("[./run.sh]", "").code(2).says("`run.sh` is read by the program");
    check("[sh, scripts/make.sh]", ", files: [scripts]").code(0);
    check("[./run.sh]", ", files: [run.sh]").code(0);
    check("./run.sh", ", files: [./run.sh]").code(0);
    // Text is not a file.
    check("'echo \"see run.sh\"; touch out/o/f # run.sh'", "").code(0).says("note s  see run.sh");
}

#[test]
fn declared_files_must_not_stand_in_the_way_of_inputs_and_outputs() {
    let check = |file: &str, said: &str| {
        let space = TestSpace::new(&format!(
            "stages: {{ s: {{ uses: command, with: {{ run: 'true', outputs: [o], files: [{file}] }} }} }}\n"
        ));
        space.run(&[]).code(2).says(said);
    };
    check("in/data", "would lie where the program finds what the pipeline gives it");
    check("./out", "would lie where");
    check(".", "is the whole working directory");
}

#[test]
fn a_file_declared_twice_is_there_once() {
    let space = TestSpace::new(&stage("cat src/a > out/o/f", "files: [src/a, src, ./src/a]"));
    space.write("src/a", "a");
    space.run(&[]).code(0);
    assert_eq!(space.read("results/pipeline/s/o/f"), "a");
}

#[test]
fn what_a_failing_program_said_is_told_once() {
    let space = TestSpace::new(&stage("echo step one; echo no such case >&2; exit 3", ""));
    let report = space.run(&[]);
    report.code(1).says("note s  step one").says("the program ended with exit status: 3:\n    no such case");
    assert_eq!(report.stderr.matches("no such case").count(), 1, "{report}");
    // The record has it for later.
    space.pipe(&["why", "pipeline.yaml", "s"]).code(0).prints("no such case");
}

#[test]
fn an_end_by_a_signal_is_told_by_name() {
    let check = |run: &str, said: &str| {
        TestSpace::new(&stage(run, "")).run(&[]).code(1).says(said);
    };
    check("kill -SEGV $$", "the program ended with signal SIGSEGV (it touched memory");
    check("kill -KILL $$", "signal SIGKILL (somebody ended it: often the system, when memory runs out)");
    check("sh -c 'kill -TERM $$'", "exit status: 143, for signal SIGTERM");
}

#[test]
fn what_a_program_prints_is_shown_while_it_runs() {
    let space = TestSpace::new(&stage(
        ". ./wait.sh; echo to stdout; echo to stderr >&2; printf 'no line end'; wait_for go; touch out/o/f",
        "files: [wait.sh]\n      environment: [DIR]",
    ));
    let running = space.start(&[]);
    running.wait_until_it_says("note s  to stdout");
    running.wait_until_it_says("note s  to stderr");
    space.write("go", "");
    running.finish().code(0).says("note s  no line end");
}

#[test]
fn a_program_that_prints_without_end_does_not_fill_the_memory() {
    // Ten million lines: one gigabyte of address space would not hold them and the engine.
    let space = TestSpace::new(&stage("yes 0123456789 | head -n 10000000; echo the end; touch out/o/f", ""));
    let command = format!("ulimit -v 1000000; exec {} run pipeline.yaml", env!("CARGO_BIN_EXE_pipe"));
    let output = space
        .command(&[])
        .get_envs()
        .fold(std::process::Command::new("sh"), |mut shell, (name, value)| {
            shell.env(name, value.unwrap());
            shell
        })
        .args(["-c", &command])
        .current_dir(space.path("."))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail = &stderr[stderr.len().saturating_sub(2_000)..];
    assert!(output.status.success(), "{tail}");
    assert!(stderr.len() < 20_000_000, "{} bytes", stderr.len());
    assert!(tail.contains("lines are not shown") && tail.contains("note s  the end"), "{tail}");
}

#[test]
fn progress_bars_and_long_lines_stay_readable() {
    let space = TestSpace::new(&stage(
        r"printf '10%%\r50%%\r100%%\n'; printf 'dos\r\n'; head -c 40000 /dev/zero | tr '\0' x; touch out/o/f",
        "",
    ));
    let report = space.run(&[]);
    report.code(0).says("note s  100%\n").says("note s  dos\n").does_not_say("50%");
    let longest = report.stderr.lines().map(str::len).max().unwrap();
    assert!((16_000..70_000).contains(&longest), "{longest}");
}

#[test]
fn an_input_that_another_stage_makes_safe_meanwhile_has_not_changed() {
    let space = TestSpace::new(
        "stages:
  warm: { uses: command, with: { run: touch out/o/f, outputs: [o] } }
  long: { uses: command, in: { w: warm }, with: { run: sleep 2; echo x > out/o/f, outputs: [o] } }
  # Its output is the same object as that of `warm`, and it runs long enough to be synced.
  twin: { uses: command, in: { w: warm }, with: { run: sleep 1.1; touch out/o/f, outputs: [o] } }
",
    );
    space.run(&["-j", "3"]).code(0).says("3 ran");
}

#[test]
fn the_mode_of_a_file_is_no_input() {
    let space =
        TestSpace::new(&stage("./tool.sh > out/o/x; stat -c %a tool.sh >> out/o/x", "files: [tool.sh]"));
    space.write("tool.sh", "#!/bin/sh\necho made\n");
    space.run(&[]).code(0).says("1 ran");
    assert_eq!(space.read("results/pipeline/s/o/x"), "made\n555\n");
    fs::set_permissions(space.path("tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    space.run(&[]).code(0).says("nothing to do");
}

#[test]
fn inputs_of_a_matrix_lie_in_their_folder_whatever_its_values() {
    let space = TestSpace::new(
        "stages:\n  a:\n    uses: command\n    matrix: { x: [../../../../evil, b%2F, ..] }\n    with: { run: 'echo \"${matrix.x}\" > out/o/x', \
         outputs: [o] }\n  b: { uses: command, in: { i: 'a[*]' }, with: { run: 'ls in/i > out/o/list; cat in/i/*/x > out/o/all', outputs: [o] } }\n",
    );
    space.run(&[]).code(0);
    assert_eq!(
        space.read("results/pipeline/b/o/list"),
        "a[x=..%2F..%2F..%2F..%2Fevil]\na[x=..]\na[x=b%252F]\n"
    );
    assert_eq!(space.read("results/pipeline/b/o/all"), "../../../../evil\n..\nb%2F\n");
}

#[test]
fn a_matrix_of_one_value_lies_where_one_of_several_would() {
    let pipeline = "stages:\n  a:\n    uses: command\n    matrix: { x: [1, 2] }\n    with: { run: 'echo ${matrix.x} > out/o/x', \
                    outputs: [o] }\n  b: { uses: command, in: { all: 'a[*]', one: 'a[x=1]' }, with: { run: 'find in -type f | \
                    LC_ALL=C sort > out/o/list', outputs: [o] } }\n";
    let space = TestSpace::new(pipeline);
    space.run(&[]).code(0);
    assert_eq!(space.read("results/pipeline/b/o/list"), "in/all/a[x=1]/x\nin/all/a[x=2]/x\nin/one/x\n");
    space.write("pipeline.yaml", pipeline.replace("[1, 2]", "[1]"));
    space.run(&[]).code(0).says("`a[x=2]` removed");
    assert_eq!(space.read("results/pipeline/b/o/list"), "in/all/a[x=1]/x\nin/one/x\n");
    // A pattern and a name are two layouts, so they are two results.
    space.write("pipeline.yaml", pipeline.replace("[1, 2]", "[1]").replace("a[*]", "a[x=1]"));
    space.run(&[]).code(0).says("1 ran");
    assert_eq!(space.read("results/pipeline/b/o/list"), "in/all/x\nin/one/x\n");
}

#[test]
fn what_a_late_stage_reads_must_be_there_before_the_first_one_starts() {
    let space = TestSpace::new(
        "stages:\n  first: { uses: command, with: { run: 'touch out/o/x', outputs: [o] } }\n  late: { uses: command, in: { a: \
         first }, with: { run: 'cat here gone > out/o/x', files: [here, gone, '*.txt'], outputs: [o] } }\n  data: { uses: import, \
         with: { from: no/such } }\n",
    );
    space.write("here", "1\n");
    let report = space.run(&[]);
    report
        .code(2)
        .says("nothing was run")
        .says("`gone`: `files` of `late`")
        .says("`*.txt`: `files` of `late`");
    report.says("`no/such`: `from` of `data`").says("patterns are not taken").does_not_say("`here`");
    assert_eq!(space.files("results"), NOTHING);
    // What is not asked for may lack its files, and so may what is left out.
    space.run(&["first"]).code(0).says("1 ran");
    space.run(&["--keep-going"]).code(1).says("`gone`, declared under `files`, is not there");
    space.write("gone", "2\n");
    space.write("x.txt", "3\n");
    let text = space.read("pipeline.yaml").replace("*.txt", "x.txt").replace("no/such", "phantom");
    space.write("pipeline.yaml", text);
    space.run(&["late"]).code(0).says("1 ran, 1 cached");
}

#[test]
fn what_is_written_beside_the_working_folder_is_told_and_gone_for_the_next_stage() {
    refused("echo x > ../shared; touch out/o/x", "").says("wrote outside of its outputs `../shared`");
    let space = TestSpace::new(
        "stages:\n  a: { uses: command, with: { run: 'echo x > ../shared; touch out/o/x; exit 1', outputs: [o] } }\n  \
         b: { uses: command, with: { run: 'cat ../shared > out/o/x || echo none > out/o/x', outputs: [o] } }\n",
    );
    space.run(&["--keep-going", "-j", "1"]).code(1);
    assert_eq!(space.read("results/pipeline/b/o/x"), "none\n");
}

#[test]
fn a_program_that_is_found_earlier_or_only_now_is_another() {
    let mut space = TestSpace::new(&stage("tool > out/o/f; { other || echo none; } >> out/o/f", ""));
    let path = format!(
        "{}:{}:{}",
        space.path("one").display(),
        space.path("two").display(),
        std::env::var("PATH").unwrap()
    );
    space.set_env("PATH", &path);
    let program = |name: &str, says: &str| {
        space.write(name, format!("#!/bin/sh\necho {says}\n"));
        fs::set_permissions(space.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("two/tool", "two");
    space.run(&[]).code(0).says("1 ran");
    space.run(&[]).code(0).says("nothing to do");
    program("one/tool", "one");
    space.run(&[]).code(0).says("1 ran").says("`tool` changed");
    program("one/other", "other");
    space.run(&[]).code(0).says("1 ran").says("external files `program/other` added");
    assert_eq!(space.read("results/pipeline/s/o/f"), "one\nother\n");
    program("one/other", "changed");
    space.run(&[]).code(0).says("1 ran");
}

#[test]
fn a_declared_variable_that_is_no_text_is_named_and_not_taken_for_unset() {
    use std::os::unix::ffi::OsStrExt;
    let space = TestSpace::new(&stage("echo \"$MYVAR\" > out/o/x", "environment: [MYVAR]"));
    space.run(&[]).code(0);
    let mut command = space.command(&["run", "pipeline.yaml"]);
    let output = command.env("MYVAR", std::ffi::OsStr::from_bytes(b"\xff")).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("the value of the environment variable `MYVAR` is not UTF-8 text"), "{told}");
    assert!(told.contains("pipeline.yaml:"), "{told}");
}
