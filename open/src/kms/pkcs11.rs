//! A hardware security module, by a PKCS#11 URI (RFC 7512):
//! `pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH`.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "pkcs11")]
use claviger_kms::{Pkcs11Kms, Pkcs11Mechanism};
use percent_encoding::percent_decode_str;

#[cfg(feature = "pkcs11")]
use crate::environment::Environment;
#[cfg(feature = "pkcs11")]
use crate::error::OpenError;
use crate::error::SpecError;
use crate::fields::Fields;
#[cfg(feature = "pkcs11")]
use crate::private;
use crate::secret::{SecretSource, VARIABLE};

/// A key in a token, not opened yet.
#[derive(Clone, Debug)]
pub struct Pkcs11Spec {
    module: PathBuf,
    token: String,
    object: String,
    previous_objects: Vec<String>,
    pin: SecretSource,
    sessions: Option<usize>,
    mechanism: Mechanism,
    pub(super) call_deadline: Option<Duration>,
    danger_extractable_key: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Auto,
    AesKwp,
    AesGcm,
}

/// Takes the URI apart. Its names are those of the table, but for the class of the object, which can
/// only be one.
pub(super) fn fields(text: &str) -> Result<Fields, SpecError> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let mut fields = Fields::default();
    let is_given = |attribute: &&str| !attribute.is_empty();
    for attribute in path.split(';').filter(is_given).chain(query.split('&').filter(is_given)) {
        let decoded = attribute
            .split_once('=')
            .and_then(|(name, value)| Some((name, percent_decode_str(value).decode_utf8().ok()?)));
        match decoded {
            Some(("type", class)) if class == "secret-key" => {}
            Some(("type", _)) => {
                return Err(SpecError::wrong(
                    "has a type that wraps no keys; say type=secret-key, or nothing",
                ));
            }
            Some((name, value)) => fields.add(name, &value),
            None => return Err(SpecError::wrong(&format!("has a part that is no NAME=VALUE; {USAGE}"))),
        }
    }
    Ok(fields)
}

/// Returns `true` if a PIN stands in the text.
pub(super) fn has_secret(text: &str) -> bool {
    text.split(['?', '&', ';']).any(|part| part.strip_prefix("pin-value=").is_some_and(|pin| !pin.is_empty()))
}

impl Pkcs11Spec {
    pub(super) fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let mechanism = match fields.text("mechanism")?.as_deref() {
            None | Some("auto") => Mechanism::Auto,
            Some("aes-kwp") => Mechanism::AesKwp,
            Some("aes-gcm") => Mechanism::AesGcm,
            Some(_) => {
                return Err(
                    fields.wrong("has a mechanism that is not known; there are auto, aes-kwp, aes-gcm")
                );
            }
        };
        let choice = Self {
            module: fields.need("module-path", "say the path of the module, a shared library")?.into(),
            token: fields.need("token", "say the label of the token")?,
            object: fields.need("object", "say the label of the key")?,
            previous_objects: fields.texts("previous-object")?,
            pin: pin(&mut fields)?,
            sessions: fields.number("sessions")?,
            mechanism,
            call_deadline: fields.time("call-deadline")?,
            danger_extractable_key: fields.truth("danger-extractable-key")?,
        };
        fields.finish()?;
        Ok(choice)
    }

    pub(super) const fn has_secret(&self) -> bool {
        self.pin.is_here()
    }

    /// The files it is made of.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.pin.file().into_iter().chain([&*self.module]).collect()
    }

    #[cfg(feature = "pkcs11")]
    pub(super) async fn open(&self, environment: &Environment) -> Result<Pkcs11Kms, OpenError> {
        // It is code. A bare name is looked up by the system, in folders of its own.
        if self.module.components().nth(1).is_some() {
            private::check_author_of(&self.module, "the PKCS#11 module")?;
        }
        let pin = self.pin.reveal(environment, "the PIN of the token", "pin-source=file:PATH")?;
        let mechanism = match self.mechanism {
            Mechanism::Auto => Pkcs11Mechanism::Auto,
            Mechanism::AesKwp => Pkcs11Mechanism::AesKwp,
            Mechanism::AesGcm => Pkcs11Mechanism::AesGcm,
        };
        let mut builder =
            Pkcs11Kms::builder(&self.module, &self.token, &self.object).pin(pin).mechanism(mechanism);
        builder = builder.danger_extractable_key(self.danger_extractable_key.unwrap_or_default());
        for label in &self.previous_objects {
            builder = builder.previous_key(label);
        }
        if let Some(sessions) = self.sessions {
            builder = builder.sessions(sessions);
        }
        Ok(Box::pin(builder.open()).await?)
    }
}

fn pin(fields: &mut Fields) -> Result<SecretSource, SpecError> {
    match (fields.text("pin-source")?, fields.text("pin-value")?) {
        (Some(_), Some(_)) => Err(fields.wrong("has both pin-source and pin-value; keep one")),
        (Some(source), None) if source.starts_with(VARIABLE) => Ok(SecretSource::new(source)),
        (Some(source), None) => {
            let path = source.strip_prefix("file:").unwrap_or(&source);
            // In a file URL two slashes begin the name of a machine, which is left empty here.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with('|') {
                return Err(fields.wrong("has a pin-source that is no file; say file:PATH"));
            }
            Ok(SecretSource::File(path.into()))
        }
        (None, Some(pin)) => Ok(SecretSource::Here(pin.into())),
        (None, None) => Ok(SecretSource::Variable(PIN_VARIABLE.into())),
    }
}

const PIN_VARIABLE: &str = "CLAVIGER_PKCS11_PIN";

const USAGE: &str = "say pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH";
