//! An HSM in software.
