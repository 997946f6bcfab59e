//! A wasm file, from outside: whether it is one, whether it is valid, what it wants from an agent. Nothing of it is compiled or run here.
//!
//! Knows the interfaces that agents offer from `protocol`, and links no engine. Time and memory are bounded by the caps below before the
//! validator sees a section.

use super::problem::{Code, Problem, quoted};
use protocol::interfaces::{self, PREVIEW1, START};
use serde::{Deserialize, Serialize};
use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, Encoding, ExternalKind, FuncValidatorAllocations, Parser, Payload, TypeBounds, TypeRef,
    ValType, ValidPayload, Validator, WasmFeatures, types::Types,
};

/// Most bytes of a wasm file.
pub const WASM_BYTES_MAX: usize = 64 << 20;
/// Most functions in all modules of a file; an interpreter of a large language has 30,000.
pub const FUNCTIONS_MAX: u32 = 200_000;
/// Most types, globals, exports and segments of one section.
pub const SECTION_ITEMS_MAX: u32 = 100_000;
/// Most imports of one section.
pub const IMPORTS_MAX: u32 = 10_000;
/// Most modules and components inside a component, all levels together.
pub const NESTED_MAX: u32 = 1_000;
/// Deepest nesting of components.
pub const NESTED_DEPTH_MAX: usize = 16;
/// Most missing imports that are named.
const NAMED_MAX: usize = 16;
/// Bytes of a wasm page.
const PAGE_BYTES: u64 = 1 << 16;

/// What a wasm task may use, as `design/wasm.md` has it: what came with wasm 2.0 and the settled additions that need no collector and no
/// second thread. Not threads, memory64, gc, exceptions or custom page sizes.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::COMPONENT_MODEL);

/// What kind of wasm it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WasmKind {
    /// A core module for WASI preview 1.
    Module,
    /// A component for WASI 0.2.
    Component,
}

/// What a wasm file is that can run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Which kind.
    pub kind: WasmKind,
    /// Bytes of linear memory that its memories begin with, all together.
    pub memory_bytes_min: u64,
    /// Elements that the largest of its tables begins with.
    pub table_elements_min: u32,
    /// Its functions, for whoever estimates what compiling takes.
    pub functions: u32,
}

/// Why a file is no wasm that can run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It has no bytes.
    #[error("an empty file")]
    Empty,
    /// It has too many.
    #[error("{bytes} bytes: a wasm file has at most {WASM_BYTES_MAX}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// It is wasm in its text format.
    #[error("wasm as text")]
    Text,
    /// It is machine code: a `.cwasm` that wasmtime compiled, or an executable.
    #[error("compiled machine code ({what}), not wasm")]
    Compiled {
        /// What it looks like.
        what: &'static str,
    },
    /// It does not begin as wasm does.
    #[error("no wasm: it does not begin with '\\0asm'")]
    NotWasm,
    /// It is no valid wasm.
    #[error("invalid wasm at byte {offset}: {reason}")]
    Invalid {
        /// Where.
        offset: usize,
        /// In wasmparser's words.
        reason: String,
    },
    /// It uses a part of wasm that is not offered.
    #[error("wasm at byte {offset} uses what is not offered: {reason}")]
    Feature {
        /// Where.
        offset: usize,
        /// In wasmparser's words.
        reason: String,
    },
    /// It has too much of something.
    #[error("{count} {what}: at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// How many may be.
        max: u64,
    },
    /// It exports nothing that could be run.
    #[error("{reason}")]
    NoEntry {
        /// What is missing.
        reason: String,
    },
    /// It imports what no agent offers.
    #[error("nobody offers {}", names.join(", "))]
    Imports {
        /// What, as `module.name` or an interface's name; quoted.
        names: Vec<String>,
    },
}

impl Rejection {
    /// The same as a problem with `field`.
    #[must_use]
    pub fn to_problem(&self, field: &str) -> Problem {
        let code = match self {
            Self::TooLarge { .. } | Self::TooMany { .. } => Code::TooLarge,
            Self::Imports { .. } => Code::UnofferedImport,
            _ => Code::BadWasm,
        };
        let problem = Problem::new(code, field, self.to_string());
        match self.help() {
            Some(help) => problem.with_help(help),
            None => problem,
        }
    }

    /// What would mend it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Text => "make it binary: wasm-tools parse FILE.wat -o FILE.wasm",
            Self::Compiled { .. } => "give the .wasm it was compiled from: agents compile it themselves",
            Self::NotWasm | Self::Empty => "build it for wasm32-wasip1 or wasm32-wasip2",
            Self::TooLarge { .. } => "strip it: wasm-tools strip FILE.wasm -o SMALLER.wasm",
            Self::NoEntry { .. } => "build a program (a bin with a main) for wasm32-wasip1 or wasm32-wasip2, not a library",
            Self::Imports { names } if names.iter().any(|name| name.contains("wasi_unstable.")) => {
                "it was built for WASI preview 0: build it for wasm32-wasip1"
            }
            Self::Imports { names } if names.iter().any(|name| name.contains("wasi:") && name.contains("@0.3")) => {
                "it was built for WASI 0.3: build it for wasm32-wasip2"
            }
            Self::Imports { .. } => {
                "agents offer WASI preview 1, WASI 0.2 (cli, clocks, filesystem, io, random, sockets), wasi:config and skep:task"
            }
            Self::Feature { .. } => "threads, memory64, gc, exceptions, WASI 0.3 and custom page sizes are not offered: build without them",
            Self::Invalid { .. } | Self::TooMany { .. } => return None,
        })
    }
}

impl From<wasmparser::Error> for Rejection {
    fn from(error: wasmparser::Error) -> Self {
        // What it says may quote names of the file.
        let (offset, reason) = (error.offset(), super::problem::quoted_long(error.message()));
        match error.missing_wasm_feature() {
            Some(_) => Self::Feature { offset, reason },
            None => Self::Invalid { offset, reason },
        }
    }
}

/// What the wasm file `bytes` is. Takes time in proportion to its bytes, up to about a second for the largest: not to be called where
/// others wait.
///
/// # Errors
/// [`Rejection`]: the first reason for which it cannot run, or all imports that nobody offers.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Rejection> {
    refuse_other_files(bytes)?;
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    let mut validator = Validator::new_with_features(FEATURES);
    let mut allocations = FuncValidatorAllocations::default();
    let mut seen = Seen::default();
    let mut types = None;
    for payload in parser.parse_all(bytes) {
        let payload = payload?;
        seen.cap(&payload)?;
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(allocations);
                function.validate(&body)?;
                allocations = function.into_allocations();
            }
            ValidPayload::End(known) => types = Some(known),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
        seen.see(&payload)?;
    }
    let types = types.ok_or_else(|| Rejection::Invalid { offset: bytes.len(), reason: "it ends too early".to_owned() })?;
    seen.judge(&types)
}

fn refuse_other_files(bytes: &[u8]) -> Result<(), Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::Empty);
    }
    if bytes.len() > WASM_BYTES_MAX {
        return Err(Rejection::TooLarge { bytes: bytes.len() });
    }
    if bytes.starts_with(b"\0asm") {
        return Ok(());
    }
    if bytes.starts_with(b"\x7fELF") {
        // Wasmtime's own sections are named so; their names stand at the end of the file.
        let end = &bytes[bytes.len().saturating_sub(1 << 20)..];
        let ours = end.windows(9).any(|name| name == b".wasmtime");
        return Err(Rejection::Compiled { what: if ours { "a .cwasm file" } else { "an ELF file" } });
    }
    let text = bytes.trim_ascii_start();
    let is_text = [&b"(module"[..], b"(component", b";;", b"(;"].iter().any(|start| text.starts_with(start));
    Err(if is_text { Rejection::Text } else { Rejection::NotWasm })
}

/// An import of a core module.
struct CoreImport {
    name: String,
    /// Index of the type of a known function.
    known: Option<(u32, &'static str, &'static str)>,
}

/// What was seen of a file so far.
#[derive(Default)]
struct Seen {
    kind: Option<WasmKind>,
    depth: usize,
    nested: u32,
    functions: u32,
    memory_bytes_min: u64,
    table_elements_min: u64,
    core_imports: Vec<CoreImport>,
    missing: Vec<String>,
    /// Index of the function that is exported as `_start`.
    start: Option<u32>,
    runs: bool,
}

impl Seen {
    /// Refuses a section for its size before it is validated.
    fn cap(&mut self, payload: &Payload<'_>) -> Result<(), Rejection> {
        let (what, count, max) = match payload {
            Payload::TypeSection(section) => ("types", section.count(), SECTION_ITEMS_MAX),
            Payload::CoreTypeSection(section) => ("types", section.count(), SECTION_ITEMS_MAX),
            Payload::ComponentTypeSection(section) => ("types", section.count(), SECTION_ITEMS_MAX),
            Payload::ImportSection(section) => ("imports", section.count(), IMPORTS_MAX),
            Payload::ComponentImportSection(section) => ("imports", section.count(), IMPORTS_MAX),
            Payload::ExportSection(section) => ("exports", section.count(), SECTION_ITEMS_MAX),
            Payload::GlobalSection(section) => ("globals", section.count(), SECTION_ITEMS_MAX),
            Payload::ElementSection(section) => ("element segments", section.count(), SECTION_ITEMS_MAX),
            Payload::DataSection(section) => ("data segments", section.count(), SECTION_ITEMS_MAX),
            Payload::FunctionSection(section) => {
                self.functions = self.functions.saturating_add(section.count());
                ("functions", self.functions, FUNCTIONS_MAX)
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.nested += 1;
                ("modules and components in it", self.nested, NESTED_MAX)
            }
            _ => return Ok(()),
        };
        if count > max {
            return Err(Rejection::TooMany { what, count: u64::from(count), max: u64::from(max) });
        }
        if self.depth >= NESTED_DEPTH_MAX {
            let (count, max) = (self.depth as u64 + 1, NESTED_DEPTH_MAX as u64);
            return Err(Rejection::TooMany { what: "levels of components", count, max });
        }
        Ok(())
    }

    /// Takes from a valid section what is judged in the end.
    fn see(&mut self, payload: &Payload<'_>) -> Result<(), Rejection> {
        match payload {
            Payload::Version { encoding, .. } if self.kind.is_none() => {
                self.kind = Some(if *encoding == Encoding::Module { WasmKind::Module } else { WasmKind::Component });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => self.depth += 1,
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let bytes = memory?.initial.saturating_mul(PAGE_BYTES);
                    self.memory_bytes_min = self.memory_bytes_min.saturating_add(bytes);
                }
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    self.table_elements_min = self.table_elements_min.max(table?.ty.initial);
                }
            }
            Payload::ImportSection(section) if self.depth == 0 => {
                for import in section.clone().into_imports() {
                    self.see_import(&import?);
                }
            }
            Payload::ExportSection(section) if self.depth == 0 => {
                for export in section.clone() {
                    let export = export?;
                    if export.name == START && export.kind == ExternalKind::Func {
                        self.start = Some(export.index);
                    }
                }
            }
            Payload::ComponentImportSection(section) if self.depth == 0 => {
                for import in section.clone() {
                    let import = import?;
                    let offered = match import.ty {
                        ComponentTypeRef::Instance(_) => interfaces::is_offered(import.name.name),
                        // An alias of a type that comes from elsewhere: it is given with that.
                        ComponentTypeRef::Type(TypeBounds::Eq(_)) => true,
                        _ => false,
                    };
                    if !offered {
                        self.miss(quoted(import.name.name));
                    }
                }
            }
            Payload::ComponentExportSection(section) if self.depth == 0 => {
                for export in section.clone() {
                    let export = export?;
                    self.runs |= export.kind == ComponentExternalKind::Instance && interfaces::is_run(export.name.name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn see_import(&mut self, import: &wasmparser::Import<'_>) {
        let known = match import.ty {
            TypeRef::Func(index) if import.module == PREVIEW1 => {
                interfaces::preview1(import.name).map(|(params, results)| (index, params, results))
            }
            _ => None,
        };
        self.core_imports.push(CoreImport { name: quoted(&format!("{}.{}", import.module, import.name)), known });
    }

    fn miss(&mut self, name: String) {
        if self.missing.len() < NAMED_MAX {
            self.missing.push(name);
        }
    }

    fn judge(mut self, types: &Types) -> Result<Inspection, Rejection> {
        let kind = self.kind.unwrap_or(WasmKind::Module);
        for import in std::mem::take(&mut self.core_imports) {
            match import.known {
                None => self.miss(import.name),
                Some((index, params, results)) => {
                    let id = types.as_ref().core_type_at_in_module(index);
                    if !is_shape(types, id, params, results) {
                        self.miss(format!("{} with these parameters", import.name));
                    }
                }
            }
        }
        if !self.missing.is_empty() {
            return Err(Rejection::Imports { names: self.missing });
        }
        let start_is_right = |index| is_shape(types, types.as_ref().core_function_at(index), "", "");
        let no_entry = match kind {
            WasmKind::Module if self.start.is_none() => "it exports no function '_start'",
            WasmKind::Module if !self.start.is_some_and(start_is_right) => "its '_start' has parameters or results",
            WasmKind::Component if !self.runs => "it exports no wasi:cli/run of WASI 0.2",
            _ => "",
        };
        if !no_entry.is_empty() {
            return Err(Rejection::NoEntry { reason: no_entry.to_owned() });
        }
        let table_elements_min = u32::try_from(self.table_elements_min).unwrap_or(u32::MAX);
        Ok(Inspection { kind, memory_bytes_min: self.memory_bytes_min, table_elements_min, functions: self.functions })
    }
}

/// True where `id` is a function type of these parameters and results, written as [`interfaces::PREVIEW1_FUNCTIONS`] has them.
fn is_shape(types: &Types, id: wasmparser::types::CoreTypeId, params: &str, results: &str) -> bool {
    let wasmparser::CompositeInnerType::Func(function) = &types[id].composite_type.inner else { return false };
    let same = |found: &[ValType], wanted: &str| {
        let wanted = wanted.bytes().map(|letter| if letter == b'I' { ValType::I64 } else { ValType::I32 });
        found.iter().copied().eq(wanted)
    };
    same(function.params(), params) && same(function.results(), results)
}

#[cfg(test)]
mod tests;
