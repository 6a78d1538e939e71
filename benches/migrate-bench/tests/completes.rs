//! Whatever the guest, the link and the encoding: a run completes, and the guest is whole.

mod common;

use common::{kinds, run, turn};
use limosa_shim::{GuestKind, Tracking};
use serde_json::Value;

/// A small busy guest; what a test adds comes after it.
const SMALL: &str = "--memory 64MiB --working-set 16MiB --dirty-rate 50MiB/s --verify";
/// The same with room for eight processors.
const WIDE: &str = "--memory 128MiB --working-set 16MiB --dirty-rate 50MiB/s --verify";

/// Runs `line`, which must complete with a guest that found all its memory right.
fn completes(line: &str) -> Value {
    let done = run(line);
    assert_eq!(done.code, Some(0), "{line}: {done:?}");
    assert_eq!(done.err, "", "{line}");
    let run = done.first_run();
    assert_eq!(run["outcome"], "completed", "{line}: {run}");
    assert_eq!(run["custody"], "target", "{line}: {run}");
    assert_eq!(run["verified"]["guest"], "ok", "{line}: {run}");
    run
}

/// What page streams can go through here.
fn kernel_doors() -> Vec<&'static str> {
    let config = &run(&format!("{SMALL} --guest process --io auto")).report()["config"];
    let why = config["io"].as_str().unwrap();
    if why.starts_with("io_uring") {
        return vec!["uring", "blocking"];
    }
    eprintln!("SKIPPED: io_uring: {why}");
    vec!["blocking"]
}

#[test]
fn over_every_link_with_every_encoding() {
    let _turn = turn();
    let kernel_doors = kernel_doors();
    for kind in kinds() {
        for transport in ["tcp", "unix"] {
            for &io in &kernel_doors {
                for codec in ["none", "lz4", "zstd", "zstd:4", "delta", "auto"] {
                    let line = format!(
                        "{SMALL} --guest {kind} --transport {transport} --io {io} --codec {codec} \
                         --fill mixed"
                    );
                    let run = completes(&line);
                    let has = |encoding: &str| run["pages"][encoding].as_u64().unwrap() > 0;
                    // What auto chooses is a matter of the link.
                    if codec != "auto" {
                        assert_eq!(has("lz4"), codec == "lz4", "{line}: {run}");
                        assert_eq!(has("zstd"), codec.starts_with("zstd"), "{line}: {run}");
                    }
                    if !["delta", "auto"].contains(&codec) {
                        assert!(!has("delta"), "{line}: {run}");
                    }
                }
            }
        }
    }
}

#[test]
fn with_every_fill_and_backing() {
    let _turn = turn();
    for kind in kinds() {
        for fill in ["random", "zero", "text", "mixed"] {
            for backing in ["anonymous", "memfd"] {
                completes(&format!(
                    "{SMALL} --guest {kind} --fill {fill} --backing {backing}"
                ));
            }
        }
    }
}

/// There and back: each host tracks as asked.
#[test]
fn with_every_tracking() {
    let _turn = turn();
    let rings = Tracking::Ring.choose(GuestKind::Kvm);
    for (kind, tracking, name) in [
        ("kvm", "auto", "KVM's log"),
        ("kvm", "log", "KVM's log"),
        ("kvm", "ring", "KVM's dirty rings"),
        ("kvm", "pagemap", "page table scans"),
        ("process", "auto", "page table scans"),
        ("process", "pagemap", "page table scans"),
    ] {
        if !kinds().contains(&kind) {
            continue;
        }
        if let ("ring", Err(error)) = (tracking, &rings) {
            eprintln!("SKIPPED: {error}");
            continue;
        }
        let line = format!("{SMALL} --guest {kind} --vcpus 2 --hops 2 --tracking {tracking}");
        let run = completes(&line);
        let said = run["tracking"]["by"].as_str().unwrap();
        assert!(said.starts_with(name), "{line}: {said}");
        assert_eq!(said.contains("asked for"), tracking != "auto", "{said}");
    }
}

#[test]
fn with_every_order_of_writes_and_every_probe() {
    let _turn = turn();
    for kind in kinds() {
        for pattern in ["sequential", "random", "hot-cold"] {
            for probe in ["sleep", "spin"] {
                let run = completes(&format!(
                    "{SMALL} --guest {kind} --pattern {pattern} --probe {probe}"
                ));
                assert!(run["downtime_ms"]["guest"].is_number(), "{run}");
            }
        }
    }
}

#[test]
fn with_one_two_and_eight_processors() {
    let _turn = turn();
    for kind in kinds() {
        for vcpus in [1, 2, 8] {
            for probe in ["sleep", "spin"] {
                completes(&format!(
                    "{WIDE} --guest {kind} --vcpus {vcpus} --probe {probe}"
                ));
            }
        }
    }
}

#[test]
fn with_one_thread_and_with_far_more_than_processors() {
    let _turn = turn();
    for kind in kinds() {
        for threads in [1, 64, 256] {
            let run = completes(&format!("{SMALL} --guest {kind} --threads {threads}"));
            assert!(run["total_ms"].is_number(), "{run}");
        }
    }
}

#[test]
fn with_one_stream_and_with_as_many_as_there_may_be() {
    let _turn = turn();
    for kind in kinds() {
        for streams in [1, 64] {
            completes(&format!("{SMALL} --guest {kind} --streams {streams}"));
        }
    }
}

#[test]
fn idle() {
    let _turn = turn();
    for kind in kinds() {
        for idle in ["--working-set 0", "--dirty-rate 0"] {
            completes(&format!("--memory 64MiB --verify --guest {kind} {idle}"));
        }
    }
}

#[test]
fn with_digests_that_agree() {
    let _turn = turn();
    for kind in kinds() {
        for vcpus in [1, 2] {
            let run = completes(&format!(
                "{SMALL} --guest {kind} --vcpus {vcpus} --verify-digest"
            ));
            assert_eq!(run["verified"]["digest"], "ok", "{run}");
        }
    }
}

#[test]
fn five_times_in_a_row() {
    let _turn = turn();
    for kind in kinds() {
        let run = completes(&format!("{SMALL} --guest {kind} --hops 5 --verify-digest"));
        assert_eq!(run["hops"], 5);
        assert_eq!(run["verified"]["digest"], "ok", "{run}");
    }
}
