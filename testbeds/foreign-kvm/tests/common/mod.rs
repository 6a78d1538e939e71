//! What the tests on emulated hosts share: the program under test, pairs of hosts, and moves
//! between them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use limosa_foreign_kvm::{Initramfs, Machine, Model, Outcome, Tools, target_folder};
use serde_json::Value;

/// Boot or a few moves, in software emulation on a busy computer.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// AMD's K10, of 2007: 3DNow!, no XSAVE; its CPUID ends at leaf 5.
pub(crate) const K10: Model = Model {
    name: "phenom",
    lps: 2,
    memory_mib: 1024,
};

/// AMD's Zen 3: AVX2, SMAP, and memory protection keys with their XSAVE component; no 3DNow!.
pub(crate) const ZEN3: Model = Model {
    name: "EPYC-Milan",
    lps: 2,
    memory_mib: 1024,
};

/// AMD's Zen 2, without protection keys, with 64 logical processors.
pub(crate) const ZEN2_64: Model = Model {
    name: "EPYC-Rome",
    lps: 64,
    memory_mib: 2048,
};

/// The guest of each move.
const GUEST: &str = "--memory 48MiB --working-set 4MiB --dirty-rate 2MiB/s --downtime 5s --quiet \
                     --verify";

/// What a guest may lose: a hint about speed works all the same.
const NOT_NAMED: [&str; 1] = ["erms"];

/// How often a test is tried whose hosts stood still: where the computer is busy with other things,
/// an emulated host may get no turn for longer than its guests and peers wait.
const TRIES: u32 = 3;

/// Runs `test` on two hosts, or says that they can't be had. It is tried again, on new hosts, where
/// it failed and a host's own kernel says that the host stood still meanwhile.
pub(crate) fn on_hosts(models: [Model; 2], test: fn(&mut Machine, &mut Machine)) {
    for one in 1..=TRIES {
        let Some([mut first, mut second]) = pair(models) else {
            return;
        };
        let tried = catch_unwind(AssertUnwindSafe(|| test(&mut first, &mut second)));
        let Err(panic) = tried else {
            return;
        };
        let stood_still = [first, second].iter_mut().any(Machine::stood_still);
        if !stood_still || one == TRIES {
            resume_unwind(panic);
        }
        eprintln!("try {one} of {TRIES} failed on a host that stood still; again on new ones");
    }
}

/// Two hosts that describe themselves to each other, or `None` where they can't be had.
fn pair(models: [Model; 2]) -> Option<[Machine; 2]> {
    let tools = Tools::find_or_skip()?;
    let scratch = tempfile::tempdir().expect("a folder");
    let archive = scratch.path().join("initramfs.gz");
    let files = Initramfs::new(&tools, &migrate_bench()).expect("files");
    files.pack(&archive).expect("an archive");
    let boot = || Machine::boot_pair(&tools, models, &archive, LONG);
    let mut hosts = boot().or_else(|_| boot()).expect("two hosts");
    for host in &mut hosts {
        run(
            host,
            "migrate-bench compat show --host --format json > host.json",
        );
    }
    let addresses = hosts.each_ref().map(Machine::address);
    for (host, other) in hosts.iter_mut().zip([addresses[1], addresses[0]]) {
        run(
            host,
            &format!("wget -q -O other.json http://{other}/host.json"),
        );
    }
    Some(hosts)
}

/// `migrate-bench` as users build it, without what debuggers need.
fn migrate_bench() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--quiet"]);
    build.args(["--package", "migrate-bench"]);
    let built = build.status().expect("cargo runs");
    assert!(built.success(), "migrate-bench does not build");
    let program = target_folder().join("release/migrate-bench");
    let folder = target_folder().join("foreign-kvm/bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    let small = folder.join("migrate-bench");
    let mut strip = Command::new("strip");
    let stripped = strip.arg("-o").arg(&small).arg(&program).status();
    if stripped.is_ok_and(|status| status.success()) {
        small
    } else {
        program
    }
}

/// What a step printed that went well.
pub(crate) fn run(host: &mut Machine, step: &str) -> String {
    let done = host.run(step, LONG).expect("the host lives");
    assert_eq!(done.status, 0, "{}: {step}\n{}", host.name(), done.text);
    done.text
}

/// A report that a command left there.
pub(crate) fn report(host: &mut Machine, file: &str) -> Value {
    let text = run(host, &format!("cat {file}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What new guests of `host` can have.
pub(crate) fn features(host: &mut Machine) -> Vec<String> {
    let text = run(
        host,
        "migrate-bench compat show host.json --format features",
    );
    text.lines().map(String::from).collect()
}

/// What of `all` is not among `others`.
pub(crate) fn without(all: &[String], others: &[String]) -> Vec<String> {
    let mut rest = all.to_vec();
    rest.retain(|name| !others.contains(name));
    rest
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|one| one.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Connections that `host` let in so far, and bytes that came over its network.
fn arrived(host: &mut Machine) -> [u64; 2] {
    let text = run(
        host,
        "awk '/^Tcp:/ {n = $7} END {print n}' /proc/net/snmp; \
         cat /sys/class/net/eth0/statistics/rx_bytes",
    );
    let mut numbers = text.lines().map(|line| line.parse().expect("a number"));
    [(); 2].map(|()| numbers.next().expect("two numbers"))
}

/// Both proofs: all memory, and CPUID as the guest itself reads it at privilege level 0.
fn assert_verified(done: &Outcome) {
    let text = &done.text;
    assert_eq!(done.status, 0, "{text}");
    assert!(
        text.contains("the guest found all its memory right"),
        "{text}"
    );
    let reads = "the guest reads the processor that it was promised";
    assert!(text.contains(reads), "{text}");
}

/// A guest that sees all of `home` is refused by `away` before a page moves: both say why, with
/// everything that it would miss, and it runs on.
pub(crate) fn refused(home: &mut Machine, away: &mut Machine) {
    let missing = without(&features(home), &features(away));
    let before = arrived(away);
    away.begin("migrate-bench target --listen tcp://0.0.0.0:4646 --json refused.json")
        .expect("a step");
    away.wait_for("listening on", LONG).expect("it listens");
    let source = format!(
        "migrate-bench source --to tcp://{}:4646 --compat off {GUEST} --json refused.json",
        away.address()
    );
    let said = home.run(&source, LONG).expect("the source");
    assert_eq!(said.status, 3, "{}", said.text);
    let heard = away.end(LONG).expect("the target");
    assert_eq!(heard.status, 3, "{}", heard.text);
    assert!(
        said.text.contains("the guest is with: source"),
        "{}",
        said.text
    );
    assert_verified(&Outcome { status: 0, ..said });

    let after = arrived(away);
    let [connections, bytes] = [after[0] - before[0], after[1] - before[1]];
    assert_eq!(connections, 1, "the control link alone");
    assert!(bytes < 1 << 20, "{bytes} bytes came");
    let mut named = [home, away].map(|host| {
        let report = report(host, "refused.json");
        assert_eq!(report["ending"]["outcome"], "refused", "{report}");
        assert_eq!(report.get("figures").unwrap_or(&Value::Null), &Value::Null);
        let reasons = report["ending"]["reasons"].as_array().expect("reasons");
        let words = reasons.iter().map(|reason| {
            let text = reason["what"].as_str().unwrap_or_default();
            text.split(' ').next().unwrap_or_default().to_owned()
        });
        words.collect::<Vec<_>>()
    });
    named.iter_mut().for_each(|names| names.sort());
    let [named, heard] = named;
    assert_eq!(named, heard, "both sides know the same reasons");
    let mut missing = missing.iter();
    while let Some(name) = missing.find(|name| !NOT_NAMED.contains(&name.as_str())) {
        assert!(named.contains(name), "{name} is not named: {named:?}");
    }
    println!(
        "refused before any page ({connections} connection, {bytes} bytes): {}",
        named.join(" ")
    );
}

/// A guest that starts at `home` in `mode` moves away and comes back, right at each end; returns
/// what it sees and what is hidden from it.
pub(crate) fn there_and_back(home: &mut Machine, away: &mut Machine, mode: &str) -> Sight {
    let before = arrived(away);
    let onward = format!(
        "migrate-bench target --listen tcp://0.0.0.0:4646 --verify --downtime 5s --quiet \
         --onward tcp://{}:4747",
        home.address()
    );
    away.begin(&onward).expect("a step");
    away.wait_for("listening on", LONG).expect("it listens");
    let source = format!(
        "migrate-bench target --listen tcp://0.0.0.0:4747 --verify > back.txt 2>&1 & back=$!; \
         until grep -q listening back.txt; do sleep 0.1; done; \
         migrate-bench source --to tcp://{}:4646 --compat {mode} {GUEST} --json there.json || \
         {{ status=$?; kill $back; exit $status; }}; wait $back; status=$?; cat back.txt; \
         exit $status",
        away.address()
    );
    let back = home.run(&source, LONG).expect("the way there and back");
    assert_verified(&back);
    assert_verified(&away.end(LONG).expect("the way on"));
    let after = arrived(away);
    // What is counted is what would have been: a control link, page streams, memory.
    assert!(after[0] - before[0] >= 2 && after[1] - before[1] > 8 << 20);
    let report = report(home, "there.json");
    let sight = Sight {
        features: strings(&report["compat"]["features"]),
        hidden: strings(&report["compat"]["hidden"]),
    };
    println!(
        "{mode}: from {} to {} and back, verified; hidden in the guest: {}",
        home.name(),
        away.name(),
        sight.hidden.join(" ")
    );
    sight
}

/// What a guest sees of its host.
pub(crate) struct Sight {
    pub(crate) features: Vec<String>,
    pub(crate) hidden: Vec<String>,
}

/// The same in `common` of both hosts: the guest sees what both have, and nothing else.
pub(crate) fn common_there_and_back(home: &mut Machine, away: &mut Machine) {
    let [here, there] = [features(home), features(away)];
    let sight = there_and_back(home, away, "common:other.json");
    assert_eq!(without(&sight.features, &here), [""; 0]);
    assert_eq!(without(&sight.features, &there), [""; 0]);
    assert_eq!(without(&without(&here, &there), &sight.hidden), [""; 0]);
    assert_eq!(without(&here, &sight.features), sight.hidden);
}
