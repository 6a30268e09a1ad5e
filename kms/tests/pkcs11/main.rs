//! An HSM in software: the contract of a KMS, and what goes wrong with tokens.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper fails its test by panicking"
)]

#[path = "../common/deadlines.rs"]
mod deadlines;
mod opening;
mod support;
mod trouble;
mod wrapping;

mod kwp {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_key_wrap_contract!(guarded async {
        crate::support::opened(Pkcs11Mechanism::AesKwp, |_| {}).await
    });
}

mod kwp_by_encrypting {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_key_wrap_contract!(guarded async {
        crate::support::opened(Pkcs11Mechanism::AesKwp, |hsm| hsm.encrypt_with_kwp()).await
    });
}

mod gcm {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_contract!(guarded async {
        crate::support::opened(Pkcs11Mechanism::AesGcm, |_| {}).await
    });
}

mod gcm_with_the_tokens_own_iv {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_contract!(guarded async {
        crate::support::opened(Pkcs11Mechanism::AesGcm, |hsm| hsm.insist_on_own_iv(1)).await
    });
}

mod kwp_wrong_key {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_wrong_key_contract!(guarded async {
        crate::support::opened_twice(Pkcs11Mechanism::AesKwp).await
    });
}

mod gcm_wrong_key {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_wrong_key_contract!(guarded async {
        crate::support::opened_twice(Pkcs11Mechanism::AesGcm).await
    });
}

mod kwp_outage {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_outage_contract!(async {
        crate::support::opened_with_outage(Pkcs11Mechanism::AesKwp).await
    });
}

mod gcm_outage {
    use claviger_kms::Pkcs11Mechanism;

    claviger::testing::kms_outage_contract!(async {
        crate::support::opened_with_outage(Pkcs11Mechanism::AesGcm).await
    });
}
