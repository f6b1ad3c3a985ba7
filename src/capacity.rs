//! What this machine has for stages: threads, memory, GPUs; less where a container is given less.

use std::path::{Path, PathBuf};

/// All that stages may take together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    pub cpu: usize,
    /// `u64::MAX` where it cannot be found out: then nothing waits for memory.
    pub memory_bytes: u64,
    /// Names of the GPUs, as CUDA knows them.
    pub gpus: Vec<String>,
}

impl Capacity {
    pub fn of_machine() -> Self {
        Self {
            cpu: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory_bytes().unwrap_or(u64::MAX),
            gpus: visible(&gpus(Path::new("/dev")), std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()),
        }
    }

    /// So many GPUs: fewer than were found, or more, where they cannot be found.
    pub fn set_gpus(&mut self, count: usize) {
        self.gpus.truncate(count);
        let further = (0..).map(|number: usize| number.to_string());
        let further: Vec<_> =
            further.filter(|name| !self.gpus.contains(name)).take(count - self.gpus.len()).collect();
        self.gpus.extend(further);
    }
}

/// The memory of the machine, or the smallest limit of a control group that this process is in.
fn memory_bytes() -> Option<u64> {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = group_limit(Path::new("/sys/fs/cgroup"), &groups);
    total.into_iter().chain(limit).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest memory limit of the groups that `/proc/self/cgroup` names and of those around them.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let files = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // In a container the path may be one of the host, which is not there; its root is.
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        folders.map(|folder| base.join(folder).join(file)).collect::<Vec<PathBuf>>()
    });
    files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// Numbers of the NVIDIA devices below `/dev`.
fn gpus(devices: &Path) -> Vec<String> {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("nvidia")?.parse().ok();
    let mut numbers: Vec<u32> =
        std::fs::read_dir(devices).into_iter().flatten().flatten().filter_map(number).collect();
    numbers.sort_unstable();
    // CUDA counts from 0, also where a container is given only the second device.
    (0..numbers.len()).map(|at| at.to_string()).collect()
}

/// What is left of the GPUs where `CUDA_VISIBLE_DEVICES` names some: CUDA reads it up to the first wrong name.
fn visible(gpus: &[String], variable: Option<&str>) -> Vec<String> {
    let Some(variable) = variable.filter(|_| !gpus.is_empty()) else { return gpus.to_vec() };
    let named = variable.split(',').map(str::trim);
    // Names such as `GPU-3f8a…` and `MIG-…` are taken as they are.
    let known = |name: &&str| {
        name.starts_with("GPU-") || name.starts_with("MIG-") || gpus.iter().any(|gpu| gpu == name)
    };
    named.take_while(known).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_limit(files: &[(&str, &str)], groups: &str, expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(group_limit(root.path(), groups), expected);
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_of_those_around_it_holds() {
        let two = [("user/memory.max", "4096\n"), ("user/pipe/memory.max", "max\n")];
        check_limit(&two, "0::/user/pipe\n", Some(4_096));
        check_limit(&two, "0::/other\n", None);
        check_limit(&[("memory.max", "512\n")], "0::/a/path/of/the/host\n", Some(512));
        let old = [("memory/job/memory.limit_in_bytes", "7\n"), ("cpu/job/memory.limit_in_bytes", "1\n")];
        check_limit(&old, "5:cpu:/job\n4:memory,hugetlb:/job\n", Some(7));
        check_limit(&[], "not a group\n", None);
    }

    #[test]
    fn total_memory_is_read_in_kib() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16_384));
        assert_eq!(total("MemTotal: many\n"), None);
    }

    #[test]
    fn gpus_are_counted_by_their_devices() {
        let devices = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            std::fs::write(devices.path().join(name), "").unwrap();
        }
        assert_eq!(gpus(devices.path()), ["0", "1"]);
        assert_eq!(gpus(&devices.path().join("none")), [] as [&str; 0]);
    }

    #[track_caller]
    fn check_visible(variable: Option<&str>, expected: &[&str]) {
        assert_eq!(visible(&["0".to_owned(), "1".to_owned()], variable), expected);
    }

    #[test]
    fn gpus_that_are_hidden_from_pipe_are_not_used() {
        check_visible(None, &["0", "1"]);
        check_visible(Some("1"), &["1"]);
        check_visible(Some("1, 0"), &["1", "0"]);
        check_visible(Some(""), &[]);
        check_visible(Some("0,-1,1"), &["0"]);
        check_visible(Some("GPU-3f8a"), &["GPU-3f8a"]);
    }

    #[test]
    fn the_user_may_say_how_many_gpus_there_are() {
        let mut capacity = Capacity { cpu: 1, memory_bytes: 0, gpus: vec!["1".into()] };
        capacity.set_gpus(3);
        assert_eq!(capacity.gpus, ["1", "0", "2"]);
        capacity.set_gpus(0);
        assert_eq!(capacity.gpus, [] as [&str; 0]);
    }
}
