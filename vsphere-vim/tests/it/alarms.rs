//! Alarms against the simulator: where they are told, and of what.

use vsphere_sim::{Personality, Simulator};
use vsphere_vim::{
    Error, MoRef,
    events::Recursion,
    mo::{ManagedEntity, VirtualMachine},
    types::ManagedEntityStatus::{Gray, Green, Red, Yellow},
};

use crate::simulated::{connect, two_vms};

#[tokio::test]
async fn an_alarm_that_goes_off_is_told_at_the_machine_and_at_all_that_contains_it() {
    let (sim, vim, web, db) = two_vms().await;
    let alarm = sim.declare_alarm("No backup for two days").unwrap();
    assert!(vim.triggered_alarms(&vim.root()).await.unwrap().is_empty());
    let declared = vim.declared_alarms(&web).await.unwrap();
    assert_eq!(declared.len(), 1);
    assert_eq!(
        (declared[0].moref.value(), &declared[0].entity, &declared[0].status),
        (alarm.id(), &web.erase(), &Gray)
    );

    let cause = vim.events().latest().await.unwrap().last().unwrap().key;
    let at_web = sim.vm("web").unwrap();
    alarm.set(&at_web, Red, Some(cause)).unwrap();
    let told = vim.triggered_alarms(&web).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0].status, told[0].event, &told[0].acknowledged_by), (&Red, Some(cause), &None));
    assert!(told[0].changed_at.unix_nanos() >= declared[0].changed_at.unix_nanos());
    assert_eq!(vim.triggered_alarms(&vim.root()).await.unwrap(), told, "told at the root, about the machine");
    assert_eq!(vim.declared_alarms(&web).await.unwrap(), told);
    assert!(vim.triggered_alarms(&db).await.unwrap().is_empty());
    assert_eq!(vim.declared_alarms(&db).await.unwrap()[0].status, Gray);
    assert_eq!(vim.get(&web.cast(), ManagedEntity::OVERALL_STATUS).await.unwrap(), Red);

    alarm.acknowledge(&at_web, "operator").unwrap();
    let told = vim.triggered_alarms(&web).await.unwrap();
    assert_eq!(told[0].acknowledged_by.as_deref(), Some("operator"));
    alarm.set(&at_web, Yellow, None).unwrap();
    let told = vim.triggered_alarms(&web).await.unwrap();
    assert_eq!((&told[0].status, told[0].event, &told[0].acknowledged_by), (&Yellow, None, &None), "it is news again");
    alarm.set(&at_web, Green, None).unwrap();
    assert!(vim.triggered_alarms(&vim.root()).await.unwrap().is_empty());
    assert_eq!(vim.declared_alarms(&web).await.unwrap()[0].status, Green);
    assert_eq!(vim.get(&web.cast(), ManagedEntity::OVERALL_STATUS).await.unwrap(), Green);

    let changes =
        vim.events().about(&web, Recursion::Itself).types(["AlarmStatusChangedEvent"]).latest().await.unwrap();
    assert_eq!(changes.len(), 3);
    assert!(changes[0].is_a("AlarmEvent"));
    assert!(changes[0].full_formatted_message.as_deref().unwrap().contains("'No backup for two days' on web"));
}

#[tokio::test]
async fn an_alarm_is_listed_where_it_is_set_up_and_watches_what_lies_below() {
    let (sim, vim, web, db) = two_vms().await;
    let everywhere = sim.declare_alarm("everywhere").unwrap();
    let only_web = sim.vm("web").unwrap().declare_alarm("only web").unwrap();
    let all: Vec<_> = vim.alarms(None::<&MoRef<ManagedEntity>>).await.unwrap();
    assert_eq!(all.iter().map(|alarm| alarm.value()).collect::<Vec<_>>(), [everywhere.id(), only_web.id()]);
    assert_eq!(vim.alarms(Some(&web)).await.unwrap(), [all[1].clone()]);
    assert_eq!(vim.alarms(Some(&vim.root())).await.unwrap(), [all[0].clone()]);
    assert_eq!(vim.declared_alarms(&web).await.unwrap().len(), 2);
    assert_eq!(vim.declared_alarms(&db).await.unwrap().len(), 1);
    assert_eq!(vim.alarm_name(&all[1]).await.unwrap(), "only web");
    let definition = vim.alarm_definition(&all[1]).await.unwrap();
    assert!(definition.path("expression.eventTypeId").is_some(), "{definition:?}");

    // The alarm of one machine cannot go off for another.
    assert!(only_web.set(&sim.vm("db").unwrap(), Red, None).is_err());
    let gone = MoRef::<VirtualMachine>::new("vm-99999");
    assert!(vim.alarms(Some(&gone)).await.unwrap_err().is_fault("ManagedObjectNotFound"));
}

#[tokio::test]
async fn what_may_not_be_read_is_an_error_and_what_has_left_is_not_told() {
    let (sim, vim, web, _) = two_vms().await;
    let alarm = sim.declare_alarm("any").unwrap();
    let at_web = sim.vm("web").unwrap();
    alarm.set(&at_web, Red, None).unwrap();
    at_web.deny_reading(true);
    let error = vim.triggered_alarms(&web).await.unwrap_err();
    assert!(matches!(&error, Error::Property(_)), "{error}");
    at_web.deny_reading(false);
    at_web.unregister();
    assert!(vim.triggered_alarms(&vim.root()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_host_has_no_alarms() {
    let sim = Simulator::builder().personality(Personality::Esxi).start().await.unwrap();
    let vim = connect(&sim).await;
    assert!(sim.declare_alarm("any").is_err());
    assert!(matches!(vim.alarms(Some(&vim.root())).await, Err(Error::Unsupported { .. })));
    assert!(vim.triggered_alarms(&vim.root()).await.unwrap().is_empty());
}
