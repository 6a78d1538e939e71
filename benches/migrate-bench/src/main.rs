//! Migrates real guests and reports what it measured.

mod args;
mod child;
mod command_run;
mod compare;
mod compat;
mod conclude;
mod convergence;
mod facts;
mod gate;
mod link;
mod matrix;
mod orders;
mod output;
mod payload;
mod plot;
mod progress;
mod protocol;
mod reference;
mod refusal;
mod report;
mod rivals;
mod run;
mod switchover;
mod table;
mod timeline;
mod units;
mod warm;
mod worker;
mod yardstick;

use std::process::ExitCode;

use crate::args::Command;

fn main() -> ExitCode {
    let cli = args::parse();
    let done = match cli.command {
        None => command_run::run(&cli.run),
        Some(Command::Run(args)) => command_run::run(&args),
        Some(Command::Source(args)) => {
            make_scan_threads(args.link.threads);
            worker::source(&args)
        }
        Some(Command::Target(args)) => {
            make_scan_threads(args.link.threads);
            worker::target(&args)
        }
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Matrix(args)) => matrix::run(&args),
        Some(Command::Rivals(args)) => rivals::run(&args),
        Some(Command::Sockets(args)) => reference::search(&args),
        Some(Command::Gate(args)) => gate::run(&args),
        Some(Command::Instructions(args)) => gate::run_instructions(&args),
        Some(Command::Kernel(args)) => gate::run_kernel(&args),
        Some(Command::Compat(command)) => compat::run(&command),
        Some(Command::Payload(args)) => payload::write(&args),
        Some(Command::Guard(args)) => rivals::become_it(&args),
        Some(Command::Worker { threads }) => {
            make_scan_threads(threads);
            worker::serve()
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("migrate-bench: {}", in_one_line(&error));
            if error.is::<refusal::NotStarted>() {
                ExitCode::from(command_run::REFUSED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Makes the threads that work on all of memory, one for each logical processor unless told
/// otherwise, with names by which `top -H` tells them from others.
fn make_scan_threads(count: Option<u16>) {
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(count.map_or(0, usize::from))
        .thread_name(|index| format!("scan-{index}"));
    if let Err(error) = threads.build_global() {
        eprintln!("migrate-bench: no threads of our own for scans: {error}");
    }
}

/// An error and its causes in one line, without a cause that was already quoted.
pub(crate) fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&cause);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("no room")
            .context("port 1: no room")
            .context("listen");
        assert_eq!(in_one_line(&error), "listen: port 1: no room");
    }
}
