//! The project's words, and places that exist only on somebody's machine.

use crate::Finding;
use crate::source::Source;

/// Words that have a better one here.
const VOCABULARY: [(&str, &str); 10] = [
    ("blackout", "downtime"),
    ("blacklist", "deny-list"),
    ("cutover", "switchover"),
    ("destination", "target"),
    ("dest", "target"),
    ("dst", "target (of a host) or into (of bytes)"),
    ("gfn", "PageIndex, or page"),
    ("npages", "page_count"),
    ("pfn", "PageIndex, or page"),
    ("whitelist", "allow-list"),
];

/// Identifiers that have a better word here; in comments they are folders and addresses.
const IDENTIFIERS: [(&str, &str); 1] = [("src", "source (of a host) or from (of bytes)")];

/// Files that speak the kernel's words, because its structures have them.
fn is_kernel_door(path: &str) -> bool {
    path.contains("/sys/") || path.ends_with("/sys.rs") || path.starts_with("vmm-shim/src/sys")
}

/// Code and comments use the glossary's words.
pub fn vocabulary(source: &Source) -> Vec<Finding> {
    if is_kernel_door(&source.path) || source.path == "benches/tidy/src/words.rs" {
        return vec![];
    }
    let mut found = vec![];
    for (number, line) in source.numbered() {
        let in_code = words(&line.code).map(|word| (word, true));
        let in_comment = words(&line.comment).map(|word| (word, false));
        for (word, is_code) in in_code.chain(in_comment) {
            let lower = word.to_lowercase();
            let lists = VOCABULARY
                .iter()
                .chain(if is_code { &IDENTIFIERS[..] } else { &[] });
            if let Some((_, instead)) = lists.into_iter().find(|(banned, _)| *banned == lower) {
                let message = format!("`{word}`: write {instead}");
                found.push(Finding::new(&source.path, number, message));
            }
        }
    }
    found
}

/// The words of a text, with identifiers taken apart: `dstPage` and `dst_page` hold two each.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphabetic())
        .flat_map(|part| {
            let mut rest = part;
            std::iter::from_fn(move || {
                let mut ahead = rest.char_indices().zip(rest.chars().skip(1));
                let end = ahead
                    .find(|((_, here), next)| here.is_lowercase() && next.is_uppercase())
                    .map_or(rest.len(), |((index, here), _)| index + here.len_utf8());
                let (word, after) = rest.split_at(end);
                rest = after;
                (!word.is_empty()).then_some(word)
            })
        })
}

/// Folders of one machine.
const MACHINE_FOLDERS: [&str; 4] = ["/work/", "/tmp/", "/root/", "/home/"];

/// Phrases that speak to whoever ordered a piece of work, and not to its reader.
const WORKPLACE: [&str; 5] = [
    "../shared",
    "as discussed",
    "as requested",
    "per the brief",
    "the spec says",
];

/// No text names a folder of one machine or a conversation that its reader was not part of.
///
/// `path` is the file's, from the workspace's root; any kind of text is meant, not only Rust.
pub fn machine_places(path: &str, text: &str) -> Vec<Finding> {
    // This crate names what it looks for.
    if path.starts_with("benches/tidy/") {
        return vec![];
    }
    let mut found = vec![];
    for (index, line) in text.lines().enumerate() {
        for folder in MACHINE_FOLDERS
            .iter()
            .filter(|folder| names_folder(line, folder))
        {
            let message = format!(
                "`{folder}` is a place on one machine: take the path from the caller, use \
                 tempfile, or name a folder under /run or /var in examples"
            );
            found.push(Finding::new(path, index + 1, message));
        }
        let lower = line.to_lowercase();
        for phrase in WORKPLACE.iter().filter(|phrase| lower.contains(**phrase)) {
            let message =
                format!("`{phrase}`: say the reason itself, to a reader who was not there");
            found.push(Finding::new(path, index + 1, message));
        }
    }
    found
}

/// Whether a line names an absolute folder, not a part of another one or of an address.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "_-.}/".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let findings = vocabulary(&Source::new("a/src/lib.rs", text));
        findings
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn each_banned_word_is_found_with_the_word_to_use() {
        for (word, instead) in VOCABULARY {
            let expected = [format!("`{word}`: write {instead}")];
            assert_eq!(found(&format!("let {word}_a = 1;")), expected);
            assert_eq!(found(&format!("// A {word}.")), expected);
        }
        assert_eq!(
            found("fn a(srcPage: u8) {}"),
            ["`src`: write source (of a host) or from (of bytes)"]
        );
        assert_eq!(found("struct PageDst;").len(), 1);
    }

    #[test]
    fn parts_of_words_addresses_and_strings_are_free() {
        for text in [
            "let destined = 1;",
            "// see src/lib.rs",
            "a(\"dst\");",
            "let dstring = 1;",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
        let kernel = Source::new("dirty-track/src/sys/uffd.rs", "let dst = 1;");
        assert_eq!(vocabulary(&kernel), []);
    }

    #[test]
    fn places_of_one_machine_are_found_in_any_text() {
        for folder in MACHINE_FOLDERS {
            for text in [
                format!("a(\"{folder}b\");"),
                format!("See {folder}b."),
                folder.to_owned(),
            ] {
                let lines: Vec<usize> = machine_places("a.md", &text)
                    .iter()
                    .map(|finding| finding.line)
                    .collect();
                assert_eq!(lines, [1], "{text}");
            }
        }
        for text in [
            "https://a.b/work/c",
            "engine/work/src",
            "$DIR/tmp/a",
            "a/home/b",
        ] {
            assert_eq!(machine_places("a.md", text), [], "{text}");
        }
    }

    #[test]
    fn words_of_a_conversation_are_found() {
        for phrase in WORKPLACE {
            let text = format!("a\n// {}", phrase.to_uppercase());
            assert_eq!(machine_places("a.rs", &text).len(), 1, "{phrase}");
        }
    }
}
