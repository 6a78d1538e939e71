//! `compat baseline`: what several hosts can all give.

use std::process::ExitCode;

use anyhow::Result;
use limosa_compat::Processor;

use super::args::BaselineArgs;
use super::content::Content;
use super::show;
use super::wish::explain;
use crate::command_run::REFUSED;

pub(super) fn run(args: &BaselineArgs) -> Result<ExitCode> {
    let (mut names, mut pool): (Vec<String>, Vec<Processor>) = (Vec::new(), Vec::new());
    for path in &args.files {
        match super::load(path) {
            Ok(loaded) => {
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
    let content = Content::Baseline {
        name: shaped.name.to_string(),
        processor: shaped.processor,
    };
    super::print(&show::format(&content, args.format)?)?;
    Ok(ExitCode::SUCCESS)
}
