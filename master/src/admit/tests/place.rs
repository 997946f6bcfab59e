//! `[place]`: what is read, what it becomes, and what is said against it.

use super::*;
use protocol::{Constraint, Field, Name, Neighbour, Rule};

fn place(text: &str) -> Result<Job, Vec<Problem>> {
    toml(&format!("task.wasm = \"WASM\"\n[place]\n{text}"))
}

#[test]
fn every_operator_is_read_and_said_again() {
    let text = r#"constraints = [
        ["zone", "IS", "eu-1"],
        ["hostname", "UNIQUE"],
        ["@rack", "GROUP_BY", "3"],
        ["rack", "GROUP_BY"],
        ["rack", "MAX_PER", 2],
        ["disk", "LIKE", "ssd.*"],
        ["disk", "UNLIKE", "hdd"],
        ["@zone", "CLUSTER", "a"],
        ["region", "CLUSTER"],
        ["hostname", "NEAR", "cache"],
        ["hostname", "APART", "db"],
        ["zone", "IS", "eu-1"],
    ]
    spread = ["rack", "@rack", "disk"]"#;
    let job = place(text).unwrap();
    let found = job.place.clone().unwrap();
    let has = |field: &str, rule: Rule| found.constraints.contains(&Constraint { field: Field::named(field), rule });
    assert_eq!((found.constraints.len(), found.spread.len()), (11, 2), "what stands twice is there once");
    assert!(has("zone", Rule::Is("eu-1".into())) && has("hostname", Rule::Unique) && has("rack", Rule::GroupBy(3)));
    assert!(has("rack", Rule::GroupBy(0)) && has("rack", Rule::MaxPer(2)) && has("disk", Rule::Like("ssd.*".into())));
    assert!(has("zone", Rule::Cluster(Some("a".into()))) && has("region", Rule::Cluster(None)) && has("disk", Rule::Unlike("hdd".into())));
    let other = |text: &str| Neighbour::named(Name::new(text).unwrap());
    assert!(has("hostname", Rule::Near(other("cache"))) && has("hostname", Rule::Apart(other("db"))));
    let spec = parse(&format!("task.wasm = \"{DIGEST}\"\n[place]\n{text}"), Format::Toml).unwrap();
    assert_eq!(admit(parse(&spec.to_json(), Format::Json).unwrap(), &small), Ok(job));
    assert_eq!(place("constraints = []").unwrap().place, None);
}

#[test]
fn all_that_is_wrong_with_a_place_is_told_under_its_line() {
    let text = "constraints = [\n[\"rack\", \"IS\"],\n[\"rack\", \"BY\", \"a\"],\n[\"rack\"],\n\"rack\",\n[\"rack\", true],\n[\"rack\", \"MAX_PER\", \"few\"]]\nsprad = 1";
    let problems = place(text).unwrap_err();
    let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.field.as_str(), problem.line)).collect();
    let expected = [
        (Code::BadValue, "place.constraints.0", 4),
        (Code::BadValue, "place.constraints.1", 5),
        (Code::BadValue, "place.constraints.2", 6),
        (Code::WrongType, "place.constraints.3", 7),
        (Code::WrongType, "place.constraints.4", 8),
        (Code::BadValue, "place.constraints.5", 9),
        (Code::UnknownField, "place.sprad", 10),
    ];
    assert_eq!(found, expected);
    let text = "constraints = [\n[\"disk\", \"LIKE\", \"(\"],\n[\"rack\", \"MAX_PER\", \"0\"],\n[\"@pod\", \"UNIQUE\"],\n[\"rack\", \"IS\", \"\"]]\nspread = [\"\"]";
    let problems = place(text).unwrap_err();
    let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.field.as_str(), problem.line)).collect();
    let expected = [
        (Code::BadValue, "place.constraints.0", 4),
        (Code::BadValue, "place.constraints.1", 5),
        (Code::BadValue, "place.constraints.2", 6),
        (Code::BadValue, "place.constraints.3", 7),
        (Code::BadValue, "place.spread.0", 8),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_a_place_asks_is_bounded() {
    let check = |text: String, expected: (Code, &str)| {
        let problems = place(&text).unwrap_err();
        let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.field.as_str())).collect();
        assert_eq!(found, [expected], "{text}");
    };
    check(format!("constraints = [{}]", "[\"a\", \"UNIQUE\"],".repeat(17)), (Code::TooLarge, "place.constraints"));
    check(format!("spread = [{}]", "\"a\",".repeat(5)), (Code::TooLarge, "place.spread"));
    check(format!("constraints = [[\"a\", \"LIKE\", \"{}\"]]", "x".repeat(257)), (Code::TooLarge, "place.constraints.0"));
    check("constraints = [[\"a\", \"LIKE\", \"(a{1000}){1000}\"]]".into(), (Code::BadValue, "place.constraints.0"));
    check(format!("constraints = [[\"a\", \"IS\", \"{}\"]]", "x".repeat(129)), (Code::BadValue, "place.constraints.0"));
    check(format!("constraints = [[\"{}\", \"UNIQUE\"]]", "x".repeat(129)), (Code::BadValue, "place.constraints.0"));
    check("constraints = [[\"a\", \"MAX_PER\", \"10000001\"]]".into(), (Code::TooLarge, "place.constraints.0"));
}

#[test]
fn other_jobs_are_named_by_their_names_and_told_apart_on_agents() {
    let text = "constraints = [[\"rack\", \"NEAR\", \"db\"], [\"hostname\", \"APART\", \"web\"], [\"hostname\", \"NEAR\"]]";
    let said = |text: &str| toml(&format!("name = \"web\"\ntask.wasm = \"WASM\"\n[place]\n{text}")).unwrap_err();
    assert!(said(text)[0].message.contains("NEAR takes the name of a job"), "{:?}", said(text));
    let text = text.replace(", [\"hostname\", \"NEAR\"]", "");
    let found: Vec<_> = said(&text).into_iter().map(|problem| (problem.code, problem.field)).collect();
    assert_eq!(found, [(Code::BadValue, "place.constraints.0".into()), (Code::Conflict, "place.constraints.1".into())]);
    let no_name = said("constraints = [[\"hostname\", \"APART\", \"A b\"]]");
    assert!(no_name[0].message.contains("'A b' is no name of a job"), "{no_name:?}");
}
