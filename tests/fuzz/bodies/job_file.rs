//! Any bytes as a job file, TOML or JSON: a job, or problems that say where and why, never a panic; and what is taken means the same when it
//! is written as JSON and read again.

use master::admit::{Code, Form, Format, Inspection, PROBLEMS_MAX, Problem, Verdict, WasmKind, admit, parse, parse_bytes, render};
use protocol::Digest;

fn looked(digest: Digest) -> Option<Verdict> {
    let inspection = Inspection { kind: WasmKind::Module, memory_bytes_min: 1 << 16, table_elements_min: 0, functions: 1 };
    let form = [Form::Wasm, Form::Executable, Form::Archive, Form::Other][usize::from(digest.0[0] % 4)];
    Some(Verdict { form, wasm: Ok(inspection) })
}

/// One input: which format, then the text.
pub fn run(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else { return };
    let format = if kind % 2 == 0 { Format::Toml } else { Format::Json };
    let spec = match parse_bytes(text, format) {
        Ok(spec) => spec,
        Err(problems) => return told(&problems, text, false),
    };
    let again = parse(&spec.to_json(), Format::Json).expect("what was read can be written and read again");
    match (admit(spec, &looked), admit(again, &looked)) {
        (Ok(job), Ok(same)) => {
            assert_eq!(job, same);
            assert_eq!(job.template.check(), Ok(()));
        }
        (Err(problems), Err(same)) => {
            told(&problems, text, true);
            let found = |problems: &[Problem]| problems.iter().map(|problem| (problem.code, problem.field.clone())).collect::<Vec<_>>();
            assert_eq!(found(&problems), found(&same));
        }
        (job, same) => panic!("{job:?} became {same:?}"),
    }
}

/// Each problem can be shown to people and says which field it is with; only a text that cannot be read may be wrong as a whole, or where no
/// field stands.
fn told(problems: &[Problem], text: &[u8], was_read: bool) {
    assert!((1..=PROBLEMS_MAX).contains(&problems.len()));
    let source = String::from_utf8_lossy(text);
    for problem in problems {
        let drawn = render(problem, &source);
        assert!(!problem.message.is_empty() && !drawn.chars().any(|c| c.is_control() && c != '\n'), "{drawn:?}");
        let whole = !was_read && matches!(problem.code, Code::Syntax | Code::TooLarge | Code::WrongType);
        assert!(whole || !problem.field.is_empty(), "{problem:?}");
        assert!(
            problem.span.as_ref().is_none_or(|span| span.start <= span.end && span.end <= text.len() && problem.line > 0),
            "{problem:?}"
        );
    }
}

/// Inputs to begin with: a job with most fields, a group, and the same as JSON.
pub fn seeds() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", Digest::of(b""));
    let native = format!("sha256:{}", Digest([1; 32]));
    let archive = format!("sha256:{}", Digest([2; 32]));
    let wasm = format!("sha256:{}", Digest([4; 32]));
    let toml = [
        format!(
            "name = \"a\"\nrole = \"web\"\npriority = 5\ncount = 3\ntask.wasm = \"{wasm}\"\ntask.args = [\"${{task.index}}\"]\n[resources]\ncpu = 0.5\nmemory = \"64MiB\"\nports = [\"http\"]\ndevices = {{ gpu = 0.5 }}\n[limits]\nfuel = \"2G\"\ntime = \"5m\"\n[restart]\npolicy = \"always\"\nbackoff = {{ first = \"1s\", factor = 1.5, max = \"5m\" }}\n[update]\nparallel = 2\n"
        ),
        format!(
            "[[task]]\nname = \"a\"\nnative = \"{native}\"\nfile = \"x\"\nlimits = {{ egress = \"host\", processes = 5 }}\nresources = {{ disk = \"1GiB\" }}\n[[task]]\nname = \"b\"\nimage = \"{archive}\"\ncommand = \"sh\"\nmount = [{{ host = \"/srv\", writable = true }}]\nstop_signal = \"INT\"\n"
        ),
        format!("task.wasm = \"{digest}\"\n"),
        // Keys without characters, which once were problems without a field.
        "''=''''\n''''\n'=".to_owned(),
        "\u{c}=={\u{c}".to_owned(),
    ];
    let json = [
        format!("{{\"task\": {{\"wasm\": \"{wasm}\", \"env\": {{\"A\": \"b\"}}}}, \"count\": 2, \"limits\": {{\"cpu_time\": \"5s\"}}}}"),
        format!("{{\"task\": [{{\"name\": \"a\", \"wasm\": \"{wasm}\"}}]}}"),
    ];
    let toml = toml.into_iter().map(|text| [vec![0], text.into_bytes()].concat());
    toml.chain(json.into_iter().map(|text| [vec![1], text.into_bytes()].concat())).collect()
}
