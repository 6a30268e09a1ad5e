//! The servers of clusters: what is balanced goes as it should.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::net::TcpListener;

use claviger_test_servers::Balancer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that says one letter to whoever comes.
fn says(letter: u8) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let serving = tokio::spawn(async move {
        let mut clients = Vec::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            client.write_all(&[letter]).await.unwrap();
            clients.push(client);
        }
    });
    (address, serving)
}

/// Connects so many times, and returns who answered, `-` for nobody.
async fn asked(balancer: &Balancer, times: usize) -> (String, Vec<tokio::net::TcpStream>) {
    let (mut answers, mut streams) = (String::new(), Vec::new());
    for _ in 0..times {
        let mut stream = tokio::net::TcpStream::connect(balancer.address()).await.unwrap();
        answers.push(stream.read_u8().await.map_or('-', char::from));
        streams.push(stream);
    }
    (answers, streams)
}

#[tokio::test]
async fn balancer_gives_each_target_its_turn_and_skips_those_that_refuse() {
    let servers = [says(b'a'), says(b'b'), says(b'c')];
    let [a, b, c] = [0, 1, 2].map(|n: usize| servers[n].0.clone());
    let balancer = Balancer::start(&[a.clone(), b.clone(), c.clone()]).await;
    let (answers, mut old) = asked(&balancer, 6).await;
    assert_eq!((&*answers, balancer.connections()), ("abcabc", 6));

    servers[1].1.abort();
    wait_until_async(async || tokio::net::TcpStream::connect(&b).await.is_err()).await;
    assert_eq!(asked(&balancer, 4).await.0, "acac");

    balancer.set_targets(&[c]);
    assert_eq!(asked(&balancer, 2).await.0, "cc");
    balancer.set_targets(&[b]);
    assert_eq!(asked(&balancer, 1).await.0, "-");
    balancer.set_targets(&[]);
    assert_eq!(asked(&balancer, 1).await.0, "-");

    // Open ones stayed where they were, until now.
    balancer.cut_all();
    assert!(old[0].read_u8().await.is_err());
    wait_until_async(async || balancer.connections() == 0).await;
    assert_eq!(balancer.accepted(), 14);
    assert_eq!(balancer.address(), format!("127.0.0.1:{}", balancer.port()));
}

async fn wait_until_async(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        tokio::task::yield_now().await;
    }
}
