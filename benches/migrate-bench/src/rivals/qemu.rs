//! A QEMU process with one guest or the wish for one: started, spoken to, and never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::args::Landing;
use super::cpu::CpuTimes;
use super::guard::guarded;
use super::lines::{Lines, Patience};
use super::net::Net;
use super::qmp::{ANSWER_MAX, Event, Qmp};

/// Longest time for a QEMU to greet; populating memory comes before.
const START_MAX: Duration = Duration::from_secs(120);
/// How much of what QEMU complained about is quoted.
const COMPLAINT_BYTES_MAX: usize = 600;

/// The QEMU that is installed here.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) path: PathBuf,
    /// Its own words.
    pub(crate) version: String,
}

impl Installed {
    /// Asks it for its version.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        let shown = path.display();
        let answer = Command::new(path).arg("--version").output();
        let answer = answer.with_context(|| {
            format!(
                "there is no QEMU at `{shown}`: install it (Debian: apt-get install \
                 qemu-system-x86) or name another one with --qemu PATH"
            )
        })?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let version = text.lines().next().unwrap_or_default().trim();
        if !answer.status.success() || !version.starts_with("QEMU emulator version") {
            let errors = String::from_utf8_lossy(&answer.stderr);
            let said = if version.is_empty() {
                errors.trim()
            } else {
                version
            };
            bail!("`{shown} --version` shows no QEMU: {said}");
        }
        Ok(Self {
            path: path.to_owned(),
            version: version.to_owned(),
        })
    }
}

/// What to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) installed: &'a Installed,
    /// Where its sockets and its complaints are kept.
    pub(crate) folder: &'a Path,
    /// Names those; of its own for each process.
    pub(crate) name: &'a str,
    pub(crate) memory_bytes: u64,
    /// `anonymous` or `memfd`.
    pub(crate) backing: &'a str,
    pub(crate) role: Role<'a>,
    pub(crate) net: Net<'a>,
}

/// Where the guest comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role<'a> {
    /// It boots here.
    Source { kernel: &'a Path },
    /// It is to come, into memory like this.
    Target { landing: Landing, kernel: &'a Path },
}

impl Wish<'_> {
    fn socket(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    /// QEMU's command line. The machine's memory is laid out as our own guests' is: a hole from 3
    /// to 4 GiB.
    fn words(&self) -> Vec<String> {
        let bytes = self.memory_bytes;
        let (kernel, prealloc) = match self.role {
            Role::Source { kernel }
            | Role::Target {
                landing: Landing::Fresh,
                kernel,
            } => (kernel, "prealloc=off".into()),
            Role::Target {
                landing: Landing::Populated,
                kernel,
            } => {
                let lps = std::thread::available_parallelism().map_or(1, usize::from);
                (kernel, format!("prealloc=on,prealloc-threads={lps}"))
            }
        };
        let memory = match self.backing {
            "memfd" => "memory-backend-memfd,share=on",
            _ => "memory-backend-ram,share=off",
        };
        let mut words = vec![
            format!("-name {}", self.name),
            "-machine pc,accel=kvm,memory-backend=ram,max-ram-below-4g=3G".into(),
            "-cpu host,-arch-capabilities".into(),
            "-smp 1".into(),
            format!("-m {bytes}B"),
            format!("-object {memory},id=ram,size={bytes},{prealloc}"),
            "-nodefaults -no-user-config -no-reboot -display none".into(),
            "-serial chardev:serial".into(),
        ];
        if let Role::Target { .. } = self.role {
            words.push("-incoming defer".into());
        }
        let mut words: Vec<String> = words
            .iter()
            .flat_map(|pair| pair.split(' '))
            .map(String::from)
            .collect();
        // Paths may hold spaces, and commas, which QEMU wants doubled.
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        let listen = "server=on,wait=off";
        words.extend([
            "-chardev".into(),
            format!(
                "socket,id=serial,path={},{listen}",
                path(&self.socket("serial"))
            ),
            "-qmp".into(),
            format!("unix:{},{listen}", path(&self.socket("qmp"))),
            "-kernel".into(),
            kernel.display().to_string(),
        ]);
        words
    }
}

/// The process alone. Dropping it kills it and waits for it.
#[derive(Debug)]
struct Process {
    child: Child,
    complaints: PathBuf,
}

impl Process {
    fn start(wish: &Wish<'_>) -> Result<Self> {
        let complaints = wish.folder.join(format!("{}.err", wish.name));
        let errors = File::create(&complaints).context("a file for QEMU's errors")?;
        let (place, program, words) = wish.net.around(&wish.installed.path, wish.words());
        let child = guarded(place, &program, &words)?
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()
            .context("can't start a process for QEMU")?;
        Ok(Self { child, complaints })
    }

    /// Adds what QEMU said before it failed.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let text = fs::read(&self.complaints).unwrap_or_default();
        let from = text.len().saturating_sub(COMPLAINT_BYTES_MAX);
        let text = String::from_utf8_lossy(&text[from..]);
        let text = text.trim().replace('\n', "; ");
        if text.is_empty() {
            error
        } else {
            error.context(format!("QEMU says: {text}"))
        }
    }

    /// Connects to a socket that it is about to make.
    fn connect(&mut self, path: &Path, until: Patience<'_>) -> Result<Lines> {
        loop {
            if let Some(lines) = Lines::connect(path)? {
                return Ok(lines);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("QEMU ended as soon as it was started ({status})");
            }
            if until.is_over()? {
                bail!("QEMU did not come up in time");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A QEMU that can be spoken to.
#[derive(Debug)]
pub(crate) struct Qemu<'a> {
    process: Process,
    qmp: Qmp,
    serial: Lines,
    vcpus: Vec<u64>,
    stop: &'a AtomicBool,
}

impl<'a> Qemu<'a> {
    /// Starts it, and returns once it takes commands; `begun` hears of its process id before it
    /// takes memory.
    pub(crate) fn start(
        wish: &Wish<'_>,
        stop: &'a AtomicBool,
        begun: impl FnOnce(u32),
    ) -> Result<Self> {
        let mut process = Process::start(wish)?;
        begun(process.child.id());
        let until = Patience::new(stop, START_MAX);
        let mut up = || -> Result<_> {
            let lines = process.connect(&wish.socket("qmp"), until)?;
            let serial = process.connect(&wish.socket("serial"), until)?;
            let mut qmp = Qmp::greet(lines, until)?;
            let vcpus = vcpus(&qmp.call("query-cpus-fast", &json!({}), until)?);
            Ok((qmp, serial, vcpus))
        };
        match up() {
            Ok((qmp, serial, vcpus)) => Ok(Self {
                process,
                qmp,
                serial,
                vcpus,
                stop,
            }),
            Err(error) => Err(process.explain(error)),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Gives a command and waits for its answer.
    pub(crate) fn call(&mut self, name: &str, with: &Value) -> Result<Value> {
        let until = Patience::new(self.stop, ANSWER_MAX);
        let answer = self.qmp.call(name, with, until);
        answer.map_err(|error| self.process.explain(error))
    }

    /// The next event within `longest`.
    pub(crate) fn event(&mut self, longest: Duration) -> Result<Option<Event>> {
        let event = self.qmp.event(Patience::new(self.stop, longest));
        event.map_err(|error| self.process.explain(error))
    }

    /// Sends the guest a letter on its serial port, if any, and waits for the line that begins with
    /// one of `answers`.
    pub(crate) fn serial(
        &mut self,
        letter: Option<u8>,
        answers: &[char],
        longest: Duration,
    ) -> Result<String> {
        let until = Patience::new(self.stop, longest);
        if let Some(letter) = letter {
            self.serial
                .send(&[letter])
                .context("the guest's serial port")?;
        }
        while let Some(line) = self
            .serial
            .next(until)
            .map_err(|error| self.process.explain(error))
            .context("the guest's serial port")?
        {
            // Dots are signs of life; a `B` is the first one.
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_start_matches(['.', 'B']);
            if line.starts_with('!') {
                bail!("the guest stopped by an exception: {line}");
            }
            if line.starts_with(answers) {
                return Ok(line.to_owned());
            }
        }
        Err(self.process.explain(anyhow::anyhow!(
            "the guest did not answer on its serial port within {longest:?}"
        )))
    }

    /// CPU time that it has used so far.
    pub(crate) fn cpu(&self) -> Result<CpuTimes> {
        CpuTimes::of(self.id(), &self.vcpus)
    }

    /// Adds what it said before something failed.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        self.process.explain(error)
    }
}

/// Threads that run the guest, of an answer to `query-cpus-fast`.
fn vcpus(answer: &Value) -> Vec<u64> {
    let cpus = answer.as_array().into_iter().flatten();
    cpus.filter_map(|cpu| cpu["thread-id"].as_u64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Place;

    fn words(role: Role<'_>, folder: &str) -> String {
        let installed = Installed {
            path: "qemu".into(),
            version: String::new(),
        };
        let wish = Wish {
            installed: &installed,
            folder: Path::new(folder),
            name: "a",
            memory_bytes: 1 << 30,
            backing: "anonymous",
            role,
            net: Net::At(Place::Here),
        };
        wish.words().join(" ")
    }

    #[test]
    fn only_a_target_that_asks_is_populated() {
        let kernel = Path::new("k.elf");
        let source = words(Role::Source { kernel }, "/f");
        assert!(source.contains("size=1073741824,prealloc=off"), "{source}");
        assert!(!source.contains("-incoming"), "{source}");
        let landing = Landing::Populated;
        let target = words(Role::Target { landing, kernel }, "/f");
        assert!(target.contains("prealloc=on,prealloc-threads="), "{target}");
        assert!(target.contains("-incoming defer"), "{target}");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let kernel = Path::new("k.elf");
        let line = words(Role::Source { kernel }, "/a,b");
        assert!(line.contains("path=/a,,b/a.serial,server"), "{line}");
    }

    #[test]
    fn what_is_no_qemu_is_told_apart() {
        let error = Installed::find(Path::new("/nonexistent/qemu")).unwrap_err();
        assert!(format!("{error:#}").contains("--qemu PATH"), "{error:#}");
        let error = Installed::find(Path::new("/bin/true")).unwrap_err();
        assert!(format!("{error:#}").contains("shows no QEMU"), "{error:#}");
    }

    #[test]
    fn vcpus_are_threads() {
        let answer = json!([{ "thread-id": 7, "cpu-index": 0 }, { "thread-id": 9 }]);
        assert_eq!(vcpus(&answer), [7, 9]);
    }
}
