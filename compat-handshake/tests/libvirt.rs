//! What libvirt's own CPU tests expect, asked of our rules: which sets are within which, what hosts
//! have in common, and that vendors never mix. Policies for single features are libvirt's; they are
//! played here, and end in the same two questions.

use limosa_compat::{
    CpuidEntry, CpuidTable, GuestCpu, HostCpu, Kind, Mode, Processor, Registers, TscScaling,
    baseline, feature_names, has, intersect, is_feature, judge, not_in_common, stays, words,
};

const FIXTURE: &str = include_str!("data/libvirt.txt");

/// A line of the fixture with what continues it: its indentation is gone.
fn lines() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in FIXTURE.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("    "), lines.last_mut()) {
            (Some(more), Some(last)) => *last += &format!(" {more}"),
            _ => lines.push(line.trim().to_owned()),
        }
    }
    lines
}

/// The part of a line behind its key.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(key)?;
    let (between, value) = rest.split_once(':')?;
    between.is_empty().then_some(value.trim())
}

type Names = Vec<String>;

fn names(text: &str) -> Names {
    text.split_whitespace().map(str::to_owned).collect()
}

fn model(name: &str) -> Option<Names> {
    let key = format!("model {name}");
    lines().iter().find_map(|line| value(line, &key).map(names))
}

/// Vendor and features of a host of the fixture.
fn host(name: &str) -> (String, Names) {
    let prefix = format!("host {name} ");
    let lines = lines();
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix(&prefix))
        .expect("a host");
    let (vendor, features) = line.split_once(':').expect("a colon");
    let mut all = Names::new();
    for name in features.split_whitespace() {
        match name.strip_prefix('@') {
            Some(of) => all.extend(model(of).expect("a model")),
            None => all.push(name.to_owned()),
        }
    }
    (vendor.to_owned(), all)
}

/// Where a bit of this name stands, whatever its kind.
fn spot(name: &str) -> Option<(u32, u32, limosa_compat::Register, u8)> {
    words().find_map(|word| {
        let Registers::Cpuid {
            leaves,
            subleaves,
            registers,
        } = word.registers
        else {
            return None;
        };
        let field = word
            .fields
            .iter()
            .find(|field| field.bits == 1 && field.name == name)?;
        Some((leaves.0, subleaves.0, registers[0], field.low))
    })
}

/// A processor of these features, with Intel's places for their state.
fn processor(vendor: &str, features: &[String]) -> Processor {
    let letters: &[u8; 12] = match vendor {
        "Intel" | "any" => b"GenuineIntel",
        "AMD" => b"AuthenticAMD",
        _ => b"UnknownMaker",
    };
    let word = |at: usize| u32::from_le_bytes(letters[at..at + 4].try_into().unwrap());
    let entry = |leaf, subleaf| CpuidEntry {
        leaf,
        subleaf,
        ..CpuidEntry::default()
    };
    let mut entries = vec![
        CpuidEntry {
            eax: 0xd,
            ebx: word(0),
            edx: word(4),
            ecx: word(8),
            ..entry(0, 0)
        },
        CpuidEntry {
            eax: 0x8000_0008,
            ..entry(0x8000_0000, 0)
        },
    ];
    for name in features {
        let (leaf, subleaf, register, bit) = spot(name).unwrap_or_else(|| panic!("{name}"));
        let known = entries
            .iter()
            .position(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf));
        let at = known.unwrap_or_else(|| {
            entries.push(entry(leaf, subleaf));
            entries.len() - 1
        });
        *entries[at].register_mut(register) |= 1 << bit;
    }
    let shows = |name: &str| features.iter().any(|feature| feature == name);
    if shows("xsave") {
        let (xcr0, size) = if shows("avx") {
            (0b111, 0x340)
        } else {
            (0b11, 0x240)
        };
        entries.push(CpuidEntry {
            eax: xcr0,
            ecx: size,
            ..entry(0xd, 0)
        });
        if shows("avx") {
            entries.push(CpuidEntry {
                eax: 0x100,
                ebx: 0x240,
                ..entry(0xd, 2)
            });
        }
    }
    Processor::from(CpuidTable::new(entries).unwrap())
}

fn fits(guest: &Processor, host: &Processor) -> bool {
    let guest = GuestCpu {
        processor: guest.clone(),
        tsc_khz: 0,
        vcpu_count: 1,
        baseline: "off".into(),
    };
    judge(&guest, &HostCpu::plain(host.clone(), 0, TscScaling::No)).fits()
}

/// A wish of the fixture.
#[derive(Default)]
struct Wish {
    vendor: String,
    model: String,
    strictness: String,
    require: Names,
    force: Names,
    optional: Names,
    disable: Names,
    forbid: Names,
    expect: String,
}

fn wish(lines: &[String]) -> Wish {
    let text = |key: &str| {
        lines
            .iter()
            .find_map(|line| value(line, key))
            .unwrap_or_default()
    };
    Wish {
        vendor: text("vendor").into(),
        model: text("model").into(),
        strictness: text("match").into(),
        require: names(text("require")),
        force: names(text("force")),
        optional: names(text("optional")),
        disable: names(text("disable")),
        forbid: names(text("forbid")),
        expect: text("expect").into(),
    }
}

fn without(names: &[String], lists: &[&Names]) -> Names {
    let kept = names
        .iter()
        .filter(|name| lists.iter().all(|list| !list.contains(name)));
    kept.cloned().collect()
}

/// libvirt's answer, by our rules.
fn answer(host_vendor: &str, host_features: &[String], wish: &Wish) -> &'static str {
    let Some(model) = model(&wish.model) else {
        return "error";
    };
    if wish.require.iter().any(|name| spot(name).is_none()) {
        return "error";
    }
    if wish.strictness.starts_with("arch:") {
        // Whoever offers another architecture has no CPUID to be judged.
        return "incompatible";
    }
    let offered = processor(host_vendor, host_features);
    if wish.forbid.iter().any(|name| has(&offered, name)) {
        return "incompatible";
    }
    let mut need = model;
    need.extend(wish.require.iter().cloned());
    let need = without(&need, &[&wish.force, &wish.optional, &wish.disable]);
    let vendor = if wish.vendor == "any" {
        host_vendor
    } else {
        &wish.vendor
    };
    let needed = processor(vendor, &need);
    if !fits(&needed, &offered) {
        return "incompatible";
    }
    let rest = without(host_features, &[&wish.optional, &wish.disable, &wish.force]);
    match fits(&processor(host_vendor, &rest), &needed) {
        true => "identical",
        false if wish.strictness == "strict" => "incompatible",
        false => "superset",
    }
}

/// The blocks of the fixture that begin with this word.
fn blocks(first: &str) -> Vec<Vec<String>> {
    let lines = lines();
    let blocks = lines
        .split(String::is_empty)
        .filter(|block| block.first().is_some_and(|line| line.starts_with(first)));
    blocks.map(<[String]>::to_vec).collect()
}

#[test]
fn its_thirty_five_comparisons_have_its_answers() {
    let blocks = blocks("compare ");
    assert_eq!(blocks.len(), 35);
    for block in blocks {
        let wish = wish(&block);
        let title = block[0].strip_prefix("compare ").unwrap();
        let (name, _) = title.split_once(" with ").unwrap();
        let (vendor, features) = host(name);
        assert_eq!(answer(&vendor, &features, &wish), wish.expect, "{title}");
    }
}

#[test]
fn its_fifteen_baselines_have_its_features() {
    let blocks = blocks("baseline ");
    assert_eq!(blocks.len(), 15);
    for block in blocks {
        let title = &block[0];
        let inputs = block.iter().filter_map(|line| line.strip_prefix("input "));
        let pool: Vec<_> = inputs
            .map(|line| {
                let (vendor, features) = line.split_once(':').unwrap();
                // A host that names no vendor goes with those that do.
                let vendor = match vendor {
                    "any" if title.contains("some-vendors") => "AMD",
                    vendor => vendor,
                };
                processor(vendor, &names(features))
            })
            .collect();
        let expected = block.iter().find_map(|line| value(line, "expect")).unwrap();
        let migratable = title.ends_with("migratable");
        let common = if migratable {
            baseline(Mode::Common, &pool)
                .ok()
                .map(|shaped| shaped.processor)
        } else {
            intersect(&pool).ok()
        };
        let Some(common) = common else {
            assert_eq!(expected, "error", "{title}");
            continue;
        };
        // The rest mirrors the guest's own state, or belongs to the virtual machine.
        let mut expected: Vec<_> = expected
            .split(' ')
            .filter(|name| is_feature(name))
            .collect();
        if migratable {
            let hidden: Vec<_> = stays().iter().chain(not_in_common()).collect();
            expected.retain(|name| hidden.iter().all(|row| row.name != *name));
            assert!(
                !has(&common, "invtsc"),
                "libvirt's one feature that does not migrate"
            );
        }
        assert_eq!(feature_names(&common), expected, "{title}");
        for member in &pool {
            assert!(fits(&common, member), "{title}");
        }
    }
}

#[test]
fn every_name_of_the_fixture_is_a_field_of_the_rules() {
    let kinds = words().flat_map(|word| word.fields).map(|field| field.kind);
    assert!(kinds.filter(|kind| *kind == Kind::Feature).count() > 300);
    for name in ["penryn", "haswell", "opteron-g3"] {
        for feature in model(name).expect("a model") {
            assert!(spot(&feature).is_some(), "{feature}");
        }
    }
    assert_eq!(spot("bogus"), None);
}
