//! An emulated host while it runs: its processor, its network, its console, and the steps that it
//! is told to do there.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::initramfs::{BOOTED, STEP_ENDED};
use crate::tools::Tools;

/// What a kernel says that was kept from its processors for too long. Sources: Linux
/// kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/time/clocksource.c.
const STOOD_STILL: [&str; 4] = [
    "soft lockup",
    "detected stall",
    "kthread starved",
    "timekeeping watchdog",
];

/// How many of the last lines an error repeats.
const LINES_REPEATED: usize = 60;

/// Longest time until QEMU listens for the other end of a cable.
const LISTENS_MAX: Duration = Duration::from_secs(30);

/// The time-stamp counter's frequency is given: measured inside an emulated host it is off by more
/// than any real one, and no guest would move. Without other clocks the kernel doesn't measure it
/// anew; and it doesn't distrust the counter because there are many processors (a clock that is a
/// device costs an exit under one lock for each look). Source: Linux
/// Documentation/admin-guide/kernel-parameters.txt. A processor that stands still for twice the
/// watchdog's threshold, which is less than peers wait, is told of.
const KERNEL_PARAMETERS: &str = "console=ttyS0 panic=-1 mitigations=off quiet \
                                 tsc=reliable tsc_early_khz=2500000 hpet=disable pmtmr=0 \
                                 watchdog_thresh=4";

/// One thread goes round all logical processors. With a thread for each, 64 of them wait for each
/// other's interrupts ten times as long, and a host with only one clock stops now and then.
const ACCELERATOR: &str = "tcg,thread=single";

/// The addresses of two hosts of one network.
const ADDRESSES: [&str; 2] = ["10.7.0.1", "10.7.0.2"];

/// The processor of an emulated host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// As QEMU calls it, such as `EPYC-Milan` or `phenom`.
    pub name: &'static str,
    /// Logical processors, 1 to 64.
    pub lps: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// One end of a network of two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cable {
    /// The end that waits on this port of 127.0.0.1.
    First(u16),
    /// The end that connects there.
    Second(u16),
}

/// Why a host did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
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
    /// A step ended without a status that can be read.
    #[error("{host}: the end of a step is no number: {line}")]
    Status {
        /// Which host.
        host: &'static str,
        /// What it printed.
        line: String,
    },
}

/// What came of one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The shell's exit status.
    pub status: u8,
    /// What was printed, both streams, without the last newline.
    pub text: String,
}

/// A running emulated host: a shell that takes one step at a time. Dropping it switches it off.
#[derive(Debug)]
pub struct Machine {
    name: &'static str,
    address: &'static str,
    qemu: Child,
    lines: Receiver<String>,
    /// Everything printed so far.
    printed: Vec<String>,
    stood_still: bool,
    /// The first line of the step.
    step: usize,
    /// The first line that nobody has waited for.
    unseen: usize,
}

impl Machine {
    /// Switches a host without a network on, and waits for its shell for at most `patience`.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn boot(
        tools: &Tools,
        model: Model,
        initramfs: &Path,
        patience: Duration,
    ) -> Result<Self, MachineError> {
        let mut machine = Self::start(tools, model, None, initramfs)?;
        machine.wait_for(BOOTED, patience)?;
        Ok(machine)
    }

    /// Switches two hosts on that a network joins, and waits for their shells for at most
    /// `patience` each.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn boot_pair(
        tools: &Tools,
        models: [Model; 2],
        initramfs: &Path,
        patience: Duration,
    ) -> Result<[Self; 2], MachineError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut first = Self::start(tools, models[0], Some(Cable::First(port)), initramfs)?;
        let end = Instant::now() + LISTENS_MAX;
        // To try a connection would be to take it.
        while !listens(port)? && first.qemu.try_wait()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut second = Self::start(tools, models[1], Some(Cable::Second(port)), initramfs)?;
        first.wait_for(BOOTED, patience)?;
        second.wait_for(BOOTED, patience)?;
        Ok([first, second])
    }

    fn start(
        tools: &Tools,
        model: Model,
        cable: Option<Cable>,
        initramfs: &Path,
    ) -> Result<Self, MachineError> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", ACCELERATOR, "-display", "none", "-no-reboot"]);
        command.args(["-nodefaults", "-serial", "stdio"]);
        command.args(["-cpu", &format!("{},+svm,+npt", model.name)]);
        command.args(["-smp", &model.lps.to_string()]);
        command.args(["-m", &model.memory_mib.to_string()]);
        command.arg("-kernel").arg(&tools.kernel);
        command.arg("-initrd").arg(initramfs);
        let mut append = String::from(KERNEL_PARAMETERS);
        let mut address = "127.0.0.1";
        if let Some(cable) = cable {
            let (end, number, here) = match cable {
                Cable::First(port) => (format!("listen=127.0.0.1:{port}"), 1, ADDRESSES[0]),
                Cable::Second(port) => (format!("connect=127.0.0.1:{port}"), 2, ADDRESSES[1]),
            };
            address = here;
            command.args(["-netdev", &format!("socket,id=cable,{end}")]);
            let device = format!("virtio-net-pci,netdev=cable,mac=52:54:00:00:00:0{number}");
            command.args(["-device", &device]);
            append += &format!(" limosa.address={address}");
        }
        command.args(["-append", &append]);
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (sender, lines) = channel();
        if let (Some(console), Some(complaints)) = (qemu.stdout.take(), qemu.stderr.take()) {
            forward(console, sender.clone());
            forward(complaints, sender);
        }
        Ok(Self {
            name: model.name,
            address,
            qemu,
            lines,
            printed: Vec::new(),
            stood_still: false,
            step: 0,
            unseen: 0,
        })
    }

    /// Its model, as QEMU calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether its kernel ever said that its processors did not run for long: the emulation stood
    /// still, so whatever failed then says nothing about what was tested.
    pub fn stood_still(&mut self) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.note(line);
        }
        self.stood_still
    }

    fn note(&mut self, line: String) {
        self.stood_still |= STOOD_STILL.iter().any(|words| line.contains(words));
        self.printed.push(line);
    }

    /// Where the other host of its network reaches it; `127.0.0.1` without a network.
    #[must_use]
    pub fn address(&self) -> &'static str {
        self.address
    }

    /// Tells the host to do `step`, one line of shell. Another one may begin when this has
    /// [ended](Self::end).
    ///
    /// # Errors
    /// [`MachineError::Qemu`] when the host has ended.
    ///
    /// # Panics
    /// When `step` has more than one line, or more than a terminal takes.
    pub fn begin(&mut self, step: &str) -> Result<(), MachineError> {
        assert!(!step.contains('\n') && step.len() < 4000, "{step}");
        self.step = self.printed.len();
        self.unseen = self.step;
        if let Some(console) = &mut self.qemu.stdin {
            writeln!(console, "{step}")?;
            console.flush()?;
        }
        Ok(())
    }

    /// Waits for the end of the step that began last.
    ///
    /// # Errors
    /// [`MachineError`] when it does not come within `patience`.
    pub fn end(&mut self, patience: Duration) -> Result<Outcome, MachineError> {
        self.wait_for(STEP_ENDED, patience)?;
        let mut said = self.printed.split_off(self.step);
        let line = said.pop().unwrap_or_default();
        let (before, status) = line.split_once(STEP_ENDED).unwrap_or_default();
        // The step's last line may have no newline.
        said.push(before.to_owned());
        let status = status.trim().parse();
        let host = self.name;
        let status = status.map_err(|_| MachineError::Status { host, line })?;
        let text = said.join("\n").trim_end().to_owned();
        Ok(Outcome { status, text })
    }

    /// Tells the host to do `step` and waits for its end.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and [`end`](Self::end).
    pub fn run(&mut self, step: &str, patience: Duration) -> Result<Outcome, MachineError> {
        self.begin(step)?;
        self.end(patience)
    }

    /// Waits until the host prints a line that contains `awaited`, after the last line that was
    /// waited for.
    ///
    /// # Errors
    /// [`MachineError::Absent`] when it does not come within `patience`.
    pub fn wait_for(&mut self, awaited: &str, patience: Duration) -> Result<(), MachineError> {
        let end = Instant::now() + patience;
        loop {
            let new = self.printed.get(self.unseen..).unwrap_or_default();
            if let Some(index) = new.iter().position(|line| line.contains(awaited)) {
                self.unseen += index + 1;
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            let why = match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.note(line);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => "in time",
                Err(RecvTimeoutError::Disconnected) => "before the host ended",
            };
            let first = self.printed.len().saturating_sub(LINES_REPEATED);
            return Err(MachineError::Absent {
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

/// Reads lines on a thread that ends with the stream; nobody has to wait for it.
fn forward(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            // Each model has some: they are what makes the host differ.
            let is_noise = line.contains("TCG doesn't support requested feature");
            if !is_noise && to.send(line).is_err() {
                break;
            }
        }
    });
}

/// Whether somebody listens on this port of 127.0.0.1, as the kernel tells.
fn listens(port: u16) -> std::io::Result<bool> {
    let address = format!("0100007F:{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp")?;
    let mut lines = sockets.lines().map(|line| line.split_whitespace());
    // 0A is TCP_LISTEN.
    Ok(lines.any(|mut line| line.nth(1) == Some(&address) && line.nth(1) == Some("0A")))
}
