//! What reads bytes from outside, and no public call reaches without a server, for fuzz targets. It promises nothing
//! to anybody else.

#[cfg(feature = "local")]
pub use crate::local::fuzzing as local;
#[cfg(feature = "pkcs11")]
pub use crate::pkcs11::fuzzing as pkcs11;
#[cfg(feature = "vault")]
pub use crate::vault::fuzzing as vault;
