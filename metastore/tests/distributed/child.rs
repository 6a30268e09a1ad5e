//! What each of the processes does.

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use claviger::{BoxedMetastore, CryptoPolicy, SecretKey, SessionFactory, StaticKms};
use tokio::task::JoinSet;

use crate::place::{PRODUCT, Place, SERVICE};
use crate::process::Record;

/// Says in a child which one it is.
pub(crate) const VARIABLE: &str = "CLAVIGER_TEST_CHILD";

const TASKS: usize = 4;

/// After this time all tasks of all processes turn to a new partition at once.
const TURN: Duration = Duration::from_millis(250);

#[expect(clippy::disallowed_methods, reason = "a process is told by the environment that it is a child")]
fn number() -> Option<u64> {
    std::env::var(VARIABLE).ok()?.parse().ok()
}

pub(crate) fn is_this() -> bool {
    number().is_some()
}

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve());
}

async fn serve() {
    let master_key = SecretKey::try_init(|key| {
        let line = read_line();
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(line.get(2 * index..2 * index + 2).unwrap(), 16)?;
        }
        Ok::<_, std::num::ParseIntError>(())
    })
    .unwrap();
    let place = Place::from_line(&read_line());
    let store = place.open().await;
    // Some processes ask the store on every call, some rely on what they know for a second.
    let interval = Duration::from_secs(number().unwrap() % 2);
    let factory = || {
        let policy = CryptoPolicy::default().revoke_check_interval(interval);
        let kms = StaticKms::new(&master_key).unwrap();
        let builder = SessionFactory::builder(BoxedMetastore::clone(&store), kms);
        builder.service(SERVICE).product(PRODUCT).policy(policy).build().unwrap()
    };
    let encrypting = Arc::new(factory());
    loop {
        match read_line().as_str() {
            "go" => encrypt(&encrypting).await,
            "decrypt" => decrypt(&factory()).await,
            "use" => tell_keys(&encrypting).await,
            "end" => return,
            other => panic!("{other}"),
        }
    }
}

fn read_line() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Encrypts in many tasks until told to stop.
async fn encrypt(factory: &Arc<SessionFactory>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(encrypt_in_task(Arc::clone(factory), task, Arc::clone(&is_over)));
    }
    let line = tokio::task::spawn_blocking(read_line).await.unwrap();
    assert_eq!(line, "stop");
    is_over.store(true, Ordering::SeqCst);
    let counts = tasks.join_all().await;
    let encrypted: usize = counts.iter().map(|(encrypted, _)| encrypted).sum();
    let failed: usize = counts.iter().map(|(_, failed)| failed).sum();
    println!("child: stopped {encrypted} {failed}");
}

async fn encrypt_in_task(
    factory: Arc<SessionFactory>,
    task: usize,
    is_over: Arc<AtomicBool>,
) -> (usize, usize) {
    let (mut encrypted, mut failed) = (0, 0);
    while !is_over.load(Ordering::SeqCst) {
        let partition = partition();
        let plaintext = format!("{}-{task}-{encrypted}", std::process::id());
        match factory.session(&partition).unwrap().encrypt(plaintext.as_bytes()).await {
            Ok(sealed) => {
                encrypted += 1;
                println!("child: record {}", Record { partition, plaintext, sealed }.to_line());
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                failed += 1;
            }
        }
        // As a service with callers does: neither as fast as it can, nor again at once.
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    (encrypted, failed)
}

/// The same in all processes at the same time.
#[expect(clippy::disallowed_methods, reason = "the one clock that processes share")]
fn partition() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("p{}", now.as_millis() / TURN.as_millis())
}

async fn decrypt(factory: &SessionFactory) {
    let mut decrypted = 0;
    loop {
        let line = read_line();
        if line.is_empty() {
            break;
        }
        let record = Record::from_line(&line);
        let plaintext = factory.session(&record.partition).unwrap().decrypt(&record.sealed).await.unwrap();
        assert_eq!(&*plaintext, record.plaintext.as_bytes());
        decrypted += 1;
    }
    println!("child: decrypted {decrypted}");
}

async fn tell_keys(factory: &SessionFactory) {
    loop {
        let partition = read_line();
        if partition.is_empty() {
            return;
        }
        let sealed = factory.session(&partition).unwrap().encrypt(b"x").await.unwrap();
        println!("child: used {partition} {}", sealed.parent_created().unix_seconds());
    }
}
