//! The command `rivals`: one guest, moved by our engine and by another one in turn, so that what
//! the machine does meanwhile happens to both.

mod args;
mod cpu;
mod guard;
mod lines;
mod migrate;
mod net;
mod qemu;
mod qmp;
mod report;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

pub(crate) use self::args::RivalsArgs;
use self::args::{Landing, Setting};
pub(crate) use self::guard::{GuardArgs, become_it};
use self::migrate::{Arena, Bout};
use self::net::{check_congestion, system_congestion};
use self::qemu::Installed;
use self::report::{LandingReport, Move, Report, RivalFacts, SCHEMA};
use crate::args::{GuestChoice, RunArgs};
use crate::command_run::{USAGE, config_of, heed_signals, settle_guest};
use crate::facts::host_facts;
use crate::link::Link;
use crate::output::Words;
use crate::payload;
use crate::progress::{Bar, Show};
use crate::report::{Config, RunOutcome};
use crate::run::{Bench, RunCpu};

/// Distance of the guest's signs of life under a rival, each of which costs it some exits, and
/// longest time until it hears a command.
const HEARTBEAT: Duration = Duration::from_millis(20);

/// Longest time for a rival's move, without what the link takes: longer than any sensible setting
/// needs for a guest that can be moved.
const MOVE_MAX: Duration = Duration::from_secs(60);

/// Measures, reports, and says by the exit status how it went.
pub(crate) fn run(args: &RivalsArgs) -> Result<ExitCode> {
    let prepared = args.run_args().and_then(|run_args| {
        args.output.check(&[])?;
        let kernel =
            payload::elf(&run_args.guest, HEARTBEAT).map_err(|error| crate::in_one_line(&error))?;
        Ok((run_args, kernel))
    });
    let (run_args, kernel) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("migrate-bench: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let interrupted = heed_signals()?;
    let (_, reason) = settle_guest(GuestChoice::Kvm).context("rivals are measured on KVM")?;
    let installed = Installed::find(&args.qemu)?;
    if let Some(name) = &args.congestion {
        check_congestion(name)?;
    }
    let folder = tempfile::Builder::new()
        .prefix("migrate-bench-rivals-")
        .tempdir()
        .context("a folder for sockets")?;
    let program = folder.path().join("guest.elf");
    std::fs::write(&program, kernel)
        .with_context(|| format!("can't write {}", program.display()))?;
    let game = Game {
        args,
        run_args: &run_args,
        installed: &installed,
        folder: folder.path(),
        program: &program,
        reason: &reason,
        interrupted: &interrupted,
    };
    let report = game.play()?;
    let words = Words {
        table: table::show(&report),
        errors: table::errors(&report),
    };
    args.output.write(&report, &words)?;
    let asked = args.prealloc.landings().len();
    let landings = &report.landings;
    let good = landings.len() == asked && landings.iter().all(|it| it.is_good(args.repeat));
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One of those who move the guest in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    Ours,
    Theirs(Setting),
}

/// All of one command.
struct Game<'a> {
    args: &'a RivalsArgs,
    run_args: &'a RunArgs,
    installed: &'a Installed,
    folder: &'a Path,
    program: &'a Path,
    /// Why the guest is one on KVM.
    reason: &'a str,
    interrupted: &'a Arc<AtomicBool>,
}

impl Game<'_> {
    fn play(&self) -> Result<Report> {
        let mut landings = Vec::new();
        let mut config = None;
        for landing in self.args.prealloc.landings() {
            let (report, of_bench) = self.landing(*landing)?;
            landings.push(report);
            config = Some(of_bench);
            if self.interrupted.load(Ordering::Acquire) {
                break;
            }
        }
        Ok(Report {
            schema: SCHEMA.into(),
            config: config.context("no kind of target memory was asked for")?,
            rival: RivalFacts {
                name: "qemu".into(),
                path: self.installed.path.display().to_string(),
                version: self.installed.version.clone(),
                congestion: match &self.args.congestion {
                    Some(name) => name.clone(),
                    None => system_congestion(),
                },
            },
            host: host_facts(),
            landings,
        })
    }

    /// All rounds into one kind of target memory. Who begins changes from round to round; a setting
    /// of the rival that fails is not tried again.
    fn landing(&self, landing: Landing) -> Result<(LandingReport, Config)> {
        let run_args = landed(self.run_args, landing);
        let cpu = RunCpu::read(&run_args).map_err(|error| anyhow!("{error}"))?;
        let mut bench = Bench::new(&run_args, ("kvm", cpu), Arc::clone(self.interrupted))?;
        let mut link = self.args.link_rate.map_or(Link::Unshaped, Link::shaped);
        let mut movers = vec![Mover::Ours];
        movers.extend(self.args.all_settings().into_iter().map(Mover::Theirs));
        let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); movers.len() - 1]);
        let mut number = 0;
        'rounds: for round in 1..=self.args.repeat {
            for turn in 0..movers.len() {
                let at = (turn + round as usize - 1) % movers.len();
                let moved = match movers[at] {
                    Mover::Ours => bench.run().map(|run| Move::ours(round, &run)),
                    Mover::Theirs(_) if theirs[at - 1].iter().any(|it: &Move| !it.is_good()) => {
                        continue;
                    }
                    Mover::Theirs(setting) => {
                        number += 1;
                        let bout = Bout {
                            round,
                            setting,
                            landing,
                            number,
                        };
                        Ok(self.bout(bout, &mut link))
                    }
                };
                let broken_off = self.interrupted.load(Ordering::Acquire);
                match (moved, at.checked_sub(1)) {
                    (_, Some(_)) if broken_off => break 'rounds,
                    (Ok(moved), Some(setting)) => theirs[setting].push(moved),
                    (Ok(moved), None) => {
                        let go_on = moved.outcome == RunOutcome::Completed;
                        ours.push(moved);
                        if !go_on {
                            break 'rounds;
                        }
                    }
                    // What was measured before is not lost by it.
                    (Err(error), _) if !ours.is_empty() => {
                        eprintln!("migrate-bench: {}", crate::in_one_line(&error));
                        break 'rounds;
                    }
                    (Err(error), _) => return Err(error),
                }
            }
        }
        let names = self
            .args
            .all_settings()
            .into_iter()
            .map(|it| it.to_string());
        let report = LandingReport::new(landing.name(), ours, names.zip(theirs).collect());
        let config = config_of(&run_args, &bench, "kvm", self.reason);
        Ok((report, config))
    }

    /// One move by the rival; what goes wrong is its result.
    fn bout(&self, bout: Bout, link: &mut Link) -> Move {
        let guest = &self.run_args.guest;
        let bar = Bar::new(self.show(), guest.memory);
        let Bout { setting, round, .. } = bout;
        bar.say(&format!("QEMU {setting}, round {round}"));
        let backing = guest.backing.to_string();
        let arena = Arena {
            installed: self.installed,
            folder: self.folder,
            kernel: self.program,
            memory_bytes: guest.memory,
            backing: &backing,
            transport: self.args.transport,
            congestion: self.args.congestion.as_deref(),
            downtime: self.args.link.downtime,
            move_max: self.move_max(),
            stop: self.interrupted,
        };
        let moved = arena.fight(bout, link);
        bar.end();
        moved.unwrap_or_else(|error| Move::failed(round, crate::in_one_line(&error)))
    }

    /// Twice what the link takes for all memory, where it has a rate.
    fn move_max(&self) -> Duration {
        let memory = self.run_args.guest.memory;
        let rate = self.args.link_rate;
        MOVE_MAX + rate.map_or(Duration::ZERO, |rate| 2 * rate.time_for(memory))
    }

    const fn show(&self) -> Show {
        if self.args.output.quiet {
            Show::Nothing
        } else {
            Show::Live
        }
    }
}

/// The options of our own moves into this kind of memory.
fn landed(args: &RunArgs, landing: Landing) -> RunArgs {
    RunArgs {
        populated: landing == Landing::Populated,
        ..args.clone()
    }
}
