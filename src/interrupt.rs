//! Ctrl-C and SIGTERM: the first asks everything to stop, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);
static INSISTED: AtomicBool = AtomicBool::new(false);

/// Exit code of a process that was interrupted.
const INTERRUPTED: i32 = 130;
/// So long the process goes on after the second signal, for stages to end the programs that they started.
const LAST_MOMENT: Duration = Duration::from_millis(300);

/// Takes over the signals. A second call has no effect.
pub fn install() {
    let handler = || {
        if ASKED.swap(true, Ordering::SeqCst) {
            INSISTED.store(true, Ordering::SeqCst);
            std::thread::sleep(LAST_MOMENT);
            std::process::exit(INTERRUPTED);
        }
    };
    // `set`, not `try_set`: a shell starts background jobs with SIGINT ignored, and SIGTERM must still work there.
    // Fails only if it was installed before, and then it is this very handler.
    let _ = ctrlc::set_handler(handler);
}

/// Whether the user asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Whether the user asked twice: what was asked to stop is ended now.
pub fn insisted() -> bool {
    INSISTED.load(Ordering::Relaxed)
}
