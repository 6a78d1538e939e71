//! Two hosts with unlike processors, joined by a network: a guest in `off` is refused by the lesser
//! one, and guests in `common` and `minimum` move there and back.

mod common;

use common::{K10, LONG, ZEN, free_port, host, migrate_bench, turn};
use limosa_foreign_kvm::{Cable, Initramfs, Machine, Tools};

/// Features that the greater host has and the lesser one lacks.
const HIDDEN: [&str; 6] = ["avx", "avx2", "xsave", "sse4.1", "bmi2", "smap"];

const DESCRIBE: &str = "migrate-bench compat show --host --format json; echo LIMOSA: described";

/// On the greater host: the guest starts here, goes and comes back. Each step waits for a line from
/// outside, so that the other host listens by then.
const GREATER: &str = r#"
work="--memory 48MiB --working-set 4MiB --dirty-rate 2MiB/s --downtime 5s --quiet"
read go
migrate-bench source --to tcp://10.7.0.2:4646 --compat off $work --verify --json off.json
echo "LIMOSA: off ended with $?"
cat off.json
echo "LIMOSA: off reported"
for mode in common:/lesser.json minimum; do
    read go
    migrate-bench target --listen tcp://0.0.0.0:4747 --verify > back.txt 2>&1 &
    back=$!
    migrate-bench source --to tcp://10.7.0.2:4646 --compat $mode $work --verify --json there.json
    echo "LIMOSA: there ended with $?"
    cat there.json
    echo "LIMOSA: there reported"
    wait $back
    code=$?
    cat back.txt
    echo "LIMOSA: back ended with $code"
done
"#;

/// On the lesser host: it refuses once, then takes two guests in and moves each on.
const LESSER: &str = r#"
migrate-bench target --listen tcp://0.0.0.0:4646
echo "LIMOSA: off ended with $?"
for mode in common minimum; do
    migrate-bench target --listen tcp://0.0.0.0:4646 --verify --downtime 5s \
        --onward tcp://10.7.0.1:4747
    echo "LIMOSA: onward ended with $?"
done
"#;

/// What two hosts say of themselves.
fn describe(tools: &Tools, files: &Initramfs, scratch: &std::path::Path) -> [String; 2] {
    let mut hosts = [ZEN, K10].map(|model| {
        let archive = scratch.join(model.name);
        host(tools, (model, Cable::None), files, DESCRIBE, &archive)
    });
    hosts.each_mut().map(|host| {
        host.wait_for("LIMOSA: booted", LONG).expect("boot");
        let mut lines = host
            .wait_for("LIMOSA: described", LONG)
            .expect("a description");
        lines.pop();
        let text = lines.join("\n");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["schema"], "limosa.cpu/1", "{text}");
        text
    })
}

fn report(machine: &mut Machine, awaited: &str) -> serde_json::Value {
    let mut lines = machine.wait_for(awaited, LONG).expect("a report");
    lines.pop();
    let text = lines.join("\n");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The greater host starts a guest that goes to the lesser one and comes back, right at each end.
fn there_and_back(greater: &mut Machine, lesser: &mut Machine, mode: &str) {
    lesser
        .wait_for("listening on", LONG)
        .expect("the lesser host listens");
    greater.say("go").expect("console");
    greater
        .wait_for("LIMOSA: there ended with 0", LONG)
        .expect("the way there");
    let report = report(greater, "LIMOSA: there reported");
    let list = |name: &str| -> Vec<String> {
        let list = report["compat"][name].as_array().expect("a list");
        list.iter()
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    for name in HIDDEN {
        assert!(
            list("hidden").iter().any(|hidden| hidden == name),
            "{mode}: {name}"
        );
        assert!(
            !list("features").iter().any(|shown| shown == name),
            "{mode}: {name}"
        );
    }
    let said = lesser
        .wait_for("LIMOSA: onward ended with 0", LONG)
        .expect("the way on")
        .join("\n");
    // Every byte of memory, and CPUID as the guest itself reads it at privilege level 0.
    assert!(said.contains("found all its memory right"), "{said}");
    assert!(
        said.contains("reads the processor that it was promised"),
        "{said}"
    );
    let said = greater
        .wait_for("LIMOSA: back ended with 0", LONG)
        .expect("the way back")
        .join("\n");
    assert!(said.contains("found all its memory right"), "{said}");
    assert!(
        said.contains("reads the processor that it was promised"),
        "{said}"
    );
    println!(
        "{mode}: there and back, verified; hidden in the guest: {}",
        list("hidden").join(" ")
    );
}

#[test]
fn a_guest_in_off_is_refused_and_guests_of_a_baseline_go_there_and_back() {
    let Some(tools) = Tools::find_or_skip() else {
        return;
    };
    let _turn = turn();
    let scratch = tempfile::tempdir().expect("a folder");
    let files = Initramfs::new(&tools, &migrate_bench()).expect("files");
    let [_, lesser] = describe(&tools, &files, scratch.path());
    files.write("lesser.json", &lesser).expect("a file");

    let port = free_port();
    let archive = scratch.path().join("greater.gz");
    let mut greater = host(&tools, (ZEN, Cable::First(port)), &files, GREATER, &archive);
    let archive = scratch.path().join("lesser.gz");
    let mut lesser = host(&tools, (K10, Cable::Second(port)), &files, LESSER, &archive);
    greater.wait_for("LIMOSA: booted", LONG).expect("boot");

    lesser
        .wait_for("listening on", LONG)
        .expect("the lesser host listens");
    greater.say("go").expect("console");
    let said = greater
        .wait_for("LIMOSA: off ended with 3", LONG)
        .expect("a refusal")
        .join("\n");
    for name in HIDDEN {
        let reason = format!("  {name} (CPUID");
        assert!(said.contains(&reason), "{name} is not named: {said}");
    }
    assert!(said.contains("the guest is with: source"), "{said}");
    assert!(
        said.contains("found all its memory right"),
        "it runs on: {said}"
    );
    let refused = report(&mut greater, "LIMOSA: off reported");
    assert_eq!(refused["ending"]["outcome"], "refused", "{refused}");
    assert_eq!(
        refused["figures"],
        serde_json::Value::Null,
        "no page was sent"
    );
    lesser
        .wait_for("LIMOSA: off ended with 3", LONG)
        .expect("the same refusal");
    println!("off: refused by the lesser host");

    there_and_back(&mut greater, &mut lesser, "common");
    there_and_back(&mut greater, &mut lesser, "minimum");
}
