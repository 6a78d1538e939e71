//! Two hosts with unlike processors, each with what the other lacks: a guest in `off` is refused
//! either way, and guests in `common` and `minimum` move there and back.

mod common;

use common::{K10, ZEN3, common_there_and_back, features, pair, refused, there_and_back, without};

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
    let Some([mut old, mut new]) = pair([K10, ZEN3]) else {
        return;
    };
    let [lost, gained] = [features(&mut old), features(&mut new)];
    let [lost, gained] = [without(&lost, &gained), without(&gained, &lost)];
    println!("{} alone has: {}", K10.name, lost.join(" "));
    println!("{} alone has: {}", ZEN3.name, gained.join(" "));
    assert!(lost.iter().any(|name| name == "3dnow"), "{lost:?}");
    assert!(gained.iter().any(|name| name == "avx2"), "{gained:?}");

    refused(&mut new, &mut old);
    refused(&mut old, &mut new);
    common_there_and_back(&mut new, &mut old);
    common_there_and_back(&mut old, &mut new);
    let sight = there_and_back(&mut new, &mut old, "minimum");
    for name in NOT_IN_MINIMUM {
        assert!(!sight.features.iter().any(|seen| seen == name), "{name}");
    }
}
