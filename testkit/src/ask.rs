//! Requests to what stands in for AWS, as AWS's tools make them.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// What the programs under test are told, and no file of the machine.
pub const AWS_VARIABLES: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "a-secret-access-key"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];

/// A service of AWS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsService {
    /// DynamoDB.
    DynamoDb,
    /// KMS.
    Kms,
}

impl AwsService {
    /// Its name in signatures, what its operations begin with, and the version of JSON's protocol.
    const fn protocol(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::DynamoDb => ("dynamodb", "DynamoDB_20120810", "1.0"),
            Self::Kms => ("kms", "TrentService", "1.1"),
        }
    }

    /// Asks it for something in a region, and returns what it answers, its head as well. The signature is
    /// none, of which the servers read the region alone.
    ///
    /// # Errors
    /// The connection's.
    pub fn ask(self, endpoint: &str, region: &str, operation: &str, body: &str) -> io::Result<String> {
        let (name, prefix, version) = self.protocol();
        let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(host)?;
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/x-amz-json-{version}\r\n\
             X-Amz-Target: {prefix}.{operation}\r\nX-Amz-Date: 20260101T000000Z\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/{region}/{name}/aws4_request, \
             SignedHeaders=host, Signature=0000\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks it for something that it does, and returns the body of its answer, null if that is empty.
    #[must_use]
    pub fn done(self, endpoint: &str, region: &str, operation: &str, body: &str) -> Value {
        let answer = self.ask(endpoint, region, operation, body).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
        serde_json::from_str(body).unwrap_or_default()
    }
}
