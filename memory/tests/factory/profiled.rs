//! What a profiler's signals leave of the keys that the interrupted code works with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, ptr, thread};

use tokio::runtime::Builder;

use crate::random::Recomputable;
use crate::scan::scan;
use crate::{at_once, in_use};

/// The kernel writes all registers below the stack pointer of what it interrupts.
#[test]
fn signals_during_encrypt_and_decrypt_leave_no_key_on_the_stack() {
    catch_signals();
    let random = Recomputable::new(11);
    let (factory, session, record) = in_use(random.clone());
    let look = |moment: &str| {
        let needles = random.needles();
        let hits = thread::scope(|scope| scope.spawn(|| scan(&needles)).join().unwrap());
        assert!(hits.elsewhere.is_empty(), "{moment}: {:?}", hits.elsewhere);
    };
    for lot in 0..LOTS {
        while_signalled(|| {
            // Each encrypt draws a key, which is searched for.
            drop(at_once(session.encrypt(b"payload")).unwrap());
            for _ in 0..DECRYPTS {
                drop(at_once(session.decrypt(&record)).unwrap());
            }
        });
        look(&format!("after lot {lot}"));
    }
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    assert!(runtime.block_on(factory.close(Duration::from_secs(1))).unwrap().is_clean());
    look("after close");
}

/// Does `work` again and again, while its thread gets signals.
fn while_signalled(work: impl Fn()) {
    // SAFETY: it only tells.
    let worker = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..SIGNALS {
                // SAFETY: the thread waits for this one, and so is alive.
                assert_eq!(unsafe { libc::pthread_kill(worker, libc::SIGPROF) }, 0);
                thread::sleep(INTERVAL);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            work();
        }
    });
}

/// Installs a handler that runs on the stack that it interrupts, and does nothing.
fn catch_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: zeros are a value of this structure of numbers, pointers and sets.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler is safe to call at any time, and `action` outlives the call.
    let installed = unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) };
    assert_eq!(installed, 0, "{}", io::Error::last_os_error());
}

const LOTS: usize = 10;
const DECRYPTS: usize = 20;
/// How many signals there are in a lot.
const SIGNALS: usize = 100;
/// Shorter than the system's ticks, by which its timers for profilers go.
const INTERVAL: Duration = Duration::from_micros(200);
