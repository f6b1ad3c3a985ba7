//! What this machine offers to stages, for `pipe doctor` and run records. Fetches nothing and changes nothing.

use std::collections::BTreeMap;

/// Name and finding, one a line.
pub fn findings() -> Vec<(&'static str, String)> {
    let mut notices = Vec::new();
    let policy = pipe_onnx::runtime::Policy::from_environment().without_fetch();
    let found = pipe_onnx::runtime::locate(&policy, &mut |line| notices.push(line.to_owned()));
    let cuda = match pipe_nn::try_cuda(0) {
        Ok(()) => "cuda:0 works".to_owned(),
        Err(reason) => format!("no CUDA: {reason}"),
    };
    let mut findings =
        vec![("training", format!("dfdx on the CPU, {:?} kernels", pipe_nn::Isa::detect())), ("", cuda)];
    match found {
        Ok(info) => {
            findings.push(("ONNX Runtime", info.to_string()));
            findings.extend(
                devices(&policy)
                    .into_iter()
                    .enumerate()
                    .map(|(at, line)| (if at == 0 { "devices" } else { "" }, line)),
            );
        }
        Err(error) => findings.push(("ONNX Runtime", format!("not found: {error}"))),
    }
    findings.extend(notices.into_iter().map(|notice| ("", notice)));
    findings
}

/// One line for each provider that the library has, whether it starts here, and which one `device: auto` takes.
fn devices(policy: &pipe_onnx::runtime::Policy) -> Vec<String> {
    use pipe_onnx::{Device, Provider, device};
    let built = match pipe_onnx::runtime::load(policy, &mut |_| {}).and_then(|_| device::built()) {
        Ok(built) => built,
        Err(error) => return vec![format!("unknown: {error}")],
    };
    let tried: Vec<(Provider, Result<(), String>)> =
        built.iter().map(|provider| (*provider, device::try_out(*provider))).collect();
    let works = |provider: Provider| {
        let found = tried.iter().find(|(known, _)| *known == provider);
        found.map_or(Err("not there".to_owned()), |(_, result)| result.clone())
    };
    let mut lines: Vec<String> = tried
        .iter()
        .map(|(provider, result)| match result {
            Ok(()) => format!("{provider}: works"),
            Err(reason) => format!("{provider}: does not work here: {reason}"),
        })
        .collect();
    if let Ok(chosen) = device::choose_among(Device::Auto, &built, works) {
        lines.push(format!("`device: auto` takes {}; without a device, stages take cpu", chosen.provider));
    }
    lines
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
