//! Processes that the kernel ends: what a runtime that is torn down cannot show, such as locks of files and sockets that
//! only the death of a process gives back, and files of a repository that are half written.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use vsphere_backup::{
    CancelToken, Clock, Error, Result,
    repository::{
        PointId, Repository,
        storage::{self, Faulty, LocalStorage, Storage},
    },
    step::Step,
};
use vsphere_vim::{
    MoRef,
    fcd::{FcdId, FcdRef},
};

use crate::{
    case::{Fault, groups_of_processes},
    login::Login,
    panics,
    scene::{Job, Scene, place},
    trip::{How, Trip},
};

impl Scene {
    /// Runs the flow in a process of its own, which is killed when it has come to the place of the fault.
    pub(crate) async fn kill_process(&mut self, fault: Fault) -> Result<()> {
        let (job, login) = (self.job(), self.login());
        let disk = job.disk.as_ref();
        let told = json!({
            "group": groups_of_processes().iter().position(|group| *group == self.group),
            "vm": job.vm.value(),
            "disk": disk.map(|disk| disk.id.as_str()),
            "datastore": disk.and_then(|disk| disk.datastore.as_ref()).map(MoRef::value),
            "tracked": job.tracked,
            "journals": job.journals,
            "base": job.base.map(|base| base.to_string()),
            "repository": self.repository_folder(),
            "url": login.url,
            "user": login.user,
            "password": login.password,
            "pin": login.pin.to_string(),
            "place": match fault {
                Fault::Step(step, number, how) => json!([step.name(), number, how == How::KillAfter]),
                Fault::Storage(operation, _) => json!(operation),
            },
        });
        let ended = tokio::task::spawn_blocking(move || kill_at_its_word(&told)).await.unwrap();
        self.note(fault, ended.is_none());
        match ended {
            None => Err(Error::Abandoned),
            Some(ended) if ended == FINE => Ok(()),
            Some(ended) => Err(Error::Invalid { what: ended }),
        }
    }
}

/// Starts a process, and kills it when it says that it is there; returns what came of the flow when it ended before.
fn kill_at_its_word(told: &Value) -> Option<String> {
    let child = Command::new(env::current_exe().unwrap())
        .args(["process_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env(TOLD, told.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::io::Result::ok);
    let word = lines.find(|line| [THERE, ENDED, PANICKED].iter().any(|word| line.contains(word)));
    child.kill().unwrap();
    child.wait().unwrap();
    let word = word.unwrap_or_else(|| panic!("a process ended without a word: {told}"));
    assert!(!word.contains(PANICKED), "{word}: {told}");
    word.split_once(ENDED).map(|(_, ended)| ended.to_owned())
}

/// Does what the environment says, and comes to its end only when it does not come to the place. Without a word there
/// it does nothing: somebody runs all tests.
pub(crate) async fn work() {
    let Ok(told) = env::var(TOLD) else { return };
    // When whoever started this is gone, so is this.
    thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    panics::watch();
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |name: &str| told[name].as_str().map(str::to_owned);
    let login = Login {
        url: text("url").unwrap(),
        user: text("user").unwrap(),
        password: text("password").unwrap(),
        pin: text("pin").unwrap().parse().unwrap(),
    };
    let vim = login.connect().await;
    let disk = text("disk").map(|id| {
        let datastore = text("datastore").map(|datastore| MoRef::new(&datastore));
        FcdRef { datastore, ..FcdRef::from(FcdId::new(id)) }
    });
    let job = Job {
        flow: groups_of_processes()[told["group"].as_u64().unwrap() as usize].flow,
        vm: MoRef::new(&text("vm").unwrap()),
        journals: PathBuf::from(text("journals").unwrap()),
        base: text("base").map(|base| PointId::parse(&base).unwrap()),
        place: place(&vim).await,
        disk,
        tracked: told["tracked"] == true,
        clock: Clock::default(),
    };
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(text("repository").unwrap()).unwrap());
    let at = &told["place"];
    let operation = at.as_u64().unwrap_or(u64::MAX);
    let faulty = Arc::new(Faulty::new(storage, operation, storage::Fault::Hang));
    let trip = Trip::new(at[0].as_str().map(|step| {
        let how = if at[2] == true { How::KillAfter } else { How::Kill };
        (Step::by_name(step).unwrap(), at[1].as_u64().unwrap() as usize, how)
    }));
    let work = async {
        let repository = Repository::open(faulty.clone()).await?;
        job.run(&vim, &repository, &trip, &CancelToken::new()).await
    };
    let reached = async {
        while faulty.operations() <= operation {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended = tokio::select! {
        // What comes of it is judged by whoever started this.
        done = work => Some(format!("{ENDED}{done:?}")),
        () = trip.tripped.notified() => None,
        () = reached => None,
    };
    let panics = panics::take();
    match ended {
        _ if !panics.is_empty() => println!("{PANICKED}{panics:?}"),
        Some(ended) => println!("{ended}"),
        None => {
            println!("{THERE}");
            std::future::pending().await
        }
    }
}

const TOLD: &str = "FAULT_MATRIX_PROCESS";
const THERE: &str = "the place is reached";
const ENDED: &str = "the flow ended: ";
const PANICKED: &str = "there were panics: ";
const FINE: &str = "Ok(())";
