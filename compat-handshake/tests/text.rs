//! Processors as text: what is read, and what is said of what is not.

mod common;

use common::{CASCADE_LAKE, GENOA, MILAN, SAPPHIRE_RAPIDS};
use limosa_compat::text::{TEXT_BYTES_MAX, TextError, parse, print, read};
use limosa_compat::{GuestCpu, HostCpu, MsrTable, TscScaling, judge};

#[test]
fn real_processors_come_back_but_for_registers_that_are_state() {
    for known in [CASCADE_LAKE, SAPPHIRE_RAPIDS, MILAN, GENOA] {
        let processor = known.processor();
        assert_eq!(parse(&print(&processor)), Ok(processor));
    }
    let with_state = "cpuid 0 0 1 2 3 4\nmsr 0x10 77\nmsr 0x10a 0x1";
    let values = parse(with_state).unwrap().msrs;
    assert_eq!(values.values(), [(0x10a, 1)]);
}

#[test]
fn comments_and_empty_lines_are_skipped_and_numbers_are_of_either_base() {
    let processor = parse("# a host\n\n  cpuid 0x7 0x0 1 0x20 0 0 # AVX2\n").unwrap();
    let entry = processor.cpuid.find(7, 0).unwrap();
    assert_eq!((entry.eax, entry.ebx), (1, 0x20));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let said = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(said("# nothing\n"), "no `cpuid` line");
    assert!(said("cpuid 0 0 1 2 3 4\nhello world").starts_with("line 2: \"hello\" is neither"));
    assert_eq!(said("cpuid 0 0 1 2 3"), "line 1: 5 numbers, not 6");
    assert_eq!(said("cpuid 0 0 1 2 3 4 5"), "line 1: 7 numbers, not 6");
    let large = "line 1: \"0x100000000\" is no number of at most 32 bits";
    assert_eq!(said("cpuid 0x100000000 0 1 2 3 4"), large);
    assert_eq!(
        said("cpuid 0 0 -1 2 3 4"),
        "line 1: \"-1\" is no number of at most 32 bits"
    );
    assert_eq!(
        said("cpuid 0 0 1 2 3 4\ncpuid 0 0 1 2 3 5"),
        "CPUID leaf 0x0.0x0 is answered twice"
    );
    let long = "#".repeat(TEXT_BYTES_MAX + 1);
    assert!(matches!(parse(&long), Err(TextError::TooLong { .. })));
    let many: String = (0..300)
        .map(|leaf| format!("cpuid {leaf} 0 0 0 0 0\n"))
        .collect();
    assert_eq!(said(&many), "line 257: more than 256 answers");
}

#[test]
fn a_register_that_no_rule_knows_is_named_or_comes_back() {
    let here = CASCADE_LAKE.processor();
    let dump = print(&here) + "msr 0x1b2 0x5\nmsr 0x10 77\nmsr 0x1b2 0x6\n";
    assert_eq!(read(&dump), Ok((here.clone(), vec![0x10, 0x1b2])));
    // What KVM lists as a feature stays one, and fails closed.
    let mut newer = here.clone();
    let mut values = here.msrs.values().to_vec();
    values.push((0x1b2, 5));
    newer.msrs = MsrTable::new(values).unwrap();
    let text = print(&newer);
    assert!(text.contains("feature-msr 0x000001b2 0x"), "{text}");
    assert_eq!(read(&text), Ok((newer.clone(), vec![])));
    let guest = GuestCpu {
        processor: newer,
        ..CASCADE_LAKE.guest()
    };
    let host = HostCpu::plain(here, 0, TscScaling::Yes);
    let found = judge(&guest, &host).mismatches;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "unknown MSR 0x1b2");
}
