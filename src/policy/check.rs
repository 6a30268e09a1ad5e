//! How settings are checked.

use std::time::Duration;

use crate::error::Error;

/// Longer spans are a mistake of units, and would overflow the arithmetic of time.
pub(super) const SPAN_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

pub(super) fn require(holds: bool, otherwise: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::invalid_config(otherwise)) }
}
