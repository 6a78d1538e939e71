//! Two hosts with unlike processors, each with what the other lacks: a guest in `off` is refused
//! either way, and guests in `common` and `minimum` move there and back.

mod common;

use common::{
    K10, ZEN3, common_there_and_back, features, on_hosts, refused, there_and_back, without,
};
use limosa_foreign_kvm::Machine;

/// What the floor hides, whatever hosts have: at least what Hyper-V's standard mode hides.
const NOT_IN_MINIMUM: [&str; 14] = [
    "3dnow",
    "3dnowext",
    "abm",
    "avx",
    "avx2",
    "bmi2",
    "misalignsse",
    "popcnt",
    "sse4.1",
    "sse4.2",
    "sse4a",
    "ssse3",
    "smap",
    "xsave",
];

#[test]
fn guests_of_a_baseline_move_between_unlike_hosts_and_others_are_refused_before_any_page() {
    on_hosts([K10, ZEN3], moves_and_refusals);
}

fn moves_and_refusals(old: &mut Machine, new: &mut Machine) {
    let [lost, gained] = [features(old), features(new)];
    let [lost, gained] = [without(&lost, &gained), without(&gained, &lost)];
    println!("{} alone has: {}", K10.name, lost.join(" "));
    println!("{} alone has: {}", ZEN3.name, gained.join(" "));
    assert!(lost.iter().any(|name| name == "3dnow"), "{lost:?}");
    assert!(gained.iter().any(|name| name == "avx2"), "{gained:?}");

    refused(new, old);
    refused(old, new);
    common_there_and_back(new, old);
    common_there_and_back(old, new);
    let sight = there_and_back(new, old, "minimum");
    for name in NOT_IN_MINIMUM {
        assert!(!sight.features.iter().any(|seen| seen == name), "{name}");
    }
}
