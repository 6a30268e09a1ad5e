//! S3.1 and its like: whatever fails, nothing half-made is left and the next call works.

use std::time::Duration;

use claviger::testing::{Fault, Faults};
use claviger::{Error, FailureClass};

use crate::script::{STEPS, Script, Step};
use crate::world::{SECOND, World, poll_and_drop};

#[tokio::test(start_paused = true)]
async fn s3_1_rng_failing_at_draw_n_for_every_n() {
    let unfailing = unfailing().await;
    let (draws, rows) = (unfailing.random.draws(), unfailing.rows().await);
    assert!(draws >= 10, "the script draws keys and nonces: {draws}");
    for n in 1..=draws {
        let world = World::with_random_failing_at(n);
        let mut failures = 0;
        let mut script = Script::new(world.clone());
        run(&mut script, |step, error| {
            assert!(
                matches!(error, Error::Random(_)) && error.is_retryable(),
                "draw {n}, {step:?}: {error:?}"
            );
            failures += 1;
        })
        .await;
        assert_eq!(failures, 1, "draw {n} failed one step");
        assert_eq!(world.rows().await, rows, "draw {n} left a row, or lost one");
        script.assert_nothing_lost().await;
    }
}

#[tokio::test(start_paused = true)]
async fn s3_1_every_metastore_call_failing() {
    let calls =
        every_call_failing(|world| world.store.faults(), |error| matches!(error, Error::Metastore { .. }))
            .await;
    assert!(calls >= 12, "the script reads and inserts: {calls}");
}

#[tokio::test(start_paused = true)]
async fn s3_1_every_kms_call_failing() {
    let calls =
        every_call_failing(|world| world.kms.faults(), |error| matches!(error, Error::Kms { .. })).await;
    assert!(calls >= 4, "the script wraps and unwraps: {calls}");
}

/// Plays the script with call `n` failing in each way, for every `n`. Returns how many there are.
async fn every_call_failing(faults: impl Fn(&World) -> &Faults, is_expected: impl Fn(&Error) -> bool) -> u64 {
    let unfailing = unfailing().await;
    let calls = faults(&unfailing).calls() as u64;
    for n in 1..=calls {
        for class in [FailureClass::Transient, FailureClass::Permanent] {
            for fault in [Fault::Fail(class), Fault::LoseReply(class)] {
                let world = World::new();
                faults(&world).at(n, fault);
                let mut script = Script::new(world);
                run(&mut script, |step, error| {
                    let is_right =
                        is_expected(error) && error.is_retryable() == (class == FailureClass::Transient);
                    assert!(is_right, "call {n}, {fault:?}, {step:?}: {error:?}");
                })
                .await;
                script.assert_nothing_lost().await;
            }
        }
    }
    calls
}

#[tokio::test(start_paused = true)]
async fn s3_1_every_call_hanging_while_its_caller_goes_away() {
    let unfailing = unfailing().await;
    for (of_store, calls) in
        [(true, unfailing.store.faults().calls()), (false, unfailing.kms.faults().calls())]
    {
        for n in 1..=calls as u64 {
            for fault in [Fault::Hang, Fault::HangReply] {
                let world = World::new();
                let faults = if of_store { world.store.faults() } else { world.kms.faults() };
                faults.at(n, fault);
                let mut script = Script::new(world.clone());
                for step in STEPS {
                    script.prepare(step).await;
                    let went_away = tokio::select! {
                        biased;
                        () = faults.until_hanging(1) => true,
                        taken = script.take(step) => { taken.unwrap(); false }
                    };
                    if went_away {
                        faults.release();
                        script.assert_at_rest().await;
                        script.take(step).await.unwrap();
                    }
                }
                assert_eq!(faults.hanging(), 0);
                script.assert_nothing_lost().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s3_1_every_step_dropped_at_every_await() {
    for dropped in STEPS {
        // Every call takes a while, so that each is an await of its own.
        for polls in 0.. {
            let world = World::new();
            let slow = Fault::Delay(Duration::from_millis(3));
            world.store.faults().always(slow);
            world.kms.faults().always(slow);
            let mut script = Script::new(world);
            let mut ended = false;
            for step in STEPS {
                script.prepare(step).await;
                if step == dropped {
                    ended = poll_and_drop(script.take(step), polls).await.transpose().unwrap().is_some();
                    script.assert_at_rest().await;
                }
                if step != dropped || !ended {
                    script.take(step).await.unwrap();
                }
            }
            script.assert_at_rest().await;
            script.assert_nothing_lost().await;
            if ended {
                break;
            }
        }
    }
}

/// Plays the script with nothing failing, to see what it asks for.
async fn unfailing() -> World {
    let world = World::new();
    run(&mut Script::new(world.clone()), |step, error| panic!("{step:?}: {error:?}")).await;
    world
}

/// Plays the script; a step that fails is taken again and must succeed then.
async fn run(script: &mut Script, mut on_failure: impl FnMut(Step, &Error)) {
    for step in STEPS {
        script.prepare(step).await;
        if let Err(error) = script.take(step).await {
            on_failure(step, &error);
            script.assert_at_rest().await;
            // What failed is asked again in a second.
            script.world.clock.advance(SECOND);
            script.take(step).await.unwrap_or_else(|error| panic!("{step:?} taken again: {error:?}"));
        }
        script.assert_at_rest().await;
    }
}
