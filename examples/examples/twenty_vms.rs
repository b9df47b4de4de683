//! Backs up many machines as one job, with a live view on the terminal.
//!
//! ```sh
//! twenty_vms --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. \
//!            --vm dc1/vm/any --select 'dc1/vm/production/**' --repository DIR --journal DIR
//! twenty_vms --simulate
//! ```
//! Ctrl-C begins no further machine; a second one cancels those that run, and undoes what was done to the server.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use examples::args::Args;
use examples::show::{bytes, seconds, table};
use examples::world::{WORLD_ARGS, World, connect};
use futures_util::StreamExt as _;
use vsphere_backup::Job;
use vsphere_backup::job::Selection;
use vsphere_backup::repository::{CreateOptions, Repository, VerifyLevel};
use vsphere_backup::schedule::{ScheduleLimits, Scheduler};
use vsphere_backup::task::{Figures, TaskChange, TaskEvent, TaskId, TaskKind, Total};
use vsphere_sim::{DiskSpec, Simulator, VmSpec};
use vsphere_vim::Vim;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["select=", "repository=", "journal="]].concat())?;
    if !args.has("simulate") {
        let world = World::open(&args).await?;
        let (repository, journal) = (args.need("repository")?, args.need("journal")?);
        let repository = Repository::open_local(repository).await?;
        run(&world.vim, Selection::path(args.need("select")?), &repository, journal.into()).await?;
        return world.close().await;
    }
    let machine = |number| VmSpec::new(&format!("vm-{number:02}")).disk(DiskSpec::empty(8 << 20)).change_tracking(true);
    let simulator = (1..=20).map(machine).fold(Simulator::builder(), |builder, vm| builder.vm(vm)).start().await?;
    for number in 1..=20_u8 {
        let data = vec![number; usize::from(number) << 17];
        simulator.guest(&format!("vm-{number:02}"))?.disk(2000)?.write_at(0, &data)?;
    }
    let folder = tempfile::tempdir()?;
    let repository = Repository::create_local(folder.path().join("repository"), CreateOptions::default()).await?;
    let vim = connect(&simulator).await?;
    run(&vim, Selection::all(&vim), &repository, folder.path().join("journal")).await?;
    vim.logout().await?;
    let left = simulator.settled(Duration::from_secs(2)).await;
    simulator.shutdown().await;
    if left.is_clean() { Ok(()) } else { Err(format!("left behind on the server: {left:?}").into()) }
}

async fn run(vim: &Vim, machines: Selection, repository: &Repository, journal: PathBuf) -> Result<(), Box<dyn Error>> {
    // One scheduler for all jobs of the process: at most six machines at once, two snapshots on a datastore.
    let scheduler = Scheduler::new(ScheduleLimits::default().machines(6).per_datastore(2));
    let job = Job::new("nightly", machines).journal(journal).scheduler(&scheduler).verify(VerifyLevel::Structure);
    let mut events = job.events();
    let running = job.start(vim, repository);
    let (mut view, mut interrupted) = (View::default(), false);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => view.show(event),
                None => break,
            },
            _ = tokio::signal::ctrl_c() => {
                if std::mem::replace(&mut interrupted, true) { running.cancel() } else { running.stop_gracefully() }
            }
        }
    }
    let report = running.finish().await?;
    let rows = report.machines.iter().map(|machine| {
        let read: u64 = machine.disks.iter().map(|disk| disk.bytes.read).sum();
        let error = machine.error.as_ref().map_or(String::new(), |error| error.message.clone());
        let figures = [bytes(read), bytes(machine.stored), seconds(machine.elapsed), error];
        [machine.name.clone(), format!("{:?}", machine.state)].into_iter().chain(figures).collect()
    });
    table(&["machine", "state", "read", "stored", "time", "error"], &rows.collect::<Vec<_>>());
    println!("{} machines in {}", report.machines.len(), seconds(report.elapsed));
    if report.is_complete() { Ok(()) } else { Err("not every machine was backed up".into()) }
}

/// A line for each job, machine and disk that runs, drawn in place.
#[derive(Default)]
struct View {
    tasks: BTreeMap<TaskId, Line>,
    drawn: usize,
}

#[derive(Default)]
struct Line {
    parent: Option<TaskId>,
    name: String,
    phase: String,
    figures: Figures,
}

impl View {
    fn show(&mut self, event: TaskEvent) {
        match event.change {
            TaskChange::Begun(kind) => {
                let name = match kind {
                    TaskKind::Job { name } => format!("job {name}"),
                    TaskKind::Machine { name, .. } => name,
                    TaskKind::Disk { label, transport, .. } => format!("{label} ({transport})"),
                    _ => return,
                };
                self.tasks.insert(event.task, Line { parent: event.parent, name, ..Line::default() });
            }
            TaskChange::Phase(phase) => drop(self.tasks.entry(event.task).and_modify(|line| line.phase = phase)),
            TaskChange::Progress(at) => drop(self.tasks.entry(event.task).and_modify(|line| line.figures = at)),
            TaskChange::Ended(outcome) => {
                let Some(line) = self.tasks.remove(&event.task) else { return };
                if !std::io::stdout().is_terminal() && !line.phase.is_empty() {
                    println!("{}: {outcome:?}", line.name);
                }
            }
            _ => {}
        }
        if std::io::stdout().is_terminal() {
            self.draw();
        }
    }

    fn draw(&mut self) {
        // Up to the first line that was drawn, and everything below it is cleared.
        let mut screen = if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() };
        for (task, line) in self.tasks.iter().filter(|(_, line)| line.parent.is_none()) {
            self.lines(*task, line, 0, &mut screen);
        }
        self.drawn = screen.matches('\n').count();
        print!("{screen}");
    }

    fn lines(&self, task: TaskId, line: &Line, depth: usize, screen: &mut String) {
        let Figures { read, total, rate, .. } = line.figures;
        let total = match total {
            Total::Known(total) if total > 0 => format!(" of {}", bytes(total)),
            Total::Estimated(total) if total > 0 => format!(" of about {}", bytes(total)),
            _ => String::new(),
        };
        let name = format!("{:depth$}{}", "", line.name, depth = 2 * depth);
        screen.push_str(&format!("{name:<32} {:<18} {}{total}, {}/s\n", line.phase, bytes(read), bytes(rate)));
        for (below, child) in self.tasks.iter().filter(|(_, child)| child.parent == Some(task)) {
            self.lines(*below, child, depth + 1, screen);
        }
    }
}
