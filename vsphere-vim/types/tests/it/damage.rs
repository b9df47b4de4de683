//! Recorded pages with something wrong in them, thousands of times: an error or a value, and no innocent row lost.

use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::*;

/// A page of vcsim, whose prefixes are odd, and one of this project's simulator.
const PAGES: [&str; 2] = [include_str!("../recordings/vcsim-page.xml"), include_str!("../recordings/sim-page.xml")];

const FAULTS: [&str; 2] = [include_str!("../recordings/vcsim-fault.xml"), include_str!("../recordings/sim-fault.xml")];

const LIMITS: Limits = Limits { depth: 64, memory: 16 << 20 };

#[test]
fn recordings_are_read_and_read_again_as_they_were_written() {
    for page in PAGES {
        let result = decode(page).unwrap();
        assert!(result.objects.len() >= 3);
        for row in &result.objects {
            let devices = row.prop_set.iter().find(|prop| prop.name == "config.hardware.device").unwrap();
            let devices: Vec<Poly<VirtualDevice>> = devices.val.clone().into_typed().unwrap();
            assert!(devices.iter().any(|device| device.downcast_ref::<VirtualDisk>().is_some()));
        }
        assert_eq!(decode(&encode(&result)).unwrap(), result);
    }
    for fault in FAULTS {
        let answer = soap::decode_response::<methods::PowerOnVM_Task>(fault.as_bytes(), LIMITS);
        let Err(soap::Error::Fault(fault)) = answer else { panic!("{answer:?}") };
        assert!(fault.detail.unwrap().is_a("ManagedObjectNotFound"));
    }
}

#[test]
fn what_a_newer_server_adds_to_one_row_touches_no_other() {
    let mut random = Random(1);
    for page in PAGES {
        let before = decode(page).unwrap();
        for round in 0..400 {
            let row = random.below(before.objects.len());
            let (begin, end) = row_of(page, row);
            let changed = Novelty::ALL[round % Novelty::ALL.len()].add(&page[begin..end], &mut random);
            let text = [&page[..begin], &changed, &page[end..]].concat();
            let after = decode(&text).unwrap_or_else(|error| panic!("{error} in {changed}"));
            assert_eq!(after.objects.len(), before.objects.len());
            for (at, (one, other)) in before.objects.iter().zip(&after.objects).enumerate() {
                assert!(at == row || one == other, "row {at} differs, the change was in {row}: {changed}");
            }
            let written = encode(&after);
            assert_eq!(decode(&written).unwrap(), after, "the new row is kept: {changed}");
            // An attribute of a known element means nothing to the model; all else is written again.
            if round % Novelty::ALL.len() != Novelty::Attribute as usize {
                assert!(written.to_ascii_lowercase().contains("tomorrow"), "{changed}");
            }
        }
    }
}

#[test]
fn damage_gives_an_error_or_a_value_that_is_stable() {
    let mut random = Random(2);
    let (mut errors, mut values) = (0, 0);
    for _ in 0..2500 {
        // One object is enough to be damaged in every way, and quick.
        let page = PAGES[random.below(PAGES.len())];
        let (begin, end) = row_of(page, random.below(3));
        let head = &page[..page.find("<objects>").unwrap()];
        let tail = &page[page.rfind("</objects>").unwrap() + "</objects>".len()..];
        let mut bytes = [head, &page[begin..end], tail].concat().into_bytes();
        for _ in 0..=random.below(3) {
            damage(&mut bytes, &mut random);
        }
        let _ = soap::decode_dynamic(&bytes, LIMITS);
        let _ = soap::Request::parse(&bytes, LIMITS).map(|request| request.args::<methods::RetrievePropertiesEx>());
        match soap::decode_response::<methods::RetrievePropertiesEx>(&bytes, LIMITS) {
            Err(error) => {
                assert!(error.to_string().len() < 4000, "a short message: {error}");
                errors += 1;
            }
            Ok(result) => {
                let once = soap::encode_response::<methods::RetrievePropertiesEx>(&result);
                let again = soap::decode_response::<methods::RetrievePropertiesEx>(once.as_bytes(), LIMITS).unwrap();
                assert_eq!(soap::encode_response::<methods::RetrievePropertiesEx>(&again), once);
                values += 1;
            }
        }
    }
    // Both ends were reached, often.
    assert!(errors > 150 && values > 150, "{errors} errors, {values} values");
}

fn decode(text: &str) -> Result<RetrieveResult, soap::Error> {
    soap::decode_response::<methods::RetrievePropertiesEx>(text.as_bytes(), LIMITS).map(Option::unwrap)
}

fn encode(result: &RetrieveResult) -> String {
    soap::encode_response::<methods::RetrievePropertiesEx>(&Some(result.clone()))
}

/// Where the row begins and ends.
fn row_of(page: &str, row: usize) -> (usize, usize) {
    let begin = page.match_indices("<objects>").nth(row).unwrap().0;
    (begin, begin + page[begin..].find("</objects>").unwrap() + "</objects>".len())
}

/// Something of which this model has never heard, in a place where a later release may put it.
#[derive(Clone, Copy)]
enum Novelty {
    Element,
    Attribute,
    Type,
    EnumValue,
}

impl Novelty {
    const ALL: [Self; 4] = [Self::Element, Self::Attribute, Self::Type, Self::EnumValue];

    fn add(self, row: &str, random: &mut Random) -> String {
        match self {
            Self::Element => {
                // Between two tags, but not inside an empty text.
                let places: Vec<usize> = row
                    .match_indices("><")
                    .map(|(at, _)| at + 1)
                    .filter(|at| {
                        let before = &row[row[..*at].rfind('<').unwrap()..];
                        before.starts_with("</") || !row[*at..].starts_with("</")
                    })
                    .collect();
                let at = places[random.below(places.len())];
                let new = "<tomorrow state=\"new\"><deep xsi:type=\"Tomorrow\"><x>1 &amp; 2</x></deep></tomorrow>";
                [&row[..at], new, &row[at..]].concat()
            }
            Self::Attribute => {
                let tags: Vec<usize> =
                    row.match_indices('<').filter(|(at, _)| !row[*at..].starts_with("</")).map(|(at, _)| at).collect();
                let at = tags[random.below(tags.len())];
                let end = at + row[at..].find(['>', ' ', '/']).unwrap();
                [&row[..end], " tomorrow=\"1\"", &row[end..]].concat()
            }
            Self::Type => {
                let types: Vec<usize> = row.match_indices(":type=\"").map(|(at, found)| at + found.len()).collect();
                let at = types[random.below(types.len())];
                let end = at + row[at..].find('"').unwrap();
                [&row[..at], "TypeOfTomorrow", &row[end..]].concat()
            }
            Self::EnumValue => {
                let state = ["poweredOn", "poweredOff"].into_iter().find(|state| row.contains(state)).unwrap();
                row.replace(state, "hibernatedTomorrow")
            }
        }
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let tag = bytes[at..].iter().position(|b| *b == b'<').map_or(at, |offset| at + offset);
    let insert = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
        bytes.splice(at..at, new.iter().copied());
    };
    match random.below(16) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => insert(bytes, at, &[0xff, 0xc0, 0x80]),
        3 => insert(bytes, at, &[random.below(32) as u8]),
        4 => insert(bytes, tag, "<a>".repeat(random.below(200)).as_bytes()),
        5 => insert(bytes, tag, b"<!DOCTYPE a [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>"),
        6 => insert(bytes, at, "&b;".repeat(50).as_bytes()),
        7 => insert(bytes, at, b"</VirtualDevice>"),
        8 => insert(bytes, at, b"99999999999999999999999999"),
        9 => insert(bytes, tag, b"<key>1</key><key>2</key><backing/><backing>x</backing>"),
        10 => insert(bytes, tag, b"<!-- c --><![CDATA[<&]]><?p i?>"),
        11 => insert(bytes, tag, "<x y=\"&#1;\"/>".repeat(random.below(100)).as_bytes()),
        // A piece of the text in another place.
        12 => {
            let from = random.below(bytes.len());
            let piece = bytes[from..(from + random.below(300)).min(bytes.len())].to_vec();
            insert(bytes, at, &piece);
        }
        // A tag twice.
        13 => {
            let end = bytes[tag..].iter().position(|b| *b == b'>').map_or(bytes.len(), |offset| tag + offset + 1);
            let piece = bytes[tag..end].to_vec();
            insert(bytes, tag, &piece);
        }
        14 => {
            let end = (at + random.below(50)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => insert(bytes, at, "\u{0}\u{fffe}\r\r\n\u{85}".as_bytes()),
    }
    if bytes.is_empty() {
        bytes.push(b'<');
    }
}

/// splitmix64: the same rounds on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}
