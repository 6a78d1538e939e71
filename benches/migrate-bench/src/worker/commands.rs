//! `source` and `target`: one host each, driven from the command line.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use limosa::CancelToken;

use crate::args::{SourceArgs, TargetArgs};
use crate::command_run::settle_guest;
use crate::orders::{guest_order, link_order};
use crate::progress::{Bar, Show};
use crate::protocol::Ending;
use crate::units::show_ms;
use crate::worker::guest::{AnyGuest, Checked, boot, check, sight};
use crate::worker::{READY_MAX, moving};

/// Boots a guest here and moves it to a target that listens elsewhere.
pub(crate) fn source(args: &SourceArgs) -> Result<ExitCode> {
    let cancel = cancel_on_signal()?;
    let (kind, reason) = settle_guest(args.guest.guest)?;
    if let Err(error) = crate::worker::check_guest(&args.guest, kind) {
        eprintln!("migrate-bench: {}", crate::in_one_line(&error));
        return Ok(ExitCode::from(crate::command_run::USAGE));
    }
    eprintln!("guest: {kind} ({reason}); booting and filling its memory");
    let mut guest = boot(&guest_order(&args.guest, kind))?;
    guest.workload().wait_ready(READY_MAX)?;
    let show = if args.output.quiet {
        Show::Nothing
    } else {
        Show::Live
    };
    let bar = Bar::new(show, args.guest.memory);
    let link = link_order(&args.link);
    let side = moving::send(
        &mut guest,
        &args.to.to_string(),
        &link,
        &cancel,
        &mut |answer| {
            bar.on_progress(answer);
        },
    )?;
    bar.end();
    if let Some(path) = &args.output.json {
        let text = serde_json::to_string_pretty(&side)?;
        crate::command_run::write_text(path, &text)?;
    }
    if let (Some(figures), false) = (&side.figures, args.output.quiet) {
        eprintln!(
            "{}: total {}, downtime {}, {} rounds",
            side.ending.outcome,
            show_ms(figures.total_ms),
            show_ms(figures.downtime_ms),
            figures.rounds.len()
        );
    }
    let status = status_of(&side.ending);
    if args.guest.verify && side.ending.custody == "source" {
        return Ok(if verify(&guest)? {
            status
        } else {
            ExitCode::FAILURE
        });
    }
    Ok(status)
}

/// Waits for one guest, takes it in, and lets it run until a signal comes.
pub(crate) fn target(args: &TargetArgs) -> Result<ExitCode> {
    let cancel = cancel_on_signal()?;
    let (kind, reason) = settle_guest(args.guest)?;
    let wish = moving::Listen {
        endpoint: args.listen.to_string(),
        kind: kind.into(),
        backing: args.backing.to_string(),
        io: args.io.to_string(),
        digest: false,
        memory_bytes_max: args.memory_max,
    };
    let (guest, side) = moving::listen(&wish, &cancel, |endpoint| {
        eprintln!("guests: {kind} ({reason}); listening on {endpoint}");
    })?;
    if let Some(path) = &args.output.json {
        crate::command_run::write_text(path, &serde_json::to_string_pretty(&side)?)?;
    }
    let Some(guest) = guest else {
        return Ok(status_of(&side.ending));
    };
    let seen = sight(&guest)?;
    let gap = seen.gap_ms.map_or_else(|| "nothing".into(), show_ms);
    eprintln!("the guest runs here; it saw a gap of {gap}");
    if args.verify {
        return Ok(if verify(&guest)? {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    eprintln!("it runs until this command is interrupted");
    while !cancel.is_cancelled() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets the guest check all its memory, and says what it found.
fn verify(guest: &AnyGuest) -> Result<bool> {
    let Checked { ok, detail } = check(guest)?;
    if ok {
        eprintln!("the guest found all its memory right");
    } else {
        eprintln!("migrate-bench: {detail}");
    }
    Ok(ok)
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
    if let Some(error) = &ending.error {
        eprintln!(
            "migrate-bench: {error} (the guest is with: {})",
            ending.custody
        );
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
        };
        assert_eq!(status_of(&ending), ExitCode::from(3));
    }
}
