//! The command as a user starts it, with what it printed and how it ended.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The command under test.
pub(crate) const MIGRATE_BENCH: &str = env!("CARGO_BIN_EXE_migrate-bench");
/// Longest time of one command, far beyond what any should take.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its exit status; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) elapsed: Duration,
}

impl Done {
    /// The JSON report on standard output.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The first run of the report.
    pub(crate) fn first_run(&self) -> Value {
        self.report()["runs"][0].clone()
    }
}

/// A command that runs in a process group of its own, so that a test can signal all of it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    begun: Instant,
    out: JoinHandle<String>,
    err: JoinHandle<String>,
}

/// Starts the command with the words of `line`.
pub(crate) fn start(line: &str) -> Started {
    start_with(line, Stdio::null())
}

/// Runs the command with the words of `line` to its end, and gives it a text to read.
pub(crate) fn bench_reading(line: &str, text: &str) -> Done {
    let mut started = start_with(line, Stdio::piped());
    let mut into = started.child.stdin.take().unwrap();
    into.write_all(text.as_bytes()).unwrap();
    drop(into);
    finish(started)
}

fn start_with(line: &str, input: Stdio) -> Started {
    let mut child = Command::new(MIGRATE_BENCH)
        .args(line.split_whitespace())
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let out = collect(child.stdout.take().unwrap());
    let err = collect(child.stderr.take().unwrap());
    Started {
        child,
        begun: Instant::now(),
        out,
        err,
    }
}

/// Waits for the end of a command; one that takes forever is killed.
pub(crate) fn finish(mut started: Started) -> Done {
    let status = loop {
        if let Some(status) = started.child.try_wait().unwrap() {
            break status;
        }
        if started.begun.elapsed() > COMMAND_MAX {
            started.child.kill().unwrap();
            started.child.wait().unwrap();
            panic!("it did not end: {}", started.err.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Done {
        code: status.code(),
        elapsed: started.begun.elapsed(),
        out: started.out.join().unwrap(),
        err: started.err.join().unwrap(),
    }
}

/// Runs the command with the words of `line` to its end.
pub(crate) fn bench(line: &str) -> Done {
    finish(start(line))
}

/// One migration between two processes, with its report as JSON.
pub(crate) fn run(line: &str) -> Done {
    bench(&format!(
        "run --quiet --no-reference --repeat 1 --json - {line}"
    ))
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        text
    })
}
