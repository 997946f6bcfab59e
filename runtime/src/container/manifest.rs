//! What an archive says that it is: an OCI layout (OCI image-spec 1.1, image-layout.md, image-index.md, manifest.md) or what `docker save`
//! writes (moby, image/spec/v1.2.md, `manifest.json`). Finds the one image for this machine: its configuration and its layers, lowest first.

use super::archive::Archive;
use super::{Digest, UnpackError, shown};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// Longest index, manifest or configuration that is read.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 4;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Where an image's layers are known to be tar archives; how they are compressed is seen from their bytes.
const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// An image in an archive.
#[derive(Debug)]
pub(super) struct Found {
    /// Its configuration, as JSON.
    pub(super) config: Vec<u8>,
    /// Its layers, the lowest first.
    pub(super) layers: Vec<Blob>,
}

/// A layer as the archive has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// The name of its member.
    pub(super) member: String,
    /// What its bytes must be; `None`: the archive does not say it, and the configuration's diffID is all there is.
    pub(super) digest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// The architecture of this machine, in the words of images (Go's).
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Finds the image.
///
/// # Errors
/// Where there is none, more than one, none for this machine, or one of a kind that is not run here.
pub(super) fn find(archive: &Archive) -> Result<Found, UnpackError> {
    // An archive may be both; the layout says more.
    if archive.has("oci-layout") {
        return oci(archive);
    }
    if archive.has("manifest.json") {
        return docker(archive);
    }
    refused("it holds no image: at its top there is neither an OCI layout (`oci-layout`) nor what `docker save` writes (`manifest.json`)")
}

fn oci(archive: &Archive) -> Result<Found, UnpackError> {
    let layout: Layout = json("oci-layout", &archive.read("oci-layout", JSON_BYTES_MAX)?)?;
    if !layout.image_layout_version.starts_with("1.") {
        return refused(format!("an OCI layout of version {}: 1 is read", shown(layout.image_layout_version.as_bytes())));
    }
    let index: Index = json("index.json", &archive.read("index.json", JSON_BYTES_MAX)?)?;
    let manifest = choose(archive, index, 0)?;
    let what = format!("manifest {}", manifest.digest);
    let read: Manifest = json(&what, &blob(archive, &manifest)?)?;
    if ![OCI_CONFIG, DOCKER_CONFIG].contains(&read.config.media_type.as_str()) {
        let found = shown(read.config.media_type.as_bytes());
        return refused(format!("it is no container image: its configuration is of type {found}")).map_err(|error| error.within(&what));
    }
    let layers = read.layers.iter().enumerate().map(|(at, layer)| oci_layer(archive, layer).map_err(|error| error.within(layer_name(at))));
    Ok(Found { config: blob(archive, &read.config)?, layers: layers.collect::<Result<_, _>>()? })
}

/// What people call the layer at `at`.
pub(super) fn layer_name(at: usize) -> String {
    format!("layer {}", at + 1)
}

fn oci_layer(archive: &Archive, layer: &Descriptor) -> Result<Blob, UnpackError> {
    let media = layer.media_type.as_str();
    if !LAYERS.contains(&media) {
        let shown = shown(media.as_bytes());
        return refused(match media {
            media if media.contains("nondistributable") || media.contains("foreign") => {
                format!("it is a foreign layer ({shown}), which only its publisher gives out")
            }
            media if media.contains("encrypted") => format!("it is encrypted ({shown})"),
            _ => format!("it is of type {shown}, which is not known"),
        });
    }
    let (digest, member) = place(layer)?;
    let bytes = archive.find(&member)?.len();
    if bytes != layer.size {
        return refused(format!("{member} has {bytes} bytes and should have {}", layer.size));
    }
    Ok(Blob { member, digest: Some(digest) })
}

/// The manifest for this machine among those of an index, and of indexes in it.
fn choose(archive: &Archive, index: Index, depth: usize) -> Result<Descriptor, UnpackError> {
    let here = |descriptor: &Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture(),
        // Then the configuration says it.
        None => true,
    };
    let count = index.manifests.len();
    let (mut fitting, others): (Vec<Descriptor>, Vec<Descriptor>) = index.manifests.into_iter().partition(here);
    if fitting.is_empty() {
        let platforms: Vec<String> = others.iter().filter_map(|other| other.platform.as_ref()).map(Platform::shown).collect();
        return refused(match count {
            0 => "its index is empty: it holds no image".into(),
            _ => format!("it holds no image for linux/{}; it has {}", architecture(), platforms.join(", ")),
        });
    }
    // Of variants of one architecture the plainest runs everywhere.
    let variant = |descriptor: &Descriptor| descriptor.platform.as_ref().map_or(String::new(), |platform| platform.variant.clone());
    fitting.sort_by_key(variant);
    let first = fitting.remove(0);
    let same = |other: &&Descriptor| other.digest != first.digest && variant(other) == variant(&first);
    let more: BTreeSet<&str> = fitting.iter().filter(same).map(|other| other.digest.as_str()).collect();
    if !more.is_empty() {
        return refused(format!("it holds {} images for this machine: an archive of one is needed", more.len() + 1));
    }
    match first.media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => Ok(first),
        OCI_INDEX | DOCKER_INDEX if depth < INDEX_DEPTH_MAX => {
            let what = format!("index {}", first.digest);
            choose(archive, json(&what, &blob(archive, &first)?)?, depth + 1)
        }
        OCI_INDEX | DOCKER_INDEX => Err(UnpackError::limit(format!("more than {INDEX_DEPTH_MAX} indexes within each other"))),
        other => refused(format!("its index points to something of type {}, which is not known", shown(other.as_bytes()))),
    }
}

impl Platform {
    fn shown(&self) -> String {
        format!("{}/{}", self.os.escape_debug(), self.architecture.escape_debug()).chars().take(60).collect()
    }
}

/// Where a blob must be, and what it must be.
fn place(descriptor: &Descriptor) -> Result<(Digest, String), UnpackError> {
    let digest = descriptor.digest.strip_prefix("sha256:").and_then(|digest| digest.parse::<Digest>().ok());
    let Some(digest) = digest else {
        return refused(format!("{} is no SHA-256 digest, and no other is read", shown(descriptor.digest.as_bytes())));
    };
    Ok((digest, format!("blobs/sha256/{digest}")))
}

/// A small blob, which is what its digest says.
fn blob(archive: &Archive, descriptor: &Descriptor) -> Result<Vec<u8>, UnpackError> {
    let (digest, member) = place(descriptor)?;
    let bytes = archive.read(&member, JSON_BYTES_MAX)?;
    if Digest::of(&bytes) != digest || bytes.len() as u64 != descriptor.size {
        return refused(format!("{member} is not what its digest says"));
    }
    Ok(bytes)
}

fn docker(archive: &Archive) -> Result<Found, UnpackError> {
    let saved: Vec<Saved> = json("manifest.json", &archive.read("manifest.json", JSON_BYTES_MAX)?)?;
    let [image] = saved.as_slice() else {
        let tags: Vec<&str> = saved.iter().filter_map(|image| image.repo_tags.as_ref()?.first()).map(String::as_str).collect();
        let tags = shown(tags.join(", ").as_bytes());
        return refused(format!("it holds {} images ({tags}): an archive of one is needed", saved.len()));
    };
    let config = archive.read(&image.config, JSON_BYTES_MAX)?;
    // The name of its member is its digest, as `DIGEST.json` or `blobs/sha256/DIGEST`.
    let name = image.config.rsplit('/').next().unwrap_or_default();
    if let Ok(digest) = name.strip_suffix(".json").unwrap_or(name).parse::<Digest>()
        && digest != Digest::of(&config)
    {
        return refused(format!("{} is not what its digest says", shown(image.config.as_bytes())));
    }
    let layer = |(at, member): (usize, &String)| {
        archive.find(member).map_err(|error| error.within(layer_name(at)))?;
        Ok(Blob { member: member.clone(), digest: None })
    };
    Ok(Found { config, layers: image.layers.iter().enumerate().map(layer).collect::<Result<_, UnpackError>>()? })
}

/// Reads JSON; unknown fields are none of our business.
pub(super) fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, UnpackError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let said = error.to_string();
        UnpackError::refused(format!("{what} is not what it should be: {}", shown(said.as_bytes()).trim_matches('"')))
    })
}

fn refused<T>(what: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::refused(what))
}
