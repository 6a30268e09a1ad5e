//! claviger-metastore
