//! A Rust file cut into code, comments and strings, line by line. It is a lexer and no parser: it
//! knows where a comment ends, not what a function is.

use std::iter::Peekable;
use std::str::Chars;

/// One line of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Line {
    /// The line as it stands.
    pub text: String,
    /// Its code: comments are left out, and strings are empty.
    pub code: String,
    /// Its comments, with their slashes.
    pub comment: String,
    /// Whether it belongs to an item under `#[cfg(test)]` or `#[test]`.
    pub is_test: bool,
}

/// One Rust file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its path, from the workspace's root.
    pub path: String,
    /// Its lines, the first one being line 1.
    pub lines: Vec<Line>,
}

impl Source {
    /// Cuts `text` into its parts.
    pub fn new(path: &str, text: &str) -> Self {
        let mut lexer = Lexer {
            chars: text.chars().peekable(),
            lines: vec![],
            last: '\n',
        };
        lexer.lines.push(Line::default());
        lexer.run();
        let mut lines = lexer.lines;
        for (line, text) in lines.iter_mut().zip(text.lines()) {
            text.clone_into(&mut line.text);
        }
        lines.truncate(text.lines().count());
        mark_tests(&mut lines);
        Self {
            path: path.to_owned(),
            lines,
        }
    }

    /// The lines with their numbers, counted from 1.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// All code, with one line break per line.
    pub fn code(&self) -> String {
        self.lines
            .iter()
            .map(|line| line.code.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Whether `character` may stand in an identifier.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `text` contains `word` with nothing of an identifier on either side.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back().is_some_and(is_word);
        let after = text[start + word.len()..]
            .chars()
            .next()
            .is_some_and(is_word);
        !before && !after
    })
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    lines: Vec<Line>,
    /// The character of code ahead of the current one.
    last: char,
}

impl Lexer<'_> {
    fn line(&mut self) -> &mut Line {
        if self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        let last = self.lines.len() - 1;
        &mut self.lines[last]
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next()?;
        if next == '\n' {
            self.lines.push(Line::default());
        }
        Some(next)
    }

    fn code(&mut self, character: char) {
        self.last = character;
        if character != '\n' {
            self.line().code.push(character);
        }
    }

    fn run(&mut self) {
        while let Some(character) = self.next() {
            match (character, self.chars.peek().copied()) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if !is_word(self.last) || self.is_prefixed() => self.raw(),
                ('\'', _) => self.quote(),
                _ => self.code(character),
            }
        }
    }

    /// Whether the code ends in the `b` or `c` of a byte or C string.
    fn is_prefixed(&mut self) -> bool {
        let mut code = self.line().code.chars().rev();
        matches!(code.next(), Some('b' | 'c')) && !code.next().is_some_and(is_word)
    }

    fn line_comment(&mut self) {
        self.line().comment.push('/');
        while self.chars.peek().is_some_and(|&next| next != '\n') {
            if let Some(character) = self.next() {
                self.line().comment.push(character);
            }
        }
    }

    fn block_comment(&mut self) {
        self.line().comment.push('/');
        let (mut depth, mut last) = (0_u32, '/');
        while let Some(character) = self.next() {
            if character != '\n' {
                self.line().comment.push(character);
            }
            match (last, character) {
                ('/', '*') => depth += 1,
                ('*', '/') if depth == 1 => return,
                ('*', '/') => depth -= 1,
                _ => {
                    last = character;
                    continue;
                }
            }
            last = ' ';
        }
    }

    fn string(&mut self) {
        self.code('"');
        while let Some(character) = self.next() {
            match character {
                '\\' => drop(self.next()),
                '"' => break,
                _ => {}
            }
        }
        self.code('"');
    }

    fn raw(&mut self) {
        let mut hashes = 0;
        while self.chars.next_if_eq(&'#').is_some() {
            hashes += 1;
        }
        if self.chars.next_if_eq(&'"').is_none() {
            // A raw identifier such as `r#type`.
            return self.code('#');
        }
        self.code('"');
        let mut seen = None;
        while let Some(character) = self.next() {
            seen = match (character, seen) {
                ('"', _) => Some(0),
                ('#', Some(count)) => Some(count + 1),
                _ => None,
            };
            if seen == Some(hashes) {
                break;
            }
        }
        self.code('"');
    }

    /// A character such as `'{'`, or a lifetime such as `'a`.
    fn quote(&mut self) {
        let mut ahead = self.chars.clone();
        let (first, second) = (ahead.next(), ahead.next());
        self.code('\'');
        if first != Some('\\') && second != Some('\'') {
            return;
        }
        while let Some(character) = self.next() {
            match character {
                '\\' => drop(self.next()),
                '\'' => break,
                _ => {}
            }
        }
        self.code('\'');
    }
}

const TEST_ATTRIBUTES: [&str; 4] = [
    "#[cfg(test)]",
    "#[cfg(all(test",
    "#[cfg(any(test",
    "#[test]",
];

/// Marks the lines of each item under a test attribute: up to its semicolon, or to its closing
/// brace.
fn mark_tests(lines: &mut [Line]) {
    let mut start = 0;
    while start < lines.len() {
        let is_start = TEST_ATTRIBUTES
            .iter()
            .any(|attribute| lines[start].code.contains(attribute));
        if !is_start {
            start += 1;
            continue;
        }
        let end = item_end(&lines[start..]).map_or(lines.len(), |end| start + end + 1);
        for line in &mut lines[start..end] {
            line.is_test = true;
        }
        start = end;
    }
}

/// Index of the line on which the item that begins on the first line ends.
fn item_end(lines: &[Line]) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (index, line) in lines.iter().enumerate() {
        for character in line.code.chars() {
            match character {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                '{' => braces += 1,
                '}' => braces -= 1,
                _ => {}
            }
            if matches!(character, '}' | ';') && braces == 0 && brackets == 0 {
                return Some(index);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("a.rs", text).code()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(code("let a = 1; // unsafe"), "let a = 1; ");
        assert_eq!(code("a /* b /* c */ \n d */ e"), "a \n e");
        assert_eq!(code(r#"a("unsafe \" {", 'b')"#), r#"a("", '')"#);
        assert_eq!(
            code("a(r#\"un\"safe\"#, br\"x\\\", r#type)"),
            "a(\"\", b\"\", #type)"
        );
        assert_eq!(
            code("fn a<'b>(c: &'b str) { '\\'' }"),
            "fn a<'b>(c: &'b str) { '' }"
        );
        assert_eq!(
            code("for r in 0..1 { our\"x\" }"),
            "for r in 0..1 { our\"\" }"
        );
    }

    #[test]
    fn comments_are_kept_apart() {
        let source = Source::new("a.rs", "a // b\n/* c\nd */ e\n");
        let comments: Vec<&str> = source
            .lines
            .iter()
            .map(|line| line.comment.as_str())
            .collect();
        assert_eq!(comments, ["// b", "/* c", "d */"]);
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let text = "a();\n#[cfg(test)]\nuse b::{c, d};\ne();\n\
                    #[cfg(test)]\n#[allow(f)]\nmod tests {\n\
                    fn g(h: [u8; 2]) {}\n}\nlast();\n";
        let source = Source::new("a.rs", text);
        let marked: Vec<bool> = source.lines.iter().map(|line| line.is_test).collect();
        let (no, yes) = (false, true);
        // The `use` ends at its closing brace, ahead of the semicolon.
        assert_eq!(marked, [no, yes, yes, no, yes, yes, yes, yes, yes, no]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(has_word("a.dst=b", "dst"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("not_unsafe", "unsafe"));
    }
}
