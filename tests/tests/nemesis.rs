//! `make nemesis SEED=… SECONDS=…`: three nodes under one fault after another, chosen by a seed, while clients write to
//! each other and resume their streams anywhere; then all that they have seen is checked (`src/nemesis/checker.rs`).
//!
//! The last line says the figures. With root, `ip` and `nft` the network is cut too.

#![allow(clippy::print_stdout, reason = "a test harness speaks to its terminal")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use althing_tests::admin;
use althing_tests::cluster::{CLOSE, DOWN, SHORT_TIMES, TestCluster};
use althing_tests::deadline::{number, within_time};
use althing_tests::lab::Lab;
use althing_tests::login::Account;
use althing_tests::nemesis::checker::{Breach, Figures, Rules, check};
use althing_tests::nemesis::crowd::{Crowd, Stage};
use althing_tests::nemesis::log::Log;
use althing_tests::nemesis::person::Person;
use althing_tests::nemesis::plan::{Fault, Kind, Plan};
use althing_tests::setup::DOMAIN;
use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const NODES: usize = 3;
const CLIENTS: usize = 9;
/// How long the cluster may take until every client is served again: on a crowded machine.
const HEAL: Duration = Duration::from_secs(90);
/// As much is needed to say that something was tried: a run goes on until then, twice its time at most.
const LEAST_FAULTS: usize = 5;
const LEAST_ACKNOWLEDGED: usize = 5_000;
/// What is added to the times of the configuration: an election, a crowded machine.
const LATE: Duration = Duration::from_secs(8);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// A settle gathers for a second; on a crowded machine it takes a while more.
const SETTLE_MS: u64 = 4_000;
/// Most breaches of a kind that are shown.
const SHOWN: usize = 6;

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let network = match (Lab::inside(), Lab::missing()) {
        (Some(lab), _) => Some(lab),
        (None, Some(reason)) => {
            println!("the network is left alone: that {reason}");
            None
        }
        (None, None) => {
            return match Lab::run(NODES, "nemesis") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(report(network)),
        Err(error) => {
            println!("no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How the run went, the figures last.
async fn report(network: Option<Lab>) -> ExitCode {
    let seed = number("ALTHING_NEMESIS_SEED", 1) as u64;
    let seconds = number("ALTHING_NEMESIS_SECONDS", 60) as u64;
    let began = Instant::now();
    let (faults, outcome) = match Scene::open(network, seed).await {
        Ok(mut scene) => {
            let outcome = Box::pin(scene.run(Duration::from_secs(seconds))).await;
            if outcome.is_err() {
                scene.show_logs();
            }
            if let Err(error) = scene.write_logs() {
                println!("the logs of the nodes cannot be written: {error}");
            }
            (std::mem::take(&mut scene.faults), outcome)
        }
        Err(error) => (Vec::new(), Err(error)),
    };
    let (figures, held) = match outcome {
        Ok(logs) => {
            let (figures, breaches) = check(&logs, Rules { settle_ms: SETTLE_MS, faults: &faults });
            show(&breaches, &logs);
            if let Err(error) = write(&logs) {
                println!("the logs cannot be written: {error}");
            }
            let enough = faults.len() >= LEAST_FAULTS && figures.acknowledged >= LEAST_ACKNOWLEDGED;
            if !enough {
                println!(
                    "too little happened: {} faults, {} acknowledged",
                    faults.len(),
                    figures.acknowledged
                );
            }
            (figures, enough && breaches.is_empty())
        }
        Err(error) => {
            println!("the run was broken off: {error:#}");
            (Figures::default(), false)
        }
    };
    let word = if held { "held" } else { "FAILED" };
    let (time, faults) = (began.elapsed().as_secs(), faults.len());
    println!("nemesis {word}: seed {seed} seconds {time} faults {faults} {figures}");
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(breaches: &[Breach], logs: &[Log]) {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for breach in breaches {
        let count = kinds.entry(breach.word()).or_default();
        *count += 1;
        if *count > SHOWN {
            continue;
        }
        println!("BREACH {breach:?}");
        let (Breach::Lost(number)
        | Breach::Again(number)
        | Breach::Doubled(number)
        | Breach::OutOfOrder { late: number, .. }) = breach
        else {
            continue;
        };
        for (client, log) in logs.iter().enumerate() {
            for (at, entry) in log.about(*number) {
                println!("    {at:>7} ms  client {client}: {entry:?}");
            }
        }
    }
    if !kinds.is_empty() {
        println!("breaches in all: {kinds:?}");
    }
}

/// Where logs are written to, if that is named.
fn folder() -> Option<PathBuf> {
    std::env::var_os("ALTHING_NEMESIS_LOGS").map(PathBuf::from)
}

/// Writes the logs of all clients.
fn write(logs: &[Log]) -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    for (client, log) in logs.iter().enumerate() {
        let lines: Vec<String> = log.0.iter().map(|(at, entry)| format!("{at} {entry:?}\n")).collect();
        std::fs::write(folder.join(format!("client-{client}")), lines.concat())?;
    }
    Ok(())
}

struct Scene {
    network: Option<Lab>,
    cluster: TestCluster,
    crowd: Arc<Crowd>,
    stage: watch::Sender<Stage>,
    people: Vec<JoinHandle<Log>>,
    progress: JoinHandle<()>,
    plan: Plan,
    /// From when to when each was there or not over yet.
    faults: Vec<(u64, u64)>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.progress.abort();
        self.people.iter().for_each(JoinHandle::abort);
    }
}

impl Scene {
    async fn open(network: Option<Lab>, seed: u64) -> Result<Scene> {
        let mut cluster = match &network {
            Some(lab) => TestCluster::on_hosts(&lab.hosts(), SHORT_TIMES).await?,
            None => TestCluster::prepare(NODES, SHORT_TIMES).await?,
        };
        cluster.start_all().await?;
        let accounts: Vec<Account> = (0..CLIENTS).map(|_| Account::fresh("person")).collect();
        for account in &accounts {
            let (data, jid) = (cluster.node(0).setup().data(), account.bare(DOMAIN));
            admin::add_user(&data, &jid, &account.password).await?;
        }
        let crowd = Arc::new(Crowd::new(cluster.endpoints(), accounts, seed));
        let (stage, stages) = watch::channel(Stage::Talk);
        let person = |own| tokio::spawn(Person::new(own, Arc::clone(&crowd), stages.clone()).live());
        let people = (0..CLIENTS).map(person).collect();
        let told = Arc::clone(&crowd);
        let progress = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PROGRESS).await;
                println!("{:>4} s  {}", told.now() / 1_000, told.progress());
            }
        });
        let plan = Plan::new(seed, NODES, network.is_some());
        let mut scene = Scene { network, cluster, crowd, stage, people, progress, plan, faults: Vec::new() };
        scene.until_served(0).await?;
        Ok(scene)
    }

    /// Faults until the time is over, then all that is still out.
    async fn run(&mut self, time: Duration) -> Result<Vec<Log>> {
        let began = Instant::now();
        let is_enough = |faults, crowd: &Crowd| {
            faults >= LEAST_FAULTS && crowd.progress().acknowledged >= LEAST_ACKNOWLEDGED
        };
        while began.elapsed() < time
            || (!is_enough(self.faults.len(), &self.crowd) && began.elapsed() < 2 * time)
        {
            let fault = self.plan.next().context("no more faults")?;
            tokio::time::sleep(fault.peace).await;
            let struck = self.crowd.now();
            self.strike(fault).await.with_context(|| format!("{fault:?}"))?;
            self.faults.push((struck, self.crowd.now()));
        }
        self.stage.send_replace(Stage::Settle);
        self.until(HEAL, "all that was written acknowledged", |crowd| {
            let behind = crowd.behind(Stage::Settle);
            (!behind.is_empty()).then(|| format!("clients {behind:?} are not there"))
        })
        .await?;
        self.stage.send_replace(Stage::Collect);
        self.until(HEAL, "all back once more", |crowd| {
            let behind = crowd.behind(Stage::Collect);
            (!behind.is_empty()).then(|| format!("clients {behind:?} are not there"))
        })
        .await?;
        // What does not come now is lost; the checker says what that is.
        let collected = self.until(HEAL / 2, "all that is owed", |crowd| {
            let progress = crowd.progress();
            (progress.owed > 0).then(|| progress.to_string())
        });
        if let Err(error) = collected.await {
            println!("{error:#}");
        }
        self.stage.send_replace(Stage::Leave);
        let mut logs = Vec::new();
        for person in self.people.drain(..) {
            logs.push(within_time(HEAL, "leaving", async { Ok(person.await?) }).await?);
        }
        Ok(logs)
    }

    async fn strike(&mut self, fault: Fault) -> Result<()> {
        let Fault { kind, node, hold, .. } = fault;
        println!("{:>4} s  {kind:?} node-{node}", self.crowd.now() / 1_000);
        let (others, struck) = (self.cluster.others(node), tokio::time::Instant::now());
        match kind {
            Kind::Kill => self.cluster.node_mut(node).kill()?,
            Kind::Stop => self.cluster.node(node).pause()?,
            Kind::Terminate => {
                let ended = self.cluster.node_mut(node).terminate().await?;
                ensure!(ended, "the node did not report success");
            }
            Kind::Cut | Kind::Mute | Kind::Deaf => {
                let lab = self.network.as_ref().context("no network of its own")?;
                for other in &others {
                    if kind != Kind::Deaf {
                        lab.cut(node, *other)?;
                    }
                    if kind != Kind::Mute {
                        lab.cut(*other, node)?;
                    }
                }
            }
        }
        let name = format!("node-{node}");
        self.cluster
            .wait_until(CLOSE + DOWN + LATE, "its addresses given away", |view| {
                others.iter().all(|other| view[*other].as_ref().is_some_and(|s| s.state_of(&name) == "down"))
            })
            .await?;
        // Sooner than that is who is known to be dead.
        tokio::time::sleep_until(struck + DOWN + hold).await;
        match kind {
            Kind::Kill | Kind::Terminate => self.cluster.node_mut(node).restart().await?,
            Kind::Stop => self.cluster.node(node).resume()?,
            Kind::Cut | Kind::Mute | Kind::Deaf => {
                self.network.as_ref().context("no network of its own")?.heal()?;
            }
        }
        let healed = self.crowd.now();
        self.cluster.until_settled().await?;
        self.until_served(healed).await
    }

    /// Each client has heard that something was handled since that time.
    async fn until_served(&mut self, time: u64) -> Result<()> {
        self.until(HEAL, "all served", |crowd| {
            let unheard = crowd.unheard_since(time);
            (!unheard.is_empty()).then(|| format!("clients {unheard:?} are not served"))
        })
        .await
    }

    /// Until nothing is missing any more.
    async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        missing: impl Fn(&Crowd) -> Option<String>,
    ) -> Result<()> {
        let began = Instant::now();
        while let Some(missing) = missing(&self.crowd) {
            if began.elapsed() > limit {
                bail!("{what}: not within {limit:?}; {missing}");
            }
            for person in &self.people {
                ensure!(!person.is_finished(), "a client has ended by itself");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn write_logs(&self) -> Result<()> {
        let Some(folder) = folder() else { return Ok(()) };
        for node in 0..NODES {
            std::fs::write(folder.join(format!("node-{node}")), self.cluster.node(node).log())?;
        }
        Ok(())
    }

    fn show_logs(&self) {
        for node in 0..NODES {
            println!("the end of the log of node-{node}:\n{}", self.cluster.node(node).log_end());
        }
    }
}
