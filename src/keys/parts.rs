//! What most parts of a factory need.

use std::sync::Arc;

use super::back_ends::BackEnds;
use super::caches::Caches;
use super::context::Context;

/// Each part takes of it what it needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) context: Arc<Context>,
    pub(crate) caches: Arc<Caches>,
    pub(crate) back_ends: Arc<BackEnds>,
}
