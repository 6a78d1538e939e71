//! Files that describe processors, of either form: our JSON, or lines `cpuid …` and `msr …`. What
//! can't be read in full is not read at all.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use limosa_compat::text::{self, TextError};
use limosa_compat::{
    ARCH_CAPABILITIES, GuestCpu, HostCpu, Mode, MsrTable, Processor, Register, TscScaling, shape,
};

use super::json;
use crate::protocol::ClockOrder;

/// Longest file that is read: far above what a table's limits allow.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// What a host can give.
    Host(HostCpu),
    /// What a guest was promised.
    Guest(GuestCpu),
    /// What guests are to be given.
    Baseline { name: String, processor: Processor },
    /// A bare table.
    Processor(Processor),
}

impl Content {
    /// The processor as a guest has it or, of a host, as it gives it to new guests.
    pub(crate) fn processor(&self) -> &Processor {
        match self {
            Self::Host(host) => &host.offer,
            Self::Guest(guest) => &guest.processor,
            Self::Baseline { processor, .. } | Self::Processor(processor) => processor,
        }
    }

    /// How time runs there; only of a host it is known.
    pub(crate) fn clock(&self) -> Option<ClockOrder> {
        match self {
            Self::Host(host) => ClockOrder::of(host),
            Self::Guest(_) | Self::Baseline { .. } | Self::Processor(_) => None,
        }
    }

    /// The guest that sees this; of a host, a guest that was started there in mode `off`.
    pub(crate) fn into_guest(self) -> GuestCpu {
        let guest = |processor, tsc_khz, baseline: &str| GuestCpu {
            processor,
            tsc_khz,
            vcpu_count: 1,
            baseline: baseline.into(),
        };
        match self {
            Self::Guest(guest) => guest,
            Self::Host(host) => {
                // Of a vendor without rules, nothing is known to travel; the verdict says so.
                let travels = shape(Mode::Off, &host.offer, &[]).map(|shaped| shaped.processor);
                guest(travels.unwrap_or(host.offer), host.tsc_khz, "off")
            }
            Self::Baseline { name, processor } => guest(processor, 0, &name),
            Self::Processor(processor) => guest(processor, 0, "off"),
        }
    }

    /// The host that gives and takes this. Only of a host is the clock known: 0 else.
    pub(crate) fn into_host(self) -> HostCpu {
        match self {
            Self::Host(host) => host,
            Self::Guest(GuestCpu { processor, .. })
            | Self::Baseline { processor, .. }
            | Self::Processor(processor) => HostCpu::plain(processor, 0, TscScaling::No),
        }
    }
}

/// A file that was read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// What to call it.
    pub(crate) name: String,
    pub(crate) content: Content,
    /// What had to be assumed, a line each.
    pub(crate) notes: Vec<String>,
}

/// Reads a file, or standard input for `-`. The error is one line: file, line, reason.
pub(crate) fn load(path: &Path) -> Result<Loaded, String> {
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let text = read(path).map_err(|reason| format!("{name}: {reason}"))?;
    let (content, left_out) = parse(&text).map_err(|reason| format!("{name}: {reason}"))?;
    let mut loaded = Loaded {
        notes: note_of_left_out(&name, &left_out).into_iter().collect(),
        name,
        content,
    };
    loaded.complete();
    Ok(loaded)
}

/// Most registers that a note names.
const NAMED_MAX: usize = 8;

/// What is said of registers that were not taken.
fn note_of_left_out(name: &str, left_out: &[u32]) -> Option<String> {
    let first = left_out.iter().take(NAMED_MAX);
    let first: Vec<_> = first.map(|index| format!("{index:#x}")).collect();
    let more = match left_out.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!first.is_empty()).then(|| {
        format!(
            "{name}: MSR {}{more} left out: no rule knows them; where they state features write \
             `feature-msr`",
            first.join(", ")
        )
    })
}

impl Loaded {
    /// A bare table of a tool that reads no registers lacks what its CPUID says is there.
    fn complete(&mut self) {
        let Content::Processor(processor) = &mut self.content else {
            return;
        };
        let shown = processor.cpuid.register(7, 0, Register::Edx) >> 29 & 1 == 1;
        if !shown || processor.msrs.get(ARCH_CAPABILITIES).is_some() {
            return;
        }
        let mut values = processor.msrs.values().to_vec();
        values.push((ARCH_CAPABILITIES, 0));
        if let Ok(msrs) = MsrTable::new(values) {
            processor.msrs = msrs;
            self.notes.push(format!(
                "{}: arch-capabilities is shown but MSR {ARCH_CAPABILITIES:#x} is not listed: \
                 taken as 0",
                self.name
            ));
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    /// Standard input ends once for the whole process.
    static STDIN_IS_READ: AtomicBool = AtomicBool::new(false);
    let mut bytes = Vec::new();
    let from: Result<Box<dyn Read>, _> = if path == Path::new("-") {
        if STDIN_IS_READ.swap(true, Ordering::Relaxed) {
            return Err("it can be read only once: write `-` for one file, name the others".into());
        }
        Ok(Box::new(std::io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    from.and_then(|from| from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("can't be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("it is longer than 4 MiB: no description of a processor".into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let lines = error.as_bytes().iter().take(good);
        let line = 1 + lines.filter(|byte| **byte == b'\n').count();
        format!("line {line}: it is no text")
    })
}

/// What a text says, and the registers that are left out of it.
fn parse(text: &str) -> Result<(Content, Vec<u32>), String> {
    // Some editors begin a text with the mark of its byte order.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        return json::parse(text).map(|content| (content, Vec::new()));
    }
    match text::read(text) {
        Ok((processor, left_out)) => Ok((Content::Processor(processor), left_out)),
        Err(TextError::Table(error)) => Err(format!("line {}: {error}", wrong_line(text))),
        Err(error) => Err(error.to_string()),
    }
}

/// The line at which a text whose lines are good, each by itself, stops being a table.
fn wrong_line(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let is_table = |count: usize| {
        let first = lines.get(..count).unwrap_or_default().join("\n");
        !matches!(text::parse(&first), Err(TextError::Table(_)))
    };
    // Whatever is added to a broken table, it stays one.
    let (mut good, mut broken) = (0, lines.len());
    while broken - good > 1 {
        let middle = good.midpoint(broken);
        if is_table(middle) {
            good = middle;
        } else {
            broken = middle;
        }
    }
    broken
}
