//! The threads of a guest: parked or at work, all of them or none. What a thread does at work is
//! its owner's business, so vCPUs and the threads of a process guest stand still in the same way.
//!
//! `Paused → Running → Stopping → Paused`: a thread is *parked* when it has acknowledged, under
//! the lock, that it does nothing. The guest is paused when every thread is parked. A thread that
//! is held back (`brake.rs`) parks in the same way while the others work, so a pause that comes
//! meanwhile has nothing to wait for.

use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use limosa::Urgency;

use crate::brake::Regulator;
use crate::sys;

/// The longest that a pause waits for a thread. A thread that comes out later parks all the same.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// After how long a thread that has not come out is called again.
const CALL_AGAIN: Duration = Duration::from_millis(20);

/// What one thread does between two parkings.
pub(crate) trait Worker: Send + Sync + 'static {
    /// Why it may stop for good.
    type Fault: Debug + Send + 'static;

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
    /// Of each thread, whether it is to park although the order is to work.
    held: Vec<bool>,
    /// Who decides that; none where all work as they like.
    regulator: Option<Regulator>,
    /// Changes with `regulator`.
    regulator_number: u64,
    /// When a thread last went to work.
    last_in: Option<Instant>,
    faults: Vec<(usize, Fault)>,
}

impl<Fault> Orders<Fault> {
    fn regulate(&mut self, regulator: Option<Regulator>) {
        self.regulator = regulator;
        self.regulator_number += 1;
    }
}

#[derive(Debug)]
struct Gate<Fault> {
    orders: Mutex<Orders<Fault>>,
    /// Of each thread, whether it may go on with the work that it has begun; cheap to ask. Only the
    /// thread itself says that it may, when it begins: so one that was called out parks, even if
    /// it is to work again by then.
    wanted: Vec<AtomicBool>,
    to_threads: Condvar,
    to_host: Condvar,
    to_brake: Condvar,
    /// One a thread. A thread that is called out comes first until it goes to work again: who is
    /// paused is waited for, and mostly on its way to another host.
    urgencies: Vec<Urgency>,
}

impl<Fault> Gate<Fault> {
    fn new(count: usize) -> Self {
        Self {
            orders: Mutex::new(Orders {
                order: Order::Park,
                // Until its thread takes over, a worker stands still anyway.
                parked: count,
                held: vec![false; count],
                regulator: None,
                regulator_number: 0,
                last_in: None,
                faults: Vec::new(),
            }),
            wanted: (0..count).map(|_| AtomicBool::new(false)).collect(),
            to_threads: Condvar::new(),
            to_host: Condvar::new(),
            to_brake: Condvar::new(),
            urgencies: (0..count).map(|_| Urgency::new()).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders<Fault>> {
        // Every change under the lock is a single step: a panic leaves no half of one.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order to all, and lets go of who was held back.
    fn give(&self, order: Order) {
        let mut orders = self.lock();
        orders.order = order;
        orders.held.fill(false);
        orders.regulate(None);
        if order != Order::Work {
            let all = self.wanted.iter();
            all.for_each(|wanted| wanted.store(false, Ordering::SeqCst));
        }
        // Threads that wake need the lock.
        drop(orders);
        self.to_threads.notify_all();
        self.to_brake.notify_all();
    }
}

/// What all threads of one guest share.
#[derive(Debug)]
struct Crew<W: Worker> {
    gate: Gate<W::Fault>,
    workers: Vec<Arc<W>>,
    /// Locked after the gate, never before.
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl<W: Worker> Crew<W> {
    fn handles(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call_all_out(&self) -> Result<(), ThreadError> {
        // First every flag, then every signal: the signal of the first must not wait for the last.
        self.workers.iter().for_each(|worker| worker.call_out());
        for handle in &*self.handles() {
            sys::kick(handle).map_err(refused("call a thread out"))?;
        }
        // Not before: a thread that comes first and has no signal yet would stay where it is, and
        // keep this one from the processor.
        self.gate.urgencies.iter().for_each(Urgency::raise);
        Ok(())
    }

    /// Parks the threads that are to be held back, and lets the others work.
    ///
    /// Under the lock of the gate all along: called out late, a thread would leave work that began
    /// after a pause.
    fn hold(&self, orders: &mut Orders<W::Fault>, wish: &[bool]) {
        let handles = self.handles();
        for (index, &is_to_be_held) in wish.iter().enumerate() {
            let (Some(held), Some(wanted)) =
                (orders.held.get_mut(index), self.gate.wanted.get(index))
            else {
                continue;
            };
            let was_held = std::mem::replace(held, is_to_be_held);
            if was_held && !is_to_be_held {
                self.gate.to_threads.notify_all();
            } else if is_to_be_held && !was_held {
                wanted.store(false, Ordering::SeqCst);
                if let Some(worker) = self.workers.get(index) {
                    worker.call_out();
                }
                // A thread that gets no signal comes out by itself in a while.
                handles.get(index).map(sys::kick);
            }
        }
    }

    /// Holds threads back for as long as there is a regulator, until the end.
    fn drive_brake(&self) {
        // Whom it calls out late has run on. Without the right to come first that is so on a busy
        // host.
        let urgency = Urgency::new();
        urgency.adopt();
        urgency.raise();
        let mut orders = self.gate.lock();
        while orders.order != Order::End {
            let number = orders.regulator_number;
            let Some(meter) = orders.regulator.as_ref().map(Regulator::meter) else {
                let waited = self.gate.to_brake.wait(orders);
                orders = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // A meter may have to wait, and a pause must not.
            drop(orders);
            let pages = meter.map(|meter| meter.pages()).unwrap_or_default();
            orders = self.gate.lock();
            if orders.regulator_number != number {
                continue;
            }
            let Some(regulator) = &mut orders.regulator else {
                continue;
            };
            let now = Instant::now();
            let mut wish = vec![false; self.workers.len()];
            let again = regulator.look(now, &pages, &mut wish);
            self.hold(&mut orders, &wish);
            let longest = again.saturating_duration_since(now);
            let waited = self.gate.to_brake.wait_timeout(orders, longest);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A thread's life.
    fn live(&self, index: usize, worker: &W) {
        let mut may_work = true;
        let urgency = self.gate.urgencies.get(index);
        if let Some(urgency) = urgency {
            urgency.adopt();
            urgency.raise();
        }
        loop {
            let mut orders = self.gate.lock();
            loop {
                let held = orders.held.get(index).copied().unwrap_or(false);
                match orders.order {
                    Order::End => return,
                    Order::Work if may_work && !held => break,
                    Order::Work | Order::Park => {}
                }
                let waited = self.gate.to_threads.wait(orders);
                orders = waited.unwrap_or_else(PoisonError::into_inner);
            }
            orders.parked -= 1;
            orders.last_in = Some(Instant::now());
            if let Some(wanted) = self.gate.wanted.get(index) {
                wanted.store(true, Ordering::SeqCst);
            }
            // Under the lock: an order to park that comes now calls out after this, never before.
            worker.let_in();
            drop(orders);
            urgency.map(Urgency::lower);
            let wanted = self.gate.wanted.get(index);
            let done = worker.work(&|| wanted.is_some_and(|wanted| wanted.load(Ordering::SeqCst)));
            let mut orders = self.gate.lock();
            if let Err(fault) = done {
                orders.faults.push((index, fault));
                may_work = false;
            }
            orders.parked += 1;
            let is_last = orders.parked == self.workers.len();
            drop(orders);
            // Who pauses waits for all: to be woken by each would cost processors the others need.
            if is_last {
                self.gate.to_host.notify_all();
            }
        }
    }
}

fn refused(what: &'static str) -> impl Fn(io::Error) -> ThreadError {
    move |source| ThreadError::Refused { what, source }
}

/// All threads of one guest.
#[derive(Debug)]
pub(crate) struct Threads<W: Worker> {
    crew: Arc<Crew<W>>,
    /// That holds the others back; made when that is asked for the first time.
    brake: Option<JoinHandle<()>>,
}

impl<W: Worker> Threads<W> {
    /// Starts a thread for each worker; all of them are parked.
    pub(crate) fn spawn(name: &str, workers: Vec<Arc<W>>) -> Result<Self, ThreadError> {
        sys::install_kick().map_err(refused("install the signal that calls threads out"))?;
        let crew = Arc::new(Crew {
            gate: Gate::new(workers.len()),
            workers,
            handles: Mutex::new(Vec::new()),
        });
        // Ends the threads that were made, where one can't be.
        let threads = Self { crew, brake: None };
        for (index, worker) in threads.crew.workers.iter().enumerate() {
            let (worker, crew) = (Arc::clone(worker), Arc::clone(&threads.crew));
            let handle = std::thread::Builder::new()
                .name(format!("{name}{index}"))
                .spawn(move || crew.live(index, worker.as_ref()))
                .map_err(refused("start a thread"))?;
            threads.crew.handles().push(handle);
        }
        Ok(threads)
    }

    /// The workers; each is free to be locked while its thread is parked.
    pub(crate) fn workers(&self) -> &[Arc<W>] {
        &self.crew.workers
    }

    pub(crate) fn state(&self) -> RunState {
        let orders = self.crew.gate.lock();
        match orders.order {
            Order::Work => RunState::Running,
            _ if orders.parked == self.crew.workers.len() => RunState::Paused,
            _ => RunState::Stopping,
        }
    }

    /// Sets all threads to work. Those that stopped for good stay parked.
    pub(crate) fn resume(&self) {
        self.crew.gate.give(Order::Work);
    }

    /// Lets `regulator` hold the threads back until the next pause, in place of the one before;
    /// none lets them work as they like.
    ///
    /// # Errors
    /// [`ThreadError::Refused`], when there is no thread for it.
    pub(crate) fn regulate(&mut self, regulator: Option<Regulator>) -> Result<(), ThreadError> {
        if self.brake.is_none() && regulator.is_some() {
            let crew = Arc::clone(&self.crew);
            let brake = std::thread::Builder::new()
                .name("brake".into())
                .spawn(move || crew.drive_brake())
                .map_err(refused("start a thread"))?;
            self.brake = Some(brake);
        }
        let gate = &self.crew.gate;
        let mut orders = gate.lock();
        if regulator.is_none() {
            orders.held.fill(false);
            gate.to_threads.notify_all();
        }
        orders.regulate(regulator);
        gate.to_brake.notify_all();
        Ok(())
    }

    /// Stops all threads, and returns when the last has parked.
    ///
    /// # Errors
    /// [`ThreadError::Stuck`]; the order to park stands all the same.
    pub(crate) fn pause(&self) -> Result<(), ThreadError> {
        let Crew { gate, workers, .. } = &*self.crew;
        gate.give(Order::Park);
        self.crew.call_all_out()?;
        let begun = Instant::now();
        let mut orders = gate.lock();
        while orders.parked < workers.len() {
            if begun.elapsed() > PAUSE_MAX {
                // What runs on is not to keep others from their processors.
                gate.urgencies.iter().for_each(Urgency::lower);
                return Err(ThreadError::Stuck {
                    missing: workers.len() - orders.parked,
                    all: workers.len(),
                });
            }
            let waited = gate.to_host.wait_timeout(orders, CALL_AGAIN);
            let (guard, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            orders = guard;
            if timed_out.timed_out() {
                drop(orders);
                self.crew.call_all_out()?;
                orders = gate.lock();
            }
        }
        Ok(())
    }

    /// When the last thread went to work, once all of them have that did not stop for good; `None`
    /// before, and while they are to stand still.
    pub(crate) fn all_in_since(&self) -> Option<Instant> {
        let orders = self.crew.gate.lock();
        let all_in = orders.order == Order::Work && orders.parked == orders.faults.len();
        orders.last_in.filter(|_| all_in)
    }

    /// What stopped a worker for good, by its number; the first that happened comes first.
    pub(crate) fn faults<T>(&self, look: impl FnOnce(&[(usize, W::Fault)]) -> T) -> T {
        look(&self.crew.gate.lock().faults)
    }

    /// The CPU time that each thread has used.
    pub(crate) fn cpu_times(&self) -> Vec<Duration> {
        let handles = self.crew.handles();
        let times = handles.iter().map(sys::cpu_time);
        times.map(Result::unwrap_or_default).collect()
    }
}

impl<W: Worker> Drop for Threads<W> {
    fn drop(&mut self) {
        self.crew.gate.give(Order::End);
        while self
            .crew
            .handles()
            .iter()
            .any(|handle| !handle.is_finished())
        {
            self.crew.call_all_out().ok();
            std::thread::sleep(Duration::from_micros(200));
        }
        let handles = std::mem::take(&mut *self.crew.handles());
        for handle in handles.into_iter().chain(self.brake.take()) {
            handle.join().ok();
        }
    }
}

#[cfg(test)]
mod tests;
