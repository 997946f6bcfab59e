//! `container`, and what an app runs that was uploaded: an image, a program, a `.wasm` file.

use super::app::Reader;
use super::words::Object;
use protocol::Digest;
use serde_json::Value;

/// What is said of anything that would have to be fetched from elsewhere.
pub const ONLY_UPLOADED: &str =
    "only what was uploaded (skep push) is run yet, named by its digest: sha256:…, or sha256:….wasm for WebAssembly";
/// The label that says what an uploaded bundle runs as.
pub const RUNTIME_LABEL: &str = "runtime";

/// The uploaded bundle that a text names, and whether it is to be run as WebAssembly.
pub fn bundle_of(text: &str) -> Option<(Digest, bool)> {
    let (digest, is_wasm) = text.strip_suffix(".wasm").map_or((text, false), |digest| (digest, true));
    Some((digest.strip_prefix("sha256:")?.parse().ok()?, is_wasm))
}

/// `container`.
pub fn read(reader: &mut Reader<'_>) {
    let Some(body) = reader.object("container") else { return };
    let mut of = Reader::new(body, "/container", reader.faults);
    let kind = of.word("type", &["DOCKER", "MESOS"], "DOCKER");
    match of.object("docker") {
        Some(docker) => {
            let mut inner = Reader::new(docker, "/container/docker", of.faults);
            read_docker(&mut inner);
            let read = std::mem::take(&mut inner.out);
            of.out.insert("docker".into(), read.into());
        }
        None if kind == "DOCKER" => of.say("docker", "is missing"),
        None => {}
    }
    of.refuse("linuxInfo", "what a task may do in Linux is not said per app");
    let volumes = of.objects("volumes", volume);
    of.out.insert("volumes".into(), volumes.into_iter().map(Value::Object).collect());
    let read: Object = std::mem::take(&mut of.out);
    reader.out.insert("container".into(), read.into());
}

fn read_docker(docker: &mut Reader<'_>) {
    match docker.text("image") {
        Some(image) if bundle_of(&image).is_some_and(|(_, is_wasm)| !is_wasm) => {}
        Some(_) => docker
            .say("image", "images are not pulled yet: upload what `docker save` writes (skep push), and name it by its digest, sha256:…"),
        None if docker.has("image") => {}
        None => docker.say("image", "is missing"),
    }
    if docker.has("network") {
        let network = docker.word("network", &["HOST", "BRIDGE", "USER", "NONE"], "HOST");
        if ["BRIDGE", "USER"].contains(&network.as_str()) {
            docker.say("network", "containers have the host's network or none yet: HOST or NONE");
        }
    }
    if docker.flag("privileged", false) {
        docker.say("privileged", "no container is privileged");
    }
    docker.flag("forcePullImage", false);
    docker.refuse("parameters", "parameters of Docker's command line mean nothing here");
    docker.out.insert("parameters".into(), Value::Array(vec![]));
}

fn volume(volume: &mut Reader<'_>) {
    for (name, why) in [
        ("persistent", "volumes that outlive a task are not kept yet"),
        ("external", "volumes of others are not mounted yet"),
        ("secret", "secrets are not kept yet"),
    ] {
        volume.refuse(name, why);
    }
    volume.word("mode", &["RO", "RW"], "RW");
    for name in ["containerPath", "hostPath"] {
        let path = volume.text(name);
        if path.as_ref().is_none_or(|path| !path.starts_with('/')) && (name == "containerPath" || !volume.has("persistent")) {
            volume.say(name, "is to be an absolute path");
        }
    }
}
