//! `layermesh top`, and how far commands are, with a real node, on a terminal that this process holds the other end of.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs::File,
    io::Read as _,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use common::{LOOK_AGAIN, Node, PATIENCE, Site, client::ask, content};
use layermesh::embedded::image::{ImageSpec, make_image};
use reqwest::Method;
use rustix::{
    fd::OwnedFd,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Cells of the grid on which what is written is put together; the terminals of these tests are smaller.
const GRID: (usize, usize) = (200, 60);

/// A terminal.
struct Terminal {
    /// The end where a person would sit.
    person: OwnedFd,
    /// The end that programs get; open as long as this is, so that it keeps its settings.
    program: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
    /// Cells of a row: text goes on in the next one behind them.
    columns: AtomicU16,
}

impl Terminal {
    fn open(columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let program = ioctl_tiocgptpeer(&person, flags).unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (File::from(person.try_clone().unwrap()), written.clone());
        // Ends when nobody has the other end any more.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..len]);
            }
        });
        let terminal = Self { person, program, written, columns: AtomicU16::new(columns) };
        terminal.resize(columns, rows);
        terminal
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.person, size).unwrap();
        self.columns.store(columns, Ordering::Relaxed);
    }

    /// Runs `top` for a node on this terminal.
    fn top(&self, node: &Node, flags: &[&str]) -> Child {
        self.run(node, "top", flags)
    }

    /// Runs a command for a node on this terminal.
    fn run(&self, node: &Node, name: &str, arguments: &[&str]) -> Child {
        let end = || Stdio::from(self.program.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
        command.arg("--admin").arg(&node.run().admin).arg(name).args(arguments);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").kill_on_drop(true);
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    fn press(&self, keys: &str) {
        assert_eq!(rustix::io::write(&self.person, keys.as_bytes()).unwrap(), keys.len());
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.program).unwrap()
    }

    fn written(&self) -> Vec<u8> {
        self.written.lock().unwrap().clone()
    }

    async fn shows(&self, text: &str) {
        let so = self.becomes(|_| self.screen().contains(text)).await;
        assert!(so, "`{text}` is never on\n{}", self.screen());
    }

    fn screen(&self) -> String {
        screen(&self.written(), usize::from(self.columns.load(Ordering::Relaxed)))
    }

    /// Whether this becomes so of all that was written, in time.
    async fn becomes(&self, so: impl Fn(&[u8]) -> bool) -> bool {
        let looked = async {
            while !so(&self.written()) {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, looked).await.is_ok()
    }

    /// The terminal is as it was before, and what was on it is back.
    async fn is_given_back(&self, before: &Termios) {
        let now = self.settings();
        assert_eq!(
            (now.input_modes, now.output_modes, now.local_modes),
            (before.input_modes, before.output_modes, before.local_modes)
        );
        let later = |written: &[u8], one: &str, other: &str| {
            let written = String::from_utf8_lossy(written);
            written.rfind(one).is_some_and(|at| written.rfind(other).is_none_or(|before| at > before))
        };
        let left = |written: &[u8]| later(written, "\x1b[?1049l", "\x1b[?1049h");
        assert!(self.becomes(left).await, "the alternate screen is left");
        let cursor = |written: &[u8]| later(written, "\x1b[?25h", "\x1b[?25l");
        assert!(self.becomes(cursor).await, "the cursor is back");
    }
}

/// What a terminal shows of what was written: its rows, one a line. It knows what `top` and rows of progress use: places,
/// erasing, and text of characters that are one cell wide.
fn screen(written: &[u8], columns: usize) -> String {
    let text = String::from_utf8_lossy(written);
    let mut grid = vec![vec![' '; GRID.0]; GRID.1];
    let (mut row, mut column) = (0, 0);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => {}
            '\r' => column = 0,
            '\n' => row = (row + 1).min(GRID.1 - 1),
            char if !char.is_control() => {
                if column >= columns {
                    (row, column) = ((row + 1).min(GRID.1 - 1), 0);
                }
                grid[row][column] = char;
                column += 1;
            }
            _ => {}
        }
        if char != '\x1b' {
            continue;
        }
        if chars.next_if_eq(&'[').is_none() {
            continue;
        }
        let mut arguments = String::new();
        let last = loop {
            match chars.next() {
                Some(char @ '@'..='~') => break char,
                Some(char) => arguments.push(char),
                None => return shown(&grid),
            }
        };
        let numbers: Vec<usize> = arguments.split(';').filter_map(|number| number.parse().ok()).collect();
        match last {
            'H' => (row, column) = (numbers.first().map_or(0, |row| row - 1), numbers.get(1).map_or(0, |at| at - 1)),
            'J' if numbers.first() == Some(&2) => grid.iter_mut().for_each(|row| row.fill(' ')),
            'J' => {
                grid[row][column..].fill(' ');
                grid[row + 1..].iter_mut().for_each(|row| row.fill(' '));
            }
            'A' => row = row.saturating_sub(numbers.first().map_or(1, |up| *up)),
            'K' if numbers.first() == Some(&2) => grid[row].fill(' '),
            'K' => grid[row][column..].fill(' '),
            _ => {}
        }
    }
    shown(&grid)
}

fn shown(grid: &[Vec<char>]) -> String {
    grid.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}

async fn end_of(top: &mut Child) -> ExitStatus {
    timeout(PATIENCE, top.wait()).await.expect("top ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_shown_live_and_the_terminal_is_given_back() {
    let site = Site::new().await;
    let mut node = site.node("node", &[]).await;
    let other = site.node("other", &[node.address()]).await;
    node.wait_until("finds the other", async || node.peers().await.len() == 1).await;
    let terminal = Terminal::open(100, 30);
    let before = terminal.settings();
    let mut top = terminal.top(&node, &[]);
    for text in ["2 devices, open to all", "live", "[1 Site]", "this device", "127.0.0.1"] {
        terminal.shows(text).await;
    }

    // A layer comes slowly from the registry.
    let blob = site.registry.put_blob(content::bytes("slow", 64 << 20));
    site.registry.set_rate(Some(1 << 20));
    let url = node.url(&format!("app/blobs/{blob}"));
    let pull = tokio::spawn(async move { ask(Method::GET, &url, None).await });
    terminal.press("2");
    for text in ["[2 Transfers 1]", &blob.hex()[..8], "64.0 MiB", "from registry reg.test", "iB/s"] {
        terminal.shows(text).await;
    }
    terminal.resize(30, 8);
    terminal.shows("[2 Transfers]").await;
    terminal.resize(100, 30);
    terminal.press("\t");
    terminal.shows("[3 Devices 2]").await;
    terminal.press("?");
    terminal.shows("close this").await;
    terminal.press("?p");
    terminal.shows("paused").await;
    terminal.press("p1");

    node.kill().await;
    pull.abort();
    terminal.shows("NO ANSWER for").await;
    terminal.shows("no node answers on").await;
    let node = site.node("node", &[other.address()]).await;
    terminal.shows("live").await;

    terminal.press("q");
    assert_eq!(end_of(&mut top).await.code(), Some(0));
    terminal.is_given_back(&before).await;
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_and_the_terminal_is_given_back() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let terminal = Terminal::open(80, 24);
        let before = terminal.settings();
        let mut top = terminal.top(&node, &["--interval", "60s"]);
        terminal.shows("1 device, open to all").await;
        assert_ne!(terminal.settings().local_modes, before.local_modes, "keys come as they are typed");
        kill_process(Pid::from_raw(top.id().unwrap().try_into().unwrap()).unwrap(), signal).unwrap();
        assert_eq!(end_of(&mut top).await.code(), Some(0), "{signal:?}");
        terminal.is_given_back(&before).await;
    }
    let terminal = Terminal::open(80, 24);
    let before = terminal.settings();
    let mut top = terminal.top(&node, &[]);
    terminal.shows("1 device, open to all").await;
    terminal.press("\x03");
    assert_eq!(end_of(&mut top).await.code(), Some(0), "Ctrl-C");
    terminal.is_given_back(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_or_a_node_it_says_what_to_do() {
    let site = Site::new().await;
    let mut node = site.node("node", &[]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
    command.arg("--admin").arg(&node.run().admin).arg("top").kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not a terminal") && said.contains("`layermesh status --json`"), "{said}");
    assert!(output.stdout.is_empty());

    let terminal = Terminal::open(160, 24);
    let mut top = terminal.top(&node, &["--json"]);
    assert_eq!(end_of(&mut top).await.code(), Some(2));
    terminal.shows("`layermesh status --json`").await;

    node.kill().await;
    let terminal = Terminal::open(160, 24);
    let mut top = terminal.top(&node, &[]);
    assert_eq!(end_of(&mut top).await.code(), Some(3));
    terminal.shows("no node answers on").await;
    assert!(!String::from_utf8_lossy(&terminal.written()).contains("\x1b[?1049h"), "the screen is not taken over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_says_on_a_terminal_how_far_it_is_and_elsewhere_nothing() {
    let site = Site::new().await;
    let spec = ImageSpec { size_bytes: 24 << 20, layers: 4, seed: 1, arm64: false };
    let image = make_image(&spec, site.dir()).unwrap();
    site.registry.add_image("library/app", "v1", &image).unwrap();
    let node = site.node("node", &[]).await;
    site.registry.set_rate(Some(2 << 20));
    let terminal = Terminal::open(120, 30);
    let mut pull = terminal.run(&node, "pull", &["reg.test/library/app:v1"]);
    for text in ["says ", "total        [", "iB/s", " s left", "from registry reg.test"] {
        terminal.shows(text).await;
    }
    site.registry.set_rate(None);
    assert_eq!(end_of(&mut pull).await.code(), Some(0));
    terminal.shows("pulled reg.test/library/app:v1").await;
    let last = terminal.screen();
    assert!(!last.contains("total        ["), "nothing of it stays:\n{last}");

    // Of what is there already nothing is fetched, and what is written is not for people.
    for json in [false, true] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
        command.arg("--admin").arg(&node.run().admin).args(["pull", "reg.test/library/app:v1"]).kill_on_drop(true);
        command.args(json.then_some("--json"));
        let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.contains(&b'\x1b'));
    }
}
