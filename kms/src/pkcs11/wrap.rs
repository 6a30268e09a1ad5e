//! Wrapping and unwrapping with a token's key.

use claviger::{ErrorChain, SecretKey, SecureRandom as _, SystemRandom};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use cryptoki::types::Ulong;
use zeroize::{Zeroize as _, Zeroizing};

use super::Pkcs11Mechanism;
use super::error::{Meaning, Pkcs11Error};
use super::format::{self, IV_BYTES, KEY_BYTES, Method, TAG_BYTES, Wrapped};
use super::token::Connection;

/// The mechanisms of a token that serve here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mechanisms {
    kwp: Option<Kwp>,
    has_gcm: bool,
}

/// A token's name for KWP, and the functions that take it.
#[derive(Clone, Copy, Debug)]
struct Kwp {
    mechanism: MechanismType,
    by: By,
}

#[derive(Clone, Copy, Debug)]
enum By {
    /// `C_Encrypt` and `C_Decrypt`: the key is never an object in the token.
    Encrypting,
    /// `C_WrapKey` and `C_UnwrapKey` of an object that lives for that one call.
    Wrapping,
}

/// What KWP is called. `CKM_AES_KEY_WRAP_KWP` of PKCS#11 3.0 is missing: the crate cannot say it.
const KWP_OF_LUNA: u64 = 0x8000_0171;
const KWP_OF_CLOUDHSM: u64 = 0x8000_216f;

impl Mechanisms {
    pub(super) fn of(context: &Pkcs11, slot: Slot) -> Result<Self, Pkcs11Error> {
        let mut names = vec![
            // KWP by its name of PKCS#11 2.40; some take it for another padding, which shows.
            MechanismType::AES_KEY_WRAP_PAD,
        ];
        for vendors in [KWP_OF_LUNA, KWP_OF_CLOUDHSM] {
            names.push(MechanismType::new_vendor_defined(vendors)?);
        }
        let mut kwp = None;
        for mechanism in names {
            let Some(info) = info(context, slot, mechanism)? else { continue };
            let by = if info.encrypt() && info.decrypt() {
                By::Encrypting
            } else if info.wrap() && info.unwrap() {
                By::Wrapping
            } else {
                continue;
            };
            kwp = Some(Kwp { mechanism, by });
            break;
        }
        let gcm = info(context, slot, MechanismType::AES_GCM)?;
        Ok(Self { kwp, has_gcm: gcm.is_some_and(|info| info.encrypt() && info.decrypt()) })
    }
}

/// Asks for one mechanism; `None` if the token does not have it.
fn info(
    context: &Pkcs11,
    slot: Slot,
    mechanism: MechanismType,
) -> Result<Option<cryptoki::mechanism::MechanismInfo>, Pkcs11Error> {
    match context.get_mechanism_info(slot, mechanism) {
        Ok(info) => Ok(Some(info)),
        Err(CryptokiError::Pkcs11(RvError::MechanismInvalid, _)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Connection {
    /// Finds the method that was asked for, or the first that works, by trying it out.
    pub(super) fn choose(&self, wanted: Pkcs11Mechanism) -> Result<Method, Pkcs11Error> {
        let (first, other) = match wanted {
            Pkcs11Mechanism::AesKwp => (Method::AesKwp, None),
            Pkcs11Mechanism::AesGcm => (Method::AesGcm, None),
            Pkcs11Mechanism::Auto => (Method::AesKwp, Some(Method::AesGcm)),
        };
        let refused = match self.try_out(first) {
            Ok(()) => return Ok(first),
            Err(error) => error,
        };
        match other {
            // That the other works shows that the device is well, whatever it said.
            Some(other) if matches!(refused.meaning(), Meaning::Permanent | Meaning::Unclear) => {
                tracing::info!(error = %ErrorChain::new(&refused), "token does not do AES-KWP for this key");
                self.again()?.try_out(other).map(|()| other)
            }
            _ => Err(refused),
        }
    }

    /// Wraps under the first key.
    pub(super) fn wrap(&self, method: Method, key: &SecretKey) -> Result<Wrapped, Pkcs11Error> {
        let (label, handle) = self.keys.first().ok_or(Pkcs11Error::Config("there is no key"))?;
        let body = match method {
            Method::AesKwp => self.wrap_by_kwp(*handle, key)?,
            Method::AesGcm => self.wrap_by_gcm(*handle, &format::header(method, label), key)?,
        };
        Ok(Wrapped { method, label: label.clone(), body })
    }

    /// Unwraps what [`wrap`](Self::wrap) made. `usual` is the method in use now.
    pub(super) fn unwrap(&self, usual: Method, wrapped: &Wrapped) -> Result<SecretKey, Pkcs11Error> {
        match self.unwrap_once(wrapped) {
            Err(error) if error.meaning() == Meaning::Unclear => {
                // Some say only that it failed, of a forged key and of a fault of their own. If a
                // key that is known to be good goes both ways, and then this one fails again, it is
                // not the device.
                let again = self.again()?;
                again.round_trip(usual)?;
                again.unwrap_once(wrapped).map_err(|error| match error.meaning() {
                    Meaning::Unclear => Pkcs11Error::Tampered(Box::new(error)),
                    _ => error,
                })
            }
            answer => answer,
        }
    }

    /// Opens another session under the same login.
    fn again(&self) -> Result<Self, Pkcs11Error> {
        let session = self.context.open_ro_session(self.slot)?;
        Ok(Self { session, context: self.context.clone(), keys: self.keys.clone(), ..*self })
    }

    /// Wraps a key both ways, and sees that a forged one is refused.
    fn try_out(&self, method: Method) -> Result<(), Pkcs11Error> {
        let mut wrapped = self.round_trip(method)?;
        if let Some(last) = wrapped.body.last_mut() {
            *last ^= 1;
        }
        match self.again()?.unwrap_once(&wrapped) {
            Ok(_) => {
                Err(Pkcs11Error::BadAnswer { mechanism: method.name(), answer: "a key that was forged" })
            }
            Err(_) => Ok(()),
        }
    }

    fn round_trip(&self, method: Method) -> Result<Wrapped, Pkcs11Error> {
        let key = SecretKey::generate(&SystemRandom::new())?;
        let wrapped = self.wrap(method, &key)?;
        if self.unwrap_once(&wrapped)?.expose_secret() == key.expose_secret() {
            Ok(wrapped)
        } else {
            Err(Pkcs11Error::BadAnswer { mechanism: method.name(), answer: "another key" })
        }
    }

    fn unwrap_once(&self, wrapped: &Wrapped) -> Result<SecretKey, Pkcs11Error> {
        let key = self.keys.iter().find(|(label, _)| *label == wrapped.label);
        let (_, handle) = key.ok_or_else(|| Pkcs11Error::UnknownKey(wrapped.label.clone()))?;
        let bytes = match wrapped.method {
            Method::AesKwp => self.unwrap_by_kwp(*handle, &wrapped.body)?,
            Method::AesGcm => self.unwrap_by_gcm(*handle, &wrapped.header(), &wrapped.body)?,
        };
        SecretKey::try_init(|key| {
            *key = *bytes.as_array().ok_or(Pkcs11Error::NoKeyInIt)?;
            Ok(())
        })
    }

    fn wrap_by_kwp(&self, by: ObjectHandle, key: &SecretKey) -> Result<Vec<u8>, Pkcs11Error> {
        let kwp = self.kwp()?;
        let mechanism = kwp.mechanism();
        let body = match kwp.by {
            By::Encrypting => self.session.encrypt(&mechanism, by, key.expose_secret())?,
            By::Wrapping => {
                let value = Attribute::Value(key.expose_secret().to_vec());
                let template = Template::of_passing_key(Attribute::Sensitive(true), Some(value));
                let object = self.session.create_object(&template.0)?;
                destroyed(&self.session, object, self.session.wrap_key(&mechanism, by, object))?
            }
        };
        if body.len() == Method::AesKwp.body_bytes() {
            Ok(body)
        } else {
            Err(Pkcs11Error::BadAnswer { mechanism: Method::AesKwp.name(), answer: "another length" })
        }
    }

    fn unwrap_by_kwp(&self, by: ObjectHandle, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
        let kwp = self.kwp()?;
        let mechanism = kwp.mechanism();
        match kwp.by {
            By::Encrypting => Ok(self.session.decrypt(&mechanism, by, body)?.into()),
            By::Wrapping => {
                let template = Template::of_passing_key(Attribute::Sensitive(false), None);
                let object = self.session.unwrap_key(&mechanism, by, body, &template.0)?;
                let value = self.session.get_attributes(object, &[AttributeType::Value]).map(Template);
                let mut value = destroyed(&self.session, object, value)?;
                match value.0.first_mut() {
                    Some(Attribute::Value(value)) => Ok(std::mem::take(value).into()),
                    _ => Err(Pkcs11Error::NoKeyInIt),
                }
            }
        }
    }

    fn wrap_by_gcm(&self, by: ObjectHandle, header: &[u8], key: &SecretKey) -> Result<Vec<u8>, Pkcs11Error> {
        self.need_gcm()?;
        let mut iv = [0; IV_BYTES];
        SystemRandom::new().fill(&mut iv)?;
        let sealed = {
            let mechanism = Mechanism::AesGcm(GcmParams::new(&mut iv, header, TAG_BITS)?);
            self.session.encrypt(&mechanism, by, key.expose_secret())?
        };
        if sealed.len() != KEY_BYTES + TAG_BYTES {
            return Err(Pkcs11Error::BadAnswer {
                mechanism: Method::AesGcm.name(),
                answer: "another length",
            });
        }
        // A token that insists on an IV of its own has written it over ours.
        Ok([&iv[..], &sealed].concat())
    }

    fn unwrap_by_gcm(
        &self,
        by: ObjectHandle,
        header: &[u8],
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
        self.need_gcm()?;
        let (iv, sealed) = body.split_first_chunk::<IV_BYTES>().ok_or(Pkcs11Error::Malformed)?;
        let mut iv = *iv;
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut iv, header, TAG_BITS)?);
        Ok(self.session.decrypt(&mechanism, by, sealed)?.into())
    }

    fn kwp(&self) -> Result<Kwp, Pkcs11Error> {
        self.mechanisms.kwp.ok_or(Pkcs11Error::NoMechanism(Method::AesKwp.name()))
    }

    fn need_gcm(&self) -> Result<(), Pkcs11Error> {
        if self.mechanisms.has_gcm { Ok(()) } else { Err(Pkcs11Error::NoMechanism(Method::AesGcm.name())) }
    }
}

const TAG_BITS: Ulong = Ulong::new(8 * TAG_BYTES as u64);

impl Kwp {
    fn mechanism(&self) -> Mechanism<'static> {
        // Whatever its number, it takes no parameter.
        Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(self.mechanism, None))
    }
}

/// Destroys the object whatever came of it. If that fails, so does the whole: the session is then
/// closed, and takes the object with it.
fn destroyed<T>(
    session: &Session,
    object: ObjectHandle,
    outcome: Result<T, CryptokiError>,
) -> Result<T, Pkcs11Error> {
    session.destroy_object(object)?;
    Ok(outcome?)
}

/// Attributes, whose values are wiped.
struct Template(Vec<Attribute>);

impl Template {
    /// An object of a session that other sessions of this process could see, for one call.
    fn of_passing_key(sensitive: Attribute, value: Option<Attribute>) -> Self {
        let mut attributes = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(false),
            Attribute::Private(true),
            Attribute::Extractable(true),
            sensitive,
        ];
        attributes.extend(value);
        Self(attributes)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        for attribute in &mut self.0 {
            if let Attribute::Value(value) = attribute {
                value.zeroize();
            }
        }
    }
}
