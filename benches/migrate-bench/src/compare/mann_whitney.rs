//! The two-sided Mann-Whitney U test on two samples: exact where they are small, ties or not.
//!
//! `statrs` has this test too; its exact variant refuses ties, which counts and sizes have, and in
//! 0.19.1 calls samples that don't overlap alike when the first is not the larger one. Its normal
//! approximation serves where samples are large.

use statrs::stats_tests::Alternative;
use statrs::stats_tests::mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu};

/// Most values of both samples together for which all arrangements are counted.
const EXACT_MAX: usize = 100;

/// How probable it is that samples of one distribution differ at least as much as these: 0 to 1.
/// None where a sample is empty or a value is no number.
pub(super) fn p_value(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() || a.iter().chain(b).any(|value| value.is_nan()) {
        return None;
    }
    if a.len() + b.len() <= EXACT_MAX {
        return Some(exact(a, b));
    }
    let method = MannWhitneyUMethod::AsymptoticInclContinuityCorrection;
    let found = mannwhitneyu(a, b, method, Alternative::TwoSided);
    found.ok().map(|(_, p)| p)
}

/// The least that [`p_value`] can be with so many values: of two samples that don't overlap.
pub(super) fn least_p_value(a_count: usize, b_count: usize) -> f64 {
    let (few, many) = (a_count.min(b_count), a_count.max(b_count));
    let arrangements: f64 = (1..=few).map(|i| (many + i) as f64 / i as f64).product();
    (2.0 / arrangements).min(1.0)
}

/// Counts, of all ways to choose `a.len()` of all values, those whose rank sum lies at least as far
/// from the middle as that of `a`.
fn exact(a: &[f64], b: &[f64]) -> f64 {
    let ranks = double_ranks(a, b);
    let chosen: usize = ranks[..a.len()].iter().sum();
    // Twice the expected sum of doubled ranks, so that it is a whole number.
    let middle = 2 * a.len() * (ranks.len() + 1);
    let distance = |sum: usize| (2 * sum).abs_diff(middle);
    let (mut extreme, mut all) = (0.0, 0.0);
    for (sum, count) in ways(&ranks, a.len()).iter().enumerate() {
        all += count;
        if distance(sum) >= distance(chosen) {
            extreme += count;
        }
    }
    extreme / all
}

/// By sum: in how many ways `count` of `ranks` add up to it.
fn ways(ranks: &[usize], count: usize) -> Vec<f64> {
    let sum_max: usize = ranks.iter().sum();
    let mut ways = vec![vec![0.0; sum_max + 1]; count + 1];
    ways[0][0] = 1.0;
    for (seen, rank) in ranks.iter().enumerate() {
        // The larger choices first: each rank is taken once.
        for taken in (1..=count.min(seen + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(taken);
            let (fewer, more) = (&fewer[taken - 1], &mut more[0]);
            for (into, from) in more[*rank..].iter_mut().zip(fewer) {
                *into += from;
            }
        }
    }
    ways.swap_remove(count)
}

/// Twice the rank of each value of `a`, then of `b`, among all of them; equal values share the mean
/// of their ranks, which doubled is whole.
fn double_ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let rank = |value: &f64| {
        let below = all.iter().filter(|other| *other < value).count();
        let equal = all.iter().filter(|other| *other == value).count();
        2 * below + equal + 1
    };
    all.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    /// Every way to deal values to two samples, with the sum of midranks written down anew.
    fn by_enumeration(a: &[f64], b: &[f64]) -> f64 {
        let all: Vec<f64> = a.iter().chain(b).copied().collect();
        let count = all.len();
        // U counted pair by pair, as Mann and Whitney do.
        let u = |mask: u32| {
            let is_in = |index: usize| mask >> index & 1 == 1;
            let mut u = 0.0;
            for one in (0..count).filter(|index| is_in(*index)) {
                for other in (0..count).filter(|index| !is_in(*index)) {
                    u += match all[one].total_cmp(&all[other]) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
            }
            u
        };
        let middle = (a.len() * b.len()) as f64 / 2.0;
        let seen = (u((1 << a.len()) - 1) - middle).abs();
        let masks = (0..1_u32 << count).filter(|mask| mask.count_ones() as usize == a.len());
        let (mut extreme, mut total) = (0, 0);
        for mask in masks {
            total += 1;
            extreme += u32::from((u(mask) - middle).abs() >= seen);
        }
        f64::from(extreme) / f64::from(total)
    }

    #[test]
    fn known_values() {
        // The example of SciPy's documentation: U = 17.
        let males = [19.0, 22.0, 16.0, 29.0, 24.0];
        let females = [20.0, 11.0, 17.0, 12.0];
        close(p_value(&males, &females), 1.0 / 9.0);
        // Samples that don't overlap: 2 of all arrangements.
        let [low, high] = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]];
        close(p_value(&low, &high), 2.0 / 70.0);
        close(p_value(&high, &low), 2.0 / 70.0);
        // Tables of critical values: of 7 and 7, U = 8 is the largest below 5 %.
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 12.0];
        let b = [6.0, 7.0, 8.0, 10.0, 11.0, 13.0, 14.0];
        let p = p_value(&a, &b).unwrap();
        assert!(p < 0.05, "{p}");
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 12.0];
        let b = [6.0, 7.0, 8.0, 9.0, 11.0, 13.0, 14.0];
        let p = p_value(&a, &b).unwrap();
        assert!(p > 0.05, "{p}");
    }

    #[test]
    fn equal_values_are_no_difference() {
        close(p_value(&[3.0; 5], &[3.0; 7]), 1.0);
        close(p_value(&[3.0; 80], &[3.0; 70]), 1.0);
        assert_eq!(p_value(&[], &[1.0]), None);
        assert_eq!(p_value(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn the_least_is_that_of_samples_apart() {
        for (a, b) in [(2, 2), (2, 7), (3, 3), (4, 4), (7, 7), (30, 5)] {
            let low: Vec<f64> = (0..a).map(f64::from).collect();
            let high: Vec<f64> = (a..a + b).map(f64::from).collect();
            let least = least_p_value(a as usize, b as usize);
            close(p_value(&low, &high), least);
        }
        assert!(least_p_value(3, 3) > 0.05 && least_p_value(4, 4) < 0.05);
    }

    #[test]
    fn large_samples_go_on_where_small_ones_end() {
        let sample = |count: u32, add: f64| -> Vec<f64> {
            let values = (0..count).map(|i| f64::from(i * 37 % 101) + add);
            values.collect()
        };
        let (a, b) = (sample(50, 0.0), sample(50, 9.5));
        let approximate = mannwhitneyu(
            &a,
            &b,
            MannWhitneyUMethod::AsymptoticInclContinuityCorrection,
            Alternative::TwoSided,
        );
        let gap = (p_value(&a, &b).unwrap() - approximate.unwrap().1).abs();
        assert!(gap < 0.002, "{gap}");
        let (a, b) = (sample(90, 0.0), sample(90, 20.0));
        assert!(p_value(&a, &b).unwrap() < 0.001);
    }

    fn values(counts: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
        // Few different ones, so that many are equal.
        prop::collection::vec((0..12_u8).prop_map(f64::from), counts)
    }

    proptest! {
        #[test]
        fn as_counted_one_by_one(a in values(1..6), b in values(1..6)) {
            close(p_value(&a, &b), by_enumeration(&a, &b));
        }

        #[test]
        fn the_order_of_samples_does_not_matter(a in values(1..20), b in values(1..20)) {
            close(p_value(&a, &b), p_value(&b, &a).unwrap());
        }

        #[test]
        fn only_the_order_of_values_matters(a in values(1..20), b in values(1..20)) {
            let bend = |values: &[f64]| -> Vec<f64> {
                values.iter().map(|value| (value / 3.0).exp()).collect()
            };
            close(p_value(&a, &b), p_value(&bend(&a), &bend(&b)).unwrap());
        }

        #[test]
        fn a_sample_does_not_differ_from_itself(a in values(1..120)) {
            close(p_value(&a, &a), 1.0);
        }

        /// Of all ways to deal the same values, at most one in twenty is called a difference.
        #[test]
        fn chance_is_rarely_called_a_difference(all in values(8..9)) {
            let (mut called, mut total) = (0, 0);
            for mask in (0..256_u32).filter(|mask| mask.count_ones() == 4) {
                let side = |wanted: u32| -> Vec<f64> {
                    let own = (0..8).filter(|index| mask >> index & 1 == wanted);
                    own.map(|index| all[index as usize]).collect()
                };
                total += 1;
                called += u32::from(p_value(&side(1), &side(0)).unwrap() < 0.05);
            }
            prop_assert!(f64::from(called) <= 0.05 * f64::from(total), "{called} of {total}");
        }
    }
}
