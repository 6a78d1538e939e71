//! The threads of a guest: parked or at work, all of them or none. What a thread does at work is
//! its owner's business, so vCPUs and the threads of a process guest stand still in the same way.
//!
//! `Paused → Running → Stopping → Paused`: a thread is *parked* when it has acknowledged, under
//! the lock, that it does nothing. The guest is paused when every thread is parked.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sys;

/// The longest that a pause waits for a thread. A thread that comes out later parks all the same.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// After how long a thread that has not come out is called again.
const CALL_AGAIN: Duration = Duration::from_millis(20);

/// What one thread does between two parkings.
pub(crate) trait Worker: Send + Sync + 'static {
    /// Why it may stop for good.
    type Fault: Send + 'static;

    /// Forgets earlier [`call_out`](Self::call_out)s. Called under the lock, before the work.
    fn let_in(&self);

    /// Makes [`work`](Self::work) return soon. A system call in which it is gets interrupted
    /// besides.
    fn call_out(&self);

    /// Works for as long as `wanted` says so.
    fn work(&self, wanted: &dyn Fn() -> bool) -> Result<(), Self::Fault>;
}

/// What the threads are doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// They are at work.
    Running,
    /// They were told to stop, and not all have.
    Stopping,
    /// None does anything.
    Paused,
}

/// Why threads did not do as they were told.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// A thread or its signal could not be made.
    #[error("{what}: {source}")]
    Refused {
        /// What.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread did not come out of the guest in time.
    #[error("{missing} of {all} threads did not stop within {PAUSE_MAX:?}")]
    Stuck {
        /// How many.
        missing: usize,
        /// Of how many.
        all: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Park,
    Work,
    End,
}

#[derive(Debug)]
struct Orders<Fault> {
    order: Order,
    parked: usize,
    faults: Vec<(usize, Fault)>,
}

#[derive(Debug)]
struct Gate<Fault> {
    orders: Mutex<Orders<Fault>>,
    /// A copy of `order == Work` that is cheap to ask.
    wanted: AtomicBool,
    to_threads: Condvar,
    to_host: Condvar,
}

impl<Fault> Gate<Fault> {
    fn lock(&self) -> MutexGuard<'_, Orders<Fault>> {
        // Every change under the lock is a single step: a panic leaves no half of one.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, order: Order) -> MutexGuard<'_, Orders<Fault>> {
        let mut orders = self.lock();
        orders.order = order;
        self.wanted.store(order == Order::Work, Ordering::SeqCst);
        self.to_threads.notify_all();
        orders
    }
}

/// All threads of one guest.
#[derive(Debug)]
pub(crate) struct Threads<W: Worker> {
    gate: Arc<Gate<W::Fault>>,
    workers: Vec<Arc<W>>,
    handles: Vec<JoinHandle<()>>,
}

impl<W: Worker> Threads<W> {
    /// Starts a thread for each worker; all of them are parked.
    pub(crate) fn spawn(name: &str, workers: Vec<Arc<W>>) -> Result<Self, ThreadError> {
        let refused = |what| move |source| ThreadError::Refused { what, source };
        sys::install_kick().map_err(refused("install the signal that calls threads out"))?;
        let gate = Arc::new(Gate {
            orders: Mutex::new(Orders {
                order: Order::Park,
                // Until its thread takes over, a worker stands still anyway.
                parked: workers.len(),
                faults: Vec::new(),
            }),
            wanted: AtomicBool::new(false),
            to_threads: Condvar::new(),
            to_host: Condvar::new(),
        });
        let mut threads = Self {
            gate,
            workers,
            handles: Vec::new(),
        };
        for (index, worker) in threads.workers.iter().enumerate() {
            let (worker, gate) = (Arc::clone(worker), Arc::clone(&threads.gate));
            let handle = std::thread::Builder::new()
                .name(format!("{name}{index}"))
                .spawn(move || live(index, worker.as_ref(), gate.as_ref()))
                .map_err(refused("start a thread"))?;
            threads.handles.push(handle);
        }
        Ok(threads)
    }

    /// The workers; each is free to be locked while its thread is parked.
    pub(crate) fn workers(&self) -> &[Arc<W>] {
        &self.workers
    }

    pub(crate) fn state(&self) -> RunState {
        let orders = self.gate.lock();
        match orders.order {
            Order::Work => RunState::Running,
            _ if orders.parked == self.workers.len() => RunState::Paused,
            _ => RunState::Stopping,
        }
    }

    /// Sets all threads to work. Those that stopped for good stay parked.
    pub(crate) fn resume(&self) {
        drop(self.gate.give(Order::Work));
    }

    /// Stops all threads, and returns when the last has parked.
    ///
    /// # Errors
    /// [`ThreadError::Stuck`]; the order to park stands all the same.
    pub(crate) fn pause(&self) -> Result<(), ThreadError> {
        drop(self.gate.give(Order::Park));
        self.call_all_out()?;
        let begun = Instant::now();
        let mut orders = self.gate.lock();
        while orders.parked < self.workers.len() {
            if begun.elapsed() > PAUSE_MAX {
                return Err(ThreadError::Stuck {
                    missing: self.workers.len() - orders.parked,
                    all: self.workers.len(),
                });
            }
            let waited = self.gate.to_host.wait_timeout(orders, CALL_AGAIN);
            let (guard, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            orders = guard;
            if timed_out.timed_out() {
                drop(orders);
                self.call_all_out()?;
                orders = self.gate.lock();
            }
        }
        Ok(())
    }

    fn call_all_out(&self) -> Result<(), ThreadError> {
        // First every flag, then every signal: the signal of the first must not wait for the last.
        self.workers.iter().for_each(|worker| worker.call_out());
        for handle in &self.handles {
            sys::kick(handle).map_err(|source| ThreadError::Refused {
                what: "call a thread out",
                source,
            })?;
        }
        Ok(())
    }

    /// What stopped a worker for good, by its number; the first that happened comes first.
    pub(crate) fn faults<T>(&self, look: impl FnOnce(&[(usize, W::Fault)]) -> T) -> T {
        look(&self.gate.lock().faults)
    }

    /// The CPU time that each thread has used.
    pub(crate) fn cpu_times(&self) -> Vec<Duration> {
        let times = self.handles.iter().map(sys::cpu_time);
        times.map(Result::unwrap_or_default).collect()
    }
}

impl<W: Worker> Drop for Threads<W> {
    fn drop(&mut self) {
        drop(self.gate.give(Order::End));
        while self.handles.iter().any(|handle| !handle.is_finished()) {
            self.call_all_out().ok();
            std::thread::sleep(Duration::from_micros(200));
        }
        for handle in self.handles.drain(..) {
            handle.join().ok();
        }
    }
}

fn live<W: Worker>(index: usize, worker: &W, gate: &Gate<W::Fault>) {
    let mut may_work = true;
    loop {
        let mut orders = gate.lock();
        while orders.order == Order::Park || (!may_work && orders.order == Order::Work) {
            let waited = gate.to_threads.wait(orders);
            orders = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if orders.order == Order::End {
            return;
        }
        orders.parked -= 1;
        // Under the lock: an order to park that comes now calls out after this, never before.
        worker.let_in();
        drop(orders);
        let done = worker.work(&|| gate.wanted.load(Ordering::SeqCst));
        let mut orders = gate.lock();
        if let Err(fault) = done {
            orders.faults.push((index, fault));
            may_work = false;
        }
        orders.parked += 1;
        gate.to_host.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Counts, or sleeps in a system call that only a signal ends.
    struct Counter {
        count: AtomicU64,
        sleeps: bool,
        called: AtomicBool,
    }

    impl Worker for Counter {
        type Fault = &'static str;

        fn let_in(&self) {
            self.called.store(false, Ordering::SeqCst);
        }

        fn call_out(&self) {
            self.called.store(true, Ordering::SeqCst);
        }

        fn work(&self, wanted: &dyn Fn() -> bool) -> Result<(), &'static str> {
            while wanted() && !self.called.load(Ordering::SeqCst) {
                if self.count.fetch_add(1, Ordering::SeqCst) == u64::MAX - 1 {
                    return Err("counted too far");
                }
                if self.sleeps {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
            Ok(())
        }
    }

    fn counters(first: u64) -> Vec<Arc<Counter>> {
        let counter = |sleeps, count| Counter {
            count: AtomicU64::new(count),
            sleeps,
            called: AtomicBool::new(false),
        };
        vec![Arc::new(counter(false, first)), Arc::new(counter(true, 0))]
    }

    #[test]
    fn nothing_moves_while_paused() {
        let threads = Threads::spawn("test", counters(0)).expect("threads");
        assert_eq!(threads.state(), RunState::Paused);
        for _ in 0..100 {
            threads.resume();
            assert_eq!(threads.state(), RunState::Running);
            std::thread::sleep(Duration::from_micros(300));
            threads.pause().expect("pause");
            assert_eq!(threads.state(), RunState::Paused);
            let counts = |threads: &Threads<Counter>| -> Vec<u64> {
                let workers = threads.workers().iter();
                workers
                    .map(|worker| worker.count.load(Ordering::SeqCst))
                    .collect()
            };
            let before = counts(&threads);
            std::thread::sleep(Duration::from_micros(300));
            assert_eq!(counts(&threads), before);
        }
        assert!(threads.cpu_times()[0] > Duration::ZERO);
    }

    #[test]
    fn a_worker_that_stopped_for_good_stays_parked() {
        let threads = Threads::spawn("test", counters(u64::MAX - 1)).expect("threads");
        threads.resume();
        let begun = Instant::now();
        while threads.faults(<[_]>::is_empty) && begun.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        threads.pause().expect("pause");
        threads.resume();
        threads.pause().expect("pause again");
        assert_eq!(
            threads.faults(|faults| faults.to_vec()),
            [(0, "counted too far")]
        );
    }

    #[test]
    fn dropping_running_threads_ends_them() {
        let workers = counters(0);
        let threads = Threads::spawn("test", workers.clone()).expect("threads");
        threads.resume();
        drop(threads);
        assert_eq!(Arc::strong_count(&workers[0]), 1);
    }
}
