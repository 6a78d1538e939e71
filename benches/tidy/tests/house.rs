//! The house style, rule by rule, over every file of this workspace. What a rule means stands
//! beside it in the crate; that it finds anything at all is shown there too.

use tidy::{Finding, Source, TestFiles, Tree};

fn tree() -> Tree {
    Tree::read().expect("the workspace can be read")
}

#[track_caller]
fn expect_none(mut findings: Vec<Finding>) {
    findings.sort();
    let list: String = findings
        .iter()
        .map(|finding| format!("  {finding}\n"))
        .collect();
    assert!(findings.is_empty(), "{} places:\n{list}", findings.len());
}

fn each_source(rule: impl Fn(&Source) -> Vec<Finding>) -> Vec<Finding> {
    tree().sources.iter().flat_map(rule).collect()
}

#[test]
fn files_are_short() {
    expect_none(each_source(tidy::length));
}

#[test]
fn lines_are_narrow() {
    expect_none(each_source(tidy::columns));
}

#[test]
fn files_say_first_what_they_are() {
    expect_none(each_source(tidy::header));
}

#[test]
fn nothing_is_left_over() {
    expect_none(each_source(tidy::leftovers));
}

#[test]
fn panics_have_a_reason() {
    let test_files = TestFiles::of(&tree());
    expect_none(each_source(|source| tidy::panics(source, &test_files)));
}

#[test]
fn unsafe_code_stands_in_its_files() {
    expect_none(each_source(tidy::unsafety));
}

#[test]
fn the_glossary_is_used() {
    expect_none(each_source(tidy::vocabulary));
}

#[test]
fn no_place_of_one_machine_is_named() {
    let tree = tree();
    let texts = tree.texts.iter();
    expect_none(
        texts
            .flat_map(|(path, text)| tidy::machine_places(path, text))
            .collect(),
    );
}

#[test]
fn every_file_is_compiled() {
    expect_none(tidy::orphans(&tree()));
}

#[test]
fn bounds_are_documented() {
    let tree = tree();
    assert!(
        tree.text("wire/src/limits.rs").is_some(),
        "the rule has lost its file"
    );
    expect_none(each_source(tidy::documented));
}

#[test]
fn crates_use_only_what_lies_below() {
    expect_none(tidy::direction(&tree()));
}

#[test]
fn dependencies_have_a_reason() {
    expect_none(tidy::reasons(&tree()));
}

#[test]
fn pure_crates_are_pure() {
    let tree = tree();
    expect_none(tidy::purity(&tree));
    expect_none(tidy::pure_dependencies(&tree));
}
