//! Amounts as people write them, to integers, exactly: `64MiB`, `5s`, `2G`, `0.5`. No floating point: what is not a whole number of the
//! unit is refused, not rounded.

use protocol::Name;
use protocol::resources::{ResourceKind, is_revocable};

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AmountError {
    /// It is no number, or has an unknown unit.
    #[error("no amount")]
    Malformed,
    /// It has a minus sign.
    #[error("negative")]
    Negative,
    /// It is finer than the unit that is counted.
    #[error("finer than what is counted")]
    TooFine,
    /// It does not fit.
    #[error("too large")]
    TooLarge,
}

/// An amount of a kind of resource, as people write them beside job files: `cpu` and `0.5`, `memory` and `8GiB`, `ports` and `10`, or a device by its name
/// and `2`.
///
/// # Errors
/// Why it is none, for people.
pub fn resource(kind: &str, amount: &str) -> Result<(ResourceKind, u64), String> {
    let wrong = |error: AmountError| format!("{kind}={amount}: {error}");
    let read = match kind {
        "cpu" => (ResourceKind::Cpu, milli(amount)),
        "memory" => (ResourceKind::Memory, size_bytes(amount)),
        "disk" => (ResourceKind::Disk, size_bytes(amount)),
        "ports" => (ResourceKind::Ports, whole(amount)),
        device => {
            let name = Name::new(device).map_err(|error| format!("{device:?}: {error}"))?;
            if is_revocable(&name) {
                return Err(format!("{device} is no device: what is revocable is measured, and counts for no role"));
            }
            (ResourceKind::Device(name), milli(amount))
        }
    };
    Ok((read.0, read.1.map_err(wrong)?))
}

/// Thousandths of a number as people write it, such as `2.5`.
///
/// # Errors
/// Why it is none, for people.
pub fn thousandths(text: &str) -> Result<u64, String> {
    milli(text).map_err(|error| format!("{text}: {error}"))
}

/// The units of a kind of amount, by name.
type Units = &'static [(&'static str, u64)];

const SIZES: Units = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
const TIMES: Units = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const FUELS: Units = &[("", 1), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];

/// Bytes of `64MiB`; a number without a unit is bytes.
pub(super) fn size_bytes(text: &str) -> Result<u64, AmountError> {
    with_unit(text, SIZES)
}

/// Milliseconds of `5s`.
pub(super) fn time_ms(text: &str) -> Result<u64, AmountError> {
    with_unit(text, TIMES)
}

/// Instructions of `2G`; a number without a unit is instructions.
pub(super) fn fuel(text: &str) -> Result<u64, AmountError> {
    with_unit(text, FUELS)
}

/// Thousandths of `0.5`.
pub(super) fn milli(text: &str) -> Result<u64, AmountError> {
    scaled(text, 1_000)
}

/// A whole number.
pub(super) fn whole(text: &str) -> Result<u64, AmountError> {
    scaled(text, 1)
}

fn with_unit(text: &str, units: Units) -> Result<u64, AmountError> {
    let end = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    // A number in JSON or TOML may have an exponent; units begin otherwise.
    if unit.starts_with(['e', 'E']) && units.iter().any(|(name, _)| name.is_empty()) {
        return scaled(text, 1);
    }
    let (_, times) = units.iter().find(|(name, _)| *name == unit).ok_or(AmountError::Malformed)?;
    scaled(number.trim_end_matches(' '), *times)
}

/// `text`, a decimal number with perhaps an exponent, times `times`.
fn scaled(text: &str, times: u64) -> Result<u64, AmountError> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent_digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let right = !before.is_empty() && digits(before) && digits(after) && digits(exponent_digits) && !exponent_digits.is_empty();
    if !right || (number.contains('.') && after.is_empty()) {
        return Err(AmountError::Malformed);
    }
    if negative {
        return Err(AmountError::Negative);
    }
    let after = after.trim_end_matches('0');
    let significant: String = before.chars().chain(after.chars()).collect();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    // Sixteen digits of an exponent hold what any text of a bounded length can mean; more are as good as infinite.
    let exponent: i64 = match exponent.parse::<i64>() {
        Ok(exponent) if exponent.abs() < 10_000_000_000_000_000 => exponent,
        _ if exponent.starts_with('-') => return Err(AmountError::TooFine),
        _ => return Err(AmountError::TooLarge),
    };
    let shift = exponent - i64::try_from(after.len()).map_err(|_| AmountError::TooFine)?;
    shifted(significant, shift, times)
}

/// `digits` × 10^`shift` × `times`; `digits` has no leading zero and at least one digit.
fn shifted(digits: &str, shift: i64, times: u64) -> Result<u64, AmountError> {
    // The value is at least 10^(digits - 1 + shift), and every unit at least 1.
    let magnitude = i64::try_from(digits.len()).map_err(|_| AmountError::TooLarge)? + shift;
    if magnitude > 20 {
        return Err(AmountError::TooLarge);
    }
    // Twenty digits before the point and sixteen behind it: more than any unit divides.
    if digits.len() > 36 || magnitude < -16 {
        return Err(AmountError::TooFine);
    }
    let mantissa: u128 = digits.parse().map_err(|_| AmountError::TooFine)?;
    let product = if shift >= 0 {
        let power = 10_u128.pow(u32::try_from(shift).map_err(|_| AmountError::TooLarge)?);
        mantissa.checked_mul(power).and_then(|value| value.checked_mul(u128::from(times))).ok_or(AmountError::TooLarge)?
    } else {
        let divisor = u32::try_from(-shift).ok().and_then(|shift| 10_u128.checked_pow(shift)).ok_or(AmountError::TooFine)?;
        let product = mantissa.checked_mul(u128::from(times)).ok_or(AmountError::TooFine)?;
        if product % divisor != 0 {
            return Err(AmountError::TooFine);
        }
        product / divisor
    };
    u64::try_from(product).map_err(|_| AmountError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, expected) in
            [("64MiB", 64 << 20), ("0", 0), ("1.5KiB", 1_536), ("1 GiB", 1 << 30), ("7", 7), ("1e3", 1_000), ("2kB", 2_000)]
        {
            assert_eq!(size_bytes(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("5s", 5_000), ("1.5h", 5_400_000), ("10ms", 10), ("2d", 172_800_000)] {
            assert_eq!(time_ms(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("2G", 2_000_000_000), ("18446744073709551615", u64::MAX), ("1.5K", 1_500)] {
            assert_eq!(fuel(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("0.5", 500), ("1", 1_000), ("1.15", 1_150), ("5e-1", 500), ("+2", 2_000), ("0.500000", 500)] {
            assert_eq!(milli(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_and_never_rounded() {
        use AmountError::{Malformed, Negative, TooFine, TooLarge};
        for (text, expected) in [
            ("", Malformed),
            ("MiB", Malformed),
            ("64 megs", Malformed),
            ("64mib", Malformed),
            ("1.", Malformed),
            (".5", Malformed),
            ("nan", Malformed),
            ("inf", Malformed),
            ("-1", Negative),
            ("-0", Negative),
            ("1e400", TooLarge),
            ("1e99999999999999999999", TooLarge),
            ("1e-99999999999999999999", TooFine),
            ("18446744073709551616", TooLarge),
            ("99999999999TiB", TooLarge),
            ("0.3", TooFine),
            ("1e-400", TooFine),
            ("1٣", Malformed),
        ] {
            assert_eq!(size_bytes(text), Err(expected), "{text}");
        }
        assert_eq!(milli("0.0005"), Err(TooFine));
        assert_eq!(time_ms("5"), Err(Malformed));
        assert_eq!(whole(&"9".repeat(1_000)), Err(TooLarge));
        assert_eq!(milli(&format!("0.{}1", "0".repeat(1_000))), Err(TooFine));
    }
}
