//! Every default, and why.
//!
//! # One machine: [`Backup`](crate::Backup)
//!
//! | Option | Default | Why |
//! |---|---|---|
//! | `journal` | none: it has to be named | Only the caller knows a folder that outlives a crash and is the same for every run. |
//! | `since` | [`Since::Latest`](crate::Since::Latest) | Each point is a full image; going on from the newest sound one reads the least. |
//! | `quiesce` | [`Quiesce::No`](crate::Quiesce::No) | Quiescing can stop a guest for many seconds: that is the caller's to decide. The point records what was achieved. |
//! | `transports` | `nbdssl` | It works wherever there is a network to the host, and is encrypted. Clear text is used only where it is named. |
//! | `parallel_disks` | 4 | Hosts answer more with several disks at once, and each takes a connection and memory of the host. |
//! | `memory` | 32 MiB | Eight runs of 4 MiB in flight hide the latency of a network. With a [`Scheduler`](crate::schedule::Scheduler), its budget counts instead. |
//! | `retries` | four tries, pauses of 1, 2 and 4 s | Tasks of others on a machine and locked files pass in seconds. Only steps whose failure passes by itself are tried again. |
//! | `settle_within` | 10 minutes | So long may others' snapshot tasks and merges take before this job gives the machine up. |
//! | `resume_within` | 4 hours, at most 12 | An interrupted job's snapshot grows with every write of the guest; an older one is removed rather than used. |
//! | `checkpoint_every` | 1 minute | An interruption costs at most the reading of the last minute. |
//!
//! # Many machines: [`Job`](crate::Job)
//!
//! | Option | Default | Why |
//! |---|---|---|
//! | `on_failure` | [`OnFailure::Continue`](crate::job::OnFailure::Continue) | Machines have nothing to do with each other. |
//! | `attempts` | 2, the second after 1 minute | On top of a backup's own tries; its place is another's meanwhile. |
//! | `verify` | not | It reads the repository as much as the backup wrote, or more. [`VerifyLevel::Structure`](crate::repository::VerifyLevel::Structure) is cheap. |
//! | `scheduler` | one of the job's own | Jobs that share a vCenter should share one. |
//! | `retention` | not | What is deleted is for the caller to say. It follows a new, sound point, machine by machine. |
//! | templates | not selected unless named | They seldom change, and are read in full each time: no snapshot of one can be made. |
//!
//! # Limits: [`ScheduleLimits`](crate::schedule::ScheduleLimits)
//!
//! | Limit | Default | Why |
//! |---|---|---|
//! | machines of this process | 8 | With four disks each, 32 connections: below the 52 that VMware documents for one vCenter. |
//! | through one vCenter | 16 | Each costs tasks and sessions there. |
//! | on one host | 4 | A host's NFC service has 48 MiB of buffers for all disks. |
//! | with a snapshot on one datastore | 4 | Each snapshot takes space and writes of its own. |
//! | memory of all jobs | 128 MiB | Four machines' worth; disks take turns for it. |
//! | bandwidth | unlimited | A [`BandwidthTable`](crate::schedule::BandwidthTable) says otherwise by the time of day. |
//! | patience | 8 | So often is a machine passed over by others that take of what it needs, before that is kept for it. |
