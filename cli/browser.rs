//! A browser without a window, driven over two pipes (the Chrome DevTools Protocol, <https://chromedevtools.github.io/devtools-protocol>): what the page
//! shows and does is seen as its readers see it. For the bench of the page and for the tests. Messages are JSON with a NUL behind each.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What Debian's package is called, and others.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long the browser may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// So often it is looked whether something is so.
const LOOK: Duration = Duration::from_millis(50);

/// Why the browser did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// There is none.
    #[error("there is no chromium here (Debian: apt-get install chromium)")]
    Missing,
    /// It does not start, or has ended.
    #[error("the browser: {0}")]
    Ended(String),
    /// It refuses a call.
    #[error("{method}: {reason}")]
    Refused {
        /// Which.
        method: String,
        /// In its words.
        reason: String,
    },
    /// Something is not so in time.
    #[error("not after {seconds} s: {what}\n{shown}")]
    NotSo {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What the page shows instead.
        shown: String,
    },
}

/// One page of a browser of its own.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// Its profile, removed with it.
    folder: PathBuf,
    /// What the page complained of: errors, refusals of its policy, requests that failed.
    pub complaints: Vec<String>,
    /// Bytes that came over the network, compressed as they came.
    pub bytes: u64,
}

/// Where the browser is.
///
/// # Errors
/// [`BrowserError::Missing`].
pub fn program() -> Result<PathBuf, BrowserError> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&paths).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    all.into_iter().find(|path| path.is_file()).ok_or(BrowserError::Missing)
}

impl Browser {
    /// Starts it with an empty page of this size; its profile is in `folder`, which must not be there yet.
    ///
    /// # Errors
    /// That there is none, or why it does not start.
    pub fn start(folder: &Path, (width, height): (u32, u32)) -> Result<Self, BrowserError> {
        let ended = |error: std::io::Error| BrowserError::Ended(error.to_string());
        std::fs::create_dir_all(folder).map_err(ended)?;
        // The shell puts the pipes where the browser looks for them: 3 it reads, 4 it writes.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >\"$SKEP_BROWSER_LOG\" 2>&1";
        let flags = [
            "--headless=new",
            "--remote-debugging-pipe",
            // The cluster's root certificate is in no store; there is nobody between this browser and loopback.
            "--ignore-certificate-errors",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--mute-audio",
        ];
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program()?).args(flags);
        command.arg(format!("--user-data-dir={}", folder.display())).arg(format!("--window-size={width},{height}"));
        // Its own walls need a user that is not root.
        command.args(rustix::process::geteuid().is_root().then_some("--no-sandbox"));
        command.env("SKEP_BROWSER_LOG", folder.join("browser.log")).env("HOME", folder).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(ended)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(BrowserError::Ended("it has no pipes".into())) };
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, input, messages, session: None, last: 0, folder: folder.into(), complaints: vec![], bytes: 0 };
        browser.open((width, height))?;
        Ok(browser)
    }

    fn open(&mut self, (width, height): (u32, u32)) -> Result<(), BrowserError> {
        let made = self.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = self.call("Target.attachToTarget", json!({ "targetId": made["targetId"], "flatten": true }))?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        self.size(width, height)
    }

    fn size(&mut self, width: u32, height: u32) -> Result<(), BrowserError> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// Goes to this address, and begins to count bytes anew.
    ///
    /// # Errors
    /// That the browser does not do it.
    pub fn go(&mut self, url: &str) -> Result<(), BrowserError> {
        self.bytes = 0;
        self.call("Page.navigate", json!({ "url": url })).map(drop)
    }

    /// The value of an expression of JavaScript, promises waited for.
    ///
    /// # Errors
    /// That the browser does not do it, or what the expression throws.
    pub fn eval(&mut self, script: &str) -> Result<Value, BrowserError> {
        let asked = json!({ "expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        match answer.get("exceptionDetails") {
            None => Ok(answer["result"]["value"].clone()),
            Some(thrown) => {
                let reason = thrown["exception"]["description"].as_str().unwrap_or("it threw something").to_owned();
                Err(BrowserError::Refused { method: script.to_owned(), reason })
            }
        }
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// [`BrowserError::NotSo`], with what the page shows.
    pub fn until(&mut self, what: &str, script: &str, within: Duration) -> Result<(), BrowserError> {
        let start = Instant::now();
        while self.eval(script).ok() != Some(Value::Bool(true)) {
            if start.elapsed() > within {
                let shown = self.eval("document.body.innerText").unwrap_or_default();
                let shown = format!("{}\n{}", shown.as_str().unwrap_or_default(), self.complaints.join("\n"));
                return Err(BrowserError::NotSo { what: what.to_owned(), seconds: within.as_secs(), shown });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Calls a method of the protocol.
    ///
    /// # Errors
    /// That it is refused, or that the browser does not answer.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, BrowserError> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let written = self.input.write_all(&bytes).and_then(|()| self.input.flush());
        written.map_err(|error| BrowserError::Ended(self.words(&error.to_string())))?;
        let start = Instant::now();
        loop {
            let left = ANSWER_WITHIN.saturating_sub(start.elapsed());
            let message = match self.messages.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return Err(BrowserError::Ended(self.words(&format!("{method} is not answered")))),
                Err(RecvTimeoutError::Disconnected) => return Err(BrowserError::Ended(self.words("it has ended"))),
            };
            if message["id"] != id {
                self.hear(&message);
                continue;
            }
            return match message.get("error") {
                None => Ok(message["result"].clone()),
                Some(error) => {
                    let reason = error["message"].as_str().unwrap_or_default().to_owned();
                    Err(BrowserError::Refused { method: method.to_owned(), reason })
                }
            };
        }
    }

    /// What it said last, beside `reason`.
    fn words(&self, reason: &str) -> String {
        let log = std::fs::read_to_string(self.folder.join("browser.log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        format!("{reason}; it said {last:?}")
    }

    /// What is told without being asked.
    fn hear(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.complaints.push(format!("thrown: {}", params["exceptionDetails"])),
            "Runtime.consoleAPICalled" if ["error", "warning", "assert"].contains(&params["type"].as_str().unwrap_or_default()) => {
                self.complaints.push(format!("console: {}", params["args"]));
            }
            // What the API refuses is no mistake of a page: it shows it to its reader.
            "Log.entryAdded"
                if params["entry"]["source"] == "network" && params["entry"]["url"].as_str().is_some_and(|url| url.contains("/v1/")) => {}
            "Log.entryAdded" if params["entry"]["level"] == "error" || params["entry"]["source"] == "security" => {
                self.complaints.push(format!("log: {} {}", params["entry"]["text"], params["entry"]["url"]));
            }
            "Network.dataReceived" => self.bytes += params["encodedDataLength"].as_u64().unwrap_or(0),
            "Network.responseReceived" => self.bytes += params["response"]["encodedDataLength"].as_u64().unwrap_or(0),
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Whether it ends by itself does not matter.
        let _ = self.call("Browser.close", json!({}));
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
