//! The network that a rival's sockets live in: the host's, or one of its own with another
//! congestion control, which goes away with the processes in it.
//!
//! QEMU asks for no congestion control: it has what the system gives. To give it another one
//! without changing the system, its processes get a network namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use crate::link::Place;

/// Brings loopback up, sets the congestion control, and becomes the program.
const SCRIPT: &str = "ip link set lo up && \
                      echo \"$0\" > /proc/sys/net/ipv4/tcp_congestion_control && exec \"$@\"";

/// Where a process opens its sockets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Net<'a> {
    /// In a network that is there, as it is.
    At(Place),
    /// There, with another congestion control.
    Choosing { place: Place, congestion: &'a str },
    /// In one that is made for it.
    New { congestion: &'a str },
}

impl Net<'_> {
    /// In which network the process begins, and what it is then to start to become `program`. What
    /// stands between becomes it: the process stays the same.
    pub(crate) fn around(
        self,
        program: &Path,
        words: Vec<String>,
    ) -> (Place, PathBuf, Vec<String>) {
        let (place, congestion, unshare): (_, _, &[&str]) = match self {
            Self::At(place) => return (place, program.to_owned(), words),
            Self::Choosing { place, congestion } => (place, congestion, &[]),
            Self::New { congestion } => (Place::Here, congestion, &["unshare", "--net"]),
        };
        let script = ["sh", "-c", SCRIPT, congestion];
        let mut all = unshare.iter().copied().chain(script).map(String::from);
        let first = all.next().unwrap_or_default();
        let rest = all.chain([program.display().to_string()]).chain(words);
        (place, first.into(), rest.collect())
    }
}

/// What TCP sockets get here that choose no congestion control.
pub(crate) fn system_congestion() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// Can a rival be given this congestion control?
pub(crate) fn check_congestion(name: &str) -> Result<()> {
    let read = |which: &str| {
        let path = format!("/proc/sys/net/ipv4/tcp_{which}_congestion_control");
        std::fs::read_to_string(path).context("which congestion controls there are")
    };
    let has = |names: &str| names.split_ascii_whitespace().any(|it| it == name);
    let known = read("available")?;
    if !has(&known) {
        let known = known.trim();
        bail!("this kernel has no congestion control `{name}` ready; it has: {known}");
    }
    let allowed = read("allowed")?;
    if !has(&allowed) {
        bail!(
            "this kernel gives `{name}` to no other network namespace: add it to what stands in \
             /proc/sys/net/ipv4/tcp_allowed_congestion_control ({})",
            allowed.trim()
        );
    }
    if !geteuid().is_root() {
        bail!("--congestion puts the rival into a network of its own: that takes root");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Namespace;

    #[test]
    fn the_program_is_the_last_to_be_started() {
        let words = || vec!["-a".to_owned()];
        let program = Path::new("qemu");
        let place = Place::In(Namespace::of_process(7));
        let (at, first, rest) = Net::At(place).around(program, words());
        assert_eq!((at, first.as_path(), rest), (place, program, words()));
        let congestion = "reno";
        let (at, first, rest) = Net::Choosing { place, congestion }.around(program, words());
        assert_eq!((at, first.as_path()), (place, Path::new("sh")));
        assert_eq!(rest[2..], ["reno", "qemu", "-a"]);
        let (at, first, rest) = Net::New { congestion }.around(program, words());
        assert_eq!((at, first.as_path()), (Place::Here, Path::new("unshare")));
        assert_eq!(rest[4..], ["reno", "qemu", "-a"]);
    }

    #[test]
    fn an_unknown_congestion_control_is_named() {
        let error = check_congestion("carrier-pigeon").unwrap_err();
        assert!(error.to_string().contains("`carrier-pigeon`"), "{error}");
    }
}
