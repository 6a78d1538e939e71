//! What a hostile peer or file may bring, by the number: sealed processors and texts with planted
//! faults. Nothing panics, nothing is beyond its limit, and what is opened is judged.
//!
//! `LIMOSA_FUZZ_CASES` sets the executions of each test (default 20,000), `LIMOSA_FUZZ_SEED` where
//! they begin. Seeded, not guided by coverage.

mod common;

use std::env;

use common::{CASCADE_LAKE, GENOA, MILAN, SAPPHIRE_RAPIDS};
use limosa_compat::{
    CPU_ENVELOPE_BYTES_MAX, CPUID_ENTRIES_MAX, FEATURE_MSRS_MAX, GuestCpu, HostCpu, Mode, baseline,
    baselines, differences, intersect, judge, text,
};
use limosa_wire::checksum;

fn setting(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// The generator xorshift64*: good enough to choose faults, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(setting("LIMOSA_FUZZ_SEED", 0x11_05a).max(1))
    }

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

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    const EDGES: [u32; 8] = [
        0,
        1,
        256,
        257,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        u32::MAX,
    ];
    for _ in 0..1 + dice.below(6) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            2 if !bytes.is_empty() => bytes[at] = dice.roll() as u8,
            3 => {
                let edge = EDGES[dice.below(EDGES.len())].to_le_bytes();
                let end = (at + edge.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&edge[..end - at]);
            }
            4 => bytes.truncate(at),
            5 => {
                let piece: Vec<u8> = bytes[at..(at + 24).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let end = (at + dice.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

/// Makes length and checksum right again, or hardly any would pass the first door.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() < 14 {
        return;
    }
    let (head, body) = bytes.split_at_mut(14);
    head[4..6].copy_from_slice(&2_u16.to_le_bytes());
    head[6..10].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[10..14].copy_from_slice(&checksum(body).to_le_bytes());
}

/// What one opened guest is put through: everything that a peer's word reaches.
fn use_guest(guest: &GuestCpu, hosts: &[HostCpu]) {
    assert_eq!(GuestCpu::decode(&guest.encode()).as_ref(), Ok(guest));
    assert!(guest.encode().len() <= CPU_ENVELOPE_BYTES_MAX);
    assert!(guest.processor.cpuid.entries().len() <= CPUID_ENTRIES_MAX);
    assert!(guest.processor.msrs.values().len() <= FEATURE_MSRS_MAX);
    for host in hosts {
        let judgement = judge(guest, host);
        for mismatch in &judgement.mismatches {
            assert!(!mismatch.name.is_empty() && !mismatch.remedy.is_empty());
        }
    }
    let _ = differences(&guest.processor, &hosts[0].offer);
}

#[test]
fn sealed_processors_with_faults() {
    let known = [CASCADE_LAKE, SAPPHIRE_RAPIDS, MILAN, GENOA];
    let hosts: Vec<HostCpu> = known.iter().map(common::Known::host).collect();
    let mut seeds: Vec<Vec<u8>> = known.iter().map(|known| known.guest().encode()).collect();
    seeds.extend(hosts.iter().map(HostCpu::encode));
    let cases = setting("LIMOSA_FUZZ_CASES", 20_000);
    let (mut dice, mut opened) = (Dice::new(), 0_u64);
    for case in 0..cases {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(&mut bytes, &mut dice);
        if case % 4 != 0 {
            reseal(&mut bytes);
        }
        let (guest, host) = (GuestCpu::decode(&bytes), HostCpu::decode(&bytes));
        if let Ok(guest) = guest {
            opened += 1;
            // Judging costs more than opening: a sample is enough.
            if opened % 8 == 0 {
                use_guest(&guest, &hosts);
            }
        }
        if let Ok(host) = host {
            opened += 1;
            if opened % 8 == 0 {
                judge(&MILAN.guest(), &host);
                let pool = [host.offer.clone(), MILAN.processor()];
                let _ = intersect(&pool);
                let _ = baseline(Mode::Minimum, &pool);
                let _ = baseline(
                    Mode::Named(&baselines()[dice.below(baselines().len())]),
                    &pool,
                );
            }
        }
    }
    println!("{cases} executions, {opened} opened");
    assert!(
        opened > cases / 20,
        "the faults are too coarse: {opened} opened"
    );
}

#[test]
fn texts_with_faults() {
    let seeds = [CASCADE_LAKE, GENOA].map(|known| text::print(&known.processor()).into_bytes());
    let cases = setting("LIMOSA_FUZZ_CASES", 20_000) / 4;
    let (mut dice, mut read) = (Dice::new(), 0_u64);
    for _ in 0..cases {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(&mut bytes, &mut dice);
        let said = String::from_utf8_lossy(&bytes);
        match text::parse(&said) {
            Ok(processor) => {
                read += 1;
                let again = text::parse(&text::print(&processor));
                assert_eq!(again.as_ref(), Ok(&processor));
            }
            Err(error) => assert!(error.to_string().len() < 200, "{error}"),
        }
    }
    println!("{cases} executions, {read} read");
    assert!(read > cases / 100, "the faults are too coarse: {read} read");
}
