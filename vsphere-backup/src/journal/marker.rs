//! The mark that everything on a server carries which a job made.

/// Returns the marker of a job.
pub(crate) fn of(job: &str) -> String {
    format!("{PREFIX}{job}")
}

/// Finds a marker in a description, a note or the source of a lock, and returns the job that it names.
pub(crate) fn job_in(text: &str) -> Option<&str> {
    text.match_indices(PREFIX).find_map(|(at, _)| {
        let rest = &text[at + PREFIX.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let job = &rest[..end];
        let sound = job.len() == 16 && job.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        sound.then_some(job)
    })
}

const PREFIX: &str = "vsphere-backup job ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_marker_is_one() {
        let job = "0123456789abcdef";
        assert_eq!(job_in(&of(job)), Some(job));
        assert_eq!(job_in(&format!("nightly, {}.", of(job))), Some(job));
        assert_eq!(job_in(&format!("vsphere-backup job x {}", of(job))), Some(job));
        for other in [
            "",
            "vsphere-backup",
            "vsphere-backup job ",
            "vsphere-backup job 0123456789abcde",
            "vsphere-backup job 0123456789abcdef0",
            "vsphere-backup job 0123456789ABCDEF",
            "vsphere-backup job 0123456789abcdeé",
            "Vsphere-backup job 0123456789abcdef",
        ] {
            assert_eq!(job_in(other), None, "{other:?}");
        }
    }
}
