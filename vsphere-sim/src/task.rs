//! Tasks: long operations with state, progress and a result.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use vsphere_vim_types::{
    Any, DateTime, Element, ManagedObjectReference, MoRef, Poly, TaskInfo, TaskInfoState, TaskReason, TaskReasonUser,
    mo,
};

use crate::Fault;
use crate::events::{self, Happened};
use crate::world::{State, World};

/// Finished tasks kept; older ones are forgotten.
const KEPT: usize = 1000;
/// Steps in which a delayed task tells progress.
const STEPS: u32 = 5;

/// One task.
pub(crate) struct Task {
    pub(crate) id: String,
    /// Wire name of the method: `CreateSnapshot_Task`.
    method: String,
    entity: ManagedObjectReference,
    entity_name: String,
    user: String,
    state: Phase,
    progress: Option<i32>,
    queued: DateTime,
    started: Option<DateTime>,
    completed: Option<DateTime>,
    cancel: bool,
    /// The event that told of its beginning.
    event: i32,
}

enum Phase {
    Queued,
    Running,
    Success(Any),
    Failed(Fault),
}

/// What a new task is about.
pub(crate) struct Job {
    pub(crate) method: &'static str,
    pub(crate) entity: ManagedObjectReference,
    pub(crate) entity_name: String,
    pub(crate) user: String,
    /// What keeps operations on one entity apart.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    /// Fails with this before anything is done.
    pub(crate) injected: Option<Fault>,
}

/// Starts a task; `work` runs off the async threads once earlier tasks on the same entity are done.
pub(crate) fn start(
    world: &Arc<World>,
    job: Job,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> MoRef<mo::Task> {
    let id = {
        let mut state = world.lock();
        let state = &mut *state;
        let id = format!("task-{}", state.next_serial());
        let begins = Happened {
            kind: "TaskEvent",
            user: job.user.clone(),
            about: job.entity.clone(),
            name: job.entity_name.clone(),
            message: format!("Task: {}", description_id(&job.entity, job.method)),
            chain: None,
            fields: Vec::new(),
        };
        let event = state.record(world, begins);
        let task = Task {
            id: id.clone(),
            method: job.method.into(),
            entity: job.entity,
            entity_name: job.entity_name,
            user: job.user,
            state: Phase::Queued,
            progress: None,
            queued: DateTime::now(),
            started: None,
            completed: None,
            cancel: false,
            event,
        };
        state.tasks.insert(id.clone(), task);
        forget_old(&mut state.tasks);
        id
    };
    world.touch();
    let (world, task) = (world.clone(), id.clone());
    tokio::spawn(async move {
        let _turn = job.gate.lock_owned().await;
        let outcome = run(world.clone(), &task, job.injected, work).await;
        conclude(&world, &task, outcome);
    });
    MoRef::new(&id)
}

fn run(
    world: Arc<World>,
    id: &str,
    injected: Option<Fault>,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> impl Future<Output = Result<Any, Fault>> {
    let id = id.to_owned();
    async move {
        update(&world, &id, |task| {
            task.state = Phase::Running;
            task.started = Some(DateTime::now());
            task.progress = Some(0);
        });
        let delay = world.settings.task_delay;
        for step in 1..=if delay.is_zero() { 0 } else { STEPS } {
            tokio::time::sleep((delay / STEPS).max(Duration::from_micros(1))).await;
            if world.lock().tasks.get(&id).is_some_and(|task| task.cancel) {
                return Err(Fault::new("RequestCanceled", "The task was canceled by a user."));
            }
            update(&world, &id, |task| task.progress = Some((step * 90 / STEPS) as i32));
        }
        if let Some(fault) = injected {
            return Err(fault);
        }
        let inner = world.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| {
            Err(Fault::new("SystemError", "A general system error occurred").field("reason", &error.to_string()))
        })
    }
}

/// Ends a task, and tells what it has done.
fn conclude(world: &World, id: &str, outcome: Result<Any, Fault>) {
    let mut state = world.lock();
    let told = match (&outcome, state.tasks.get(id)) {
        (Ok(result), Some(task)) => done(&state, task, result),
        _ => None,
    };
    if let Some(told) = told {
        state.record(world, told);
    }
    if let Some(task) = state.tasks.get_mut(id) {
        task.completed = Some(DateTime::now());
        task.progress = None;
        task.state = match outcome {
            Ok(value) => Phase::Success(value),
            Err(fault) => Phase::Failed(fault),
        };
    }
    drop(state);
    world.touch();
}

/// What a task that has succeeded has done, where there is an event for it.
fn done(state: &State, task: &Task, result: &Any) -> Option<Happened> {
    let (kind, done) = events::of_method(&task.method)?;
    // What was created is told of, not where.
    let about = match result {
        Any::MoRef(made) => made.clone(),
        _ => task.entity.clone(),
    };
    if about.type_name() != "VirtualMachine" {
        return None;
    }
    let vm = state.vms.get(about.value());
    let name = vm.map_or_else(|| task.entity_name.clone(), |vm| vm.name().to_owned());
    let template = vm.is_some_and(|vm| vm.template);
    let mut fields = vec![Element::new("template", &template.to_string())];
    match kind {
        "VmClonedEvent" => {
            let source = Element::new("vm", task.entity.value()).with_attribute("type", "VirtualMachine");
            let source =
                Element::new("sourceVm", "").with_child(Element::new("name", &task.entity_name)).with_child(source);
            fields.push(source);
        }
        "VmRenamedEvent" => {
            fields.extend([Element::new("oldName", &task.entity_name), Element::new("newName", &name)]);
        }
        _ => {}
    }
    Some(Happened {
        kind,
        user: task.user.clone(),
        message: format!("{name} {done}"),
        about,
        name,
        chain: Some(task.event),
        fields,
    })
}

fn update(world: &World, id: &str, change: impl FnOnce(&mut Task)) {
    if let Some(task) = world.lock().tasks.get_mut(id) {
        change(task);
    }
    world.touch();
}

fn forget_old(tasks: &mut std::collections::BTreeMap<String, Task>) {
    while tasks.len() > KEPT {
        let oldest = tasks
            .values()
            .filter(|task| task.is_done())
            .min_by_key(|task| task.queued.unix_nanos())
            .map(|task| task.id.clone());
        match oldest {
            Some(id) => tasks.remove(&id),
            None => return,
        };
    }
}

impl Task {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, Phase::Success(_) | Phase::Failed(_))
    }

    /// Asks the task to stop; it does while it has not begun its work.
    pub(crate) fn cancel(&mut self) -> Result<(), Fault> {
        if self.is_done() {
            return Err(Fault::new("InvalidState", "The operation is not allowed in the current state."));
        }
        self.cancel = true;
        Ok(())
    }

    pub(crate) fn reference(&self) -> ManagedObjectReference {
        ManagedObjectReference::of("Task", &self.id)
    }

    pub(crate) fn entity(&self) -> &ManagedObjectReference {
        &self.entity
    }

    pub(crate) fn to_wire(&self) -> TaskInfo {
        let (state, result, error) = match &self.state {
            Phase::Queued => (TaskInfoState::Queued, None, None),
            Phase::Running => (TaskInfoState::Running, None, None),
            Phase::Success(Any::Null) => (TaskInfoState::Success, None, None),
            Phase::Success(value) => (TaskInfoState::Success, Some(value.clone()), None),
            Phase::Failed(fault) => (TaskInfoState::Error, None, Some(fault.localized())),
        };
        let reason: Poly<TaskReason> = Poly::new(TaskReasonUser { user_name: self.user.clone(), ..Default::default() });
        TaskInfo {
            key: self.id.clone(),
            task: MoRef::new(&self.id),
            name: Some(self.method.clone()),
            description_id: description_id(&self.entity, &self.method),
            entity: Some(self.entity.cast()),
            entity_name: Some(self.entity_name.clone()),
            state,
            cancelled: self.cancel,
            cancelable: matches!(self.state, Phase::Queued | Phase::Running),
            error,
            result,
            progress: self.progress,
            reason,
            queue_time: self.queued,
            start_time: self.started,
            complete_time: self.completed,
            event_chain_id: self.event,
            ..Default::default()
        }
    }
}

/// `VirtualMachine.createSnapshot` for `CreateSnapshot_Task`.
fn description_id(entity: &ManagedObjectReference, method: &str) -> String {
    let name = method.trim_end_matches("_Task");
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase()).unwrap_or_default();
    let kind = if entity.type_name() == "VirtualMachineSnapshot" { "vm.Snapshot" } else { entity.type_name() };
    format!("{kind}.{first}{}", letters.as_str())
}
