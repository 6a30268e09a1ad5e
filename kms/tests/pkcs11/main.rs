//! An HSM in software: the contract of a KMS, and what goes wrong with tokens.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod support;
mod trouble;

mod kwp {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_key_wrap_contract!(guarded async {
        crate::support::opened(Pkcs11Mechanism::AesKwp, |_| {}).await
    });
}

mod gcm {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_contract!(guarded async {
        crate::support::opened(Pkcs11Mechanism::AesGcm, |_| {}).await
    });
}
