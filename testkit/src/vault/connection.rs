//! Connections: HTTP/1.1 with keep-alive, a thread for each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::vault::api::{Reply, answer};
use crate::vault::request::Request;
use crate::vault::{Cluster, Node, Trick, lock};

pub(crate) fn accept(listener: &TcpListener, cluster: &Arc<Cluster>, node: &Arc<Node>) {
    for socket in listener.incoming() {
        if node.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        lock(&node.log).connections += 1;
        lock(&node.sockets).extend(socket.try_clone());
        let (cluster, node) = (cluster.clone(), node.clone());
        node.open.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            // Whichever way it ends, the connection is closed by it.
            drop(serve(&socket, &cluster, &node));
            drop(socket.shutdown(Shutdown::Both));
            node.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(socket: &TcpStream, cluster: &Cluster, node: &Node) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match &node.tls {
        None => converse(socket.try_clone()?, cluster, node),
        Some(config) => {
            let mut first = [0];
            if socket.peek(&mut first)? == 1 && first != [TLS_HANDSHAKE] {
                let answer =
                    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
                return (&*socket).write_all(answer);
            }
            let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            converse(StreamOwned::new(session, socket.try_clone()?), cluster, node)
        }
    }
}

/// What a TLS connection begins with.
const TLS_HANDSHAKE: u8 = 0x16;

fn converse(stream: impl Read + Write, cluster: &Cluster, node: &Node) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = match read(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => {
                stream
                    .get_mut()
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")?;
                stream.get_mut().flush()?;
                return Err(error);
            }
        };
        lock(&node.log).requests.push(request.line());
        let trick = node.trick(&request.line());
        let closes_after = matches!(trick, Some(Trick::CloseAfter));
        let reply = match trick {
            None | Some(Trick::CloseAfter) => answer(cluster, node, &request),
            Some(Trick::Hang) => {
                node.hang();
                answer(cluster, node, &request)
            }
            Some(Trick::Close) => return Ok(()),
            Some(Trick::LoseAnswer) => {
                answer(cluster, node, &request);
                return Ok(());
            }
            Some(Trick::Fail(status, message)) => Reply::error(status, &message),
            Some(Trick::Echo(status)) => Reply::errors(status, &request.secrets()),
            Some(Trick::Answer(status, headers, body)) => Reply { status, headers, body },
            Some(Trick::Bytes(bytes)) => {
                stream.get_mut().write_all(&bytes)?;
                return stream.get_mut().flush();
            }
        };
        write(stream.get_mut(), &reply)?;
        if closes_after {
            return Ok(());
        }
    }
}

/// Reads a request; `None` if there is none any more.
fn read(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let bytes = request.header("content-length").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    request.body.resize(bytes, 0);
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn write(stream: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {} X\r\nCache-Control: no-store\r\n", reply.status).into_bytes();
    for header in &reply.headers {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", reply.body.len()).as_bytes());
    bytes.extend_from_slice(&reply.body);
    stream.write_all(&bytes)?;
    stream.flush()
}

impl Node {
    fn trick(&self, line: &str) -> Option<Trick> {
        let mut tricks = lock(&self.tricks);
        let next = tricks.next.iter().position(|(part, _)| line.contains(part.as_str()));
        if let Some((_, trick)) = next.and_then(|next| tricks.next.remove(next)) {
            return Some(trick);
        }
        tricks.always.iter().find(|(part, _)| line.contains(part.as_str())).map(|(_, trick)| trick.clone())
    }

    fn hang(&self) {
        let mut tricks = lock(&self.tricks);
        let before = tricks.releases;
        tricks.hanging += 1;
        while tricks.releases == before && !self.is_stopped.load(Ordering::SeqCst) {
            tricks = self.released.wait(tricks).unwrap_or_else(PoisonError::into_inner);
        }
        tricks.hanging -= 1;
    }
}
