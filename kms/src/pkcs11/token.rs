//! The way to a token: its module, its slot, a session, the login, and the keys in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use claviger::ErrorChain;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use secrecy::SecretString;

use super::error::{Pkcs11Error, is_about_the_pin};
use super::format::KEY_BYTES;
use super::mechanisms::Mechanisms;

/// A token as it was configured, and what was learnt of it.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) module: PathBuf,
    pub(super) label: String,
    pub(super) pin: SecretString,
    /// The label of the key that wraps, then those of the keys that only unwrap.
    pub(super) keys: Vec<String>,
    pub(super) takes_extractable_keys: bool,
    /// How the token said no to the PIN. It is not asked again: it counts, and locks itself.
    pub(super) pin_refused: OnceLock<RvError>,
    /// Whether there was ever a connection with all keys in it.
    pub(super) was_complete: AtomicBool,
}

/// A session that is logged in, with the keys found.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    pub(super) context: Pkcs11,
    pub(super) slot: Slot,
    pub(super) keys: Vec<(String, ObjectHandle)>,
    pub(super) mechanisms: Mechanisms,
}

impl Token {
    /// Finds the slot by the token's label, opens a session there, logs in and finds the keys.
    pub(super) fn connect(&self) -> Result<Connection, Pkcs11Error> {
        // One at a time for each module: not all can bear a search for slots besides another call.
        let module = Module::at(&self.module);
        let mut module = module.lock();
        let context = module.context(&self.module)?;
        let connection = self.connect_to(context);
        match &connection {
            Ok(_) => tracing::info!(token = self.label, "session with the token opened"),
            Err(error) => {
                let error = ErrorChain::new(error);
                tracing::warn!(token = self.label, %error, "token cannot be connected to");
            }
        }
        connection
    }

    fn connect_to(&self, context: &Pkcs11) -> Result<Connection, Pkcs11Error> {
        let slot = self.slot(context)?;
        let session = context.open_ro_session(slot)?;
        self.log_in(&session)?;
        let mut keys = Vec::with_capacity(self.keys.len());
        for label in &self.keys {
            match self.key(&session, label) {
                // It was there: the token is being set up again.
                Err(Pkcs11Error::KeyNotFound(_)) if self.was_complete.load(Ordering::Relaxed) => {
                    return Err(Pkcs11Error::TokenIncomplete(label.clone()));
                }
                key => keys.push((label.clone(), key?)),
            }
        }
        self.was_complete.store(true, Ordering::Relaxed);
        let mechanisms = Mechanisms::of(context, slot)?;
        Ok(Connection { session, context: context.clone(), slot, keys, mechanisms })
    }

    fn slot(&self, context: &Pkcs11) -> Result<Slot, Pkcs11Error> {
        let mut found = None;
        let mut failure = None;
        for slot in context.get_slots_with_token()? {
            match context.get_token_info(slot) {
                Ok(token) if token.token_initialized() && token.label() == self.label => {
                    if found.replace(slot).is_some() {
                        return Err(Pkcs11Error::SeveralTokens(self.label.clone()));
                    }
                }
                Ok(_) => {}
                // It may be the slot of another token.
                Err(error) => failure = Some(error),
            }
        }
        match (found, failure) {
            (Some(slot), _) => Ok(slot),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(Pkcs11Error::TokenNotFound(self.label.clone())),
        }
    }

    fn log_in(&self, session: &Session) -> Result<(), Pkcs11Error> {
        if let Some(&code) = self.pin_refused.get() {
            return Err(Pkcs11Error::PinRefused(code));
        }
        match session.login(UserType::User, Some(&self.pin)) {
            // A process has one login for all its sessions with a token.
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(CryptokiError::Pkcs11(code, _)) if is_about_the_pin(code) => {
                tracing::error!(token = self.label, %code, "token refused the PIN");
                Err(Pkcs11Error::PinRefused(*self.pin_refused.get_or_init(|| code)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn key(&self, session: &Session, label: &str) -> Result<ObjectHandle, Pkcs11Error> {
        let wanted = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(label.as_bytes().to_vec())];
        let found = session.find_objects(&wanted)?;
        let key = match found.as_slice() {
            [] => return Err(Pkcs11Error::KeyNotFound(label.to_owned())),
            [key] => *key,
            _ => return Err(Pkcs11Error::SeveralKeys(label.to_owned())),
        };
        let attributes = session.get_attributes(
            key,
            &[
                AttributeType::KeyType,
                AttributeType::ValueLen,
                AttributeType::Sensitive,
                AttributeType::Extractable,
            ],
        )?;
        let has = |wanted: &Attribute| attributes.contains(wanted);
        let reason = if !has(&Attribute::KeyType(KeyType::AES)) {
            "it is not an AES key"
        } else if !attributes.iter().any(|attribute| is_length(attribute, KEY_BYTES)) {
            "it is not of 256 bits"
        } else if self.takes_extractable_keys {
            return Ok(key);
        } else if !has(&Attribute::Extractable(false)) {
            "it can leave the token (CKA_EXTRACTABLE)"
        } else if !has(&Attribute::Sensitive(true)) {
            "the token gives it out in the clear (not CKA_SENSITIVE)"
        } else {
            return Ok(key);
        };
        Err(Pkcs11Error::KeyRefused { label: label.to_owned(), reason })
    }
}

fn is_length(attribute: &Attribute, bytes: usize) -> bool {
    matches!(attribute, Attribute::ValueLen(length) if usize::try_from(**length) == Ok(bytes))
}

/// A PKCS#11 module of this process.
///
/// A module is initialised once in a process, by whoever comes first, and never finalised: others
/// may use it, and do not know of us.
#[derive(Debug, Default)]
struct Module(Mutex<Loaded>);

#[derive(Debug, Default)]
struct Loaded(Option<Pkcs11>);

impl Module {
    fn at(path: &Path) -> Arc<Self> {
        static MODULES: Mutex<Option<HashMap<PathBuf, Arc<Module>>>> = Mutex::new(None);
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(modules.get_or_insert_default().entry(path).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    /// Returns the module, initialised in this process.
    fn context(&mut self, path: &Path) -> Result<&Pkcs11, Pkcs11Error> {
        let unusable = |source| Pkcs11Error::Module { path: path.to_owned(), source };
        let context = match self.0.take() {
            Some(context) => context,
            None => {
                let context = Pkcs11::new(path).map_err(unusable)?;
                initialise(&context)?;
                context
            }
        };
        // Finalised by somebody, or initialised in a process that this one was forked from.
        if let Err(CryptokiError::Pkcs11(RvError::CryptokiNotInitialized, _)) = context.get_library_info() {
            initialise(&context)?;
        }
        Ok(self.0.insert(context))
    }
}

fn initialise(context: &Pkcs11) -> Result<(), Pkcs11Error> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
