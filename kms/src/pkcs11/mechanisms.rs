//! The mechanisms that wrap, and how to find out which of them a token has.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::slot::Slot;

use super::error::Pkcs11Error;

/// Which mechanism wraps keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pkcs11Mechanism {
    /// AES-KWP if it works with the token and the key, else AES-GCM.
    #[default]
    Auto,
    /// AES key wrap with padding, of NIST SP 800-38F and RFC 5649.
    AesKwp,
    /// AES-256-GCM.
    AesGcm,
}

/// The mechanisms of a token that serve here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mechanisms {
    pub(super) kwp: Option<Kwp>,
    pub(super) has_gcm: bool,
}

/// A token's name for KWP, and the functions that take it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kwp {
    mechanism: MechanismType,
    pub(super) by: By,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum By {
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

impl Kwp {
    pub(super) fn mechanism(&self) -> Mechanism<'static> {
        // Whatever its number, it takes no parameter.
        Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(self.mechanism, None))
    }
}
