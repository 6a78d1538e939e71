//! Files that are good, what they plan, and what is said of those that are not.

use std::path::Path;

use proptest::prelude::*;

use super::file::{Expect, Sequence};
use super::plan::Plan;

/// Scenarios that run without KVM, and in little memory.
const BASE: &str = "[base]\nguest = \"process\"\nmemory = \"64MiB\"\n";

fn plan(text: &str) -> Plan {
    Plan::of(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn values(plan: &Plan) -> Vec<String> {
    let scenarios = plan.scenarios.iter();
    scenarios.map(|each| each.values.join(" ")).collect()
}

#[test]
fn every_combination_is_a_scenario_and_the_last_axis_varies_first() {
    let plan = plan(&format!(
        "{BASE}[axes]\nvcpus = [1, 2]\nfill = [\"text\", \"zero\"]\npopulated = [true, false]"
    ));
    assert_eq!(
        values(&plan),
        [
            "1 text true",
            "1 text false",
            "1 zero true",
            "1 zero false",
            "2 text true",
            "2 text false",
            "2 zero true",
            "2 zero false"
        ]
    );
    let [first, second] = [0, 1].map(|index| &plan.scenarios[index]);
    assert!(first.args.populated && !second.args.populated);
    let [first, second] = [first, second].map(|scenario| scenario.words.join(" "));
    let rest = "--guest=process --memory=64MiB --repeat=3 --no-reference";
    assert_eq!(first, format!("--vcpus=1 --fill=text --populated {rest}"));
    assert_eq!(second, format!("--vcpus=1 --fill=text {rest}"));
    assert_eq!(plan.repeat, 3);
    assert!(plan.scenarios[4].args.guest.vcpus == 2);
}

#[test]
fn without_axes_there_is_one_scenario() {
    let plan = plan(&format!("repeat = 7\n{BASE}"));
    assert_eq!(values(&plan), [""]);
    assert_eq!(plan.scenarios[0].args.repeat, 7);
}

#[test]
fn what_is_skipped_is_not_there() {
    let axes = "[axes]\nvcpus = [1, 2, 4]\nfill = [\"text\", \"zero\"]\n";
    let skip = "[[skip]]\nvcpus = [2, 4]\nfill = \"zero\"\n[[skip]]\nvcpus = 1";
    let plan = plan(&format!("{BASE}{axes}{skip}"));
    assert_eq!(values(&plan), ["2 text", "4 text"]);
}

#[test]
fn the_last_exception_holds() {
    let axes = "[axes]\nvcpus = [1, 2, 4]\n";
    let rules = "[[exception]]\nvcpus = [2, 4]\nexpect = \"completes\"\n\
                 [[exception]]\nvcpus = 4\nexpect = \"any\"\n";
    let plan = plan(&format!("{BASE}{axes}{rules}"));
    let expected: Vec<_> = plan.scenarios.iter().map(|each| each.expect).collect();
    assert_eq!(expected, [Expect::Any, Expect::Completes, Expect::Any]);
}

#[test]
fn rounds_go_over_all_scenarios_unless_told_otherwise() {
    let rest = format!("{BASE}[axes]\nvcpus = [1, 2]");
    let interleaved = plan(&format!("repeat = 2\n{rest}"));
    assert_eq!(interleaved.order, Sequence::Interleaved);
    assert_eq!(interleaved.turns(), [(0, 0), (1, 0), (0, 1), (1, 1)]);
    let consecutive = plan(&format!("repeat = 2\norder = \"consecutive\"\n{rest}"));
    assert_eq!(consecutive.turns(), [(0, 0), (0, 1), (1, 0), (1, 1)]);
}

/// A matrix, and words that an error names it by.
type Wrong = (&'static str, &'static [&'static str]);

const WRONG: &[Wrong] = &[
    (
        "[base]\nmemry = \"1GiB\"",
        &["[base] memry", "no such option"],
    ),
    (
        "[base]\nmemory = \"lots\"",
        &["[base] memory = \"lots\"", "`lots` is not a size"],
    ),
    (
        "[base]\nmemory = true",
        &["[base] memory = true", "text in quotes"],
    ),
    (
        "[base]\nverify = \"yes\"",
        &["[base] verify = \"yes\"", "true or false"],
    ),
    (
        "[base]\nrepeat = 3",
        &["[base] repeat = 3", "top of the file"],
    ),
    ("[base]\nvcpus = 9", &["[base] vcpus = 9", "1..=8"]),
    (
        "[base]\nmemory = \"1MiB\"\nguest = \"process\"",
        &["[base]: ", "memory"],
    ),
    ("[axes]\nfill = []", &["[axes] fill = []", "needs a value"]),
    (
        "[axes]\nfill = \"text\"",
        &["[axes] fill = \"text\"", "write a list"],
    ),
    (
        "[axes]\nfill = [\"pink\"]",
        &["[axes] fill = \"pink\"", "possible values", "semi"],
    ),
    ("[axes]\nvcpus = [1, 1]", &["[axes] vcpus", "twice"]),
    (
        "[axes]\nvcpus = [[1]]",
        &["[axes] vcpus = [1]", "whole number"],
    ),
    ("[axes]\njson = [\"a\"]", &["[axes] json", "matrix --json"]),
    (
        "[base]\nvcpus = 1\n[axes]\nvcpus = [2]",
        &["vcpus", "[base] and in [axes]"],
    ),
    (
        "[axes]\nlink = [\"1Gbit\"]\ntransport = [\"tcp\", \"unix\"]",
        &[
            "the scenario of link 1Gbit, transport unix",
            "--link shapes TCP",
        ],
    ),
    ("repeat = 0", &["repeat = 0", "1 to 1000"]),
    ("order = \"random\"", &["line 1", "interleaved"]),
    ("repeats = 3", &["line 1", "repeats", "expected one of"]),
    ("repeat = 3\n[axes", &["line 2"]),
    ("expect = \"wonders\"", &["wonders", "completes"]),
    (
        "[axes]\nvcpus = [1, 2]\n[[skip]]\nfill = \"text\"",
        &["[[skip]] fill", "the axes are vcpus"],
    ),
    (
        "[axes]\nvcpus = [1, 2]\n[[skip]]\nvcpus = 3",
        &["[[skip]] vcpus = 3", "which has 1, 2"],
    ),
    (
        "[axes]\nvcpus = [1, 2]\n[[skip]]\n",
        &["[[skip]] names no axis"],
    ),
    (
        "[axes]\nvcpus = [1, 2]\n[[skip]]\nvcpus = [1, 2]",
        &["leaves no scenario"],
    ),
    (
        "[axes]\nvcpus = [1, 2]\n[[exception]]\nvcpus = 1",
        &["[[exception]] needs expect"],
    ),
];

#[test]
fn what_is_wrong_is_named() {
    for (text, words) in WRONG {
        let error = Plan::of(text).unwrap_err();
        for word in *words {
            assert!(error.contains(word), "no `{word}` for {text}:\n{error}");
        }
    }
}

#[test]
fn a_matrix_of_absurd_size_is_refused_before_it_is_made() {
    let seeds: Vec<_> = (0..100).map(|seed| seed.to_string()).collect();
    let list = format!("[{}]", seeds.join(", "));
    let hops = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]";
    let text = format!("{BASE}[axes]\nseed = {list}\nhops = {hops}");
    let error = Plan::of(&text).unwrap_err();
    assert!(
        error.contains("1100 scenarios (100 seed × 11 hops)"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Plan::read(Path::new("/nowhere/a.toml")).unwrap_err();
    assert!(error.starts_with("/nowhere/a.toml: "), "{error}");
}

#[test]
fn the_files_of_this_repository_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../matrix");
    for (file, count) in [("quick.toml", 6), ("full.toml", 152)] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        // Machines without KVM, or with less memory than they are written for, can plan them too.
        let text = text.replace("[base]", "[base]\nguest = \"process\"");
        // There nobody can tell which vCPU wrote what.
        let text = text.replace(", \"limit\"", "");
        assert_eq!(plan(&text).scenarios.len(), count, "{file}");
    }
}

proptest! {
    /// Whatever is asked for reaches the options of `run` as it was written.
    #[test]
    fn an_axis_says_what_the_option_says(
        budgets in proptest::collection::btree_set(1_u32..=60_000, 1..6),
        rates in proptest::collection::btree_set(1_u64..=5000, 1..6),
    ) {
        let list = |texts: Vec<String>| format!("[{}]", texts.join(", "));
        let axes = format!(
            "[axes]\ndowntime = {}\ndirty-rate = {}\n",
            list(budgets.iter().map(|ms| format!("\"{ms}ms\"")).collect()),
            list(rates.iter().map(|rate| format!("\"{rate}MiB/s\"")).collect()),
        );
        let plan = plan(&format!("{BASE}{axes}"));
        let asked = budgets.iter().flat_map(|ms| rates.iter().map(move |rate| (*ms, *rate)));
        let got = plan.scenarios.iter().map(|scenario| {
            let budget = scenario.args.link.downtime.as_millis();
            (budget as u32, scenario.args.guest.dirty_rate >> 20)
        });
        prop_assert_eq!(got.collect::<Vec<_>>(), asked.collect::<Vec<_>>());
    }

    /// No text brings it down.
    #[test]
    fn any_text_is_judged(text in "[a-z\\[\\]=\"0-9 \n]{0,80}") {
        let _ = Plan::of(&text);
    }
}
