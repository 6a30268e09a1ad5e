//! A key whose row holds other bytes than we do: it was lost and made anew by another process within the
//! same time, or somebody wrote another one there.

use std::sync::Arc;

use super::Hierarchy;
use super::request::LoadRequest;
use crate::key::CryptoKey;
use crate::record::KeyId;

impl Hierarchy {
    /// Lets a key encrypt no more, nor any key under it, since its row holds `current`: whatever is sealed
    /// under it from now on nobody else could read. What was is decrypted for a while.
    pub(super) fn put_aside(&self, request: &LoadRequest, key: &Arc<CryptoKey>, current: &CryptoKey) {
        let until = self.now().monotonic.saturating_add(self.rules.stale_decrypt());
        self.cache(request.level).put_aside(&request.keyring, key, current, until);
    }

    /// Forgets what keys of this id were before their rows held other bytes.
    pub(super) fn forget_formers(&self, id: &KeyId) {
        self.intermediate.drop_formers(id.as_str());
        self.system.drop_formers(id.as_str());
    }
}
