//! A KMS of several regions, each with a master key of its own, that can be down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger::testing::SeededRandom;
use claviger::{
    BackendError, CallContext, KeyManagementService, KeyMeta, SecretKey, StaticKms, WrapHealth, WrappedKey,
};

/// Its clones are the same regions.
#[derive(Clone, Debug)]
pub(crate) struct Regions(Arc<Vec<Region>>);

#[derive(Debug)]
struct Region {
    name: &'static str,
    key: StaticKms,
    is_down: AtomicBool,
}

const COPY_BYTES: usize = 60;

impl Regions {
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let region =
            |name: &&'static str| Region { name, key: master_key(name), is_down: AtomicBool::new(false) };
        Self(Arc::new(names.iter().map(region).collect()))
    }

    pub(crate) fn down(&self, name: &str, is_down: bool) {
        self.0.iter().find(|region| region.name == name).unwrap().is_down.store(is_down, Ordering::SeqCst);
    }
}

/// The same key for the same name.
pub(crate) fn master_key(name: &str) -> StaticKms {
    let seed = name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    StaticKms::new(&SecretKey::generate(&SeededRandom::new(seed)).unwrap()).unwrap()
}

impl KeyManagementService for Regions {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let (mut bytes, mut missing) = (Vec::new(), Vec::new());
        for (index, region) in self.0.iter().enumerate() {
            if region.is_down.load(Ordering::SeqCst) {
                missing.push(region.name.to_owned());
            } else {
                bytes.push(u8::try_from(index).unwrap());
                bytes.extend_from_slice(region.key.wrap_key(key, meta, context).await?.bytes());
            }
        }
        if bytes.is_empty() {
            Err(BackendError::transient("down"))
        } else {
            Ok(WrappedKey::new(bytes).lacking(missing))
        }
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let mut is_any_down = false;
        for copy in wrapped.chunks(1 + COPY_BYTES) {
            let Some(region) = self.0.get(usize::from(copy[0])) else { continue };
            if region.is_down.load(Ordering::SeqCst) {
                is_any_down = true;
            } else if let Ok(key) = region.key.unwrap_key(&copy[1..], meta, context).await {
                return Ok(key);
            }
        }
        Err(if is_any_down {
            BackendError::transient("down")
        } else {
            BackendError::damaged("no copy opens")
        })
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        if wrapped.is_empty() || !wrapped.len().is_multiple_of(1 + COPY_BYTES) {
            return Err(BackendError::damaged("another service's"));
        }
        let held: Vec<_> = wrapped.chunks(1 + COPY_BYTES).map(|copy| usize::from(copy[0])).collect();
        let names = |is_held| {
            let chosen = self.0.iter().enumerate().filter(|(index, _)| held.contains(index) == is_held);
            chosen.map(|(_, region)| region.name.to_owned()).collect()
        };
        Ok(WrapHealth::new(names(true), names(false)))
    }
}
