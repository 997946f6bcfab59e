//! Compiled code, loaded once for each digest. The only file here with `unsafe`: compiled code is machine code, and loading it is believing it.

use super::control::printable;
use super::engine::Engines;
use super::host::{MESSAGES, Task};
use super::limits::{MEMORIES_PER_TASK_MAX, TABLES_PER_TASK_MAX};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::component::Component;
use wasmtime::{Engine, ExternType, InstancePre, Module, ModuleExport, Precompiled, ResourcesRequired};
use wasmtime_wasi::p2::bindings::CommandPre;

/// Most programs that stay loaded; what was not used for longest goes first.
const LOADED_MAX: usize = 256;
/// Most bytes of a reason that is shown.
pub const REASON_BYTES_MAX: usize = 512;
/// Most unknown imports that are named.
const NAMED_MAX: usize = 8;
/// Tables for each slot of the pool; a task with more takes several slots.
pub const TABLES_PER_SLOT: u32 = 4;

/// Why a plan cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read, or holds what another version of this program compiled. Compiling anew helps.
    #[error("compiled code {path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It imports what nobody offers, or exports nothing to run. Trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// Standard input cannot be opened.
    #[error("standard input {path}: {error}")]
    Stdin {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// A program, linked: all that tasks of the same code have in common.
pub struct Loaded {
    /// How it is entered.
    pub entry: Entry,
    /// How many slots of the pool one task of it takes.
    pub slots: u32,
    /// True where it takes messages of its framework.
    pub listens: bool,
}

/// How a program is entered.
pub enum Entry {
    /// A core module's `_start`.
    Core(InstancePre<Task>, ModuleExport),
    /// A component's `wasi:cli/run`.
    Component(CommandPre<Task>),
}

/// The programs of one engine.
#[derive(Default)]
pub struct Cache {
    loaded: Mutex<Programs>,
}

#[derive(Default)]
struct Programs {
    by_digest: HashMap<[u8; 32], (u64, Arc<Loaded>)>,
    uses: u64,
}

impl Cache {
    /// The program `digest`, loaded from `compiled` if it is not yet.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, engines: &Engines, digest: [u8; 32], compiled: &Path) -> Result<Arc<Loaded>, LoadError> {
        // Held while it loads: of tasks that are started together one loads and the others wait for it.
        let mut programs = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        programs.uses += 1;
        let now = programs.uses;
        if let Some((used, loaded)) = programs.by_digest.get_mut(&digest) {
            *used = now;
            return Ok(Arc::clone(loaded));
        }
        let loaded = Arc::new(Loaded::new(engines, compiled)?);
        if programs.by_digest.len() >= LOADED_MAX {
            let oldest = programs.by_digest.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| *digest);
            oldest.and_then(|digest| programs.by_digest.remove(&digest));
        }
        programs.by_digest.insert(digest, (now, Arc::clone(&loaded)));
        Ok(loaded)
    }
}

/// The component that was compiled to this file, for `engine`. Only for files that [`super::compile`] wrote and nobody else can write.
///
/// # Errors
/// See [`LoadError`].
pub fn component_of(engine: &Engine, compiled: &Path) -> Result<Component, LoadError> {
    let unusable = |error: wasmtime::Error| LoadError::Unusable { path: compiled.to_path_buf(), reason: reason(&error) };
    match Engine::detect_precompiled_file(compiled).map_err(unusable)? {
        // SAFETY: as in `Loaded::new`: the file was compiled on this machine, and lies where only this process can write.
        Some(Precompiled::Component) => unsafe { Component::deserialize_file(engine, compiled) }.map_err(unusable),
        Some(Precompiled::Module) => Err(refused("it is a core module, not a component")),
        None => Err(LoadError::Unusable { path: compiled.to_path_buf(), reason: "not compiled code".into() }),
    }
}

impl Loaded {
    fn new(engines: &Engines, compiled: &Path) -> Result<Self, LoadError> {
        let unusable = |error: wasmtime::Error| {
            let cause = error.root_cause().to_string();
            // Code that is right but larger than the pool's bounds comes this way too; no type tells it, so a test holds these words.
            if error.chain().any(|error| error.to_string().contains("does not fit in pooling allocator")) {
                return refused(&format!("it is larger than what is run here: {cause}"));
            }
            LoadError::Unusable { path: compiled.to_path_buf(), reason: reason(&error) }
        };
        match Engine::detect_precompiled_file(compiled).map_err(unusable)? {
            // SAFETY: the file was compiled on this machine by `compile` and lies where only whoever launches tasks can write; `Plan::compiled`
            // asks that of callers. What another version or other settings compiled is refused by wasmtime itself.
            Some(Precompiled::Module) => {
                Self::core(engines, &unsafe { Module::deserialize_file(&engines.engine, compiled) }.map_err(unusable)?)
            }
            // SAFETY: as above.
            Some(Precompiled::Component) => {
                Self::component(engines, &unsafe { Component::deserialize_file(&engines.engine, compiled) }.map_err(unusable)?)
            }
            None => Err(LoadError::Unusable { path: compiled.to_path_buf(), reason: "not compiled code".into() }),
        }
    }

    fn core(engines: &Engines, module: &Module) -> Result<Self, LoadError> {
        let unknown: Vec<String> = module
            .imports()
            .filter(|import| import.module() != "wasi_snapshot_preview1")
            .map(|import| format!("{}/{}", import.module(), import.name()))
            .collect();
        if !unknown.is_empty() {
            let more = unknown.len().saturating_sub(NAMED_MAX);
            let more = if more == 0 { String::new() } else { format!(", and {more} more") };
            let named = unknown[..unknown.len().min(NAMED_MAX)].join(", ");
            return Err(refused(&format!("it imports what nobody offers: {named}{more}; core modules are offered wasi_snapshot_preview1")));
        }
        match module.get_export("_start") {
            Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
            Some(_) => return Err(refused("its export `_start` is no function without parameters and results")),
            None => return Err(refused("it exports no `_start`: a core module must be a WASI preview 1 command")),
        }
        let start = module.get_export_index("_start").expect("it has the export, as was seen above");
        let instance = engines.core.instantiate_pre(module).map_err(|error| refused(&reason(&error)))?;
        module.initialize_copy_on_write_image().map_err(|error| refused(&reason(&error)))?;
        Ok(Self { entry: Entry::Core(instance, start), slots: slots(&module.resources_required())?, listens: false })
    }

    fn component(engines: &Engines, component: &Component) -> Result<Self, LoadError> {
        let instance = engines.component.instantiate_pre(component).map_err(|error| refused(&reason(&error)))?;
        let command = CommandPre::new(instance).map_err(|error| {
            refused(&format!("it exports no wasi:cli/run of 0.2: a component must be a WASI command ({})", reason(&error)))
        })?;
        component.initialize_copy_on_write_image().map_err(|error| refused(&reason(&error)))?;
        let Some(required) = component.resources_required() else {
            return Err(refused("it imports modules or components, which nobody offers"));
        };
        let shape = component.component_type();
        let listens = shape.imports(&engines.engine).any(|(name, _)| name.split('@').next() == MESSAGES.split('@').next());
        Ok(Self { entry: Entry::Component(command), slots: slots(&required)?, listens })
    }
}

fn slots(required: &ResourcesRequired) -> Result<u32, LoadError> {
    let (memories, tables) = (required.num_memories, required.num_tables);
    if memories as usize > MEMORIES_PER_TASK_MAX || tables as usize > TABLES_PER_TASK_MAX {
        return Err(refused(&format!(
            "it has {memories} memories and {tables} tables; at most {MEMORIES_PER_TASK_MAX} and {TABLES_PER_TASK_MAX} are possible"
        )));
    }
    Ok(memories.max(tables.div_ceil(TABLES_PER_SLOT)).max(1))
}

fn refused(reason: &str) -> LoadError {
    LoadError::Refused(printable(reason, REASON_BYTES_MAX))
}

/// An error and what caused it, in one line that a terminal can take.
pub fn reason(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), REASON_BYTES_MAX)
}
