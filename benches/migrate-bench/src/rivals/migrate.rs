//! One migration between two QEMU processes, warm memory before it and the guest's verdict after.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::args::{Landing, Setting};
use super::net::Net;
use super::qemu::{Installed, Qemu, Role, Wish};
use super::report::{Move, cpu_s_per_gib};
use crate::args::Transport;
use crate::link::{End, Link, Namespace, Place};
use crate::report::{Check, CpuSeconds, RunOutcome};
use crate::run::gib_s;
use crate::warm::WarmMemory;

/// Longest time to boot the guest and fill its memory.
const BOOT_MAX: Duration = Duration::from_secs(300);
/// Longest time for the guest's check of all its memory.
const CHECK_MAX: Duration = Duration::from_secs(240);
/// Longest time for the guest's word on its longest gap, and for QEMU's last word.
const WORD_MAX: Duration = Duration::from_secs(20);
/// More than any link has: QEMU's own default would hold it back.
const BANDWIDTH_MAX: u64 = 1 << 40;

/// What is the same in all migrations of one command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arena<'a> {
    pub(crate) installed: &'a Installed,
    pub(crate) folder: &'a Path,
    /// The guest's program.
    pub(crate) kernel: &'a Path,
    pub(crate) memory_bytes: u64,
    pub(crate) backing: &'a str,
    pub(crate) transport: Transport,
    /// Another congestion control than the system's.
    pub(crate) congestion: Option<&'a str>,
    pub(crate) downtime: Duration,
    /// Longest time for a move.
    pub(crate) move_max: Duration,
    pub(crate) stop: &'a AtomicBool,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bout {
    pub(crate) round: u32,
    pub(crate) setting: Setting,
    pub(crate) landing: Landing,
    /// Of its own for each bout.
    pub(crate) number: u32,
}

impl Arena<'_> {
    /// Boots a guest in a fresh QEMU, moves it to another one, and lets it check itself there; an
    /// error where it could not be moved.
    pub(crate) fn fight(&self, bout: Bout, link: &mut Link) -> Result<Move> {
        let kernel = self.kernel;
        let source = format!("source-{}", bout.number);
        let net = self.net(link, End::Source, None);
        let mut source = self.qemu(&source, (Role::Source { kernel }, net), |_| ())?;
        source
            .serial(None, &['F'], BOOT_MAX)
            .context("the guest did not start under QEMU")?;
        let mut warm = WarmMemory::new(self.memory_bytes);
        warm.settle();
        let name = format!("target-{}", bout.number);
        let role = Role::Target {
            landing: bout.landing,
            kernel,
        };
        let net = self.net(link, End::Target, Some(source.id()));
        let mut target = self.qemu(&name, (role, net), |id| match bout.landing {
            // It takes its memory before it is spoken to.
            Landing::Populated => warm.release_ahead_of(id),
            Landing::Fresh => {}
        })?;
        for (side, qemu) in [("source", &mut source), ("target", &mut target)] {
            self.set_up(qemu, bout.setting)
                .with_context(|| format!("QEMU as the {side}"))?;
        }
        let to = self.listen(&mut target, bout.number, link)?;
        if bout.landing == Landing::Fresh {
            warm.release_ahead_of(target.id());
        }
        let moved = self.measure(bout, &mut source, &mut target, &to)?;
        drop(warm);
        let verdict = target.serial(Some(b'V'), &['K', 'X'], CHECK_MAX)?;
        Ok(match verdict.strip_prefix('X') {
            None => moved,
            Some(pages) => Move {
                verified: Check::Failed,
                error: Some(format!(
                    "the guest found its memory wrong (pages, first address): {pages}"
                )),
                ..moved
            },
        })
    }

    fn qemu(
        &self,
        name: &str,
        (role, net): (Role<'_>, Net<'_>),
        begun: impl FnOnce(u32),
    ) -> Result<Qemu<'_>> {
        let wish = Wish {
            installed: self.installed,
            folder: self.folder,
            name,
            memory_bytes: self.memory_bytes,
            backing: self.backing,
            role,
            net,
        };
        Qemu::start(&wish, self.stop, begun)
    }

    /// Where a side opens its sockets; where that is a network of the rival's own, the source has
    /// it first.
    fn net(&self, link: &Link, end: End, first: Option<u32>) -> Net<'_> {
        let place = link.place(end);
        match (place, self.congestion, first) {
            (_, None, _) => Net::At(place),
            (Place::In(_), Some(congestion), _) => Net::Choosing { place, congestion },
            (Place::Here, Some(congestion), None) => Net::New { congestion },
            (Place::Here, Some(_), Some(id)) => Net::At(Place::In(Namespace::of_process(id))),
        }
    }

    /// Both sides are told the same.
    fn set_up(&self, qemu: &mut Qemu<'_>, setting: Setting) -> Result<()> {
        let mut capabilities = vec![json!({ "capability": "events", "state": true })];
        let mut parameters = json!({
            "max-bandwidth": BANDWIDTH_MAX,
            "downtime-limit": self.downtime.as_millis() as u64,
        });
        if let Setting::Multifd {
            channels,
            compression,
        } = setting
        {
            capabilities.push(json!({ "capability": "multifd", "state": true }));
            parameters["multifd-channels"] = channels.into();
            parameters["multifd-compression"] = compression.name().into();
        }
        let capabilities = json!({ "capabilities": capabilities });
        qemu.call("migrate-set-capabilities", &capabilities)?;
        qemu.call("migrate-set-parameters", &parameters)?;
        Ok(())
    }

    /// Lets the target listen; returns what the source connects to.
    fn listen(&self, target: &mut Qemu<'_>, number: u32, link: &mut Link) -> Result<String> {
        if self.transport == Transport::Unix {
            let path: PathBuf = self.folder.join(format!("pages-{number}"));
            let uri = format!("unix:{}", path.display());
            target.call("migrate-incoming", &json!({ "uri": uri }))?;
            return Ok(uri);
        }
        // Addresses begin with `tcp://` for us, with `tcp:` for QEMU.
        let at = link.listen_at(End::Target).replace("//", "");
        target.call("migrate-incoming", &json!({ "uri": at }))?;
        let state = target.call("query-migrate", &json!({}))?;
        let address = &state["socket-address"][0];
        let (Some(host), Some(port)) = (address["host"].as_str(), address["port"].as_str()) else {
            bail!("QEMU does not say where it listens: {state}");
        };
        Ok(link
            .way_to(&format!("tcp://{host}:{port}"))?
            .replace("//", ""))
    }

    /// From the order to move until the guest has spoken on the target.
    fn measure(
        &self,
        bout: Bout,
        source: &mut Qemu<'_>,
        target: &mut Qemu<'_>,
        to: &str,
    ) -> Result<Move> {
        // The longest gap is counted anew from here on.
        source.serial(Some(b'G'), &['G'], WORD_MAX)?;
        let begun = [source.cpu()?, target.cpu()?];
        let order = Instant::now();
        source.call("migrate", &json!({ "uri": to }))?;
        if let Err(error) = completed(source, self.move_max) {
            return Err(target.explain(error));
        }
        let runs = running(target)?;
        let [source_cpu, target_cpu] = [source.cpu()?, target.cpu()?];
        let state = figures(source)?;
        let gap = target
            .serial(Some(b'G'), &['G'], WORD_MAX)
            .context("after the move")?;
        let (source_s, vcpu_source_s) = source_cpu.since(begun[0]);
        let (target_s, vcpu_target_s) = target_cpu.since(begun[1]);
        let cpu_s = CpuSeconds {
            source: source_s,
            target: Some(target_s),
            vcpu_source: vcpu_source_s,
            vcpu_target: Some(vcpu_target_s),
        };
        let total_ms = state["total-time"].as_f64();
        Ok(Move {
            round: bout.round,
            outcome: RunOutcome::Completed,
            error: None,
            total_ms,
            running_ms: Some((runs - order).as_secs_f64() * 1e3),
            downtime_ms: state["downtime"].as_f64(),
            gap_ms: Some(nanoseconds(&gap)? as f64 / 1e6),
            wire_bytes: state["ram"]["transferred"].as_u64(),
            throughput_gib_s: total_ms.map(|ms| gib_s(self.memory_bytes, ms)),
            cpu_s,
            cpu_s_per_gib: cpu_s_per_gib(&cpu_s, self.memory_bytes),
            verified: Check::Ok,
        })
    }
}

/// Waits for the source's word that everything is sent; gives up where that takes too long.
fn completed(source: &mut Qemu<'_>, longest: Duration) -> Result<()> {
    let end = Instant::now() + longest;
    loop {
        let Some(event) = source.event(end.saturating_duration_since(Instant::now()))? else {
            break;
        };
        match (event.name.as_str(), event.data["status"].as_str()) {
            ("MIGRATION", Some("completed")) => return Ok(()),
            ("MIGRATION", Some("failed" | "cancelled")) => {
                let state = source.call("query-migrate", &json!({}))?;
                let why = state["error-desc"]
                    .as_str()
                    .unwrap_or("it does not say why");
                return Err(source.explain(anyhow!("QEMU's migration failed: {why}")));
            }
            _ => {}
        }
    }
    let state = source.call("query-migrate", &json!({}))?;
    bail!(
        "QEMU did not get the guest over within {longest:?}: {} bytes remain, the guest writes \
         {} pages/s",
        state["ram"]["remaining"],
        state["ram"]["dirty-pages-rate"],
    )
}

/// When the guest ran on the target.
fn running(target: &mut Qemu<'_>) -> Result<Instant> {
    let end = Instant::now() + WORD_MAX;
    while let Some(event) = target.event(end.saturating_duration_since(Instant::now()))? {
        if event.name == "RESUME" {
            return Ok(event.at);
        }
    }
    Err(target.explain(anyhow!("QEMU's target did not resume the guest")))
}

/// The source's figures, which may come a moment after its word that all is done.
fn figures(source: &mut Qemu<'_>) -> Result<Value> {
    let end = Instant::now() + WORD_MAX;
    loop {
        let state = source.call("query-migrate", &json!({}))?;
        if state["total-time"].is_number() && state["downtime"].is_number() {
            return Ok(state);
        }
        if Instant::now() > end {
            bail!("QEMU gives no figures of its migration: {state}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number of an answer on the serial port: a letter and 16 hexadecimal digits.
fn nanoseconds(line: &str) -> Result<u64> {
    let digits = line.get(1..17).unwrap_or_default();
    u64::from_str_radix(digits, 16).with_context(|| format!("`{line}` is no answer of the guest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_guest_are_hexadecimal() {
        assert_eq!(nanoseconds("G00000000000f4240").unwrap(), 1_000_000);
        assert!(nanoseconds("G12").is_err());
        assert!(nanoseconds("Gzzzzzzzzzzzzzzzz").is_err());
    }
}
