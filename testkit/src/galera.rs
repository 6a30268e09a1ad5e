//! A Galera cluster of MariaDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::mariadb::{copy_data, data_in};
use crate::program::{self, find};
use crate::scratch::{Place, give_to_server};
use crate::{MariaDb, port};

/// A Galera cluster of MariaDB servers, each of which takes writes that all of them then have.
///
/// Nodes count from 0. The user `claviger` has the same password on all of them. As with
/// [`MariaDb`], what was answered outlives a node's death, not the machine's.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<MariaDb>,
}

impl Galera {
    /// Returns `true` if there are a MariaDB and Galera's library on this machine.
    #[must_use]
    pub fn is_installed() -> bool {
        MariaDb::is_installed() && find_library().is_some()
    }

    /// Starts one of so many nodes, and waits until all of them are members.
    #[must_use]
    pub fn start(nodes: usize) -> Self {
        Self::start_with(nodes, "")
    }

    /// Starts one with provider options of Galera (`gcache.size=64M;gcs.fc_limit=1`).
    ///
    /// Without any it takes the others about six seconds to go on without a node that has died or
    /// hangs. Until then no commit is answered.
    #[must_use]
    pub fn start_with(nodes: usize, provider_options: &str) -> Self {
        let ports: Vec<_> = (0..nodes).map(|_| Ports::free()).collect();
        let members: Vec<_> = (0..nodes).map(uuid).collect();
        let address = format!(
            "gcomm://{}",
            ports.iter().map(|ports| format!("127.0.0.1:{}", ports.group)).collect::<Vec<_>>().join(",")
        );
        // A cluster of one, whose data all others begin with.
        let mut first = {
            let args = args(&Ports::free(), "gcomm://", "");
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            MariaDb::start_at(Place::new("galera"), "UTC", &args)
        };
        let (password, data) = (first.password().to_owned(), first.shut_down());
        let start = |node: usize, ports: &Ports| {
            let place = Place::new("galera");
            copy_data(&data, &place);
            remember_members(&data_in(&place), &members, node);
            let state = data_in(&place).join("grastate.dat");
            let args = args(ports, &address, provider_options);
            let further = move |command| start_position(&state, command);
            MariaDb::start_on_data(place, password.clone(), "UTC", args, further)
        };
        // None is ready before all are there.
        let nodes = thread::scope(|scope| {
            let start = &start;
            let starts: Vec<_> = ports
                .iter()
                .enumerate()
                .map(|(node, ports)| scope.spawn(move || start(node, ports)))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let galera = Self { nodes };
        galera.wait_for_size(galera.nodes());
        galera
    }

    /// Returns how many nodes it was started with.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the URL of a database on a node, without the last part if it is empty.
    #[must_use]
    pub fn url(&self, node: usize, database: &str) -> String {
        self.node(node).url(database)
    }

    /// Returns the port that a node listens on.
    #[must_use]
    pub fn port(&self, node: usize) -> u16 {
        self.node(node).port()
    }

    /// Runs SQL as root on a node, in no database if it is empty, and returns what it brought: a line
    /// per row, a tab between columns.
    pub fn sql(&self, node: usize, database: &str, sql: &str) -> String {
        self.node(node).sql(database, sql)
    }

    /// Kills a node, in whatever it does.
    pub fn kill(&mut self, node: usize) {
        self.node_mut(node).kill();
    }

    /// Starts a node again on the same port and data, and waits until it has what it missed. Enough
    /// of the others must run.
    pub fn restart(&mut self, node: usize) {
        self.node_mut(node).restart();
    }

    /// Stops a node where it is: it answers nothing, and no socket of it is closed.
    pub fn pause(&self, node: usize) {
        self.node(node).pause();
    }

    /// Lets a node go on after [`pause`](Self::pause).
    pub fn resume(&self, node: usize) {
        self.node(node).resume();
    }

    /// Waits until each node that is neither killed nor paused takes writes, and knows of so many
    /// members.
    pub fn wait_for_size(&self, size: usize) {
        let begin = Instant::now();
        let expected = format!("wsrep_cluster_size\t{size}\nwsrep_ready\tON");
        for node in self.nodes.iter().filter(|node| node.answers()) {
            loop {
                let status = node.sql("", STATUS);
                if status == expected {
                    break;
                }
                assert!(begin.elapsed() < WAIT_MAX, "no cluster of {size} within {WAIT_MAX:?}: {status}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn node(&self, node: usize) -> &MariaDb {
        self.nodes.get(node).unwrap_or_else(|| panic!("the cluster has no node {node}"))
    }

    fn node_mut(&mut self, node: usize) -> &mut MariaDb {
        self.nodes.get_mut(node).unwrap_or_else(|| panic!("the cluster has no node {node}"))
    }
}

const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_ready')";
/// How long a cluster may take, on the slowest machine.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What a node listens on for the others, besides the port for clients.
struct Ports {
    group: u16,
    /// For what it missed while it was away.
    writes: u16,
    /// For a whole copy of the data.
    state: u16,
}

impl Ports {
    fn free() -> Self {
        Self { group: port::free(), writes: port::free(), state: port::free() }
    }
}

fn args(ports: &Ports, cluster: &str, provider_options: &str) -> Vec<String> {
    let library = find_library().unwrap_or_else(|| program::missing("Galera"));
    let Ports { group, writes, state } = ports;
    vec![
        "--wsrep-on=ON".to_owned(),
        format!("--wsrep-provider={}", library.display()),
        format!("--wsrep-cluster-address={cluster}"),
        "--wsrep-node-address=127.0.0.1".to_owned(),
        format!("--wsrep-sst-receive-address=127.0.0.1:{state}"),
        // The cache would otherwise take 128 MiB of disk at once.
        format!(
            "--wsrep-provider-options=gcache.size=16M;base_port={group};\
             gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{writes};{provider_options}"
        ),
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
    ]
}

/// Tells a node that these were members together, all with the data that it has. So it takes the
/// others for such as were down with it, and none has to send another its data, which takes seconds.
fn remember_members(data: &Path, members: &[String], node: usize) {
    let (Some(own), Some(first)) = (members.get(node), members.first()) else { return };
    let list: String = members.iter().map(|member| format!("member: {member} 0\n")).collect();
    let file = data.join("gvwstate.dat");
    let view = format!("my_uuid: {own}\n#vwbeg\nview_id: 3 {first} 3\nbootstrap: 0\n{list}#vwend\n");
    fs::write(&file, view).unwrap();
    give_to_server(&file);
}

fn uuid(node: usize) -> String {
    let (start, end) = (port::random() & 0xffff, port::random() & 0xffff_ffff_ffff);
    format!("{node:08x}-{start:04x}-11ef-8000-{end:012x}")
}

/// Finds where a node was that did not end in good order: with this it asks the others for what it
/// missed, without it for all data. What ended in good order has written it down.
fn start_position(state: &Path, mut server: Command) -> Vec<String> {
    let state = fs::read_to_string(state).unwrap_or_default();
    if !state.lines().any(|line| line.split_whitespace().eq(["seqno:", "-1"])) {
        return Vec::new();
    }
    let output = server.arg("--wsrep-recover").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let position = log.lines().find_map(|line| Some(line.split_once("Recovered position: ")?.1.trim()));
    let position = position.unwrap_or_else(|| panic!("a node does not know where it was:\n{log}"));
    vec![format!("--wsrep-start-position={position}")]
}

fn find_library() -> Option<PathBuf> {
    let usual = ["/usr/lib/galera", "/usr/lib64/galera-4", "/usr/lib64/galera"].map(PathBuf::from);
    find("libgalera_smm.so", "CLAVIGER_GALERA_LIB", &usual)
}
