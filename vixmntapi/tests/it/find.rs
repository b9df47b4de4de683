//! Searches by names, sizes and times.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    process::Command,
    sync::{Arc, Mutex},
};

use vixmntapi::{
    Error, Result,
    find::{Case, Find, Pattern},
    fs::{Content, Entries, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId, Timestamp},
};

use crate::{
    made_up::MadeUp,
    peers::peer,
    tree::{Names, Tree},
};

fn found(find: Find) -> Vec<String> {
    find.map(|found| found.unwrap().path.to_string_lossy().into_owned()).collect()
}

fn files() -> MadeUp {
    MadeUp::new(&[(b"etc", 2), (b"home", 5)])
        .directory(2, &[(b"A.conf", 3), (b"b.CONF", 4)])
        .file(3, b"three")
        .file(4, b"of four")
        .directory(5, &[(b"a.conf", 6)])
        .link(6, b"/etc/A.conf")
        .change(4, |metadata| metadata.times.modified = Timestamp::new(1000, 5))
}

#[test]
fn case_counts_on_linux_and_not_on_windows_unless_it_is_said() {
    let pattern = || Pattern::new("**/A.Conf").unwrap();
    let linux = files().shared();
    assert!(found(Find::new(&linux, pattern())).is_empty());
    assert_eq!(found(Find::new(&linux, pattern()).case(Case::Ignored)), ["etc/A.conf", "home/a.conf"]);
    let windows = files().of_kind("ntfs").shared();
    assert_eq!(found(Find::new(&windows, pattern())), ["etc/A.conf", "home/a.conf"]);
    assert!(found(Find::new(&windows, pattern()).case(Case::Regarded)).is_empty());
}

#[test]
fn kinds_sizes_and_times_narrow_what_is_found() {
    let files = files().shared();
    let all = || Find::new(&files, Pattern::new("**").unwrap());
    assert_eq!(found(all()).len(), 5);
    assert_eq!(found(all().kind(FileKind::Symlink)), ["home/a.conf"]);
    assert_eq!(found(all().kind(FileKind::File).size(6..)), ["etc/b.CONF"]);
    assert_eq!(found(all().kind(FileKind::File).size(..=5)), ["etc/A.conf"]);
    assert_eq!(found(all().modified(Timestamp::new(1000, 5)..Timestamp::new(1000, 6))), ["etc/b.CONF"]);
    assert!(found(all().modified(Timestamp::new(1000, 6)..)).is_empty());
}

#[test]
fn only_directories_in_which_something_can_match_are_read() {
    #[derive(Debug)]
    struct Seen(Arc<dyn FileSystem>, Mutex<Vec<u64>>);
    impl FileSystem for Seen {
        fn info(&self) -> FileSystemInfo {
            self.0.info()
        }
        fn root(&self) -> NodeId {
            self.0.root()
        }
        fn metadata(&self, node: NodeId) -> Result<Metadata> {
            self.0.metadata(node)
        }
        fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
            self.0.lookup(directory, name)
        }
        fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
            self.1.lock().unwrap().push(directory.number);
            self.0.clone().read_dir(directory)
        }
        fn read_link(&self, node: NodeId) -> Result<FileName> {
            self.0.read_link(node)
        }
        fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
            self.0.clone().open(node, stream)
        }
    }
    let seen = Arc::new(Seen(files().shared(), Mutex::default()));
    let files: Arc<dyn FileSystem> = seen.clone();
    assert_eq!(found(Find::new(&files, Pattern::new("e*/*.conf").unwrap())), ["etc/A.conf"]);
    assert_eq!(*seen.1.lock().unwrap(), [1, 2]);
}

#[test]
fn what_cannot_be_read_is_told_where_something_may_match() {
    let files = MadeUp::new(&[(b"bad", 2), (b"good", 3)]).damaged(2).file(3, b"").shared();
    let errors = |pattern: &str| Find::new(&files, Pattern::new(pattern).unwrap()).filter(Result::is_err).count();
    assert_eq!(errors("**/x"), 1);
    assert_eq!(errors("good/x"), 0);
    let found = Find::new(&files, Pattern::new("bad/*").unwrap()).next().unwrap();
    assert!(matches!(found, Err(Error::At { path, .. }) if path == *"bad"));
}

#[test]
fn a_search_finds_what_the_shell_finds() {
    let (Some(_), Some(bash)) = (peer("mke2fs"), peer("bash")) else { return };
    let tree = Tree::new().many(50).deep(6).names(Names::Bytes).times();
    let (files, _image) = crate::images::ext4(&tree);
    for pattern in
        ["*/*", "**/file-0000[1-35].txt", "**/level-[!3]", "names/*.{txt,x}", "**/*[0-9]", "*/c*d", "times/19*"]
    {
        // Names are told apart by NUL. Like ours, its `**` goes through no links.
        let script = format!("shopt -s globstar nullglob dotglob; LC_ALL=C.UTF-8; printf '%s\\0' {pattern}");
        let said = Command::new(&bash).args(["-c", &script]).current_dir(tree.path()).output().unwrap();
        let expected: BTreeSet<_> =
            said.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect();
        let ours: Vec<_> = Find::new(&files, Pattern::new(pattern).unwrap())
            .map(|found| found.unwrap().path.as_bytes().to_vec())
            .filter(|path| !path.starts_with(b"lost+found"))
            .collect();
        let names = |paths: &BTreeSet<Vec<u8>>| {
            paths.iter().map(|path| std::ffi::OsStr::from_bytes(path).to_owned()).collect::<Vec<_>>()
        };
        let ours_once: BTreeSet<_> = ours.iter().cloned().collect();
        assert_eq!(ours.len(), ours_once.len());
        assert_eq!(names(&ours_once), names(&expected), "{pattern}");
        assert!(!ours.is_empty(), "{pattern}");
    }
}
