//! A service of AWS that answers as a test tells it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that speaks enough HTTP to be DynamoDB, or KMS in one region. It ends with its runtime, or
/// when it is dropped.
#[derive(Debug)]
pub struct AwsStandIn {
    endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    kept_waiting: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

/// What a client asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Such as `GetItem`.
    pub operation: String,
    /// What of.
    pub body: Value,
}

/// What is answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// A status and a body.
    Http(u16, String),
    /// A status, a code and a message, worded as the service does.
    Error(u16, String, String),
    /// The connection ends after so many bytes of an answer that is longer.
    Cut(usize),
    /// Nothing, until the client goes away.
    Silence,
    /// The head and so many bytes of the body of an answer that is longer, until the client goes away.
    Stall(usize),
}

impl Reply {
    /// A success.
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self::Http(200, body.to_string())
    }

    /// A refusal, or a fault of the service's.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Error(status, code.to_owned(), message.to_owned())
    }

    /// Returns the refusals that quote the request with its credentials, as AWS words them, each with
    /// the end of the part that may be shown.
    #[must_use]
    pub fn quoting_the_request() -> [(Self, &'static str); 2] {
        // Its second paragraph holds the signed headers.
        let mismatch = "The request signature we calculated does not match the signature you provided.\n\n\
                        The Canonical String for this request should have been\n'POST\n/\n\n\
                        x-amz-security-token:canary-token\n'";
        let incomplete = "Authorization header requires 'Signature' parameter. \
                          Authorization=AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/canary";
        [
            (
                Self::error(400, "InvalidSignatureException", mismatch),
                "does not match the signature you provided.",
            ),
            (Self::error(400, "IncompleteSignatureException", incomplete), "requires 'Signature' parameter."),
        ]
    }
}

impl AwsStandIn {
    /// Starts one on a free port.
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::start_with(move |request| {
            let answer = Arc::clone(&answer);
            async move { answer(&request) }
        })
        .await
    }

    /// Starts one whose answers may be long in coming.
    pub async fn start_with<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let kept_waiting = Arc::new(AtomicUsize::new(0));
        let mut server = JoinSet::new();
        let (answer, log, count) = (Arc::new(answer), Arc::clone(&seen), Arc::clone(&connections));
        let waiting = Arc::clone(&kept_waiting);
        server.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, log, waiting) = (Arc::clone(&answer), Arc::clone(&log), Arc::clone(&waiting));
                // It ends by an error: the client went away, or the connection is cut.
                open.spawn(async move { drop(serve(socket, &*answer, &log, &waiting).await) });
            }
        });
        Self { endpoint, seen, connections, kept_waiting, _server: server }
    }

    /// Returns where it is: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns what was asked for, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the operations that were asked for, in order.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.operation).collect()
    }

    /// Forgets what was asked for.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Returns how many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns how many requests were left without an answer, or without the rest of one.
    #[must_use]
    pub fn kept_waiting(&self) -> usize {
        self.kept_waiting.load(Ordering::SeqCst)
    }
}

/// What a request says besides what it asks for.
struct Head {
    target: String,
    content_type: String,
    length: usize,
}

async fn serve<F>(
    socket: TcpStream,
    answer: &impl Fn(Request) -> F,
    log: &Mutex<Vec<Request>>,
    kept_waiting: &AtomicUsize,
) -> io::Result<()>
where
    F: Future<Output = Reply>,
{
    let mut socket = BufReader::new(socket);
    loop {
        let head = Head::read(&mut socket).await?;
        let mut body = vec![0; head.length];
        socket.read_exact(&mut body).await?;
        let operation = head.target.rsplit('.').next().unwrap_or_default().to_owned();
        let request = Request { operation, body: serde_json::from_slice(&body).unwrap() };
        log.lock().unwrap().push(request.clone());
        let reply = answer(request).await;
        let (status, body) = match &reply {
            Reply::Http(status, body) => (*status, body.clone()),
            Reply::Error(status, code, message) => (*status, head.error(code, message)),
            Reply::Cut(_) | Reply::Silence | Reply::Stall(_) => (200, "{}".repeat(100)),
        };
        let (content_type, length) = (&head.content_type, body.len());
        let head = format!(
            "HTTP/1.1 {status} Told\r\ncontent-type: {content_type}\r\n\
             x-amzn-requestid: REQUEST-ID\r\ncontent-length: {length}\r\n\r\n"
        );
        let whole = [head.as_bytes(), body.as_bytes()].concat();
        let sent = match reply {
            Reply::Http(..) | Reply::Error(..) => whole.len(),
            Reply::Cut(after) => after,
            Reply::Silence => 0,
            Reply::Stall(after) => head.len() + after,
        };
        socket.write_all(whole.get(..sent).unwrap_or(&whole)).await?;
        if matches!(reply, Reply::Silence | Reply::Stall(_)) {
            kept_waiting.fetch_add(1, Ordering::SeqCst);
            return match socket.read_u8().await {
                Ok(_) => panic!("a client sends nothing before it has an answer"),
                Err(gone) => Err(gone),
            };
        }
        if sent < whole.len() {
            return Ok(());
        }
    }
}

impl Head {
    async fn read(socket: &mut BufReader<TcpStream>) -> io::Result<Self> {
        let mut head = Self { target: String::new(), content_type: String::new(), length: 0 };
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                if line.trim_end().is_empty() {
                    return Ok(head);
                }
                continue;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "x-amz-target" => head.target = value.to_owned(),
                "content-type" => head.content_type = value.to_owned(),
                "content-length" => head.length = value.parse().unwrap(),
                _ => {}
            }
        }
    }

    /// Words an error. DynamoDB says before a code whose it is, KMS does not.
    fn error(&self, code: &str, message: &str) -> String {
        let whose = match self.target.split_once('.') {
            Some(("DynamoDB_20120810", _)) => "com.amazonaws.dynamodb.v20120810#",
            _ => "",
        };
        json!({ "__type": format!("{whose}{code}"), "message": message }).to_string()
    }
}

/// A server at an `https://` address that speaks no TLS: to each who comes it says so in plain HTTP.
#[derive(Debug)]
pub struct NoTls {
    endpoint: String,
    _server: JoinSet<()>,
}

impl NoTls {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let _read = socket.read(&mut [0; 64]).await;
                    socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
                });
            }
        });
        Self { endpoint, _server: server }
    }

    /// Returns where it is: `https://localhost:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
