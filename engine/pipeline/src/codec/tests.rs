//! One body of tests for every codec, and what is each one's own.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A codec with the page counts that its records may have.
struct Subject {
    name: &'static str,
    encoder: Box<dyn PageCodec>,
    decoder: Box<dyn PageCodec>,
    page_counts: &'static [usize],
}

fn subjects() -> Vec<Subject> {
    let blocks: &[usize] = &[1, 2, 7, BLOCK_PAGES_MAX as usize];
    let zstd = |level: u8| {
        let level = ZstdLevel::new(level).unwrap();
        Box::new(Zstd::encoder(level, BLOCK_BYTES_MAX)) as Box<dyn PageCodec>
    };
    let subject = |name, encoder, decoder, page_counts| Subject {
        name,
        encoder,
        decoder,
        page_counts,
    };
    vec![
        subject(
            "constant",
            Box::new(Constant),
            Box::new(Constant),
            &[1, 2, 512],
        ),
        subject(
            "lz4",
            Box::new(Lz4::encoder()),
            Box::new(Lz4::decoder()),
            blocks,
        ),
        subject("zstd:1", zstd(1), Box::new(Zstd::decoder()), blocks),
        subject("zstd:4", zstd(4), Box::new(Zstd::decoder()), blocks),
        subject("delta", Box::new(Delta), Box::new(Delta), &[1]),
    ]
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Contents of so many pages, and what the target has of them.
fn contents(page_count: usize) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let bytes = page_count * PAGE_BYTES;
    let noisy = noise(1, bytes);
    let text: Vec<u8> = b"the godwit flies without a stop. "
        .iter()
        .copied()
        .cycle()
        .take(bytes)
        .collect();
    let mut half = noisy.clone();
    half.chunks_mut(PAGE_BYTES)
        .for_each(|page| page[1000..].fill(7));
    let touched = |at: &[usize]| {
        let mut bytes = noisy.clone();
        at.iter().for_each(|at| bytes[*at] ^= 0x80);
        bytes
    };
    let last = bytes - 1;
    vec![
        ("zeros", vec![0; bytes], noisy.clone()),
        ("ones", vec![0xff; bytes], vec![0xff; bytes]),
        ("words", noise(2, 8).repeat(bytes / 8), noisy.clone()),
        ("text", text, vec![0; bytes]),
        ("noise", noisy.clone(), noise(9, bytes)),
        ("noise again", noisy.clone(), noisy.clone()),
        ("half noise", half, vec![0; bytes]),
        ("first byte", touched(&[0]), noisy.clone()),
        ("last byte", touched(&[last]), noisy.clone()),
        ("both ends", touched(&[0, last]), noisy.clone()),
        (
            "every other word",
            touched(&(0..bytes).step_by(512).collect::<Vec<_>>()),
            noisy,
        ),
    ]
}

#[test]
fn what_is_decoded_is_what_was_encoded() {
    for mut subject in subjects() {
        let mut shrunk = 0;
        for count in subject.page_counts {
            for (what, pages, last) in contents(*count) {
                let mut block = vec![0xee; Lz4::room_bytes(pages.len())];
                let encoded = subject.encoder.encode(&pages, &last, &mut block);
                let Some(encoded) = encoded else {
                    continue;
                };
                shrunk += 1;
                let name = subject.name;
                assert!(encoded < pages.len(), "{name}, {what}");
                let mut decoded = last.clone();
                let result = subject.decoder.decode(&block[..encoded], &mut decoded);
                assert_eq!(result, Ok(()), "{name}, {what}");
                assert!(decoded == pages, "{name}, {what}");
            }
        }
        assert!(shrunk >= 3, "{} shrinks next to nothing", subject.name);
    }
}

#[test]
fn noise_is_not_encoded() {
    for mut subject in subjects() {
        for count in subject.page_counts {
            let pages = noise(3, count * PAGE_BYTES);
            let mut block = vec![0; Lz4::room_bytes(pages.len())];
            let other = noise(4, pages.len());
            assert_eq!(subject.encoder.encode(&pages, &other, &mut block), None);
        }
    }
}

#[test]
fn without_room_nothing_is_encoded_and_the_next_run_is_not_harmed() {
    for mut subject in subjects() {
        for (what, pages, last) in contents(1) {
            let mut roomy = vec![0; Lz4::room_bytes(pages.len())];
            let first = subject.encoder.encode(&pages, &last, &mut roomy);
            for room in [0, 1, 3, 4, 7, 8, 20, 1000] {
                let mut block = vec![0; room];
                let encoded = subject.encoder.encode(&pages, &last, &mut block);
                let name = subject.name;
                assert!(encoded.is_none_or(|bytes| bytes <= room), "{name}, {what}");
                if let Some(bytes) = encoded {
                    assert_eq!(block[..bytes], roomy[..bytes], "{name}, {what}");
                }
            }
            let mut again = vec![0; roomy.len()];
            let encoded = subject.encoder.encode(&pages, &last, &mut again);
            assert_eq!(encoded, first);
            assert_eq!(again[..first.unwrap_or(0)], roomy[..first.unwrap_or(0)]);
        }
    }
}

#[test]
fn a_block_of_other_pages_is_refused() {
    for mut subject in subjects() {
        // A word fills any number of pages.
        if subject.name == "constant" {
            continue;
        }
        let (_, pages, last) = contents(1).swap_remove(1);
        let mut block = vec![0; Lz4::room_bytes(pages.len())];
        let encoded = subject.encoder.encode(&pages, &last, &mut block).unwrap();
        for bytes in [PAGE_BYTES / 2, 2 * PAGE_BYTES] {
            let mut other = vec![0; bytes];
            let result = subject.decoder.decode(&block[..encoded], &mut other);
            assert!(result.is_err(), "{}", subject.name);
        }
        for cut in 0..encoded {
            let mut decoded = last.clone();
            let result = subject.decoder.decode(&block[..cut], &mut decoded);
            let is_same = decoded == pages;
            assert!(result.is_err() || is_same, "{}, {cut}", subject.name);
        }
    }
}

#[test]
fn a_delta_that_starts_from_other_contents_is_refused() {
    let (last, mut page) = (noise(1, PAGE_BYTES), noise(1, PAGE_BYTES));
    page[77] ^= 1;
    let mut block = [0; PAGE_BYTES];
    let bytes = Delta.encode(&page, &last, &mut block).unwrap();
    assert_eq!(bytes, 4 + 2 + 8);
    for at in [0, 76, 80, PAGE_BYTES - 1] {
        let mut other = last.clone();
        other[at] ^= 4;
        let result = Delta.decode(&block[..bytes], &mut other);
        // The word that is sent does not depend on what was there.
        let is_sent = (72..80).contains(&at);
        assert_eq!(result.is_ok(), is_sent, "{at}");
        if !is_sent {
            assert_eq!(result, Err(UnpackFault::OtherBase));
        }
    }
    let beyond = [&block[..4], &[255, 255, 0, 0]].concat();
    let mut pages = last.clone();
    assert_eq!(Delta.decode(&beyond, &mut pages), Err(UnpackFault::Damaged));
    let long = [&block[..4], &[255, 0, 255, 0, 2, 1], &[0; 8]].concat();
    assert_eq!(
        Delta.decode(&long, &mut pages),
        Err(UnpackFault::TooLong {
            expected: PAGE_BYTES
        })
    );
}

#[test]
fn a_bomb_is_refused_and_takes_no_memory() {
    let mut zeros = vec![0; 300 << 20];
    zeros[0] = 1;
    let mut context = ::zstd::zstd_safe::CCtx::create();
    let mut bomb = vec![0; 1 << 20];
    let bytes = context.compress2(&mut bomb[..], &zeros).unwrap();
    assert!(bytes < BLOCK_BYTES_MAX);
    let mut decoder = Zstd::decoder();
    let before = decoder.overhead_bytes();
    let mut pages = vec![0; 2 * PAGE_BYTES];
    let expected = pages.len();
    assert_eq!(
        decoder.decode(&bomb[..bytes], &mut pages),
        Err(UnpackFault::TooLong { expected })
    );
    assert_eq!(decoder.overhead_bytes(), before);
}

#[test]
fn codecs_take_no_more_memory_once_they_are_made() {
    for level in 1..=4 {
        let level = ZstdLevel::new(level).unwrap();
        let mut zstd = Zstd::encoder(level, BLOCK_BYTES_MAX);
        let before = zstd.overhead_bytes();
        assert!(before < 1300 << 10, "{level:?} takes {before} bytes");
        let mut block = vec![0; BLOCK_BYTES_MAX];
        for count in [64, 1, 64, 3, 17] {
            for (_, pages, _) in contents(count) {
                zstd.encode(&pages, &[], &mut block);
                let now = zstd.overhead_bytes();
                assert!(now <= before, "{level:?}, {count}: {now} > {before}");
            }
        }
    }
    assert_eq!((ZstdLevel::new(0), ZstdLevel::new(5)), (None, None));
}

proptest! {
    /// Whatever a peer sends: no panic.
    #[test]
    fn no_block_makes_a_decoder_panic(
        block in prop::collection::vec(any::<u8>(), 0..600),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        for mut subject in subjects() {
            let mut pages = vec![0; PAGE_BYTES];
            let _ = subject.decoder.decode(&block, &mut pages);
            let (_, good, last) = contents(1).swap_remove(3);
            let mut encoded = vec![0; Lz4::room_bytes(PAGE_BYTES)];
            if let Some(bytes) = subject.encoder.encode(&good, &last, &mut encoded) {
                encoded[at.index(bytes)] ^= flip;
                let _ = subject.decoder.decode(&encoded[..bytes], &mut pages);
            }
        }
    }

    #[test]
    fn a_delta_leads_from_any_version_to_any_other(
        seed in any::<u64>(),
        changes in prop::collection::vec((0..PAGE_BYTES, 1..40_usize, any::<u8>()), 0..12),
    ) {
        let last = noise(seed, PAGE_BYTES);
        let mut page = last.clone();
        for (at, count, byte) in changes {
            page[at..(at + count).min(PAGE_BYTES)].fill(byte);
        }
        let mut block = vec![0; PAGE_BYTES];
        // At most 12 × 40 bytes differ: a delta is always shorter.
        let bytes = Delta.encode(&page, &last, &mut block).unwrap();
        let mut decoded = last;
        prop_assert_eq!(Delta.decode(&block[..bytes], &mut decoded), Ok(()));
        prop_assert!(decoded == page);
    }

    /// Against a map of what was kept: what is known is what was kept last, and little memory is
    /// taken.
    #[test]
    fn the_history_knows_only_what_was_kept_last(
        steps in prop::collection::vec((0..40_u32, 0..4_u8, any::<u8>()), 1..300),
        room in 0..20_usize,
    ) {
        let mut history = History::new(room * (PAGE_BYTES + 16));
        prop_assert!(history.overhead_bytes() <= room * (PAGE_BYTES + 16));
        let mut kept: HashMap<u32, u8> = HashMap::new();
        for (page, step, byte) in steps {
            match step {
                0 => {
                    history.forget(page);
                    kept.remove(&page);
                }
                1 => {
                    history.keep(page, &[byte; PAGE_BYTES]);
                    kept.insert(page, byte);
                }
                _ => {
                    if let Last::Known(last) = history.last(page) {
                        prop_assert_eq!(Some(&last[0]), kept.get(&page));
                        *last = [byte; PAGE_BYTES];
                        kept.insert(page, byte);
                    } else {
                        kept.remove(&page);
                    }
                }
            }
        }
    }
}

#[test]
fn pages_that_are_used_stay_where_many_pass_by() {
    let mut history = History::new(64 * (PAGE_BYTES + 8));
    let is_known = |history: &mut History, page| matches!(history.last(page), Last::Known(_));
    let count = 64 * (PAGE_BYTES + 8) / (PAGE_BYTES + size_of::<[u32; 2]>());
    for page in 0..count as u32 {
        history.keep(page, &[1; PAGE_BYTES]);
    }
    // Ten times as many, walked over and over, a few of the first ones used in between.
    let mut hits = 0;
    for _ in 0..5 {
        for page in 0..10 * count as u32 {
            if is_known(&mut history, page) {
                hits += 1;
            } else {
                history.keep(page, &[2; PAGE_BYTES]);
            }
            if page % 7 == 0 {
                assert!(is_known(&mut history, 3));
            }
        }
    }
    assert!(hits > 4 * count / 4, "{hits} hits with room for {count}");
}
