//! Encrypts and decrypts a value of one customer, over an in-memory metastore and a static KMS.

use std::error::Error;
use std::time::Duration;

use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // For trying out: the keys are gone when the program ends. A service opens a metastore of
    // `claviger-metastore` and a KMS of `claviger-kms`.
    let master_key = SecretKey::generate(&SystemRandom::new())?;
    let factory = SessionFactory::builder(InMemoryMetastore::new(), StaticKms::new(&master_key)?)
        .service("checkout")
        .product("payments")
        .build()?;

    let session = factory.session("customer-17")?;
    let record = session.encrypt(b"4111 1111 1111 1111").await?;
    println!("stored:    {}", record.to_json());

    let plaintext = session.decrypt(&record).await?;
    println!("decrypted: {}", String::from_utf8_lossy(&plaintext));

    let other = factory.session("customer-18")?.decrypt(&record).await;
    println!(
        "another customer's session: {}",
        other.err().map_or_else(String::new, |error| error.to_string())
    );

    let report = factory.close(Duration::from_secs(5)).await?;
    println!("closed cleanly: {}", report.is_clean());
    Ok(())
}
