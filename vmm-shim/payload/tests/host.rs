//! The host's half without any guest: parameters, page shares, content, the ELF file, reports.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use limosa_payload::content::{BLOCKS, page};
use limosa_payload::plan::{Plan, PlanFault};
use limosa_payload::protocol::{
    AP_ENTRY, Fill, HOLE, IMAGE_END, PAGE_BYTES, PARAMS, PVH_ENTRY, Params, Pattern, Phase,
    RESERVED_END, Span, VCPU_STATS,
};
use limosa_payload::stats::{BUCKETS, Gap, VcpuStats, bucket_floor, bucket_of, stats_address};
use limosa_payload::{
    GuestBytes, GuestProbe, GuestSpec, Image, ImageError, ParamsError, ProbeError, pc_memory,
    pvh_elf,
};
use zerocopy::{FromZeros, IntoBytes};

const GIB: u64 = 1 << 30;

/// Guest memory without a guest; absent pages read as zero.
#[derive(Default)]
struct Paper(Mutex<BTreeMap<u64, u8>>);

impl GuestBytes for Paper {
    fn read(&self, address: u64, into: &mut [u8]) {
        let bytes = self.0.lock().expect("one thread");
        for (at, byte) in (address..).zip(into) {
            *byte = bytes.get(&at).copied().unwrap_or(0);
        }
    }

    fn write(&self, address: u64, from: &[u8]) {
        self.0
            .lock()
            .expect("one thread")
            .extend((address..).zip(from.iter().copied()));
    }
}

#[test]
fn memory_is_laid_out_around_the_hole_and_the_payload() {
    let spec = GuestSpec {
        working_set_bytes: GIB,
        dirty_pages_per_second: 1,
        pattern: Pattern::Random,
        ..GuestSpec::new(5 * GIB)
    };
    assert_eq!(
        pc_memory(5 * GIB),
        [
            Span {
                start: 0,
                end: 3 * GIB
            },
            Span {
                start: 4 * GIB,
                end: 6 * GIB
            }
        ]
    );
    let params = spec.params().expect("sensible");
    assert_eq!(
        params.counters,
        Span {
            start: RESERVED_END,
            end: RESERVED_END + (1 << 20)
        }
    );
    assert_eq!(
        params.regions[0],
        Span {
            start: params.counters.end,
            end: HOLE.start
        }
    );
    assert_eq!(
        params.regions[1],
        Span {
            start: HOLE.end,
            end: 6 * GIB
        }
    );
    assert_eq!(params.region_count, 2);
    let plan = Plan::new(&params).expect("sensible");
    assert_eq!(
        plan.touched_pages(),
        (5 * GIB - RESERVED_END - (1 << 20)) / PAGE_BYTES
    );
}

#[test]
fn senseless_wishes_are_refused_by_name() {
    let spec = GuestSpec::new(64 << 20);
    let small = GuestSpec::new(RESERVED_END).params();
    assert_eq!(
        small,
        Err(ParamsError::MemoryTooSmall {
            needed_bytes: RESERVED_END + PAGE_BYTES
        })
    );
    let greedy = GuestSpec {
        working_set_bytes: 60 << 20,
        ..spec.clone()
    };
    assert!(matches!(
        greedy.params(),
        Err(ParamsError::WorkingSetTooLarge { .. })
    ));
    let nothing_to_write = GuestSpec {
        dirty_pages_per_second: 5,
        ..spec.clone()
    };
    assert_eq!(
        nothing_to_write.params(),
        Err(ParamsError::WorkingSetTooSmall)
    );
    let crowd = GuestSpec {
        vcpu_count: 9,
        ..spec.clone()
    };
    assert_eq!(
        crowd.params(),
        Err(ParamsError::Rejected(PlanFault::VcpuCount))
    );
    let sleepless = GuestSpec {
        tick: Duration::from_micros(1),
        ..spec.clone()
    };
    assert_eq!(
        sleepless.params(),
        Err(ParamsError::Rejected(PlanFault::Clock))
    );
    let full = GuestSpec {
        touched_percent: 101,
        ..spec.clone()
    };
    assert_eq!(
        full.params(),
        Err(ParamsError::Rejected(PlanFault::Percent))
    );
    let huge = GuestSpec::new(64 * GIB).params();
    assert_eq!(
        huge,
        Err(ParamsError::MemoryTooHigh {
            end: 65 * GIB,
            end_max: 64 * GIB
        })
    );
    let hole = GuestSpec {
        memory: vec![Span {
            start: 0,
            end: 4 * GIB,
        }],
        ..spec
    };
    assert_eq!(
        hole.params(),
        Err(ParamsError::Rejected(PlanFault::Regions))
    );
}

#[test]
fn every_page_has_exactly_one_owner() {
    for vcpu_count in 1..=8 {
        for touched_percent in [0, 1, 50, 99, 100] {
            for working_pages in [0, 7, 40] {
                let spec = GuestSpec {
                    memory: vec![
                        Span {
                            start: 0,
                            end: RESERVED_END + 101 * PAGE_BYTES,
                        },
                        Span {
                            start: RESERVED_END + 200 * PAGE_BYTES,
                            end: RESERVED_END + 237 * PAGE_BYTES,
                        },
                    ],
                    vcpu_count,
                    touched_percent,
                    working_set_bytes: working_pages * PAGE_BYTES,
                    ..GuestSpec::new(0)
                };
                let Ok(params) = spec.params() else {
                    assert!(working_pages * 100 > u64::from(touched_percent) * 136);
                    continue;
                };
                let plan = Plan::new(&params).expect("checked");
                let mut seen = Vec::new();
                for index in 0..u64::from(vcpu_count) {
                    let share = plan.share(index);
                    let working = plan.touched_runs(share.working.clone());
                    let still = plan.touched_runs(share.still.clone());
                    let untouched = plan.untouched_runs(share.untouched.clone());
                    for run in working.chain(still).chain(untouched) {
                        seen.extend((0..run.pages).map(|page| run.address + page * PAGE_BYTES));
                    }
                    for number in share.working {
                        assert!(seen.contains(&plan.touched_address(number)));
                    }
                }
                seen.sort_unstable();
                let first = (0..101).map(|page| RESERVED_END + page * PAGE_BYTES);
                let second = (200..237).map(|page| RESERVED_END + page * PAGE_BYTES);
                assert_eq!(seen, first.chain(second).collect::<Vec<_>>());
            }
        }
    }
    let plan = Plan::new(&Params::DEFAULT).expect("the default is sensible");
    assert!(
        plan.share(1).still.is_empty(),
        "vCPUs that take no part own nothing"
    );
}

fn bytes_of(address: u64, fill: Fill, seed: u64) -> Vec<u8> {
    page(seed, address, fill).as_bytes().to_vec()
}

#[test]
fn content_is_what_its_name_says() {
    let many = |fill| -> Vec<u8> {
        (0..256)
            .flat_map(|page| bytes_of(RESERVED_END + page * PAGE_BYTES, fill, 3))
            .collect()
    };
    let ratio = |fill| {
        let bytes = many(fill);
        let mut into = vec![0; 2 * bytes.len()];
        let mut pack = |run| lz4_flex::block::compress_into(run, &mut into).expect("room");
        let packed: usize = bytes.chunks(64 * 4096).map(&mut pack).sum();
        bytes.len() as f64 / packed as f64
    };
    assert_eq!(size_of_val(&page(1, 0, Fill::Zero)), BLOCKS * 64);
    assert!(many(Fill::Zero).iter().all(|byte| *byte == 0));
    let (text, random, mixed) = (ratio(Fill::Text), ratio(Fill::Random), ratio(Fill::Mixed));
    println!("LZ4: text {text:.2}, random {random:.2}, mixed {mixed:.2}");
    assert!((3.0..4.2).contains(&text), "text packs {text:.2} to 1");
    assert!(random < 1.01, "random packs {random:.2} to 1");
    assert!((1.8..3.2).contains(&mixed), "mixed packs {mixed:.2} to 1");
    let semi = ratio(Fill::Semi);
    assert!((1.5..2.6).contains(&semi), "semi packs {semi:.2} to 1");
    assert!(many(Fill::Text).iter().all(|byte| byte.is_ascii()));
}

#[test]
fn pages_and_seeds_differ() {
    for fill in [Fill::Random, Fill::Text, Fill::Semi] {
        let one = bytes_of(RESERVED_END, fill, 1);
        assert_eq!(one, bytes_of(RESERVED_END, fill, 1));
        assert_ne!(one, bytes_of(RESERVED_END + PAGE_BYTES, fill, 1));
        assert_ne!(one, bytes_of(RESERVED_END, fill, 2));
    }
}

#[test]
fn the_image_is_sound() {
    let image = Image::embedded().expect("sound");
    assert_eq!((image.pvh_entry(), image.ap_entry()), (PVH_ENTRY, AP_ENTRY));
    let mut places: Vec<_> = image.segments().iter().map(|part| part.address).collect();
    places.sort_unstable();
    assert_eq!(places, [PVH_ENTRY, PARAMS]);
    for part in image.segments() {
        let end = part.address + part.memory_bytes;
        assert!(
            end <= if part.address < IMAGE_END {
                IMAGE_END
            } else {
                PARAMS + PAGE_BYTES
            }
        );
    }
}

#[test]
fn a_patched_file_holds_the_parameters_and_broken_files_are_refused() {
    let params = GuestSpec {
        seed: 77,
        ..GuestSpec::new(64 << 20)
    }
    .params()
    .expect("sensible");
    let file = pvh_elf(&params).expect("patched");
    let image = Image::parse(&file).expect("still sound");
    let part = image
        .segments()
        .iter()
        .find(|part| part.address == PARAMS)
        .expect("parameters");
    assert_eq!(part.bytes, params.as_bytes());

    for cut in [0, 1, 63, 64, 200, 0x1000, file.len() / 2] {
        assert!(Image::parse(&file[..cut]).is_err(), "{cut} bytes");
    }
    // Program headers start at 64, 56 bytes each: type at 0, physical address at 24.
    let mut moved = file.clone();
    moved[64 + 24..64 + 32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        Image::parse(&moved),
        Err(ImageError::OutOfPlace { .. })
    ));
    let mut without_note = file;
    without_note[64 + 2 * 56] = 0;
    assert_eq!(Image::parse(&without_note), Err(ImageError::NoEntry));
}

fn probe() -> GuestProbe<Paper> {
    let memory = Paper::default();
    let params = GuestSpec {
        vcpu_count: 2,
        ..GuestSpec::new(64 << 20)
    }
    .params()
    .expect("sensible");
    Image::embedded().expect("sound").load(&memory, &params);
    GuestProbe::new(memory).expect("a payload")
}

#[test]
fn a_probe_believes_no_memory_without_a_payload() {
    let empty = GuestProbe::new(Paper::default());
    assert_eq!(empty.err(), Some(ProbeError::NoPayload(PlanFault::Foreign)));
    let probe = probe();
    assert_eq!(probe.cpuid().err(), Some(ProbeError::CpuidPending));
    assert_eq!(probe.ready(), Ok(false));
    probe.memory().write(VCPU_STATS, &99u32.to_le_bytes());
    assert_eq!(
        probe.ready(),
        Err(ProbeError::UnknownState {
            vcpu: 0,
            number: 99
        })
    );
}

#[test]
fn reports_are_decoded() {
    let probe = probe();
    let mut stats = VcpuStats::new_zeroed();
    stats.state = 3;
    stats.gap_count = 300;
    for number in 0..300u64 {
        stats.gaps[number as usize % 256] = Gap {
            switchover: number + 1,
            ns: number * 1000,
        };
    }
    let precopy = &mut stats.phases[Phase::Precopy.number() as usize];
    for ns in 1..=1000u64 {
        precopy.buckets[bucket_of(ns * 1000)] += 1;
    }
    precopy.longest_ns = 1_000_000;
    probe.memory().write(stats_address(1), stats.as_bytes());
    let report = probe.vcpu(1).expect("a report");
    assert_eq!(report.downtimes.len(), 256);
    assert_eq!(
        report.downtimes.first(),
        Some(&(45, Duration::from_micros(44)))
    );
    assert_eq!(report.downtime(300), Some(Duration::from_micros(299)));
    assert_eq!(report.downtime(44), None);
    let stalls = report.stalls(Phase::Precopy);
    assert_eq!(
        (stalls.count(), stalls.longest()),
        (1000, Duration::from_millis(1))
    );
    for (share, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000), (0.001, 1)] {
        let (found, exact) = (stalls.percentile(share), Duration::from_micros(exact));
        assert!(
            found >= exact && found <= exact.mul_f64(1.25),
            "{share}: {found:?}"
        );
    }
    assert_eq!(stalls.since(stalls).count(), 0);
    let mut twice = stalls.clone();
    twice.merge(stalls);
    assert_eq!((twice.count(), twice.since(stalls).count()), (2000, 1000));
    assert_eq!(report.stalls(Phase::Quiet).percentile(0.5), Duration::ZERO);
}

#[test]
fn buckets_cover_every_length() {
    let mut lengths: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1]).collect();
    lengths.extend(0..5000);
    for ns in lengths {
        let bucket = bucket_of(ns);
        assert!(bucket < BUCKETS && bucket_floor(bucket) <= ns);
        assert!(ns < bucket_floor(bucket + 1) || bucket == BUCKETS - 1);
    }
}
