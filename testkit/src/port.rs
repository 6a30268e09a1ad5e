//! Ports to listen on.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below those that the system gives to outgoing connections: a server that is down for a moment
/// would lose its port to one of them, or a client that keeps trying could connect to itself.
const FIRST: u64 = 15_000;
const COUNT: u64 = 15_000;

/// Returns a port that nobody listens on now, another each time. Another process may take it before
/// the server does.
pub(crate) fn free() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..1_000)
        .filter_map(|_| u16::try_from(FIRST + random() % COUNT).ok())
        .find(|port| is_free(*port) && given.insert(*port))
        .unwrap_or_else(|| panic!("1000 ports were tried and none is free"))
}

/// Good enough for ports, and for the passwords of servers that live for a test.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// Returns a new password that needs no escaping in a URL or in SQL.
pub(crate) fn password() -> String {
    format!("pw{:016x}{:016x}", random(), random())
}
