//! A processor as text: lines `cpuid LEAF SUBLEAF EAX EBX ECX EDX` and `msr INDEX VALUE`, numbers
//! in hexadecimal with `0x` or in decimal, `#` begins a comment. Of MSRs only those are taken that
//! the rules know: a dump of a whole processor has hundreds that are mere state. A line that begins
//! with `feature-msr` is taken in any case.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use crate::cpuid::{CPUID_ENTRIES_MAX, CpuidEntry, CpuidTable, TableError};
use crate::msr::{FEATURE_MSRS_MAX, MsrTable};
use crate::processor::Processor;
use crate::rules::msr_word;

/// Most bytes of a text: far beyond what full tables take.
pub const TEXT_BYTES_MAX: usize = 256 << 10;

/// What begins the line of a register that states features, known to the rules or not.
const FEATURE_MSR: &str = "feature-msr";

/// Most letters of a wrong word that an error repeats.
const QUOTED_MAX: usize = 32;

/// Why a text is no processor. Lines are counted from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// Longer than any processor.
    #[error("{bytes} bytes are too many for a processor: at most {TEXT_BYTES_MAX} are read")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// A line of another kind.
    #[error(
        "line {line}: \"{found}\" is neither `cpuid LEAF SUBLEAF EAX EBX ECX EDX` nor \
         `msr INDEX VALUE` nor `feature-msr INDEX VALUE`"
    )]
    Line {
        /// Which line.
        line: usize,
        /// Its first word.
        found: String,
    },
    /// Too few or too many numbers.
    #[error("line {line}: {found} numbers, not {wanted}")]
    Count {
        /// Which line.
        line: usize,
        /// How many there are.
        found: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// Not a number, or too large for its register.
    #[error("line {line}: \"{found}\" is no number of at most {bits} bits")]
    Number {
        /// Which line.
        line: usize,
        /// The word.
        found: String,
        /// The width of the register.
        bits: u32,
    },
    /// More lines than a table may hold.
    #[error("line {line}: more than {max} answers")]
    TooMany {
        /// The first line too many.
        line: usize,
        /// The limit.
        max: usize,
    },
    /// The lines are no table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is nothing in it.
    #[error("no `cpuid` line")]
    Empty,
}

/// Reads a processor. Of CPUID questions that are answered twice in the same way one counts.
///
/// # Errors
/// [`TextError`]: the first line that is wrong.
pub fn parse(text: &str) -> Result<Processor, TextError> {
    read(text).map(|(processor, _)| processor)
}

/// The same, with the numbers of the registers that were left out: `msr` lines of which no rule
/// knows whether they state features or mere state. Sorted.
///
/// # Errors
/// As [`parse`].
pub fn read(text: &str) -> Result<(Processor, Vec<u32>), TextError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TextError::TooLong { bytes: text.len() });
    }
    let (mut entries, mut msrs, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let said = text.split_once('#').map_or(text, |(said, _)| said);
        let mut words = said.split_ascii_whitespace();
        match words.next() {
            None => {}
            Some("cpuid") => {
                let [leaf, subleaf, eax, ebx, ecx, edx] = numbers(line, words, 32)?;
                let word = |number: u64| number as u32;
                let entry = CpuidEntry {
                    leaf: word(leaf),
                    subleaf: word(subleaf),
                    eax: word(eax),
                    ebx: word(ebx),
                    ecx: word(ecx),
                    edx: word(edx),
                };
                push(line, &mut entries, entry, CPUID_ENTRIES_MAX)?;
            }
            Some(kind @ ("msr" | FEATURE_MSR)) => {
                let register = register(line, words)?;
                if kind == FEATURE_MSR || msr_word(register.0).is_some() {
                    push(line, &mut msrs, register, FEATURE_MSRS_MAX)?;
                } else {
                    left_out.push(register.0);
                }
            }
            Some(other) => {
                let found = quoted(other);
                return Err(TextError::Line { line, found });
            }
        }
    }
    if entries.is_empty() {
        return Err(TextError::Empty);
    }
    left_out.sort_unstable();
    left_out.dedup();
    let processor = Processor {
        cpuid: CpuidTable::new(entries)?,
        msrs: MsrTable::new(msrs)?,
    };
    Ok((processor, left_out))
}

/// Number and value of a register.
fn register<'a>(
    line: usize,
    words: impl Iterator<Item = &'a str>,
) -> Result<(u32, u64), TextError> {
    let [index, value] = numbers(line, words, 64)?;
    let index = u32::try_from(index).map_err(|_| TextError::Number {
        line,
        found: index.to_string(),
        bits: 32,
    })?;
    Ok((index, value))
}

fn push<T: PartialEq>(
    line: usize,
    list: &mut Vec<T>,
    item: T,
    max: usize,
) -> Result<(), TextError> {
    if list.contains(&item) {
        return Ok(());
    }
    if list.len() == max {
        return Err(TextError::TooMany { line, max });
    }
    list.push(item);
    Ok(())
}

fn quoted(word: &str) -> String {
    word.chars()
        .take(QUOTED_MAX)
        .map(|letter| {
            if letter.is_ascii_graphic() {
                letter
            } else {
                '?'
            }
        })
        .collect()
}

fn numbers<'a, const COUNT: usize>(
    line: usize,
    words: impl Iterator<Item = &'a str>,
    bits: u32,
) -> Result<[u64; COUNT], TextError> {
    let mut numbers = [0; COUNT];
    let mut found = 0;
    for word in words {
        if let Some(number) = numbers.get_mut(found) {
            *number = number_of(word, bits).ok_or_else(|| TextError::Number {
                line,
                found: quoted(word),
                bits,
            })?;
        }
        found += 1;
    }
    if found == COUNT {
        Ok(numbers)
    } else {
        let wanted = COUNT;
        Err(TextError::Count {
            line,
            found,
            wanted,
        })
    }
}

fn number_of(word: &str, bits: u32) -> Option<u64> {
    let parsed = match word.strip_prefix("0x") {
        // The standard parser takes a sign.
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
        None if !word.starts_with('+') => word.parse(),
        _ => return None,
    };
    parsed.ok().filter(|number| number >> (bits - 1) <= 1)
}

/// Writes a processor as [`parse`] reads it.
pub fn print(processor: &Processor) -> String {
    let mut text = String::new();
    for entry in processor.cpuid.entries() {
        let CpuidEntry {
            leaf,
            subleaf,
            eax,
            ebx,
            ecx,
            edx,
        } = entry;
        // Writing into a string doesn't fail.
        let _ = writeln!(
            text,
            "cpuid {leaf:#010x} {subleaf:#04x} {eax:#010x} {ebx:#010x} {ecx:#010x} {edx:#010x}"
        );
    }
    for (index, value) in processor.msrs.values() {
        let kind = msr_word(*index).map_or(FEATURE_MSR, |_| "msr");
        let _ = writeln!(text, "{kind} {index:#010x} {value:#018x}");
    }
    text
}
