//! A host with 64 logical processors: it scans and packs on all of them, moves a guest, and takes
//! part in a move between unlike hosts.

mod common;

use common::{K10, LONG, ZEN, free_port, host, migrate_bench, turn};
use limosa_foreign_kvm::{Cable, Initramfs, Model, Tools};

const MANY: Model = Model {
    lps: 64,
    memory_mib: 2048,
    ..K10
};

/// Counts the threads of the moving processes that were on a processor, by what they do.
const MOVE_HERE: &str = r#"
nproc
cat /proc/uptime
migrate-bench run --memory 160MiB --working-set 4MiB --dirty-rate 2MiB/s --downtime 5s \
    --streams 64 --repeat 1 --no-reference --verify --quiet --json run.json &
run=$!
while [ -d /proc/$run ]; do
    grep -s '' /proc/[0-9]*/task/[0-9]*/comm /proc/[0-9]*/task/[0-9]*/schedstat |
        awk -F '[:/ ]' '$6 == "comm" {name[$5] = $7} $6 == "schedstat" && $7 > 0 {ran[$5]}
            END {for (task in ran) print name[task]}' |
        grep -E '^(scan|page-out|page-in)-' >> seen
    sleep 0.1
done
wait $run
echo "LIMOSA: run ended with $?"
for kind in scan page-out page-in; do
    echo "LIMOSA: $kind $(grep "^$kind-" seen | sort -u | wc -l)"
done
cat run.json
echo "LIMOSA: run reported"
read go
migrate-bench target --listen tcp://0.0.0.0:4646 --verify
echo "LIMOSA: target ended with $?"
"#;

const SEND: &str = r#"
read go
migrate-bench source --to tcp://10.7.0.2:4646 --compat minimum --memory 48MiB --working-set 4MiB \
    --dirty-rate 2MiB/s --downtime 5s --quiet
echo "LIMOSA: source ended with $?"
"#;

fn count_of(lines: &[String], kind: &str) -> u32 {
    let prefix = format!("LIMOSA: {kind} ");
    let found = lines.iter().find_map(|line| line.strip_prefix(&prefix));
    found
        .and_then(|count| count.trim().parse().ok())
        .expect("a count")
}

#[test]
fn sixty_four_logical_processors_all_scan_and_pack() {
    let Some(tools) = Tools::find_or_skip() else {
        return;
    };
    let _turn = turn();
    let scratch = tempfile::tempdir().expect("a folder");
    let files = Initramfs::new(&tools, &migrate_bench()).expect("files");
    let port = free_port();
    let archive = scratch.path().join("send.gz");
    let mut sender = host(&tools, (ZEN, Cable::First(port)), &files, SEND, &archive);
    let archive = scratch.path().join("many.gz");
    let mut many = host(
        &tools,
        (MANY, Cable::Second(port)),
        &files,
        MOVE_HERE,
        &archive,
    );
    many.wait_for("LIMOSA: booted", LONG).expect("boot");

    let said = many
        .wait_for("LIMOSA: run ended with 0", LONG)
        .expect("a move");
    assert!(
        said.iter().any(|line| line.trim() == "64"),
        "64 LPs: {said:?}"
    );
    let mut lines = many
        .wait_for("LIMOSA: run reported", LONG)
        .expect("a report");
    let counts = ["scan", "page-out", "page-in"].map(|kind| count_of(&lines, kind));
    println!(
        "threads that ran: {} scanned, {} packed, {} landed",
        counts[0], counts[1], counts[2]
    );
    assert_eq!(counts, [64; 3]);
    lines.pop();
    lines.retain(|line| !line.starts_with("LIMOSA:"));
    let report: serde_json::Value = serde_json::from_str(&lines.join("\n")).expect("JSON");
    assert_eq!(report["host"]["lps"], 64);
    assert_eq!(report["runs"][0]["outcome"], "completed");

    // And with another host: a guest of 2 LPs' fame comes to 64.
    many.say("go").expect("console");
    many.wait_for("listening on", LONG).expect("it listens");
    sender.say("go").expect("console");
    sender
        .wait_for("LIMOSA: source ended with 0", LONG)
        .expect("the move");
    let said = many
        .wait_for("LIMOSA: target ended with 0", LONG)
        .expect("the guest")
        .join("\n");
    assert!(said.contains("found all its memory right"), "{said}");
    assert!(
        said.contains("reads the processor that it was promised"),
        "{said}"
    );
}
