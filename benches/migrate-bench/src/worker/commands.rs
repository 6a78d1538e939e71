//! `source` and `target`: one host each, driven from the command line.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use limosa::{CancelToken, Endpoint};
use serde::Serialize;

use crate::args::{LinkArgs, OutputArgs, SourceArgs, TargetArgs, TraceArgs};
use crate::command_run::settle_guest;
use crate::compat::read_host;
use crate::orders::{cpu_order, guest_order, link_order, tracking_for};
use crate::plot;
use crate::progress::{Bar, Show};
use crate::protocol::{CpuFacts, Ending, GuestOrder, SourceSide, TargetSide};
use crate::units::show_ms;
use crate::worker::guest::{AnyGuest, boot, check, sight};
use crate::worker::steer::{Hands, follow};
use crate::worker::{READY_MAX, cpu, moving};

/// Boots a guest here and moves it to a target that listens elsewhere.
pub(crate) fn source(args: &SourceArgs) -> Result<ExitCode> {
    let cancel = cancel_on_signal()?;
    let (kind, reason) = settle_guest(args.guest.guest)?;
    if let Err(error) = crate::worker::check_guest(&args.guest, &args.link, kind) {
        return Ok(wrong_usage(&crate::in_one_line(&error)));
    }
    let writable = args.output.check(&args.trace.files());
    let cpu = match writable.and_then(|()| cpu_order(&args.cpu)) {
        Ok(cpu) => cpu,
        Err(error) => return Ok(wrong_usage(&error)),
    };
    eprintln!("guest: {kind} ({reason}); booting and filling its memory");
    let order = GuestOrder {
        cpu,
        tracking: tracking_for(&args.guest, &args.link, kind)?.to_string(),
        ..guest_order(&args.guest, kind)
    };
    let mut guest = boot(&order)?;
    guest.workload().wait_ready(READY_MAX)?;
    let compat = cpu::facts(&guest, &order.cpu)?;
    if !args.output.quiet {
        eprintln!("{}", compat.words());
    }
    let way = Way {
        endpoint: &args.to,
        link: &args.link,
        output: &args.output,
        trace: &args.trace,
        verify: args.guest.verify,
    };
    let hands = Hands::from(cancel);
    if args.steer {
        let lines = std::io::BufReader::new(std::io::stdin());
        follow(lines, &link_order(&args.link), hands.clone());
    }
    let side = way.send(&mut guest, &hands)?;
    let report = SourceJson {
        side: &side,
        compat: &compat,
    };
    args.output.write_json(&report)?;
    way.conclude(&guest, &side)
}

/// What `source` writes.
#[derive(Serialize)]
struct SourceJson<'a> {
    #[serde(flatten)]
    side: &'a SourceSide,
    compat: &'a CpuFacts,
}

fn wrong_usage(error: &str) -> ExitCode {
    eprintln!("migrate-bench: {error}");
    ExitCode::from(crate::command_run::USAGE)
}

/// A move from here that was asked for on the command line.
struct Way<'a> {
    endpoint: &'a Endpoint,
    link: &'a LinkArgs,
    output: &'a OutputArgs,
    trace: &'a TraceArgs,
    /// Whether a guest that stays is to check its memory.
    verify: bool,
}

impl Way<'_> {
    /// Moves the guest, shows how far it is, and what it took.
    fn send(&self, guest: &mut AnyGuest, hands: &Hands) -> Result<SourceSide> {
        let show = if self.output.quiet {
            Show::Nothing
        } else {
            Show::Live
        };
        let guest_bytes = guest.workload().pages().ram().map().page_count().bytes();
        let bar = Bar::new(show, guest_bytes);
        let (endpoint, link) = (self.endpoint.to_string(), link_order(self.link));
        let side = moving::send(guest, &endpoint, &link, hands, &mut |answer| {
            bar.on_progress(answer);
        })?;
        bar.end();
        let picture = || Some(plot::of_source(&side, guest_bytes, (&endpoint, &link)));
        self.trace.write(picture, [&side.timeline])?;
        if let (Some(figures), false) = (&side.figures, self.output.quiet) {
            eprintln!(
                "{}: total {}, downtime {}, {} rounds",
                side.ending.outcome,
                show_ms(figures.total_ms),
                show_ms(figures.downtime_ms),
                figures.rounds.len()
            );
        }
        Ok(side)
    }

    /// The exit status, once a guest that stayed has been checked if asked.
    fn conclude(&self, guest: &AnyGuest, side: &SourceSide) -> Result<ExitCode> {
        let status = status_of(&side.ending);
        let stays = side.ending.custody == "source";
        Ok(if self.verify && stays && !verify(guest)? {
            ExitCode::FAILURE
        } else {
            status
        })
    }
}

/// Waits for one guest, takes it in, and lets it run until a signal comes, or moves it on.
pub(crate) fn target(args: &TargetArgs) -> Result<ExitCode> {
    let cancel = cancel_on_signal()?;
    let (kind, reason) = settle_guest(args.guest)?;
    let writable = args.output.check(&args.trace.files());
    let pretend = args.as_host.as_deref().map(read_host).transpose();
    let pretend = match writable.and(pretend) {
        Ok(pretend) => pretend,
        Err(error) => return Ok(wrong_usage(&error)),
    };
    let wish = moving::Listen {
        endpoint: args.listen.to_string(),
        kind: kind.into(),
        backing: args.backing.to_string(),
        tracking: args.tracking.to_string(),
        io: args.link.io.to_string(),
        staging: args.link.staging.to_string(),
        digest: false,
        memory_bytes_max: args.memory_max,
        populated_bytes: None,
        room_bytes: args.room,
        pretend: pretend.map(|host| host.0),
    };
    let (guest, side) = moving::listen(&wish, &cancel, |endpoint| {
        eprintln!("guests: {kind} ({reason}); listening on {endpoint}");
    })?;
    if args.onward.is_none() || guest.is_none() {
        args.output.write_json(&side)?;
    }
    let Some(mut guest) = guest else {
        return Ok(status_of(&side.ending));
    };
    let seen = sight(&guest)?;
    let gap = seen.gap_ms.map_or_else(|| "nothing".into(), show_ms);
    eprintln!("the guest runs here; it saw a gap of {gap}");
    if args.verify && !verify(&guest)? {
        return Ok(ExitCode::FAILURE);
    }
    if let Some(endpoint) = &args.onward {
        return onward(args, endpoint, (&mut guest, side), &cancel);
    }
    if args.verify {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("it runs until this command is interrupted");
    while !cancel.is_cancelled() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(ExitCode::SUCCESS)
}

/// Moves a guest on that arrived here.
fn onward(
    args: &TargetArgs,
    endpoint: &Endpoint,
    (guest, arrival): (&mut AnyGuest, TargetSide),
    cancel: &CancelToken,
) -> Result<ExitCode> {
    if !args.output.quiet {
        eprintln!("moving it on to {endpoint}");
    }
    let way = Way {
        endpoint,
        link: &args.link,
        output: &args.output,
        trace: &args.trace,
        verify: args.verify,
    };
    let side = way.send(guest, &cancel.clone().into())?;
    let both = TargetSide {
        onward: Some(side.clone()),
        ..arrival
    };
    args.output.write_json(&both)?;
    way.conclude(guest, &side)
}

/// Lets the guest check all its memory and its processor, and says what it found.
fn verify(guest: &AnyGuest) -> Result<bool> {
    let checked = check(guest)?;
    if checked.ok {
        eprintln!("the guest found all its memory right");
    } else {
        eprintln!("migrate-bench: {}", checked.detail);
    }
    let differences = checked.processor.as_deref().unwrap_or_default();
    match checked.processor {
        // A guest that reads none.
        None => {}
        Some(_) if differences.is_empty() => {
            eprintln!("the guest reads the processor that it was promised");
        }
        Some(_) => eprintln!("migrate-bench: {}:", cpu::READS_ANOTHER),
    }
    for difference in differences {
        eprintln!("  {difference}");
    }
    Ok(checked.ok && differences.is_empty())
}

/// A token that the first SIGINT or SIGTERM uses; the second one ends this process.
fn cancel_on_signal() -> Result<CancelToken> {
    let cancel = CancelToken::new();
    let raised = crate::command_run::heed_signals()?;
    let token = cancel.clone();
    std::thread::spawn(move || {
        while !raised.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
        token.cancel();
    });
    Ok(cancel)
}

fn status_of(ending: &Ending) -> ExitCode {
    if let Some(words) = ending.words(None) {
        eprint!("migrate-bench: {words}");
    }
    match ending.outcome.as_str() {
        "completed" => ExitCode::SUCCESS,
        "refused" => ExitCode::from(crate::command_run::REFUSED),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_status_of_its_own() {
        let ending = Ending {
            outcome: "refused".into(),
            custody: "source".into(),
            error: Some("no".into()),
            refused_at: None,
            reasons: Vec::new(),
        };
        assert_eq!(status_of(&ending), ExitCode::from(3));
    }
}
