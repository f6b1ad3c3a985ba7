//! What this machine offers to stages, for `pipe doctor` and run records. Fetches nothing and changes nothing.

use std::collections::BTreeMap;

/// Name and finding, one a line.
pub fn findings() -> Vec<(&'static str, String)> {
    let mut notices = Vec::new();
    let policy = pipe_onnx::runtime::Policy::from_environment().without_fetch();
    let found = pipe_onnx::runtime::locate(&policy, &mut |line| notices.push(line.to_owned()));
    let runtime = match found {
        Ok(info) => info.to_string(),
        Err(error) => format!("not found: {error}"),
    };
    let mut findings = vec![
        ("training", format!("dfdx on the CPU, {:?} kernels", pipe_nn::Isa::detect())),
        ("ONNX Runtime", runtime),
    ];
    findings.extend(notices.into_iter().map(|notice| ("", notice)));
    findings
}

/// Versions of the libraries that networks train and infer with. ONNX Runtime is named once a stage has loaded it.
pub fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([("dfdx".to_owned(), pipe_nn::DFDX_VERSION.to_owned())]);
    if let Some(runtime) = pipe_onnx::runtime::loaded() {
        versions.insert("ONNX Runtime".to_owned(), runtime.info().version.clone());
    }
    versions
}

/// Most memory that this process held at once so far; `None` where the system does not tell.
pub fn peak_memory_bytes() -> Option<u64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    // Apple counts bytes, all others kibibytes.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    u64::try_from(usage.max_rss()).ok().map(|held| held * unit)
}
