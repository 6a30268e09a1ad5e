//! What `--metastore` may say where.

use claviger_open::StoreSpec;

use crate::given::Guarded;

pub(crate) const METASTORE: Guarded = Guarded {
    flag: "--metastore",
    content: "the key store's URL",
    secret: "the password",
    has_secret: StoreSpec::text_has_secret,
    refusal: "a password on the command line can be seen by every user of the machine, in the process list; give the \
              URL with its password in the variable CLAVIGER_METASTORE, as metastore in the configuration file, or in \
              a file of its own with --metastore @FILE; or give it without one, and the password to the driver \
              (PostgreSQL: PGPASSWORD or ~/.pgpass; DynamoDB: where AWS's tools look; MySQL has no such place)",
};

#[cfg(test)]
mod tests {
    use crate::args::Options;
    use crate::store::StoreChoice;

    #[test]
    fn no_debug_shows_a_password() {
        let options: Options = toml::from_str("metastore = \"postgres://user:SECRET@host/keys\"").unwrap();
        let mut shown = format!("{options:?}");
        let choice = StoreChoice::resolve(options.metastore, false).unwrap();
        shown += &format!("{choice:?} {choice}");
        assert!(shown.contains("Config") && shown.contains("user@host"), "{shown}");
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}
