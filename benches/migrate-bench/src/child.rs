//! A worker process of `run`: started, spoken to by lines, and never left behind.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::link::Place;
use crate::protocol::{Answer, Order};
use crate::refusal::NotStarted;

/// How soon an interruption is noticed.
const INTERRUPT_CHECK: Duration = Duration::from_millis(50);

/// One worker. Dropping it ends the process and waits for it.
pub(crate) struct Worker {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Answer>,
}

impl Worker {
    /// Starts this same program as a worker, with `threads` to work on all of memory (by default
    /// one for each logical processor). It dies with us, even if we are killed: it ends when its
    /// standard input does.
    pub(crate) fn start(name: &'static str, place: Place, threads: Option<u16>) -> Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        let threads = threads.map(|count| format!("--threads={count}"));
        let mut child = place
            .command(&program)
            .arg("worker")
            .args(threads)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("can't start the {name} process"))?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the {name} process has no pipes");
        };
        let (sender, answers) = channel();
        std::thread::Builder::new()
            .name(format!("{name}-answers"))
            .spawn(move || {
                for line in BufReader::new(output).lines() {
                    let Ok(line) = line else { break };
                    let answer = serde_json::from_str(&line).unwrap_or_else(|e| Answer::Failed {
                        text: format!("`{line}`: {e}"),
                    });
                    if sender.send(answer).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            name,
            child,
            orders,
            answers,
        })
    }

    /// The process, so that a test can kill it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order; does not wait.
    pub(crate) fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        self.orders
            .write_all(line.as_bytes())
            .with_context(|| format!("the {} process has ended", self.name))
    }

    /// The next answer within `wait`; none if there was none yet.
    pub(crate) fn answer_within(&mut self, wait: Duration) -> Result<Option<Answer>> {
        match self.answers.recv_timeout(wait) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().map(|status| status.to_string());
                bail!(
                    "the {} process ended by itself ({})",
                    self.name,
                    status.unwrap_or_else(|error| error.to_string())
                )
            }
        }
    }

    /// Waits for the answer that `wanted` accepts; a `Failed` in between is an error.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        longest: Duration,
        wanted: impl FnMut(Answer) -> Option<T>,
    ) -> Result<T> {
        self.wait_unless(&AtomicBool::new(false), what, longest, wanted)
    }

    /// As [`wait_for`](Self::wait_for), until `interrupted`.
    pub(crate) fn wait_unless<T>(
        &mut self,
        interrupted: &AtomicBool,
        what: &str,
        longest: Duration,
        mut wanted: impl FnMut(Answer) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + longest;
        loop {
            if interrupted.load(Ordering::Acquire) {
                bail!(
                    "interrupted while waiting for the {} process's {what}",
                    self.name
                );
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.answer_within(left.min(INTERRUPT_CHECK))? {
                Some(Answer::Failed { text }) => bail!("{text}"),
                Some(Answer::NotStarted { text }) => return Err(NotStarted(text).into()),
                Some(answer) => {
                    if let Some(found) = wanted(answer) {
                        return Ok(found);
                    }
                }
                None if left.is_zero() => {
                    bail!(
                        "the {} process gave no {what} within {longest:?}",
                        self.name
                    )
                }
                None => {}
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.order(&Order::Quit);
        let patience = Instant::now() + Duration::from_secs(2);
        while Instant::now() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
