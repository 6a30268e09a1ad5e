//! Where claviger keeps what nobody else has a place for.

use std::path::PathBuf;

use crate::exit::{Exit, Failure};
use crate::variables::variable;

/// Claviger's own folder.
pub(crate) fn home() -> Result<PathBuf, Failure> {
    let variable = |name| variable(name).map(PathBuf::from);
    variable("CLAVIGER_HOME")
        .or_else(|| {
            variable("XDG_DATA_HOME").filter(|path| path.is_absolute()).map(|data| data.join("claviger"))
        })
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/claviger")))
        .ok_or_else(|| {
            Failure::new(
                Exit::Config,
                "there is no home folder to keep keys in; set CLAVIGER_HOME to a folder",
            )
        })
}
