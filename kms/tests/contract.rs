//! The contract of a KMS, run on each service.

mod local {
    use claviger_kms::LocalKms;

    // Once opened it does not need its file, so the folder may go at the end of the block.
    claviger::testing::kms_contract!(async {
        let folder = tempfile::tempdir().unwrap();
        LocalKms::open_or_create(folder.path().join("master.key")).unwrap()
    });
}
