//! Where services are: over HTTP, over DNS as `dig` asks, and as text that haproxy takes.

use crate::cluster::{Cluster, Ends, said, sample};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

const RESOURCES: &str = "cpu=4,memory=4GiB,disk=1GiB,ports=20000-20099";

/// What the API answers.
pub fn get(cluster: &Cluster, path: &str, accept: &str) -> (u16, String) {
    protocol::link::install_crypto();
    let root = reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = client.get(format!("{}{path}", cluster.url)).bearer_auth(&cluster.token).header("accept", accept);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

fn json(cluster: &Cluster, path: &str) -> Value {
    serde_json::from_str(&get(cluster, path, "application/json").1).unwrap()
}

/// What `dig` prints in short.
fn dig(cluster: &Cluster, args: &[&str]) -> BTreeSet<String> {
    let at: SocketAddr = cluster.dns.parse().unwrap();
    let (server, port) = (format!("@{}", at.ip()), at.port().to_string());
    let output = Command::new("dig").args([&server, "-p", &port, "+short", "+tries=2"]).args(args).ends();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// How the answer begins: with the state of it.
fn status(cluster: &Cluster, args: &[&str]) -> String {
    let at: SocketAddr = cluster.dns.parse().unwrap();
    let (server, port) = (format!("@{}", at.ip()), at.port().to_string());
    let output = Command::new("dig").args([&server, "-p", &port, "+tries=2"]).args(args).ends();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    found.unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn apply(cluster: &Cluster, role: &str, name: &str, count: u32) {
    let file = cluster.folder.join(format!("{name}.toml"));
    let program = sample("sleep.wasm");
    let head = format!("name = \"{name}\"\nrole = \"{role}\"\nkind = \"service\"\ncount = {count}\n");
    let rest = "[resources]\ncpu = 0.1\nports = [\"http\", \"admin\"]\n[place]\nspread = [\"hostname\"]\n";
    std::fs::write(&file, format!("{head}[task]\nwasm = {program:?}\nargs = [\"600000\"]\n{rest}")).unwrap();
    let (text, code) = said(cluster, &["apply", "--detach", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    cluster
        .until("all of it runs", |cluster| json(cluster, &format!("/v1/jobs/{name}?role={role}"))["tasks"]["running"] == u64::from(count));
}

/// The ports of that name that the service's instances have, by HTTP.
fn ports(cluster: &Cluster, role: &str, name: &str, port: &str) -> BTreeSet<u64> {
    let service = json(cluster, &format!("/v1/names/{name}?role={role}"));
    service["instances"].as_array().unwrap().iter().map(|instance| instance["ports"][port].as_u64().unwrap()).collect()
}

/// The ports in lines as `0 1 20003 0.front.web.shop.skep.`.
fn ports_of(lines: &BTreeSet<String>) -> BTreeSet<u64> {
    lines.iter().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap()).collect()
}

fn cluster() -> Option<Cluster> {
    if Command::new("dig").arg("-v").output().is_err() {
        println!("skipped: no dig (Debian: bind9-dnsutils)");
        return None;
    }
    let mut cluster = Cluster::master(&["--dns", "127.0.0.1:0"]);
    cluster.add_agent("a1", RESOURCES);
    cluster.add_agent_with("a2", RESOURCES, &["--attribute", "address=10.9.8.7"]);
    Some(cluster)
}

#[test]
fn services_are_found_by_name_and_leave_it_when_they_are_gone() {
    let Some(mut cluster) = cluster() else { return };
    apply(&cluster, "shop/web", "front", 4);
    let http = ports(&cluster, "shop/web", "front", "http");
    assert_eq!(http.len(), ports_of(&dig(&cluster, &["SRV", "_http._tcp.front.web.shop.skep"])).len());
    assert_eq!(ports_of(&dig(&cluster, &["SRV", "_http._tcp.front.web.shop.skep"])), http);
    assert_eq!(dig(&cluster, &["A", "Front.WEB.shop.skep"]), ["10.9.8.7", "127.0.0.1"].map(str::to_owned).into());
    assert_eq!(dig(&cluster, &["+tcp", "SRV", "front.web.shop.skep"]).len(), 8);
    assert_eq!(dig(&cluster, &["A", "3.front.web.shop.skep"]).len(), 1);
    // One that is scaled away leaves, and the last one with it leaves the name with nothing.
    let (text, code) = said(&cluster, &["scale", "front", "1", "--role", "shop/web"]);
    assert_eq!(code, Some(0), "{text}");
    cluster.until("three have left", |cluster| dig(cluster, &["SRV", "_http._tcp.front.web.shop.skep"]).len() == 1);
    assert_eq!(status(&cluster, &["A", "3.front.web.shop.skep"]), "NXDOMAIN");
    let service = json(&cluster, "/v1/names/front?role=shop/web");
    let host = service["instances"][0]["host"].as_str().unwrap().to_owned();
    let other = if host == "a1" { "10.9.8.7" } else { "127.0.0.1" };
    cluster.kill_agent(&host);
    let (text, code) = said(&cluster, &["agents", "gone", &host]);
    assert_eq!(code, Some(0), "{text}");
    cluster.until("it is found on the other agent", |cluster| dig(cluster, &["front.web.shop.skep"]) == [other.to_owned()].into());
    let (text, code) = said(&cluster, &["stop", "front", "--role", "shop/web"]);
    assert_eq!(code, Some(0), "{text}");
    cluster.until("the name is gone", |cluster| status(cluster, &["front.web.shop.skep"]) == "NXDOMAIN");
}

#[test]
fn what_is_no_service_has_no_name_and_hostile_packets_change_nothing() {
    let Some(cluster) = cluster() else { return };
    apply(&cluster, "default", "web", 2);
    for (asked, expected) in [
        (&["web.default.skep"][..], "NOERROR"),
        (&["MX", "web.default.skep"], "NOERROR"),
        (&["skep"], "NOERROR"),
        (&["nothing.default.skep"], "NXDOMAIN"),
        (&["9.web.default.skep"], "NXDOMAIN"),
        (&["SRV", "_ftp._tcp.web.default.skep"], "NXDOMAIN"),
        (&["a_b.default.skep"], "NXDOMAIN"),
        (&["www.example.com"], "REFUSED"),
        (&["CH", "TXT", "version.bind"], "REFUSED"),
        (&["+opcode=notify", "web.default.skep"], "NOTIMP"),
    ] {
        assert_eq!(status(&cluster, asked), expected, "{asked:?}");
    }
    assert_eq!(dig(&cluster, &["MX", "web.default.skep"]), BTreeSet::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut draw = 7_u64;
    for length in (0..2_000).chain([9_000, 60_000]) {
        let bytes = (0..length).map(|_| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (draw >> 40) as u8
        });
        socket.send_to(&bytes.collect::<Vec<u8>>(), &cluster.dns).unwrap();
    }
    assert_eq!(dig(&cluster, &["SRV", "_http._tcp.web.default.skep"]).len(), 2);
    assert_eq!(get(&cluster, "/v1/names/nothing", "*/*").0, 404);
}

#[test]
fn the_text_is_one_that_haproxy_takes() {
    let Some(cluster) = cluster() else { return };
    apply(&cluster, "default", "web", 2);
    apply(&cluster, "shop/web", "front", 1);
    let text = get(&cluster, "/v1/names", "text/plain").1;
    assert_eq!(text.lines().filter(|line| line.starts_with("backend ")).count(), 4, "{text}");
    for port in ports(&cluster, "default", "web", "http") {
        assert!(text.contains(&format!(":{port} check")), "{text}");
    }
    if Command::new("haproxy").arg("-v").output().is_err() {
        return println!("skipped: no haproxy");
    }
    let file = cluster.folder.join("haproxy.cfg");
    let head = "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n\nfrontend all\n  bind 127.0.0.1:29999\n  default_backend web.default-http\n\n";
    std::fs::write(&file, format!("{head}{text}")).unwrap();
    let checked = Command::new("haproxy").arg("-c").arg("-f").arg(&file).ends();
    assert!(checked.status.success(), "{}{text}", String::from_utf8_lossy(&checked.stderr));
}
