//! What a fixed baseline is never changes once released: each is held against `data/baselines.txt`.

use std::fmt::Write;

use limosa_compat::{Baseline, Vendor, baselines};

/// One line, as in the file: name, vendor, width of physical addresses, features.
fn line(baseline: &Baseline) -> String {
    let vendor = baseline.vendor().map_or("any", Vendor::name);
    let mut line = format!("{} {vendor} {}:", baseline.name(), baseline.phys_bits());
    for feature in baseline.features() {
        let _ = write!(line, " {feature}");
    }
    line
}

#[test]
fn no_released_baseline_has_changed() {
    let released = include_str!("data/baselines.txt");
    let released: Vec<_> = released
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let now: Vec<_> = baselines().iter().map(line).collect();
    for line in &released {
        let name = line.split_once(' ').map_or(*line, |(name, _)| name);
        let same = now.iter().find(|now| now.starts_with(&format!("{name} ")));
        assert_eq!(
            same.map(String::as_str),
            Some(*line),
            "{name} has changed or is gone: a correction is a new baseline with a new name"
        );
    }
    for line in &now {
        assert!(
            released.contains(&line.as_str()),
            "a new baseline needs a line in data/baselines.txt: {line}"
        );
    }
}
