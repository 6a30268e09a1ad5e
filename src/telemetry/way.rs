//! What is shown of one way out: its permits, its queue, its breaker.

use std::fmt;

use metrics::Gauge;

use super::gauges::{Flag, Raised};
use super::scope::Scope;
use super::table::{BREAKER_OPEN, PERMITS, PERMITS_LIMIT, QUEUED_CALLS};

macro_rules! ways {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal,)+) => {
        /// A way from a factory to a back end: each has permits, a queue and a breaker of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Way {
            $($(#[$doc])+ $variant,)+
        }

        impl Way {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name that the metrics' label `dependency` gives it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

ways! {
    /// Reads of the metastore.
    MetastoreReads => "metastore_reads",
    /// Inserts into the metastore.
    MetastoreWrites => "metastore_writes",
    /// Reads of the metastore's replica.
    MetastoreReplica => "metastore_replica",
    /// The KMS.
    Kms => "kms",
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose permit a call has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermitClass {
    Check,
    Load,
    /// Its subject is in trouble.
    Troubled,
}

/// The gauges of one way out.
#[derive(Debug)]
pub(crate) struct WayGauges {
    /// In the order of [`PermitClass`].
    permits: [Gauge; 3],
    queued: [Gauge; 3],
    breaker: Flag,
    scope: Scope,
    way: Way,
}

const CLASSES: [&str; 3] = ["check", "load", "troubled"];

impl WayGauges {
    pub(super) fn new(scope: &Scope, way: Way) -> Self {
        let gauges = |metric| {
            CLASSES.map(|class| scope.gauge(metric, &[("dependency", way.name()), ("class", class)]))
        };
        let breaker = scope.gauge(&BREAKER_OPEN, &[("dependency", way.name())]);
        let (permits, queued) = (gauges(&PERMITS), gauges(&QUEUED_CALLS));
        Self { permits, queued, breaker: Flag::new(breaker), scope: scope.clone(), way }
    }

    /// Shows how many permits there are for checks, for loads and for what is in trouble.
    pub(crate) fn show_limits(&self, limits: [usize; 3]) {
        for (class, limit) in CLASSES.iter().zip(limits) {
            let labels = [("dependency", self.way.name()), ("class", class)];
            self.scope.gauge(&PERMITS_LIMIT, &labels).set(super::as_f64(limit));
        }
    }

    pub(crate) fn permit(&self, class: PermitClass) -> Raised {
        Raised::new(class.of(&self.permits))
    }

    pub(crate) fn queued(&self, class: PermitClass) -> Raised {
        Raised::new(class.of(&self.queued))
    }

    pub(crate) const fn breaker(&self) -> &Flag {
        &self.breaker
    }
}

#[cfg(test)]
impl Default for WayGauges {
    fn default() -> Self {
        Self::new(&Scope::default(), Way::Kms)
    }
}

impl PermitClass {
    const fn of(self, gauges: &[Gauge; 3]) -> &Gauge {
        let [check, load, troubled] = gauges;
        match self {
            Self::Check => check,
            Self::Load => load,
            Self::Troubled => troubled,
        }
    }
}
