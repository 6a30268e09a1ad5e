//! The end of a run: the weather clears, all processes agree, everything can be read, nothing is left.

use std::collections::BTreeSet;
use std::time::Duration;

use claviger::{CloseReport, Error};
use tokio::time::{Instant, sleep, timeout};

use crate::life::Operation;
use crate::machine::Machine;
use crate::oracle::{at_rest, is_ending, is_explained_by_losses, with_parent};
use crate::run::Run;
use crate::settings::{Settings, ms};
use crate::world::Shared;

/// Ends a run.
pub(crate) async fn finish(run: &mut Run) {
    let (world, settings) = (run.yard.world.clone(), run.yard.settings.clone());
    for machine in run.machines.iter_mut().flatten() {
        while machine.operations.join_next().await.is_some() {}
    }
    world.lock().clear_up();
    world.tell("the weather clears");
    // What was sent arrives, and what was in trouble may be asked again.
    sleep(settings.operation_deadline() + ms(4_000)).await;
    for place in 0..run.machines.len() {
        if run.machines.get(place).is_some_and(Option::is_none)
            && let Ok(machine) = run.yard.start(place)
            && let Some(free) = run.machines.get_mut(place)
        {
            *free = Some(machine);
        }
    }
    converge(run).await;
    for machine in run.machines.iter().flatten() {
        at_rest::look(&world, machine.who, &machine.factory);
    }
    read_everything(run).await;
    for machine in run.machines.drain(..).flatten() {
        close(world.clone(), machine, ms(5_000)).await;
    }
    run.attended.close();
    run.attended.wait().await;
    world.sent.close();
    world.sent.wait().await;
}

/// In the first what keys are needed are made, by each process's clock; in the second those are loaded, which may take
/// longer than an operation waits where the KMS is slow; in the third all know of them.
const ROUNDS: u32 = 3;

/// T6.6: all processes end up under the same key.
async fn converge(run: &mut Run) {
    let (world, partitions) = (run.yard.world.clone(), run.yard.settings.partitions);
    for round in 0..ROUNDS {
        // Loads that took longer than an operation waits come to their end.
        sleep(ms(3_000)).await;
        for machine in run.machines.iter().flatten() {
            // They need not wait for their next checks.
            drop(machine.factory.invalidate_all());
        }
        for partition in (0..partitions).map(Settings::partition) {
            let mut used = BTreeSet::new();
            for machine in run.machines.iter_mut().flatten() {
                used.extend(encrypt_at_once(&world, machine, &partition).await);
            }
            // Where keys wear out by their use, the last of these encrypts may be the one that wore it out.
            // Nor does an operation wait for a KMS that takes longer than a refresh may.
            let settings = &run.yard.settings;
            let is_worn = settings.wraps < 1 << 28 || settings.kms_latency >= settings.refresh_wait;
            if round + 1 == ROUNDS && used.len() > 1 && !is_worn && !has_ending_keys(run, &used) {
                let what = format!("{partition} is encrypted under {used:?}");
                world.lock().violate("processes_converge", what);
            }
        }
    }
}

/// Returns `true` if a key is at its end for one process and not for another, or is not good for all: then they do
/// not agree yet.
fn has_ending_keys(run: &Run, used: &BTreeSet<String>) -> bool {
    let world = run.yard.world.lock();
    let now = Instant::now();
    let rows: Vec<_> = world.table.all(now).map(|row| row.meta().clone()).collect();
    let is_used = |key: &&claviger::KeyMeta| used.contains(&crate::short(key));
    let mut keys = rows.iter().filter(is_used).flat_map(|key| with_parent(&world, key));
    let processes = 0..run.yard.settings.processes;
    // One that is made anew in its minute has the name of a key that some know to be revoked.
    keys.any(|key| {
        world.table.was_ever_gone(&key) || processes.clone().any(|who| is_ending(&world, who, &key))
    })
}

/// Encrypts, which must go well now. Returns the key that did it.
async fn encrypt_at_once(world: &Shared, machine: &mut Machine, partition: &str) -> Option<String> {
    let session = machine.session(partition).ok()?;
    let operation = Operation::new(world.clone(), machine.who, partition.to_owned());
    let plaintext = partition.as_bytes().to_vec();
    let outcome = session.encrypt(&plaintext).await;
    let key = outcome.as_ref().ok().and_then(|record| record.parent()).map(crate::short);
    if let Err(error) = &outcome {
        let what = format!("{} cannot encrypt {partition}: {error}", machine.who);
        let mut world = world.lock();
        if !is_explained_by_losses(&world, error) {
            world.violate("everything_recovers_by_itself", what);
        }
    }
    operation.encrypted(plaintext, outcome);
    key
}

/// T6.7: a process that was started just now reads all records whose rows are there.
async fn read_everything(run: &mut Run) {
    let world = run.yard.world.clone();
    let Ok(mut reader) = run.yard.start(run.yard.settings.processes) else { return };
    let sealed = world.lock().sealed.clone();
    let mut seen = BTreeSet::new();
    for sealed in sealed {
        let is_lost = {
            let world = world.lock();
            with_parent(&world, &sealed.key).iter().any(|key| world.table.was_ever_gone(key))
        };
        // One record for each key tells of the key; each record of itself.
        if is_lost || !seen.insert((sealed.key.clone(), sealed.plaintext.clone())) {
            continue;
        }
        let Ok(session) = reader.session(&sealed.partition) else { continue };
        let opened = session.decrypt(&sealed.record).await;
        let is_denied = matches!(opened, Err(claviger::Error::KeyRevoked(_)));
        let is_well = opened.as_ref().is_ok_and(|plaintext| **plaintext == *sealed.plaintext);
        if !is_well && !is_denied {
            let what =
                format!("{} under {}: {:?}", sealed.partition, crate::short(&sealed.key), opened.err());
            world.lock().violate("every_returned_record_decrypts_in_a_fresh_process", what);
        }
    }
    close(world, reader, ms(5_000)).await;
}

/// Tells what had to be forced. The report has it in no particular order.
fn said(report: Result<CloseReport, Error>) -> String {
    match report {
        Ok(report) => {
            let mut aborted: Vec<_> = report.aborted_loads.iter().map(ToString::to_string).collect();
            let mut in_use: Vec<_> =
                report.keys_in_use.iter().map(|orphan| crate::short(&orphan.key)).collect();
            aborted.sort();
            in_use.sort();
            format!("aborted {aborted:?}, in use {in_use:?}, {} stuck sources", report.stuck_sources)
        }
        Err(error) => error.to_string(),
    }
}

/// Closes a process, and looks at what it left.
pub(crate) async fn close(world: Shared, mut machine: Machine, deadline: Duration) {
    machine.drop_sessions();
    let begun = Instant::now();
    let report = machine.factory.close(deadline).await;
    let took = begun.elapsed();
    world.tell(format!("{} is closed: {}", machine.who, said(report)));
    if took > deadline + ms(200) {
        world.lock().violate("close_keeps_to_its_deadline", format!("{} took {took:?}", machine.who));
    }
    // Those who wait are told at once.
    let mut operations = std::mem::take(&mut machine.operations);
    let ended = timeout(ms(1_000), async { while operations.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        world.lock().violate("operations_end_when_their_factory_is_closed", format!("{}", machine.who));
    }
    drop(operations);
    // Tasks that were told to stop let go of their keys at their next turn.
    sleep(ms(1)).await;
    at_rest::look_after_close(&world, machine.who, &machine.factory);
}
