//! `compat compare`: the verdict on one guest and one host, with every reason.

use std::process::ExitCode;

use anyhow::Result;
use limosa_compat::{Judgement, Mismatch, Place, judge};
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{CompareArgs, Plain};
use super::content::{Content, Loaded};
use crate::command_run::REFUSED;
use crate::refusal::{self, Reason};

/// The schema's name and version.
const SCHEMA: &str = "limosa.verdict/1";

pub(super) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let read = super::load(&args.guest).and_then(|guest| Ok((guest, super::load(&args.host)?)));
    let (guest, host) = match read {
        Ok(both) => both,
        Err(status) => return Ok(status),
    };
    let judgement = judge_files(&guest, &host);
    let text = match args.format {
        Plain::Table => table(&judgement, &guest.name, &host.name),
        Plain::Json => {
            let verdict = verdict(&judgement, &guest.name, &host.name);
            serde_json::to_string_pretty(&verdict)? + "\n"
        }
    };
    crate::output::print(&text)?;
    Ok(if judgement.fits() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

fn judge_files(guest: &Loaded, host: &Loaded) -> Judgement {
    let mut asked = guest.content.clone().into_guest();
    let host_cpu = host.content.clone().into_host();
    let has_clock = matches!(guest.content, Content::Guest(_) | Content::Host(_));
    if !has_clock {
        // It is started where its clock is right.
        asked.tsc_khz = host_cpu.tsc_khz;
    } else if !matches!(host.content, Content::Host(_)) && asked.tsc_khz != 0 {
        eprintln!(
            "note: {} does not state the frequency of its TSC: not compared",
            host.name
        );
        asked.tsc_khz = 0;
    }
    judge(&asked, &host_cpu)
}

fn table(judgement: &Judgement, guest: &str, host: &str) -> String {
    let mut text = if judgement.fits() {
        format!("{guest} fits {host}\n")
    } else {
        let count = judgement.mismatches.len();
        let reasons = if count == 1 { "reason" } else { "reasons" };
        format!("{guest} does not fit {host}, {count} {reasons}:\n")
    };
    let reasons = judgement.mismatches.iter().map(|mismatch| Reason {
        what: mismatch.to_string(),
        remedy: mismatch.remedy.to_string(),
    });
    let reasons: Vec<Reason> = reasons.collect();
    text += &refusal::lines(&reasons);
    for warning in &judgement.warnings {
        text += &format!("  warning: {warning}\n");
    }
    text
}

/// The verdict as JSON.
#[derive(Serialize)]
struct Verdict<'a> {
    schema: &'static str,
    guest: &'a str,
    host: &'a str,
    fits: bool,
    mismatches: Vec<Value>,
    warnings: Vec<Value>,
}

fn verdict<'a>(judgement: &Judgement, guest: &'a str, host: &'a str) -> Verdict<'a> {
    let warnings = judgement.warnings.iter().map(|warning| {
        let mut value = mismatch(&warning.mismatch);
        value["forgiven"] = warning.forgiven.into();
        value
    });
    Verdict {
        schema: SCHEMA,
        guest,
        host,
        fits: judgement.fits(),
        mismatches: judgement.mismatches.iter().map(mismatch).collect(),
        warnings: warnings.collect(),
    }
}

fn mismatch(found: &Mismatch) -> Value {
    let hex = |value: u64| format!("{value:#x}");
    let values = |guest: u64, host: u64| match found.place {
        Place::Tsc => (json!(guest), json!(host)),
        _ => (json!(hex(guest)), json!(hex(host))),
    };
    let (guest, host) = values(found.guest, found.host);
    json!({
        "place": place(found.place),
        "name": found.name,
        "kind": format!("{:?}", found.kind).to_lowercase(),
        "rule": found.rule.map(|rule| rule.to_string()),
        "guest": guest,
        "host": host,
        "what": found.to_string(),
        "remedy": found.remedy,
    })
}

fn place(place: Place) -> Value {
    match place {
        Place::Vendor => json!({"vendor": true}),
        Place::Tsc => json!({"tsc": true}),
        Place::Cpuid {
            leaf,
            subleaf,
            register,
            bit,
        } => json!({
            "leaf": format!("{leaf:#x}"),
            "subleaf": format!("{subleaf:#x}"),
            "register": register.to_string(),
            "bit": bit,
        }),
        Place::Msr { index, bit } => json!({"msr": format!("{index:#x}"), "bit": bit}),
    }
}
