//! Asynchronous operations that the library has not finished yet.
//!
//! The library gets a number as its "user data", never an address. Whatever it calls back with is looked up: a second
//! call, a late one or a wrong number finds nothing and does nothing.

use std::{
    collections::HashMap,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{code::VixError, types::CompletionFunc};

/// What is to be done with the library's verdict. It owns the buffer until then.
pub(super) type Finish = Box<dyn FnOnce(Verdict) + Send>;

/// How an operation ended.
pub(super) enum Verdict {
    /// As the library says.
    Done(VixError),
    /// The function returned success instead of `VIX_ASYNC`, and no word came: nothing says that anything was done.
    NotBegun,
    /// Its disk was closed and the library never said a word. The buffer must not be freed: nobody knows.
    NeverAnswered,
}

/// The operations of one disk that are under way.
#[derive(Default)]
pub(super) struct Flight {
    count: Mutex<usize>,
    landed: Condvar,
}

/// An operation that was entered: the number to give to the library.
pub(super) struct Entry {
    number: usize,
}

struct Pending {
    finish: Finish,
    flight: Arc<Flight>,
}

impl Flight {
    /// Enters an operation before the library is called with it.
    pub(super) fn enter(self: &Arc<Self>, finish: Finish) -> Entry {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        *self.count() += 1;
        table().insert(number, Pending { finish, flight: Arc::clone(self) });
        Entry { number }
    }

    /// Waits until fewer than `limit` are under way.
    pub(super) fn wait_below(&self, limit: usize) {
        let count = self.landed.wait_while(self.count(), |count| *count >= limit);
        drop(count.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until none is under way, but not for ever. True when none is.
    pub(super) fn wait_none(&self, at_most: Duration) -> bool {
        let count = self.landed.wait_timeout_while(self.count(), at_most, |count| *count > 0);
        *count.unwrap_or_else(PoisonError::into_inner).0 == 0
    }

    /// Ends what is still under way after the disk was closed.
    pub(super) fn give_up(self: &Arc<Self>) {
        let mine = |pending: &Pending| Arc::ptr_eq(&pending.flight, self);
        let numbers: Vec<_> = table().iter().filter(|(_, pending)| mine(pending)).map(|(number, _)| *number).collect();
        for number in numbers {
            finish(number, Verdict::NeverAnswered);
        }
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The function and the data for the library.
    pub(super) fn to_c(&self) -> (Option<CompletionFunc>, *mut c_void) {
        (Some(completed), std::ptr::without_provenance_mut(self.number))
    }

    /// After the call: anything but `VIX_ASYNC` means that the operation has not begun and there will be no word of it.
    pub(super) fn called(self, answer: VixError) {
        match answer {
            answer if answer.is_async() => {}
            VixError::OK => finish(self.number, Verdict::NotBegun),
            refused => finish(self.number, Verdict::Done(refused)),
        }
    }
}

/// Called by the library, on any thread, also inside of the call that began the operation.
unsafe extern "C" fn completed(data: *mut c_void, result: VixError) {
    finish(data.addr(), Verdict::Done(result));
}

fn finish(number: usize, verdict: Verdict) {
    // A statement of its own: the table is not locked while the operation is finished.
    let found = table().remove(&number);
    let Some(Pending { finish, flight }) = found else { return };
    // A panic must not pass through C; the answer is then that the thread is gone.
    let _ = catch_unwind(AssertUnwindSafe(|| finish(verdict)));
    *flight.count() -= 1;
    flight.landed.notify_all();
}

fn table() -> MutexGuard<'static, HashMap<usize, Pending>> {
    static TABLE: LazyLock<Mutex<HashMap<usize, Pending>>> = LazyLock::new(Mutex::default);
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long completions may lag behind `Wait`, which has waited for them already.
pub(super) const LAG: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, time::Instant};

    use super::*;
    use crate::code::VixCode;

    #[test]
    fn a_second_word_on_the_same_operation_finds_nothing() {
        let flight = Arc::new(Flight::default());
        let (told, heard) = channel();
        let entry = flight.enter(Box::new(move |verdict| {
            let Verdict::Done(error) = verdict else { panic!() };
            told.send(error).unwrap();
        }));
        let (function, data) = entry.to_c();
        for result in [VixError::OK, VixCode::FAIL.into()] {
            // SAFETY: our own function, which takes any number.
            unsafe { function.unwrap()(data, result) };
        }
        entry.called(VixCode::ASYNC.into());
        assert_eq!(heard.iter().collect::<Vec<_>>(), [VixError::OK]);
        assert!(flight.wait_none(Duration::ZERO));
    }

    #[test]
    fn a_refused_operation_ends_with_the_refusal() {
        let flight = Arc::new(Flight::default());
        let (told, heard) = channel();
        let entry = flight.enter(Box::new(move |verdict| {
            let Verdict::Done(error) = verdict else { panic!() };
            told.send(error.code()).unwrap();
        }));
        entry.called(VixCode::DISK_OUTOFRANGE.into());
        assert_eq!(heard.recv().unwrap(), VixCode::DISK_OUTOFRANGE);
        flight.wait_below(1);
    }

    #[test]
    fn success_in_place_of_a_beginning_is_no_success() {
        let flight = Arc::new(Flight::default());
        let (told, heard) = channel();
        flight
            .enter(Box::new(move |verdict| told.send(matches!(verdict, Verdict::NotBegun)).unwrap()))
            .called(VixError::OK);
        assert!(heard.recv().unwrap());
    }

    #[test]
    fn what_is_never_answered_is_given_up_after_the_disk_was_closed() {
        let (mine, other) = (Arc::new(Flight::default()), Arc::new(Flight::default()));
        let (told, heard) = channel();
        let _ = mine.enter(Box::new(move |verdict| told.send(matches!(verdict, Verdict::NeverAnswered)).unwrap()));
        let kept = other.enter(Box::new(|_| {}));
        let begun = Instant::now();
        assert!(!mine.wait_none(Duration::from_millis(10)) && begun.elapsed() >= Duration::from_millis(10));
        mine.give_up();
        assert!(heard.recv().unwrap() && mine.wait_none(Duration::ZERO));
        assert!(!other.wait_none(Duration::ZERO), "only this disk's");
        kept.called(VixError::OK);
    }
}
