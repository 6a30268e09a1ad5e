//! Word from outside that key records changed, so that a factory need not wait for its next check.

pub(crate) mod listener;
mod pace;

use std::fmt;

use crate::BoxFuture;
use crate::context::CallContext;
use crate::error::BackendError;
use crate::record::KeyId;

/// What an [`InvalidationSource`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidation {
    /// Records of this key, a system or an intermediate one, were revoked, rewrapped or deleted.
    Key(KeyId),
    /// Any key's may have been: messages may have been missed.
    Everything,
    /// Records of this key were deleted for good and are not to come back: as
    /// [`SessionFactory::shredded`](crate::SessionFactory::shredded). Said of no other: a loss that was
    /// not meant would go unnoticed.
    Shredded(KeyId),
}

impl Invalidation {
    /// Returns what metrics call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Everything => "everything",
            Self::Shredded(_) => "shredded",
        }
    }
}

/// Tells a factory which keys' records changed, as they change: a database's notifications, a
/// message queue, a hook of an operator's tool.
///
/// It makes revocations known sooner and is relied on for nothing: a factory checks its keys by
/// `revoke_check_interval` whether or not anything is told. So a source may tell too much, or a
/// thing twice, at the price of a read. The first [`Invalidation::Everything`] in a second is heeded at once.
/// All others of that second are heeded together at its end. More than 256 keys in a second count as one
/// `Everything`.
///
/// ```
/// use claviger::{BackendError, CallContext, Invalidation, InvalidationSource, KeyId};
///
/// /// What an operator's tool sends over a channel, which loses nothing.
/// #[derive(Debug)]
/// struct Tool(tokio::sync::mpsc::Receiver<KeyId>);
///
/// impl InvalidationSource for Tool {
///     async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
///         let id = self.0.recv().await.ok_or_else(|| BackendError::permanent("the tool hung up"))?;
///         Ok(Invalidation::Key(id))
///     }
/// }
/// ```
pub trait InvalidationSource: fmt::Debug + Send + Sync + 'static {
    /// Waits for the next message, for as long as there is none.
    ///
    /// A source that has no connection makes one first, and answers [`Invalidation::Everything`] as
    /// soon as it stands, the first one too: what was told before was missed. After an error the
    /// factory calls again in a while.
    ///
    /// The deadline of `context` is not one for messages. It bounds all else that a source waits for: it has
    /// until then to connect. An answer that falls due later, such as a sign of life, has as much time as
    /// was left when the call began. The attempt counts the calls since the last message.
    ///
    /// # Errors
    /// When no connection can be made, or the one there was is lost.
    ///
    /// # Cancel safety
    /// Dropped at any await it loses no message, or the next call answers
    /// [`Invalidation::Everything`].
    fn next(
        &mut self,
        context: &CallContext,
    ) -> impl Future<Output = Result<Invalidation, BackendError>> + Send;
}

/// A source whose type is forgotten.
#[derive(Debug)]
pub(crate) struct BoxedSource(Box<dyn DynInvalidationSource>);

impl BoxedSource {
    pub(crate) fn new(source: impl InvalidationSource) -> Self {
        Self(Box::new(source))
    }

    pub(crate) async fn next(&mut self, context: &CallContext) -> Result<Invalidation, BackendError> {
        self.0.next_dyn(context).await
    }
}

/// The twin of [`InvalidationSource`] that can be a trait object. Written once, here.
trait DynInvalidationSource: fmt::Debug + Send + Sync {
    fn next_dyn<'a>(
        &'a mut self,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<Invalidation, BackendError>>;
}

impl<S: InvalidationSource> DynInvalidationSource for S {
    fn next_dyn<'a>(
        &'a mut self,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<Invalidation, BackendError>> {
        Box::pin(self.next(context))
    }
}
