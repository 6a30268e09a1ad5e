//! A hardware security module, by its PKCS#11 library.
