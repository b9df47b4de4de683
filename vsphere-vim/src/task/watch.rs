//! What an update says about a task: a pure function of the answers so far.

use vsphere_vim_types::{Any, ObjectUpdate, ObjectUpdateKind, PropertyChange, TaskInfoState, UpdateSet};

use super::TaskProgress;

/// The news about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observation {
    Running(TaskProgress),
    /// Success or error; the whole `info` tells which.
    Ended,
    /// The server will not report on this task: it is gone or may not be read. Asking for it directly says why.
    Silent,
}

impl Observation {
    pub(super) fn of(state: &TaskInfoState, progress: Option<i32>) -> Self {
        let percent = progress.and_then(|percent| u8::try_from(percent.clamp(0, 100)).ok());
        match state {
            TaskInfoState::Success | TaskInfoState::Error => Self::Ended,
            TaskInfoState::Queued => Self::Running(TaskProgress { queued: true, percent }),
            // A state of a newer server: neither success nor error, so it goes on.
            _ => Self::Running(TaskProgress { queued: false, percent }),
        }
    }
}

/// What is known of the task so far; changes come in parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TaskState {
    state: Option<TaskInfoState>,
    progress: Option<i32>,
}

impl TaskState {
    /// The paths that [`TaskState::apply`] understands.
    pub(super) const PATHS: [&'static str; 2] = ["info.state", "info.progress"];

    /// Takes in an update and says what it means; `None` when it says nothing about the state yet.
    pub(super) fn apply(&mut self, update: UpdateSet) -> Option<Observation> {
        // The filter holds one task: whatever is missing is that task or its state.
        let mut silent = false;
        for filter in update.filter_set {
            silent |= !filter.missing_set.is_empty();
            for object in filter.object_set {
                silent |= is_unreadable(&object);
                object.change_set.into_iter().for_each(|change| self.change(change));
            }
        }
        match &self.state {
            Some(state @ (TaskInfoState::Success | TaskInfoState::Error)) => Some(Observation::of(state, None)),
            _ if silent => Some(Observation::Silent),
            state => state.as_ref().map(|state| Observation::of(state, self.progress)),
        }
    }

    fn change(&mut self, change: PropertyChange) {
        match change.name.as_str() {
            "info.state" => {
                if let Some(Ok(state)) = change.val.map(Any::into_typed) {
                    self.state = Some(state);
                }
            }
            // A removal or an unset value: the task no longer says how far it is.
            "info.progress" => self.progress = change.val.and_then(|value| value.into_typed().ok()),
            _ => {}
        }
    }
}

/// The task was forgotten, or its state is withheld from this account.
fn is_unreadable(update: &ObjectUpdate) -> bool {
    let withheld = |path: &str| path == "info" || path == "info.state";
    update.kind == ObjectUpdateKind::Leave || update.missing_set.iter().any(|missing| withheld(&missing.path))
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{ObjectUpdate, PropertyFilterUpdate};

    use super::*;

    fn update(version: &str, changes: &[(&str, Any)]) -> UpdateSet {
        let change_set = changes
            .iter()
            .map(|(name, val)| PropertyChange { name: (*name).into(), val: Some(val.clone()), ..Default::default() })
            .collect();
        let object = ObjectUpdate { change_set, ..Default::default() };
        let filter = PropertyFilterUpdate { object_set: vec![object], ..Default::default() };
        UpdateSet { version: version.into(), filter_set: vec![filter], ..Default::default() }
    }

    fn state(value: &str) -> Any {
        Any::Enum { type_name: "TaskInfoState", value: value.into() }
    }

    #[test]
    fn partial_changes_add_up() {
        let mut task = TaskState::default();
        let running = |percent| Some(Observation::Running(TaskProgress { queued: false, percent }));
        assert_eq!(task.apply(update("1", &[("info.progress", Any::Int(3))])), None);
        assert_eq!(task.apply(update("2", &[("info.state", state("running"))])), running(Some(3)));
        assert_eq!(task.apply(update("3", &[("info.progress", Any::Int(250))])), running(Some(100)));
        assert_eq!(task.apply(update("4", &[("info.progress", Any::Null)])), running(None));
        assert_eq!(task.apply(update("5", &[("info.state", state("success"))])), Some(Observation::Ended));
    }

    #[test]
    fn an_unknown_state_goes_on() {
        let mut task = TaskState::default();
        assert!(matches!(task.apply(update("1", &[("info.state", state("paused"))])), Some(Observation::Running(_))));
    }
}
