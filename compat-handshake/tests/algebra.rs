//! libvirt's cases of comparing processors and of what they have in common, put to our questions:
//! "is what the guest needs within the host?" and "what do these have in common?".
//!
//! Policies of single features, strictness and "any vendor" are libvirt's and not ours: they are
//! decided here, and what is left is judged by the crate.

mod common;

use common::cases::{Case, Cases, Names};
use common::named;
use limosa_compat::{
    Exception, GuestCpu, HostCpu, MismatchKind, Mode, PoolError, Processor, TscScaling, Vendor,
    baseline, feature_names, intersect, is_feature, judge, not_in_common, stays,
};

/// What libvirt answers.
#[derive(Debug, PartialEq)]
enum Answer {
    Identical,
    Superset,
    Incompatible(Reason),
    Error(String),
}

#[derive(Debug, PartialEq)]
enum Reason {
    Arch,
    Vendor,
    Forbidden(Names),
    Lacks(Names),
    Extra(Names),
}

impl Answer {
    /// The answer that a case expects, of what our rules compare at all: a bit such as `ht` belongs
    /// to the virtual machine.
    fn expected(cases: &Cases, case: &Case) -> Self {
        let row = case.row("answer");
        let (kind, rest) = row.split_once(' ').unwrap_or((row, ""));
        let (reason, list) = rest.split_once(' ').unwrap_or((rest, ""));
        match (kind, reason) {
            ("identical", _) => Self::Identical,
            ("superset", _) => Self::Superset,
            ("error", _) => Self::Error(rest.into()),
            ("incompatible", "arch") => Self::Incompatible(Reason::Arch),
            ("incompatible", "vendor") => Self::Incompatible(Reason::Vendor),
            ("incompatible", _) => {
                let names = compared(cases.names(list).unwrap());
                Self::Incompatible(match reason {
                    "forbidden" => Reason::Forbidden(names),
                    "lacks" => Reason::Lacks(names),
                    "extra" => Reason::Extra(names),
                    other => panic!("{other}"),
                })
            }
            _ => panic!("{row}"),
        }
    }
}

fn compared(names: Names) -> Names {
    names.into_iter().filter(|name| is_feature(name)).collect()
}

/// What `needed` has and `host` lacks, as the crate judges it.
fn missing(needed: Processor, host: Processor) -> Result<Names, Reason> {
    let guest = GuestCpu {
        processor: needed,
        tsc_khz: 2_000_000,
        vcpu_count: 1,
        baseline: "off".into(),
    };
    let host = HostCpu::plain(host, 2_000_000, TscScaling::No);
    let mismatches = judge(&guest, &host).mismatches;
    let mut names = Names::new();
    for mismatch in mismatches {
        match mismatch.kind {
            MismatchKind::Vendor | MismatchKind::NoRules => return Err(Reason::Vendor),
            // State follows from features, and so does its size.
            _ if mismatch.name.starts_with("xcr0.") || mismatch.name == "xsave-size" => {}
            MismatchKind::Missing => {
                names.insert(mismatch.name.into_owned());
            }
            _ => panic!("{mismatch}"),
        }
    }
    Ok(names)
}

/// What libvirt's policies leave to be judged.
fn answer(cases: &Cases, case: &Case) -> Result<Answer, String> {
    if case.find("arch").is_some() {
        return Ok(Answer::Incompatible(Reason::Arch));
    }
    let (host_vendor, host) = cases.with_vendor(case.row("host"));
    let (vendor, model) = cases.with_vendor(case.row("guest"));
    let (host, model) = (host?, model?);
    let policy = |key| cases.names(case.find(key).unwrap_or_default());
    let [require, optional, disable, force, forbid] = [
        policy("require")?,
        policy("optional")?,
        policy("disable")?,
        policy("force")?,
        policy("forbid")?,
    ];
    let all = [&model, &require, &optional, &disable, &force, &forbid];
    if let Some(unknown) = all.into_iter().flatten().find(|name| !is_known(name)) {
        return Err(unknown.clone());
    }
    let left = |names: &Names| -> Names {
        let decided = |name: &&String| {
            optional.contains(*name) || disable.contains(*name) || force.contains(*name)
        };
        names
            .iter()
            .filter(|name| !decided(name))
            .cloned()
            .collect()
    };
    let needed = left(&model.union(&require).cloned().collect());
    let guest_vendor = vendor.or(host_vendor);
    let guest = named::processor(guest_vendor, &needed);
    let here = named::processor(host_vendor, &host);
    let lacks = match missing(guest.clone(), here) {
        Err(vendor) => return Ok(Answer::Incompatible(vendor)),
        Ok(lacks) => lacks,
    };
    let forbidden: Names = forbid.intersection(&host).cloned().collect();
    if !forbidden.is_empty() {
        return Ok(Answer::Incompatible(Reason::Forbidden(forbidden)));
    }
    if !lacks.is_empty() {
        return Ok(Answer::Incompatible(Reason::Lacks(lacks)));
    }
    // What the host has beyond it: the same question the other way round.
    let rest = named::processor(host_vendor, &left(&host));
    let extra = missing(rest, guest).unwrap_or_default();
    Ok(match (extra.is_empty(), case.find("match")) {
        (true, _) => Answer::Identical,
        (false, Some("strict")) => Answer::Incompatible(Reason::Extra(extra)),
        (false, _) => Answer::Superset,
    })
}

/// Of any kind: libvirt also names what is never compared.
fn is_known(name: &str) -> bool {
    named::place(name).is_some()
}

fn compare_group(group: &str) {
    let cases = Cases::read("libvirt-compare.txt");
    for case in cases.group(group) {
        let found = answer(&cases, case).unwrap_or_else(Answer::Error);
        let expected = Answer::expected(&cases, case);
        assert_eq!(found, expected, "{}: {}", case.name, case.row("why"));
    }
}

#[test]
fn every_case_is_there() {
    assert_eq!(Cases::read("libvirt-compare.txt").count(), 35);
    assert_eq!(Cases::read("libvirt-baseline.txt").count(), 15);
}

#[test]
fn hosts_compare_with_better_and_worse_ones() {
    compare_group("hosts");
}

#[test]
fn vendors_are_never_crossed() {
    compare_group("vendors");
}

#[test]
fn names_that_nobody_knows_are_errors() {
    compare_group("names");
}

#[test]
fn policies_leave_the_right_question() {
    compare_group("policies");
}

#[test]
fn a_strict_match_is_the_question_both_ways() {
    compare_group("strict");
}

#[test]
fn what_was_brought_up_to_the_host_fits_it() {
    compare_group("updated");
}

/// The members of a case, and the vendor that the answer names. A member without a vendor is of
/// whatever vendor the others are.
fn members(cases: &Cases, case: &Case) -> (Vec<Processor>, Option<Vendor>) {
    let members: Vec<_> = case
        .all("member")
        .map(|row| cases.with_vendor(row))
        .collect();
    let any = members.iter().find_map(|(vendor, _)| *vendor);
    let any = any.unwrap_or(Vendor::Intel);
    let one_named = members.iter().all(|(vendor, _)| *vendor == Some(any));
    let pool = members.into_iter().map(|(vendor, names)| {
        let vendor = vendor.unwrap_or(any);
        named::processor(Some(vendor), &names.unwrap())
    });
    (pool.collect(), one_named.then_some(any))
}

fn names_of(processor: &Processor) -> Names {
    feature_names(processor)
        .into_iter()
        .map(Into::into)
        .collect()
}

fn expected_common(cases: &Cases, case: &Case) -> (Option<Vendor>, Names) {
    let (vendor, names) = cases.with_vendor(case.row("common"));
    (vendor, compared(names.unwrap()))
}

fn baseline_group(group: &str) {
    let cases = Cases::read("libvirt-baseline.txt");
    for case in cases.group(group) {
        let (pool, vendor) = members(&cases, case);
        let common = intersect(&pool);
        if case.find("refused") == Some("vendors") {
            assert!(matches!(common, Err(PoolError::VendorsDiffer { .. })));
            continue;
        }
        let common = common.unwrap();
        let (expected_vendor, expected) = expected_common(&cases, case);
        assert_eq!(names_of(&common), expected, "{}", case.name);
        assert_eq!(vendor, expected_vendor, "{}", case.name);
        for member in pool {
            let lacks = missing(common.clone(), member).unwrap();
            assert_eq!(lacks, Names::new(), "{}", case.name);
        }
    }
}

#[test]
fn what_processors_have_in_common_is_what_each_has() {
    baseline_group("sets");
}

#[test]
fn pools_are_of_one_vendor() {
    baseline_group("vendors");
}

#[test]
fn what_travels_is_less_by_what_has_a_reason() {
    let cases = Cases::read("libvirt-baseline.txt");
    for case in cases.group("travelling") {
        let (pool, _) = members(&cases, case);
        let shaped = baseline(Mode::Common, &pool).unwrap();
        let (_, mut expected) = expected_common(&cases, case);
        let left_out = |row: &Exception| row.name;
        for name in stays().iter().chain(not_in_common()).map(left_out) {
            expected.remove(name);
        }
        assert_eq!(names_of(&shaped.processor), expected, "{}", case.name);
    }
}
