//! Any bytes as a wasm file that somebody uploads: what it is, or why it cannot run, never a panic; and what is taken is within the caps.

use master::admit::bundle::Form;
use master::admit::inspect;
use master::admit::wasm::FUNCTIONS_MAX;

/// One input: a file.
pub fn run(input: &[u8]) {
    let form = Form::of(input);
    match inspect(input) {
        Ok(found) => {
            assert_eq!(form, Form::Wasm);
            assert!(found.functions <= FUNCTIONS_MAX && u64::from(found.table_elements_min) <= u64::from(u32::MAX));
        }
        Err(rejection) => {
            let problem = rejection.to_problem("task.wasm");
            assert!(!problem.message.is_empty() && !problem.message.chars().any(|c| c.is_control() && c != '\n'), "{problem:?}");
        }
    }
}

/// A file of these sections, each its id and its bytes, behind this version and layer.
fn file(version: &[u8; 4], sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = [b"\0asm", &version[..]].concat();
    for (id, body) in sections {
        // Two bytes of LEB128, as long as a section is shorter than 16 KiB.
        bytes.extend([*id, (body.len() & 0x7f) as u8 | 0x80, (body.len() >> 7) as u8]);
        bytes.extend_from_slice(body);
    }
    bytes
}

/// Inputs to begin with: a module of most sections that is taken, one within components, and the heads of others.
pub fn seeds() -> Vec<Vec<u8>> {
    let (one, layered) = (b"\x01\0\0\0", b"\x0d\0\x01\0");
    // Imports proc_exit; a table, a memory, a global, a start function, elements and data; `_start` calls itself in a block.
    let module = file(
        one,
        &[
            (0, b"\x04name\0\x05\x04name"),
            (1, b"\x02\x60\0\0\x60\x01\x7f\0"),
            (2, b"\x01\x16wasi_snapshot_preview1\x09proc_exit\0\x01"),
            (3, b"\x02\0\0"),
            (4, b"\x01\x70\0\x02"),
            (5, b"\x01\0\x01"),
            (6, b"\x01\x7f\x01\x41\x07\x0b"),
            (7, b"\x02\x06_start\0\x01\x06memory\x02\0"),
            (8, b"\x02"),
            (9, b"\x01\0\x41\0\x0b\x01\x01"),
            (12, b"\x01"),
            (10, b"\x02\x0c\x01\x01\x7f\x02\x40\x10\x01\x0b\x23\0\x1a\x0b\x02\0\x0b"),
            (11, b"\x01\0\x41\0\x0b\x03abc"),
        ],
    );
    assert!(inspect(&module).is_ok(), "{:?}", inspect(&module));
    let component = file(layered, &[(1, &module)]);
    let nested = file(layered, &[(1, &module), (4, &component), (0, b"\x01x")]);
    vec![module, component, nested, b" (module)".to_vec(), b"\x7fELF\x02\x01\x01 .wasmtime".to_vec(), vec![]]
}
