//! The engine of a watch: it lets the waiter wait, the machine think, and reads what the machine asks for.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use vsphere_vim_types::{ManagedObjectReference, ObjectContent};

use super::machine::{Input, Machine, Output};
use crate::{
    call::CallOptions,
    client::Vim,
    error::{Call, Error, Result},
    property::{
        FilterSpec, ObjectSpec, PropertySpec, RawRow, UpdateCall,
        pages::{self, Source},
        waiter::{Bell, HASTY, Heard, PATIENCE, Waiter},
    },
    transport::BoxFuture,
};

/// What is to be followed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Source>,
    /// The objects are listed one by one: when all have left, nothing can come any more.
    pub(crate) by_name: bool,
    pub(crate) call: Option<UpdateCall>,
    pub(crate) page_size: Option<u32>,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    Output(Output),
    Woken,
}

/// Follows a plan. What the server holds for it is destroyed when it is dropped.
pub(crate) struct Follower {
    vim: Vim,
    machine: Machine,
    plan: Arc<[Vec<PropertySpec>]>,
    by_name: bool,
    queue: VecDeque<News>,
    progress: Progress,
    bell: Bell,
    /// The last answer did not wait; the next question does.
    hasty: bool,
}

enum Progress {
    Idle(Box<Waiter>),
    Busy(Job),
    Over,
}

type Job = BoxFuture<'static, (Box<Waiter>, Result<Done>)>;

/// What a job brought.
enum Done {
    Heard(Heard),
    Read { filter: usize, object: ManagedObjectReference, content: Option<ObjectContent> },
}

impl Follower {
    pub(crate) fn new(vim: &Vim, plan: Plan) -> Self {
        let selected: Arc<[_]> = plan.sources.iter().map(Source::properties).collect();
        let nothing = plan.by_name && plan.sources.iter().all(Source::is_empty);
        let mut waiter = Waiter::new(vim.clone(), plan.sources).page_size(plan.page_size);
        if let Some(call) = plan.call {
            waiter = waiter.call(call);
        }
        let bell = waiter.bell().clone();
        let (progress, queue) = match nothing {
            false => (Progress::Idle(Box::new(waiter)), VecDeque::new()),
            true => (Progress::Over, VecDeque::from([News::Output(Output::Complete)])),
        };
        let machine = Machine::new(selected.to_vec());
        Self { vim: vim.clone(), machine, plan: selected, by_name: plan.by_name, queue, progress, bell, hasty: false }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn row(&self, object: &ManagedObjectReference) -> Option<RawRow> {
        self.machine.row(object)
    }

    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<News>>> {
        loop {
            if let Some(news) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(news)));
            }
            match ready!(self.poll_job(cx, PATIENCE)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Takes in what there is by now, without waiting for more.
    pub(crate) async fn check(&mut self) -> Result<Vec<News>> {
        if matches!(self.progress, Progress::Busy(_)) {
            self.bell.ring();
        }
        while let Some(settled) = std::future::poll_fn(|cx| self.poll_job(cx, Duration::ZERO)).await {
            if settled? && self.machine.is_following() {
                break;
            }
        }
        Ok(self.queue.drain(..).filter(|news| *news != News::Woken).collect())
    }

    /// Destroys what the server holds and waits for that.
    pub(crate) async fn close(mut self) {
        match std::mem::replace(&mut self.progress, Progress::Over) {
            Progress::Idle(waiter) => waiter.finish().await,
            Progress::Busy(job) => {
                self.bell.ring();
                let (waiter, _) = job.await;
                waiter.finish().await;
            }
            Progress::Over => {}
        }
    }

    /// Goes on with the present job, or begins one. True when the server has nothing more to say at present; `None`
    /// when nothing can come any more.
    fn poll_job(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<Option<Result<bool>>> {
        loop {
            match std::mem::replace(&mut self.progress, Progress::Over) {
                Progress::Over => return Poll::Ready(None),
                Progress::Idle(_) if self.by_name && self.is_over() => {
                    // Dropping the waiter destroys what the server holds.
                    return Poll::Ready(None);
                }
                Progress::Idle(waiter) => self.progress = Progress::Busy(self.job(waiter, patience)),
                Progress::Busy(mut job) => {
                    let polled = job.as_mut().poll(cx);
                    if polled.is_pending() {
                        self.progress = Progress::Busy(job);
                    }
                    let (waiter, done) = ready!(polled);
                    let settled = done.and_then(|done| self.take(done));
                    // After an error that passes by itself the caller may ask again.
                    if settled.as_ref().err().is_none_or(Error::is_retryable) {
                        self.progress = Progress::Idle(waiter);
                    }
                    return Poll::Ready(Some(settled));
                }
            }
        }
    }

    /// No object is left, and none is being read.
    fn is_over(&self) -> bool {
        self.machine.is_following() && self.machine.len() == 0 && self.machine.unclear().is_none()
    }

    fn job(&mut self, mut waiter: Box<Waiter>, patience: Duration) -> Job {
        if let Some((filter, object)) = self.machine.unclear().cloned() {
            let (vim, plan) = (self.vim.clone(), Arc::clone(&self.plan));
            return Box::pin(async move {
                let properties = plan.get(filter).map_or(&[][..], Vec::as_slice);
                let done = match read(&vim, properties, &object).await {
                    Ok(content) => Ok(Done::Read { filter, object, content }),
                    Err(error) => Err(error),
                };
                (waiter, done)
            });
        }
        // While the whole is being told, the next part of it is there at once.
        let patience = if self.machine.is_following() { patience } else { Duration::ZERO };
        let pause = std::mem::take(&mut self.hasty) && !patience.is_zero();
        Box::pin(async move {
            if pause {
                tokio::time::sleep(HASTY).await;
            }
            let heard = waiter.next(patience).await;
            (waiter, heard.map(Done::Heard))
        })
    }

    /// Takes in what a job brought. True when the server has nothing more to say at present.
    fn take(&mut self, done: Done) -> Result<bool> {
        let mut settled = false;
        let input = match done {
            Done::Heard(Heard::Woken) => {
                self.queue.push_back(News::Woken);
                return Ok(false);
            }
            Done::Heard(Heard::Began(filters)) => Input::Began(filters),
            Done::Heard(Heard::Update(update)) => {
                settled = update.truncated != Some(true);
                Input::Updated(update)
            }
            Done::Heard(Heard::Nothing) => {
                settled = true;
                Input::Quiet
            }
            Done::Heard(Heard::Hasty) => {
                settled = true;
                self.hasty = true;
                Input::Quiet
            }
            Done::Read { filter, object, content } => {
                settled = self.machine.is_following();
                Input::Read { filter, object, content }
            }
        };
        let (machine, outputs) = std::mem::take(&mut self.machine).step(input);
        self.machine = machine;
        let told = outputs.into_iter().filter(|output| !matches!(output, Output::Unclear { .. }));
        self.queue.extend(told.map(News::Output));
        self.expect_bounds()?;
        Ok(settled && self.machine.unclear().is_none())
    }

    fn expect_bounds(&self) -> Result<()> {
        let broken = |what: String| {
            let collector = self.vim.content().property_collector.as_untyped();
            Err(Error::protocol(Call::on("WaitForUpdatesEx", collector), what))
        };
        if self.machine.len() > MAX_OBJECTS {
            return broken(format!("more than {MAX_OBJECTS} objects"));
        }
        if self.machine.idle_pages() >= MAX_IDLE_PAGES {
            return broken(format!("{MAX_IDLE_PAGES} pages that say nothing, and still no end"));
        }
        Ok(())
    }
}

/// Reads what a filter shows of one object; `None` when it is gone.
async fn read(
    vim: &Vim,
    properties: &[PropertySpec],
    object: &ManagedObjectReference,
) -> Result<Option<ObjectContent>> {
    let about = properties.iter().filter(|spec| spec.is_about(object)).cloned();
    let filter = about.fold(FilterSpec::new(), FilterSpec::read).start(ObjectSpec::from(object.clone()));
    let once = async || match pages::retrieve(vim, &filter, CallOptions::default()).await {
        Ok(contents) => Ok(contents.into_iter().find(|content| content.obj == *object)),
        Err(error) if error.is_fault("ManagedObjectNotFound") => Ok(None),
        Err(error) => Err(error),
    };
    let generation = vim.session().generation();
    let content = once().await?;
    // Nothing, or nothing readable, is also what an expired session gets to see.
    let doubtful = content.as_ref().is_none_or(pages::lacks_authentication);
    if doubtful && !vim.session_is_alive().await? && vim.log_in_again(generation).await? {
        return once().await;
    }
    Ok(content)
}

/// Far beyond the largest vCenter; a server that names more is broken or hostile.
const MAX_OBJECTS: usize = 1 << 20;

/// Pages in a row that may announce another one and say nothing. Servers are not known to send even one.
const MAX_IDLE_PAGES: u32 = 16;
