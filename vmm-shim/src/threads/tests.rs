//! Threads that work, park, and are held back.

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

fn counts(threads: &Threads<Counter>) -> Vec<u64> {
    let workers = threads.workers().iter();
    workers
        .map(|worker| worker.count.load(Ordering::SeqCst))
        .collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Both have counted further than they had.
fn wait_for_work(threads: &Threads<Counter>) {
    let before = counts(threads);
    wait_until("at work", || {
        let now = counts(threads);
        now.iter().zip(&before).all(|(now, before)| now > before)
    });
}

fn are_all_held(threads: &Threads<Counter>) -> bool {
    let orders = threads.crew.gate.lock();
    orders.held == [true; 2] && orders.parked == 2
}

/// One thread has dirtied more than it ever may, the other nothing.
#[derive(Debug)]
struct OneWriter(AtomicU64);

impl crate::brake::Meter for OneWriter {
    fn pages(&self) -> Vec<u64> {
        vec![self.0.fetch_add(1_000_000, Ordering::SeqCst), 0]
    }
}

#[test]
fn who_is_held_back_works_and_rests_in_turns() {
    let mut threads = Threads::spawn("test", counters(0)).expect("threads");
    threads.resume();
    threads.regulate(Some(Regulator::duty(500))).expect("brake");
    for _ in 0..5 {
        wait_until("at rest", || are_all_held(&threads));
        assert_eq!(threads.state(), RunState::Running, "they are not paused");
        wait_for_work(&threads);
    }
    threads.regulate(None).expect("let go");
    assert_eq!(threads.crew.gate.lock().held, [false; 2]);
    wait_for_work(&threads);
}

#[test]
fn a_pause_finds_those_at_rest_parked_and_forgets_that_they_were_held() {
    let mut threads = Threads::spawn("test", counters(0)).expect("threads");
    for permille in [1, 100, 500] {
        threads.resume();
        threads
            .regulate(Some(Regulator::duty(permille)))
            .expect("brake");
        wait_until("at rest", || are_all_held(&threads));
        threads.pause().expect("pause");
        assert_eq!(threads.state(), RunState::Paused);
        let before = counts(&threads);
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(counts(&threads), before, "no turn begins in a pause");
        let orders = threads.crew.gate.lock();
        assert!(orders.regulator.is_none() && orders.held == [false; 2]);
        drop(orders);
        threads.resume();
        wait_for_work(&threads);
        threads.pause().expect("pause");
    }
}

#[test]
fn one_is_held_to_a_limit_while_the_other_works_on() {
    let mut threads = Threads::spawn("test", counters(0)).expect("threads");
    threads.resume();
    let meter = Arc::new(OneWriter(AtomicU64::new(0)));
    let limit = Regulator::limit(1, meter);
    threads.regulate(Some(limit)).expect("brake");
    wait_until("held", || {
        let orders = threads.crew.gate.lock();
        orders.held == [true, false] && orders.parked == 1
    });
    let before = counts(&threads);
    wait_until("at work", || counts(&threads)[1] > before[1] + 5);
    assert_eq!(counts(&threads)[0], before[0]);
    threads.pause().expect("pause");
    threads.resume();
    wait_for_work(&threads);
}

#[test]
fn nothing_moves_while_paused() {
    let threads = Threads::spawn("test", counters(0)).expect("threads");
    assert_eq!(threads.state(), RunState::Paused);
    for _ in 0..100 {
        assert_eq!(threads.all_in_since(), None);
        let resumed = Instant::now();
        threads.resume();
        assert_eq!(threads.state(), RunState::Running);
        while threads.all_in_since().is_none() {
            std::thread::yield_now();
        }
        assert!(threads.all_in_since() >= Some(resumed));
        std::thread::sleep(Duration::from_micros(300));
        threads.pause().expect("pause");
        assert_eq!(threads.state(), RunState::Paused);
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
