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

/// Inputs to begin with: a small module that is taken, and the heads of others.
pub fn seeds() -> Vec<Vec<u8>> {
    // (module (memory 1) (table 2 funcref) (func (export "_start")) (export "memory" (memory 0))), as its binary format has it.
    let module: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x04\x04\x01\x70\0\x02\x05\x03\x01\0\x01\x07\x13\x02\x06_start\0\0\x06memory\x02\0\x0a\x04\x01\x02\0\x0b";
    let component: &[u8] = b"\0asm\x0d\0\x01\0";
    vec![module.to_vec(), component.to_vec(), b"(module)".to_vec(), b"\x7fELF\x02\x01\x01".to_vec(), vec![]]
}
