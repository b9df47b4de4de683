//! Property retrieves: pages, rows, lost sessions, dropped streams.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use futures_util::{FutureExt as _, TryStreamExt as _};
use vsphere_vim::{
    Error, MoRef, Poly, PropertyPath,
    methods::{
        CancelRetrievePropertiesEx, ContinueRetrievePropertiesEx, CreateContainerView, DestroyView, RetrieveProperties,
        RetrievePropertiesEx,
    },
    mo::{self, VirtualMachine},
    property::Property,
    types::{Any, LocalizedMethodFault, MissingProperty, NoPermission, RetrieveResult, TraversalSpec},
};

use crate::fake::{Call, Fake, Reply, answer, fault, named, object, session_lives};

/// Serves `total` machines in pages as large as asked for, like the property collector.
fn inventory(total: usize) -> impl FnMut(&Call<'_>) -> Reply {
    move |call| {
        let page = |from: usize, size: usize| {
            let to = (from + size).min(total);
            let objects = (from..to).map(|index| named(&format!("vm-{index}"), &format!("name {index}"))).collect();
            RetrieveResult { objects, token: (to < total).then(|| format!("{to}/{size}")), ..Default::default() }
        };
        match call.method {
            "RetrievePropertiesEx" => {
                let size = call.args::<RetrievePropertiesEx>().options.max_objects.unwrap_or(i32::MAX);
                answer::<RetrievePropertiesEx>((total > 0).then(|| page(0, usize::try_from(size).unwrap())))
            }
            "ContinueRetrievePropertiesEx" => {
                let token = call.args::<ContinueRetrievePropertiesEx>().token;
                let (from, size) = token.split_once('/').unwrap();
                answer::<ContinueRetrievePropertiesEx>(page(from.parse().unwrap(), size.parse().unwrap()))
            }
            "CancelRetrievePropertiesEx" => answer::<CancelRetrievePropertiesEx>(()),
            "CreateContainerView" => {
                let args = call.args::<CreateContainerView>();
                assert_eq!(args.type_, ["VirtualMachine"]);
                answer::<CreateContainerView>(MoRef::new("view-1"))
            }
            "DestroyView" => answer::<DestroyView>(()),
            "RetrieveProperties" => answer::<RetrieveProperties>(session_lives()),
            other => panic!("unexpected {other}"),
        }
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn pages_are_joined_into_one_stream() {
    let server = Fake::new(inventory(10));
    let vim = server.connect().await;
    let rows = vim.properties::<VirtualMachine>().under(vim.root()).select((VirtualMachine::NAME,)).page_size(3);
    let mut rows = pin!(rows.stream());
    let mut names = Vec::new();
    // It is a stream too: the combinators of futures work on it.
    while let Some(row) = rows.try_next().await.unwrap() {
        let (name,) = row.values;
        names.push((row.object.value().to_owned(), name.present().unwrap()));
    }
    assert_eq!(names.len(), 10);
    assert_eq!(names[9], ("vm-9".to_owned(), "name 9".to_owned()));
    assert_eq!(server.count("ContinueRetrievePropertiesEx"), 3);
    assert_eq!(server.count("CancelRetrievePropertiesEx"), 0, "a finished retrieve needs no cancellation");
}

#[tokio::test]
async fn a_session_killed_between_pages_costs_no_row_and_doubles_none() {
    for kill_at in 0..4 {
        let server = Fake::new(inventory(10));
        let vim = server.connect().await;
        let query = vim.properties::<VirtualMachine>().select(VirtualMachine::NAME).page_size(3);
        let mut rows = query.stream();
        let mut seen = Vec::new();
        while let Some(row) = rows.try_next().await.unwrap() {
            if seen.len() == kill_at * 3 {
                server.expire();
            }
            seen.push(row.object.value().to_owned());
        }
        let unique: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), unique.len()), (10, 10), "killed at page {kill_at}");
        assert!(server.logins() <= 2);
    }
}

#[tokio::test]
async fn a_token_lost_to_another_tasks_login_restarts_the_walk() {
    let mut pages = inventory(9);
    let server = Fake::new(move |call| {
        // The new session does not know tokens of the old one.
        if call.method == "ContinueRetrievePropertiesEx" && call.logins == 2 && call.before == 1 {
            return Reply::Fault(fault("InvalidArgument"), "A specified parameter was not correct: token");
        }
        pages(call)
    });
    let vim = server.connect().await;
    let mut rows = vim.properties::<VirtualMachine>().select(VirtualMachine::NAME).page_size(3).stream();
    let mut seen = 0;
    while let Some(_row) = rows.try_next().await.unwrap() {
        seen += 1;
        if seen == 6 {
            server.expire();
            vim.touch().await.unwrap();
        }
    }
    assert_eq!(seen, 9);
}

#[tokio::test]
async fn emptiness_of_a_dead_session_is_not_taken_for_an_empty_inventory() {
    for nothing in [None, Some(RetrieveResult::default())] {
        let mut full = inventory(4);
        let server = Fake::new(move |call| match (call.method, call.logins) {
            // An expired session that answers with nothing instead of a fault.
            ("RetrievePropertiesEx", 1) => answer::<RetrievePropertiesEx>(nothing.clone()),
            ("RetrieveProperties", 1) => answer::<RetrieveProperties>(vec![object("SessionManager", &[])]),
            _ => full(call),
        });
        let vim = server.connect().await;
        let rows = vim.properties::<VirtualMachine>().select(VirtualMachine::NAME).collect().await.unwrap();
        assert_eq!((rows.len(), server.logins()), (4, 2));
    }
}

#[tokio::test]
async fn an_empty_inventory_is_empty() {
    let server = Fake::new(inventory(0));
    let vim = server.connect().await;
    assert!(vim.properties::<VirtualMachine>().select(()).collect().await.unwrap().is_empty());
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn a_dropped_stream_cancels_the_rest_on_the_server() {
    let server = Fake::new(inventory(10));
    let vim = server.connect().await;
    let mut rows = vim.properties::<VirtualMachine>().select(()).page_size(2).stream();
    rows.try_next().await.unwrap();
    drop(rows);
    settle().await;
    assert_eq!(server.count("CancelRetrievePropertiesEx"), 1);

    // Dropped while a page is on its way: the token comes with that page.
    let mut rows = vim.properties::<VirtualMachine>().select(()).page_size(2).stream();
    assert!(rows.try_next().now_or_never().is_none());
    drop(rows);
    settle().await;
    assert_eq!(server.count("CancelRetrievePropertiesEx"), 2);
}

#[tokio::test]
async fn views_are_destroyed_at_the_end_and_on_the_way() {
    let server = Fake::new(inventory(5));
    let vim = server.connect().await;
    let rows = vim.properties::<VirtualMachine>().by_view().select(()).page_size(2).collect().await.unwrap();
    assert_eq!((rows.len(), server.count("CreateContainerView"), server.count("DestroyView")), (5, 1, 1));

    let mut rows = vim.properties::<VirtualMachine>().by_view().select(()).page_size(2).stream();
    rows.try_next().await.unwrap();
    drop(rows);
    settle().await;
    assert_eq!((server.count("CreateContainerView"), server.count("DestroyView")), (2, 2));
}

#[tokio::test]
async fn missing_properties_are_values_of_their_row() {
    let server = Fake::new(|_| {
        let mut content = object("vm-1", &[("name", Any::from("web"))]);
        let fault = Poly::new(NoPermission::default());
        let fault = LocalizedMethodFault { fault, localized_message: Some("no".into()), ..Default::default() };
        content.missing_set = vec![MissingProperty { path: "config.uuid".into(), fault, ..Default::default() }];
        answer::<RetrievePropertiesEx>(Some(RetrieveResult { objects: vec![content], ..Default::default() }))
    });
    let vim = server.connect().await;
    let uuid: PropertyPath<VirtualMachine, String> = PropertyPath::new("config.uuid");
    let vm = MoRef::new("vm-1");
    let (name, id, state) = vim.read(&vm, (VirtualMachine::NAME, uuid, VirtualMachine::RUNTIME)).await.unwrap();
    assert_eq!(name, Property::Present("web".to_owned()));
    assert!(id.missing().unwrap().fault.as_ref().unwrap().is_a("NoPermission"));
    assert_eq!(state, Property::Absent);

    assert_eq!(vim.get_optional(&vm, VirtualMachine::RUNTIME).await.unwrap(), None);
    let error = vim.get(&vm, uuid).await.unwrap_err();
    assert!(error.is_fault("NoPermission") && matches!(error, Error::Property(_)), "{error}");
    assert!(matches!(vim.get(&vm, VirtualMachine::RUNTIME).await, Err(Error::Property(_))));
}

#[tokio::test]
async fn old_servers_are_asked_without_pages() {
    let server = Fake::new(|call| {
        assert_eq!(call.method, "RetrieveProperties");
        answer::<RetrieveProperties>(vec![named("vm-1", "web")])
    })
    .version(Some("4.0"));
    let vim = server.connect().await;
    let rows = vim.properties::<VirtualMachine>().select(VirtualMachine::NAME).collect().await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn the_inventory_traversal_reaches_the_server_with_its_recursion() {
    let server = Fake::new(|call| {
        if call.method == "RetrieveProperties" {
            return answer::<RetrieveProperties>(session_lives());
        }
        let args = call.args::<RetrievePropertiesEx>();
        let [spec] = &args.spec_set[..] else { panic!("one filter") };
        assert_eq!(spec.prop_set[0].type_, "VirtualMachine");
        let traversals: Vec<_> = spec.object_set[0]
            .select_set
            .iter()
            .map(|select| select.downcast_ref::<TraversalSpec>().unwrap())
            .map(|traversal| format!("{}.{}", traversal.type_, traversal.path))
            .collect();
        for way in [
            "Folder.childEntity",
            "Datacenter.vmFolder",
            "Datacenter.hostFolder",
            "ComputeResource.resourcePool",
            "ComputeResource.host",
            "ResourcePool.resourcePool",
            "ResourcePool.vm",
            "VirtualApp.vm",
        ] {
            assert!(traversals.iter().any(|traversal| traversal == way), "{way} is not among {traversals:?}");
        }
        answer::<RetrievePropertiesEx>(None)
    });
    let vim = server.connect().await;
    assert!(vim.properties::<VirtualMachine>().under(vim.root()).select(()).collect().await.unwrap().is_empty());
    assert_eq!(server.count("RetrievePropertiesEx"), 1);
}

#[tokio::test]
async fn without_objects_there_is_nothing_to_ask() {
    let server = Fake::new(inventory(1));
    let vim = server.connect().await;
    let none: [MoRef<mo::VirtualMachine>; 0] = [];
    assert!(vim.properties().of(&none).select(VirtualMachine::NAME).collect().await.unwrap().is_empty());
    assert_eq!(server.count("RetrievePropertiesEx"), 0);
}

#[tokio::test]
async fn a_server_that_never_comes_to_the_end_is_an_error_and_no_loop() {
    for repeats in [false, true] {
        let mut calls = 0;
        let server = Fake::new(move |call| {
            calls += 1;
            assert!(calls < 1000, "it goes on for ever");
            let objects = if repeats { vec![named("vm-1", "a")] } else { Vec::new() };
            let page = RetrieveResult { objects, token: Some("more".into()), ..Default::default() };
            match call.method {
                "RetrievePropertiesEx" => answer::<RetrievePropertiesEx>(Some(page)),
                "ContinueRetrievePropertiesEx" => answer::<ContinueRetrievePropertiesEx>(page),
                "CancelRetrievePropertiesEx" => answer::<CancelRetrievePropertiesEx>(()),
                other => panic!("unexpected {other}"),
            }
        });
        let vim = server.connect().await;
        let query = vim.properties::<VirtualMachine>().select(VirtualMachine::NAME);
        let error = query.collect().await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{error:?}");
        settle().await;
        assert_eq!(server.count("CancelRetrievePropertiesEx"), 1);
    }
}
