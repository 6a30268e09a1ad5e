//! Wrapping and unwrapping with a token's key.

use claviger::{ErrorChain, SecretKey, SecureRandom as _, SystemRandom};
use cryptoki::error::Error as CryptokiError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use zeroize::{Zeroize as _, Zeroizing};

use super::error::{Meaning, Pkcs11Error};
use super::format::{self, IV_BYTES, KEY_BYTES, Method, TAG_BYTES, Wrapped};
use super::mechanisms::{By, Kwp, Pkcs11Mechanism};
use super::token::Connection;

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
