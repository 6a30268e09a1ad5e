//! The proxy breaks what it should, to the byte, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::time::Duration;

use claviger_testkit::{Direction, Fault, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];
const MESSAGE: &[u8] = b"0123456789";
/// Long enough for a byte on its way to arrive.
const A_MOMENT: Duration = Duration::from_millis(30);

struct World {
    proxy: Proxy,
    listener: TcpListener,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(&listener.local_addr().unwrap().to_string()).await;
        Self { proxy, listener }
    }

    /// Connects, and returns the end of who sends in this direction, and of who receives.
    async fn connect(&self, direction: Direction) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        match direction {
            Direction::ToServer => (client, server),
            Direction::ToClient => (server, client),
        }
    }
}

/// Reads until the connection ends, in whichever way.
async fn all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        bytes.push(byte);
    }
    bytes
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(A_MOMENT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn without_a_fault_all_bytes_pass_and_are_counted() {
    let world = World::new().await;
    let (mut client, mut server) = world.connect(Direction::ToServer).await;
    client.write_all(MESSAGE).await.unwrap();
    let mut received = [0; 10];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(received, MESSAGE);
    server.write_all(&MESSAGE[..3]).await.unwrap();
    client.read_exact(&mut received[..3]).await.unwrap();
    assert_eq!(world.proxy.bytes(), (10, 3));
    assert_eq!(world.proxy.connections(), 1);
    drop(client);
    assert!(all(server).await.is_empty());
}

#[tokio::test]
async fn much_passes_both_ways_at_once() {
    let world = World::new().await;
    let (client, server) = world.connect(Direction::ToServer).await;
    let talk = |stream: TcpStream| async move {
        let (mut input, mut output) = stream.into_split();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut received = vec![0; sent.len()];
        let (wrote, read) = tokio::join!(output.write_all(&sent), input.read_exact(&mut received));
        wrote.unwrap();
        read.unwrap();
        assert!(received == sent);
    };
    tokio::join!(talk(client), talk(server));
}

#[tokio::test]
async fn cut_passes_exactly_so_many_bytes_and_closes_both_sides() {
    let world = World::new().await;
    for direction in BOTH {
        for after in 0..MESSAGE.len() {
            world.proxy.set(Fault::Cut { direction, after: after as u64 });
            let (mut sender, receiver) = world.connect(direction).await;
            // The cut may come before the rest is sent.
            drop(sender.write_all(MESSAGE).await);
            assert_eq!(all(receiver).await, &MESSAGE[..after], "{direction:?} {after}");
            assert!(all(sender).await.is_empty());
        }
    }
}

#[tokio::test]
async fn stall_passes_exactly_so_many_bytes_then_none_either_way_and_closes_nothing() {
    let world = World::new().await;
    for direction in BOTH {
        world.proxy.set(Fault::Stall { direction, after: 4 });
        let (mut sender, mut receiver) = world.connect(direction).await;
        sender.write_all(MESSAGE).await.unwrap();
        let mut received = [0; 4];
        receiver.read_exact(&mut received).await.unwrap();
        assert_eq!(received, MESSAGE[..4]);
        receiver.write_all(MESSAGE).await.unwrap();
        assert!(is_silent(&mut receiver).await && is_silent(&mut sender).await, "{direction:?}");
        assert_eq!(world.proxy.connections(), 1);
        world.proxy.cut_all();
        assert!(all(receiver).await.is_empty() && all(sender).await.is_empty(), "{direction:?}");
    }
}

#[tokio::test]
async fn delay_passes_everything_in_the_end() {
    let world = World::new().await;
    for direction in BOTH {
        world.proxy.set(Fault::Delay { direction, after: 4, time: Duration::from_secs(3_600) });
        let (mut sender, mut receiver) = world.connect(direction).await;
        sender.write_all(MESSAGE).await.unwrap();
        let mut received = [0; 10];
        receiver.read_exact(&mut received[..4]).await.unwrap();
        assert!(is_silent(&mut receiver).await, "{direction:?}");
        world.proxy.cut_all();

        world.proxy.set(Fault::Delay { direction, after: 4, time: Duration::from_millis(1) });
        let (mut sender, mut receiver) = world.connect(direction).await;
        sender.write_all(MESSAGE).await.unwrap();
        receiver.read_exact(&mut received).await.unwrap();
        assert_eq!(received, MESSAGE);
        receiver.write_all(MESSAGE).await.unwrap();
        sender.read_exact(&mut received).await.unwrap();
    }
}

#[tokio::test]
async fn fault_strikes_new_connections_only() {
    let world = World::new().await;
    let (mut old_client, mut old_server) = world.connect(Direction::ToServer).await;
    world.proxy.set(Fault::Cut { direction: Direction::ToServer, after: 0 });
    let (new_client, _new_server) = world.connect(Direction::ToServer).await;
    assert!(all(new_client).await.is_empty());
    old_client.write_all(b"x").await.unwrap();
    assert_eq!(old_server.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn open_connection_breaks_after_so_many_bytes_more_and_goes_on_when_mended() {
    let world = World::new().await;
    for direction in BOTH {
        for before in [0, 3] {
            let (mut sender, mut receiver) = world.connect(direction).await;
            let mut received = [0; 10];
            sender.write_all(&MESSAGE[..before]).await.unwrap();
            receiver.read_exact(&mut received[..before]).await.unwrap();
            world.proxy.set_open(Fault::Stall { direction, after: 4 });
            sender.write_all(&MESSAGE[before..]).await.unwrap();
            receiver.read_exact(&mut received[before..before + 4]).await.unwrap();
            assert!(is_silent(&mut receiver).await, "{direction:?}");
            world.proxy.set_open(Fault::None);
            receiver.read_exact(&mut received[before + 4..]).await.unwrap();
            assert_eq!(received, MESSAGE);
            world.proxy.set_open(Fault::Cut { direction, after: 2 });
            drop(sender.write_all(MESSAGE).await);
            assert_eq!(all(receiver).await, &MESSAGE[..2], "{direction:?}");
        }
        // It was for those that were open.
        let (mut sender, mut receiver) = world.connect(direction).await;
        sender.write_all(MESSAGE).await.unwrap();
        receiver.read_exact(&mut [0; 10]).await.unwrap();
        world.proxy.cut_all();
        assert!(all(receiver).await.is_empty());
    }
}

#[tokio::test]
async fn connections_end_when_all_are_cut_and_when_the_proxy_is_dropped() {
    let world = World::new().await;
    let first = world.connect(Direction::ToServer).await;
    let second = world.connect(Direction::ToServer).await;
    assert_eq!(world.proxy.connections(), 2);
    world.proxy.cut_all();
    for stream in [first.0, first.1, second.0, second.1] {
        assert!(all(stream).await.is_empty());
    }
    let (client, server) = world.connect(Direction::ToServer).await;
    drop(world.proxy);
    assert!(all(client).await.is_empty() && all(server).await.is_empty());
}

#[tokio::test]
async fn client_that_hangs_up_on_a_stalled_connection_is_noticed_and_the_server_does_not_know() {
    let world = World::new().await;
    for sent in [&b""[..], MESSAGE] {
        world.proxy.set(Fault::Stall { direction: Direction::ToClient, after: 0 });
        let (mut client, mut server) = world.connect(Direction::ToServer).await;
        client.write_all(sent).await.unwrap();
        assert!(is_silent(&mut server).await);
        assert_eq!((world.proxy.clients(), world.proxy.connections()), (1, 1));
        drop(client);
        while world.proxy.clients() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.proxy.connections(), 1);
        assert!(is_silent(&mut server).await);
        world.proxy.set_open(Fault::None);
        assert_eq!(all(server).await, sent);
    }
    assert_eq!(world.proxy.accepted(), 2);
}

#[tokio::test]
async fn client_of_a_server_that_is_down_is_cut() {
    let world = World::new().await;
    drop(world.listener);
    let client = TcpStream::connect(world.proxy.address()).await.unwrap();
    assert!(all(client).await.is_empty());
}
