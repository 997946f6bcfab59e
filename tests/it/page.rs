//! The page in a real browser, over a real cluster: what its readers see, do with keys and fields, and what nobody can make it do.

use crate::browser::{Browser, BrowserError, program};
use crate::cluster::{Cluster, PATIENCE, sample};
use crate::processes::write;
use serde_json::json;
use std::path::Path;

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";
/// A first visit transfers at most so much, the cluster's answers included.
const FIRST_LOAD_BYTES_MAX: u64 = 150 * 1024;

/// A browser for this cluster; `None` where there is none on this machine, which is said.
fn browser(cluster: &Cluster, size: (u32, u32)) -> Option<Browser> {
    match program() {
        Ok(_) => Some(Browser::start(&cluster.folder.join("browser"), size).unwrap()),
        Err(error @ BrowserError::Missing) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the page's tests ask of it again and again.
trait Seen {
    /// Waits until the page shows this text.
    fn shows(&mut self, text: &str);
    /// Waits until an expression is true.
    fn so(&mut self, what: &str, script: &str);
    /// Presses the button or link with this text.
    fn push(&mut self, text: &str);
    /// Puts a text into the field that `selector` names.
    fn write(&mut self, selector: &str, text: &str);
    /// Presses and lets go of a key, as a hand does.
    fn press(&mut self, key: &str);
    /// Chooses a file in the field that `selector` names.
    fn choose(&mut self, selector: &str, file: &Path);
    /// Goes to a page of the one that is open.
    fn turn(&mut self, page: &str);
}

impl Seen for Browser {
    fn shows(&mut self, text: &str) {
        self.so(&format!("the page shows {text:?}"), &format!("document.body.innerText.includes({})", quoted(text)));
    }

    fn so(&mut self, what: &str, script: &str) {
        self.until(what, script, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }

    fn push(&mut self, text: &str) {
        let find = format!(
            "(() => {{ const all = [...(document.querySelector('dialog[open]') ?? document).querySelectorAll('button, a')]; \
             const one = all.find((one) => one.textContent.trim() === {} && !one.disabled); one?.click(); return Boolean(one); }})()",
            quoted(text)
        );
        self.so(&format!("there is {text:?} to press"), &find);
    }

    fn write(&mut self, selector: &str, text: &str) {
        let script = format!(
            "(() => {{ const field = document.querySelector({}); if (!field) return false; field.focus(); field.value = {}; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); return true; }})()",
            quoted(selector),
            quoted(text)
        );
        self.so(&format!("{selector} can be written"), &script);
    }

    fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        let code = [("Enter", 13), ("ArrowRight", 39)].iter().find(|(name, _)| *name == key).map_or(0, |(_, code)| *code);
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code })).unwrap();
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code })).unwrap();
    }

    fn choose(&mut self, selector: &str, file: &Path) {
        let root = self.call("DOM.getDocument", json!({ "depth": 0 })).unwrap();
        let found = self.call("DOM.querySelector", json!({ "nodeId": root["root"]["nodeId"], "selector": selector })).unwrap();
        self.call("DOM.setFileInputFiles", json!({ "nodeId": found["nodeId"], "files": [file] })).unwrap();
    }

    fn turn(&mut self, page: &str) {
        self.eval(&format!("location.hash = {}", quoted(page))).unwrap();
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn racks() -> Cluster {
    let mut cluster = Cluster::master(&[]);
    let agent = |name: &str, rack: &str| (name.to_owned(), RESOURCES, vec!["--domain".to_owned(), format!("eu/eu-1/{rack}")]);
    cluster.add_agents(&[agent("a1", "r1"), agent("a2", "r2"), agent("a3", "r2")]);
    cluster
}

fn home(cluster: &Cluster) -> String {
    format!("{}/#token={}", cluster.url, cluster.token)
}

fn no_complaints(browser: &mut Browser) {
    // What was logged comes with the next answer.
    browser.eval("1").unwrap();
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}

/// A service that sleeps, as somebody writes it: with a file that is beside it.
const SERVICE: &str = "name = \"sleeper\"\nkind = \"service\"\ncount = 2\n\n[task]\nwasm = \"dist/sleep.wasm\"\nargs = [\"600000\"]\n\n\
                       [resources]\ncpu = 0.1\nmemory = \"8MiB\"\n\n[place]\nspread = [\"rack\"]\n";

#[test]
fn a_service_is_made_scaled_edited_watched_and_stopped_from_the_page() {
    let mut cluster = racks();
    let Some(mut browser) = browser(&cluster, (1280, 900)) else { return };
    browser.go(&home(&cluster)).unwrap();
    browser.shows("all can be reached");
    browser.so("three agents are counted", "document.querySelector('#tile-agents b').textContent === '3'");
    browser.so("the map has them", "/3 agents in 2 racks/.test(document.querySelector('canvas').getAttribute('aria-label'))");
    let address = browser.eval("location.href + history.length").unwrap();
    assert!(!address.as_str().unwrap().contains("token"), "the token is gone from the address: {address}");
    assert!(browser.bytes > 0 && browser.bytes <= FIRST_LOAD_BYTES_MAX, "{} bytes were transferred", browser.bytes);
    println!("first load: {} bytes", browser.bytes);
    picture(&mut browser, "first");

    // By keys alone to a list that says what to do, and to a new job.
    browser.press("g");
    browser.press("j");
    browser.shows("No job is live.");
    browser.shows("skep run samples/dist/hello.wasm");
    browser.press("n");
    browser.shows("Drop files here");
    // What is wrong stands at its line, in the server's words.
    browser.write(
        "textarea",
        &SERVICE.replace("dist/sleep.wasm", &format!("sha256:{}", "0".repeat(64))).replace("cpu = 0.1", "cpu = 0.1\nmemroy = 3"),
    );
    browser.shows("did you mean");
    picture(&mut browser, "wrong");
    browser.so("the line is marked", "document.querySelector('.gutter .bad')?.textContent === '11'");
    browser.write("textarea", SERVICE);
    browser.shows("dist/sleep.wasm is not uploaded yet");
    browser.choose("skep-edit input[type=file]", &sample("sleep.wasm"));
    browser.shows("A new job");
    browser.shows("3 of 3");
    browser.push("Submit");
    browser.shows("running 2");
    assert_eq!(cluster.tasks("sleeper", "running"), 2);

    picture(&mut browser, "job");
    browser.push("Scale");
    browser.write("dialog input[name=count]", "4");
    browser.push("Scale");
    browser.so("four run", "[...document.querySelectorAll('tbody .pill')].filter((one) => one.textContent === 'running').length === 4");
    edit(&mut browser, &cluster);
    an_agent_dies(&mut browser, &mut cluster);

    browser.turn("#/jobs");
    browser.so(
        "the job is in the list",
        "(() => { const all = [...document.querySelectorAll('td.main a')]; \
         const one = all.find((one) => /^#.jobs.[^/]*$/.test(one.getAttribute('href')) && one.textContent.startsWith('sleeper')); \
         one?.click(); return Boolean(one); })()",
    );
    browser.push("Stop");
    browser.push("Stop");
    cluster.until("it has ended", |cluster| !cluster.json(&["status", "sleeper"])["ended_ms"].is_null());
    browser.shows("Run again");
    no_complaints(&mut browser);
}

/// What the page writes of a job is that job: nothing is to be changed until something is, and then only that.
fn edit(browser: &mut Browser, cluster: &Cluster) {
    // While the first version proves itself another one is refused.
    cluster.until("the first version is believed", |cluster| cluster.text(&["status", "sleeper"]).contains(", done)"));
    browser.push("Edit");
    browser.shows("It is so already.");
    browser.so("the file is written", "document.querySelector('textarea').value.includes('spread = [\"rack\"]')");
    let text = browser.eval("document.querySelector('textarea').value").unwrap();
    browser.write("textarea", &text.as_str().unwrap().replace("600000", "600001"));
    browser.shows("A new version");
    browser.push("Apply changes");
    cluster.until("all are of the second version", |cluster| {
        let tasks = cluster.all_tasks("sleeper");
        tasks.iter().filter(|task| task["phase"] == "running" && task["version"] == 2).count() == 4
    });
    browser
        .so("the page shows it", "[...document.querySelectorAll('tbody tr')].filter((row) => row.textContent.includes('v2')).length === 4");
}

/// A native service: what it is told is in `WORD`, `bad` ends it at once; it is well while it has a file that says so.
const STEPPER: &str = "name = \"web\"\nkind = \"service\"\ncount = 3\n[task]\nnative = \"stepper\"\nenv = { WORD = \"one\" }\n[resources]\ncpu = 0.1\nmemory = \"32MiB\"\n\
                       [restart]\nbackoff = { first = \"100ms\", factor = 1 }\n[health]\nexec = [\"test\", \"-e\", \"/sandbox/well\"]\nevery = \"200ms\"\nfailures = 0\n\
                       [update]\ncanary = 1\nsettle = \"100ms\"\n";

#[test]
fn a_rollout_is_clicked_through_a_bad_version_returns_and_an_earlier_one_is_gone_back_to() {
    let cluster = racks();
    let Some(mut browser) = browser(&cluster, (1280, 900)) else { return };
    write(&cluster, "stepper", "#!/bin/sh\n[ $WORD = bad ] && exit 3\ntouch /sandbox/well\nexec sleep 600\n");
    let file = write(&cluster, "web.toml", STEPPER);
    cluster.text(&["apply", file.to_str().unwrap()]);
    let id = cluster.json(&["status", "web"])["id"].as_str().unwrap().to_owned();
    browser.go(&home(&cluster)).unwrap();
    browser.shows("all can be reached");
    let job = format!("#/jobs/{id}");
    browser.turn(&job);
    browser.shows("healthy 3");
    cluster.text(&["exec", "web.0", "--", "rm", "/sandbox/well"]);
    browser.shows("unhealthy 1");
    browser.shows("test: exit code 1");
    picture(&mut browser, "unhealthy");
    cluster.text(&["exec", "web.0", "--", "touch", "/sandbox/well"]);
    browser.shows("healthy 3");

    // One of the next version comes first, and waits to be believed.
    word(&mut browser, "one", "two");
    browser.shows("version 1 → 2");
    browser.shows("the first 1 are ready");
    of_version(&mut browser, 2, 1);
    browser.turn("#/overview");
    browser.shows("version 1 to 2: the first 1 are ready");
    picture(&mut browser, "deploying");
    browser.turn(&job);
    browser.push("Promote");
    of_version(&mut browser, 2, 3);
    browser.shows("Roll back to v1");
    browser.so("it is done", "!document.body.innerText.includes('version 1 → 2')");

    // One that is bad is tried with one task, and goes by itself; why stays to be read.
    word(&mut browser, "two", "bad");
    browser.shows("back from version 3 to 2, since 3 failed");
    browser.shows("exit code 3");
    of_version(&mut browser, 2, 3);
    browser.shows("to 2, since 3 failed (");
    browser.shows("v2 returned by itself");
    picture(&mut browser, "failed");

    browser.push("Roll back to v1");
    browser.push("Roll back");
    of_version(&mut browser, 1, 3);
    let words: Vec<_> = (0..3).map(|index| cluster.text(&["exec", &format!("web.{index}"), "--", "sh", "-c", "echo $WORD"])).collect();
    assert_eq!(words, ["one\n"; 3]);
    no_complaints(&mut browser);
}

/// Edits the job that is shown: one word of it becomes another.
fn word(browser: &mut Browser, from: &str, to: &str) {
    browser.push("Edit");
    browser.so("the file is written", &format!("document.querySelector('textarea')?.value.includes({})", quoted(&quoted(from))));
    let text = browser.eval("document.querySelector('textarea').value").unwrap();
    browser.write("textarea", &text.as_str().unwrap().replace(&quoted(from), &quoted(to)));
    browser.shows("A new version");
    browser.push("Apply changes");
}

/// Waits until the page shows so many tasks of a version that run.
fn of_version(browser: &mut Browser, version: u32, count: u32) {
    let rows = "[...document.querySelectorAll('tbody tr')].map((row) => row.textContent)";
    let shown = format!("{rows}.filter((text) => text.includes('running') && text.includes('v{version}')).length === {count}");
    browser.so(&format!("{count} run in version {version}"), &shown);
}

/// While the page is looked at, without touching it.
fn an_agent_dies(browser: &mut Browser, cluster: &mut Cluster) {
    browser.press("g");
    browser.press("o");
    browser.so("four tasks are on agents", "document.querySelector('#tile-tasks b')?.textContent === '4'");
    cluster.kill_agent("a1");
    browser.shows("1 cannot be reached");
    browser.eval("document.querySelector('canvas').focus()").unwrap();
    browser.press("ArrowRight");
    browser.so("the map says who", "/a1 unreachable/.test(document.querySelector('.tip').textContent)");
    picture(browser, "unreachable");
    browser.press("Enter");
    browser.shows("Give up");
    browser.so("its tasks are named", "[...document.querySelectorAll('tbody tr')].some((row) => /^sleeper\\.\\d/.test(row.textContent))");
    cluster.start_agent("a1");
    browser.shows("reachable");
    browser.so("it is back", "[...document.querySelectorAll('.head .pill')].some((one) => one.textContent === 'reachable')");
}

#[test]
fn a_system_job_is_shown_changed_and_restarted_from_the_page_and_not_scaled() {
    let mut cluster = racks();
    let Some(mut browser) = browser(&cluster, (1280, 900)) else { return };
    let file = cluster.folder.join("sleeper.toml");
    let program = format!("wasm = {:?}", sample("sleep.wasm"));
    let update = "\n[restart]\nbackoff = { first = \"2s\" }\n\n[update]\nparallel = 2\ncanary = 1\ndeadline = \"5m\"\n";
    let text = SERVICE.replace("\"service\"\ncount = 2", "\"system\"").replace("wasm = \"dist/sleep.wasm\"", &program);
    std::fs::write(&file, text.replace("spread = [\"rack\"]", "constraints = [[\"rack\", \"IS\", \"r2\"]]") + update).unwrap();
    cluster.text(&["apply", file.to_str().unwrap()]);
    browser.go(&home(&cluster)).unwrap();
    browser.shows("all can be reached");
    browser.turn("#/jobs");
    browser.shows("on 2 of 2 agents");
    let id = cluster.json(&["status", "sleeper"])["id"].as_str().unwrap().to_owned();
    browser.turn(&format!("#/jobs/{id}"));
    browser.shows("on 2 agents that match");
    assert_eq!(browser.eval("document.querySelector('#scale') === null && document.querySelector('#restart') !== null").unwrap(), true);
    browser.push("Edit");
    browser.shows("It is so already.");
    let text = browser.eval("document.querySelector('textarea').value").unwrap();
    browser.write("textarea", &text.as_str().unwrap().replace("r2", "r1").replace("canary = 1\n", ""));
    browser.shows("A new version");
    browser.push("Apply changes");
    cluster.until("it is where it is to be", |cluster| {
        let tasks = cluster.all_tasks("sleeper");
        tasks.len() == 1 && tasks[0]["phase"] == "running" && tasks[0]["version"] == 2
    });
    browser.shows("on 1 agent that matches");
    cluster.add_agent_with("a4", "cpu=0.05,memory=4GiB,disk=1GiB", &["--domain", "eu/z/r1"]);
    browser.shows("on 2 agents that match");
    browser.shows("it waits on 1 of 2 agents: a4");
    no_complaints(&mut browser);
}

#[test]
fn what_tasks_print_and_agents_are_called_is_letters_and_nothing_else() {
    let mut cluster = Cluster::master(&[]);
    let name = "<img src=x onerror=document.title=1>";
    let rack = ["--domain", "<b>eu/\u{202e}z/<script>r"];
    cluster.add_agent_with(name, RESOURCES, &rack);
    let Some(mut browser) = browser(&cluster, (1280, 900)) else { return };
    let said = "<script>document.title=2</script><img src=x onerror=document.title=3>\u{1b}[31mred\u{1b}]0;owned\u{7}\u{202e}\u{8}end";
    let hello = sample("hello.wasm");
    let run = cluster.run(&["run", "--name", "print", hello.to_str().unwrap(), "--", said]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    browser.go(&home(&cluster)).unwrap();
    browser.shows("all can be reached");
    let id = cluster.json(&["status", "print"])["id"].as_str().unwrap().to_owned();
    let seen = "document.querySelector('.log')?.textContent ?? ''";
    for page in [format!("#/jobs/{id}"), format!("#/jobs/{id}/tasks/0")] {
        browser.turn(&page);
        browser.so("its output is there", &format!("({seen}).includes('hello, <script>document.title=2</script><img src=x')"));
        browser.so("the end is reached", &format!("({seen}).includes('redend')"));
    }
    for page in ["#/agents", "#/overview", "#/events"] {
        browser.turn(page);
        browser.so("the page is there", "document.querySelector('main h1') !== null");
    }
    browser.turn("#/agents");
    browser.shows(name);
    browser.shows("<b>eu / z / <script>r");
    let strange = "[document.querySelectorAll('main img, main script, main b b').length, document.title, \
                   /[\\u0000-\\u0008\\u000b-\\u001f\\u202e]/.test(document.body.textContent)]";
    assert_eq!(browser.eval(strange).unwrap(), json!([0, "Agents · Skep", false]));
    let markup =
        browser.eval("(() => { try { document.body.innerHTML = '<p>'; return 'made'; } catch (error) { return error.name; } })()").unwrap();
    assert_eq!(markup, "TypeError", "no text can become markup, whoever tries");
    browser.complaints.retain(|one| !one.contains("TrustedHTML"));
    no_complaints(&mut browser);
}

#[test]
fn a_reader_shows_a_token_and_every_page_fits_a_narrow_screen() {
    let cluster = racks();
    let Some(mut browser) = browser(&cluster, (360, 740)) else { return };
    cluster.text(&[
        "run",
        "--detach",
        "--name",
        "a-job-with-quite-a-long-name-as-they-have",
        sample("sleep.wasm").to_str().unwrap(),
        "--",
        "600000",
    ]);
    browser.go(&cluster.url).unwrap();
    browser.shows("This cluster asks who you are.");
    browser.write("input[name=token]", "skep_wrong_token");
    browser.push("Go on");
    browser.shows("That token is not known here, or is over.");
    browser.write("input[name=token]", &cluster.token);
    browser.push("Go on");
    browser.shows("all can be reached");
    let job = cluster.json(&["status", "a-job-with-quite-a-long-name-as-they-have"])["id"].as_str().unwrap().to_owned();
    let agent = cluster.json(&["agents"])["agents"][0]["id"].as_str().unwrap().to_owned();
    let pages = ["overview", "jobs", "new", "agents", "roles", "frameworks", "events"].map(str::to_owned);
    let more = [format!("jobs/{job}"), format!("jobs/{job}/tasks/0"), format!("jobs/{job}/edit"), format!("agents/{agent}")];
    for (page, scheme) in pages.iter().chain(&more).zip(["light", "dark"].iter().cycle()) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.call("Emulation.setEmulatedMedia", json!({ "features": features })).unwrap();
        browser.turn(&format!("#/{page}"));
        browser.so("it has a heading", "document.querySelector('main h1')?.textContent.length > 0");
        let wide = browser.eval("document.documentElement.scrollWidth").unwrap();
        assert!(wide.as_u64() <= Some(360), "{page} is {wide} wide");
        picture(&mut browser, &format!("narrow-{}", page.replace('/', "-")));
    }
    // Each control has a name for those who hear the page.
    let nameless = "[...document.querySelectorAll('button, a[href], input, select, textarea')].filter((one) => !one.hidden && \
                    !(one.textContent.trim() || one.getAttribute('aria-label') || one.closest('label') || one.title)).length";
    assert_eq!(browser.eval(nameless).unwrap(), 0);
    no_complaints(&mut browser);
}

/// Kept where `SKEP_PICTURES` says, for people to look at.
fn picture(browser: &mut Browser, name: &str) {
    use base64::Engine as _;
    let Some(folder) = std::env::var_os("SKEP_PICTURES") else { return };
    let taken = browser.call("Page.captureScreenshot", json!({ "format": "png" })).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
    std::fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
}
