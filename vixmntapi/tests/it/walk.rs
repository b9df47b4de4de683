//! Walks: everything is found once, and nothing that a volume says makes them endless.

use std::collections::BTreeSet;

use vixmntapi::{
    Error,
    fs::{FileKind, FileName},
    walk::{Found, Walk},
};

use crate::made_up::MadeUp;

#[test]
fn each_directory_comes_before_what_is_in_it_and_links_are_not_followed() {
    let files = MadeUp::new(&[(b"a", 2), (b"z", 5)])
        .directory(2, &[(b"b", 3), (b"up", 4)])
        .file(3, b"three")
        .link(4, b"..")
        .file(5, b"five");
    let found: Vec<_> = Walk::new(&files.shared()).map(Result::unwrap).collect();
    let paths: Vec<_> = found.iter().map(|found| found.path.to_string_lossy().into_owned()).collect();
    assert_eq!(paths, ["", "a", "a/b", "a/up", "z"]);
    assert_eq!(found.iter().map(|found| found.depth).collect::<Vec<_>>(), [0, 1, 2, 2, 1]);
    let Found { name, kind, .. } = &found[3];
    assert_eq!((name, *kind), (&FileName::from("up"), FileKind::Symlink));
}

#[test]
fn a_walk_from_a_file_finds_that_file_and_one_from_a_directory_names_paths_from_there() {
    let files = MadeUp::new(&[(b"a", 2)]).directory(2, &[(b"b", 3)]).file(3, b"three").shared();
    let of = |number| {
        let walk = Walk::from(&files, vixmntapi::fs::NodeId { tree: 0, number });
        walk.map(|found| found.unwrap().path.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(3), [""]);
    assert_eq!(of(2), ["", "b"]);
}

#[test]
fn directories_in_circles_end_with_an_error_for_each() {
    // Each of 40 directories holds the next one twice, and the last one the root: 2^40 paths without an end.
    let mut files = MadeUp::new(&[(b"l", 2), (b"r", 2)]);
    for number in 2..40 {
        files = files.directory(number, &[(b"l", number + 1), (b"r", number + 1)]);
    }
    let files = files.directory(40, &[(b"again", 1), (b"itself", 40)]).shared();
    let (found, errors): (Vec<_>, Vec<_>) = Walk::new(&files).partition(Result::is_ok);
    assert_eq!((found.len(), errors.len()), (1 + 2 * 39 + 2, 39 + 2));
    let nodes: BTreeSet<_> = found.into_iter().map(|found| found.unwrap().node).collect();
    assert_eq!(nodes.len(), 40);
    let Err(Error::At { path, source }) = &errors[0] else { panic!("{errors:?}") };
    assert!(path.as_bytes().ends_with(b"l/again"), "{path:?}");
    assert!(matches!(&**source, Error::Damaged { problem, .. } if problem.contains("several places")), "{source:?}");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_found() {
    let files = MadeUp::new(&[(b"bad", 2), (b"nowhere", 9), (b"good", 3)]).damaged(2).file(3, b"").shared();
    let all: Vec<_> = Walk::new(&files).collect();
    let told = |at: usize| match &all[at] {
        Ok(found) => found.path.to_string_lossy().into_owned(),
        Err(Error::At { path, source }) => format!("{path}: {source}"),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(
        (0..all.len()).map(told).collect::<Vec<_>>(),
        [
            "",
            "bad",
            "bad: a directory is damaged: as the test wants it",
            "nowhere: there is no NodeId { tree: 0, number: 9 }",
            "good"
        ]
    );
    assert!(all[2].as_ref().unwrap_err().hint().is_some_and(|hint| hint.contains("other files")));
}

#[test]
fn depth_and_the_number_of_directories_are_bounded() {
    let mut files = MadeUp::new(&[(b"d", 2)]);
    for number in 2..10_000 {
        files = files.directory(number, &[(b"d", number + 1)]);
    }
    let files = files.file(10_000, b"bottom").shared();
    let errors = |walk: Walk| walk.filter_map(Result::err).map(|error| format!("{error:?}")).collect::<Vec<_>>();
    let limit = errors(Walk::new(&files));
    assert!(limit.len() == 1 && limit[0].contains("more than 4096 levels"), "{limit:?}");
    assert!(errors(Walk::new(&files).max_depth(10_000)).is_empty());
    let limit = errors(Walk::new(&files).max_depth(10_000).max_directories(50));
    assert!(limit.len() == 1 && limit[0].contains("more than 50 directories"), "{limit:?}");
    assert_eq!(Walk::new(&files).max_depth(0).count(), 2);
}

#[test]
fn what_is_in_a_skipped_directory_is_left_out() {
    let files = MadeUp::new(&[(b"a", 2), (b"z", 4)]).directory(2, &[(b"b", 3)]).file(3, b"").file(4, b"").shared();
    let mut walk = Walk::new(&files);
    let mut paths = Vec::new();
    while let Some(found) = walk.next() {
        let found = found.unwrap();
        if found.name == *"a" {
            walk.skip_directory();
        }
        paths.push(found.path.to_string_lossy().into_owned());
    }
    assert_eq!(paths, ["", "a", "z"]);
}
