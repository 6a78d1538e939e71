//! Bounds are documented: each constant in the wire's `limits.rs` says what it bounds and why.

use crate::Finding;
use crate::source::Source;

/// The file whose constants are meant.
const FILE: &str = "wire/src/limits.rs";

/// Each constant in `wire/src/limits.rs` has a doc comment straight above it.
pub fn documented(source: &Source) -> Vec<Finding> {
    if source.path != FILE {
        return vec![];
    }
    let mut found = vec![];
    for (number, line) in source.numbered().filter(|(_, line)| !line.is_test) {
        let code = line.code.trim_start();
        let code = code
            .strip_prefix("pub ")
            .or_else(|| code.strip_prefix("pub(crate) "))
            .unwrap_or(code);
        let Some(name) = code
            .strip_prefix("const ")
            .and_then(|rest| rest.split(':').next())
        else {
            continue;
        };
        if name != "_" && !name.starts_with("fn ") && !has_doc(source, number) {
            let message = format!(
                "`{name}` needs a `///` comment: what it bounds, its unit, and why so much"
            );
            found.push(Finding::new(&source.path, number, message));
        }
    }
    found
}

fn has_doc(source: &Source, number: usize) -> bool {
    let above = source.lines[..number - 1].iter().rev();
    let mut above = above.skip_while(|line| line.code.trim_start().starts_with("#["));
    above
        .next()
        .is_some_and(|line| line.comment.starts_with("/// "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_without_a_reason_is_found() {
        let text = "//! Limits.\n/// At most 4: why.\npub const A: u32 = 4;\n\
                    pub const B: u32 = 5;\n\
                    const _: () = assert!(A < B);\n/// C.\n#[rustfmt::skip]\nconst C: u8 = 1;\n\
                    // No doc.\nconst D: u8 = 1;\nconst fn e() {}\n";
        let found = documented(&Source::new(FILE, text));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [4, 10]);
        assert!(found[0].message.starts_with("`B` needs"));
        assert_eq!(documented(&Source::new("wire/src/lib.rs", text)), []);
    }
}
