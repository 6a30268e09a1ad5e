//! The contract suites, run on the back ends of the core and on what wraps any back end.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use std::sync::Arc;

use claviger::testing::{FaultyKms, FaultyMetastore, SeededRandom};
use claviger::{BoxedKms, BoxedMetastore, InMemoryMetastore, SecretKey, StaticKms};

fn static_kms() -> StaticKms {
    let master_key = SecretKey::generate(&SeededRandom::new(1)).unwrap();
    StaticKms::new(&master_key).unwrap()
}

mod in_memory {
    use super::*;
    claviger::testing::metastore_contract!(async { InMemoryMetastore::new() });
}

mod in_memory_admin {
    use super::*;
    claviger::testing::metastore_admin_contract!(async { InMemoryMetastore::new() });
}

mod in_memory_as_legacy {
    use super::*;
    claviger::testing::metastore_legacy_contract!(async { InMemoryMetastore::new() });
}

mod in_memory_admin_as_legacy {
    use super::*;
    claviger::testing::metastore_admin_legacy_contract!(async { InMemoryMetastore::new() });
}

mod arc_metastore {
    use super::*;
    claviger::testing::metastore_contract!(async { Arc::new(InMemoryMetastore::new()) });
}

mod boxed_metastore {
    use super::*;
    claviger::testing::metastore_contract!(async { BoxedMetastore::new(InMemoryMetastore::new()) });
}

mod healthy_faulty_metastore {
    use super::*;
    claviger::testing::metastore_contract!(async { FaultyMetastore::new(InMemoryMetastore::new()) });
}

mod healthy_faulty_metastore_admin {
    use super::*;
    claviger::testing::metastore_admin_contract!(async { FaultyMetastore::new(InMemoryMetastore::new()) });
}

mod static_key {
    use super::*;
    claviger::testing::kms_contract!(async { static_kms() });
}

mod arc_kms {
    use super::*;
    claviger::testing::kms_contract!(async { Arc::new(static_kms()) });
}

mod boxed_kms {
    use super::*;
    claviger::testing::kms_contract!(async { BoxedKms::new(static_kms()) });
}

mod healthy_faulty_kms {
    use super::*;
    claviger::testing::kms_contract!(async { FaultyKms::new(static_kms()) });
}
