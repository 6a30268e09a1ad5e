//! A server that speaks enough HTTP to be DynamoDB, and answers as a test tells it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

pub(crate) enum Reply {
    /// A status and a body.
    Http(u16, String),
    /// The connection ends after so many bytes of an answer that is longer.
    Cut(usize),
    /// Nothing, and the connection stays open.
    Silence,
}

impl Reply {
    pub(crate) fn ok(body: Value) -> Self {
        Self::Http(200, body.to_string())
    }

    /// An error as the service words it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
        Self::Http(status, serde_json::json!({ "__type": kind, "message": message }).to_string())
    }
}

pub(crate) struct StandIn {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    /// Ends with the stand-in.
    _server: JoinSet<()>,
}

impl StandIn {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::start_with(move |request| {
            let answer = Arc::clone(&answer);
            async move { answer(&request) }
        })
        .await
    }

    /// As `start`, of a future.
    pub(crate) async fn start_with<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let mut server = JoinSet::new();
        let (answer, log, count) = (Arc::new(answer), Arc::clone(&seen), Arc::clone(&connections));
        server.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                // It ends by an error: the client went away, or the connection is cut.
                open.spawn(async move { drop(serve(socket, &*answer, &log).await) });
            }
        });
        Self { endpoint, seen, connections, _server: server }
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<F>(
    socket: TcpStream,
    answer: &impl Fn(Request) -> F,
    log: &Mutex<Vec<Request>>,
) -> io::Result<()>
where
    F: Future<Output = Reply>,
{
    let mut socket = BufReader::new(socket);
    loop {
        let request = read(&mut socket).await?;
        log.lock().unwrap().push(request.clone());
        let (status, body, cut) = match answer(request).await {
            Reply::Http(status, body) => (status, body, usize::MAX),
            Reply::Cut(after) => (200, "{}".repeat(100), after),
            Reply::Silence => std::future::pending().await,
        };
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status} Told\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amzn-requestid: REQUEST-ID\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(&reply.as_bytes()[..reply.len().min(cut)]).await?;
        if cut < reply.len() {
            return Ok(());
        }
    }
}

async fn read(socket: &mut BufReader<TcpStream>) -> io::Result<Request> {
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => operation = value.rsplit('.').next().unwrap().to_owned(),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(Request { operation, body: serde_json::from_slice(&body).unwrap() })
}
