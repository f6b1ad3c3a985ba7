//! Where the runtime is looked for, what a failure says, and that a fetch happens once.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pipe_onnx::runtime::{FETCHED_VERSION, load, locate, runtime};
use pipe_onnx::{Origin, Policy, RuntimeError, RuntimeInfo};

use crate::load_runtime;

/// A folder with a fake Python (see `fake_python.sh`), an empty cache, and a policy that knows only these.
struct Space {
    folder: tempfile::TempDir,
    policy: Policy,
}

impl Space {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let python = folder.path().join("python3");
        symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/fake_python.sh"), &python)
            .expect("a link");
        let cache = Some(folder.path().join("cache"));
        let pythons = vec![folder.path().join("no-such-python"), python];
        Self { folder, policy: Policy { library: None, cache, pythons, fetch: true } }
    }

    /// Lets the fake pip install the real library.
    fn with_wheel() -> Self {
        let space = Self::new();
        symlink(library(), space.folder.path().join("library")).expect("a link");
        space
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("cache").join(format!("onnxruntime-{FETCHED_VERSION}"))
    }

    fn locate(&self) -> (Result<RuntimeInfo, RuntimeError>, Vec<String>) {
        let mut notices = Vec::new();
        let found = locate(&self.policy, &mut |line| notices.push(line.to_owned()));
        (found, notices)
    }

    fn pip_calls(&self) -> usize {
        fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default().lines().count()
    }
}

/// The real library on this machine.
fn library() -> PathBuf {
    load_runtime();
    runtime().expect("it is loaded").info().path.clone()
}

#[track_caller]
fn assert_says(error: &RuntimeError, texts: &[&str]) {
    let message = error.to_string();
    for text in texts {
        assert!(message.contains(text), "{message:?} does not contain {text:?}");
    }
    for way in ["unset PIPE_OFFLINE", "pip install onnxruntime", "ORT_DYLIB_PATH=/path"] {
        assert!(message.contains(way), "{message:?} does not name the way {way:?}");
    }
}

#[test]
fn the_loaded_runtime_tells_its_version_file_and_origin() {
    load_runtime();
    let runtime = runtime().expect("it is loaded");
    let info = runtime.info();
    let numbers: Vec<u32> = info.version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(numbers.len() == 3 && numbers[0] == 1 && numbers[1] >= 17, "{info}");
    assert!(info.path.is_absolute() && info.path.is_file(), "{info}");
    assert!(runtime.build().contains("git-commit-id"), "{}", runtime.build());
    let json = serde_json::to_value(info).expect("it serialises");
    assert_eq!(json["version"], info.version.as_str());
}

#[test]
fn a_process_has_one_runtime_whatever_is_asked_later() {
    load_runtime();
    let nowhere = Policy { library: None, cache: None, pythons: Vec::new(), fetch: false };
    let again = load(&nowhere, &mut |_| {}).expect("one is loaded");
    assert!(std::ptr::eq(again, runtime().expect("it is loaded")));
}

#[test]
fn without_any_runtime_the_error_names_every_place_and_three_ways_out() {
    let mut space = Space::new();
    space.policy.fetch = false;
    let (found, _) = space.locate();
    let texts = [
        "no library in",
        "no-such-python: does not start",
        "no package `onnxruntime`",
        "fetch: not allowed here",
    ];
    assert_says(&found.expect_err("there is none"), &texts);
    assert_eq!(space.pip_calls(), 0, "a forbidden fetch must not call pip");

    let nowhere = Policy { library: None, cache: None, pythons: Vec::new(), fetch: true };
    let found = locate(&nowhere, &mut |_| {});
    assert_says(&found.expect_err("there is none"), &["PIPE_HOME is not set", "there is no cache folder"]);
}

#[test]
fn a_failed_fetch_tells_pips_error_and_leaves_nothing() {
    let space = Space::new();
    let (found, notices) = space.locate();
    assert_says(
        &found.expect_err("pip fails"),
        &["failed: ERROR: No matching distribution found for onnxruntime"],
    );
    assert!(notices.iter().any(|line| line.contains("fetching ONNX Runtime")), "{notices:?}");
    assert!(!space.target().exists());
    let left: Vec<_> = fs::read_dir(space.folder.path().join("cache")).expect("the cache").collect();
    assert_eq!(left.len(), 1, "only the lock stays: {left:?}");
}

#[test]
fn a_fetch_is_told_and_happens_once() {
    let space = Space::with_wheel();
    let (found, notices) = space.locate();
    let info = found.expect("it is fetched");
    assert_eq!(info.origin, Origin::Fetched);
    assert!(notices.iter().any(|line| line.contains("PIPE_OFFLINE=1 forbids it")), "{notices:?}");
    let mut kept: Vec<_> =
        fs::read_dir(space.target()).expect("the target").map(|e| e.expect("an entry").file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["LICENSE", "libonnxruntime.so.1.31.1"]);

    let (found, notices) = space.locate();
    let again = found.expect("it is there");
    assert_eq!((again.origin, again.path, notices.len()), (Origin::Cache, info.path, 0));
    assert_eq!(space.pip_calls(), 1);
}

#[test]
fn several_at_once_fetch_once() {
    let space = Space::with_wheel();
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| space.locate())).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    assert_eq!(space.pip_calls(), 1);
    for (found, _) in &results {
        found.as_ref().expect("each finds the one library");
    }
    let waited =
        results.iter().filter(|(_, notices)| notices.iter().any(|line| line.contains("waiting"))).count();
    assert!(waited <= 3, "one of them fetches");
}

#[test]
fn a_spoiled_cache_is_told_and_replaced_and_leftovers_go() {
    let space = Space::with_wheel();
    fs::create_dir_all(space.target()).expect("the target");
    fs::write(space.target().join("libonnxruntime.so.1.31.1"), "half a downl").expect("a spoiled library");
    let leftover = space.target().with_file_name(format!("onnxruntime-{FETCHED_VERSION}.partial-killed"));
    fs::create_dir_all(leftover.join("wheel")).expect("a leftover");
    let (found, notices) = space.locate();
    assert_eq!(found.expect("it is fetched").origin, Origin::Fetched);
    assert!(notices[0].contains("cannot be loaded") && notices[0].contains("passed over"), "{notices:?}");
    assert!(!leftover.exists());
}

#[test]
fn the_package_of_the_active_python_is_used_before_a_fetch() {
    let space = Space::with_wheel();
    let package = space.folder.path().join("site-packages/onnxruntime");
    fs::create_dir_all(package.join("capi")).expect("a package");
    symlink(library(), package.join("capi/libonnxruntime.so")).expect("a link");
    fs::write(space.folder.path().join("package"), format!("{}\n", package.display())).expect("its place");
    let info = space.locate().0.expect("it is there");
    assert_eq!((info.origin, info.path), (Origin::Python, library()));
    assert_eq!(space.pip_calls(), 0);
}

#[test]
fn a_library_that_the_user_names_is_used_or_refused_but_never_replaced() {
    let mut space = Space::with_wheel();
    let mut explicit = |path: &Path| {
        space.policy.library = Some(path.to_owned());
        space.locate().0
    };
    let real = library();
    assert_eq!(explicit(&real).expect("it works").origin, Origin::Environment);
    assert_eq!(explicit(real.parent().expect("a folder")).expect("a folder works too").path, real);

    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("libonnxruntime.so");
    assert_says(&explicit(&text).expect_err("it is absent"), &["libonnxruntime.so`, which does not exist"]);
    assert_says(
        &explicit(folder.path()).expect_err("it is empty"),
        &["is a folder without an ONNX Runtime library"],
    );
    fs::write(&text, "not a library").expect("a text");
    assert_says(&explicit(&text).expect_err("it is a text"), &["cannot be loaded: "]);
    if let Some(other) = other_library() {
        assert_says(
            &explicit(&other).expect_err("it is another library"),
            &["is not an ONNX Runtime 1.x library"],
        );
    }
}

/// A shared library of this process that is not ONNX Runtime, where the system lists them.
fn other_library() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().last());
    paths.find(|path| path.contains("/libc.so")).map(PathBuf::from)
}
