//! `compat baseline`: what several hosts can all give.

use std::process::ExitCode;

use anyhow::Result;
use limosa_compat::Processor;

use super::args::BaselineArgs;
use super::clock::unreachable;
use super::content::Content;
use super::show;
use super::wish::explain;
use crate::command_run::REFUSED;
use crate::protocol::ClockOrder;

pub(super) fn run(args: &BaselineArgs) -> Result<ExitCode> {
    let (mut names, mut pool): (Vec<String>, Vec<Processor>) = (Vec::new(), Vec::new());
    let mut clocks = Vec::new();
    for path in &args.files {
        match super::load(path) {
            Ok(loaded) => {
                clocks.push(loaded.content.clock());
                pool.push(loaded.content.processor().clone());
                names.push(loaded.name);
            }
            Err(status) => return Ok(status),
        }
    }
    let shaped = match limosa_compat::baseline(args.mode.0, &pool) {
        Ok(shaped) => shaped,
        Err(error) => {
            eprintln!("migrate-bench: {}", explain(&error, &names));
            return Ok(ExitCode::from(REFUSED));
        }
    };
    for note in notes_of_time(&names, &clocks) {
        eprintln!("note: {note}");
    }
    let content = Content::Baseline {
        name: shaped.name.to_string(),
        processor: shaped.processor,
    };
    crate::output::print(&show::format(&content, args.format)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What a baseline can't say: between hosts of unlike frequencies not every guest of it moves. A
/// line for each host that some guest can't come to.
fn notes_of_time(names: &[String], clocks: &[Option<ClockOrder>]) -> Vec<String> {
    let starts: Vec<u32> = clocks.iter().flatten().map(|clock| clock.khz).collect();
    let hosts = names.iter().map(String::as_str).zip(clocks.iter().copied());
    let notes = hosts.filter_map(|host| {
        let mut of_host = starts.iter().flat_map(|khz| unreachable(*khz, [host]));
        of_host.next()
    });
    notes.collect()
}
