//! A server that speaks enough HTTP to be KMS in one region, and answers as a test tells it.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use claviger_kms::{AwsKms, AwsKmsBuilder};

use crate::support::{arn, client};

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
    /// Nothing, until the client goes away.
    Silence,
}

impl Reply {
    pub(crate) fn ok(body: &Value) -> Self {
        Self::Http(200, body.to_string())
    }

    /// An error as the service words it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Http(status, json!({ "__type": code, "message": message }).to_string())
    }
}

pub(crate) struct StandIn {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
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
        let seen = Arc::default();
        let mut server = JoinSet::new();
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        server.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                // It ends by an error: the client went away, or the connection is cut.
                open.spawn(async move { drop(serve(socket, &*answer, &log).await) });
            }
        });
        Self { endpoint, seen, _server: server }
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The operations that were asked for, in order.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.operation).collect()
    }

    /// Forgets what was asked for.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

/// The regions of these stand-ins.
pub(crate) fn regions<'a>(stand_ins: impl IntoIterator<Item = (&'a str, &'a StandIn)>) -> AwsKmsBuilder {
    stand_ins.into_iter().fold(AwsKms::builder(), |builder, (region, stand_in)| {
        builder.region(region, arn(region)).client(region, client(&stand_in.endpoint, region))
    })
}

/// Answers as KMS does, with ciphertexts that say what they are of.
pub(crate) fn honest(request: &Request) -> Reply {
    let body = &request.body;
    let (key, context) = (&body["KeyId"], &body["EncryptionContext"]);
    let wrapped = |plaintext: &Value| {
        let ciphertext = json!({ "key": key, "context": context, "plaintext": plaintext }).to_string();
        json!({ "KeyId": key, "CiphertextBlob": base64(ciphertext.as_bytes()), "Plaintext": plaintext })
    };
    match request.operation.as_str() {
        "GenerateDataKey" => {
            assert_eq!(body["KeySpec"], "AES_256");
            Reply::ok(&wrapped(&json!(base64(crate::support::new_secret().expose_secret()))))
        }
        "Encrypt" => {
            let mut answer = wrapped(&body["Plaintext"]);
            answer.as_object_mut().unwrap().remove("Plaintext");
            Reply::ok(&answer)
        }
        "Decrypt" => {
            let bytes =
                base64_simd::STANDARD.decode_to_vec(body["CiphertextBlob"].as_str().unwrap()).unwrap();
            let Ok(ciphertext) = serde_json::from_slice::<Value>(&bytes) else {
                return Reply::error(400, "InvalidCiphertextException", "");
            };
            if ciphertext["key"] != *key {
                return Reply::error(400, "IncorrectKeyException", "The key ID does not identify the key.");
            }
            if ciphertext["context"] != *context {
                return Reply::error(400, "InvalidCiphertextException", "");
            }
            Reply::ok(&json!({ "KeyId": key, "Plaintext": ciphertext["plaintext"] }))
        }
        operation => panic!("{operation} is not asked for"),
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
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
            Reply::Silence => {
                return match socket.read_u8().await {
                    Ok(_) => panic!("a client sends nothing before it has an answer"),
                    Err(gone) => Err(gone),
                };
            }
        };
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status} Told\r\ncontent-type: application/x-amz-json-1.1\r\n\
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
