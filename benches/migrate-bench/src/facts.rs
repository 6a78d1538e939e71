//! The machine that a report is about.

use std::fs;

use crate::report::HostFacts;

/// Reads them from the kernel's files; what can't be read is said to be unknown.
pub(crate) fn host_facts() -> HostFacts {
    HostFacts {
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        lps: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
        kvm: kvm(),
        memory: field("/proc/meminfo", "MemTotal")
            .and_then(|text| kib(&text))
            .unwrap_or(0),
    }
}

/// Which KVM this is and how it maps guest memory.
fn kvm() -> String {
    let module = ["kvm_intel", "kvm_amd", "kvm_pvm"]
        .into_iter()
        .find(|name| fs::metadata(format!("/sys/module/{name}")).is_ok());
    let Some(module) = module else {
        return "no KVM module".into();
    };
    let nested_paging = ["ept", "npt"]
        .into_iter()
        .filter_map(|name| read(&format!("/sys/module/{module}/parameters/{name}")))
        .any(|value| value == "Y" || value == "1");
    let mmu = if nested_paging {
        "nested paging"
    } else {
        "shadow paging"
    };
    format!("{module}, {mmu}")
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path)?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kib(text: &str) -> Option<u64> {
    Some(text.split(' ').next()?.parse::<u64>().ok()? << 10)
}

fn unknown() -> String {
    "unknown".into()
}
