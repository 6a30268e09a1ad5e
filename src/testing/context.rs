//! What tests tell back ends when they call them by themselves.

use std::future::Future;
use std::time::Duration;

use crate::context::CallContext;
use crate::error::BackendError;
use crate::metastore::{MetastoreAdmin, Replacement};
use crate::record::KeyMeta;

/// The context of a test's own call: half a minute, with strong consistency.
#[must_use]
pub fn call() -> CallContext {
    CallContext::within(Duration::from_secs(30))
}

/// Replacements one by one.
pub trait ReplaceOne: MetastoreAdmin {
    /// Replaces the wrapped key by `new` if the record still holds `old`; `true` if it did.
    ///
    /// # Errors
    /// As of [`MetastoreAdmin::replace_many`].
    fn replace_one(
        &self,
        key: &KeyMeta,
        old: &[u8],
        new: &[u8],
        context: &CallContext,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        async move {
            let replacement = [Replacement::new(key.clone(), old, new)];
            Ok(self.replace_many(&replacement, context).await? == [true])
        }
    }
}

impl<M: MetastoreAdmin> ReplaceOne for M {}
