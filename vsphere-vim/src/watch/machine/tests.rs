//! The machine by tables, and against a plain model of what the server has.

use std::collections::{BTreeMap, btree_map::Entry};

use proptest::prelude::*;
use vsphere_vim_types::{
    Any, DynamicProperty, LocalizedMethodFault, MissingObject, MissingProperty, Poly, PropertyChange, PropertyChangeOp,
    VirtualDevice, VirtualDisk,
};

use super::*;

const DEVICES: &str = "config.hardware.device";

fn vm(id: &str) -> ManagedObjectReference {
    ManagedObjectReference::of("VirtualMachine", id)
}

fn plan(filters: usize) -> Vec<Vec<PropertySpec>> {
    let about = |paths: &[&str]| {
        vec![paths.iter().fold(PropertySpec::of::<mo::VirtualMachine>(), |spec, path| spec.path_named(path))]
    };
    [about(&["name", DEVICES, "tag"]), about(&["name", "runtime"])].into_iter().take(filters).collect()
}

fn filters(login: usize, count: usize) -> Input {
    Input::Began((0..count).map(|filter| MoRef::new(&format!("filter-{login}-{filter}"))).collect())
}

fn assign(name: &str, val: impl Into<Any>) -> PropertyChange {
    PropertyChange { op: PropertyChangeOp::Assign, name: name.into(), val: Some(val.into()), ..Default::default() }
}

fn told(kind: ObjectUpdateKind, id: &str, change_set: Vec<PropertyChange>) -> ObjectUpdate {
    ObjectUpdate { kind, obj: vm(id), change_set, ..Default::default() }
}

fn enter(id: &str, name: &str) -> ObjectUpdate {
    told(ObjectUpdateKind::Enter, id, vec![assign("name", name)])
}

fn modify(id: &str, change: PropertyChange) -> ObjectUpdate {
    told(ObjectUpdateKind::Modify, id, vec![change])
}

fn leave(id: &str) -> ObjectUpdate {
    told(ObjectUpdateKind::Leave, id, Vec::new())
}

fn set(login: usize, by_filter: Vec<Vec<ObjectUpdate>>, truncated: bool) -> Input {
    let filter = |(at, object_set): (usize, Vec<ObjectUpdate>)| PropertyFilterUpdate {
        filter: MoRef::new(&format!("filter-{login}-{at}")),
        object_set,
        ..Default::default()
    };
    let filter_set = by_filter.into_iter().enumerate().map(filter).collect();
    Input::Updated(UpdateSet { version: "v".into(), filter_set, truncated: Some(truncated), ..Default::default() })
}

fn one(updates: Vec<ObjectUpdate>) -> Input {
    set(0, vec![updates], false)
}

fn name_of(machine: &Machine, id: &str) -> Option<String> {
    machine.row(&vm(id))?.take("name").present()
}

/// Runs inputs and checks what each of them says.
fn run(filters: usize, steps: Vec<(Input, Vec<Output>)>) -> Machine {
    let mut machine = Machine::new(plan(filters));
    for (at, (input, expected)) in steps.into_iter().enumerate() {
        let (next, outputs) = machine.step(input);
        assert_eq!(outputs, expected, "step {at}");
        machine = next;
    }
    machine
}

fn changed(id: &str, paths: &[&str]) -> Output {
    Output::Changed(vm(id), paths.iter().map(|path| (*path).to_owned()).collect())
}

fn entered(id: &str) -> Output {
    Output::Entered(vm(id))
}

fn left(id: &str) -> Output {
    Output::Left(vm(id))
}

#[test]
fn objects_enter_change_and_leave() {
    let machine = run(
        1,
        vec![
            (filters(0, 1), vec![]),
            (one(vec![enter("a", "x"), enter("b", "y")]), vec![entered("a"), entered("b"), Output::Complete]),
            (one(vec![modify("a", assign("name", "z"))]), vec![changed("a", &["name"])]),
            (Input::Quiet, vec![]),
            (one(vec![leave("b"), enter("c", "w")]), vec![left("b"), entered("c")]),
            (one(vec![leave("b")]), vec![]),
            (one(vec![enter("a", "z")]), vec![]),
        ],
    );
    assert_eq!((name_of(&machine, "a").as_deref(), machine.len()), (Some("z"), 2));
}

#[test]
fn nothing_in_sight_is_complete_as_well() {
    run(1, vec![(filters(0, 1), vec![]), (Input::Quiet, vec![Output::Complete]), (Input::Quiet, vec![])]);
    run(1, vec![(filters(0, 1), vec![]), (one(vec![]), vec![Output::Complete])]);
}

#[test]
fn the_first_sight_is_complete_with_its_last_page() {
    let machine = run(
        1,
        vec![
            (filters(0, 1), vec![]),
            (set(0, vec![vec![enter("a", "x")]], true), vec![entered("a")]),
            (set(0, vec![], true), vec![]),
            (set(0, vec![vec![enter("b", "y")]], false), vec![entered("b"), Output::Complete]),
        ],
    );
    assert!(machine.is_following() && machine.idle_pages() == 0);
}

#[test]
fn pages_that_say_nothing_are_counted() {
    let page = || (set(0, vec![], true), vec![]);
    let machine = run(1, vec![(filters(0, 1), vec![]), page(), page(), page()]);
    assert_eq!((machine.idle_pages(), machine.is_following()), (3, false));
}

#[test]
fn a_new_beginning_reports_only_what_differs() {
    run(
        1,
        vec![
            (filters(0, 1), vec![]),
            (
                one(vec![enter("a", "x"), enter("b", "y"), enter("c", "z")]),
                vec![entered("a"), entered("b"), entered("c"), Output::Complete],
            ),
            (filters(1, 1), vec![]),
            // "a" is as before, "b" was renamed, "c" is gone, "d" is new.
            (set(1, vec![vec![enter("a", "x"), enter("b", "Y")]], true), vec![changed("b", &["name"])]),
            (set(1, vec![vec![enter("d", "w")]], false), vec![entered("d"), left("c")]),
            // What the old filter would still say is not heard.
            (set(0, vec![vec![leave("a")]], false), vec![]),
        ],
    );
}

#[test]
fn a_sight_that_is_cut_off_begins_again_without_repeating_itself() {
    run(
        1,
        vec![
            (filters(0, 1), vec![]),
            (set(0, vec![vec![enter("a", "x"), enter("b", "y")]], true), vec![entered("a"), entered("b")]),
            (filters(1, 1), vec![]),
            (set(1, vec![vec![enter("b", "y")]], true), vec![]),
            (set(1, vec![vec![enter("c", "z")]], false), vec![entered("c"), left("a"), Output::Complete]),
        ],
    );
}

#[test]
fn a_change_that_does_not_fit_is_read_anew_before_anything_is_said() {
    let content = |name: &str| ObjectContent {
        obj: vm("a"),
        prop_set: vec![DynamicProperty { name: "name".into(), val: name.into(), ..Default::default() }],
        ..Default::default()
    };
    let unclear = || Output::Unclear { filter: 0, object: vm("a") };
    let read = |content| Input::Read { filter: 0, object: vm("a"), content };
    let misfit = || modify("a", assign("config.hardware.device[7].key", Any::Int(7)));
    let machine = run(
        1,
        vec![
            (filters(0, 1), vec![]),
            (one(vec![enter("a", "x")]), vec![entered("a"), Output::Complete]),
            (one(vec![misfit()]), vec![unclear()]),
            // It is asked for once, whatever else comes.
            (one(vec![misfit(), modify("a", assign("name", "q"))]), vec![]),
            (read(Some(content("y"))), vec![changed("a", &["name"])]),
            (
                one(vec![modify("b", assign("name", "never seen"))]),
                vec![Output::Unclear { filter: 0, object: vm("b") }],
            ),
            (Input::Read { filter: 0, object: vm("b"), content: None }, vec![]),
            (one(vec![misfit()]), vec![unclear()]),
            (read(None), vec![left("a")]),
            (read(Some(content("late"))), vec![]),
        ],
    );
    assert_eq!((machine.len(), machine.unclear()), (0, None));
}

#[test]
fn an_object_in_doubt_that_is_not_told_anew_has_left() {
    let misfit = modify("a", assign("config.hardware.device[7].key", Any::Int(7)));
    let machine = run(
        1,
        vec![
            (filters(0, 1), vec![]),
            (one(vec![enter("a", "x")]), vec![entered("a"), Output::Complete]),
            (one(vec![misfit]), vec![Output::Unclear { filter: 0, object: vm("a") }]),
            (filters(1, 1), vec![]),
            // It may still exist, elsewhere: reading it by its name would keep it in sight for ever.
            (set(1, vec![vec![]], false), vec![left("a")]),
        ],
    );
    assert_eq!((machine.len(), machine.unclear()), (0, None));
}

#[test]
fn an_object_in_two_filters_leaves_when_both_let_it_go() {
    let second = |id: &str| told(ObjectUpdateKind::Enter, id, vec![assign("runtime", "on")]);
    let both = |first: Vec<ObjectUpdate>, second: Vec<ObjectUpdate>| set(0, vec![first, second], false);
    run(
        2,
        vec![
            (filters(0, 2), vec![]),
            (both(vec![enter("a", "x")], vec![second("a")]), vec![entered("a"), Output::Complete]),
            (
                both(vec![modify("a", assign("name", "y"))], vec![modify("a", assign("runtime", "off"))]),
                vec![changed("a", &["name", "runtime"])],
            ),
            (both(vec![leave("a")], vec![]), vec![changed("a", &["name"])]),
            (both(vec![], vec![leave("a")]), vec![left("a")]),
            (both(vec![enter("b", "x"), leave("b")], vec![]), vec![]),
        ],
    );
}

#[test]
fn a_missing_object_has_left_and_a_missing_property_is_a_value() {
    let fault = LocalizedMethodFault { localized_message: Some("no".into()), ..Default::default() };
    let missing = MissingProperty { path: "name".into(), fault: fault.clone(), ..Default::default() };
    let withheld = ObjectUpdate { missing_set: vec![missing], ..modify("a", assign("tag", "t")) };
    let gone = MissingObject { obj: vm("a"), fault, ..Default::default() };
    let filter =
        PropertyFilterUpdate { filter: MoRef::new("filter-0-0"), missing_set: vec![gone], ..Default::default() };
    let gone = Input::Updated(UpdateSet { filter_set: vec![filter], ..Default::default() });
    let steps = |last: Vec<(Input, Vec<Output>)>| {
        let first = vec![
            (filters(0, 1), vec![]),
            (one(vec![enter("a", "x")]), vec![entered("a"), Output::Complete]),
            (one(vec![withheld.clone()]), vec![changed("a", &["name", "tag"])]),
        ];
        first.into_iter().chain(last).collect()
    };
    let machine = run(1, steps(Vec::new()));
    let mut row = machine.row(&vm("a")).unwrap();
    assert_eq!(row.take::<String>("name").missing().unwrap().message, "no");
    run(1, steps(vec![(gone, vec![left("a")])]));
}

// The model: what the server has, and a server that tells it in parts.

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    name: String,
    /// Capacities by device key.
    devices: BTreeMap<i32, i64>,
    tags: Vec<String>,
}

impl Model {
    fn values(&self) -> Vec<(&'static str, Any)> {
        let devices: Vec<Poly<VirtualDevice>> = self.devices.iter().map(|(key, kb)| device(*key, *kb)).collect();
        let mut values = vec![("name", Any::from(self.name.as_str()))];
        // An empty list is an unset property.
        values.extend((!devices.is_empty()).then(|| (DEVICES, Any::of(&devices))));
        values.extend((!self.tags.is_empty()).then(|| ("tag", Any::of(&self.tags))));
        values
    }

    fn seen_in(machine: &Machine, object: &ManagedObjectReference) -> Self {
        let mut row = machine.row(object).expect("it is in sight");
        let devices: Vec<Poly<VirtualDevice>> = row.take(DEVICES).present().unwrap_or_default();
        let capacity =
            |device: &Poly<VirtualDevice>| device.downcast_ref::<VirtualDisk>().map_or(-1, |disk| disk.capacity_in_kb);
        Self {
            name: row.take("name").present().unwrap_or_default(),
            devices: devices.iter().map(|device| (device.key, capacity(device))).collect(),
            tags: row.take("tag").present().unwrap_or_default(),
        }
    }
}

fn device(key: i32, capacity_in_kb: i64) -> Poly<VirtualDevice> {
    let base = VirtualDevice { key, ..Default::default() };
    Poly::new(VirtualDisk { capacity_in_kb, base, ..Default::default() })
}

#[derive(Clone, Debug)]
enum Event {
    Create(u8, String),
    Destroy(u8),
    Rename(u8, String),
    /// Adds the device or changes its capacity; whole lists or only the part, and with or without the key.
    Device(u8, i32, i64, Telling),
    Unplug(u8, i32, Telling),
    Tag(u8, String, Telling),
    Untag(u8, Telling),
    /// The session dies; the next sight comes in pages of this size.
    Restart(usize),
    /// The answer is cut here and more follows at once.
    Cut,
}

#[derive(Clone, Copy, Debug)]
enum Telling {
    Whole,
    Part,
    /// The part, without a key in the path where that is possible.
    ByValue,
    /// A path that leads nowhere in what the client has.
    Misfit,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let vm = || 0..4_u8;
    let name = || "[a-c]{1,2}";
    let telling = || {
        prop_oneof![
            2 => Just(Telling::Whole), 6 => Just(Telling::Part), 3 => Just(Telling::ByValue), 1 => Just(Telling::Misfit),
        ]
    };
    let key = || 2000..2004_i32;
    prop::collection::vec(
        prop_oneof![
            4 => (vm(), name()).prop_map(|(vm, name)| Event::Create(vm, name)),
            1 => vm().prop_map(Event::Destroy),
            3 => (vm(), name()).prop_map(|(vm, name)| Event::Rename(vm, name)),
            6 => (vm(), key(), 1..9_i64, telling()).prop_map(|(vm, key, kb, how)| Event::Device(vm, key, kb, how)),
            3 => (vm(), key(), telling()).prop_map(|(vm, key, how)| Event::Unplug(vm, key, how)),
            3 => (vm(), name(), telling()).prop_map(|(vm, tag, how)| Event::Tag(vm, tag, how)),
            1 => (vm(), telling()).prop_map(|(vm, how)| Event::Untag(vm, how)),
            1 => (1..4_usize).prop_map(Event::Restart),
            1 => Just(Event::Cut),
        ],
        1..60,
    )
}

/// The server of the model, and a client that mirrors what it is told.
#[derive(Default)]
struct World {
    machine: Machine,
    login: usize,
    model: BTreeMap<ManagedObjectReference, Model>,
    mirror: BTreeMap<ManagedObjectReference, Model>,
    complete: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self { machine: Machine::new(plan(1)), ..Self::default() };
        world.begin(1);
        world
    }

    fn begin(&mut self, page: usize) {
        self.login += 1;
        self.hear(filters(self.login, 1));
        let all: Vec<_> = self.model.iter().map(|(object, model)| Self::entering(object, model)).collect();
        let pages: Vec<_> = all.chunks(page).map(<[_]>::to_vec).collect();
        let last = pages.len().saturating_sub(1);
        if pages.is_empty() {
            self.hear(set(self.login, vec![], false));
        }
        for (at, page) in pages.into_iter().enumerate() {
            self.hear(set(self.login, vec![page], at < last));
        }
    }

    fn entering(object: &ManagedObjectReference, model: &Model) -> ObjectUpdate {
        let change_set = model.values().into_iter().map(|(path, value)| assign(path, value)).collect();
        ObjectUpdate { kind: ObjectUpdateKind::Enter, obj: object.clone(), change_set, ..Default::default() }
    }

    /// Gives an input to the machine and holds what it says against what was said before.
    fn hear(&mut self, input: Input) {
        let (machine, outputs) = std::mem::take(&mut self.machine).step(input);
        self.machine = machine;
        let mut unclear = Vec::new();
        for output in outputs {
            match output {
                Output::Entered(object) => {
                    let seen = Model::seen_in(&self.machine, &object);
                    assert!(self.mirror.insert(object, seen).is_none(), "it was told before");
                }
                Output::Changed(object, paths) => {
                    assert!(!paths.is_empty());
                    let seen = Model::seen_in(&self.machine, &object);
                    assert!(self.mirror.insert(object, seen).is_some(), "it was never told");
                }
                Output::Left(object) => assert!(self.mirror.remove(&object).is_some(), "it was never told"),
                Output::Complete => assert!(!std::mem::replace(&mut self.complete, true), "once only"),
                Output::Unclear { filter, object } => unclear.push((filter, object)),
            }
        }
        for (filter, object) in unclear {
            let content = self.model.get(&object).map(|model| ObjectContent {
                obj: object.clone(),
                prop_set: model
                    .values()
                    .into_iter()
                    .map(|(name, val)| DynamicProperty { name: name.into(), val, ..Default::default() })
                    .collect(),
                ..Default::default()
            });
            self.hear(Input::Read { filter, object, content });
        }
    }

    fn happen(&mut self, event: Event, pending: &mut Vec<ObjectUpdate>) {
        let reference = |id: u8| vm(&format!("vm-{id}"));
        let update = |object: ManagedObjectReference, change: PropertyChange| ObjectUpdate {
            kind: ObjectUpdateKind::Modify,
            obj: object,
            change_set: vec![change],
            ..Default::default()
        };
        let change = |op: PropertyChangeOp, name: &str, val: Option<Any>| PropertyChange {
            op,
            name: name.into(),
            val,
            ..Default::default()
        };
        let misfit = || assign("config.hardware.device[9].capacityInKB", Any::Long(1));
        let whole = |model: &Model, path: &str| {
            let value = model.values().into_iter().find(|(own, _)| *own == path).map(|(_, value)| value);
            change(PropertyChangeOp::Assign, path, value)
        };
        match event {
            Event::Create(id, name) => {
                let model = Model { name, ..Model::default() };
                let object = reference(id);
                if let Entry::Vacant(place) = self.model.entry(object.clone()) {
                    pending.push(Self::entering(&object, place.insert(model)));
                }
            }
            Event::Destroy(id) => {
                let obj = reference(id);
                if self.model.remove(&obj).is_some() {
                    pending.push(ObjectUpdate { kind: ObjectUpdateKind::Leave, obj, ..Default::default() });
                }
            }
            Event::Rename(id, name) => {
                let object = reference(id);
                if let Some(model) = self.model.get_mut(&object) {
                    model.name.clone_from(&name);
                    pending.push(update(object, assign("name", name)));
                }
            }
            Event::Device(id, key, kb, how) => {
                let object = reference(id);
                if let Some(model) = self.model.get_mut(&object) {
                    let was_empty = model.devices.is_empty();
                    let known = model.devices.insert(key, kb).is_some();
                    let told = match how {
                        Telling::Misfit => misfit(),
                        Telling::Whole => whole(model, DEVICES),
                        // A list that was unset is set as a whole.
                        _ if was_empty => whole(model, DEVICES),
                        Telling::Part if known => assign(&format!("{DEVICES}[{key}].capacityInKB"), Any::Long(kb)),
                        Telling::Part => {
                            change(PropertyChangeOp::Add, &format!("{DEVICES}[{key}]"), Some(Any::of(&device(key, kb))))
                        }
                        Telling::ByValue => change(PropertyChangeOp::Add, DEVICES, Some(Any::of(&device(key, kb)))),
                    };
                    pending.push(update(object, told));
                }
            }
            Event::Unplug(id, key, how) => {
                let object = reference(id);
                if let Some(model) = self.model.get_mut(&object)
                    && let Some(kb) = model.devices.remove(&key)
                {
                    let told = match how {
                        Telling::Misfit => misfit(),
                        Telling::Whole => whole(model, DEVICES),
                        Telling::Part => change(PropertyChangeOp::Remove, &format!("{DEVICES}[{key}]"), None),
                        Telling::ByValue => change(PropertyChangeOp::Remove, DEVICES, Some(Any::of(&device(key, kb)))),
                    };
                    pending.push(update(object, told));
                }
            }
            Event::Tag(id, tag, how) => {
                let object = reference(id);
                if let Some(model) = self.model.get_mut(&object)
                    && !model.tags.contains(&tag)
                {
                    let was_empty = model.tags.is_empty();
                    model.tags.push(tag.clone());
                    let told = match how {
                        Telling::Part | Telling::ByValue if !was_empty => {
                            change(PropertyChangeOp::Add, "tag", Some(tag.into()))
                        }
                        _ => whole(model, "tag"),
                    };
                    pending.push(update(object, told));
                }
            }
            Event::Untag(id, how) => {
                let object = reference(id);
                if let Some(model) = self.model.get_mut(&object)
                    && let Some(tag) = model.tags.pop()
                {
                    let told = match how {
                        Telling::Part => change(PropertyChangeOp::Remove, &format!("tag[\"{tag}\"]"), None),
                        Telling::ByValue => change(PropertyChangeOp::Remove, "tag", Some(tag.into())),
                        _ => whole(model, "tag"),
                    };
                    pending.push(update(object, told));
                }
            }
            Event::Cut => self.hear(set(self.login, vec![std::mem::take(pending)], true)),
            Event::Restart(page) => {
                // What was not told yet is lost with the old session.
                pending.clear();
                self.begin(page);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_and_however_it_is_told_the_client_knows_what_the_server_has(history in events()) {
        let mut world = World::new();
        let mut pending = Vec::new();
        for event in history {
            world.happen(event, &mut pending);
        }
        world.hear(set(world.login, vec![pending], false));
        prop_assert_eq!(&world.mirror, &world.model);
        prop_assert!(world.complete && world.machine.unclear().is_none());
        let known: Vec<_> = world.machine.objects().cloned().collect();
        prop_assert_eq!(known, world.model.keys().cloned().collect::<Vec<_>>());
    }
}
