//! All that a session factory is made of, in one description.

use std::time::Duration;

use claviger::{
    BoxedKms, BoxedMetastore, CryptoPolicy, KeyId, Limits, ReadableSuffixes, SessionFactory,
    SessionFactoryBuilder,
};
use serde::{Deserialize, Deserializer};

use crate::describe::{Described, deserialize, fields, of_json};
use crate::environment::Environment;
use crate::error::SpecError;
use crate::fields::read::{Placed, Plain};
use crate::fields::{Fields, TextOrTable};
use crate::kms::KmsSpec;
use crate::nearest::nearest;
use crate::store::StoreSpec;

/// A session factory, not opened yet: which keys, where they are, and for how long.
///
/// Its table has `service`, `product`, `metastore` and `kms` (texts or tables), and may have `region-suffix`,
/// `expire-after`, `check-interval` and `idle-timeout` (times such as `90d` and `60m`), and `cache`, how many
/// partitions' keys are kept. A name that is not known is an error that names the nearest one.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use claviger_open::{FactorySpec, KmsOptions, Making, StoreOptions};
///
/// # let folder = tempfile::tempdir()?;
/// # let text = format!(
/// #     "service = 'checkout'\nproduct = 'payments'\nexpire-after = '90d'\nmetastore = 'memory:'\nkms = 'local:{}'",
/// #     folder.path().join("master.key").display()
/// # );
/// let spec = FactorySpec::from_toml(&text)?;
/// let store = spec.metastore().open(&StoreOptions::new()).await?;
/// let kms = spec.kms().open(&KmsOptions::new().making(Making::IfMissing)).await?;
/// let factory = spec.builder(store.metastore(), kms.kms()).build()?;
/// let record = factory.session("customer-17")?.encrypt(b"4111...").await?;
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FactorySpec {
    pub(crate) service: String,
    pub(crate) product: String,
    pub(crate) region_suffix: Option<String>,
    pub(crate) readable_suffixes: Option<Vec<String>>,
    pub(crate) metastore: StoreSpec,
    pub(crate) kms: KmsSpec,
    pub(crate) spans: Spans,
}

/// How long keys are used, and how many are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spans {
    pub(crate) expire_after: Option<Duration>,
    pub(crate) check_interval: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) creation_precision: Option<Duration>,
    pub(crate) cache: Option<u64>,
}

impl FactorySpec {
    /// Reads the variables `CLAVIGER_SERVICE`, `CLAVIGER_PRODUCT`, `CLAVIGER_METASTORE`, `CLAVIGER_KMS` and, if they
    /// are set, `CLAVIGER_REGION_SUFFIX`, `CLAVIGER_EXPIRE_AFTER`, `CLAVIGER_CHECK_INTERVAL`, `CLAVIGER_IDLE_TIMEOUT`
    /// and `CLAVIGER_CACHE`.
    ///
    /// # Errors
    /// As one of them cannot be read, or is missing; also for a variable that is nearly called so.
    pub fn from_environment(environment: &Environment) -> Result<Self, SpecError> {
        let mut fields = Fields::default();
        for variable in environment.names(PREFIX) {
            let called = variable.strip_prefix(PREFIX).unwrap_or_default();
            let name = called.replace('_', "-").to_lowercase();
            match nearest(&name, &NAMES) {
                Some(meant) if meant == name => {
                    let value = environment.text(&variable).unwrap_or_default();
                    fields.add_called(meant, &variable, &value);
                }
                // Others are some other program's.
                Some(meant) => {
                    let meant = meant.replace('-', "_").to_uppercase();
                    let message =
                        format!("the variable {variable} is not known; did you mean {PREFIX}{meant}?");
                    return Err(SpecError::wrong(&message));
                }
                None => {}
            }
        }
        Self::from_fields(fields)
    }

    /// Reads a document of TOML. Other than the deserializer's, its errors quote nothing of the document.
    ///
    /// # Errors
    /// As it is no TOML, or the table cannot be used: where ([`SpecError::at`]) and why.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let read = toml::Deserializer::parse(text).and_then(fields::<Placed, _>);
        let told = |error: toml::de::Error| {
            let at = error.span().map(|span| span.start);
            SpecError::wrong_at(at, "is no TOML; correct it where it says")
        };
        read.map_err(told).and_then(Self::from_fields)
    }

    /// Reads a document of JSON. Other than the deserializer's, its errors quote nothing of the document.
    ///
    /// # Errors
    /// As it is no JSON, or the table cannot be used.
    pub fn from_json(text: &str) -> Result<Self, SpecError> {
        Self::from_fields(of_json(text)?)
    }

    fn from_fields(mut fields: Fields) -> Result<Self, SpecError> {
        let (metastore, kms) = (fields.called("metastore"), fields.called("kms"));
        let spec = Self {
            service: fields.need("service", "say whose the keys are")?,
            product: fields.need("product", "say what the keys are for")?,
            region_suffix: fields.text("region-suffix")?,
            readable_suffixes: None,
            metastore: StoreSpec::from_text_or_table(
                fields.text_or_table("metastore", "say such as sqlite:PATH, or a table")?,
                &metastore,
            )?,
            kms: KmsSpec::from_text_or_table(
                fields.text_or_table("kms", "say such as local:PATH, or a table")?,
                &kms,
            )?,
            spans: Spans {
                expire_after: fields.time("expire-after")?,
                check_interval: fields.time("check-interval")?,
                idle_timeout: fields.time("idle-timeout")?,
                creation_precision: None,
                cache: fields.number("cache")?,
            },
        };
        fields.finish()?;
        Ok(spec)
    }

    /// Returns where keys are kept.
    #[must_use]
    pub const fn metastore(&self) -> &StoreSpec {
        &self.metastore
    }

    /// Returns what wraps system keys.
    #[must_use]
    pub const fn kms(&self) -> &KmsSpec {
        &self.kms
    }

    /// Returns the id of the system key.
    #[must_use]
    pub fn system_key_id(&self) -> KeyId {
        KeyId::of_system_key(&self.service, &self.product, self.region_suffix.as_deref())
    }

    /// Returns the production policy with the times that are given.
    #[must_use]
    pub fn policy(&self) -> CryptoPolicy {
        let mut policy = CryptoPolicy::production();
        if let Some(time) = self.spans.expire_after {
            policy = policy.expire_after(time);
        }
        if let Some(time) = self.spans.check_interval {
            policy = policy.revoke_check_interval(time);
        }
        if let Some(time) = self.spans.idle_timeout {
            policy = policy.idle_timeout(time);
        }
        if let Some(time) = self.spans.creation_precision {
            policy = policy.creation_precision(time);
        }
        policy
    }

    /// Returns the production limits with how many keys are kept, and with the KMS's `call-deadline`, where they
    /// are given.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::production();
        if let Some(keys) = self.spans.cache {
            limits = limits.max_intermediate_keys(keys);
        }
        if let Some(time) = self.kms.call_deadline() {
            // An operation has time for three tries, and no less than it has otherwise.
            let operation = OPERATION_MIN.max(time.saturating_mul(3));
            limits = limits.kms_deadline(time).operation_deadline(operation);
        }
        limits
    }

    /// Begins a factory on what was opened.
    pub fn builder(&self, metastore: BoxedMetastore, kms: BoxedKms) -> SessionFactoryBuilder {
        let mut builder = SessionFactory::builder(metastore, kms)
            .service(&self.service)
            .product(&self.product)
            .policy(self.policy())
            .limits(self.limits());
        if let Some(suffix) = &self.region_suffix {
            builder = builder.region_suffix(suffix);
        }
        if let Some(suffixes) = &self.readable_suffixes {
            builder = builder.readable_suffixes(ReadableSuffixes::Only(suffixes.clone()));
        }
        builder
    }
}

impl Described for FactorySpec {
    const WHAT: &'static str = "a table with service, product, metastore and kms";

    fn read(given: TextOrTable) -> Result<Self, SpecError> {
        match given {
            TextOrTable::Text(at, _) => Err(SpecError::wrong_at(at, "is a text; say a table")),
            TextOrTable::Table(fields) => Self::from_fields(fields),
        }
    }
}

impl<'de> Deserialize<'de> for FactorySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize::<Self, Plain, D>(deserializer)
    }
}

const OPERATION_MIN: Duration = Duration::from_secs(10);

const PREFIX: &str = "CLAVIGER_";

const NAMES: [&str; 9] = [
    "service",
    "product",
    "region-suffix",
    "metastore",
    "kms",
    "expire-after",
    "check-interval",
    "idle-timeout",
    "cache",
];
