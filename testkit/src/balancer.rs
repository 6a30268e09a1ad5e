//! One address for several servers, as a load balancer gives them.

use std::io;
use std::sync::Mutex;

use tokio::net::TcpStream;

use crate::Proxy;
use crate::proxy::lock;

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

/// The servers that a proxy is in front of.
#[derive(Debug)]
pub(crate) struct Targets {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    targets: Vec<String>,
    /// How many turns there were.
    turns: usize,
}

/// The target whose turn it is; there is none in an empty list.
pub(crate) struct Turn {
    target: Option<String>,
    /// How many targets there were then.
    of: usize,
}

impl Targets {
    pub(crate) fn new(targets: &[String]) -> Self {
        Self { state: Mutex::new(State { targets: targets.to_vec(), turns: 0 }) }
    }

    fn set(&self, targets: &[String]) {
        *lock(&self.state) = State { targets: targets.to_vec(), turns: 0 };
    }

    pub(crate) fn next(&self) -> Turn {
        let mut state = lock(&self.state);
        let of = state.targets.len();
        let place = state.turns.checked_rem(of);
        state.turns += 1;
        Turn { target: place.and_then(|place| state.targets.get(place).cloned()), of }
    }

    /// Connects to the target whose turn it is. If that refuses, each other has its turn, so that
    /// those that are there go on having as many connections as each other.
    pub(crate) async fn connect(&self, turn: Turn) -> io::Result<TcpStream> {
        let (tries, mut turn) = (turn.of, turn);
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..tries {
            let Some(target) = turn.target else { break };
            match TcpStream::connect(&target).await {
                Ok(stream) => return Ok(stream),
                Err(error) => refused = error,
            }
            turn = self.next();
        }
        Err(refused)
    }
}
