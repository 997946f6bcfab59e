//! How amounts, times and tables look. Knows no cluster.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::IsTerminal;

/// A table with these heads, as wide as the terminal; without lines, so that it can be cut and grepped.
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.to_vec());
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// `text` without what a terminal would obey: control characters, escapes, and marks that turn the direction of writing.
pub fn plain(text: &str) -> String {
    let harmless = |letter: &char| {
        !letter.is_control() && !matches!(*letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(harmless).collect()
}

/// The same for output of tasks, which may have tabs.
pub fn plain_line(text: &str) -> String {
    text.split('\t').map(plain).collect::<Vec<_>>().join("\t")
}

/// A text of a JSON answer, made harmless; empty where there is none.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// Bytes in the largest unit that keeps a whole digit, such as `64MiB`.
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = 0;
    let mut whole = amount;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if rest == 0 || whole >= 100 { format!("{whole}{}", UNITS[unit]) } else { format!("{whole}.{rest}{}", UNITS[unit]) }
}

/// Thousandths as a number, such as `0.5`.
pub fn milli(amount: u64) -> String {
    let text = format!("{}.{:03}", amount / 1_000, amount % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Microseconds as people say them, such as `41 ms`.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
        _ => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

/// How long ago a moment of the Unix epoch was, such as `3 s`.
pub fn ago(at_ms: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let seconds = now.saturating_sub(at_ms) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A count with thin groups of three, such as `50 000`.
pub fn count(amount: u64) -> String {
    let digits = amount.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!([bytes(0), bytes(1023), bytes(64 << 20), bytes(1536)], ["0B", "1023B", "64MiB", "1.5KiB"]);
        assert_eq!([milli(500), milli(2_000), milli(1_250)], ["0.5", "2", "1.25"]);
        assert_eq!([micros(999), micros(41_000), micros(1_500_000)], ["999 µs", "41 ms", "1.5 s"]);
        assert_eq!([count(7), count(100_000)], ["7", "100 000"]);
    }

    #[test]
    fn a_terminal_is_told_nothing_by_a_name() {
        assert_eq!(plain("a\x1b[31mb\u{202e}c\n"), "a[31mbc");
    }
}
