//! Mutated messages and frames against the decoders, by the number: nothing may panic, and
//! whatever is accepted must be the very bytes that its encoder writes. It is seeded, not
//! guided by coverage.
//!
//! `LIMOSA_FUZZ_CASES` sets the executions of each test (default 100,000), `LIMOSA_FUZZ_SEED` where
//! they begin.

mod common;

use std::path::Path;
use std::{env, fs};

use common::{Frame, decode_message, frame, message, reseal_frame, reseal_message};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const CASES_DEFAULT: u64 = 100_000;

fn setting(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// The generator xorshift64*: good enough to choose mutations, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() >> 16) as usize % bound.max(1)
    }
}

/// Numbers near which decoders go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    3,
    63,
    64,
    65,
    511,
    512,
    4096,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX >> 1,
    u64::MAX,
];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    match dice.below(8) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        2 if !bytes.is_empty() => bytes[at] = dice.roll() as u8,
        3 | 4 => {
            let width = 1 << dice.below(4);
            let edge = EDGES[dice.below(EDGES.len())].to_le_bytes();
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&edge[..end - at]);
        }
        5 => bytes.truncate(at),
        6 => {
            let more = other.len().min(1 + dice.below(24));
            let from = dice.below(other.len() - more + 1);
            let piece = other[from..from + more].iter().copied();
            bytes.splice(at..at, piece);
        }
        _ => {
            let end = (at + dice.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}

/// What became of the executions.
#[derive(Default)]
struct Tally {
    executions: u64,
    accepted: u64,
}

fn kept(prefix: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut paths: Vec<_> = fs::read_dir(corpus)
        .expect("there is a corpus")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a kept file can be read"))
        .collect()
}

/// Runs `try_one`, which says whether it was accepted, on mutations of `seeds`. Every other one
/// gets good checksums, or hardly any would pass the first door.
fn fuzz(seeds: &[Vec<u8>], reseal: impl Fn(&mut [u8]), try_one: impl Fn(&[u8]) -> bool) -> Tally {
    let cases = setting("LIMOSA_FUZZ_CASES", CASES_DEFAULT);
    let mut dice = Dice(setting("LIMOSA_FUZZ_SEED", 0x11_05a).max(1));
    let mut tally = Tally::default();
    while tally.executions < cases {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        let other = &seeds[dice.below(seeds.len())];
        for _ in 0..1 + dice.below(4) {
            mutate(&mut bytes, other, &mut dice);
        }
        if dice.below(2) == 0 {
            reseal(&mut bytes);
        }
        tally.executions += 1;
        tally.accepted += u64::from(try_one(&bytes));
    }
    tally
}

/// Seeds of any shape beside those that are kept, the same in every run.
fn with_generated<T>(
    mut seeds: Vec<Vec<u8>>,
    strategy: &impl Strategy<Value = T>,
    encode: impl Fn(T) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    for _ in 0..64 {
        let tree = strategy
            .new_tree(&mut runner)
            .expect("the strategy refuses nothing");
        let bytes = encode(tree.current());
        // Most executions should be spent on small seeds: a mutation hits a field, not a payload.
        if bytes.len() <= 16 << 10 {
            seeds.push(bytes);
        }
    }
    seeds
}

#[test]
fn mutated_messages_are_refused_or_understood() {
    let encode = |message: limosa_wire::Message| message.encode().expect("it keeps every bound");
    let seeds = with_generated(kept("message-"), &message(), encode);
    let tally = fuzz(&seeds, reseal_message, |bytes| {
        match decode_message(bytes) {
            Some(Ok(message)) => {
                assert_eq!(
                    message.encode().expect("what was read can be written"),
                    bytes
                );
                true
            }
            Some(Err(_)) | None => false,
        }
    });
    report("messages", &seeds, &tally);
}

#[test]
fn mutated_frames_are_refused_or_understood() {
    let seeds = with_generated(kept("frame-"), &frame(), |frame| frame.encode());
    let tally = fuzz(&seeds, reseal_frame, |bytes| match Frame::decode(bytes) {
        Some(Ok(frame)) => {
            // A receiver reads no further than the header says; what is behind is the next frame.
            assert_eq!(frame.encode(), bytes[..frame.header.frame_bytes()]);
            true
        }
        Some(Err(_)) | None => false,
    });
    report("frames", &seeds, &tally);
}

fn report(what: &str, seeds: &[Vec<u8>], tally: &Tally) {
    let Tally {
        executions,
        accepted,
    } = tally;
    println!(
        "fuzzed {what}: {executions} executions on {} seeds, {accepted} accepted",
        seeds.len()
    );
    let reached = *accepted * 1000 >= *executions;
    assert!(
        reached,
        "too few mutations are accepted to say that the decoders were reached"
    );
}
