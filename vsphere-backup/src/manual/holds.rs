//! Who holds what when.
//!
//! | What | Where | From | To | If the process dies |
//! |---|---|---|---|---|
//! | place in the [`Scheduler`](crate::schedule::Scheduler) | this process | the machine's turn | its snapshot is gone, also when the job was dropped | nothing is left |
//! | journal of the machine | the journal's folder, locked | before anything is changed | the machine is as it was | the lock goes with the process, the journal stays for the next run |
//! | writer's lease | repository | before the first chunk | the point is committed or given up | it ends by its time to live; whoever declares it dead takes the point's name, so that it cannot commit late |
//! | lock against migration | vCenter | before the snapshot | after its removal | the next run releases it, or the [`reaper`](crate::reaper) |
//! | snapshot, with the job's marker in its description | the machine | after the journal says so | after the commit, or at once when the job fails | the next run goes on with it or removes it, or the reaper removes it |
//! | what is in no point of a [store of others](crate::store) | that store | the journal names job and store | it is in a point, or freed at the end of the job | the next run into the same store goes on with it or frees it |
//! | connection and session of a disk | host | the disk is opened | it is closed | the host ends it |
//! | place in the governor | this process | before the disk is opened | the host has confirmed that it is closed | nothing is left |
//! | bytes of the budget | this process | before a run is read | it is stored | nothing is left |
//! | [`Pin`](crate::repository::Pin) | repository | before verification reads the point | it has ended | it ends by its time to live |
//!
//! The order of taking is the order of this table from top to bottom, and of giving back from bottom to top; [`step`](crate::step)
//! has each call in it. While a job waits for its turn it holds nothing on a server.
