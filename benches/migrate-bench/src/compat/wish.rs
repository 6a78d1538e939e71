//! What the command line wants a guest to see of its processor, and what a side pretends to be.

use std::path::{Path, PathBuf};

use clap::Args;
use limosa_compat::{Baseline, Mode, ShapeError, baselines};

use super::content::{self, Loaded};
use super::json::{HostJson, ProcessorJson};
use crate::protocol::ClockOrder;

/// How the guest is started.
#[derive(Debug, Clone, Args)]
pub(crate) struct CpuArgs {
    /// What the guest sees of its processor, for life: off (all that can travel), minimum (its
    /// vendor's floor), named:NAME (`compat list` shows them), common:FILE[,FILE…] (what this host
    /// and those have in common; may be repeated) [default: off].
    #[arg(long, value_name = "MODE", value_parser = compat)]
    compat: Vec<CompatOption>,
    /// This side (of `run`: the source) pretends that it offers what FILE says, and never more than
    /// it truly has. A process guest uses no CPUID: with it, all of FILE.
    #[arg(long, value_name = "FILE")]
    pub(crate) as_host: Option<PathBuf>,
    /// Start the guest even where KVM shows it more than it was promised, with what it really sees;
    /// that is then judged.
    #[arg(long)]
    pub(crate) compat_unenforced: bool,
}

/// One `--compat`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CompatOption {
    Fixed(Mode),
    Common(Vec<PathBuf>),
}

/// All `--compat` together, with the files read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    pub(crate) mode: Mode,
    /// Other hosts, for mode `common`.
    pub(crate) pool: Vec<ProcessorJson>,
    /// How time runs on them; unknown of files that don't say it.
    pub(crate) clocks: Vec<Option<ClockOrder>>,
    /// What to call them.
    pub(crate) pool_names: Vec<String>,
}

impl CpuArgs {
    /// Puts all `--compat` together and reads their files.
    pub(crate) fn wish(&self) -> Result<Wish, String> {
        let mut wish = Wish {
            mode: Mode::Off,
            pool: Vec::new(),
            clocks: Vec::new(),
            pool_names: Vec::new(),
        };
        for (number, option) in self.compat.iter().enumerate() {
            let (mode, files) = match option {
                CompatOption::Fixed(mode) => (*mode, &[][..]),
                CompatOption::Common(files) => (Mode::Common, &files[..]),
            };
            if number > 0 && (mode, wish.mode) != (Mode::Common, Mode::Common) {
                return Err(
                    "--compat may be repeated for common:FILE only: a guest has one mode".into(),
                );
            }
            wish.mode = mode;
            for file in files {
                let Loaded { name, content, .. } = load(file)?;
                wish.clocks.push(content.clock());
                wish.pool.push(ProcessorJson(content.processor().clone()));
                wish.pool_names.push(name);
            }
        }
        Ok(wish)
    }

    /// What this side pretends to be.
    pub(crate) fn pretend(&self) -> Result<Option<HostJson>, String> {
        self.as_host.as_deref().map(read_host).transpose()
    }
}

/// Reads what a side is to pretend.
pub(crate) fn read_host(path: &Path) -> Result<HostJson, String> {
    Ok(HostJson(load(path)?.content.into_host()))
}

fn load(path: &Path) -> Result<Loaded, String> {
    let loaded = content::load(path)?;
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    Ok(loaded)
}

/// Parses one `--compat`.
fn compat(text: &str) -> Result<CompatOption, String> {
    if let Some(files) = text.strip_prefix("common:") {
        let files: Vec<PathBuf> = files.split(',').map(PathBuf::from).collect();
        if files.iter().any(|file| file.as_os_str().is_empty()) {
            return Err(format!(
                "`{text}` names no file where one must be: write common:FILE[,FILE…]"
            ));
        }
        return Ok(CompatOption::Common(files));
    }
    match text {
        "common" => Err("common needs the other hosts: write common:FILE[,FILE…]".into()),
        "off" => Ok(CompatOption::Fixed(Mode::Off)),
        _ => fixed_mode(text).map(CompatOption::Fixed).ok_or_else(|| {
            unknown(
                text,
                "off, minimum, named:NAME or common:FILE[,FILE…]",
                text.strip_prefix("named:"),
            )
        }),
    }
}

/// What a pool of hosts is to give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PoolMode(pub(crate) Mode);

/// Parses `common`, `minimum` and `named:NAME`.
pub(crate) fn pool_mode(text: &str) -> Result<PoolMode, String> {
    let mode = match text {
        "common" => Some(Mode::Common),
        _ => fixed_mode(text),
    };
    mode.map(PoolMode).ok_or_else(|| {
        let forms = "common, minimum or named:NAME";
        unknown(text, forms, text.strip_prefix("named:"))
    })
}

/// The mode of a word that stands for the same everywhere.
pub(crate) fn fixed_mode(text: &str) -> Option<Mode> {
    match text {
        "minimum" => Some(Mode::Minimum),
        _ => Baseline::find(text.strip_prefix("named:")?).map(Mode::Named),
    }
}

/// The mode of a word that [`Mode`] writes.
pub(crate) fn mode_of(text: &str) -> Option<Mode> {
    match text {
        "off" => Some(Mode::Off),
        "common" => Some(Mode::Common),
        _ => fixed_mode(text),
    }
}

fn unknown(text: &str, forms: &str, name: Option<&str>) -> String {
    let Some(name) = name else {
        return format!("`{text}` is no mode: write {forms}");
    };
    let known: Vec<&str> = baselines().iter().map(Baseline::name).collect();
    format!(
        "there is no baseline `{name}`; known are {}",
        known.join(", ")
    )
}

/// Why hosts of these names can't give what was asked for, every one with its own reason.
pub(crate) fn explain(error: &ShapeError, names: &[String]) -> String {
    use limosa_compat::PoolError::{Empty, TooMany, UnknownVendor, VendorsDiffer};
    let name = |host: usize| names.get(host).map_or("a host", String::as_str);
    match error {
        ShapeError::Pool(Empty | TooMany { .. }) | ShapeError::Unlike { .. } => error.to_string(),
        ShapeError::Pool(UnknownVendor { host, vendor }) => {
            format!(
                "{} has an {vendor}, for which there are no rules",
                name(*host)
            )
        }
        ShapeError::Pool(VendorsDiffer { host, first, other }) => format!(
            "CPU vendors do not match: {} is {first}, {} is {other}; no guest moves between them",
            name(0),
            name(*host)
        ),
        ShapeError::OtherVendor {
            baseline,
            wanted,
            found,
        } => format!(
            "baseline {baseline} is for {wanted}, {} is {found}",
            name(0)
        ),
        ShapeError::Lacks { baseline, lacks } => {
            let mut text = format!("not every host has what baseline {baseline} needs");
            for lack in lacks {
                let features = lack.features.join(" ");
                text += &format!("\n  {} lacks {features}", name(lack.host));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        assert_eq!(compat("off"), Ok(CompatOption::Fixed(Mode::Off)));
        assert_eq!(compat("minimum"), Ok(CompatOption::Fixed(Mode::Minimum)));
        let files = ["a", "b"].map(PathBuf::from).to_vec();
        assert_eq!(compat("common:a,b"), Ok(CompatOption::Common(files)));
        for baseline in baselines() {
            let mode = Mode::Named(baseline);
            assert_eq!(mode_of(&mode.to_string()), Some(mode));
        }
        for wrong in ["", "common", "common:", "common:a,,b", "named:", "on"] {
            assert!(compat(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let error = compat("named:z80").unwrap_err();
        assert!(error.contains("`z80`"), "{error}");
        for baseline in baselines() {
            assert!(error.contains(baseline.name()), "{error}");
        }
    }
}
