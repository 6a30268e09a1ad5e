//! How a key is created (T3), and when it says it was (T4).

use std::sync::Arc;

use super::loader::Loader;
use super::request::{Level, LoadRequest};
use super::rules::TooFarAhead;
use crate::aead::{self, Nonce, OVERHEAD_BYTES};
use crate::error::{Dependency, Error};
use crate::key::CryptoKey;
use crate::keyring::flight::{Flights, Outcome};
use crate::keyring::key_set::Role;
use crate::metastore::Insert;
use crate::record::{Created, EnvelopeKeyRecord, KeyMeta};
use crate::secret::{KEY_BYTES, SecretKey};
use crate::telemetry::keys::KeyChange;

/// What became of an attempt to create a key.
pub(super) enum Creation {
    Made(Arc<CryptoKey>),
    /// Somebody else was faster.
    Beaten,
    /// The store says that this key exists and does not return it: a node of it that has not heard of
    /// the winner's row yet, or a table that cannot tell ids apart.
    Unseen(KeyMeta),
}

impl Loader {
    /// Returns the key that a new one is wrapped under; `None` for the KMS.
    pub(super) async fn parent_to_wrap(
        self: &Arc<Self>,
        request: &LoadRequest,
    ) -> Result<Option<Arc<CryptoKey>>, Error> {
        match request.level {
            Level::System => Ok(None),
            Level::Intermediate => self.system_key_to_wrap(request).await.map(Some),
        }
    }

    /// Creates a key under `parent` and stores it (T3), which is `change`.
    pub(super) async fn create(
        &self,
        request: &LoadRequest,
        (above, change): (Option<Created>, KeyChange),
        parent: Option<Arc<CryptoKey>>,
    ) -> Result<Creation, Error> {
        let keyring = &request.keyring;
        let meta = self.next_meta(request, above)?;
        let secret = SecretKey::generate(self.context.random())?;
        let record = match &parent {
            None => {
                request.progress.awaits(Dependency::Kms);
                let wrapped = self.back_ends.kms().wrap_key(request.class, &secret, &meta).await?;
                self.maker.note_copies(&meta, wrapped.missing_copies());
                EnvelopeKeyRecord::new(meta, Arc::clone(wrapped.bytes()), None)
            }
            Some(parent) => {
                let wrapped = self.seal_under(parent, &secret)?;
                EnvelopeKeyRecord::new(meta, wrapped, Some(parent.meta().clone()))
            }
        };
        // The key is made before its row, so that no row is left by one that cannot be made.
        let state = keyring.state(record.meta().created());
        let key = self.maker.make_key(&secret, &record, Arc::clone(&state), parent.as_deref())?;
        drop(secret);
        let begun = self.now();
        match self.back_ends.store_for(request).insert(request.store_class(), &record).await? {
            Insert::Inserted => {
                let key = Arc::new(key);
                keyring.mark_checked(&state, begun, request.generation);
                self.caches.missing().forget(record.meta());
                self.caches.of(request.level).add(keyring, &key, Role::Latest);
                self.context.note_change(request.level, change, record.meta());
                Ok(Creation::Made(key))
            }
            Insert::AlreadyExists => {
                drop(key);
                let store = self.back_ends.store_for(request);
                let winner = self.read(request, store.load(request.store_class(), record.meta()).await)?;
                Ok(winner.map_or_else(|| Creation::Unseen(record.meta().clone()), |_| Creation::Beaten))
            }
        }
    }

    /// Returns the system key to wrap a new intermediate key under. If that one is to replace another
    /// before its end, a system key that is near its own is replaced first.
    async fn system_key_to_wrap(self: &Arc<Self>, child: &LoadRequest) -> Outcome {
        let keyring = self.caches.system_keyring();
        let now = self.now();
        let mut request = LoadRequest::latest(Level::System, keyring).needed_by(child);
        if let Some(key) = keyring.latest() {
            if child.replace.is_some() && now.wall >= key.life().replace_from {
                request = request.replacing(&key);
            } else if self.rules().may_wrap(&key, now) {
                return Ok(key);
            }
        }
        let min_generation = if request.replace.is_some() {
            Flights::any_generation()
        } else {
            self.dispatcher.min_generation(keyring)
        };
        self.dispatcher.join_or_start(self, request, min_generation, &child.progress).await
    }

    fn next_meta(&self, request: &LoadRequest, above: Option<Created>) -> Result<KeyMeta, Error> {
        let (id, now) = (request.keyring.id(), self.now());
        // So that a lost row can be put back, and no two keys share an id and a time.
        let above = above.max(self.lost_rows.greatest(id, self.rules().created_max(now)));
        match (self.rules().next_created(now, above), above) {
            (Ok(Some(created)), _) => Ok(self.unrevoked(KeyMeta::new(id.clone(), created))),
            (Ok(None), _) => Err(Error::ClockNotSet { key: id.clone() }),
            (Err(TooFarAhead), above) => {
                Err(Error::ClockSkew(KeyMeta::new(id.clone(), above.unwrap_or(Created::MAX))))
            }
        }
    }

    /// Returns the first version from this one on that is not known to be revoked: a row that was deleted leaves its
    /// name, under which a new key would be revoked, too.
    fn unrevoked(&self, mut key: KeyMeta) -> KeyMeta {
        while self.maker.is_known_as_revoked(&key)
            && let Some(created) = Created::new(key.created().unix_seconds().saturating_add(1))
        {
            key = KeyMeta::new(key.id().clone(), created);
        }
        key
    }

    fn seal_under(
        &self,
        parent: &CryptoKey,
        secret: &SecretKey,
    ) -> Result<[u8; KEY_BYTES + OVERHEAD_BYTES], Error> {
        let nonce = Nonce::draw(self.context.random())?;
        let mut wrapped = [0; KEY_BYTES + OVERHEAD_BYTES];
        aead::seal_key(parent.cipher()?, nonce, secret.expose_secret(), &mut wrapped)?;
        Ok(wrapped)
    }
}
