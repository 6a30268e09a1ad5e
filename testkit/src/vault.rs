//! A Vault that is not one: its transit engine, its logins and its troubles, over HTTP.

mod api;
mod certificates;
mod connection;
mod request;
mod state;
mod transit;

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;

pub use crate::vault::certificates::{TestCa, TestCertificate};
pub use crate::vault::state::Grant;

use crate::vault::state::{Role, State};
use crate::vault::transit::Key;

/// A fake of HashiCorp Vault and OpenBao on loopback: the transit engine with real AES-256-GCM, the
/// token, AppRole and Kubernetes methods, namespaces, standbys, and what goes wrong with them.
///
/// No package registry has a Vault, so each answer follows the public documentation, linked where it
/// is made, and where that is silent the sentences that Vault is known to answer with. It reads
/// ciphertexts as leniently as Vault does. What it does not check: the signatures of service accounts'
/// tokens, which are compared as text, and policies beyond "this path is denied".
///
/// Paths of keys are `transit/NAME`, in a namespace `ns/transit/NAME`; a mount is there as long as a
/// key is. Its time moves by [`advance`](Self::advance) alone.
pub struct FakeVault {
    port: u16,
    is_tls: bool,
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    accepting: Option<JoinHandle<()>>,
}

/// What all nodes have in common.
#[derive(Default)]
pub(crate) struct Cluster {
    state: Mutex<State>,
}

/// One server.
pub(crate) struct Node {
    role: Mutex<NodeRole>,
    tls: Option<Arc<ServerConfig>>,
    tricks: Mutex<Tricks>,
    released: Condvar,
    log: Mutex<Log>,
    sockets: Mutex<Vec<TcpStream>>,
    open: AtomicUsize,
    is_stopped: AtomicBool,
}

#[derive(Clone)]
pub(crate) enum NodeRole {
    Active,
    /// Redirects there: `https://127.0.0.1:PORT`.
    Standby(String),
    /// Knows of no active node.
    Orphan,
}

#[derive(Default)]
pub(crate) struct Log {
    /// `POST /v1/transit/encrypt/key`, in the order in which they came.
    requests: Vec<String>,
    connections: usize,
}

#[derive(Default)]
pub(crate) struct Tricks {
    next: VecDeque<(String, Trick)>,
    always: Vec<(String, Trick)>,
    releases: u64,
    hanging: usize,
}

/// What happens to a request instead of an answer.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "tests make them")]
pub enum Trick {
    /// This status with this error, in Vault's form.
    Fail(u16, String),
    /// This status with errors that repeat the request's token, its body and each text in it, as Vault
    /// does not.
    Echo(u16),
    /// This status with these headers (`Location: …`) and this body.
    Answer(u16, Vec<String>, Vec<u8>),
    /// These bytes and no others, after which the connection is closed.
    Bytes(Vec<u8>),
    /// The connection is closed without an answer.
    Close,
    /// The request is carried out, then the connection is closed without an answer.
    LoseAnswer,
    /// The request is carried out and answered, then the connection is closed, of which nothing was
    /// said in the answer.
    CloseAfter,
    /// It waits for [`FakeVault::release`], then is carried out.
    Hang,
}

impl FakeVault {
    /// Starts one that has no keys, on plain HTTP.
    #[must_use]
    pub fn start() -> Self {
        Self::node(Arc::default(), NodeRole::Active, None)
    }

    /// Starts one with TLS.
    #[must_use]
    pub fn start_tls(certificate: &TestCertificate) -> Self {
        Self::node(Arc::default(), NodeRole::Active, Some(certificate))
    }

    /// Starts another node of the same cluster, which redirects to this one.
    #[must_use]
    pub fn standby(&self) -> Self {
        Self::node(self.cluster.clone(), NodeRole::Standby(self.url()), None)
    }

    /// The same, with TLS.
    #[must_use]
    pub fn standby_tls(&self, certificate: &TestCertificate) -> Self {
        Self::node(self.cluster.clone(), NodeRole::Standby(self.url()), Some(certificate))
    }

    fn node(cluster: Arc<Cluster>, role: NodeRole, certificate: Option<&TestCertificate>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = Arc::new(Node {
            role: Mutex::new(role),
            tls: certificate.map(TestCertificate::server_config),
            tricks: Mutex::default(),
            released: Condvar::new(),
            log: Mutex::default(),
            sockets: Mutex::default(),
            open: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
        });
        let (is_tls, of) = (node.tls.is_some(), (cluster.clone(), node.clone()));
        let accepting = Some(thread::spawn(move || connection::accept(&listener, &of.0, &of.1)));
        Self { port, is_tls, cluster, node, accepting }
    }

    /// Returns where it is: `http://127.0.0.1:PORT`, or `https://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http{}://{}", if self.is_tls { "s" } else { "" }, self.address())
    }

    /// Returns where it listens: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string()
    }

    /// Makes an `aes256-gcm96` key with version 1, and its mount if need be.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/secret/transit#create-key>.
    pub fn create_key(&self, path: &str) {
        self.state().keys.insert(path.to_owned(), Key::new(false));
    }

    /// Makes a key that is `derived`: it wants a context with each request.
    pub fn create_derived_key(&self, path: &str) {
        self.state().keys.insert(path.to_owned(), Key::new(true));
    }

    /// Adds a version to a key.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/secret/transit#rotate-key>.
    pub fn rotate(&self, path: &str) {
        self.state().key(path).rotate();
    }

    /// Forbids older versions to open anything.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/secret/transit#update-key-configuration>.
    pub fn set_min_decryption_version(&self, path: &str, version: usize) {
        self.state().key(path).min_decryption_version = version;
    }

    /// Encrypts what is base64 already, as who has asked before.
    #[must_use]
    pub fn encrypt(&self, path: &str, plaintext: &str) -> String {
        self.state().key(path).encrypt(plaintext).unwrap()
    }

    /// Decrypts into base64.
    #[must_use]
    pub fn decrypt(&self, path: &str, ciphertext: &str) -> String {
        self.state().key(path).decrypt(ciphertext).unwrap()
    }

    /// Makes a token, `hvs.…`.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/auth/token#create-token>.
    #[must_use]
    pub fn create_token(&self, grant: &Grant) -> String {
        self.state().issue(grant)
    }

    /// Makes an AppRole and its secret id, at `approle` or `ns/approle` for example.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/auth/approle>.
    pub fn create_app_role(&self, mount: &str, role_id: &str, secret_id: &str, grant: &Grant) {
        self.state().roles.push(Role::new(mount, ["role_id", "secret_id"], [role_id, secret_id], grant));
    }

    /// Binds a role to a service account, whose token is `jwt` for now.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/auth/kubernetes>.
    pub fn create_kubernetes_role(&self, mount: &str, role: &str, jwt: &str, grant: &Grant) {
        self.state().roles.push(Role::new(mount, ["role", "jwt"], [role, jwt], grant));
    }

    /// Deletes all roles, so that nobody can log in.
    pub fn delete_roles(&self) {
        self.state().roles.clear();
    }

    /// Revokes all tokens there are.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Seals all nodes: they answer 503.
    ///
    /// See <https://developer.hashicorp.com/vault/docs/concepts/seal>.
    pub fn seal(&self) {
        self.state().is_sealed = true;
    }

    /// Unseals them.
    pub fn unseal(&self) {
        self.state().is_sealed = false;
    }

    /// Makes this node a standby that redirects to `url`.
    pub fn redirect_to(&self, url: &str) {
        *lock(&self.node.role) = NodeRole::Standby(url.to_owned());
    }

    /// Makes this node a standby of a cluster without an active node.
    pub fn lose_leader(&self) {
        *lock(&self.node.role) = NodeRole::Orphan;
    }

    /// Lets time pass for tokens.
    pub fn advance(&self, time: Duration) {
        self.state().now += time;
    }

    /// Plays this trick on the next request to this node whose line, `POST /v1/…`, holds `part`; said
    /// twice, on the next two.
    pub fn trick(&self, part: &str, trick: Trick) {
        lock(&self.node.tricks).next.push_back((part.to_owned(), trick));
    }

    /// Plays it on all such requests from now on.
    pub fn always(&self, part: &str, trick: Trick) {
        lock(&self.node.tricks).always.push((part.to_owned(), trick));
    }

    /// Plays no more tricks, and lets what hangs go on.
    pub fn heal(&self) {
        let mut tricks = lock(&self.node.tricks);
        tricks.next.clear();
        tricks.always.clear();
        drop(tricks);
        self.release();
    }

    /// Lets what hangs go on.
    pub fn release(&self) {
        lock(&self.node.tricks).releases += 1;
        self.node.released.notify_all();
    }

    /// Returns how many requests hang now.
    #[must_use]
    pub fn hanging(&self) -> usize {
        lock(&self.node.tricks).hanging
    }

    /// Returns how many requests to this node had a line that holds `part`.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        lock(&self.node.log).requests.iter().filter(|line| line.contains(part)).count()
    }

    /// Returns the lines of the requests to this node, with the namespace before the path.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.node.log).requests.clone()
    }

    /// Forgets the requests and connections there were.
    pub fn forget(&self) {
        *lock(&self.node.log) = Log::default();
    }

    /// Returns how many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.node.log).connections
    }

    /// Returns how many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.node.open.load(Ordering::SeqCst)
    }

    /// Returns all tokens there are.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.state().tokens.keys().cloned().collect()
    }

    /// Closes all connections there are.
    pub fn close_connections(&self) {
        self.node.close_connections();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.cluster.state)
    }
}

impl Node {
    fn close_connections(&self) {
        for socket in lock(&self.sockets).drain(..) {
            // An error means that it is closed already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for FakeVault {
    fn drop(&mut self) {
        self.node.is_stopped.store(true, Ordering::SeqCst);
        // It waits for a connection: here is one.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
        self.node.close_connections();
        self.release();
    }
}

impl fmt::Debug for FakeVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeVault").field("url", &self.url()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
