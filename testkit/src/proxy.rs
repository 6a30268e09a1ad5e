//! A way to a server that breaks where a test wants it to.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::targets::{Targets, Turn, lock};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "tests go through all of them")]
pub enum Fault {
    /// Nothing.
    None,
    /// Once `after` bytes in this direction have been forwarded, both sockets are closed.
    Cut {
        /// Whose bytes count.
        direction: Direction,
        /// How many pass.
        after: u64,
    },
    /// Once `after` bytes in this direction have been forwarded, nothing is any more, in either. The
    /// sockets stay open: neither side can know.
    Stall {
        /// Whose bytes count.
        direction: Direction,
        /// How many pass.
        after: u64,
    },
    /// The same, but it goes on after a while.
    Delay {
        /// Whose bytes count.
        direction: Direction,
        /// How many pass.
        after: u64,
        /// How long nothing does.
        time: Duration,
    },
}

/// A TCP proxy in front of a server. Dropping it cuts all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    /// To the connections that are open; its end cuts them.
    orders: watch::Sender<Orders>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    targets: Targets,
    accepted: AtomicUsize,
    open: AtomicUsize,
    clients: AtomicUsize,
    next: Mutex<Fault>,
    recent: Mutex<Arc<Forwarded>>,
}

/// What open connections are told, with a number each that tells a new order from one that was there
/// before the connection.
#[derive(Clone, Copy, Debug)]
struct Orders {
    cut: u64,
    fault: (u64, Fault),
}

/// How many bytes a connection has forwarded.
#[derive(Debug, Default)]
struct Forwarded {
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Proxy {
    /// Starts one on a free port, to a server at `upstream` (`127.0.0.1:5432`) that need not be there.
    pub async fn start(upstream: &str) -> Self {
        Self::start_to(Targets::new(&[upstream.to_owned()])).await
    }

    pub(crate) async fn start_to(targets: Targets) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            targets,
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            next: Mutex::new(Fault::None),
            recent: Mutex::default(),
        });
        let (orders, _) = watch::channel(Orders { cut: 0, fault: (0, Fault::None) });
        let accepting = tokio::spawn(accept(listener, shared.clone(), orders.subscribe())).abort_handle();
        Self { port, shared, orders, accepting }
    }

    /// Returns where it listens: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string()
    }

    /// Returns the port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.shared.targets
    }

    /// Sets what happens to each connection made from now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.shared.next) = fault;
    }

    /// Sets what happens to each connection that is open now, whose bytes count from now on. What
    /// stalls goes on with [`Fault::None`].
    ///
    /// No byte that the client sends after this call passes before it.
    pub fn set_open(&self, fault: Fault) {
        self.orders.send_modify(|orders| orders.fault = (orders.fault.0 + 1, fault));
    }

    /// Returns how many connections are open, stalled ones too.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Returns how many of them the client has not closed. While one is stalled the server does not
    /// learn of that, nor does the connection end by it.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients.load(Ordering::SeqCst)
    }

    /// Returns how many connections were made since the proxy was started.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Cuts all connections there are. They are gone soon after.
    pub fn cut_all(&self) {
        self.orders.send_modify(|orders| orders.cut += 1);
    }

    /// Returns how many bytes the most recent connection has forwarded, to the server and to the
    /// client.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        lock(&self.shared.recent).both()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its connections end with the sender of orders.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, orders: watch::Receiver<Orders>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let forwarded = Arc::new(Forwarded::default());
        *lock(&shared.recent) = forwarded.clone();
        let open = Counted::new(&shared, |shared| &shared.open);
        let present = Counted::new(&shared, |shared| &shared.clients);
        let mut orders = orders.clone();
        let seen = *orders.borrow_and_update();
        let fault = *lock(&shared.next);
        // Here, so that connections have their turns in the order in which they came.
        let turn = shared.targets.next();
        let connection = Connection { fault, from: (0, 0), forwarded, orders, seen };
        tokio::spawn(async move {
            // Whichever way it ends, both sockets are closed by it.
            drop(connection.run(client, present, turn, &open.shared.targets).await);
            drop(open);
        });
    }
}

/// Is counted while it lives.
struct Counted {
    shared: Arc<Shared>,
    count: fn(&Shared) -> &AtomicUsize,
}

impl Counted {
    fn new(shared: &Arc<Shared>, count: fn(&Shared) -> &AtomicUsize) -> Self {
        count(shared).fetch_add(1, Ordering::SeqCst);
        Self { shared: shared.clone(), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.shared).fetch_sub(1, Ordering::SeqCst);
    }
}

struct Connection {
    fault: Fault,
    /// Where the fault counts from, to the server and to the client.
    from: (u64, u64),
    forwarded: Arc<Forwarded>,
    orders: watch::Receiver<Orders>,
    seen: Orders,
}

impl Connection {
    /// Forwards in one task, a piece at a time, so that once the fault happened not a byte more
    /// goes either way.
    async fn run(
        mut self,
        mut client: TcpStream,
        present: Counted,
        turn: Turn,
        targets: &Targets,
    ) -> io::Result<()> {
        let mut server = targets.connect(turn).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut client, mut answers) = client.split();
        let mut present = Some(present);
        let (mut from_client, mut from_server) = (Box::new([0; 16 * 1024]), Box::new([0; 16 * 1024]));
        loop {
            let to_server = self.room(Direction::ToServer, from_client.len());
            let to_client = self.room(Direction::ToClient, from_server.len());
            let has_struck = to_server == 0 || to_client == 0;
            let (Some(upward), Some(downward)) =
                (from_client.get_mut(..to_server), from_server.get_mut(..to_client))
            else {
                return Ok(());
            };
            tokio::select! {
                // An order given before a byte was sent is heard before the byte.
                biased;
                order = self.orders.changed() => {
                    if order.is_err() || !self.obey() {
                        return Ok(());
                    }
                }
                () = wait(self.fault), if has_struck => {
                    if matches!(self.fault, Fault::Cut { .. }) {
                        return Ok(());
                    }
                    self.fault = Fault::None;
                }
                () = hung_up(&answers), if has_struck && present.is_some() => present = None,
                length = client.read(upward), if !has_struck => {
                    forward(upward, length?, &mut server, &self.forwarded.to_server).await?;
                }
                length = server.read(downward), if !has_struck => {
                    forward(downward, length?, &mut answers, &self.forwarded.to_client).await?;
                }
            }
        }
    }

    /// Takes new orders. Returns `true` if the connection goes on.
    fn obey(&mut self) -> bool {
        let orders = *self.orders.borrow_and_update();
        if orders.cut != self.seen.cut {
            return false;
        }
        if orders.fault.0 != self.seen.fault.0 {
            self.fault = orders.fault.1;
            self.from = self.forwarded.both();
        }
        self.seen = orders;
        true
    }

    /// How many bytes may go this way before the fault, if any.
    fn room(&self, of: Direction, max: usize) -> usize {
        match self.fault {
            Fault::Cut { direction, after }
            | Fault::Stall { direction, after }
            | Fault::Delay { direction, after, .. }
                if direction == of =>
            {
                let (now, from) = (self.forwarded.both(), self.from);
                let gone = match of {
                    Direction::ToServer => now.0 - from.0,
                    Direction::ToClient => now.1 - from.1,
                };
                usize::try_from(after.saturating_sub(gone)).unwrap_or(max).min(max)
            }
            _ => max,
        }
    }
}

/// How long a fault that has struck keeps everything waiting.
async fn wait(fault: Fault) {
    match fault {
        Fault::None | Fault::Cut { .. } => {}
        Fault::Stall { .. } => std::future::pending().await,
        Fault::Delay { time, .. } => tokio::time::sleep(time).await,
    }
}

impl Forwarded {
    fn both(&self) -> (u64, u64) {
        (self.to_server.load(Ordering::SeqCst), self.to_client.load(Ordering::SeqCst))
    }
}

/// Waits until the client has closed its end, whatever it sent before that and nobody has read.
async fn hung_up(client: &WriteHalf<'_>) {
    loop {
        match client.ready(Interest::READABLE).await {
            // What is there to be read is no news, and keeps it ready.
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_AGAIN).await,
            _ => return,
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(5);

async fn forward(
    from: &[u8],
    length: usize,
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
) -> io::Result<()> {
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Before it goes: whoever has received a byte sees it counted.
    count.fetch_add(length as u64, Ordering::SeqCst);
    to.write_all(from.get(..length).unwrap_or_default()).await
}
