//! Units of capacities: `byte * 2^30` and its older spellings.

/// Bytes of a unit; `None` when it is none of bytes, or too large.
pub(super) fn bytes_of(unit: &str) -> Option<u64> {
    let mut factors = unit.split('*').map(str::trim);
    let mut bytes: u64 = match factors.next()?.to_ascii_lowercase().as_str() {
        "byte" | "bytes" => 1,
        // OVF 0.9 and 1.0.
        "kilobytes" => 1 << 10,
        "megabytes" => 1 << 20,
        "gigabytes" => 1 << 30,
        "terabytes" => 1 << 40,
        _ => return None,
    };
    for factor in factors {
        let value = match factor.split_once('^') {
            Some((base, exponent)) => {
                let base: u64 = base.trim().parse().ok()?;
                base.checked_pow(exponent.trim().parse().ok()?)?
            }
            None => factor.parse().ok()?,
        };
        bytes = bytes.checked_mul(value)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_as_the_world_writes_them() {
        let known = [
            ("byte", 1),
            ("byte * 2^30", 1 << 30),
            ("byte*2 ^ 20", 1 << 20),
            ("byte * 1024", 1024),
            ("Byte * 10^9", 1_000_000_000),
            ("MegaBytes", 1 << 20),
            ("byte * 512 * 2^10", 512 << 10),
        ];
        for (unit, bytes) in known {
            assert_eq!(bytes_of(unit), Some(bytes), "{unit}");
        }
        for unit in
            ["", "bit", "hertz * 10^6", "byte * 2^64", "byte * 2^99999999999", "byte * x", "byte *", "byte * -1"]
        {
            assert_eq!(bytes_of(unit), None, "{unit}");
        }
    }
}
