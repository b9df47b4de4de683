//! What happens when something goes wrong, and what is promised then.
//!
//! # Promises
//! - **No half point.** A recovery point is visible when its manifest is there, which is created last, at once and
//!   exclusively. Before that nothing lists it.
//! - **Nothing old changes.** A point is never written to again; chunks are shared and checked against their names when
//!   they are read.
//! - **What is done to a server is undone**: on success, error and cancelling at the end of the run; when the process
//!   died, by the next run of the same machine, through its journal; when the journal is lost with its computer, by the
//!   [`reaper`](crate::reaper).
//! - **The first error is the one that is returned.** What could not be undone besides is in
//!   [`BackupReport::leftovers`](crate::BackupReport) and in the journal.
//! - **A failed backup is not for nothing**: chunks that were stored are found by the next one.
//!
//! # Ways to stop
//!
//! | Call | Machines that run | Machines that wait | Servers |
//! |---|---|---|---|
//! | [`RunningJob::stop_gracefully`](crate::job::RunningJob::stop_gracefully) | come to their end, with their points | are not begun | as after success |
//! | [`CancelToken::cancel_gracefully`](crate::CancelToken::cancel_gracefully) | end the disks that are being read; no point | are not begun | undone |
//! | [`CancelToken::cancel`](crate::CancelToken::cancel), dropping a future or a handle | stop reading at once; no point | are not begun | undone, in the background if need be |
//! | [`CancelToken::abandon`](crate::CancelToken::abandon) | stop as in a crash; no point | are not begun | left to the journal and the next run |
//!
//! # What a job makes of it
//!
//! | What fails | The machine's state | The others |
//! |---|---|---|
//! | looking the machines up | the job fails, nothing was begun | |
//! | one machine, by a cause that may pass | tried again later; then `Failed` | go on |
//! | one machine, for good | `Failed`, with kind, phase, step, guidance and the server's own name for it | go on, unless [`OnFailure::Stop`](crate::job::OnFailure::Stop) |
//! | verification finds damage | `Damaged`; the point stays, to be looked at | go on, unless `OnFailure::Stop` |
//! | verification cannot be done | `Unverified`, with the error; the point stays, and no retention is applied | go on |
//! | retention cannot be applied | `DoneWithWarnings`, with the error; what is too old goes another time | go on |
//! | undoing | `DoneWithWarnings` with leftovers, or `Failed` | go on |
//!
//! # Events
//! Of [tasks](crate::task) every state arrives, in order, however slow the consumer is; of progress the newest. A
//! total says whether it is known or estimated; when nothing is known it says so.
