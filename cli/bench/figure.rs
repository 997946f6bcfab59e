//! What a bench prints: a JSON line for each figure of each run on standard output, a table of medians on standard error.

use serde_json::json;
use std::collections::BTreeMap;

/// Figures of all runs, in the order in which they were first seen.
#[derive(Default)]
pub struct Figures {
    order: Vec<(String, String, u64)>,
    values: BTreeMap<(String, String, u64), Vec<f64>>,
    units: BTreeMap<String, &'static str>,
}

/// What was measured.
pub struct What<'a> {
    /// The bench: `tasks`, `latency`, …
    pub bench: &'a str,
    /// The kind of task, with what is particular about it.
    pub kind: &'a str,
    /// How many of them.
    pub n: u64,
    /// Which run, from 1.
    pub run: u32,
}

impl Figures {
    /// Prints one figure and keeps it for the table.
    pub fn add(&mut self, what: &What<'_>, metric: &str, value: f64, unit: &'static str) {
        let What { bench, kind, n, run } = what;
        let value = (value * 1_000.0).round() / 1_000.0;
        println!(
            "{}",
            json!({"system": "skep", "bench": bench, "kind": kind, "metric": metric, "n": n, "value": value, "unit": unit, "run": run})
        );
        let name = (format!("{bench} {kind}"), metric.to_owned(), *n);
        if !self.values.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.values.entry(name).or_default().push(value);
        self.units.insert(metric.to_owned(), unit);
    }

    /// Prints the table: each figure's median, minimum and maximum.
    pub fn close(mut self) {
        let mut table = crate::print::table(&["bench", "n", "metric", "median", "min", "max", "unit"]);
        for name in &self.order {
            let values = self.values.get_mut(name).expect("every name in the order has values");
            values.sort_by(f64::total_cmp);
            let (low, high) = (values[0], values[values.len() - 1]);
            let median = quantile(values, 0.5);
            let row = [
                name.0.clone(),
                name.2.to_string(),
                name.1.clone(),
                number(median),
                number(low),
                number(high),
                self.units[&name.1].to_owned(),
            ];
            table.add_row(row);
        }
        eprintln!("{table}");
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The value below which a part `q` of the sorted `values` lies; the upper one of two.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let at = (values.len() as f64 * q) as usize;
    values[at.min(values.len() - 1)]
}
