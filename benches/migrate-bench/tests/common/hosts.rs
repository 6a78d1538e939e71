//! Hosts of one migration as an operator has them: a command each, joined by Unix sockets.

use std::time::Duration;

use tempfile::TempDir;

use super::{Done, Started, bench, start, wait_until};

/// A guest that is quickly moved.
pub(crate) const SMALL: &str = "--memory 64MiB --working-set 16MiB --dirty-rate 50MiB/s";

/// A folder of sockets, one for each host that listens.
pub(crate) struct Hosts {
    folder: TempDir,
}

impl Hosts {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Where the host of this name listens.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        format!("unix:{}", self.folder.path().join(name).display())
    }

    /// Starts a `target` of this name with these words added, and returns once it listens.
    pub(crate) fn target(&self, name: &str, words: &str) -> Started {
        let endpoint = self.endpoint(name);
        let mut target = start(&format!("target --listen {endpoint} {words}"));
        let socket = self.folder.path().join(name);
        wait_until("the target listens", Duration::from_secs(20), || {
            // One that has ended will say why.
            socket.exists() || target.child.try_wait().unwrap().is_some()
        });
        target
    }

    /// Runs a `source` with these words added that sends a small guest to the host of this name.
    pub(crate) fn source(&self, name: &str, words: &str) -> Done {
        let endpoint = self.endpoint(name);
        bench(&format!("source --to {endpoint} --quiet {SMALL} {words}"))
    }
}
