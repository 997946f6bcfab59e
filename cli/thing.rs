//! What a file or folder on this machine is, told by looking, and what of it is uploaded: the thing itself, or an archive of a folder.

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use protocol::Digest;
use runtime::container::{self, Look};
use sha2::Digest as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::job::Unfit;

/// What an OCI layout has at its top (image-layout.md), and what `docker save` writes.
const LAYOUT: &str = "oci-layout";
const SAVED: &str = "manifest.json";
/// Files at the head of an archive that are looked at; what makes it an image may be the last of them.
const NAMES_MAX: usize = 100_000;
/// Magic of a zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const READ_BYTES: usize = 256 << 10;

/// What something is for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// `task.wasm`.
    Wasm,
    /// `task.native`, one file.
    Program,
    /// `task.native`, an archive or a folder.
    Bundle,
    /// `task.image`.
    Image,
}

/// What is uploaded.
#[derive(Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file as it is.
    File(PathBuf),
}

/// Something that is uploaded, by its digest.
#[derive(Debug)]
pub struct Bundle {
    /// SHA-256 of what is uploaded.
    pub digest: Digest,
    /// What that is.
    pub content: Content,
}

impl Bundle {
    /// Of bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), content: Content::Bytes(bytes) }
    }

    /// Of a file, which is read but not kept, or of a folder, which becomes an archive.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let at = || path.display().to_string();
        if fs::metadata(path).with_context(at)?.is_dir() {
            let mut bytes = vec![];
            pack(path, path.join(LAYOUT).exists(), &mut bytes).with_context(at)?;
            return Ok(Self::of(bytes));
        }
        let mut file = File::open(path).with_context(at)?;
        let mut hash = sha2::Sha256::new();
        let mut part = vec![0; READ_BYTES];
        loop {
            match file.read(&mut part).with_context(at)? {
                0 => return Ok(Self { digest: Digest(hash.finalize().into()), content: Content::File(path.into()) }),
                length => hash.update(&part[..length]),
            }
        }
    }
}

/// Looks at `path`.
pub fn sort(path: &Path) -> anyhow::Result<Sort> {
    let at = || path.display().to_string();
    if fs::metadata(path).with_context(at)?.is_dir() {
        return Ok(if path.join(LAYOUT).exists() { Sort::Image } else { Sort::Bundle });
    }
    let file = File::open(path).with_context(at)?;
    if file.metadata().with_context(at)?.len() == 0 {
        bail!(Unfit(format!("{} is empty", path.display())));
    }
    match container::look(&file).map_err(|error| Unfit(format!("{}: {error}", path.display())))? {
        Look::Wasm => Ok(Sort::Wasm),
        Look::Elf | Look::Script => Ok(Sort::Program),
        Look::Archive => Ok(if is_image(path).with_context(at)? { Sort::Image } else { Sort::Bundle }),
        Look::Other => bail!(Unfit(format!(
            "{} is nothing that runs: neither wasm (`\\0asm` at its head), an executable (ELF), a script (`#!`), an archive nor a job file (.toml, .json)",
            path.display()
        ))),
    }
}

/// True where an archive has what an image has at its top. One that is compressed with zstd is taken for a bundle: images are not.
fn is_image(path: &Path) -> io::Result<bool> {
    let mut head = [0; 4];
    File::open(path)?.read_exact(&mut head)?;
    let file = File::open(path)?;
    match head {
        [0x1f, 0x8b, ..] => has_image(GzDecoder::new(file)),
        ZSTD => Ok(false),
        _ => has_image(file),
    }
}

fn has_image(archive: impl Read) -> io::Result<bool> {
    for entry in tar::Archive::new(archive).entries()?.take(NAMES_MAX) {
        // What is damaged is said by who unpacks it.
        let Ok(entry) = entry else { return Ok(false) };
        let name = entry.path_bytes();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        if [LAYOUT.as_bytes(), SAVED.as_bytes()].contains(&name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a file is called inside: its own name, where that is a plain one.
pub fn plain_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (plain && !name.starts_with('.') && name.len() <= 64).then(|| name.to_owned())
}

/// An archive of a folder that has the same bytes wherever and whenever it is made: sorted, of 1970, root's. Compressed, unless it is an image,
/// whose layers are.
fn pack(folder: &Path, bare: bool, to: &mut Vec<u8>) -> io::Result<()> {
    if bare {
        return pack_into(folder, to);
    }
    let mut compressed = GzEncoder::new(to, Compression::fast());
    pack_into(folder, &mut compressed)?;
    compressed.finish().map(drop)
}

fn pack_into(folder: &Path, to: &mut impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    add(&mut archive, folder, Path::new(""))?;
    archive.finish()
}

fn add<W: Write>(archive: &mut tar::Builder<W>, folder: &Path, inside: &Path) -> io::Result<()> {
    let mut names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    for name in names {
        let (path, inside) = (folder.join(&name), inside.join(&name));
        let found = fs::symlink_metadata(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(found.permissions().mode() & 0o755);
        header.set_mtime(0);
        header.set_size(0);
        if found.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, &inside, fs::read_link(&path)?)?;
        } else if found.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut header, &inside, io::empty())?;
            add(archive, &path, &inside)?;
        } else if found.is_file() {
            header.set_size(found.len());
            archive.append_data(&mut header, &inside, File::open(&path)?)?;
        } else {
            return Err(io::Error::other(format!("{} is neither a file, a folder nor a link", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("skep-thing-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("lib")).unwrap();
        fs::write(path.join("run"), "#!/bin/sh\n").unwrap();
        fs::write(path.join("lib/a"), "a").unwrap();
        std::os::unix::fs::symlink("lib/a", path.join("b")).unwrap();
        Folder(path)
    }

    #[test]
    fn a_folder_has_one_digest_wherever_it_is() {
        let (one, two) = (folder("one"), folder("two"));
        assert_eq!(Bundle::read(&one.0).unwrap().digest, Bundle::read(&two.0).unwrap().digest);
        fs::write(two.0.join("lib/a"), "b").unwrap();
        assert_ne!(Bundle::read(&one.0).unwrap().digest, Bundle::read(&two.0).unwrap().digest);
    }

    #[test]
    fn things_are_told_by_looking() {
        let folder = folder("look");
        let check = |name: &str, bytes: &[u8], expected: Sort| {
            fs::write(folder.0.join(name), bytes).unwrap();
            assert_eq!(sort(&folder.0.join(name)).unwrap(), expected, "{name}");
        };
        check("w", b"\0asm\x01\0\0\0", Sort::Wasm);
        check("s", b"#!/bin/sh\n", Sort::Program);
        check("e", b"\x7fELF\x02\x01\x01", Sort::Program);
        let config = container::ImageConfig {
            entrypoint: vec![],
            command: vec![],
            env: vec![],
            user: String::new(),
            dir: "/".into(),
            stop_signal: None,
            ports: vec![],
        };
        let image = container::build::image("test", &[vec![0; 1024]], &config);
        check("i", &image, Sort::Image);
        let mut compressed = GzEncoder::new(vec![], Compression::fast());
        compressed.write_all(&image).unwrap();
        check("i.gz", &compressed.finish().unwrap(), Sort::Image);
        let mut packed = vec![];
        pack(&folder.0.join("lib"), false, &mut packed).unwrap();
        check("t", &packed, Sort::Bundle);
        assert_eq!(sort(&folder.0).unwrap(), Sort::Bundle);
        fs::write(folder.0.join(LAYOUT), "{}").unwrap();
        assert_eq!(sort(&folder.0).unwrap(), Sort::Image);
        fs::write(folder.0.join("x"), "text").unwrap();
        assert!(sort(&folder.0.join("x")).unwrap_err().to_string().contains("nothing that runs"));
    }
}
