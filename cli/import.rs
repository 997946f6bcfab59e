//! `skep import`: job files made of what another system has. Asks no cluster.

use crate::args::{Import, ImportFrom, Shape};
use crate::job::Unfit;
use crate::print;
use anyhow::{Context, bail};
use master::http::marathon::import::{Imported, import as of_marathon};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes the job files, and says what they lack.
pub fn import(flags: Import, shape: Shape) -> anyhow::Result<ExitCode> {
    let ImportFrom::Marathon { file, to } = flags.from;
    let mut text = String::new();
    match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(drop).context("reading standard input")?,
        _ => text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?,
    }
    let made = of_marathon(&text).map_err(|why| Unfit(format!("{}: {why}", file.display())))?;
    let mut rows = vec![];
    for imported in &made {
        let path = to.join(format!("{}.toml", imported.stem));
        write(&path, imported.text.as_bytes(), false)?;
        if let Some(script) = &imported.script {
            write(&to.join(format!("{}.sh", imported.stem)), script, true)?;
        }
        rows.push(row(&path, imported));
    }
    if shape == Shape::Json {
        println!("{}", json!({ "files": rows }));
    }
    for (row, imported) in rows.iter().zip(&made).filter(|_| shape == Shape::Table) {
        println!("{}", print::text(&row["file"]));
        imported.notes.iter().for_each(|note| println!("  {}", print::plain(note)));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(path: &Path, imported: &Imported) -> Value {
    json!({ "file": path.display().to_string(), "notes": imported.notes })
}

/// Writes a file that is not there yet.
fn write(path: &PathBuf, bytes: &[u8], executable: bool) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if executable { 0o755 } else { 0o644 };
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match opened {
        Ok(mut file) => file.write_all(bytes).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(Unfit(format!("{} is there already\nhelp: move it away, or name another folder with --to", path.display())))
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
