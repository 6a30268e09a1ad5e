//! The contract of a KMS, with each login, through a proxy, and on a key in a namespace.

use std::time::Duration;

use claviger::KeyManagementService as _;
use claviger::testing::kms::{Outage, Trouble};
use claviger::testing::{call, kms_contract, kms_outage_contract, kms_wrong_key_contract};
use claviger_kms::{VaultAuth, VaultTransitKms};
use claviger_testkit::{Direction, FakeVault, Fault, Grant, Proxy};

use crate::support::{KEY, builder, fresh_key, meta, vault, with_token, wrap};

mod token {
    use super::*;

    kms_contract!(guarded async {
        let vault = vault();
        (with_token(&vault).await, vault)
    });
}

mod app_role_in_a_namespace {
    use super::*;

    // Tokens that are used up within a clause.
    kms_contract!(guarded async {
        let vault = FakeVault::start();
        vault.create_key("team/a/secrets/transit/claviger");
        vault.create_app_role("team/a/approle", "role", "secret", &Grant::new().uses(9_999).not_renewable());
        let auth = VaultAuth::app_role("role", "secret");
        let kms = builder(&vault).namespace("team/a/").mount("secrets/transit").auth(auth);
        (kms.open().await.unwrap(), vault)
    });
}

mod wrong_key {
    use super::*;

    kms_wrong_key_contract!(guarded async {
        let vault = vault();
        vault.create_key("transit/other");
        let token = vault.create_token(&Grant::new());
        let other = VaultTransitKms::builder(vault.url(), "other").auth(VaultAuth::token(token));
        ((with_token(&vault).await, other.open().await.unwrap()), vault)
    });
}

mod outage {
    use super::*;

    kms_outage_contract!(guarded async {
        let vault = vault();
        let proxy = Proxy::start(&vault.address()).await;
        let token = vault.create_token(&Grant::new());
        let kms = VaultTransitKms::builder(format!("http://{}", proxy.address()), "claviger")
            .auth(VaultAuth::token(token))
            .open()
            .await
            .unwrap();
        ((kms, Way(proxy)), vault)
    });
}

/// The way to Vault.
#[derive(Debug)]
struct Way(Proxy);

impl Outage for Way {
    async fn begin(&self, trouble: Trouble) {
        let direction = Direction::ToServer;
        let fault = match trouble {
            Trouble::OutOfReach => Fault::Cut { direction, after: 0 },
            Trouble::Hanging => Fault::Stall { direction, after: 0 },
            Trouble::Slow => Fault::Delay { direction, after: 0, time: Duration::from_millis(20) },
            other => panic!("{other:?} is new"),
        };
        self.0.set(fault);
        self.0.set_open(fault);
    }

    async fn end(&self) {
        self.0.set(Fault::None);
        self.0.cut_all();
    }
}

#[tokio::test]
async fn what_asherah_stored_unwraps() {
    let vault = vault();
    let kms = with_token(&vault).await;
    // Asherah sends base64 of the key's bytes, and stores the answer's text as it is.
    let stored = vault.encrypt(KEY, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let unwrapped = kms.unwrap_key(stored.as_bytes(), &meta(), &call()).await.unwrap();
    assert_eq!(unwrapped.expose_secret(), b"0123456789abcdef0123456789abcdef");
}

#[tokio::test]
async fn what_is_stored_is_what_asherah_reads() {
    let vault = vault();
    let key = fresh_key();
    let stored = wrap(&with_token(&vault).await, &key).await;
    let stored = std::str::from_utf8(&stored).unwrap();
    assert!(stored.starts_with("vault:v1:"));
    let plaintext = vault.decrypt(KEY, stored);
    assert_eq!(plaintext, base64(key.expose_secret()));
}

/// Not the library's own.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut padded = [0, 0, 0, 0];
        padded[1..=three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(padded);
        for place in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
            text.push(if place > three.len() { '=' } else { digit });
        }
    }
    text
}
