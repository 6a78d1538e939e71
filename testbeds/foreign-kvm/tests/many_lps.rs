//! A host with 64 logical processors: it scans and packs on all of them, and takes part in moves
//! between unlike hosts.

mod common;

use common::{
    ZEN2_64, ZEN3, common_there_and_back, on_hosts, refused, report, run, there_and_back,
};
use limosa_foreign_kvm::Machine;
use serde_json::Value;

/// A guest with more chunks than there are streams, moved between two processes of the host.
const MOVE_HERE: &str = "migrate-bench run --memory 160MiB --working-set 4MiB --dirty-rate 2MiB/s \
     --downtime 5s --streams 64 --repeat 1 --no-reference --verify --quiet --json run.json";

fn scans_and_packs_on_all(host: &mut Machine) {
    run(host, MOVE_HERE);
    let report = report(host, "run.json");
    assert_eq!(report["host"]["lps"], 64);
    assert_eq!(report["config"]["threads"], 64);
    assert_eq!(report["config"]["streams"], 64);
    let by_stream = report["runs"][0]["stream_bytes"].as_array().expect("bytes");
    let bytes: Vec<u64> = by_stream.iter().filter_map(Value::as_u64).collect();
    // A stream takes as many chunks as it is quick; the barriers are on all of them.
    let busy_count = bytes.iter().filter(|bytes| **bytes > 1 << 20).count();
    println!("{} streams, {busy_count} of them with pages", bytes.len());
    assert_eq!(bytes.len(), 64);
    assert!(bytes.iter().all(|bytes| *bytes > 0), "{bytes:?}");
    assert!(busy_count > 1, "{bytes:?}");
    assert_eq!(report["runs"][0]["outcome"], "completed");
    for proof in ["guest", "processor"] {
        assert_eq!(report["runs"][0]["verified"][proof], "ok", "{proof}");
    }
}

#[test]
fn sixty_four_logical_processors_scan_and_pack_and_guests_move_there_and_back() {
    on_hosts([ZEN3, ZEN2_64], |few, many| {
        assert_eq!(run(many, "nproc"), "64");
        scans_and_packs_on_all(many);
        // One generation apart: a guest that saw protection keys has a larger XSAVE area.
        refused(few, many);
        common_there_and_back(few, many);
        there_and_back(many, few, "minimum");
    });
}
