//! The clock by itself: other tests' threads would count.

use std::time::Duration;

use limosa_kernels::cpu_time_of;

#[test]
fn sleep_takes_no_processor_time() {
    let (word, slept) = cpu_time_of(|| {
        std::thread::sleep(Duration::from_millis(500));
        7
    });
    assert_eq!(word, 7);
    assert!(slept < Duration::from_millis(500), "{slept:?}");
    let (sum, worked) = cpu_time_of(|| (0..10_000_000_u64).map(std::hint::black_box).sum::<u64>());
    assert!(worked > Duration::ZERO, "{sum}");
}
