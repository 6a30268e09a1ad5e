//! Sessions' origin.

pub(crate) mod builder;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;
use crate::error::Error;
use crate::invalidation::listener::Invalidate as _;
use crate::record::{KeyId, KeyMeta};
use crate::session::Session;
use crate::status::{CloseReport, Status, WarmUp};

/// Hands out [`Session`]s, one per partition, over a shared cache of keys.
///
/// A service has one for each `(service, product)` it encrypts for. Clones are handles to the same
/// factory; dropping the last handle, sessions included, ends its tasks and wipes its keys.
#[derive(Clone)]
pub struct SessionFactory {
    core: Arc<Core>,
}

impl SessionFactory {
    pub(crate) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Returns the session of a partition: a customer, a tenant, an account. No I/O; make one for
    /// each call or keep it, as you like.
    ///
    /// ```
    /// # use claviger::{Error, SessionFactory};
    /// # async fn handle(factory: &SessionFactory, card: &[u8]) -> Result<String, Error> {
    /// let session = factory.session("customer-17")?;
    /// session.encrypt_json(card).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidPartition`], [`Error::Closed`], [`Error::Forked`].
    pub fn session(&self, partition: &str) -> Result<Session, Error> {
        let core = self.core.open()?;
        let id = core.context().naming().intermediate_key_id(partition)?;
        Ok(Session::new(Arc::clone(&self.core), core.caches().intermediate().keyring(&id)))
    }

    /// Loads the latest keys of these partitions in bulk, so that their first encrypts wait for
    /// nothing: a thousand to a call to the metastore, and one call to the KMS for each system key.
    ///
    /// ```
    /// # use claviger::{Error, SessionFactory};
    /// # async fn start(factory: &SessionFactory, customers: Vec<String>) -> Result<(), Error> {
    /// let report = factory.warm_up(&customers).await?;
    /// for (partition, error) in &report.failed {
    ///     eprintln!("{partition}: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// No key is created, and no more are loaded than the cache holds; say the most important
    /// partitions first. A chunk is loaded by a task of the factory, within one operation's deadline,
    /// and operations that want one of its keys meanwhile wait for it as they would for a load of
    /// their own.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::NoRuntime`]. What went wrong with single
    /// partitions is in the report.
    ///
    /// # Cancel safety
    /// The chunk that is being loaded comes to its end; no other one is begun.
    pub async fn warm_up(
        &self,
        partitions: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<WarmUp, Error> {
        let partitions = partitions.into_iter().map(|partition| partition.as_ref().to_owned()).collect();
        let core = self.core.open()?;
        core.wait_for(core.engine().warm_up(partitions)).await
    }

    /// Notes that records of this key, a system or an intermediate one, may have changed: they were
    /// revoked, rewrapped or deleted.
    ///
    /// What is cached of it is checked before it is used next, as if its check interval were over: an
    /// operation that begins after this call waits for the metastore, and goes on with what is cached
    /// only if that does not answer. No I/O. A key that is not cached is not noted. If the key is a system
    /// key, all cached keys under it are checked too; the call takes no longer for that.
    ///
    /// ```
    /// # use claviger::{Error, KeyId, SessionFactory};
    /// # fn on_message(factory: &SessionFactory) -> Result<(), Error> {
    /// factory.invalidate(&KeyId::new("_IK_customer-17_checkout_payments"))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn invalidate(&self, key: &KeyId) -> Result<(), Error> {
        self.core.open()?.engine().invalidate(key);
        Ok(())
    }

    /// Notes that any key's records may have changed, as [`invalidate`](Self::invalidate) does for one: for
    /// when a message about that may have been missed. It walks over all cached keys, which takes about a
    /// microsecond each and holds up nobody.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn invalidate_all(&self) -> Result<(), Error> {
        self.core.open()?.engine().invalidate_everything_at_once();
        Ok(())
    }

    /// Notes that the records of this key were deleted for good and are not to come back.
    ///
    /// What is cached of it is checked before it is used next, as by [`invalidate`](Self::invalidate). Its
    /// rows on the list of lost rows are forgotten. Rows of it found gone within `max_stale_decrypt` raise no
    /// event, are not kept and are not put back. A row that was put back before the
    /// word came stays: delete it again. The 10 000 ids that were said last are remembered.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn shredded(&self, key: &KeyId) -> Result<(), Error> {
        self.core.open()?.engine().shredded(key);
        Ok(())
    }

    /// Puts the row of a lost key ([`Status::lost_rows`]) back as it was, unless it is there, and the row
    /// of its system key before it if that is lost too. `true` if it is back, by this call or another's.
    ///
    /// `false` if the key is not on the list. Also `false` if its row, or its system key's, holds another
    /// wrapped key by now: that raises [`Event::KeyChanged`](crate::Event::KeyChanged), and the key stays on
    /// the list. What was sealed under it cannot be decrypted by what is in the metastore then.
    ///
    /// ```
    /// # use claviger::{Error, SessionFactory};
    /// # async fn after_a_failover(factory: &SessionFactory) -> Result<(), Error> {
    /// for row in factory.status()?.lost_rows {
    ///     let is_back = factory.restore_lost(&row.key).await?;
    ///     println!("{}: {}", row.key, if is_back { "restored" } else { "not restored" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Metastore`], [`Error::Deadline`], [`Error::Overloaded`]; [`Error::CreationRace`] if the
    /// metastore says that the row is there and does not return it yet; [`Error::NoRuntime`],
    /// [`Error::Interrupted`], [`Error::Closed`], [`Error::Forked`].
    ///
    /// # Cancel safety
    /// A task of the factory does the work, and comes to its end whoever waits.
    pub async fn restore_lost(&self, key: &KeyMeta) -> Result<bool, Error> {
        let core = self.core.open()?;
        core.wait_for(core.engine().restore_lost(key)).await
    }

    /// Returns what the factory holds and what happened to it.
    ///
    /// ```
    /// # use claviger::{Error, SessionFactory};
    /// # fn is_ready(factory: &SessionFactory) -> Result<bool, Error> {
    /// let status = factory.status()?;
    /// let is_ready = !status.closed && !status.metastore_down && !status.kms_down;
    /// # Ok(is_ready)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn status(&self) -> Result<Status, Error> {
        self.core.status()
    }

    /// Closes the factory: refuses new work with [`Error::Closed`], ends the tasks that listen, waits for key
    /// loads and for keys in use until the deadline, ends what is left and wipes all keys.
    ///
    /// Further calls, also concurrent ones, return the first one's report. The caller needs no runtime.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use claviger::{Error, SessionFactory};
    /// # async fn shut_down(factory: &SessionFactory) -> Result<(), Error> {
    /// let report = factory.close(Duration::from_secs(5)).await?;
    /// if !report.is_clean() {
    ///     eprintln!("{report:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Forked`]; [`Error::NoRuntime`] outside of a runtime only. What went wrong while closing is
    /// in the report.
    ///
    /// # Cancel safety
    /// New work stays refused; another call goes on with the closing.
    pub async fn close(&self, deadline: Duration) -> Result<CloseReport, Error> {
        self.core.close(deadline).await
    }
}

impl fmt::Debug for SessionFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFactory")
            .field("system_key", self.core.caches().system_keyring().id())
            .finish_non_exhaustive()
    }
}
