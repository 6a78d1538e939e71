//! How fast each kernel is here: `cargo bench -p limosa-kernels`.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use limosa_kernels::{Amount, KERNELS, Kernel, Load, Unit};
use limosa_pages::PAGE_BYTES;

/// 64 MiB of pages: more than a core's caches hold.
const AMOUNT: Amount = Amount {
    chunk_count: 32,
    load: Load::Plain,
};

fn main() {
    divan::main();
}

#[divan::bench(args = KERNELS, sample_count = 20)]
fn pass(bencher: Bencher<'_, '_>, kernel: &Kernel) {
    let mut prepared = kernel.prepare(AMOUNT).expect("memory is there");
    let units = prepared.units();
    let bencher = match kernel.unit() {
        Unit::Page => bencher.counter(BytesCount::new(units * PAGE_BYTES as u64)),
        Unit::Record | Unit::Chunk => bencher.counter(ItemsCount::new(units)),
    };
    bencher.bench_local(|| prepared.pass().expect("works"));
}
