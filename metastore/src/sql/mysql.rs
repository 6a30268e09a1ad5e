//! Work in progress.

/// Work in progress.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MysqlMetastore;
