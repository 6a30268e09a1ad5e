//! How long a call may take.

use std::time::Duration;

use claviger::CallContext;

/// What an operator's call to the key store is told.
pub(crate) fn call() -> CallContext {
    CallContext::within(CALL_WAIT)
}

/// How long a database has for an answer, and a KMS unless it is told otherwise. Nobody waits at a counter for a
/// file, and a run that gives up has to begin anew.
pub(crate) const CALL_WAIT: Duration = Duration::from_secs(10);
