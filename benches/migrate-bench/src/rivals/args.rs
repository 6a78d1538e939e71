//! Options of `rivals`: the guest and the link as `run` has them, and how the rival may be set.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, ValueEnum};

use crate::args::{Cli, GuestArgs, GuestChoice, LinkArgs, OutputArgs, RunArgs, Transport};
use crate::link::Rate;

/// Most channels that may be asked for: more were never faster, and each is a thread.
const CHANNELS_MAX: u8 = 64;

/// Options of `rivals`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RivalsArgs {
    /// Whom to measure ourselves against.
    #[arg(value_enum, default_value_t = Rival::Qemu)]
    pub(crate) rival: Rival,
    /// The QEMU to run, by name or path.
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// Settings of QEMU to try, with commas: precopy, multifdN (N channels, 1 to 64),
    /// multifdN-zstd; or all: precopy, multifd1, multifd2 and multifd4.
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(crate) settings: Settings,
    /// Try each multifd setting with this compression, too.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compress: Compression,
    /// What the target's memory is before pages arrive, on both sides: untouched, populated
    /// beforehand, or both one after the other.
    #[arg(long, value_enum, default_value_t = Prealloc::Both)]
    pub(crate) prealloc: Prealloc,
    /// Give QEMU, which chooses none, another TCP congestion control than the system's: in a
    /// network namespace, as root.
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// Loopback TCP or a Unix socket.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) transport: Transport,
    /// Hold TCP to a rate both ways, for both engines; as `run --link` does.
    #[arg(long = "link", value_name = "RATE")]
    pub(crate) link_rate: Option<Rate>,
    /// Rounds: in each, our engine and every setting of the rival move one guest (1 to 1000).
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl RivalsArgs {
    /// The options as those of a `run` with guests that check themselves; the error is one of
    /// usage.
    pub(crate) fn run_args(&self) -> Result<RunArgs, String> {
        let guest = &self.guest;
        if guest.guest == GuestChoice::Process {
            return Err("a process guest runs in no rival: leave out `--guest process`".into());
        }
        if guest.vcpus != 1 {
            return Err(format!(
                "--vcpus {}: the guest's program has one vCPU under a rival; leave it out",
                guest.vcpus
            ));
        }
        if self.link_rate.is_some() && self.transport == Transport::Unix {
            return Err("--link shapes TCP: leave out --transport unix, or --link".into());
        }
        if self.congestion.is_some() && self.transport == Transport::Unix {
            return Err("--congestion is of TCP: leave it out with --transport unix".into());
        }
        if guest.verify_digest {
            return Err("--verify-digest: no rival gives a digest; guests check themselves".into());
        }
        let defaults = Cli::try_parse_from(["migrate-bench"]).map_err(|error| error.to_string())?;
        Ok(RunArgs {
            guest: GuestArgs {
                guest: GuestChoice::Kvm,
                verify: true,
                ..guest.clone()
            },
            link: self.link.clone(),
            transport: self.transport,
            repeat: self.repeat,
            link_rate: self.link_rate,
            no_reference: true,
            output: self.output.clone(),
            ..defaults.run
        })
    }

    /// Every setting to try, the compressed ones last.
    pub(crate) fn all_settings(&self) -> Vec<Setting> {
        let mut all = self.settings.0.clone();
        for setting in &self.settings.0 {
            let compressed = setting.compressed(self.compress);
            all.extend(compressed.filter(|setting| !self.settings.0.contains(setting)));
        }
        all
    }
}

/// Who else moves guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rival {
    /// An installed QEMU with KVM.
    Qemu,
}

/// What QEMU may do to page data on its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    None,
    Zlib,
    Zstd,
}

impl Compression {
    /// As QEMU calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// Which kinds of target memory to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Prealloc {
    Fresh,
    Populated,
    Both,
}

impl Prealloc {
    /// One after the other.
    pub(crate) const fn landings(self) -> &'static [Landing] {
        match self {
            Self::Fresh => &[Landing::Fresh],
            Self::Populated => &[Landing::Populated],
            Self::Both => &[Landing::Fresh, Landing::Populated],
        }
    }
}

/// What the target's memory is before pages arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landing {
    /// Nobody has touched it.
    Fresh,
    /// All of it is populated.
    Populated,
}

impl Landing {
    /// In reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Populated => "populated",
        }
    }
}

/// One way of QEMU to move a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// One stream, written by the thread that finds the pages.
    Precopy,
    /// So many channels, each with a thread.
    Multifd {
        channels: u8,
        compression: Compression,
    },
}

impl Setting {
    fn compressed(self, with: Compression) -> Option<Self> {
        match (self, with) {
            (_, Compression::None) | (Self::Precopy, _) => None,
            (Self::Multifd { channels, .. }, compression) => Some(Self::Multifd {
                channels,
                compression,
            }),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Precopy => f.write_str("precopy"),
            Self::Multifd {
                channels,
                compression: Compression::None,
            } => write!(f, "multifd{channels}"),
            Self::Multifd {
                channels,
                compression,
            } => write!(f, "multifd{channels}-{}", compression.name()),
        }
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "precopy" {
            return Ok(Self::Precopy);
        }
        let unknown = || {
            format!(
                "`{text}` is no setting of QEMU; write precopy, multifdN or multifdN-zstd with \
                 1 to {CHANNELS_MAX} channels, or all"
            )
        };
        let rest = text.strip_prefix("multifd").ok_or_else(unknown)?;
        let (channels, compression) = match rest.split_once('-') {
            None => (rest, Compression::None),
            Some((channels, "zlib")) => (channels, Compression::Zlib),
            Some((channels, "zstd")) => (channels, Compression::Zstd),
            Some(_) => return Err(unknown()),
        };
        let channels = channels.parse().map_err(|_| unknown())?;
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return Err(unknown());
        }
        Ok(Self::Multifd {
            channels,
            compression,
        })
    }
}

/// The settings of a command line, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings(Vec<Setting>);

impl FromStr for Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = match text {
            "all" => "precopy,multifd1,multifd2,multifd4",
            list => list,
        };
        let mut settings = Vec::new();
        for word in text.split(',') {
            let setting = word.trim().parse()?;
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
        Ok(Self(settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were_written() {
        let list = "precopy,multifd1,multifd64-zstd,multifd3-zlib";
        let settings: Settings = list.parse().unwrap();
        let again: Vec<_> = settings.0.iter().map(ToString::to_string).collect();
        assert_eq!(again.join(","), list);
        assert_eq!("all".parse::<Settings>().unwrap().0.len(), 4);
        assert_eq!(
            "precopy,precopy".parse::<Settings>().unwrap().0,
            [Setting::Precopy]
        );
    }

    #[test]
    fn what_is_no_setting_is_named() {
        for text in [
            "",
            "fast",
            "multifd",
            "multifd0",
            "multifd65",
            "multifd2-lz4",
        ] {
            let error = text.parse::<Settings>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn compression_is_tried_beside_its_absence() {
        let setting: Setting = "multifd2".parse().unwrap();
        let zstd = setting.compressed(Compression::Zstd).unwrap();
        assert_eq!(zstd.to_string(), "multifd2-zstd");
        assert_eq!(setting.compressed(Compression::None), None);
        assert_eq!(Setting::Precopy.compressed(Compression::Zstd), None);
    }
}
