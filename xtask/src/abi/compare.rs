//! The comparison, as a table.

use std::fmt::Write as _;

use vixdisklib_sys::{Function, VixCode, layout::Layout};

use super::bindings::Bindings;

/// How a declaration of ours stands to the header's.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Same(String),
    /// The header does not have it.
    Absent,
    Differs(String),
}

/// Compares everything. `Err` when something differs, with the same table.
pub(super) fn all(bindings: &Bindings) -> Result<String, String> {
    let mut rows = Vec::new();
    rows.extend(functions().map(|of| (of.symbol, function(of, bindings))));
    rows.extend(layouts().map(|of| (of.name, layout(of, bindings))));
    rows.extend(VixCode::known().map(|of| (of.name, code(of.code, of.name, bindings))));

    let (mut text, mut counts) = (String::new(), [0; 3]);
    for (name, finding) in &rows {
        let (at, word, detail) = match finding {
            Finding::Same(detail) => (0, "same", detail.as_str()),
            Finding::Absent => (1, "absent", "the header does not declare it"),
            Finding::Differs(detail) => (2, "DIFFERS", detail.as_str()),
        };
        counts[at] += 1;
        let _ = writeln!(text, "{word:8}{name:38}{detail}");
    }
    let theirs = |name: &&String| ["VixDiskLib_", "VixMntapi_"].iter().any(|prefix| name.starts_with(prefix));
    let ours = |name: &String| functions().any(|of| of.symbol == name);
    for unknown in bindings.functions.keys().filter(theirs).filter(|name| !ours(name)) {
        let _ = writeln!(text, "new     {unknown:38}the header has it, our declarations do not");
    }
    let [same, absent, differs] = counts;
    let has_functions = functions().any(|of| bindings.functions.contains_key(of.symbol));
    if has_functions && bindings.structures.is_empty() {
        return Err(format!("{text}\nno structure was found: bindgen 0.70 or newer is needed"));
    }
    let _ = write!(text, "{same} same, {absent} absent from the header, {differs} different");
    match (differs, same) {
        (0, 0) => Err(format!("{text}\nnothing was found in the header: was it the right one?")),
        (0, _) => Ok(text),
        _ => Err(text),
    }
}

/// Those of the disk library and of the one that mounts.
fn functions() -> impl Iterator<Item = &'static Function> {
    vixdisklib_sys::FUNCTIONS.iter().chain(vixmntapi_sys::FUNCTIONS)
}

fn layouts() -> impl Iterator<Item = &'static Layout> {
    vixdisklib_sys::layout::LAYOUTS.iter().chain(vixmntapi_sys::layout::LAYOUTS)
}

fn function(ours: &Function, bindings: &Bindings) -> Finding {
    let Some((parameters, result)) = bindings.functions.get(ours.symbol) else { return Finding::Absent };
    let same = parameters.len() == ours.parameters.len()
        && parameters.iter().zip(ours.parameters).all(|(theirs, (_, ours))| theirs.is(ours))
        && result.is(&ours.returns);
    let signature = shown(ours.parameters.iter().map(|(_, shape)| shape), &ours.returns);
    match same {
        true => Finding::Same(signature),
        false => Finding::Differs(format!("ours {signature}, theirs {}", shown(parameters.iter(), result))),
    }
}

fn layout(ours: &Layout, bindings: &Bindings) -> Finding {
    let Some((size, offsets)) = bindings.structures.get(ours.name).or_else(|| {
        // The structure may have a tag of its own, with the alias bearing the name.
        let tagged = |name: &&String| name.trim_start_matches('_').trim_end_matches("Struct") == ours.name;
        bindings.structures.keys().find(tagged).map(|name| &bindings.structures[name])
    }) else {
        return Finding::Absent;
    };
    let same = ours.versions.iter().position(|version| version.size == *size && version.offsets == offsets);
    match same {
        Some(0) => Finding::Same(format!("{size} bytes, fields at {offsets:?}")),
        Some(_) => Finding::Same(format!("{size} bytes, as older versions have it")),
        None => {
            let [newest, ..] = ours.versions else { return Finding::Absent };
            let (our_size, our_offsets) = (newest.size, newest.offsets);
            Finding::Differs(format!("ours {our_size} bytes at {our_offsets:?}, theirs {size} bytes at {offsets:?}"))
        }
    }
}

fn code(ours: VixCode, name: &str, bindings: &Bindings) -> Finding {
    let of = |(theirs, _): &(&String, &u64)| {
        theirs.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('_'))
    };
    match bindings.constants.iter().find(of) {
        None => Finding::Absent,
        Some((_, value)) if *value == u64::from(ours.0) => Finding::Same(value.to_string()),
        Some((_, value)) => Finding::Differs(format!("ours {}, theirs {value}", ours.0)),
    }
}

/// `(i32, i8*) -> i64`, of our shapes or of a header's types.
fn shown<T: std::fmt::Display>(parameters: impl Iterator<Item = T>, result: &impl std::fmt::Display) -> String {
    let parameters: Vec<_> = parameters.map(|of| of.to_string()).collect();
    format!("({}) -> {result}", parameters.join(", "))
}

#[cfg(test)]
mod tests {
    use vixdisklib_sys::{layout::LAYOUTS, shape::Shape};

    use super::*;
    use crate::abi::bindings::Type;

    /// What a header with our own declarations would give.
    fn mirror() -> Bindings {
        fn of(shape: &Shape) -> Type {
            match shape {
                Shape::Void => Type::Void,
                Shape::Integer(bits) => Type::Integer(*bits),
                Shape::Pointer(to) => Type::Pointer(Box::new(of(to))),
                Shape::Struct(name) => Type::Named(format!("VixDiskLib{name}")),
                Shape::Function => Type::Function,
            }
        }
        let mut bindings = Bindings::default();
        for function in functions() {
            let parameters = function.parameters.iter().map(|(_, shape)| of(shape)).collect();
            bindings.functions.insert(function.symbol.to_owned(), (parameters, of(&function.returns)));
        }
        for layout in layouts() {
            let version = layout.versions[0];
            bindings.structures.insert(layout.name.to_owned(), (version.size, version.offsets.to_vec()));
        }
        bindings
    }

    #[test]
    fn our_own_declarations_are_the_same() {
        let text = all(&mirror()).unwrap();
        assert!(text.ends_with("absent from the header, 0 different"), "{text}");
        assert!(text.contains(&format!("{} same", 43 + 6 + 15 + 3)), "{text}");
    }

    #[test]
    fn a_parameter_more_a_field_moved_and_a_code_changed_are_differences() {
        let mut bindings = mirror();
        bindings.functions.get_mut("VixDiskLib_Close").unwrap().0.push(Type::Integer(32));
        bindings.structures.get_mut("VixDiskLibInfo").unwrap().1[3] += 4;
        bindings.constants.insert("VIX_E_FAIL".into(), 2);
        bindings.functions.insert("VixDiskLib_Newer".into(), (vec![], Type::Void));
        bindings.functions.get_mut("VixMntapi_MountVolume").unwrap().0[1] = Type::Integer(32);
        bindings.structures.get_mut("VixDiskSetInfo").unwrap().0 = 12;
        let text = all(&bindings).unwrap_err();
        let differing: Vec<_> = text.lines().filter(|line| line.starts_with("DIFFERS")).collect();
        assert_eq!(differing.len(), 5, "{text}");
        assert!(text.contains("new     VixDiskLib_Newer") && text.ends_with("5 different"), "{text}");
    }

    #[test]
    fn the_older_layouts_are_known_and_an_empty_header_is_no_success() {
        let mut bindings = mirror();
        let older = LAYOUTS[1].versions[1];
        bindings.structures.insert(LAYOUTS[1].name.to_owned(), (older.size, older.offsets.to_vec()));
        assert!(all(&bindings).unwrap().contains("56 bytes, as older versions have it"));
        assert!(all(&Bindings::default()).is_err());
        bindings.structures.clear();
        assert!(all(&bindings).unwrap_err().ends_with("bindgen 0.70 or newer is needed"));
    }
}
