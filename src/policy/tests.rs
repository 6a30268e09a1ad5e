use super::*;

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// Names every field, so that a new one or a changed default is seen here.
#[test]
fn s0_5_presets_are_as_documented() {
    let production = CryptoPolicy {
        expire_after: Span::Of(DAY * 90),
        revoke_check_interval: MINUTE * 60,
        creation_precision: SECOND * 60,
        intermediate_keys_max: Capacity::Keys(10_000),
        system_keys_max: Capacity::Keys(100),
        idle_timeout: Span::Of(HOUR * 2),
        refresh_wait: Duration::from_millis(200),
        max_stale_encrypt: HOUR,
        max_stale_decrypt: HOUR * 24,
        revoked_decrypt: RevokedDecrypt::Allow,
        replica_reads: false,
        max_wraps_per_key: 268_435_456,
        lock_policy: LockPolicy::Prefer,
    };
    let development = CryptoPolicy {
        expire_after: Span::Of(DAY),
        revoke_check_interval: SECOND * 10,
        creation_precision: SECOND,
        intermediate_keys_max: Capacity::Keys(1_000),
        lock_policy: LockPolicy::Off,
        ..production.clone()
    };
    let high_security = CryptoPolicy {
        expire_after: Span::Of(DAY * 30),
        revoke_check_interval: MINUTE * 5,
        idle_timeout: Span::Of(MINUTE * 15),
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
        payload_bytes_max: 67_108_864,
        operation_deadline: SECOND * 10,
        store_deadline: SECOND * 2,
        kms_deadline: SECOND * 5,
        store_calls_max: 64,
        kms_calls_max: 16,
        waiting_calls_max: 10_000,
        max_cold_operations: 20_000,
        misses_max: 64,
        background_refreshes_max: 16,
        attempts_max: 3,
    };
    assert_eq!(Limits::default(), limits);
    assert_eq!(Limits::new(), limits);
    limits.validate().unwrap();
}

#[test]
fn every_setter_sets_its_own_field() {
    let policy = CryptoPolicy::production()
        .expire_after(DAY)
        .revoke_check_interval(SECOND)
        .creation_precision(SECOND * 2)
        .intermediate_keys_max(3)
        .system_keys_max(Capacity::Unbounded)
        .idle_timeout(Span::Never)
        .refresh_wait(SECOND * 4)
        .max_stale_encrypt(SECOND * 5)
        .max_stale_decrypt(SECOND * 6)
        .revoked_decrypt(RevokedDecrypt::Deny)
        .replica_reads(true)
        .max_wraps_per_key(7)
        .lock_policy(LockPolicy::Off);
    let expected = CryptoPolicy {
        expire_after: Span::Of(DAY),
        revoke_check_interval: SECOND,
        creation_precision: SECOND * 2,
        intermediate_keys_max: Capacity::Keys(3),
        system_keys_max: Capacity::Unbounded,
        idle_timeout: Span::Never,
        refresh_wait: SECOND * 4,
        max_stale_encrypt: SECOND * 5,
        max_stale_decrypt: SECOND * 6,
        revoked_decrypt: RevokedDecrypt::Deny,
        replica_reads: true,
        max_wraps_per_key: 7,
        lock_policy: LockPolicy::Off,
    };
    assert_eq!(policy, expected);
    let limits = Limits::new()
        .payload_bytes_max(1)
        .operation_deadline(SECOND * 2)
        .store_deadline(SECOND * 3)
        .kms_deadline(SECOND * 4)
        .store_calls_max(5)
        .kms_calls_max(6)
        .waiting_calls_max(7)
        .max_cold_operations(10)
        .misses_max(11)
        .background_refreshes_max(8)
        .attempts_max(9);
    let expected = Limits {
        payload_bytes_max: 1,
        operation_deadline: SECOND * 2,
        store_deadline: SECOND * 3,
        kms_deadline: SECOND * 4,
        store_calls_max: 5,
        kms_calls_max: 6,
        waiting_calls_max: 7,
        max_cold_operations: 10,
        misses_max: 11,
        background_refreshes_max: 8,
        attempts_max: 9,
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
        (policy().expire_after(over), "expire_after is over 100 years; say Span::Never"),
        (policy().expire_after(Duration::from_secs(u64::MAX)), "expire_after is over 100 years"),
        (policy().expire_after(HOUR * 2), staleness),
        (policy().revoke_check_interval(DAY * 90), staleness),
        (policy().revoke_check_interval(Duration::MAX), staleness),
        (policy().max_stale_encrypt(DAY * 90).max_stale_decrypt(DAY * 90), staleness),
        (
            policy().expire_after(Span::Never).revoke_check_interval(over),
            "revoke_check_interval is over 100 years",
        ),
        (policy().expire_after(Span::Never).max_stale_encrypt(over), "max_stale_encrypt is over 100 years"),
        (policy().max_stale_decrypt(over), "max_stale_decrypt is over 100 years"),
        (policy().max_stale_decrypt(HOUR - NANOSECOND), "max_stale_decrypt is below max_stale_encrypt"),
        (policy().refresh_wait(Duration::ZERO), "refresh_wait is zero"),
        (policy().refresh_wait(Duration::MAX), "refresh_wait is over 100 years"),
        (policy().idle_timeout(Duration::ZERO), "idle_timeout is zero"),
        (policy().idle_timeout(over), "idle_timeout is over 100 years; say Span::Never"),
        (policy().intermediate_keys_max(0), "intermediate_keys_max is zero"),
        (policy().system_keys_max(0), "system_keys_max is zero"),
        (policy().max_wraps_per_key(0), "max_wraps_per_key is zero"),
        (policy().max_wraps_per_key((1 << 31) + 1), "max_wraps_per_key is over 2^31"),
    ];
    for (policy, expected) in cases {
        assert_refused(policy.validate(), expected, &policy);
    }
}

#[test]
fn s3_6_build_refuses_every_invalid_limit() {
    let limits = Limits::new;
    let over = SPAN_MAX + SECOND;
    let permits_max = tokio::sync::Semaphore::MAX_PERMITS;
    let cases = [
        (limits().payload_bytes_max((1 << 36) - 31), "payload_bytes_max is over the 64 GiB"),
        (limits().payload_bytes_max(usize::MAX), "payload_bytes_max is over the 64 GiB"),
        (limits().operation_deadline(Duration::ZERO), "operation_deadline is zero"),
        (limits().operation_deadline(over), "operation_deadline is over 100 years"),
        (limits().store_deadline(Duration::ZERO), "store_deadline is zero"),
        (limits().store_deadline(Duration::MAX), "store_deadline is over 100 years"),
        (limits().kms_deadline(Duration::ZERO), "kms_deadline is zero"),
        (limits().kms_deadline(over), "kms_deadline is over 100 years"),
        (limits().store_calls_max(0), "store_calls_max is zero"),
        (limits().store_calls_max(permits_max + 1), "store_calls_max is too large"),
        (limits().kms_calls_max(0), "kms_calls_max is zero"),
        (limits().kms_calls_max(usize::MAX), "kms_calls_max is too large"),
        (limits().waiting_calls_max(0), "waiting_calls_max is zero"),
        (limits().waiting_calls_max(permits_max + 1), "waiting_calls_max is too large"),
        (limits().misses_max(0), "misses_max is zero"),
        (limits().background_refreshes_max(0), "background_refreshes_max is zero"),
        (limits().background_refreshes_max(permits_max + 1), "background_refreshes_max is too large"),
        (limits().attempts_max(0), "attempts_max is zero"),
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
        policy().expire_after(Span::Never).revoke_check_interval(SPAN_MAX),
        policy().expire_after(Span::Never).max_stale_encrypt(SPAN_MAX).max_stale_decrypt(SPAN_MAX),
        policy().revoke_check_interval(Duration::ZERO),
        policy().max_stale_encrypt(Duration::ZERO).max_stale_decrypt(Duration::ZERO),
        policy().max_stale_decrypt(HOUR),
        policy().refresh_wait(NANOSECOND),
        policy().refresh_wait(SPAN_MAX),
        policy().idle_timeout(NANOSECOND),
        policy().idle_timeout(SPAN_MAX),
        policy().idle_timeout(Span::Never),
        policy().intermediate_keys_max(1).system_keys_max(1),
        policy().intermediate_keys_max(Capacity::Unbounded).system_keys_max(Capacity::Unbounded),
        policy().max_wraps_per_key(1),
        policy().max_wraps_per_key(1 << 31),
    ];
    for policy in policies {
        policy.validate().unwrap();
    }
    let permits_max = tokio::sync::Semaphore::MAX_PERMITS;
    let limits = [
        Limits::new().payload_bytes_max(0),
        Limits::new().payload_bytes_max((1 << 36) - 32),
        Limits::new().operation_deadline(NANOSECOND).store_deadline(NANOSECOND).kms_deadline(NANOSECOND),
        Limits::new().operation_deadline(SPAN_MAX).store_deadline(SPAN_MAX).kms_deadline(SPAN_MAX),
        Limits::new().store_calls_max(1).kms_calls_max(1).waiting_calls_max(1).background_refreshes_max(1),
        Limits::new().store_calls_max(permits_max).kms_calls_max(permits_max).waiting_calls_max(permits_max),
        Limits::new().attempts_max(1),
        Limits::new().attempts_max(u32::MAX),
    ];
    for limits in limits {
        limits.validate().unwrap();
    }
}
