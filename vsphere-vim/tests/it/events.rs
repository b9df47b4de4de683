//! Events against the simulator: filters, paging, following, and what is given back.

use std::time::Duration;

use vsphere_sim::Injection;
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, Vim,
    events::{Events, Recursion},
    methods::{Destroy_Task, PowerOffVM_Task, PowerOnVM_Task},
    mo::{ManagedEntity, VirtualMachine},
};

use crate::simulated::two_vms;

async fn power_cycle(vim: &Vim, vm: &MoRef<VirtualMachine>) {
    let on = vim.invoke(vm, PowerOnVM_Task::default()).await.unwrap();
    vim.wait(&on).await.unwrap();
    let off = vim.invoke(vm, PowerOffVM_Task::default()).await.unwrap();
    vim.wait(&off).await.unwrap();
}

async fn kinds(events: Events) -> Vec<String> {
    let mut stream = events.stream();
    let mut kinds = Vec::new();
    while let Some(event) = stream.try_next().await.unwrap() {
        kinds.push(event.type_name().to_owned());
    }
    kinds
}

#[tokio::test]
async fn filters_choose_by_entity_type_chain_user_and_time() {
    let (sim, vim, web, db) = two_vms().await;
    power_cycle(&vim, &web).await;
    power_cycle(&vim, &db).await;
    vim.create_snapshot(&web, CreateSnapshotOptions::new("x")).await.unwrap();

    let of_web = kinds(vim.events().about(&web, Recursion::Itself)).await;
    assert_eq!(of_web, ["TaskEvent", "VmPoweredOnEvent", "TaskEvent", "VmPoweredOffEvent", "TaskEvent"]);
    let power = vim.events().about(&vim.root(), Recursion::Children).types(["VmPoweredOnEvent", "VmPoweredOffEvent"]);
    assert_eq!(kinds(power.clone().page_size(1)).await.len(), 4, "page by page");
    assert_eq!(kinds(vim.events().types(["VmEvent"])).await.len(), 4, "a base stands for its subtypes");
    assert!(kinds(vim.events().about(&vim.root(), Recursion::Itself).types(["VmEvent"])).await.is_empty());
    assert_eq!(kinds(vim.events().types(["UserLoginSessionEvent"]).users([sim.username()])).await.len(), 1);
    assert!(kinds(power.clone().users(["nobody"])).await.is_empty());

    let all = power.latest().await.unwrap();
    let (first, last) = (&all[0], &all[3]);
    assert_eq!(kinds(vim.events().chain(first.chain_id)).await, ["TaskEvent", "VmPoweredOnEvent"]);
    assert_eq!(kinds(vim.events().types(["VmEvent"]).since(last.created_time)).await, ["VmPoweredOffEvent"]);
    assert_eq!(kinds(vim.events().types(["VmEvent"]).until(first.created_time)).await, ["VmPoweredOnEvent"]);
    assert_eq!(last.vm.as_ref().unwrap().name, "db");
}

#[tokio::test]
async fn what_happened_to_a_machine_that_is_gone_is_still_told_where_it_was() {
    let (_sim, vim, web, _) = two_vms().await;
    let removed = vim.invoke(&web.cast(), Destroy_Task::default()).await.unwrap();
    vim.wait(&removed).await.unwrap();
    for entity in [web.erase(), vim.root().erase()] {
        let events = vim.events().about(&entity.cast::<ManagedEntity>(), Recursion::All).types(["VmEvent"]);
        assert_eq!(kinds(events).await, ["VmRemovedEvent"]);
    }
}

#[tokio::test]
async fn a_followed_history_goes_on_through_the_end_of_the_session() {
    let (sim, vim, web, _) = two_vms().await;
    let mut stream = vim.events().types(["VmEvent"]).follow(Duration::from_millis(20)).stream();
    let none = tokio::time::timeout(Duration::from_millis(100), stream.try_next()).await;
    assert!(none.is_err(), "nothing has happened yet: {none:?}");
    power_cycle(&vim, &web).await;
    assert_eq!(stream.try_next().await.unwrap().unwrap().type_name(), "VmPoweredOnEvent");
    sim.expire_sessions();
    assert_eq!(stream.try_next().await.unwrap().unwrap().type_name(), "VmPoweredOffEvent");
    power_cycle(&vim, &web).await;
    // Nothing is told twice, and nothing is left out.
    assert_eq!(stream.try_next().await.unwrap().unwrap().type_name(), "VmPoweredOnEvent");
    assert_eq!(stream.try_next().await.unwrap().unwrap().type_name(), "VmPoweredOffEvent");
}

#[tokio::test]
async fn collectors_are_destroyed_at_the_end_on_drop_and_after_an_error() {
    let (sim, vim, web, _) = two_vms().await;
    power_cycle(&vim, &web).await;
    assert!(!kinds(vim.events()).await.is_empty());
    let mut dropped = vim.events().page_size(1).stream();
    dropped.try_next().await.unwrap().unwrap();
    assert!(sim.leftovers().session_objects > 0);
    drop(dropped);
    sim.faults().inject("ReadNextEvents", Injection::Http(503));
    assert!(vim.events().stream().try_next().await.is_err());
    sim.faults().inject("RewindCollector", Injection::Http(503));
    assert!(vim.events().stream().try_next().await.is_err());
    tokio::time::timeout(Duration::from_secs(5), async {
        while sim.leftovers().session_objects > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    vim.logout().await.unwrap();
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}
