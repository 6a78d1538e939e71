//! A page that is being written while it is lifted: the frame's checksums hold nonetheless, and no
//! page counts as zero whose bytes are not.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{TestMemory, corridor, keep, map_of, no_rearm};
use limosa_pages::PAGE_BYTES;
use limosa_pipeline::kernels::{Content, Kernels};
use limosa_pipeline::{GuestMemory, PackConfig, scan};
use limosa_wire::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Round, decode_table};

const PAGES: u64 = 64;

/// How long to wait for the writer to be caught: it may have no processor for a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `check` while another thread flips the guest's pages between zero and full, byte by byte.
fn while_the_guest_writes(memory: &TestMemory, check: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slice = memory.slice(common::range(0, PAGES)).unwrap();
            let mut value = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                value = !value;
                for at in (0..slice.len()).step_by(64) {
                    slice.subslice(at, 1).unwrap().copy_from(&[value]);
                }
            }
        });
        // Stops the writer where the check fails, too.
        let _stop = common::StopOnDrop(&stop);
        check();
    });
}

#[test]
fn checksums_are_of_the_picture() {
    let memory = TestMemory::new(&map_of(&[(0, PAGES)]));
    (0..PAGES).for_each(|page| memory.write(page, &[0; PAGE_BYTES]));
    let (mut torn, began) = (0, Instant::now());
    while_the_guest_writes(&memory, || {
        let work = scan(&memory.map().full_set(), memory.map(), 1);
        let mut corridor = corridor(&memory, 0, 1, &PackConfig::default());
        for round in 1.. {
            let mut bytes = Vec::new();
            let sent = corridor.run_round::<common::TestError>(
                Round::new(round),
                &work[0],
                &mut no_rearm,
                &mut keep(&mut bytes),
            );
            sent.unwrap();
            torn += u32::from(check_frames(&bytes));
            if round > 200 && (torn > 0 || began.elapsed() > PATIENCE) {
                break;
            }
        }
    });
    assert!(
        torn > 0,
        "no page was ever caught half written: the test shows nothing"
    );
}

/// Checks every frame; says whether a page with different bytes was among them.
fn check_frames(mut bytes: &[u8]) -> bool {
    let mut torn = false;
    while let Some(header) = bytes.first_chunk() {
        let header = FrameHeader::decode(header).unwrap();
        let (frame, rest) = bytes.split_at(header.frame_bytes());
        let (table, payload) = frame[FRAME_HEADER_BYTES..].split_at(header.table_bytes());
        if header.kind == FrameKind::Pages {
            decode_table(&header, table, &mut Vec::new()).unwrap();
        }
        header.check_payload(payload).unwrap();
        for page in payload.chunks_exact(PAGE_BYTES) {
            assert!(
                page.iter().any(|byte| *byte != 0),
                "a zero page in the payload"
            );
            torn |= page.iter().step_by(64).any(|byte| *byte != page[0]);
        }
        bytes = rest;
    }
    torn
}

#[test]
fn the_zero_test_is_about_the_copy() {
    let memory = TestMemory::new(&map_of(&[(0, PAGES)]));
    let page = memory.slice(common::range(0, 1)).unwrap();
    let (mut seen, began) = ([0, 0], Instant::now());
    while_the_guest_writes(&memory, || {
        let mut copy = [0; PAGE_BYTES];
        for turn in 0.. {
            for kernels in Kernels::available() {
                let content = kernels.copy_and_test_zero(&page, &mut copy);
                let is_zero = copy.iter().all(|byte| *byte == 0);
                assert_eq!(content == Content::Zero, is_zero, "{}", kernels.name());
                seen[usize::from(is_zero)] += 1;
            }
            if turn > 20_000 && (!seen.contains(&0) || began.elapsed() > PATIENCE) {
                break;
            }
        }
    });
    assert!(
        !seen.contains(&0),
        "the page was never zero, or never full: {seen:?}"
    );
}
