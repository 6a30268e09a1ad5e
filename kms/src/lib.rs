//! claviger-kms
