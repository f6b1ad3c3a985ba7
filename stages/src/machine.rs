//! What this machine offers to stages, for `pipe doctor`. Fetches nothing and changes nothing.

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
