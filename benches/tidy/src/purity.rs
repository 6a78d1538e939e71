//! The pure crates say that they are: no std, no unsafe. That nothing below them breaks the promise
//! is proved by compiling, in `.ci/purity.sh`.

use crate::{Finding, Tree};

/// Folders of the crates that do no I/O, know no clock and hold no unsafe code.
pub(crate) const PURE: [(&str, &str); 4] = [
    ("limosa-pages", "wire/pages"),
    ("limosa-wire", "wire"),
    ("limosa-compat", "compat-handshake"),
    ("limosa-session", "engine/session"),
];

/// What `src/lib.rs` of a pure crate must hold.
const PROMISES: [&str; 2] = ["#![no_std]", "#![forbid(unsafe_code)]"];

/// Pure crates promise in their `lib.rs` to use neither std nor unsafe code, and take std back only
/// for tests.
pub fn purity(tree: &Tree) -> Vec<Finding> {
    let mut found = vec![];
    for (_, folder) in PURE {
        let inside = format!("{folder}/src/");
        let lib = format!("{inside}lib.rs");
        for source in tree
            .sources
            .iter()
            .filter(|source| source.path.starts_with(&inside))
        {
            for (number, line) in source.numbered() {
                if line.code.contains("extern crate std") && !line.is_test {
                    let message = "a pure crate has no std: put `#[cfg(test)]` above, or use core";
                    found.push(Finding::new(&source.path, number, message));
                }
            }
            let lines: Vec<&str> = source.lines.iter().map(|line| line.code.trim()).collect();
            for promise in PROMISES {
                if source.path == lib && !lines.contains(&promise) {
                    let message =
                        format!("a pure crate promises `{promise}`: write it below the header");
                    found.push(Finding::new(&source.path, 1, message));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "//! A.\n#![no_std]\n#![forbid(unsafe_code)]\nextern crate alloc;\n\
                        #[cfg(test)]\nextern crate std;\n";

    fn found(text: &str) -> Vec<usize> {
        let tree = Tree::planted(&[("wire/pages/src/lib.rs", text)]);
        purity(&tree).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_broken_promise_is_found() {
        assert_eq!(found(GOOD), [0; 0]);
        assert_eq!(found(&GOOD.replace("#![no_std]", "")), [1]);
        assert_eq!(
            found(&GOOD.replace("forbid(unsafe_code)", "deny(unsafe_code)")),
            [1]
        );
        assert_eq!(found(&GOOD.replace("#[cfg(test)]\n", "")), [5]);
        assert_eq!(found(&GOOD.replace("#![no_std]", "// #![no_std]")), [1]);
    }

    #[test]
    fn other_crates_may_use_std() {
        let tree = Tree::planted(&[("engine/src/lib.rs", "//! A.\nextern crate std;\n")]);
        assert_eq!(purity(&tree), []);
    }
}
