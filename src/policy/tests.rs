use super::*;

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// Names every field, so that a new one or a changed default is seen here.
#[test]
fn s0_5_presets_are_as_documented() {
    let production = CryptoPolicy {
        expire_after: Lifetime::Of(DAY * 90),
        revoke_check_interval: MINUTE * 60,
        creation_precision: SECOND * 60,
        idle_timeout: Lifetime::Of(HOUR * 2),
        refresh_wait: Duration::from_millis(200),
        max_stale_encrypt: HOUR,
        max_stale_decrypt: HOUR * 24,
        revoked_decrypt: RevokedDecrypt::Allow,
        replica_reads: false,
        max_wraps_per_key: 268_435_456,
        lock_policy: LockPolicy::Prefer,
    };
    let development = CryptoPolicy {
        expire_after: Lifetime::Of(DAY),
        revoke_check_interval: SECOND * 10,
        creation_precision: SECOND,
        lock_policy: LockPolicy::Off,
        ..production.clone()
    };
    let high_security = CryptoPolicy {
        expire_after: Lifetime::Of(DAY * 30),
        revoke_check_interval: MINUTE * 5,
        idle_timeout: Lifetime::Of(MINUTE * 15),
        max_stale_encrypt: MINUTE * 15,
        max_stale_decrypt: HOUR,
        revoked_decrypt: RevokedDecrypt::Warn,
        lock_policy: LockPolicy::Require,
        ..production.clone()
    };
    assert_eq!(CryptoPolicy::default(), production);
    assert_eq!(CryptoPolicy::production(), production);
    assert_eq!(CryptoPolicy::development(), development);
    assert_eq!(CryptoPolicy::high_security(), high_security);
    for preset in [production, development, high_security] {
        preset.validate().unwrap();
    }
}

#[test]
fn s0_5_limits_are_as_documented() {
    let limits = Limits {
        max_intermediate_keys: Capacity::Keys(10_000),
        max_system_keys: Capacity::Keys(100),
        max_payload_bytes: 67_108_864,
        operation_deadline: SECOND * 10,
        store_deadline: SECOND * 2,
        kms_deadline: SECOND * 5,
        max_store_calls: 64,
        max_kms_calls: 16,
        max_waiting_calls: 10_000,
        max_cold_operations: 20_000,
        max_misses: 64,
        max_background_refreshes: 16,
        max_attempts: 3,
    };
    assert_eq!(Limits::default(), limits);
    assert_eq!(Limits::production(), limits);
    assert_eq!(Limits::high_security(), limits);
    let development = Limits { max_intermediate_keys: Capacity::Keys(1_000), ..limits };
    assert_eq!(Limits::development(), development);
    development.validate().unwrap();
}

#[test]
fn every_setter_sets_its_own_field() {
    let policy = CryptoPolicy::production()
        .expire_after(DAY)
        .revoke_check_interval(SECOND)
        .creation_precision(SECOND * 2)
        .idle_timeout(Lifetime::Never)
        .refresh_wait(SECOND * 4)
        .max_stale_encrypt(SECOND * 5)
        .max_stale_decrypt(SECOND * 6)
        .revoked_decrypt(RevokedDecrypt::Deny)
        .replica_reads(true)
        .max_wraps_per_key(7)
        .lock_policy(LockPolicy::Off);
    let expected = CryptoPolicy {
        expire_after: Lifetime::Of(DAY),
        revoke_check_interval: SECOND,
        creation_precision: SECOND * 2,
        idle_timeout: Lifetime::Never,
        refresh_wait: SECOND * 4,
        max_stale_encrypt: SECOND * 5,
        max_stale_decrypt: SECOND * 6,
        revoked_decrypt: RevokedDecrypt::Deny,
        replica_reads: true,
        max_wraps_per_key: 7,
        lock_policy: LockPolicy::Off,
    };
    assert_eq!(policy, expected);
    let limits = Limits::production()
        .max_intermediate_keys(3)
        .max_system_keys(Capacity::Unbounded)
        .max_payload_bytes(1)
        .operation_deadline(SECOND * 2)
        .store_deadline(SECOND * 3)
        .kms_deadline(SECOND * 4)
        .max_store_calls(5)
        .max_kms_calls(6)
        .max_waiting_calls(7)
        .max_cold_operations(10)
        .max_misses(11)
        .max_background_refreshes(8)
        .max_attempts(9);
    let expected = Limits {
        max_intermediate_keys: Capacity::Keys(3),
        max_system_keys: Capacity::Unbounded,
        max_payload_bytes: 1,
        operation_deadline: SECOND * 2,
        store_deadline: SECOND * 3,
        kms_deadline: SECOND * 4,
        max_store_calls: 5,
        max_kms_calls: 6,
        max_waiting_calls: 7,
        max_cold_operations: 10,
        max_misses: 11,
        max_background_refreshes: 8,
        max_attempts: 9,
    };
    assert_eq!(limits, expected);
}

#[test]
fn s3_6_build_refuses_every_invalid_combination() {
    let policy = CryptoPolicy::production;
    let precision = "creation_precision is not a number of whole seconds that divides a day";
    let staleness = "revoke_check_interval + max_stale_encrypt is not below expire_after";
    let over = SPAN_MAX + SECOND;
    let cases = [
        (policy().creation_precision(Duration::ZERO), precision),
        (policy().creation_precision(Duration::from_millis(500)), precision),
        (policy().creation_precision(MINUTE + NANOSECOND), precision),
        (policy().creation_precision(SECOND * 7), precision),
        (policy().creation_precision(DAY * 2), precision),
        (policy().expire_after(Duration::ZERO), "creation_precision is over half of expire_after"),
        (policy().expire_after(MINUTE * 2 - SECOND), "creation_precision is over half of expire_after"),
        (
            policy().expire_after(DAY).creation_precision(DAY),
            "creation_precision is over half of expire_after",
        ),
        (policy().expire_after(DAY + NANOSECOND), "expire_after is not in whole seconds"),
        (policy().expire_after(over), "expire_after is over 100 years; say Lifetime::Never"),
        (policy().expire_after(Duration::from_secs(u64::MAX)), "expire_after is over 100 years"),
        (policy().expire_after(HOUR * 2), staleness),
        (policy().revoke_check_interval(DAY * 90), staleness),
        (policy().revoke_check_interval(Duration::MAX), staleness),
        (policy().max_stale_encrypt(DAY * 90).max_stale_decrypt(DAY * 90), staleness),
        (
            policy().expire_after(Lifetime::Never).revoke_check_interval(over),
            "revoke_check_interval is over 100 years",
        ),
        (
            policy().expire_after(Lifetime::Never).max_stale_encrypt(over),
            "max_stale_encrypt is over 100 years",
        ),
        (policy().max_stale_decrypt(over), "max_stale_decrypt is over 100 years"),
        (policy().max_stale_decrypt(HOUR - NANOSECOND), "max_stale_decrypt is below max_stale_encrypt"),
        (policy().refresh_wait(Duration::ZERO), "refresh_wait is zero"),
        (policy().refresh_wait(Duration::MAX), "refresh_wait is over 100 years"),
        (policy().idle_timeout(Duration::ZERO), "idle_timeout is zero"),
        (policy().idle_timeout(over), "idle_timeout is over 100 years; say Lifetime::Never"),
        (policy().max_wraps_per_key(0), "max_wraps_per_key is zero"),
        (policy().max_wraps_per_key((1 << 31) + 1), "max_wraps_per_key is over 2^31"),
    ];
    for (policy, expected) in cases {
        assert_refused(policy.validate(), expected, &policy);
    }
}

#[test]
fn s3_6_build_refuses_every_invalid_limit() {
    let limits = Limits::production;
    let over = SPAN_MAX + SECOND;
    let permits_max = tokio::sync::Semaphore::MAX_PERMITS;
    let cases = [
        (limits().max_intermediate_keys(0), "max_intermediate_keys is zero"),
        (limits().max_system_keys(0), "max_system_keys is zero"),
        (limits().max_payload_bytes((1 << 36) - 31), "max_payload_bytes is over the 64 GiB"),
        (limits().max_payload_bytes(usize::MAX), "max_payload_bytes is over the 64 GiB"),
        (limits().operation_deadline(Duration::ZERO), "operation_deadline is zero"),
        (limits().operation_deadline(over), "operation_deadline is over 100 years"),
        (limits().store_deadline(Duration::ZERO), "store_deadline is zero"),
        (limits().store_deadline(Duration::MAX), "store_deadline is over 100 years"),
        (limits().kms_deadline(Duration::ZERO), "kms_deadline is zero"),
        (limits().kms_deadline(over), "kms_deadline is over 100 years"),
        (limits().max_store_calls(0), "max_store_calls is zero"),
        (limits().max_store_calls(permits_max + 1), "max_store_calls is too large"),
        (limits().max_kms_calls(0), "max_kms_calls is zero"),
        (limits().max_kms_calls(usize::MAX), "max_kms_calls is too large"),
        (limits().max_waiting_calls(0), "max_waiting_calls is zero"),
        (limits().max_waiting_calls(permits_max + 1), "max_waiting_calls is too large"),
        (limits().max_misses(0), "max_misses is zero"),
        (limits().max_background_refreshes(0), "max_background_refreshes is zero"),
        (limits().max_background_refreshes(permits_max + 1), "max_background_refreshes is too large"),
        (limits().max_attempts(0), "max_attempts is zero"),
    ];
    for (limits, expected) in cases {
        assert_refused(limits.validate(), expected, &limits);
    }
}

fn assert_refused(result: Result<(), Error>, expected: &str, what: &impl std::fmt::Debug) {
    let Err(Error::InvalidConfig { reason }) = result else { panic!("{result:?} about {what:?}") };
    assert!(reason.starts_with(expected), "{reason} is not {expected}");
}

/// Each of these is one step from a refused one.
#[test]
fn s3_6_build_takes_every_boundary() {
    let policy = CryptoPolicy::production;
    let policies = [
        policy().creation_precision(SECOND),
        policy().creation_precision(DAY),
        policy().expire_after(DAY * 2).creation_precision(DAY),
        policy().expire_after(HOUR * 2 + SECOND),
        policy()
            .expire_after(MINUTE * 2)
            .revoke_check_interval(MINUTE)
            .max_stale_encrypt(MINUTE - NANOSECOND),
        policy().expire_after(SPAN_MAX),
        policy().expire_after(Lifetime::Never).revoke_check_interval(SPAN_MAX),
        policy().expire_after(Lifetime::Never).max_stale_encrypt(SPAN_MAX).max_stale_decrypt(SPAN_MAX),
        policy().revoke_check_interval(Duration::ZERO),
        policy().max_stale_encrypt(Duration::ZERO).max_stale_decrypt(Duration::ZERO),
        policy().max_stale_decrypt(HOUR),
        policy().refresh_wait(NANOSECOND),
        policy().refresh_wait(SPAN_MAX),
        policy().idle_timeout(NANOSECOND),
        policy().idle_timeout(SPAN_MAX),
        policy().idle_timeout(Lifetime::Never),
        policy().max_wraps_per_key(1),
        policy().max_wraps_per_key(1 << 31),
    ];
    for policy in policies {
        policy.validate().unwrap();
    }
    let permits_max = tokio::sync::Semaphore::MAX_PERMITS;
    let limits = [
        Limits::production().max_intermediate_keys(1).max_system_keys(1),
        Limits::production().max_intermediate_keys(Capacity::Unbounded).max_system_keys(Capacity::Unbounded),
        Limits::production().max_payload_bytes(0),
        Limits::production().max_payload_bytes((1 << 36) - 32),
        Limits::production()
            .operation_deadline(NANOSECOND)
            .store_deadline(NANOSECOND)
            .kms_deadline(NANOSECOND),
        Limits::production().operation_deadline(SPAN_MAX).store_deadline(SPAN_MAX).kms_deadline(SPAN_MAX),
        Limits::production()
            .max_store_calls(1)
            .max_kms_calls(1)
            .max_waiting_calls(1)
            .max_background_refreshes(1),
        Limits::production()
            .max_store_calls(permits_max)
            .max_kms_calls(permits_max)
            .max_waiting_calls(permits_max),
        Limits::production().max_attempts(1),
        Limits::production().max_attempts(u32::MAX),
    ];
    for limits in limits {
        limits.validate().unwrap();
    }
}
