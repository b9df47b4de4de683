//! The event history of vcsim: its collectors keep what was there when they were made.

use std::time::Duration;

use vsphere_vim::{
    Error, Vim,
    events::{EventStream, Recursion},
    methods::{PowerOffVM_Task, PowerOnVM_Task},
    mo::VirtualMachine,
};

use super::Vcsim;

async fn kinds(mut stream: EventStream) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut last = 0;
    while let Some(event) = stream.try_next().await.unwrap() {
        assert!(event.key > last, "{} after {last}", event.key);
        last = event.key;
        kinds.push(event.type_name().to_owned());
    }
    kinds
}

async fn collectors_are_gone(vim: &Vim) {
    // vcsim allows ten at once; without the destruction of each the eleventh would be refused.
    for _ in 0..12 {
        let mut stream = vim.events().page_size(5).stream();
        assert!(stream.try_next().await.unwrap().is_some());
        drop(stream);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_happened_to_a_machine_is_told_in_order_by_type_and_entity() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let rows = vim.properties::<VirtualMachine>().select((VirtualMachine::NAME,)).collect().await.unwrap();
    let (vm, other) = (&rows[0].object, &rows[1].object);
    let off = vim.invoke(vm, PowerOffVM_Task::default()).await.unwrap();
    vim.wait(&off).await.unwrap();
    let on = vim.invoke(vm, PowerOnVM_Task::default()).await.unwrap();
    vim.wait(&on).await.unwrap();

    let of_vm = kinds(vim.events().about(vm, Recursion::Itself).stream()).await;
    let ends_with = ["VmPoweredOffEvent", "VmStartingEvent", "VmPoweredOnEvent"];
    let power: Vec<_> = of_vm.iter().filter(|kind| ends_with.contains(&kind.as_str())).collect();
    assert!(
        power.ends_with(&[&ends_with[0].to_owned(), &ends_with[1].to_owned(), &ends_with[2].to_owned()]),
        "{of_vm:?}"
    );

    let mut offs = vim.events().types(["VmPoweredOffEvent"]).stream();
    let event = offs.try_next().await.unwrap().unwrap();
    assert_eq!(event.vm.as_ref().map(|argument| &argument.vm), Some(vm));
    assert!(event.is_a("VmEvent") && event.is_a("Event") && !event.is_a("VmPoweredOnEvent"));
    assert!(event.full_formatted_message.as_deref().unwrap_or_default().contains("off"), "{event:?}");
    assert!(offs.try_next().await.unwrap().is_none());

    assert!(
        !kinds(vim.events().about(other, Recursion::Itself).stream()).await.contains(&"VmPoweredOffEvent".to_owned())
    );
    let everything = kinds(vim.events().about(&vim.root(), Recursion::All).page_size(1000).stream()).await;
    assert!(everything.iter().any(|kind| kind == "UserLoginSessionEvent"), "{everything:?}");
    let latest = vim.events().types(["VmPoweredOnEvent"]).page_size(1).latest().await.unwrap();
    assert_eq!(latest.len(), 1);
    assert_eq!(latest[0].vm.as_ref().map(|argument| &argument.vm), Some(vm));
    collectors_are_gone(&vim).await;
    vim.logout().await.unwrap();
    let error = vim.events().stream().try_next().await.unwrap_err();
    assert!(matches!(error, Error::Fault(_)) && error.is_fault("NotAuthenticated"), "{error}");
}
