//! The shape of a file: how long, how wide, how it begins, and what must not be left in it.

use crate::Finding;
use crate::source::{Source, has_word};

/// Longest file, in lines, its tests included.
const LINES_MAX: usize = 600;
/// Widest line, in characters.
const COLUMNS_MAX: usize = 100;

/// A file fits in a head: at most 600 lines.
pub fn length(source: &Source) -> Vec<Finding> {
    let count = source.lines.len();
    if count <= LINES_MAX {
        return vec![];
    }
    let message = format!(
        "{count} lines, more than {LINES_MAX}: split it by what the parts are for, or move long \
         tests into the crate's tests/"
    );
    vec![Finding::new(&source.path, LINES_MAX + 1, message)]
}

/// A line fits beside another file: at most 100 columns, unless an address makes it longer.
pub fn columns(source: &Source) -> Vec<Finding> {
    let wide = source.numbered().filter(|(_, line)| {
        line.text.chars().count() > COLUMNS_MAX && !line.text.contains("https://")
    });
    wide.map(|(number, line)| {
        let count = line.text.chars().count();
        let message = format!("{count} columns, more than {COLUMNS_MAX}: break the line");
        Finding::new(&source.path, number, message)
    })
    .collect()
}

/// A file says first what it is: a `//!` line, after a shebang if there is one.
pub fn header(source: &Source) -> Vec<Finding> {
    let has_shebang = source
        .lines
        .first()
        .is_some_and(|line| line.text.starts_with("#!/"));
    let index = usize::from(has_shebang);
    let first = source
        .lines
        .get(index)
        .map(|line| line.text.as_str())
        .unwrap_or_default();
    if first
        .strip_prefix("//! ")
        .is_some_and(|sentence| !sentence.trim().is_empty())
    {
        return vec![];
    }
    let message = "begin the file with `//!` and one sentence on what it is, and what it is not";
    vec![Finding::new(&source.path, index + 1, message)]
}

/// Macros of the work bench, with what to write instead.
const MACROS: [(&str, &str); 3] = [
    ("dbg!", "remove it, or emit an event"),
    ("todo!", "write it, or return a typed error"),
    ("unimplemented!", "write it, or return a typed error"),
];

/// Notes to oneself.
const NOTES: [&str; 5] = ["FIXME", "TODO", "XXX", "HACK", "WIP"];

/// Nothing of the work bench is left: no `dbg!` and its like in code, no note to oneself in
/// comments.
pub fn leftovers(source: &Source) -> Vec<Finding> {
    let mut found = vec![];
    for (number, line) in source.numbered() {
        for (name, instead) in MACROS {
            if has_word(&line.code, name.trim_end_matches('!')) && line.code.contains(name) {
                let message = format!("`{name}` is left over: {instead}");
                found.push(Finding::new(&source.path, number, message));
            }
        }
        for note in NOTES {
            if has_word(&line.comment, note) {
                let message =
                    format!("`{note}` is left over: do it, or say under which condition it is due");
                found.push(Finding::new(&source.path, number, message));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(found: &[Finding]) -> Vec<usize> {
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_long_file_is_found() {
        let text = "a\n".repeat(LINES_MAX);
        assert_eq!(length(&Source::new("a.rs", &text)), []);
        let found = length(&Source::new("a.rs", &format!("{text}b\n")));
        assert_eq!(lines_of(&found), [601]);
        assert!(
            found[0]
                .to_string()
                .starts_with("a.rs:601: 601 lines, more than 600: split it")
        );
    }

    #[test]
    fn a_wide_line_is_found_by_its_characters_not_its_bytes() {
        let wide = "ü".repeat(COLUMNS_MAX);
        let text = format!("{wide}\n{wide}!\n// https://{wide}\n");
        assert_eq!(lines_of(&columns(&Source::new("a.rs", &text))), [2]);
    }

    #[test]
    fn a_missing_header_is_found() {
        for good in ["//! What it is.\n", "#!/usr/bin/env run\n//! What it is.\n"] {
            assert_eq!(header(&Source::new("a.rs", good)), [], "{good}");
        }
        for bad in ["", "use a;\n", "// What it is.\n", "//!\n", "\n//! Late.\n"] {
            assert_eq!(lines_of(&header(&Source::new("a.rs", bad))), [1], "{bad}");
        }
        assert_eq!(
            lines_of(&header(&Source::new("a.rs", "#!/bin/run\nuse a;\n"))),
            [2]
        );
    }

    #[test]
    fn leftovers_are_found_in_code_and_comments_and_not_in_strings() {
        let planted = ["dbg", "todo", "unimplemented"].map(|name| format!("{name}!();"));
        for text in planted {
            assert_eq!(
                lines_of(&leftovers(&Source::new("a.rs", &text))),
                [1],
                "{text}"
            );
        }
        for note in NOTES {
            let text = format!("a();\nb(); // {note}: later\n");
            assert_eq!(
                lines_of(&leftovers(&Source::new("a.rs", &text))),
                [2],
                "{text}"
            );
        }
        let good = "a(\"todo!() FIXME\"); my_dbg!(); // todo! is a macro, WIPED is a word\n";
        assert_eq!(leftovers(&Source::new("a.rs", good)), []);
    }
}
