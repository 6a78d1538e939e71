//! `compat show`: one processor in the form that was asked for.

use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Table, presets};
use limosa_compat::{CpuidTable, HostCpu, Processor, Register, TscScaling, feature_names, text};
use limosa_shim::{HostSpec, KvmHost};

use super::args::{Format, ShowArgs};
use super::content::Content;
use super::json;

/// Widest line of names.
const COLUMNS: usize = 100;

pub(super) fn run(args: &ShowArgs) -> Result<ExitCode> {
    let content = match &args.file {
        Some(path) => match super::load(path) {
            Ok(loaded) => loaded.content,
            Err(status) => return Ok(status),
        },
        None => Content::Host(KvmHost::new(HostSpec::default())?.cpu().clone()),
    };
    crate::output::print(&format(&content, args.format)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The text in a form, with its last newline.
pub(super) fn format(content: &Content, format: Format) -> Result<String> {
    Ok(match format {
        Format::Table => table(content),
        Format::Json => json::print(content)? + "\n",
        Format::Cpuid => text::print(content.processor()),
        Format::Features => {
            let names = feature_names(content.processor()).into_iter();
            names.map(|name| format!("{name}\n")).collect()
        }
    })
}

fn table(content: &Content) -> String {
    let processor = content.processor();
    let mut text = heading(content);
    text += &format!("{}\n", registers(processor));
    let names = feature_names(processor);
    text += &format!("{} features:\n{}", names.len(), wrapped(&names));
    if let Content::Host(host) = content {
        let offered = |name: &&str| !names.contains(name);
        let more = feature_names(&host.accept).into_iter().filter(offered);
        let more: Vec<&str> = more.collect();
        if !more.is_empty() {
            text += &format!(
                "an incoming guest may also have {}:\n{}",
                more.len(),
                wrapped(&more)
            );
        }
    }
    text
}

fn heading(content: &Content) -> String {
    let cpuid = &content.processor().cpuid;
    let vendor = match cpuid.vendor() {
        Ok(vendor) => vendor.to_string(),
        Err(unknown) => unknown.to_string(),
    };
    let mut text = match content {
        Content::Host(host) => host_line(host),
        Content::Guest(guest) => format!(
            "a guest of {} vCPUs, baseline {}, TSC {}\n",
            guest.vcpu_count,
            guest.baseline,
            clock(guest.tsc_khz)
        ),
        Content::Baseline { name, .. } => format!("baseline {name}\n"),
        Content::Processor(_) => String::new(),
    };
    text += &format!("{vendor}, {}", signature(cpuid));
    let brand = brand(cpuid);
    if !brand.is_empty() {
        text += &format!(", {brand}");
    }
    text += "\n";
    text
}

fn host_line(host: &HostCpu) -> String {
    let scaling = match host.tsc_scaling {
        TscScaling::Yes => "can be scaled",
        TscScaling::No => "can't be scaled",
    };
    let about = if host.about.is_empty() {
        String::new()
    } else {
        format!(" ({})", host.about)
    };
    format!("a host{about}, TSC {}, {scaling}\n", clock(host.tsc_khz))
}

fn clock(khz: u32) -> String {
    match khz {
        0 => "unknown".into(),
        khz => format!("{khz} kHz"),
    }
}

/// Family, model and stepping as Linux counts them.
fn signature(cpuid: &CpuidTable) -> String {
    let eax = cpuid.register(1, 0, Register::Eax);
    let base = eax >> 8 & 0xf;
    let family = base + if base == 0xf { eax >> 20 & 0xff } else { 0 };
    let high = if base == 0xf || base == 6 {
        eax >> 12 & 0xf0
    } else {
        0
    };
    let model = high | eax >> 4 & 0xf;
    format!("family {family}, model {model}, stepping {}", eax & 0xf)
}

/// The brand string; empty where there is none.
fn brand(cpuid: &CpuidTable) -> String {
    let leaves = 0x8000_0002..=0x8000_0004;
    let words = leaves
        .filter_map(|leaf| cpuid.find(leaf, 0))
        .flat_map(|entry| Register::ALL.map(|register| entry.register(register)));
    let bytes = words.flat_map(u32::to_le_bytes);
    let letters = bytes.take_while(|byte| *byte != 0);
    let letters = letters.filter(|byte| (b' '..=b'~').contains(byte));
    let text: String = letters.map(char::from).collect();
    text.trim().to_owned()
}

fn registers(processor: &Processor) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["CPUID", "eax", "ebx", "ecx", "edx"]);
    for entry in processor.cpuid.entries() {
        let mut row = vec![format!("{:#x}.{:#x}", entry.leaf, entry.subleaf)];
        row.extend(Register::ALL.map(|register| format!("{:08x}", entry.register(register))));
        table.add_row(row);
    }
    for (index, value) in processor.msrs.values() {
        let (high, low) = (value >> 32, value & 0xffff_ffff);
        let high = if high == 0 {
            String::new()
        } else {
            format!("{high:08x}")
        };
        table.add_row([
            format!("MSR {index:#x}"),
            format!("{low:08x}"),
            String::new(),
            String::new(),
            high,
        ]);
    }
    table
}

/// Names side by side, indented, in lines that are not too wide.
pub(super) fn wrapped(names: &[&str]) -> String {
    let (mut text, mut line) = (String::new(), String::new());
    for name in names {
        if !line.is_empty() && 2 + line.len() + 1 + name.len() > COLUMNS {
            text += &format!("  {line}\n");
            line.clear();
        }
        line += if line.is_empty() { "" } else { " " };
        line += name;
    }
    if !line.is_empty() {
        text += &format!("  {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_lines() {
        let names = ["abcdefghi"; 25];
        let text = wrapped(&names);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.len() <= COLUMNS));
        assert_eq!(text.split_whitespace().count(), 25);
        assert_eq!(wrapped(&[]), "");
    }
}
