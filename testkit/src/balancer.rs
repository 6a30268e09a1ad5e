//! One address for several servers, as a load balancer gives them.

use crate::Proxy;
use crate::targets::Targets;

/// A TCP balancer: each new connection goes to the next of its targets in turn. Dropping it cuts all
/// its connections.
///
/// A target that refuses a connection is skipped. One that is paused refuses nothing, since the
/// system accepts connections for it.
#[derive(Debug)]
pub struct Balancer {
    proxy: Proxy,
}

impl Balancer {
    /// Starts one on a free port, to targets (`127.0.0.1:5432`) that need not be there.
    pub async fn start(targets: &[String]) -> Self {
        Self { proxy: Proxy::start_to(Targets::new(targets)).await }
    }

    /// Sets where connections made from now on go. Those that are open stay where they are.
    pub fn set_targets(&self, targets: &[String]) {
        self.proxy.targets().set(targets);
    }

    /// Cuts all connections there are. They are gone soon after.
    pub fn cut_all(&self) {
        self.proxy.cut_all();
    }

    /// Returns how many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.proxy.connections()
    }

    /// Returns how many connections were made since the balancer was started.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.proxy.accepted()
    }

    /// Returns where it listens: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.proxy.address()
    }

    /// Returns the port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }
}
