//! Vault, as a fake of its HTTP API.
