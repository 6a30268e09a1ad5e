//! The one store in an SQL database, whatever its dialect and however its sessions are had.

use std::fmt;
use std::sync::Arc;

use claviger::{
    BackendError, CallContext, Consistency, Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest,
    Metastore, MetastoreAdmin, Page, Replacement,
};

use crate::schema::SchemaReport;
use crate::sql::error::SqlFuture;
use crate::sql::statements::{On, Statements};
use crate::sql::write::Write;
use crate::sql::{FoldedIds, check_id, checked_json, read};

/// How calls come to a session with the database, and through it to their end also when their callers go
/// away.
pub(crate) trait Access: Clone + Send + Sync + 'static {
    type Dialect: Statements;

    fn folded_ids(&self) -> FoldedIds;

    /// Runs `work`, which only reads and may be begun anew on another session; on a replica, if there is one and
    /// the context's consistency allows it.
    fn read<T: Send + 'static>(
        &self,
        context: CallContext,
        work: impl Fn(On<'_, Self::Dialect>) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> impl Future<Output = Result<T, BackendError>> + Send;

    /// Writes, once, each by itself and in this order. Returns how many rows each reached.
    fn write(
        &self,
        context: CallContext,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Vec<u64>, BackendError>> + Send;

    /// Looks for what is wrong, and changes nothing.
    fn report(&self, context: CallContext)
    -> impl Future<Output = Result<SchemaReport, BackendError>> + Send;

    fn failovers(&self) -> u64;

    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Adds what there is to say of the connections.
    fn debug(&self, fields: &mut fmt::DebugStruct<'_, '_>);
}

/// Keeps key records in an SQL database.
#[derive(Clone)]
pub(crate) struct SqlMetastore<A>(pub(crate) A);

impl<A: Access> SqlMetastore<A> {
    async fn write(&self, context: &CallContext, write: Write) -> Result<u64, BackendError> {
        Ok(self.0.write(*context, vec![write]).await?.into_iter().sum())
    }
}

impl<A: Access> fmt::Debug for SqlMetastore<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct(A::Dialect::STORE);
        self.0.debug(&mut fields);
        fields.finish_non_exhaustive()
    }
}

impl<A: Access> Metastore for SqlMetastore<A> {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_id(key.id())?;
        let (key, folded) = (key.clone(), self.0.folded_ids());
        let load = self.0.read(*context, move |mut on| {
            let key = key.clone();
            Box::pin(async move { read::load(&mut on, &key, folded).await })
        });
        load.await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        check_id(id)?;
        let id = id.clone();
        let load = self.0.read(context.consistency(Consistency::Strong), move |mut on| {
            let id = id.clone();
            Box::pin(async move { read::load_latest(&mut on, &id, up_to).await })
        });
        load.await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let (keys, folded): (Arc<[KeyMeta]>, _) = (keys.into(), self.0.folded_ids());
        let load = self.0.read(*context, move |mut on| {
            let keys = Arc::clone(&keys);
            Box::pin(async move { read::load_many(&mut on, &keys, folded).await })
        });
        load.await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        ids.iter().try_for_each(check_id)?;
        let ids: Arc<[KeyId]> = ids.into();
        let load = self.0.read(context.consistency(Consistency::Strong), move |mut on| {
            let ids = Arc::clone(&ids);
            Box::pin(async move { read::load_latest_many(&mut on, &ids, up_to).await })
        });
        load.await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        check_id(record.meta().id())?;
        checked_json(record)?;
        let inserted = self.write(context, Write::Insert(record.clone())).await?;
        Ok(if inserted == 0 { Insert::AlreadyExists } else { Insert::Inserted })
    }

    fn failovers(&self) -> u64 {
        self.0.failovers()
    }
}

impl<A: Access> MetastoreAdmin for SqlMetastore<A> {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> Result<Page, BackendError> {
        let (prefix, after): (Arc<str>, _) = (prefix.into(), after.cloned());
        let list = self.0.read(context.consistency(Consistency::Strong), move |mut on| {
            let (prefix, after) = (Arc::clone(&prefix), after.clone());
            Box::pin(async move { read::list(&mut on, &prefix, after.as_ref(), limit).await })
        });
        list.await
    }

    async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        check_id(key.id())?;
        Ok(self.write(context, Write::Revoke(key.clone())).await? > 0)
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        replacements.iter().try_for_each(|replacement| check_id(replacement.key.id()))?;
        let writes = replacements.iter().cloned().map(Write::Replace).collect();
        Ok(self.0.write(*context, writes).await?.into_iter().map(|replaced| replaced > 0).collect())
    }

    async fn delete_version(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        check_id(key.id())?;
        Ok(self.write(context, Write::DeleteVersion(key.clone())).await? > 0)
    }

    async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
        check_id(id)?;
        self.write(context, Write::Delete(id.clone())).await
    }

    async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
        let count = self.0.read(context.consistency(Consistency::Strong), |mut on| {
            Box::pin(async move { A::Dialect::count(&mut on).await })
        });
        count.await
    }
}

/// Gives a public store, which is named for its database and documents its SQL, what all have: it is a
/// newtype of [`SqlMetastore`].
macro_rules! sql_metastore {
    ($store:ident) => {
        const _: () = {
            use std::fmt;

            use claviger::{
                BackendError, CallContext, Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest,
                Metastore, MetastoreAdmin, Page, Replacement,
            };

            use crate::SchemaReport;
            use crate::sql::store::Access as _;

            impl $store {
                /// Looks for what is wrong with the table and the settings it is used by, with the rights
                /// of the user, and at a sample of the rows. It changes nothing.
                ///
                /// # Errors
                /// Transient when the database cannot be asked, permanent when it refuses to answer.
                ///
                /// # Cancel safety
                /// Nothing is changed.
                pub async fn check_schema(
                    &self,
                    context: &CallContext,
                ) -> Result<SchemaReport, BackendError> {
                    self.0.0.report(*context).await
                }

                /// Closes the connections, once calls under way have ended. Calls made later are refused.
                ///
                /// # Cancel safety
                /// Closing goes on.
                pub async fn close(&self) {
                    self.0.0.close().await;
                }
            }

            impl fmt::Debug for $store {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }

            impl Metastore for $store {
                async fn load(
                    &self,
                    key: &KeyMeta,
                    context: &CallContext,
                ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
                    self.0.load(key, context).await
                }

                async fn load_latest(
                    &self,
                    id: &KeyId,
                    up_to: Created,
                    context: &CallContext,
                ) -> Result<Option<Latest>, BackendError> {
                    self.0.load_latest(id, up_to, context).await
                }

                async fn load_many(
                    &self,
                    keys: &[KeyMeta],
                    context: &CallContext,
                ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
                    self.0.load_many(keys, context).await
                }

                async fn load_latest_many(
                    &self,
                    ids: &[KeyId],
                    up_to: Created,
                    context: &CallContext,
                ) -> Result<Vec<Option<Latest>>, BackendError> {
                    self.0.load_latest_many(ids, up_to, context).await
                }

                async fn insert(
                    &self,
                    record: &EnvelopeKeyRecord,
                    context: &CallContext,
                ) -> Result<Insert, BackendError> {
                    self.0.insert(record, context).await
                }

                fn failovers(&self) -> u64 {
                    self.0.failovers()
                }
            }

            impl MetastoreAdmin for $store {
                async fn list(
                    &self,
                    prefix: &str,
                    after: Option<&KeyMeta>,
                    limit: usize,
                    context: &CallContext,
                ) -> Result<Page, BackendError> {
                    self.0.list(prefix, after, limit, context).await
                }

                async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
                    self.0.revoke(key, context).await
                }

                async fn replace_many(
                    &self,
                    replacements: &[Replacement],
                    context: &CallContext,
                ) -> Result<Vec<bool>, BackendError> {
                    self.0.replace_many(replacements, context).await
                }

                async fn delete_version(
                    &self,
                    key: &KeyMeta,
                    context: &CallContext,
                ) -> Result<bool, BackendError> {
                    self.0.delete_version(key, context).await
                }

                async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
                    self.0.delete(id, context).await
                }

                async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
                    self.0.count(context).await
                }
            }
        };
    };
}

pub(crate) use sql_metastore;
