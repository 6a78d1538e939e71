//! The command line: what may be asked for, with units, ranges and defaults.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use limosa::{Codec, Endpoint};

use crate::compare::CompareArgs;
use crate::compat::{CompatCommand, CpuArgs};
use crate::gate::{GateArgs, InstructionsArgs, KernelArgs};
use crate::link::Rate;
use crate::matrix::MatrixArgs;
use crate::reference::SocketsArgs;
use crate::rivals::{GuardArgs, RivalsArgs};
use crate::units::{self, Part, Streams};

/// Migrates a running guest and reports what it measured.
///
/// Without a subcommand: `run` with its defaults, a 1 GiB guest that keeps writing while it moves
/// between two processes of this host.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Options of a link that mean something to a `target` only when the guest is to move on.
const ONWARD_OPTIONS: [&str; 7] = [
    "streams",
    "codec",
    "downtime",
    "on_stall",
    "bandwidth",
    "plot",
    "timeline",
];

/// Reads the command line of this process; wrong usage ends it with status 2.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line with the rules that hold between options of different groups.
fn command() -> clap::Command {
    let command = Cli::command().mut_subcommand("target", |target| {
        ONWARD_OPTIONS.iter().fold(target, |target, option| {
            target.mut_arg(option, |arg| {
                arg.requires("onward").help_heading("With --onward")
            })
        })
    });
    command.mut_subcommand("rivals", |rivals| {
        rivals
            .mut_arg("memory", |arg| arg.default_value("2GiB"))
            .mut_arg("dirty_rate", |arg| arg.default_value("0"))
    })
}

/// What follows `migrate-bench run`, read as a command line is.
pub(crate) fn parse_run(words: &[String]) -> Result<RunArgs, clap::Error> {
    let line = ["migrate-bench", "run"].into_iter();
    let line = line.chain(words.iter().map(String::as_str));
    let matches = command().try_get_matches_from(line)?;
    match Cli::from_arg_matches(&matches)?.command {
        Some(Command::Run(args)) => Ok(*args),
        _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
    }
}

/// An option of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunOption {
    /// Without its dashes.
    pub(crate) name: String,
    pub(crate) takes: Takes,
}

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Value,
    Nothing,
}

/// All options of `run`.
pub(crate) fn run_options() -> Vec<RunOption> {
    let command = command();
    let args = command.find_subcommand("run").into_iter();
    let named = args
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| {
            let takes = match arg.get_action().takes_values() {
                true => Takes::Value,
                false => Takes::Nothing,
            };
            let name = arg.get_long()?.to_owned();
            Some(RunOption { name, takes })
        });
    named.collect()
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Migrate between two child processes of this host and report.
    Run(Box<RunArgs>),
    /// Boot a guest here and migrate it to a target that listens elsewhere.
    Source(Box<SourceArgs>),
    /// Wait for one guest, take it in and let it run.
    Target(Box<TargetArgs>),
    /// Run each scenario of a file, which names options of `run` with lists of values, and show one
    /// table of all.
    Matrix(MatrixArgs),
    /// Move one guest by this engine and by an installed QEMU in turn, and compare.
    Rivals(Box<RivalsArgs>),
    /// Find the fastest settings of bare sockets here, the yardstick beside each `run`.
    Sockets(SocketsArgs),
    /// Which guest fits which host: processors as files (JSON or `.cpuid` text, `-` for standard
    /// input), what hosts have in common, baselines.
    #[command(subcommand)]
    Compat(CompatCommand),
    /// Compare two reports of `run --json`, figure by figure, and say which differences are more
    /// than chance.
    Compare(CompareArgs),
    /// Measure page work beside a baseline, and fail where it has become worse.
    Gate(GateArgs),
    /// Count the instructions of page work on one thread and on many, with valgrind.
    Instructions(InstructionsArgs),
    /// Write the guest's program as a PVH ELF: another VMM (`qemu -kernel FILE`) runs it too.
    Payload(Box<PayloadArgs>),
    /// One host of a `run`: takes commands on standard input (used by `run` itself).
    #[command(hide = true)]
    Worker {
        /// Threads that work on all of memory.
        #[arg(long)]
        threads: Option<u16>,
    },
    /// Does one kernel's work and nothing else (used by `gate` itself).
    #[command(hide = true)]
    Kernel(KernelArgs),
    /// Becomes another program that dies with us (used by `rivals` itself).
    #[command(hide = true)]
    Guard(GuardArgs),
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    #[command(flatten)]
    pub(crate) cpu: CpuArgs,
    /// The target pretends that it offers what FILE says; as `--as-host` does for the source.
    #[arg(long, value_name = "FILE")]
    pub(crate) as_target: Option<PathBuf>,
    /// Loopback TCP or a Unix socket.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) transport: Transport,
    /// Hold TCP to a rate both ways (1Mbit to 100Gbit; bits as 1Gbit, bytes as 125MB/s), in network
    /// namespaces where this is root, else by a relay.
    #[arg(long = "link", value_name = "RATE")]
    pub(crate) link_rate: Option<Rate>,
    /// Migrations to measure, each with fresh processes (1 to 1000).
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Times that the guest moves in each migration: 2 is there and back (1 to 10000).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) hops: u32,
    /// Populate the target's memory before it listens, and the reference's too: pages then land
    /// without faults.
    #[arg(long)]
    pub(crate) populated: bool,
    /// Leave out the bare sockets, and the speeds of memory, that are measured after each run.
    #[arg(long)]
    pub(crate) no_reference: bool,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `source`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Where the target listens: tcp://HOST:PORT or unix:PATH.
    #[arg(long, value_parser = units::endpoint)]
    pub(crate) to: Endpoint,
    /// Take orders from standard input while it runs, a line each: pause, resume, cancel,
    /// bandwidth RATE|off, downtime TIME, on-stall POLICY.
    #[arg(long)]
    pub(crate) steer: bool,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    pub(crate) cpu: CpuArgs,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `target`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Where to listen: tcp://ADDRESS:PORT or unix:PATH.
    #[arg(long, value_parser = units::endpoint, default_value = "tcp://127.0.0.1:4646")]
    pub(crate) listen: Endpoint,
    /// Which kind of guest to take in.
    #[arg(long, value_enum, default_value_t = GuestChoice::Auto)]
    pub(crate) guest: GuestChoice,
    /// Largest guest memory to accept (default: what a guest can have at all).
    #[arg(long, value_parser = units::bytes)]
    pub(crate) memory_max: Option<u64>,
    /// Memory that must be free when a guest comes, for guests that are known to use less than they
    /// have [default: all of the guest's].
    #[arg(long, value_parser = units::bytes)]
    pub(crate) room: Option<u64>,
    /// What the guest's memory is made of here.
    #[arg(long, value_enum, default_value_t = Backing::Anonymous)]
    pub(crate) backing: Backing,
    /// How the guest's writes are recorded when it moves on from here; as for `run`.
    #[arg(long, value_enum, default_value_t = TrackingChoice::Auto)]
    pub(crate) tracking: TrackingChoice,
    /// This side pretends that it takes in what FILE says, and never more than it truly can. A
    /// process guest uses no CPUID: with it, all of FILE.
    #[arg(long, value_name = "FILE")]
    pub(crate) as_host: Option<PathBuf>,
    /// Let the guest check all its memory once it runs here.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Move the guest on once it runs here (and was verified, if asked): the target listens at
    /// tcp://HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ENDPOINT", value_parser = units::endpoint)]
    pub(crate) onward: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `payload`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PayloadArgs {
    /// The file to write.
    #[arg(long, short)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
}

/// The guest and its work.
#[derive(Debug, Clone, Args)]
pub(crate) struct GuestArgs {
    /// A real KVM guest, a process that writes memory, or KVM where /dev/kvm works.
    #[arg(long, value_enum, default_value_t = GuestChoice::Auto)]
    pub(crate) guest: GuestChoice,
    /// Guest memory (32MiB up to what the host has; more where `--touched` says that the guest
    /// uses less of it).
    #[arg(long, value_parser = units::bytes, default_value = "1GiB")]
    pub(crate) memory: u64,
    /// Virtual processors (1 to 8).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(crate) vcpus: u16,
    /// What the guest fills its memory with before it moves.
    #[arg(long, value_enum, default_value_t = Fill::Random)]
    pub(crate) fill: Fill,
    /// How much of its memory the guest ever touches: a share, or a size.
    #[arg(long, value_parser = units::part, default_value = "100%")]
    pub(crate) touched: Part,
    /// Memory that the guest keeps writing; 0 for an idle guest [default: 128MiB, or a quarter of
    /// what it touches where that is less].
    #[arg(long, value_parser = units::bytes)]
    pub(crate) working_set: Option<u64>,
    /// How fast it writes there, 4 KiB a write; 0 for an idle guest.
    #[arg(long, value_parser = units::rate, default_value = "100MiB/s")]
    pub(crate) dirty_rate: u64,
    /// In which order it writes there.
    #[arg(long, value_enum, default_value_t = Pattern::Random)]
    pub(crate) pattern: Pattern,
    /// How the guest measures its own gaps: woken by a timer tick, or spinning (takes a core).
    #[arg(long, value_enum, default_value_t = Probe::Sleep)]
    pub(crate) probe: Probe,
    /// What guest memory is made of.
    #[arg(long, value_enum, default_value_t = Backing::Anonymous)]
    pub(crate) backing: Backing,
    /// How its writes are recorded while it moves: by KVM's log, by KVM's dirty ring of each vCPU
    /// (tells vCPUs apart, and takes longer to start), by page table scans, or what serves best.
    #[arg(long, value_enum, default_value_t = TrackingChoice::Auto)]
    pub(crate) tracking: TrackingChoice,
    /// Seed of the guest's contents and of its writes.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Let the guest check all its memory and counters after the last move.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Also compare a digest of all memory, source against target, taken while the guest stands
    /// still: the downtime then includes it.
    #[arg(long)]
    pub(crate) verify_digest: bool,
}

/// How it moves.
#[derive(Debug, Clone, Args)]
pub(crate) struct LinkArgs {
    /// Page streams, 1 to 64, each with a thread that packs and one that lands; auto is one for
    /// each logical processor here.
    #[arg(long, value_name = "auto|N", value_parser = units::streams, default_value = "auto")]
    pub(crate) streams: Streams,
    /// Threads that work on all of memory at once (1 to 1024; default: one for each logical
    /// processor). Page streams have threads of their own.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Page encoding: none, lz4, zstd (also zstd:1 to zstd:4), delta (only what changed of pages
    /// that are sent again), or auto: whatever of these takes the least time on this link.
    #[arg(long, default_value_t = Codec::Auto)]
    pub(crate) codec: Codec,
    /// Whether raw pages pass through a buffer, where they hold still for a checksum. `auto`: not
    /// on links within one host. `never`: on no link; the other side must ask for it too.
    #[arg(long, value_enum, default_value_t = StagingChoice::Auto)]
    pub(crate) staging: StagingChoice,
    /// Whether pages that pass through no buffer are handed to the socket by reference (vmsplice),
    /// where the kernel can, or copied into it.
    #[arg(long, value_enum, default_value_t = SpliceChoice::Auto)]
    pub(crate) splice: SpliceChoice,
    /// Longest pause that the guest may see (1ms to 60s).
    #[arg(long, value_parser = units::downtime, default_value = "300ms")]
    pub(crate) downtime: Duration,
    /// What to do when the guest writes faster than the link sends: leave it on the source (fail),
    /// pause it for longer than asked (stop), let its vCPUs run for a share of the time (throttle),
    /// or limit what each may dirty (limit: KVM guests; it needs, and chooses, `--tracking ring`).
    #[arg(long, value_enum, default_value_t = OnStallChoice::Fail)]
    pub(crate) on_stall: OnStallChoice,
    /// Most bytes a second that the page streams send together while the guest runs (4KiB/s and
    /// up; default: what the link takes). The pages of the pause are not held to it.
    #[arg(long, value_name = "RATE", value_parser = units::bandwidth)]
    pub(crate) bandwidth: Option<NonZeroU64>,
    /// How page streams reach the kernel.
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    pub(crate) io: Io,
}

/// Where results go.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// Write the report as JSON to a file, or to standard output with `-`.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
    /// No progress bar and no table.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// What a move did over time.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// Draw a move over time, of several runs the one of median total: rates, what remains, rounds,
    /// and the pause.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Write the samples of every move as CSV: what was sent, at which rate, and what remains.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) timeline: Option<PathBuf>,
}

macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $name:ident { $($(#[$variant_meta:meta])* $variant:ident),+ $(,)? }
    )+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub(crate) enum $name { $($(#[$variant_meta])* $variant),+ }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |value| value.get_name()))
            }
        }
    )+};
}

choices! {
    /// Which guest.
    GuestChoice { Auto, Kvm, Process }
    /// What memory is filled with.
    Fill { Random, Zero, Text, Mixed, Semi }
    /// Order of writes.
    Pattern { Sequential, Random, HotCold }
    /// How gaps are seen.
    Probe { Sleep, Spin }
    /// What guest memory is made of.
    Backing { Anonymous, Memfd }
    /// Who records writes.
    TrackingChoice { Auto, Log, Ring, Pagemap }
    /// Kind of socket.
    Transport { Tcp, Unix }
    /// System-call interface of page streams.
    Io { Auto, Uring, Blocking }
    /// Way of raw pages.
    StagingChoice { Auto, Always, Never }
    /// How pages that pass through no buffer reach a socket.
    SpliceChoice { Auto, Never }
    /// Policy for a guest that is too busy.
    OnStallChoice { Fail, Stop, Throttle, Limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn options_of_a_way_on_need_a_way_on() {
        let parse = |line: &str| {
            let words = std::iter::once("migrate-bench").chain(line.split(' '));
            command().try_get_matches_from(words)
        };
        let error = parse("target --downtime 50ms").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--onward"), "{error}");
        assert!(parse("target --io blocking").is_ok());
        assert!(parse("target --downtime 50ms --onward tcp://127.0.0.1:1").is_ok());
    }

    #[test]
    fn absurd_values_are_usage_errors() {
        for line in [
            "run --streams 0",
            "run --streams 65",
            "run --streams many",
            "run --threads 0",
            "run --threads 1025",
            "run --link 1G",
            "run --link 1bit",
            "run --vcpus 0",
            "run --vcpus 9",
            "run --repeat 0",
            "run --memory lots",
            "run --touched 101%",
            "run --touched most",
            "run --downtime 5",
            "run --downtime 0ms",
            "run --downtime 1000y",
            "source --to nowhere",
            "target --listen nowhere",
            "run --codec zip",
            "run --staging maybe",
            "run --tracking luck",
            "run --splice always",
            "run --bandwidth 0",
            "run --bandwidth fast",
            "run --on-stall wait",
        ] {
            let words = std::iter::once("migrate-bench").chain(line.split(' '));
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn no_subcommand_is_a_run() {
        let cli = Cli::try_parse_from(["migrate-bench", "--memory", "2GiB"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.guest.memory, 2 << 30);
    }
}
