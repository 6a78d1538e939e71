//! Guests in each mode between unlike hosts: refused before anything moves, or moved and whole.

mod common;

use common::{Done, Hosts, bench, finish, kvm_works, processor, run, turn};
use serde_json::Value;

const GUEST: &str =
    "--guest process --memory 64MiB --working-set 16MiB --dirty-rate 50MiB/s --verify";

/// A process guest from a host like the one to a host like the other.
fn between(source: &str, target: &str, words: &str) -> Done {
    let (source, target) = (processor(source), processor(target));
    run(&format!(
        "{GUEST} --as-host {source} --as-target {target} {words}"
    ))
}

fn names(list: &Value) -> Vec<&str> {
    let names = list.as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap()).collect()
}

/// It moved, was whole, and saw what it was started with.
fn assert_moved(done: &Done, baseline: &str) -> Value {
    assert_eq!(done.code, Some(0), "{done:?}");
    let run = done.first_run();
    assert_eq!(run["verified"]["guest"], "ok", "{run}");
    assert_eq!(run["compat"]["baseline"], baseline, "{run}");
    let digest = run["compat"]["digest"].as_str().unwrap();
    assert!(digest.starts_with("0x") && digest.len() == 18, "{digest}");
    run
}

#[test]
fn a_guest_in_off_is_refused_by_a_lesser_host_alone() {
    let _turn = turn();
    assert_moved(&between("milan", "genoa", ""), "off");
    let refused = between("genoa", "milan", "");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    let run = refused.first_run();
    assert_eq!(run["outcome"], "refused");
    assert_eq!(run["custody"], "source");
    assert_eq!(run["pages"], Value::Null);
    let reasons = run["reasons"].as_array().unwrap();
    assert!(reasons.len() > 10, "{run}");
    for reason in reasons {
        assert!(!reason["remedy"].as_str().unwrap().is_empty(), "{reason}");
        assert!(
            refused.err.contains(reason["what"].as_str().unwrap()),
            "{refused:?}"
        );
    }
    for remedy in ["choose a target like the source", "that offers as much"] {
        assert_eq!(refused.err.matches(remedy).count(), 1, "{}", refused.err);
    }
    // The guest that stayed is whole.
    assert_eq!(run["verified"]["guest"], "ok");
}

#[test]
fn the_printed_remedy_works() {
    let _turn = turn();
    let refused = between("genoa", "milan", "");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    let said = refused
        .err
        .lines()
        .find_map(|line| line.trim().strip_prefix("try: "));
    let said = said.unwrap_or_else(|| panic!("{refused:?}"));
    // There and back.
    let run = assert_moved(
        &between("genoa", "milan", &format!("{said} --hops 2")),
        "common",
    );
    let hidden = names(&run["compat"]["hidden"]);
    assert!(hidden.contains(&"avx512f"), "{hidden:?}");
    let features = names(&run["compat"]["features"]);
    assert!(
        features.contains(&"avx2") && !features.contains(&"avx512f"),
        "{features:?}"
    );
}

#[test]
fn fixed_baselines_move_between_unlike_hosts() {
    let _turn = turn();
    for (mode, baseline) in [
        ("minimum", "minimum-amd-v1"),
        ("named:x86-64-v3", "x86-64-v3"),
    ] {
        for (source, target) in [("genoa", "milan"), ("milan", "genoa")] {
            let done = between(source, target, &format!("--compat {mode} --hops 2"));
            let run = assert_moved(&done, baseline);
            assert_eq!(run["compat"]["mode"], mode);
            assert!(!run["compat"]["hidden"].as_array().unwrap().is_empty());
        }
    }
}

#[test]
fn intel_and_amd_never_meet_in_any_mode() {
    let _turn = turn();
    for (source, target) in [("genoa", "ice-lake"), ("ice-lake", "genoa")] {
        let other = format!("common:{}", processor(source));
        for mode in ["off", "minimum", "named:x86-64-v2", &other] {
            let done = between(source, target, &format!("--compat {mode}"));
            assert_eq!(done.code, Some(3), "{mode}: {done:?}");
            assert!(done.err.contains("not the same maker"), "{mode}: {done:?}");
            assert!(!done.err.contains("try:"), "{mode}: {done:?}");
            assert_eq!(done.first_run()["reasons"].as_array().unwrap().len(), 1);
        }
        // Such a pool has nothing in common to begin with.
        let files = [processor(source), processor(target)];
        let done = between(source, target, &format!("--compat common:{}", files[1]));
        assert_eq!(done.code, Some(3), "{done:?}");
        assert!(done.err.contains("the guest is not started"), "{done:?}");
        for file in &files {
            assert!(done.err.contains(file.as_str()), "{done:?}");
        }
    }
}

#[test]
fn a_host_that_lacks_a_baseline_starts_no_guest_in_it() {
    let _turn = turn();
    let done = between("milan", "genoa", "--compat named:x86-64-v4");
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.err.contains("the guest is not started"), "{done:?}");
    assert!(done.err.contains("lacks avx512bw"), "{done:?}");
    assert!(done.err.contains(&processor("milan")), "{done:?}");
}

#[test]
fn a_pool_is_given_by_commas_or_again_and_again() {
    let _turn = turn();
    let (milan, genoa) = (processor("milan"), processor("genoa"));
    let by_comma = between(
        "genoa",
        "milan",
        &format!("--compat common:{milan},{genoa}"),
    );
    let again = between(
        "genoa",
        "milan",
        &format!("--compat common:{genoa} --compat common:{milan}"),
    );
    let digest = |done: &Done| assert_moved(done, "common")["compat"]["digest"].clone();
    assert_eq!(digest(&by_comma), digest(&again));
}

#[test]
fn three_commands_pretend_each_for_themselves() {
    let _turn = turn();
    let (milan, genoa) = (processor("milan"), processor("genoa"));
    let hosts = Hosts::new();
    // From the lesser host to the greater one, and back, by three commands.
    let last = hosts.target(
        "last",
        &format!("--guest process --as-host {milan} --verify"),
    );
    let onward = hosts.endpoint("last");
    let middle = hosts.target(
        "middle",
        &format!("--guest process --as-host {genoa} --verify --onward {onward}"),
    );
    let source = hosts.source("middle", &format!("--guest process --as-host {milan}"));
    for done in [source, finish(middle), finish(last)] {
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    // The greater host's guest finds no way down.
    let target = hosts.target("lesser", &format!("--guest process --as-host {milan}"));
    let source = hosts.source(
        "lesser",
        &format!("--guest process --as-host {genoa} --verify"),
    );
    for done in [&source, &finish(target)] {
        assert_eq!(done.code, Some(3), "{done:?}");
        let lines = done.err.lines().filter(|line| line.starts_with("  avx512"));
        assert!(lines.count() >= 8, "{done:?}");
        assert!(done.err.contains("the guest is with: source"), "{done:?}");
    }
    assert!(
        source.err.contains("compat show --host --format json"),
        "{source:?}"
    );
    assert!(
        source.err.contains("found all its memory right"),
        "{source:?}"
    );
}

#[test]
fn a_guest_on_kvm_reads_what_it_was_promised() {
    if !kvm_works() {
        return;
    }
    let _turn = turn();
    let done = run("--guest kvm --memory 64MiB --working-set 16MiB --verify --hops 2");
    let run = assert_moved(&done, "off");
    assert_eq!(run["verified"]["processor"], "ok", "{run}");
    let hosts = Hosts::new();
    let target = hosts.target("there", "--guest kvm --verify");
    let source = hosts.source("there", "--guest kvm");
    assert_eq!(source.code, Some(0), "{source:?}");
    let target = finish(target);
    assert_eq!(target.code, Some(0), "{target:?}");
    assert!(
        target
            .err
            .contains("the guest reads the processor that it was promised"),
        "{target:?}"
    );
}

/// This host's processor as text, without a bit of leaf 7; none where it has not got that.
fn without(bit: u32) -> Option<String> {
    let text = bench("compat show --host --format cpuid").out;
    let leaf_7 = text
        .lines()
        .find(|line| line.starts_with("cpuid 0x00000007 0x00 "))?;
    let ebx = leaf_7.split(' ').nth(4)?;
    let value = u32::from_str_radix(ebx.strip_prefix("0x")?, 16).ok()?;
    let lesser = leaf_7.replacen(ebx, &format!("{:#010x}", value & !(1 << bit)), 1);
    (value >> bit & 1 == 1).then(|| text.replacen(leaf_7, &lesser, 1))
}

#[test]
fn a_guest_on_kvm_is_refused_by_a_lesser_kvm() {
    if !kvm_works() {
        return;
    }
    let Some(lesser) = without(5) else {
        eprintln!("SKIPPED: KVM shows no avx2 here");
        return;
    };
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lesser.cpuid");
    std::fs::write(&path, lesser).unwrap();
    let done = run(&format!(
        "--guest kvm --memory 64MiB --working-set 16MiB --verify --as-target {}",
        path.display()
    ));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(
        done.err.contains("\n  avx2 (CPUID 0x7.0 ebx bit 5"),
        "{done:?}"
    );
    let run = done.first_run();
    assert_eq!(run["verified"]["guest"], "ok", "{run}");
    assert_eq!(run["verified"]["processor"], "ok", "{run}");
    let said = format!("try: --compat common:{}", path.display());
    assert!(done.err.contains(&said), "{done:?}");
}

#[test]
fn a_baseline_on_kvm_is_kept_or_the_guest_does_not_start() {
    if !kvm_works() {
        return;
    }
    let _turn = turn();
    let guest = "--guest kvm --memory 64MiB --working-set 16MiB --verify --compat minimum";
    let strict = run(guest);
    if strict.code == Some(0) {
        // A KVM that obeys.
        let run = strict.first_run();
        assert_eq!(run["verified"]["processor"], "ok", "{run}");
        assert!(names(&run["compat"]["hidden"]).contains(&"ssse3"), "{run}");
        return;
    }
    assert_eq!(strict.code, Some(3), "{strict:?}");
    assert_eq!(strict.err.lines().count(), 1, "{strict:?}");
    for words in ["the guest is not started", "can't hide", "false promise"] {
        assert!(strict.err.contains(words), "no `{words}`: {strict:?}");
    }
    let done = run(&format!("{guest} --compat-unenforced"));
    assert_eq!(done.code, Some(0), "{done:?}");
    let run = done.first_run();
    assert_eq!(run["verified"]["guest"], "ok", "{run}");
    assert_eq!(run["verified"]["processor"], "ok", "{run}");
    let baseline = run["compat"]["baseline"].as_str().unwrap();
    assert!(baseline.contains("not enforced"), "{baseline}");
}

#[test]
fn a_pool_in_which_time_runs_otherwise_starts_no_guest_on_kvm() {
    if !kvm_works() {
        return;
    }
    let _turn = turn();
    let text = bench("compat show --host --format json").out;
    let mut host: Value = serde_json::from_str(&text).unwrap();
    let khz = host["host"]["tsc_khz"].as_u64().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut file = |name: &str, khz: u64, scaling: &str| {
        host["host"]["tsc_khz"] = khz.into();
        host["host"]["tsc_scaling"] = scaling.into();
        let path = folder.path().join(name);
        std::fs::write(&path, host.to_string()).unwrap();
        path.display().to_string()
    };
    let fast = file("fast.json", khz + khz / 25, "no");
    let scales = file("scales.json", khz + khz / 25, "yes");
    let guest = "--guest kvm --memory 64MiB --working-set 16MiB --compat-unenforced";
    let done = run(&format!("{guest} --compat common:{scales},{fast}"));
    assert_eq!(done.code, Some(3), "{done:?}");
    for words in ["the guest is not started", "time-stamp counter", &fast] {
        assert!(done.err.contains(words), "no `{words}`: {done:?}");
    }
    assert!(!done.err.contains(&scales), "{done:?}");
    let done = run(&format!("{guest} --compat common:{scales}"));
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_host_that_kvm_is_not_can_not_be_pretended() {
    if !kvm_works() {
        return;
    }
    let _turn = turn();
    let vendor = bench("compat show --format cpuid")
        .out
        .contains("0x756e6547");
    let other = processor(if vendor { "milan" } else { "ice-lake" });
    let done = run(&format!("--guest kvm --memory 64MiB --as-host {other}"));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.err.contains("can't pretend"), "{done:?}");
}
