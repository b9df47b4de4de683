//! What updates mean: a pure function from what is known and what was heard to what is known now and what is new.
//!
//! It does no I/O and knows no clock. The one thing that it cannot settle alone, a change that does not fit what is
//! kept, it asks for: [`Output::Unclear`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vsphere_vim_types::{
    ManagedObjectReference, MoRef, ObjectContent, ObjectUpdate, ObjectUpdateKind, PropertyFilterUpdate, UpdateSet, mo,
};

use super::view::{Unclear, View};
use crate::property::{PropertySpec, RawRow};

/// Something that was heard.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The server begins its story anew, with these filters, one for each of the plan.
    Began(Vec<MoRef<mo::PropertyFilter>>),
    /// News.
    Updated(UpdateSet),
    /// There is nothing new.
    Quiet,
    /// The answer to [`Output::Unclear`]: what the filter shows of the object, `None` when that is gone.
    Read { filter: usize, object: ManagedObjectReference, content: Option<ObjectContent> },
}

/// Something that is new.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    Entered(ManagedObjectReference),
    /// These of the selected paths have, or may have, other values.
    Changed(ManagedObjectReference, Vec<String>),
    Left(ManagedObjectReference),
    /// Everything has been seen for the first time.
    Complete,
    /// What is kept of the object is not the truth: it has to be read before anything is said about it.
    Unclear {
        filter: usize,
        object: ManagedObjectReference,
    },
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// What each filter selects.
    plan: Vec<Vec<PropertySpec>>,
    filters: Vec<MoRef<mo::PropertyFilter>>,
    objects: BTreeMap<ManagedObjectReference, Vec<Kept>>,
    phase: Phase,
    complete: bool,
    /// Counts beginnings; tells what was seen since the last one.
    sight: u64,
    unclear: BTreeSet<(usize, ManagedObjectReference)>,
    idle_pages: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Everything is being told; what is not, has left.
    #[default]
    Sighting,
    /// Changes are being told.
    Following,
}

#[derive(Clone, Debug)]
struct Kept {
    filter: usize,
    sight: u64,
    view: View,
}

impl Machine {
    /// Knows nothing yet; `plan` says what each filter selects.
    pub(crate) fn new(plan: Vec<Vec<PropertySpec>>) -> Self {
        Self { plan, ..Self::default() }
    }

    /// One step.
    pub(crate) fn step(mut self, input: Input) -> (Self, Vec<Output>) {
        let mut news = News::default();
        match input {
            Input::Began(filters) => {
                self.filters = filters;
                self.phase = Phase::Sighting;
                self.sight += 1;
                self.idle_pages = 0;
                // All is told anew. What is not has left, though its mere existence could still be read.
                self.unclear.clear();
            }
            Input::Quiet => self.seen_all(&mut news),
            Input::Updated(update) => self.updated(update, &mut news),
            Input::Read { filter, object, content } => {
                if self.unclear.remove(&(filter, object.clone())) && filter < self.plan.len() {
                    match content {
                        Some(content) => {
                            let view = View::read(&self.paths(filter, &object), content);
                            self.show(filter, object, view, &mut news);
                        }
                        None => self.leave(filter, &object, &mut news),
                    }
                }
            }
        }
        // What is being read anew belongs to the first sight.
        if self.is_following() && self.unclear.is_empty() && !std::mem::replace(&mut self.complete, true) {
            news.say(Output::Complete);
        }
        (self, news.outputs.into_iter().flatten().collect())
    }

    /// Everything is known; changes are being followed.
    pub(crate) fn is_following(&self) -> bool {
        self.phase == Phase::Following
    }

    /// How many objects are known.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Pages in a row that announced another one and said nothing themselves.
    pub(crate) fn idle_pages(&self) -> u32 {
        self.idle_pages
    }

    /// The next object that has to be read anew.
    pub(crate) fn unclear(&self) -> Option<&(usize, ManagedObjectReference)> {
        self.unclear.first()
    }

    /// The known objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &ManagedObjectReference> {
        self.objects.keys()
    }

    /// One property of an object.
    pub(crate) fn property(&self, object: &ManagedObjectReference, path: &str) -> Option<RawRow> {
        let views = self.objects.get(object)?;
        let values = views.iter().filter_map(|kept| kept.view.values.get_key_value(path));
        let missing = views.iter().filter_map(|kept| kept.view.missing.get_key_value(path));
        Some(RawRow::of(object, values, missing))
    }

    /// What is known of an object.
    pub(crate) fn row(&self, object: &ManagedObjectReference) -> Option<RawRow> {
        let views = self.objects.get(object)?;
        let values = views.iter().flat_map(|kept| &kept.view.values);
        let missing = views.iter().flat_map(|kept| &kept.view.missing);
        Some(RawRow::of(object, values, missing))
    }

    fn updated(&mut self, update: UpdateSet, news: &mut News) {
        let mut told = false;
        for PropertyFilterUpdate { filter, object_set, missing_set, .. } in update.filter_set {
            let Some(filter) = self.filter(&filter) else { continue };
            for update in object_set {
                told = true;
                self.object(filter, update, news);
            }
            for missing in missing_set {
                self.leave(filter, &missing.obj, news);
            }
        }
        if update.truncated == Some(true) {
            self.idle_pages = if told { 0 } else { self.idle_pages + 1 };
        } else {
            self.seen_all(news);
        }
    }

    /// The place of a filter in the plan. A server that does not name it can only mean the only one.
    fn filter(&self, filter: &MoRef<mo::PropertyFilter>) -> Option<usize> {
        let known = self.filters.iter().position(|known| known == filter);
        known.or_else(|| (self.plan.len() == 1 && filter.value().is_empty()).then_some(0))
    }

    fn object(&mut self, filter: usize, update: ObjectUpdate, news: &mut News) {
        let ObjectUpdate { kind, obj, change_set, missing_set, .. } = update;
        match kind {
            ObjectUpdateKind::Leave => self.leave(filter, &obj, news),
            ObjectUpdateKind::Enter => match View::entered(&self.paths(filter, &obj), change_set, missing_set) {
                Ok(view) => self.show(filter, obj, view, news),
                Err(Unclear) => self.doubt(filter, obj, news),
            },
            _ => {
                let paths: Vec<String> = self.paths(filter, &obj).into_iter().map(str::to_owned).collect();
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                let sight = self.sight;
                let kept = self.objects.get_mut(&obj).and_then(|views| {
                    // One that was not told anew since the beginning is no ground to build on.
                    views.iter_mut().find(|kept| kept.filter == filter && kept.sight == sight)
                });
                let Some(kept) = kept else { return self.doubt(filter, obj, news) };
                if self.unclear.contains(&(filter, obj.clone())) {
                    return;
                }
                match kept.view.merge(&paths, change_set, missing_set) {
                    Ok(changed) if changed.is_empty() => {}
                    Ok(changed) => news.changed(obj, changed),
                    Err(Unclear) => self.doubt(filter, obj, news),
                }
            }
        }
    }

    /// The whole of what a filter shows of an object.
    fn show(&mut self, filter: usize, object: ManagedObjectReference, view: View, news: &mut News) {
        self.unclear.remove(&(filter, object.clone()));
        let paths: Vec<String> = self.paths(filter, &object).into_iter().map(str::to_owned).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let sight = self.sight;
        let Some(views) = self.objects.get_mut(&object) else {
            self.objects.insert(object.clone(), vec![Kept { filter, sight, view }]);
            return news.entered(object);
        };
        let empty = View::default();
        let before = views.iter_mut().find(|kept| kept.filter == filter);
        let changed = view.difference(before.as_ref().map_or(&empty, |kept| &kept.view), &paths);
        match before {
            Some(kept) => (kept.sight, kept.view) = (sight, view),
            None => {
                views.push(Kept { filter, sight, view });
                // The filter of the lower number shows its value where two show one.
                views.sort_by_key(|kept| kept.filter);
            }
        }
        if !changed.is_empty() {
            news.changed(object, changed);
        }
    }

    fn doubt(&mut self, filter: usize, object: ManagedObjectReference, news: &mut News) {
        if self.unclear.insert((filter, object.clone())) {
            news.say(Output::Unclear { filter, object });
        }
    }

    /// A filter no longer selects an object.
    fn leave(&mut self, filter: usize, object: &ManagedObjectReference, news: &mut News) {
        self.unclear.remove(&(filter, object.clone()));
        let Some(views) = self.objects.get_mut(object) else { return };
        let Some(at) = views.iter().position(|kept| kept.filter == filter) else { return };
        let gone = views.remove(at);
        if views.is_empty() {
            self.objects.remove(object);
            news.left(object);
            return;
        }
        let changed: Vec<String> = gone.view.values.into_keys().chain(gone.view.missing.into_keys()).collect();
        if !changed.is_empty() {
            news.changed(object.clone(), changed);
        }
    }

    /// The story has been told to its present end.
    fn seen_all(&mut self, news: &mut News) {
        self.idle_pages = 0;
        if self.phase == Phase::Following {
            return;
        }
        self.phase = Phase::Following;
        let stale: Vec<_> = self
            .objects
            .iter()
            .flat_map(|(object, views)| views.iter().map(move |kept| (kept.filter, kept.sight, object)))
            .filter(|(filter, sight, object)| {
                *sight != self.sight && !self.unclear.contains(&(*filter, (*object).clone()))
            })
            .map(|(filter, _, object)| (filter, object.clone()))
            .collect();
        for (filter, object) in stale {
            self.leave(filter, &object, news);
        }
    }

    /// The paths that a filter selects of an object.
    fn paths(&self, filter: usize, object: &ManagedObjectReference) -> Vec<&str> {
        let specs = self.plan.get(filter).into_iter().flatten();
        specs.filter(|spec| spec.is_about(object)).flat_map(PropertySpec::paths).collect()
    }
}

/// What one step says, once for each object.
#[derive(Debug, Default)]
struct News {
    outputs: Vec<Option<Output>>,
    /// Where it is said that an object has entered or changed.
    said: HashMap<ManagedObjectReference, usize>,
}

impl News {
    fn say(&mut self, output: Output) {
        self.outputs.push(Some(output));
    }

    fn entered(&mut self, object: ManagedObjectReference) {
        self.said.insert(object.clone(), self.outputs.len());
        self.say(Output::Entered(object));
    }

    /// An object that has just entered has not changed besides.
    fn changed(&mut self, object: ManagedObjectReference, paths: Vec<String>) {
        match self.said.get(&object).and_then(|at| self.outputs[*at].as_mut()) {
            Some(Output::Changed(_, known)) => {
                known.extend(paths);
                known.sort_unstable();
                known.dedup();
            }
            Some(_) => {}
            None => {
                self.said.insert(object.clone(), self.outputs.len());
                self.say(Output::Changed(object, paths));
            }
        }
    }

    /// Whoever was not told that it came need not know that it went.
    fn left(&mut self, object: &ManagedObjectReference) {
        let earlier = self.said.remove(object).and_then(|at| self.outputs[at].take());
        if !matches!(earlier, Some(Output::Entered(_))) {
            self.say(Output::Left(object.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
