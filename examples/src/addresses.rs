//! Addresses of the network in texts that leave the house.

use std::net::IpAddr;

/// The text without addresses of the network.
#[must_use]
pub fn without_addresses(text: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_hexdigit() || matches!(letter, '.' | ':');
    let mut out = String::with_capacity(text.len());
    for run in text.split_inclusive(|letter| !is_part(letter)) {
        let word = run.trim_end_matches(|letter| !is_part(letter));
        let host = word.trim_end_matches(['.', ':']);
        let alone = host.parse::<IpAddr>().is_ok();
        let before_port = host.rsplit_once(':').map(|(host, _)| host).filter(|host| host.parse::<IpAddr>().is_ok());
        match before_port.or_else(|| alone.then_some(host)) {
            Some(address) => {
                out.push_str("address");
                out.push_str(&run[address.len()..]);
            }
            None => out.push_str(run),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_and_what_looks_like_them_stays() {
        for (text, expected) in [
            ("no answer from 10.1.2.3:902.", "no answer from address:902."),
            ("[fd00::12]:902, 192.0.2.7: refused", "[address]:902, address: refused"),
            ("8.0.3 build 24022510 at 12:30:01, Deadbeef.", "8.0.3 build 24022510 at 12:30:01, Deadbeef."),
        ] {
            assert_eq!(without_addresses(text), expected);
        }
    }
}
