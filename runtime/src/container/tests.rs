//! Archives made by hand, unpacked in this process: what is let in, what is refused and with which words, and that nothing is ever written
//! outside of the target.

mod hostile;
mod images;
mod layers;
mod starts;
mod streams;

use super::build::{self, Item};
use super::{ImageConfig, Limits, UnpackError, Unpacked, Wanted, unpack};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder with a target in it and something beside the target that must stay as it is; removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("skep-unpack-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("target")).unwrap();
        fs::write(path.join("canary"), "untouched").unwrap();
        Self(path)
    }

    fn target(&self) -> PathBuf {
        self.0.join("target")
    }

    fn unpack(&self, bytes: &[u8], wanted: Wanted, limits: &Limits) -> Result<Unpacked, UnpackError> {
        let before = seen(&self.0);
        fs::write(self.0.join("archive"), bytes).unwrap();
        let target = File::open(self.target()).unwrap();
        let result = unpack(&File::open(self.0.join("archive")).unwrap(), target.as_fd(), wanted, &[], limits);
        fs::remove_file(self.0.join("archive")).unwrap();
        assert_eq!(seen(&self.0), before, "something outside of the target was changed");
        result
    }

    /// Unpacks an image of this one layer and returns its folder.
    fn layer(&self, layer: &[u8], limits: &Limits) -> Result<PathBuf, UnpackError> {
        let image = build::image("test", &[layer.to_vec()], &ImageConfig::default());
        match self.unpack(&image, Wanted::Image, limits)? {
            Unpacked::Image { layers, .. } => Ok(self.target().join("layers").join(layers[0].id.to_string())),
            other => panic!("{other:?}"),
        }
    }

    fn bundle(&self, archive: &[u8], limits: &Limits) -> Result<PathBuf, UnpackError> {
        self.unpack(archive, Wanted::Bundle, limits).map(|_| self.target().join("folder"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All that is in a folder but in its target: names, kinds, modes, owners, links and contents.
fn seen(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, u32, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, about) = (entry.path(), entry.path().symlink_metadata().unwrap());
        if path.file_name().is_some_and(|name| name == "target") {
            continue;
        }
        let contents = match about.file_type() {
            kind if kind.is_dir() => {
                found.extend(seen(&path));
                vec![]
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            kind if kind.is_file() => fs::read(&path).unwrap(),
            _ => vec![],
        };
        found.insert(path, (about.mode(), about.uid(), about.gid(), about.nlink(), contents));
    }
    found
}

/// An entry of type `flag`, with `data` and nothing said about it that is not so.
fn raw(path: &[u8], flag: u8, link: &[u8], data: &[u8]) -> Vec<u8> {
    sized(path, flag, link, data.len() as u64, data)
}

/// The same, with another size in its header.
fn sized(path: &[u8], flag: u8, link: &[u8], size: u64, data: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    block[..path.len()].copy_from_slice(path);
    block[100..108].copy_from_slice(b"0000755\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000012\0");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let mut bytes = summed(block).to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Changes some bytes of the header that `entry` begins with, and its sum accordingly.
fn changed(mut entry: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut block: [u8; 512] = entry[..512].try_into().unwrap();
    block[at..at + bytes.len()].copy_from_slice(bytes);
    entry[..512].copy_from_slice(&summed(block));
    entry
}

fn summed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn file(path: &str, data: &[u8]) -> Vec<u8> {
    raw(path.as_bytes(), b'0', b"", data)
}

fn folder(path: &str) -> Vec<u8> {
    raw(path.as_bytes(), b'5', b"", b"")
}

fn symlink(path: &str, to: &str) -> Vec<u8> {
    raw(path.as_bytes(), b'2', to.as_bytes(), b"")
}

fn hard_link(path: &str, to: &str) -> Vec<u8> {
    raw(path.as_bytes(), b'1', to.as_bytes(), b"")
}

/// An extended header for what follows.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = vec![];
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    raw(b"PaxHeaders/x", b'x', b"", &data)
}

/// Entries with the mark of an archive's end.
fn ended(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1_024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    std::io::Write::write_all(&mut to, bytes).unwrap();
    to.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An image of layers made of files.
fn image(layers: &[&[Item]], config: &ImageConfig) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|items| build::layer(items).unwrap()).collect();
    build::image("test", &layers, config)
}
