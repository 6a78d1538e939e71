//! The network that a rival's sockets live in: the host's, or one of its own with another
//! congestion control, which goes away with the processes in it.
//!
//! QEMU asks for no congestion control: it has what the system gives. To give it another one
//! without changing the system, its processes get a network namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

/// Brings loopback up, sets the congestion control, and becomes the program.
const SCRIPT: &str = "ip link set lo up && \
                      echo \"$0\" > /proc/sys/net/ipv4/tcp_congestion_control && exec \"$@\"";

/// Where a process opens its sockets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Net<'a> {
    /// In the host's network.
    Host,
    /// In one that is made for it.
    New { congestion: &'a str },
    /// In that of another process.
    Of { process: u32 },
}

impl Net<'_> {
    /// The program and the arguments that start `program` there. What stands between becomes it:
    /// the process stays the same.
    pub(crate) fn around(self, program: &Path, words: Vec<String>) -> (PathBuf, Vec<String>) {
        let before: Vec<String> = match self {
            Self::Host => return (program.to_owned(), words),
            Self::New { congestion } => ["unshare", "--net", "sh", "-c", SCRIPT, congestion]
                .map(String::from)
                .into(),
            Self::Of { process } => vec!["nsenter".into(), format!("--net=/proc/{process}/ns/net")],
        };
        let mut all = before.into_iter();
        let first = all.next().unwrap_or_default();
        let rest = all.chain([program.display().to_string()]).chain(words);
        (first.into(), rest.collect())
    }
}

/// What TCP sockets get here that choose no congestion control.
pub(crate) fn system_congestion() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// Can a rival be given this congestion control?
pub(crate) fn check_congestion(name: &str) -> Result<()> {
    let known = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let known = std::fs::read_to_string(known).context("which congestion controls there are")?;
    if !known.split_ascii_whitespace().any(|it| it == name) {
        let known = known.trim();
        bail!("this kernel has no congestion control `{name}` ready; it has: {known}");
    }
    if !geteuid().is_root() {
        bail!("--congestion puts the rival into a network of its own: that takes root");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_last_to_be_started() {
        let words = || vec!["-a".to_owned()];
        let program = Path::new("qemu");
        let (first, rest) = Net::Host.around(program, words());
        assert_eq!((first.as_path(), rest), (program, words()));
        let (first, rest) = Net::Of { process: 7 }.around(program, words());
        assert_eq!(first, Path::new("nsenter"));
        assert_eq!(rest, ["--net=/proc/7/ns/net", "qemu", "-a"]);
        let (first, rest) = Net::New { congestion: "reno" }.around(program, words());
        assert_eq!(first, Path::new("unshare"));
        assert_eq!(rest[4..], ["reno", "qemu", "-a"]);
    }

    #[test]
    fn an_unknown_congestion_control_is_named() {
        let error = check_congestion("carrier-pigeon").unwrap_err();
        assert!(error.to_string().contains("`carrier-pigeon`"), "{error}");
    }
}
