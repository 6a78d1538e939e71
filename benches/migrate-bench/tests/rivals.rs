//! The same guest moved by our engine and by QEMU: what is reported, and what is left behind.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{bench, children_of, finish, interrupt, is_alive, start, turn, wait_until};
use serde_json::Value;

const QEMU: &str = "qemu-system-x86_64";

/// Says why this test can't run here, if so.
fn skipped() -> bool {
    let qemu = std::process::Command::new(QEMU).arg("--version").output();
    if qemu.is_err() {
        println!("SKIPPED: no {QEMU}");
        return true;
    }
    if let Err(error) = limosa_shim::open_kvm() {
        println!("SKIPPED: {error}");
        return true;
    }
    false
}

/// A move by either engine that took time and CPU, with a guest that is whole.
fn is_whole(it: &Value) {
    assert_eq!(it["outcome"], "completed", "{it}");
    assert_eq!(it["verified"], "ok", "{it}");
    for figure in ["total_ms", "running_ms", "gap_ms", "downtime_ms"] {
        assert!(it[figure].as_f64().is_some_and(|ms| ms >= 0.0), "{it}");
    }
    assert!(it["gap_ms"].as_f64() <= it["running_ms"].as_f64(), "{it}");
    assert!(it["cpu_s_per_gib"].as_f64() > Some(0.0), "{it}");
    // Random content does not shrink.
    assert!(it["wire_bytes"].as_u64() > Some(40 << 20), "{it}");
}

#[test]
fn both_engines_move_the_same_guest() {
    if skipped() {
        return;
    }
    let _turn = turn();
    let done = bench(
        "rivals qemu --memory 64MiB --working-set 8MiB --dirty-rate 4MiB/s --repeat 2 --quiet \
         --prealloc fresh --settings precopy,multifd2 --json -",
    );
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.report();
    assert_eq!(report["schema"], "limosa.rivals/1");
    assert!(
        report["rival"]["version"]
            .as_str()
            .unwrap()
            .contains("QEMU")
    );
    let landing = &report["landings"][0];
    assert_eq!(landing["landing"], "fresh");
    let theirs = landing["theirs"].as_array().unwrap();
    let names: Vec<_> = theirs.iter().map(|it| &it["setting"]).collect();
    assert_eq!(names, ["precopy", "multifd2"]);
    assert!(names.contains(&&landing["best"]), "{landing}");
    for contender in std::iter::once(&landing["ours"]).chain(theirs) {
        let moves = contender["moves"].as_array().unwrap();
        assert_eq!(moves.len(), 2, "{contender}");
        moves.iter().for_each(is_whole);
    }
    for their in theirs {
        let total = |of: &Value| of["moves"][1]["total_ms"].as_f64().unwrap();
        let ratio = total(&landing["ours"]) / total(their);
        let spread = &their["ratios"]["total"];
        let ends = [&spread["min"], &spread["max"]].map(|it| it.as_f64().unwrap());
        assert!(ends.iter().any(|end| (end - ratio).abs() < 1e-9), "{their}");
    }
}

#[test]
fn a_unix_socket_carries_untouched_memory() {
    if skipped() {
        return;
    }
    let _turn = turn();
    let done = bench(
        "rivals --memory 64MiB --touched 10% --repeat 1 --transport unix --settings multifd1 \
         --prealloc fresh --quiet --json -",
    );
    assert_eq!(done.code, Some(0), "{done:?}");
    let landing = &done.report()["landings"][0];
    // The guest reads what it never touched, and wants zeros there.
    assert_eq!(
        landing["theirs"][0]["moves"][0]["verified"], "ok",
        "{landing}"
    );
}

#[test]
fn each_kind_of_target_memory_has_its_figures() {
    if skipped() {
        return;
    }
    let _turn = turn();
    let done = bench("rivals --memory 64MiB --repeat 1 --settings multifd1 --quiet --json -");
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.report();
    let landings = report["landings"].as_array().unwrap();
    let names: Vec<_> = landings.iter().map(|it| &it["landing"]).collect();
    assert_eq!(names, ["fresh", "populated"]);
    for landing in landings {
        is_whole(&landing["ours"]["moves"][0]);
        is_whole(&landing["theirs"][0]["moves"][0]);
    }
}

/// What `cat` shows of a file in the network of process `id`.
fn in_network_of(id: u32, file: &str) -> String {
    let net = format!("--net=/proc/{id}/ns/net");
    let shown = std::process::Command::new("nsenter")
        .args([&net, "cat", file])
        .output();
    shown.map_or_else(
        |_| String::new(),
        |it| String::from_utf8_lossy(&it.stdout).trim().into(),
    )
}

#[test]
fn qemu_is_given_another_congestion_control() {
    if skipped() {
        return;
    }
    let _turn = turn();
    let known = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let known = std::fs::read_to_string(known).unwrap_or_default();
    let system = "/proc/sys/net/ipv4/tcp_congestion_control";
    let default = std::fs::read_to_string(system).unwrap_or_default();
    let other = known.split_whitespace().find(|it| *it != default.trim());
    let (Some(other), true) = (other, rustix::process::geteuid().is_root()) else {
        println!("SKIPPED: it takes root and a second congestion control");
        return;
    };
    let rivals = start(&format!(
        "rivals --memory 64MiB --repeat 1 --settings multifd1 --quiet --prealloc fresh --json - \
         --congestion {other}"
    ));
    let id = rivals.child.id();
    wait_until("two of QEMU", Duration::from_secs(60), || {
        let qemus: Vec<_> = children_of(id)
            .into_iter()
            .filter(|id| is_qemu(*id))
            .collect();
        let both = qemus.len() == 2;
        both && qemus.iter().all(|id| in_network_of(*id, system) == other)
    });
    let done = finish(rivals);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.report();
    assert_eq!(report["rival"]["congestion"], other);
    is_whole(&report["landings"][0]["theirs"][0]["moves"][0]);
}

#[test]
fn a_link_holds_both_to_its_rate() {
    if skipped() {
        return;
    }
    let _turn = turn();
    for more in ["", "--congestion reno"] {
        if !more.is_empty() && !rustix::process::geteuid().is_root() {
            println!("SKIPPED: another congestion control takes root");
            continue;
        }
        let done = bench(&format!(
            "rivals --memory 64MiB --repeat 1 --settings multifd1 --quiet --prealloc fresh \
             --json - --link 400Mbit {more}"
        ));
        assert_eq!(done.code, Some(0), "{done:?}");
        let report = done.report();
        assert_eq!(report["config"]["link"]["rate"], 400_000_000, "{report}");
        let landing = &report["landings"][0];
        for it in [
            &landing["ours"]["moves"][0],
            &landing["theirs"][0]["moves"][0],
        ] {
            is_whole(it);
            // What a link of 50 MB/s carries at best, with all its bursts.
            let least = it["wire_bytes"].as_f64().unwrap() / 55e3;
            assert!(it["total_ms"].as_f64() > Some(least), "{it}");
        }
    }
}

#[test]
fn a_qemu_that_can_not_move_it_is_quoted() {
    if skipped() {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("qemu");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 0.0' && exit\n\
                  echo 'this one is broken' >&2; exit 1\n";
    std::fs::write(&fake, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).unwrap();
    let done = bench(&format!(
        "rivals --memory 64MiB --repeat 2 --settings precopy --prealloc fresh --qemu {}",
        fake.display()
    ));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("this one is broken"), "{done:?}");
    assert!(
        done.out.contains("no setting of the rival completed"),
        "{done:?}"
    );
}

#[test]
fn without_a_qemu_it_says_what_to_do() {
    if let Err(error) = limosa_shim::open_kvm() {
        println!("SKIPPED: {error}");
        return;
    }
    let done = bench("rivals --memory 64MiB --qemu /nonexistent/qemu");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("/nonexistent/qemu"), "{done:?}");
    assert!(done.err.contains("--qemu PATH"), "{done:?}");
}

#[test]
fn what_no_rival_can_is_wrong_usage() {
    for (line, culprit) in [
        ("--vcpus 2", "--vcpus 2"),
        ("--guest process", "process"),
        ("--verify-digest", "--verify-digest"),
        ("--settings fast", "`fast`"),
        ("--settings multifd0", "`multifd0`"),
        ("--memory 1MiB", "guest memory"),
        ("--memory 32MiB --touched 50%", "firmware"),
        ("--transport unix --congestion cubic", "--congestion"),
        ("--transport unix --link 1Gbit", "--link"),
        ("bhyve", "bhyve"),
        ("--repeat 0", "--repeat"),
    ] {
        let done = bench(&format!("rivals {line}"));
        assert_eq!(done.code, Some(2), "{line}: {done:?}");
        assert!(done.err.contains(culprit), "{line}: {done:?}");
        assert_eq!(done.out, "", "{line}");
    }
}

/// The command line of a process, with spaces.
fn command_line(id: u32) -> String {
    let text = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ")
}

/// Is this a QEMU, and no longer the process that is to become one?
fn is_qemu(id: u32) -> bool {
    command_line(id).starts_with(QEMU)
}

#[test]
fn no_qemu_outlives_an_interrupted_or_killed_command() {
    if skipped() {
        return;
    }
    let _turn = turn();
    for killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let line = format!(
            "rivals --memory 1GiB --settings multifd2 --prealloc fresh --repeat 50 --qemu {QEMU}"
        );
        let mut rivals = std::process::Command::new(common::MIGRATE_BENCH);
        rivals
            .args(line.split_whitespace())
            .env("TMPDIR", folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut rivals = rivals.spawn().unwrap();
        let id = rivals.id();
        wait_until("a QEMU", Duration::from_secs(60), || {
            children_of(id).into_iter().any(is_qemu)
        });
        let children = children_of(id);
        if killed {
            rivals.kill().unwrap();
        } else {
            interrupt(id);
        }
        let status = rivals.wait().unwrap();
        assert_eq!(status.code(), if killed { None } else { Some(1) });
        wait_until("the end of all", Duration::from_secs(10), || {
            !children.iter().any(|id| is_alive(*id))
        });
        if !killed {
            assert!(is_empty(folder.path()), "{folder:?}");
        }
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_guard_without_its_parent_starts_nothing() {
    let done = finish(start("guard --parent 1 /bin/echo -- started"));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.out, "");
    assert!(done.err.contains("is gone"), "{done:?}");
}
