//! Prints what the operations of this crate cost. Run it with `--release`.

use std::{convert::Infallible, error::Error, hint::black_box, time::Instant};

use claviger_memory::{Arena, ForkSentinel, LockPolicy, StackWipe, on_wiped_stack};

fn main() -> Result<(), Box<dyn Error>> {
    let arena = Arena::new(LockPolicy::Prefer);
    let slot = arena.try_init(|| Ok::<_, Infallible>([7_u8; 544]))?;
    let sentinel = ForkSentinel::new()?;

    report("on_wiped_stack(|| ())", || on_wiped_stack(|| black_box(())));
    report("StackWipe::run, shallow", || {
        static WIPE: StackWipe = StackWipe::new();
        let _ = black_box(WIPE.run(|| black_box(Ok::<_, Infallible>(()))));
    });
    report("Slot::get", || {
        let _ = black_box(black_box(&slot).get());
    });
    report("ForkSentinel::is_forked", || {
        black_box(black_box(&sentinel).is_forked());
    });
    report("Arena::try_init and drop", || {
        drop(black_box(arena.try_init(|| Ok::<_, Infallible>(black_box([7_u8; 544])))));
    });
    Ok(())
}

/// Prints the least time per call in several rounds, in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn report(name: &str, mut call: impl FnMut()) {
    let round = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        start.elapsed()
    };
    let best = std::iter::repeat_with(round).take(20).min().unwrap_or_default();
    println!("{name:26} {:6.1} ns", best.as_secs_f64() * 1e9 / f64::from(CALLS));
}

const CALLS: u32 = 200_000;
