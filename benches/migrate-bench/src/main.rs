//! Migrates real guests and reports what it measured.

mod args;
mod child;
mod command_run;
mod facts;
mod orders;
mod payload;
mod progress;
mod protocol;
mod reference;
mod report;
mod run;
mod table;
mod units;
mod warm;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => command_run::run(&cli.run),
        Some(Command::Run(args)) => command_run::run(&args),
        Some(Command::Source(args)) => worker::source(&args),
        Some(Command::Target(args)) => worker::target(&args),
        Some(Command::Payload(args)) => payload::write(&args),
        Some(Command::Worker) => worker::serve(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("migrate-bench: {error:#}");
            ExitCode::from(1)
        }
    }
}
