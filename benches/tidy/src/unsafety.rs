//! Unsafe has an address: the few files where it may stand. What each block must say is clippy's.

use crate::Finding;
use crate::source::{Source, has_word};

/// Files that may hold unsafe code; a trailing `*` stands for any end of the path.
const UNSAFE_FILES: &[&str] = &[
    "benches/migrate-bench/src/sys.rs",
    "dirty-track/src/sys/*",
    "engine/pipeline/src/kernels/*",
    "engine/src/sched.rs",
    "engine/transport/src/sys.rs",
    "engine/transport/src/uring.rs",
    "vmm-shim/payload/guest/*",
    "vmm-shim/payload/tests/support/*",
    "dirty-track/tests/common/guest.rs",
    "dirty-track/tests/common/memory.rs",
    "vmm-shim/src/memory.rs",
    "vmm-shim/src/sys*",
    "vmm-shim/src/vcpu.rs",
    "vmm-shim/src/vm.rs",
];

/// Unsafe code stands only in the files that were made for it.
pub fn unsafety(source: &Source) -> Vec<Finding> {
    if UNSAFE_FILES
        .iter()
        .any(|pattern| matches(pattern, &source.path))
    {
        return vec![];
    }
    let lines = source
        .numbered()
        .filter(|(_, line)| has_word(&line.code, "unsafe"));
    lines
        .map(|(number, _)| {
            let message = "unsafe code has no place here: call a safe function of a file that is \
                           listed in benches/tidy/src/unsafety.rs";
            Finding::new(&source.path, number, message)
        })
        .collect()
}

fn matches(pattern: &str, path: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(path == pattern, |start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_found_outside_its_files() {
        let text = "//! A file.\nfn a() {\n    unsafe { b() }\n}\nunsafe impl Send for C {}\n";
        for path in [
            "engine/src/lib.rs",
            "vmm-shim/src/state/sys.rs",
            "dirty-track/src/log.rs",
        ] {
            let found = unsafety(&Source::new(path, text));
            let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
            assert_eq!(lines, [3, 5], "{path}");
        }
        for path in [
            "dirty-track/src/sys/kvm.rs",
            "vmm-shim/src/sys.rs",
            "vmm-shim/src/vm.rs",
        ] {
            assert_eq!(unsafety(&Source::new(path, text)), [], "{path}");
        }
    }

    #[test]
    fn speaking_of_it_is_not_doing_it() {
        let text = "#![forbid(unsafe_code)]\n// unsafe\nlet a = \"unsafe\";\n";
        assert_eq!(unsafety(&Source::new("a.rs", text)), []);
    }
}
