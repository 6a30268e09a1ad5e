//! AWS KMS, in one region or several.
