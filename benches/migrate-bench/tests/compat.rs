//! The command `compat` as a user runs it: each form in and out, each exit status.

mod common;

use std::path::Path;

use common::{Done, bench, bench_reading, kvm_works, processor};
use serde_json::Value;

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

/// What the command prints when all is well.
fn out(line: &str) -> String {
    let done = bench(line);
    assert_eq!(done.code, Some(0), "{line}: {done:?}");
    done.out
}

/// A file in `folder` with this in it.
fn file(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_file_is_shown_in_every_form_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["milan", "genoa", "ice-lake"] {
        let file_of = processor(name);
        let cpuid = out(&format!("compat show {file_of} --format cpuid"));
        let features = out(&format!("compat show {file_of} --format features"));
        for (number, form) in ["json", "cpuid"].into_iter().enumerate() {
            let text = out(&format!("compat show {file_of} --format {form}"));
            let again = file(folder.path(), &format!("{name}{number}"), &text);
            assert_eq!(out(&format!("compat show {again} --format {form}")), text);
            assert_eq!(out(&format!("compat show {again} --format cpuid")), cpuid);
            let piped = bench_reading("compat show - --format features", &text);
            assert_eq!(piped.code, Some(0), "{piped:?}");
            assert_eq!(piped.out, features);
        }
        let names: Vec<&str> = features.lines().collect();
        assert!(names.is_sorted() && names.len() > 80, "{names:?}");
        let table = out(&format!("compat show {file_of}"));
        for name in names {
            assert!(table.contains(name), "no {name}: {table}");
        }
    }
    let features = out(&format!(
        "compat show {} --format features",
        processor("ice-lake")
    ));
    // Of a register too, and those that state a lack.
    for name in ["rdctl-no", "mds-no", "fdp-excptn-only", "avx512f"] {
        assert!(features.lines().any(|line| line == name), "{name}");
    }
}

#[test]
fn this_host_is_shown() {
    if !kvm_works() {
        return;
    }
    let shown = json(&bench("compat show --host --format json"));
    assert_eq!(shown["schema"], "limosa.cpu/1");
    assert!(shown["host"]["tsc_khz"].as_u64().is_some(), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    let host = file(folder.path(), "host.json", shown.to_string());
    // What it gives new guests, it takes in.
    let done = bench(&format!("compat compare {host} {host}"));
    assert_eq!(done.code, Some(0), "{done:?}");
    let features = out("compat show --format features");
    assert!(features.lines().any(|line| line == "sse2"), "{features}");
}

#[test]
fn what_fits_and_what_does_not() {
    let (milan, genoa) = (processor("milan"), processor("genoa"));
    let fits = bench(&format!("compat compare {milan} {genoa}"));
    assert_eq!(fits.code, Some(0), "{fits:?}");
    assert!(fits.out.contains("fits"), "{fits:?}");
    let refused = bench(&format!("compat compare {genoa} {milan}"));
    assert_eq!(refused.code, Some(3), "{refused:?}");
    for words in [
        "avx512f (CPUID 0x7.0 ebx bit 16",
        "the host lacks it (guest 0xf1bf07ab, host 0x219c05ab)",
        "phys-bits",
        "start it in mode `common`",
    ] {
        assert!(refused.out.contains(words), "no {words}: {}", refused.out);
    }
    let remedies = refused
        .out
        .matches("choose a target like the source")
        .count();
    assert_eq!(remedies, 1, "{}", refused.out);
    let verdict = json(&bench(&format!(
        "compat compare {genoa} {milan} --format json"
    )));
    assert_eq!(verdict["schema"], "limosa.verdict/1");
    assert_eq!(verdict["fits"], false);
    let mismatches = verdict["mismatches"].as_array().unwrap();
    for mismatch in mismatches {
        for field in ["name", "kind", "guest", "host", "remedy", "what"] {
            let text = mismatch[field].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{mismatch}");
        }
        assert!(refused.out.contains(mismatch["what"].as_str().unwrap()));
    }
    let avx512f = mismatches
        .iter()
        .find(|one| one["name"] == "avx512f")
        .unwrap();
    assert_eq!(avx512f["place"]["leaf"], "0x7");
    assert_eq!(avx512f["place"]["register"], "ebx");
    assert_eq!(avx512f["place"]["bit"], 16);
}

#[test]
fn vendors_never_meet() {
    let (milan, intel) = (processor("milan"), processor("ice-lake"));
    for (guest, host) in [(&milan, &intel), (&intel, &milan)] {
        let done = bench(&format!("compat compare {guest} {host}"));
        assert_eq!(done.code, Some(3), "{done:?}");
        assert!(done.out.contains("not the same maker"), "{done:?}");
        assert!(!done.out.contains("start it in mode"), "{done:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    // Real silicon says so: "GenuineIotel".
    let odd = file(
        folder.path(),
        "odd.cpuid",
        "cpuid 0 0 0x1 0x756e6547 0x6c65746f 0x49656e69\ncpuid 1 0 0x673 0 0 0x1\n",
    );
    for (mode, files) in [
        ("common", [&milan, &intel]),
        ("minimum", [&intel, &milan]),
        ("common", [&odd, &odd]),
    ] {
        let [one, other] = files;
        let done = bench(&format!("compat baseline {one} {other} --mode {mode}"));
        assert_eq!(done.code, Some(3), "{done:?}");
        assert_eq!(done.out, "");
        assert!(done.err.contains(one.as_str()), "{done:?}");
        assert!(done.err.contains("endor"), "{done:?}");
    }
    let done = bench(&format!("compat compare {odd} {odd}"));
    assert_eq!(done.code, Some(3), "{done:?}");
}

#[test]
fn what_hosts_have_in_common_fits_each_of_them() {
    let (milan, genoa) = (processor("milan"), processor("genoa"));
    let folder = tempfile::tempdir().unwrap();
    let line = format!("compat baseline {genoa} {milan}");
    let common = file(
        folder.path(),
        "common",
        out(&format!("{line} --format json")),
    );
    for host in [&milan, &genoa] {
        let done = bench(&format!("compat compare {common} {host}"));
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let features = out(&format!("{line} --format features"));
    assert!(!features.contains("avx512"), "{features}");
    assert!(features.lines().any(|name| name == "avx2"), "{features}");
    let other_way = format!("compat baseline {milan} {genoa} --format cpuid");
    assert_eq!(out(&format!("{line} --format cpuid")), out(&other_way));
    assert!(out(&line).starts_with("baseline common"));
}

#[test]
fn a_baseline_that_a_host_lacks_names_host_and_features() {
    let (milan, genoa) = (processor("milan"), processor("genoa"));
    let done = bench(&format!(
        "compat baseline {genoa} {milan} --mode named:x86-64-v4"
    ));
    assert_eq!(done.code, Some(3), "{done:?}");
    let lacks = done.err.lines().find(|line| line.contains(" lacks "));
    let lacks = lacks.unwrap_or_else(|| panic!("{done:?}"));
    assert!(
        lacks.contains(&milan) && lacks.contains("avx512f"),
        "{lacks}"
    );
    assert!(!done.err.contains(&format!("{genoa} lacks")), "{done:?}");
    for mode in ["named:x86-64-v3", "minimum"] {
        let line = format!("compat baseline {genoa} {milan} --mode {mode} --format features");
        let features = out(&line);
        assert!(features.lines().any(|name| name == "sse2"), "{features}");
        assert!(!features.contains("avx512"), "{features}");
    }
}

#[test]
fn baselines_are_listed_with_their_order() {
    let listed = json(&bench("compat list --format json"));
    let baselines = listed["baselines"].as_array().unwrap();
    let of = |name: &str| {
        let found = baselines.iter().find(|baseline| baseline["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let v3 = of("x86-64-v3");
    assert!(
        v3["includes_all"].to_string().contains("\"x86-64-v2\""),
        "{v3}"
    );
    assert!(v3["adds"].to_string().contains("\"avx2\""), "{v3}");
    assert!(!of("x86-64-v2")["features"].to_string().contains("avx2"));
    let table = out("compat list");
    for baseline in baselines {
        assert!(
            table.contains(baseline["name"].as_str().unwrap()),
            "{baseline}"
        );
    }
    // Features also disappear: this is no ladder.
    assert!(table.contains("neither includes the other"), "{table}");
}

/// Ends with status 2 and one line that names the file and this.
fn is_unreadable(done: &Done, culprits: &[&str]) {
    assert_eq!(done.code, Some(2), "{done:?}");
    assert_eq!(done.out, "", "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    for culprit in culprits {
        assert!(done.err.contains(culprit), "no `{culprit}`: {}", done.err);
    }
}

#[test]
fn files_that_are_none_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = "cpuid 0 0 0x1 0x756e6547 0x6c65746e 0x49656e69\n";
    for (name, text, culprits) in [
        ("empty", String::new(), ["", ""]),
        ("truncated", format!("{good}cpuid 1 0 0x6"), ["line 2", "6"]),
        (
            "wide",
            format!("{good}\ncpuid 1 0 0x100000000 0 0 0"),
            ["line 3", "32"],
        ),
        (
            "letters",
            format!("{good}cpuid 1 0 0x1 frob 0 0"),
            ["line 2", "frob"],
        ),
        (
            "twice",
            format!("{good}# x\n{good}cpuid 0 0 2 0 0 0\n"),
            ["line 4", "twice"],
        ),
        ("msr", format!("{good}msr 0x10a"), ["line 2", "number"]),
        ("words", "all is well\n".into(), ["line 1", "all"]),
        (
            "json",
            "{\n\"schema\": \"limosa.cpu/1\",\n".into(),
            ["line", "EOF"],
        ),
        (
            "schema",
            "{\"schema\": \"limosa.run/1\"}".into(),
            ["limosa.run/1", "limosa.cpu/1"],
        ),
    ] {
        let path = file(folder.path(), name, text);
        let done = bench(&format!("compat show {path}"));
        is_unreadable(&done, &[&path, culprits[0], culprits[1]]);
        let done = bench(&format!("compat compare {path} {}", processor("milan")));
        is_unreadable(&done, &[&path]);
        let done = bench(&format!("compat compare {} {path}", processor("milan")));
        is_unreadable(&done, &[&path]);
        let done = bench(&format!("compat baseline {} {path}", processor("milan")));
        is_unreadable(&done, &[&path]);
    }
}

#[test]
fn files_of_another_world_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let large = file(folder.path(), "large", vec![b'#'; 5 << 20]);
    is_unreadable(&bench(&format!("compat show {large}")), &[&large, "4 MiB"]);
    let binary = file(folder.path(), "binary", [b'#', b'\n', 0x7f, 0xff, 0xfe, 0]);
    is_unreadable(
        &bench(&format!("compat show {binary}")),
        &[&binary, "line 2"],
    );
    let missing = folder.path().join("missing").display().to_string();
    is_unreadable(&bench(&format!("compat show {missing}")), &[&missing]);
    let itself = folder.path().display().to_string();
    is_unreadable(&bench(&format!("compat show {itself}")), &[&itself]);
    let zeros = bench("compat show /dev/zero");
    is_unreadable(&zeros, &["/dev/zero", "4 MiB"]);
    is_unreadable(
        &bench_reading("compat show -", "frob\n"),
        &["standard input", "line 1"],
    );
}

#[test]
fn standard_input_is_read_once() {
    let milan = processor("milan");
    let text = std::fs::read_to_string(&milan).unwrap();
    for line in ["compat compare - -", "compat baseline - -"] {
        is_unreadable(&bench_reading(line, &text), &["standard input", "once"]);
    }
    for line in [
        "run --compat common:-,-".to_owned(),
        "run --compat common:- --as-host -".into(),
    ] {
        let done = bench_reading(&line, &text);
        assert_eq!(done.code, Some(2), "{line}: {done:?}");
        assert!(done.err.contains("only once"), "{line}: {done:?}");
    }
    let done = bench_reading(&format!("compat compare - {milan}"), &text);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_mark_of_byte_order_is_no_part_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for form in ["cpuid", "json"] {
        let line = |file: &str| format!("compat show {file} --format {form}");
        let text = out(&line(&processor("milan")));
        let marked = file(folder.path(), form, format!("\u{feff}{text}"));
        assert_eq!(out(&line(&marked)), text);
    }
}

#[test]
fn a_text_is_read_up_to_its_own_limit() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(processor("milan")).unwrap();
    let long = |bytes: usize| {
        let comment = "#".repeat(bytes - text.len() - 1);
        file(folder.path(), "long", format!("{text}{comment}\n"))
    };
    let largest = long(256 << 10);
    out(&format!("compat show {largest}"));
    let larger = long((256 << 10) + 1);
    let done = bench(&format!("compat show {larger}"));
    is_unreadable(&done, &[&larger, "262144"]);
}

#[test]
fn words_that_mean_nothing() {
    let milan = processor("milan");
    for (line, culprit) in [
        ("compat".to_owned(), "compat"),
        (format!("compat compare {milan}"), "required"),
        ("compat baseline".into(), "required"),
        (format!("compat show --host {milan}"), "--host"),
        (format!("compat show {milan} --format xml"), "xml"),
        (
            format!("compat compare {milan} {milan} --format cpuid"),
            "cpuid",
        ),
        (format!("compat baseline {milan} --mode off"), "off"),
        (
            format!("compat baseline {milan} --mode named:z80"),
            "x86-64-v3",
        ),
        ("run --compat on".into(), "minimum"),
        ("run --compat common".into(), "common:FILE"),
        ("run --compat named:z80".into(), "x86-64-v3"),
        ("run --compat minimum --compat off".into(), "one mode"),
        (
            format!("run --compat common:{milan} --compat off"),
            "one mode",
        ),
        (
            "run --compat common:/nowhere/at/all".into(),
            "/nowhere/at/all",
        ),
        (
            "source --to tcp://127.0.0.1:1 --as-host /nowhere".into(),
            "/nowhere",
        ),
        ("target --as-host /nowhere".into(), "/nowhere"),
    ] {
        let done = bench(&line);
        assert_eq!(done.code, Some(2), "{line}: {done:?}");
        assert!(
            done.err.contains(culprit),
            "{line}: no `{culprit}`: {}",
            done.err
        );
        assert!(!done.err.contains("panicked"), "{line}: {}", done.err);
    }
}

#[test]
fn a_register_that_a_tool_did_not_read_counts_as_0_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(processor("ice-lake")).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("msr"))
        .collect();
    let path = file(folder.path(), "no-msrs", lines.join("\n"));
    let done = bench(&format!("compat compare {path} {}", processor("ice-lake")));
    assert!(done.err.contains("MSR 0x10a is not listed"), "{done:?}");
    assert!(done.err.contains(&path), "{done:?}");
    let done = bench(&format!("compat compare {} {path}", processor("ice-lake")));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.out.contains("rdctl-no (MSR 0x10a bit 0"), "{done:?}");
}

#[test]
fn a_register_that_no_rule_knows_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(processor("ice-lake")).unwrap();
    let with = |name, line: &str| file(folder.path(), name, format!("{text}\n{line}\n"));
    let dump = with("dump", "msr 0x1b2 5");
    let done = bench(&format!("compat compare {dump} {}", processor("ice-lake")));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.err.contains(&dump) && done.err.contains("MSR 0x1b2 left out"),
        "{done:?}"
    );
    let newer = with("newer", "feature-msr 0x1b2 5");
    let done = bench(&format!("compat compare {newer} {}", processor("ice-lake")));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.out.contains("unknown MSR 0x1b2"), "{done:?}");
}

#[test]
fn a_pool_of_two_frequencies_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = r#"{"leaf":"0x0","subleaf":"0x0","eax":"0x1","ebx":"0x756e6547","ecx":"0x6c65746e",
        "edx":"0x49656e69"}"#;
    let host = |khz: u32, scaling: &str| {
        let host = format!(
            r#""host":{{"tsc_khz":{khz},"tsc_scaling":"{scaling}","offer":{{"cpuid":[{leaf}]}}}}"#
        );
        let text = format!(r#"{{"schema":"limosa.cpu/1",{host}}}"#);
        file(folder.path(), &format!("{khz}-{scaling}"), text)
    };
    let (slow, fast) = (host(2_500_000, "no"), host(2_600_000, "no"));
    let done = bench(&format!("compat baseline {slow} {fast}"));
    assert_eq!(done.code, Some(0), "{done:?}");
    for name in [&slow, &fast] {
        let note = format!("note: {name}: its time-stamp counter");
        assert!(done.err.contains(&note), "{done:?}");
    }
    let scales = [host(2_500_000, "yes"), host(2_600_000, "yes")].join(" ");
    let done = bench(&format!("compat baseline {scales}"));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn what_is_forgiven_is_told_and_does_not_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let guest = processor("ice-lake");
    let text = std::fs::read_to_string(&guest).unwrap();
    let leaf_7 = text.lines().find(|line| line.starts_with("cpuid 0x7 0x0 "));
    let (before, edx) = leaf_7.unwrap().rsplit_once(' ').unwrap();
    let value = u32::from_str_radix(edx.strip_prefix("0x").unwrap(), 16).unwrap();
    // Without md-clear, on a processor that is not affected: mds-no.
    assert_eq!(value >> 10 & 1, 1);
    let without = format!("{before} {:#x}", value & !(1 << 10));
    let host = text.replacen(leaf_7.unwrap(), &without, 1);
    let host = file(folder.path(), "host.cpuid", host);
    let done = bench(&format!("compat compare {guest} {host}"));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("warning: md-clear"), "{done:?}");
    assert!(done.out.contains("forgiven: "), "{done:?}");
    let verdict = json(&bench(&format!(
        "compat compare {guest} {host} --format json"
    )));
    assert_eq!(verdict["fits"], true);
    assert_eq!(verdict["warnings"][0]["name"], "md-clear");
    assert!(verdict["warnings"][0]["forgiven"].is_string(), "{verdict}");
    // The other way round the guest loses nothing.
    let done = bench(&format!("compat compare {host} {guest}"));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.out.contains("warning"), "{done:?}");
}
