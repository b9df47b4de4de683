//! What stands at every step of a job: it notes the moment of a snapshot, lets the guest write and stops the job.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;
use vsphere_backup::{
    CancelToken, Result,
    repository::storage::BoxFuture,
    step::{Step, StepCall, StepHook},
};

use crate::{
    machine::Machine,
    op::{How, Stop, Write},
};

pub(crate) struct Watch {
    machine: Arc<Machine>,
    stop: Option<Stop>,
    meanwhile: Vec<(u64, Write)>,
    /// Moments that have passed.
    moments: AtomicU64,
    /// The snapshot is being made: nobody knows which writes it holds.
    making: AtomicBool,
    pub(crate) cancel: CancelToken,
    pub(crate) killed: Notify,
}

impl Watch {
    pub(crate) fn new(machine: &Arc<Machine>, stop: Option<Stop>, meanwhile: &[(u64, Write)]) -> Arc<Self> {
        Arc::new(Self {
            machine: machine.clone(),
            stop,
            meanwhile: meanwhile.to_vec(),
            moments: AtomicU64::new(0),
            making: AtomicBool::new(false),
            cancel: CancelToken::new(),
            killed: Notify::new(),
        })
    }

    pub(crate) fn how(&self) -> Option<How> {
        self.stop.map(|stop| stop.how)
    }

    async fn meet(&self) -> Result<()> {
        let moment = self.moments.fetch_add(1, Ordering::Relaxed);
        match self.stop {
            Some(stop) if stop.moment == moment => match stop.how {
                How::Kill => {
                    self.killed.notify_one();
                    std::future::pending().await
                }
                How::Abandon => self.cancel.abandon(),
                How::Cancel => self.cancel.cancel(),
            },
            _ => {}
        }
        Ok(())
    }
}

impl StepHook for Watch {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        if call.step == Step::CreateSnapshot {
            self.making.store(true, Ordering::Relaxed);
            self.machine.note_moment();
        }
        if !self.making.load(Ordering::Relaxed) {
            let now = self.meanwhile.iter().filter(|(at, _)| *at == call.call);
            now.for_each(|(_, write)| self.machine.write(write));
        }
        Box::pin(self.meet())
    }

    fn after<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        if call.step == Step::AwaitSnapshot {
            self.making.store(false, Ordering::Relaxed);
        }
        Box::pin(self.meet())
    }
}
