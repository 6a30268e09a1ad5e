//! The servers that a proxy or a balancer is in front of, in turn.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;

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

    pub(crate) fn set(&self, targets: &[String]) {
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
