//! An emulated host while it runs: its processor, its network, and what it prints.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::tools::Tools;

/// How many of the last lines an error repeats.
const LINES_REPEATED: usize = 40;

/// The time-stamp counter's frequency is given: measured inside an emulated host it is off by more
/// than any real one, and no guest would move. Without other clocks the kernel doesn't measure it
/// anew; and it doesn't distrust the counter because there are many processors (a clock that is a
/// device costs an exit under one lock for each look). Source: Linux
/// Documentation/admin-guide/kernel-parameters.txt.
const KERNEL_PARAMETERS: &str = "console=ttyS0 panic=-1 mitigations=off quiet \
                                 tsc=reliable tsc_early_khz=2500000 hpet=disable pmtmr=0";

/// The processor of an emulated host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// As QEMU calls it, such as `EPYC` or `Opteron_G3`.
    pub name: &'static str,
    /// Logical processors, 1 to 64.
    pub lps: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// One thread goes round all logical processors. With a thread for each, 64 of them wait for each
/// other's interrupts ten times as long, and a host with only one clock stops now and then.
const ACCELERATOR: &str = "tcg,thread=single";

/// One end of a network of two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cable {
    /// No network but loopback.
    None,
    /// The end that waits on this port of 127.0.0.1; its host is 10.7.0.1.
    First(u16),
    /// The end that connects there; its host is 10.7.0.2.
    Second(u16),
}

/// Why what was awaited did not come.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// QEMU does not start, or does not listen any more.
    #[error("qemu-system-x86_64: {0}")]
    Qemu(#[from] std::io::Error),
    /// The host printed no such line in time, or ended before.
    #[error("{host}: no line with \"{awaited}\" {why}; the last lines:\n{last}")]
    Absent {
        /// Which host.
        host: &'static str,
        /// What was awaited.
        awaited: String,
        /// Whether time ran out or the host ended.
        why: &'static str,
        /// What it printed last.
        last: String,
    },
}

/// A running emulated host. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    name: &'static str,
    qemu: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
}

impl Machine {
    /// Switches a host on.
    ///
    /// # Errors
    /// [`ConsoleError::Qemu`].
    pub fn start(
        tools: &Tools,
        model: Model,
        cable: Cable,
        initramfs: &Path,
    ) -> Result<Self, ConsoleError> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", ACCELERATOR, "-display", "none", "-no-reboot"]);
        command.args(["-nodefaults", "-serial", "stdio"]);
        command.args(["-cpu", &format!("{},+svm,+npt", model.name)]);
        command.args(["-smp", &model.lps.to_string()]);
        command.args(["-m", &model.memory_mib.to_string()]);
        command.arg("-kernel").arg(&tools.kernel);
        command.arg("-initrd").arg(initramfs);
        let mut append = String::from(KERNEL_PARAMETERS);
        let (netdev, address) = match cable {
            Cable::None => (None, None),
            Cable::First(port) => (Some(format!("listen=127.0.0.1:{port}")), Some(1)),
            Cable::Second(port) => (Some(format!("connect=127.0.0.1:{port}")), Some(2)),
        };
        if let (Some(netdev), Some(address)) = (netdev, address) {
            command.args(["-netdev", &format!("socket,id=cable,{netdev}")]);
            let device = format!("virtio-net-pci,netdev=cable,mac=52:54:00:00:00:{address:02x}");
            command.args(["-device", &device]);
            append += &format!(" limosa.address=10.7.0.{address}");
        }
        command.args(["-append", &append]);
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (sender, lines) = channel();
        if let Some(console) = qemu.stdout.take() {
            // It ends with the console; nobody has to wait for it.
            std::thread::spawn(move || {
                for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self {
            name: model.name,
            qemu,
            lines,
            printed: Vec::new(),
        })
    }

    /// Types a line on the console, for a script that reads one.
    ///
    /// # Errors
    /// [`ConsoleError::Qemu`] when the host has ended.
    pub fn say(&mut self, line: &str) -> Result<(), ConsoleError> {
        if let Some(console) = &mut self.qemu.stdin {
            writeln!(console, "{line}")?;
            console.flush()?;
        }
        Ok(())
    }

    /// Waits for a line that contains `awaited`, and returns everything printed since the last one
    /// that was awaited, that line included.
    ///
    /// # Errors
    /// [`ConsoleError::Absent`] when it does not come within `patience`.
    pub fn wait_for(
        &mut self,
        awaited: &str,
        patience: Duration,
    ) -> Result<Vec<String>, ConsoleError> {
        let end = Instant::now() + patience;
        let from = self.printed.len();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let why = match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.contains(awaited);
                    self.printed.push(line);
                    if found {
                        return Ok(self.printed.split_off(from));
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => "in time",
                Err(RecvTimeoutError::Disconnected) => "before the host ended",
            };
            let first = self.printed.len().saturating_sub(LINES_REPEATED);
            return Err(ConsoleError::Absent {
                host: self.name,
                awaited: awaited.into(),
                why,
                last: self.printed.get(first..).unwrap_or_default().join("\n"),
            });
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
