//! Two network namespaces joined by a veth pair that is shaped both ways. They have no names:
//! each lives as long as a process in it does, so the kernel takes them away however we end.
//!
//! A burst of some milliseconds makes up for the times at which nobody could send because the
//! processors were busy: with 256 kB a link of 10 Gbit/s carried 7.1 to 8.1, with 5 MB 9.0 to 9.4
//! Gbit/s of payload, of 9.6 that are possible (two streams, Linux 6.18, two processors). A link of
//! 1 Gbit/s carried 0.96 either way.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::link::command::{Namespace, Place};
use crate::link::{End, Rate};

/// The veth's name, in either namespace.
const DEVICE: &str = "link0";
/// What may be sent at once after a pause.
const BURST: Duration = Duration::from_millis(4);
/// Never less than a few of the largest packets.
const BURST_BYTES_MIN: u64 = 256 << 10;
/// How long a packet may wait in the shaper before it is dropped.
const LATENCY: &str = "50ms";

/// A network namespace that lives as long as this.
struct Holder {
    child: Child,
    /// The child ends when this does: also when we are killed.
    input: Option<ChildStdin>,
}

impl Holder {
    fn start() -> Result<Self> {
        // In a process group of its own: an interrupt from the terminal is not meant for it.
        let mut child = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("`unshare` can't be started")?;
        let input = child.stdin.take();
        let mut holder = Self { child, input };
        if !holder.answers() {
            let mut why = String::new();
            holder.input = None;
            if let Some(mut words) = holder.child.stderr.take() {
                words.read_to_string(&mut why)?;
            }
            bail!("no network namespace: {}", why.trim());
        }
        Ok(holder)
    }

    /// What it is told comes back once it has its namespace.
    fn answers(&mut self) -> bool {
        let (Some(input), Some(output)) = (&mut self.input, &mut self.child.stdout) else {
            return false;
        };
        let mut answer = [0; 1];
        input.write_all(b"\n").is_ok() && output.read_exact(&mut answer).is_ok()
    }

    fn place(&self) -> Place {
        Place::In(Namespace::of_process(self.child.id()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The pair.
pub(crate) struct Namespaces {
    source: Holder,
    target: Holder,
}

impl Namespaces {
    /// Makes them, with a link of `rate` in between.
    ///
    /// # Errors
    /// What is missing: root, `unshare` and `nsenter` (util-linux), `ip` and `tc` (iproute2), or
    /// something in the kernel.
    pub(crate) fn new(rate: Rate) -> Result<Self> {
        let (source, target) = (Holder::start()?, Holder::start()?);
        let namespaces = Self { source, target };
        let peer = namespaces.holder(End::Target).to_string();
        let words = ["link", "add", DEVICE, "type", "veth", "peer", "name"];
        let to = [DEVICE, "netns", &peer];
        namespaces.run(End::Source, "ip", &[&words[..], &to[..]].concat())?;
        for end in [End::Source, End::Target] {
            namespaces.set_up(end, rate)?;
        }
        Ok(namespaces)
    }

    /// The process that holds the namespace of `end`.
    pub(crate) fn holder(&self, end: End) -> u32 {
        self.of(end).child.id()
    }

    /// The IPv4 address of `end`: one of those that are kept for documentation.
    pub(crate) const fn address(end: End) -> &'static str {
        match end {
            End::Source => "192.0.2.1",
            End::Target => "192.0.2.2",
        }
    }

    const fn of(&self, end: End) -> &Holder {
        match end {
            End::Source => &self.source,
            End::Target => &self.target,
        }
    }

    fn set_up(&self, end: End, rate: Rate) -> Result<()> {
        let network = format!("{}/30", Self::address(end));
        let bits = format!("{}bit", rate.bits_per_second());
        let burst = rate.bytes_in(BURST).max(BURST_BYTES_MIN).to_string();
        self.run(end, "ip", &["address", "add", &network, "dev", DEVICE])?;
        for device in ["lo", DEVICE] {
            self.run(end, "ip", &["link", "set", device, "up"])?;
        }
        let shape = ["qdisc", "add", "dev", DEVICE, "root", "tbf", "rate", &bits];
        let limits = ["burst", &burst, "latency", LATENCY];
        self.run(end, "tc", &[&shape[..], &limits[..]].concat())
    }

    fn run(&self, end: End, program: &str, words: &[&str]) -> Result<()> {
        let line = format!("{program} {}", words.join(" "));
        let output = self
            .of(end)
            .place()
            .command(Path::new(program))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("`nsenter` can't be started for `{line}`"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!("`{line}`: {}", why.trim());
        }
        Ok(())
    }
}
