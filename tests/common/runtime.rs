//! Where the factories of tests run.

use claviger::SessionFactoryBuilder;
use tokio::runtime::Handle;

/// Loads keys on the test's own runtime, whose clock may be paused; outside of one on the factory's thread.
pub(crate) fn on_this_runtime(builder: SessionFactoryBuilder) -> SessionFactoryBuilder {
    match Handle::try_current() {
        Ok(runtime) => builder.runtime(runtime),
        Err(_) => builder,
    }
}
