//! The command `sockets`: which settings of bare sockets are the fastest here, found one setting
//! after the other, with the candidates of each interleaved.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::args::{Backing, OutputArgs, Transport};
use crate::command_run::{USAGE, heed_signals};
use crate::link::{End, Link, LinkFacts, Rate};
use crate::orders::stream_count;
use crate::output::Words;
use crate::reference::settings::congestion_controls;
use crate::reference::{Carriage, Landing, Sending, SocketSettings};
use crate::report::Spread;
use crate::run::gib_s;
use crate::units::{self, Streams, show_bytes};

/// The schema's name and version.
const SCHEMA: &str = "limosa.sockets/1";
/// Buffers to try, besides the system's own sizing.
const BUFFERS: [usize; 4] = [256 << 10, 1 << 20, 2 << 20, 4 << 20];
/// Bytes a call to try.
const CALLS: [usize; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

/// Most bytes to carry: more than any host has memory to receive them in.
const BYTES_MAX: u64 = 1 << 40;

/// Options of `sockets`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SocketsArgs {
    /// Loopback TCP or a Unix socket.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// Bytes to carry each time.
    #[arg(long, value_parser = units::bytes, default_value = "1GiB")]
    bytes: u64,
    /// Connections, 1 to 64; auto is what `run` has.
    #[arg(long, value_name = "auto|N", value_parser = units::streams, default_value = "auto")]
    streams: Streams,
    /// What the receiving memory is made of.
    #[arg(long, value_enum, default_value_t = Backing::Anonymous)]
    backing: Backing,
    /// Populate the receiving memory before it listens.
    #[arg(long)]
    populated: bool,
    /// Hold TCP to a rate both ways, as `run --link` does.
    #[arg(long, value_name = "RATE")]
    link: Option<Rate>,
    /// Times that each setting is measured (1 to 1000).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// One setting and its candidates.
struct Choice {
    name: &'static str,
    candidates: Vec<SocketSettings>,
}

/// What a candidate did.
#[derive(Debug, Clone, Serialize)]
struct Found {
    choice: &'static str,
    settings: SocketSettings,
    throughput_gib_s: Spread,
}

/// What the command writes.
#[derive(Debug, Serialize)]
struct SearchJson {
    schema: &'static str,
    transport: String,
    link: Option<LinkFacts>,
    bytes: u64,
    streams: u16,
    populated: bool,
    repeat: u32,
    best: SocketSettings,
    found: Vec<Found>,
}

/// Searches, and says what it found.
pub(crate) fn run(args: &SocketsArgs) -> Result<ExitCode> {
    if args.link.is_some() && args.transport == Transport::Unix {
        eprintln!("migrate-bench: --link shapes TCP: leave out --transport unix, or --link");
        return Ok(ExitCode::from(USAGE));
    }
    if args.bytes == 0 || args.bytes > BYTES_MAX {
        eprintln!(
            "migrate-bench: --bytes {}: give 1 byte to {}, better 64MiB or more",
            args.bytes,
            show_bytes(BYTES_MAX)
        );
        return Ok(ExitCode::from(USAGE));
    }
    if let Err(error) = args.output.check(&[]) {
        eprintln!("migrate-bench: {error}");
        return Ok(ExitCode::from(USAGE));
    }
    let mut search = Search::new(args)?;
    let mut best = SocketSettings::best(args.transport);
    let mut found = Vec::new();
    for choice in choices(args) {
        let choice = choice(&best);
        let tried = search.try_all(&choice)?;
        let fastest = tried.iter().max_by(|a, b| {
            let [a, b] = [a, b].map(|found| found.throughput_gib_s.median);
            a.total_cmp(&b)
        });
        best = fastest.map_or(best, |found| found.settings.clone());
        found.extend(tried);
    }
    let report = SearchJson {
        schema: SCHEMA,
        transport: args.transport.to_string(),
        link: search.link.facts(),
        bytes: args.bytes,
        streams: search.carriage.streams,
        populated: args.populated,
        repeat: args.repeat,
        best,
        found,
    };
    let words = Words {
        table: show(&report),
        errors: String::new(),
    };
    args.output.write(&report, &words)?;
    Ok(ExitCode::SUCCESS)
}

/// Candidates for one setting, beside the best of the others.
type Candidates = Box<dyn Fn(&SocketSettings) -> Choice>;

/// The settings in the order in which they are chosen.
fn choices(args: &SocketsArgs) -> Vec<Candidates> {
    let mut choices: Vec<Candidates> = Vec::new();
    if args.transport == Transport::Tcp {
        let names = std::iter::once(None).chain(congestion_controls().into_iter().map(Some));
        let names: Vec<Option<String>> = names.collect();
        choices.push(choice("congestion control", names, |settings, name| {
            settings.congestion = name;
        }));
    }
    let buffers = || std::iter::once(None).chain(BUFFERS.map(Some)).collect();
    choices.push(choice("receive buffer", buffers(), |settings, bytes| {
        settings.receive_buffer_bytes = bytes;
    }));
    choices.push(choice("send buffer", buffers(), |settings, bytes| {
        settings.send_buffer_bytes = bytes;
    }));
    choices.push(choice("bytes a call", CALLS.into(), |settings, bytes| {
        settings.call_bytes = bytes;
    }));
    let sendings = vec![Sending::Copied, Sending::Spliced];
    choices.push(choice("out of memory", sendings, |settings, sending| {
        settings.sending = sending;
    }));
    if !args.populated {
        let landings = vec![Landing::Faults, Landing::UnitsAhead];
        choices.push(choice("fresh memory", landings, |settings, landing| {
            settings.landing = landing;
        }));
    }
    choices
}

fn choice<T: Clone + 'static>(
    name: &'static str,
    values: Vec<T>,
    set: fn(&mut SocketSettings, T),
) -> Candidates {
    Box::new(move |best| Choice {
        name,
        candidates: values
            .iter()
            .map(|value| {
                let mut settings = best.clone();
                set(&mut settings, value.clone());
                settings
            })
            .collect(),
    })
}

struct Search {
    link: Link,
    carriage: Carriage,
    transport: Transport,
    repeat: u32,
    folder: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Search {
    fn new(args: &SocketsArgs) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("migrate-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("a folder for the sockets")?;
        Ok(Self {
            link: args.link.map_or(Link::Unshaped, Link::shaped),
            carriage: Carriage {
                streams: stream_count(args.streams),
                bytes: args.bytes,
                backing: args.backing.to_string(),
                populate: args.populated,
                settings: SocketSettings::best(args.transport),
            },
            transport: args.transport,
            repeat: args.repeat,
            folder,
            interrupted: heed_signals()?,
        })
    }

    /// Each candidate as often as asked, in turns.
    fn try_all(&mut self, choice: &Choice) -> Result<Vec<Found>> {
        let mut times = vec![Vec::new(); choice.candidates.len()];
        for _ in 0..self.repeat {
            for (settings, times) in choice.candidates.iter().zip(&mut times) {
                anyhow::ensure!(
                    !self.interrupted.load(Ordering::Acquire),
                    "interrupted before all settings were tried"
                );
                times.push(self.carry(settings)?);
            }
        }
        let tried = choice.candidates.iter().zip(times);
        let bytes = self.carriage.bytes;
        let found = tried.filter_map(|(settings, times)| {
            Some(Found {
                choice: choice.name,
                settings: settings.clone(),
                throughput_gib_s: Spread::of(times.into_iter().map(|ms| gib_s(bytes, ms)))?,
            })
        });
        Ok(found.collect())
    }

    fn carry(&mut self, settings: &SocketSettings) -> Result<f64> {
        let carriage = Carriage {
            settings: settings.clone(),
            ..self.carriage.clone()
        };
        let endpoint = match self.transport {
            Transport::Tcp => self.link.listen_at(End::Target),
            Transport::Unix => format!("unix:{}", self.folder.join("sockets.sock").display()),
        };
        let workers = Carriage::workers(&self.link, None)?;
        carriage.carry(&mut self.link, workers, endpoint, &self.interrupted, None)
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn show(report: &SearchJson) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "settings", "GiB/s: median (least to most)"]);
    for found in &report.found {
        let spread = found.throughput_gib_s;
        let row = [
            found.choice.into(),
            found.settings.words(),
            format!(
                "{:.2} ({:.2} to {:.2})",
                spread.median, spread.min, spread.max
            ),
        ];
        table.add_row(row);
    }
    format!(
        "{} over {}, {} streams, {} times each\n{table}\nfastest: {}",
        show_bytes(report.bytes),
        report.transport,
        report.streams,
        report.repeat,
        report.best.words()
    )
}
