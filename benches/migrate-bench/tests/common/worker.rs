//! One host of a migration, driven by lines as the command `run` drives it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{MIB, MIGRATE_BENCH};

/// Longest time for an answer, far beyond what any should take.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The guest that a test boots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) kind: &'static str,
    pub(crate) memory_mib: u64,
    pub(crate) working_set_mib: u64,
    pub(crate) dirty_mib_per_second: u64,
}

/// How a test moves it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) downtime: Duration,
    pub(crate) on_stall: &'static str,
}

/// A worker; it is killed when dropped.
pub(crate) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<Value>,
}

impl Worker {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let mut child = Command::new(MIGRATE_BENCH)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let answer = serde_json::from_str(&line).unwrap();
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            orders,
            answers,
        }
    }

    /// Starts one with a guest in it.
    pub(crate) fn with(guest: Guest) -> Self {
        Self::with_tracking(guest, "auto")
    }

    /// As [`with`](Self::with), with its writes recorded in this way.
    pub(crate) fn with_tracking(guest: Guest, tracking: &str) -> Self {
        let mut worker = Self::start();
        worker.order(&json!({"do": "boot", "guest": {
            "kind": guest.kind,
            "memory_bytes": guest.memory_mib * MIB,
            "vcpus": 1,
            "fill": "random",
            "touched_bytes": guest.memory_mib * MIB,
            "working_set_bytes": guest.working_set_mib * MIB,
            "dirty_rate_bytes": guest.dirty_mib_per_second * MIB,
            "pattern": "sequential",
            "probe": "sleep",
            "backing": "anonymous",
            "tracking": tracking,
            "seed": 7,
        }}));
        let ready = worker.answer("ready");
        assert_eq!(ready["guest_bytes"], guest.memory_mib * MIB);
        worker
    }

    /// Starts one that waits for a guest of `kind`, and says where.
    pub(crate) fn target_for(kind: &str) -> (Self, String) {
        Self::small_target_for(kind, None)
    }

    /// As [`target_for`](Self::target_for), for guests up to a size.
    pub(crate) fn small_target_for(kind: &str, memory_bytes_max: Option<u64>) -> (Self, String) {
        let mut worker = Self::start();
        worker.order(&json!({
            "do": "listen",
            "endpoint": "tcp://127.0.0.1:0",
            "kind": kind,
            "backing": "anonymous",
            "io": "auto",
            "digest": false,
            "memory_bytes_max": memory_bytes_max,
        }));
        let listening = worker.answer("listening");
        let endpoint = listening["endpoint"].as_str().unwrap().to_owned();
        (worker, endpoint)
    }

    /// Orders the guest's move; does not wait.
    pub(crate) fn send(&mut self, endpoint: &str, sending: Sending) {
        self.order(&json!({"do": "send", "endpoint": endpoint, "link": {
            "streams": 2,
            "codec": "none",
            "downtime": {
                "secs": sending.downtime.as_secs(),
                "nanos": sending.downtime.subsec_nanos(),
            },
            "on_stall": sending.on_stall,
            "io": "auto",
        }}));
    }

    /// Lets the guest check all its memory, which must be right.
    pub(crate) fn check(&mut self) {
        self.order(&json!({"do": "check"}));
        let checked = self.answer("checked");
        assert_eq!(checked["ok"], true, "{checked}");
    }

    /// How many writes the guest has done.
    pub(crate) fn writes(&mut self) -> u64 {
        self.order(&json!({"do": "guest"}));
        self.answer("guest")["sight"]["writes"].as_u64().unwrap()
    }

    /// Gives an order as it stands.
    pub(crate) fn order(&mut self, order: &Value) {
        let orders = self.orders.as_mut().unwrap();
        orders.write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// The next answer of a kind, past any progress; another kind fails the test.
    pub(crate) fn answer(&mut self, say: &str) -> Value {
        let end = Instant::now() + ANSWER_MAX;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = match self.answers.recv_timeout(left) {
                Ok(answer) => answer,
                Err(error) => panic!("no `{say}`: {error}"),
            };
            if answer["say"] == say {
                return answer;
            }
            assert_eq!(answer["say"], "progress", "instead of `{say}`: {answer}");
        }
    }

    /// Waits for a progress that `wanted` accepts; the end of the move before it fails the test.
    pub(crate) fn progress(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let progress = match self.answers.recv_timeout(ANSWER_MAX) {
                Ok(progress) => progress,
                Err(error) => panic!("no such progress: {error}"),
            };
            assert_eq!(progress["say"], "progress", "too early: {progress}");
            if wanted(&progress) {
                return progress;
            }
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Gives no more orders, as a parent that died; waits for its end.
    pub(crate) fn abandon(&mut self, longest: Duration) {
        self.orders = None;
        let end = Instant::now() + longest;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "still there after {longest:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
