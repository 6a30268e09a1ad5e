//! The transit engine of HashiCorp Vault or OpenBao.
