//! Where code may give up: nowhere that a peer, a file or the kernel decides. So each place that
//! can panic on purpose says why it never will.

use crate::Finding;
use crate::modules::TestFiles;
use crate::source::{Line, Source, is_word};

/// What panics, with what to write instead.
const PANICS: [(&str, &str); 4] = [
    (".unwrap()", "return a typed error"),
    (".expect(", "return a typed error"),
    ("panic!(", "return a typed error"),
    ("unreachable!(", "let the type say it"),
];

/// Folders whose code runs only in tests, or is itself a test of the code.
const TEST_FOLDERS: [&str; 4] = ["tests", "benches", "fuzz", "examples"];

/// A place that can panic has a reason: a comment that begins with `PANIC:`, on its own line or in
/// the comment straight above.
///
/// Not asked for in tests, kernel benches, build scripts and the testbeds: there a panic is the way
/// to report. `assert!` is free everywhere, since it states what the programmer promised.
pub fn panics(source: &Source, test_files: &TestFiles) -> Vec<Finding> {
    if is_test_code(&source.path) || test_files.contains(&source.path) {
        return vec![];
    }
    let mut found = vec![];
    for (number, line) in source.numbered().filter(|(_, line)| !line.is_test) {
        for (call, instead) in PANICS {
            let is_there = line.code.match_indices(call).any(|(start, _)| {
                // `debug_panic!(` is another macro.
                call.starts_with('.')
                    || !line.code[..start].chars().next_back().is_some_and(is_word)
            });
            if is_there && !has_reason(source, number) {
                let message = format!(
                    "`{call}` can panic: {instead}, or say in a `// PANIC:` comment why it never \
                     happens"
                );
                found.push(Finding::new(&source.path, number, message));
            }
        }
    }
    found
}

fn is_test_code(path: &str) -> bool {
    if path.starts_with("testbeds/") || path.ends_with("build.rs") {
        return true;
    }
    // The top folder `benches/` holds commands that users run; only a crate's own folders are
    // meant.
    let inner = path.strip_prefix("benches/").unwrap_or(path);
    let mut folders = inner.split('/').rev().skip(1);
    folders.any(|folder| TEST_FOLDERS.contains(&folder))
}

fn has_reason(source: &Source, number: usize) -> bool {
    let is_reason = |line: &Line| line.comment.starts_with("// PANIC: ");
    let above = source.lines[..number - 1].iter().rev();
    let mut comment = above.take_while(|line| {
        // A comment beside code belongs to that code.
        line.code.trim().is_empty() && !line.comment.is_empty()
    });
    is_reason(&source.lines[number - 1]) || comment.any(is_reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let findings = panics(&Source::new(path, text), &TestFiles::default());
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn each_call_is_found() {
        for call in [
            "a.unwrap();",
            "a.expect(\"b\");",
            "panic!(\"c\");",
            "unreachable!();",
        ] {
            assert_eq!(
                found("a/src/lib.rs", &format!("b();\n{call}\n")),
                [2],
                "{call}"
            );
        }
    }

    #[test]
    fn what_only_looks_alike_is_not() {
        for text in [
            "a.unwrap_or(1);",
            "// a.unwrap()",
            "a(\".unwrap()\");",
            "#[expect(unsafe_code)]",
            "my_panic!();",
        ] {
            assert_eq!(found("a/src/lib.rs", text), [0; 0], "{text}");
        }
    }

    #[test]
    fn a_reason_excuses_one_place() {
        let text = "a.unwrap(); // PANIC: a is checked above\nb.unwrap();\n";
        assert_eq!(found("a.rs", text), [2]);
        let text = "// PANIC: a was made in the line above,\n// and is never empty.\na.unwrap();\n";
        assert_eq!(found("a.rs", text), [0; 0]);
        let text = "// PANIC: a is never empty.\nb();\na.unwrap();\n";
        assert_eq!(found("a.rs", text), [3]);
        assert_eq!(found("a.rs", "// It is fine.\na.unwrap();\n"), [2]);
    }

    #[test]
    fn tests_may_panic() {
        for path in [
            "a/tests/b.rs",
            "a/benches/b.rs",
            "a/build.rs",
            "testbeds/src/sim.rs",
        ] {
            assert_eq!(found(path, "a.unwrap();"), [0; 0], "{path}");
        }
        assert_eq!(
            found("benches/migrate-bench/src/main.rs", "a.unwrap();"),
            [1]
        );
        let text = "#[cfg(test)]\nmod tests {\n    a.unwrap();\n}\nfn b() { c.unwrap(); }\n";
        assert_eq!(found("a/src/lib.rs", text), [5]);
    }
}
