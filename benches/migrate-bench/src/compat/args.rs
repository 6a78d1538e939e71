//! The command line of `compat`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::wish::{self, PoolMode};

/// What to do with descriptions of processors: JSON (`limosa.cpu/1`) or `.cpuid` text, a file or
/// `-` for standard input.
#[derive(Debug, Subcommand)]
pub(crate) enum CompatCommand {
    /// Show this host's processor as KVM gives it to guests, or a file's.
    Show(ShowArgs),
    /// Can this guest live on that host? Exit status 0: yes; 3: no, with every reason.
    Compare(CompareArgs),
    /// The largest processor that all of these hosts can give, or a fixed one that they all can.
    Baseline(BaselineArgs),
    /// The fixed baselines, what each adds, and which includes which.
    List(ListArgs),
}

/// Options of `compat show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// This host, as KVM answers here (the default).
    #[arg(long, conflicts_with = "file")]
    pub(crate) host: bool,
    /// A file instead of this host.
    pub(crate) file: Option<PathBuf>,
    /// How to write it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// Options of `compat compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// What the guest sees; of a host's file: what a new guest sees there.
    pub(crate) guest: PathBuf,
    /// What the host takes in; a bare table is both what it offers and what it takes in.
    pub(crate) host: PathBuf,
    /// How to write the verdict.
    #[arg(long, value_enum, default_value_t = Plain::Table)]
    pub(crate) format: Plain,
}

/// Options of `compat baseline`.
#[derive(Debug, Args)]
pub(crate) struct BaselineArgs {
    /// The hosts.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// What they are to give: common, minimum or named:NAME.
    #[arg(long, value_name = "MODE", value_parser = wish::pool_mode, default_value = "common")]
    pub(crate) mode: PoolMode,
    /// How to write it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// Options of `compat list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to write it.
    #[arg(long, value_enum, default_value_t = Plain::Table)]
    pub(crate) format: Plain,
}

/// How a processor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// The schema `limosa.cpu/1`.
    Json,
    /// Lines `cpuid LEAF SUBLEAF EAX EBX ECX EDX` and `msr INDEX VALUE`.
    Cpuid,
    /// One feature name a line, as QEMU and libvirt spell them.
    Features,
}

/// How anything else is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plain {
    /// For people.
    Table,
    /// For programs.
    Json,
}
