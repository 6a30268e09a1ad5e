//! Connections that are there longer than the runtime which they were opened in.

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// Opens connections in a runtime of their own, makes a call over them in another, and ends the first
/// once the call waits for its answer. Returns what became of the call, and the runtime that it ran in.
pub fn call_after_the_openers_end<S, F>(
    open: impl Future<Output = S>,
    call: impl FnOnce(S) -> F,
    waits: impl Fn() -> bool,
) -> (F::Output, Runtime)
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let opener = Builder::new_current_thread().enable_all().build().unwrap();
    let caller = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let opened = opener.block_on(async {
        let opened = open.await;
        // What was used is given back.
        turns().await;
        opened
    });
    let called = caller.spawn(call(opened));
    opener.block_on(async {
        while !waits() {
            yield_now().await;
        }
        // What there is of an answer is read.
        turns().await;
    });
    drop(opener);
    (caller.block_on(called).unwrap(), caller)
}

/// Lets everything else on a runtime of one thread go on, its sockets as well.
async fn turns() {
    for _ in 0..1_000 {
        yield_now().await;
    }
}
