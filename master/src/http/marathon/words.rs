//! Marathon's small words: times, booleans and lists of a query, ids of deployments.

use protocol::{Digest, Time};
use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// A time as Marathon writes it, `2015-02-11T09:31:50.021Z`.
pub fn timestamp(time: Time) -> String {
    let (days, ms) = (time.0 / DAY_MS, time.0 % DAY_MS);
    // Civil date from days of the Unix epoch: Hinnant, "chrono-Compatible Low-Level Date Algorithms", section `civil_from_days`.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1_000)
}

/// The time that [`timestamp`] wrote, also without its milliseconds; `None` where it is none.
pub fn time(text: &str) -> Option<Time> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let mut parts = date.splitn(3, '-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (clock, ms) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.splitn(3, ':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let ms = number(&format!("{ms:0<3}"))?;
    let right = (1970..=9_999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !right || hours > 23 || minutes > 59 || seconds > 59 || ms > 999 {
        return None;
    }
    // The inverse, `days_from_civil` of the same paper.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(Time(days * DAY_MS + hours * 3_600_000 + minutes * 60_000 + seconds * 1_000 + ms))
}

/// What a request asks for beside its path; a name may stand there several times.
#[derive(Clone, Debug, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// The last value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name, also those with commas between them.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.0.iter().filter(move |(known, _)| known == name);
        values.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
    }

    /// True where a name says so, in any case: `True`, or nothing at all behind it.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.is_empty() || value.eq_ignore_ascii_case("true"))
    }

    /// The same of what is so where nothing is said.
    pub fn flag_or(&self, name: &str, otherwise: bool) -> bool {
        if self.get(name).is_some() { self.flag(name) } else { otherwise }
    }
}

/// An id in the form of a UUID (RFC 9562 section 5.8) that is the same for the same text.
pub fn uuid(text: &str) -> String {
    let Digest(bytes) = Digest::of(text.as_bytes());
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}-{}-8{}-a{}-{}", hex(0..4), hex(4..6), &hex(6..8)[1..], &hex(8..10)[1..], hex(10..16))
}

/// Text in which `%XX` stands for bytes (RFC 3986 section 2.1); what is no UTF-8 then is replaced.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = (*first == b'%').then(|| std::str::from_utf8(after.get(..2)?).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()));
        rest = match byte.flatten() {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes out what is `null`: with Marathon that is what was not said.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_clients_read_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_423_647_110_021, "2015-02-11T09:31:50.021Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59.000Z"),
        ] {
            assert_eq!((timestamp(Time(ms)).as_str(), time(text)), (text, Some(Time(ms))));
        }
        assert_eq!(time("2015-02-11T09:31:50Z"), Some(Time(1_423_647_110_000)));
        assert_eq!(time("2015-02-11T09:31:50.5Z"), Some(Time(1_423_647_110_500)));
        for wrong in ["", "Z", "2015", "2015-13-01T00:00:00Z", "2015-02-11T25:00:00Z", "2015-02-11 09:31:50Z", "+015-02-11T09:31:50Z"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_query_is_read_as_pythons_clients_write_it() {
        let pairs = [("force", "True"), ("scale", "False"), ("wipe", ""), ("embed", "app.tasks"), ("embed", "app.counts, x")];
        let query = Query(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
        assert!(query.flag("force") && !query.flag("scale") && query.flag("wipe") && !query.flag("none") && query.flag_or("none", true));
        assert_eq!(query.all("embed").collect::<Vec<_>>(), ["app.tasks", "app.counts", "x"]);
    }

    #[test]
    fn paths_are_decoded_and_ids_have_their_form() {
        assert_eq!(decoded("%2Fa%2fb/c%"), "/a/b/c%");
        assert_eq!(decoded("%zz%ff"), "%zz\u{fffd}");
        let id = uuid("x");
        assert!(id.len() == 36 && id.as_bytes()[14] == b'8' && id != uuid("y") && id == uuid("x"), "{id}");
    }
}
