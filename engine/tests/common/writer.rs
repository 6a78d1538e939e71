//! A thread that writes a guest's memory, as its vCPUs would. It knows no migration.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::memory::{TestMemory, pattern};

/// Pages that the writing thread writes.
const HOT_PAGES: u64 = 300;

/// A thread that writes pages while it is allowed to.
pub(crate) struct Writer {
    /// Held by the thread for each step; whoever pauses takes it.
    pub(crate) steps: Arc<Mutex<u64>>,
    pub(crate) runs: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn new(memory: Arc<TestMemory>) -> Self {
        let (steps, runs, ends) = <(Arc<Mutex<u64>>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (own_steps, own_runs, own_ends) = (steps.clone(), runs.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            while !own_ends.load(Ordering::Acquire) {
                {
                    let mut step = own_steps.lock().unwrap();
                    if own_runs.load(Ordering::Acquire) {
                        *step += 1;
                        let page = step.wrapping_mul(7919) % HOT_PAGES;
                        match *step % 5 {
                            0 => memory.zero(page),
                            _ => memory.write(page, &pattern(*step)),
                        }
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self {
            steps,
            runs,
            ends,
            thread: Some(thread),
        }
    }

    /// When this returns, nothing is being written.
    pub(crate) fn let_run(&self, runs: bool) {
        self.runs.store(runs, Ordering::Release);
        drop(self.steps.lock().unwrap());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
    }
}
