//! Makes an image out of a list of files, in memory and always with the same bytes: a small OCI layout in a tar archive. Knows nothing of
//! where the files come from.

use super::manifest::{OCI_CONFIG, OCI_MANIFEST, architecture};
use super::{Digest, ImageConfig, Transport};
use serde_json::json;
use std::collections::BTreeMap;
use tar::{EntryType, Header};

/// What a file of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    File(Vec<u8>),
    /// A folder.
    Folder,
    /// A symbolic link to this.
    Symlink(String),
    /// Another name of a file that comes before.
    HardLink(String),
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path from the root, without a `/` at its beginning.
    pub path: String,
    /// Its permissions, such as `0o755`.
    pub mode: u32,
    /// Its user and its group.
    pub owner: (u32, u32),
    /// What it is.
    pub content: Content,
}

impl Item {
    /// A file of root.
    #[must_use]
    pub fn file(path: &str, mode: u32, bytes: &[u8]) -> Self {
        Self { path: path.into(), mode, owner: (0, 0), content: Content::File(bytes.into()) }
    }

    /// A folder of root.
    #[must_use]
    pub fn folder(path: &str, mode: u32) -> Self {
        Self { path: path.into(), mode, owner: (0, 0), content: Content::Folder }
    }

    /// A symbolic link of root.
    #[must_use]
    pub fn symlink(path: &str, to: &str) -> Self {
        Self { path: path.into(), mode: 0o777, owner: (0, 0), content: Content::Symlink(to.into()) }
    }
}

/// Why no image could be made of a list of files.
#[derive(Debug, thiserror::Error)]
#[error("{path}: it cannot be put into an archive: {source}")]
pub struct BuildError {
    /// Which file.
    pub path: String,
    /// Why.
    pub source: std::io::Error,
}

/// An uncompressed layer of `items`, in their order and all of 1970.
///
/// # Errors
/// Where a name cannot be in an archive: it is absolute, or has `..` in it.
pub fn layer(items: &[Item]) -> Result<Vec<u8>, BuildError> {
    let mut archive = tar::Builder::new(vec![]);
    for item in items {
        let mut header = Header::new_ustar();
        header.set_mode(item.mode);
        header.set_uid(item.owner.0.into());
        header.set_gid(item.owner.1.into());
        header.set_mtime(0);
        header.set_size(0);
        let appended = match &item.content {
            Content::File(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &item.path, bytes.as_slice())
            }
            Content::Folder => {
                header.set_entry_type(EntryType::Directory);
                archive.append_data(&mut header, &item.path, [].as_slice())
            }
            Content::Symlink(to) => {
                header.set_entry_type(EntryType::Symlink);
                archive.append_link(&mut header, &item.path, to)
            }
            Content::HardLink(to) => {
                header.set_entry_type(EntryType::Link);
                archive.append_link(&mut header, &item.path, to)
            }
        };
        appended.map_err(|source| BuildError { path: item.path.clone(), source })?;
    }
    Ok(archive.into_inner().expect("a vector takes whatever is written to it"))
}

/// An image of these uncompressed layers, the lowest first, for this machine's architecture: the bytes of an archive that this crate and
/// other programs read as `oci-archive`. It has `name` as its reference.
#[must_use]
pub fn image(name: &str, layers: &[Vec<u8>], config: &ImageConfig) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", Digest::of(layer))).collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": settings(config),
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let config = config.to_string().into_bytes();
    let blob =
        |media: &str, bytes: &[u8]| json!({ "mediaType": media, "digest": format!("sha256:{}", Digest::of(bytes)), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob(OCI_CONFIG, &config),
        "layers": layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let mut first = blob(OCI_MANIFEST, &manifest);
    first["platform"] = json!({ "os": "linux", "architecture": architecture() });
    first["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [first] }).to_string();
    let mut members =
        vec![Item::file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#), Item::file("index.json", 0o644, index.as_bytes())];
    let blobs: BTreeMap<Digest, &Vec<u8>> = [&config, &manifest].into_iter().chain(layers).map(|blob| (Digest::of(blob), blob)).collect();
    members.extend(blobs.into_iter().map(|(digest, blob)| Item::file(&format!("blobs/sha256/{digest}"), 0o644, blob)));
    layer(&members).expect("these names are short and plain")
}

fn settings(config: &ImageConfig) -> serde_json::Value {
    let port = |(number, transport): &(u16, Transport)| match transport {
        Transport::Tcp => (format!("{number}/tcp"), json!({})),
        Transport::Udp => (format!("{number}/udp"), json!({})),
    };
    let mut settings = json!({
        "Env": config.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "Entrypoint": config.entrypoint,
        "Cmd": config.command,
        "User": config.user,
        "WorkingDir": config.dir,
        "ExposedPorts": config.ports.iter().map(port).collect::<serde_json::Map<_, _>>(),
    });
    if let Some(signal) = config.stop_signal {
        settings["StopSignal"] = json!(signal.to_string());
    }
    settings
}
