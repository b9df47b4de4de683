//! The negotiation as a state machine: options in, answers and the next step out.

use bytes::{BufMut as _, BytesMut};

use super::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, MAX_STRING, OPTION_MAGIC, OPTION_REPLY_MAGIC, SERVER_MAGIC, cut,
    handshake_flag::{FIXED_NEWSTYLE, NO_ZEROES},
    option::{ClientOption, InfoRequest, MetaRequest, info, number},
    transmission_flag::SEND_DF,
};

/// What clients are told about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFacts {
    /// Its name.
    pub name: String,
    /// A text for people, or nothing.
    pub description: String,
    /// Its size in bytes.
    pub size: u64,
    /// [Transmission flags](super::transmission_flag), without `SEND_DF`.
    pub flags: u16,
    /// The least that a request should be a multiple of, in bytes.
    pub min_block: u32,
    /// What requests had best be a multiple of, in bytes.
    pub preferred_block: u32,
    /// The most bytes that a request may carry.
    pub max_block: u32,
}

/// What a client has chosen besides its export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    /// Replies are structured.
    pub structured: bool,
    /// The context `base:allocation` was chosen.
    pub allocation: bool,
}

/// Whether a connection is, can or must be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// There is none.
    Off,
    /// Nothing is told before it.
    Required,
    /// It is on.
    On,
}

/// What happens after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The client may send another option.
    Option,
    /// TLS begins; then more options.
    StartTls,
    /// Requests to the export of this index follow.
    Transmit {
        /// Which of the exports.
        export: usize,
        /// What the client chose.
        modes: Modes,
    },
    /// The connection is closed.
    Close,
}

/// The state of a negotiation.
#[derive(Debug, Clone)]
pub struct Negotiation {
    encryption: Encryption,
    no_zeroes: bool,
    structured: bool,
    /// The export whose context was chosen.
    allocation_of: Option<usize>,
}

impl Negotiation {
    /// The server's greeting, the first bytes on a connection.
    pub fn greeting() -> [u8; 18] {
        let mut out = [0; 18];
        out[..8].copy_from_slice(&SERVER_MAGIC.to_be_bytes());
        out[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
        out[16..].copy_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        out
    }

    /// Begins with the client's answer to the greeting.
    ///
    /// # Errors
    /// A sentence: the client speaks a dialect that is not offered.
    pub fn begin(client_flags: [u8; 4], encryption: Encryption) -> Result<Self, &'static str> {
        let flags = u32::from_be_bytes(client_flags);
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err("the client sets handshake flags that were not offered");
        }
        let no_zeroes = flags & u32::from(NO_ZEROES) != 0;
        Ok(Self { encryption, no_zeroes, structured: false, allocation_of: None })
    }

    /// Answers an option into `out`.
    pub fn answer(&mut self, number: u32, data: &[u8], exports: &[ExportFacts], out: &mut BytesMut) -> Next {
        let mut answers = Answers { option: number, out };
        let option = ClientOption::decode(number, data);
        if number == number::SET_META_CONTEXT {
            // A choice replaces the one before, also when it fails.
            self.allocation_of = None;
        }
        if self.encryption == Encryption::Required {
            match option {
                Ok(ClientOption::StartTls | ClientOption::Abort) => {}
                Ok(ClientOption::ExportName(_)) => return Next::Close,
                _ => return answers.error(error::TLS_REQUIRED, "this server takes options inside TLS only"),
            }
        }
        let option = match option {
            Ok(option) => option,
            // There is no way to refuse it.
            Err(_) if number == number::EXPORT_NAME => return Next::Close,
            Err(problem) => return answers.error(error::INVALID, problem),
        };
        match option {
            ClientOption::ExportName(name) => self.export_name(&name, exports, out),
            ClientOption::Abort => {
                answers.acknowledge();
                Next::Close
            }
            ClientOption::List => {
                exports.iter().for_each(|export| answers.server(export));
                answers.acknowledge()
            }
            ClientOption::StartTls => self.start_tls(&mut answers),
            ClientOption::Info(request) => match info_of(&request, exports, self.structured, &mut answers) {
                Some(_) => answers.acknowledge(),
                None => Next::Option,
            },
            ClientOption::Go(request) => match info_of(&request, exports, self.structured, &mut answers) {
                Some(export) => {
                    answers.acknowledge();
                    self.transmit(export)
                }
                None => Next::Option,
            },
            ClientOption::StructuredReply if self.structured => {
                answers.error(error::INVALID, "structured replies were chosen before")
            }
            ClientOption::StructuredReply => {
                self.structured = true;
                answers.acknowledge()
            }
            ClientOption::ListMetaContext(request) => self.list_contexts(&request, exports, &mut answers),
            ClientOption::SetMetaContext(request) => self.set_contexts(&request, exports, &mut answers),
            ClientOption::Unknown(_) => answers.error(error::UNSUPPORTED, "this server does not know the option"),
        }
    }

    fn export_name(&self, name: &str, exports: &[ExportFacts], out: &mut BytesMut) -> Next {
        let Some(export) = find(name, exports) else { return Next::Close };
        out.put_u64(exports[export].size);
        out.put_u16(flags(&exports[export], self.structured));
        if !self.no_zeroes {
            out.put_bytes(0, 124);
        }
        self.transmit(export)
    }

    fn start_tls(&mut self, answers: &mut Answers<'_>) -> Next {
        match self.encryption {
            Encryption::Off => answers.error(error::POLICY, "this server has no certificate"),
            Encryption::On => answers.error(error::INVALID, "TLS is on"),
            Encryption::Required => {
                answers.acknowledge();
                // Nothing that was said in clear counts.
                self.structured = false;
                self.allocation_of = None;
                self.encryption = Encryption::On;
                Next::StartTls
            }
        }
    }

    fn list_contexts(&self, request: &MetaRequest, exports: &[ExportFacts], answers: &mut Answers<'_>) -> Next {
        if let Err(refused) = self.context_export(request, exports, answers) {
            return refused;
        }
        let asked = |query: &String| query == BASE_ALLOCATION || query == "base:";
        if request.queries.is_empty() || request.queries.iter().any(asked) {
            answers.context(0);
        }
        answers.acknowledge()
    }

    fn set_contexts(&mut self, request: &MetaRequest, exports: &[ExportFacts], answers: &mut Answers<'_>) -> Next {
        let export = match self.context_export(request, exports, answers) {
            Ok(export) => export,
            Err(refused) => return refused,
        };
        if request.queries.iter().any(|query| query == BASE_ALLOCATION) {
            self.allocation_of = Some(export);
            answers.context(BASE_ALLOCATION_ID);
        }
        answers.acknowledge()
    }

    fn context_export(
        &self,
        request: &MetaRequest,
        exports: &[ExportFacts],
        answers: &mut Answers<'_>,
    ) -> Result<usize, Next> {
        if !self.structured {
            return Err(answers.error(error::INVALID, "contexts need structured replies"));
        }
        find(&request.export, exports).ok_or_else(|| answers.error(error::UNKNOWN, "there is no such export"))
    }

    fn transmit(&self, export: usize) -> Next {
        let allocation = self.allocation_of == Some(export);
        Next::Transmit { export, modes: Modes { structured: self.structured, allocation } }
    }
}

/// Tells what is known of an export; refuses when there is no such export.
fn info_of(
    request: &InfoRequest,
    exports: &[ExportFacts],
    structured: bool,
    answers: &mut Answers<'_>,
) -> Option<usize> {
    let Some(index) = find(&request.export, exports) else {
        answers.error(error::UNKNOWN, "there is no such export");
        return None;
    };
    let export = &exports[index];
    answers.info(info::EXPORT, |out| {
        out.put_u64(export.size);
        out.put_u16(flags(export, structured));
    });
    // Told to all: clients that did not ask leave it aside, and are served whatever they send.
    answers.info(info::BLOCK_SIZE, |out| {
        out.put_u32(export.min_block);
        out.put_u32(export.preferred_block);
        out.put_u32(export.max_block);
    });
    if request.wishes.contains(&info::NAME) {
        answers.info(info::NAME, |out| out.put_slice(export.name.as_bytes()));
    }
    if request.wishes.contains(&info::DESCRIPTION) && !export.description.is_empty() {
        answers.info(info::DESCRIPTION, |out| out.put_slice(cut(&export.description, MAX_STRING).as_bytes()));
    }
    Some(index)
}

/// The export of that name; the first one when the name is empty and nobody else has it.
fn find(name: &str, exports: &[ExportFacts]) -> Option<usize> {
    let named = exports.iter().position(|export| export.name == name);
    named.or_else(|| (name.is_empty() && !exports.is_empty()).then_some(0))
}

fn flags(export: &ExportFacts, structured: bool) -> u16 {
    if structured { export.flags | SEND_DF } else { export.flags }
}

/// Answers to one option.
struct Answers<'a> {
    option: u32,
    out: &'a mut BytesMut,
}

impl Answers<'_> {
    fn put(&mut self, kind: u32, data: impl FnOnce(&mut BytesMut)) {
        self.out.put_u64(OPTION_REPLY_MAGIC);
        self.out.put_u32(self.option);
        self.out.put_u32(kind);
        let mut body = BytesMut::new();
        data(&mut body);
        // Names, texts and a few numbers: never near 4 GiB.
        self.out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.out.put_slice(&body);
    }

    fn acknowledge(&mut self) -> Next {
        self.put(answer::ACK, |_| {});
        Next::Option
    }

    fn server(&mut self, export: &ExportFacts) {
        self.put(answer::SERVER, |out| {
            out.put_u32(u32::try_from(export.name.len()).unwrap_or(u32::MAX));
            out.put_slice(export.name.as_bytes());
            out.put_slice(cut(&export.description, MAX_STRING).as_bytes());
        });
    }

    fn info(&mut self, kind: u16, data: impl FnOnce(&mut BytesMut)) {
        self.put(answer::INFO, |out| {
            out.put_u16(kind);
            data(out);
        });
    }

    fn context(&mut self, id: u32) {
        self.put(answer::META_CONTEXT, |out| {
            out.put_u32(id);
            out.put_slice(BASE_ALLOCATION.as_bytes());
        });
    }

    fn error(&mut self, kind: u32, text: &str) -> Next {
        self.put(kind, |out| out.put_slice(text.as_bytes()));
        Next::Option
    }
}

mod answer {
    pub(super) const ACK: u32 = 1;
    pub(super) const SERVER: u32 = 2;
    pub(super) const INFO: u32 = 3;
    pub(super) const META_CONTEXT: u32 = 4;
}

mod error {
    const ERROR: u32 = 1 << 31;
    pub(super) const UNSUPPORTED: u32 = ERROR + 1;
    pub(super) const POLICY: u32 = ERROR + 2;
    pub(super) const INVALID: u32 = ERROR + 3;
    pub(super) const TLS_REQUIRED: u32 = ERROR + 5;
    pub(super) const UNKNOWN: u32 = ERROR + 6;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports() -> Vec<ExportFacts> {
        let facts = |name: &str| ExportFacts {
            name: name.into(),
            description: "a disk".into(),
            size: 4096,
            flags: 1,
            min_block: 512,
            preferred_block: 4096,
            max_block: 1 << 25,
        };
        vec![facts("web"), facts("db")]
    }

    fn begin(encryption: Encryption) -> Negotiation {
        Negotiation::begin([0, 0, 0, 3], encryption).unwrap()
    }

    /// What comes next, and the kinds of the answers.
    fn ask(negotiation: &mut Negotiation, number: u32, data: &[u8]) -> (Next, Vec<u32>) {
        let mut out = BytesMut::new();
        let next = negotiation.answer(number, data, &exports(), &mut out);
        let (mut kinds, mut rest) = (Vec::new(), &out[..]);
        while let Some((head, tail)) = rest.split_at_checked(20) {
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            assert_eq!(head[..8], OPTION_REPLY_MAGIC.to_be_bytes());
            assert_eq!(word(8), number);
            kinds.push(word(12));
            rest = &tail[word(16) as usize..];
        }
        (next, kinds)
    }

    fn go(name: &str) -> Vec<u8> {
        [&u32::try_from(name.len()).unwrap().to_be_bytes()[..], name.as_bytes(), &[0, 0]].concat()
    }

    fn contexts(name: &str, query: &str) -> Vec<u8> {
        let len = |text: &str| u32::try_from(text.len()).unwrap().to_be_bytes();
        [&len(name)[..], name.as_bytes(), &[0, 0, 0, 1], &len(query), query.as_bytes()].concat()
    }

    #[test]
    fn a_client_that_goes_gets_size_blocks_and_what_it_chose() {
        let mut state = begin(Encryption::Off);
        assert_eq!(ask(&mut state, number::STRUCTURED_REPLY, b""), (Next::Option, vec![answer::ACK]));
        let chosen = ask(&mut state, number::SET_META_CONTEXT, &contexts("db", BASE_ALLOCATION));
        assert_eq!(chosen, (Next::Option, vec![answer::META_CONTEXT, answer::ACK]));
        let modes = Modes { structured: true, allocation: true };
        let (next, kinds) = ask(&mut state, number::GO, &go("db"));
        assert_eq!(next, Next::Transmit { export: 1, modes });
        assert_eq!(kinds, [answer::INFO, answer::INFO, answer::ACK]);
    }

    #[test]
    fn contexts_chosen_for_another_export_do_not_count() {
        let mut state = begin(Encryption::Off);
        ask(&mut state, number::STRUCTURED_REPLY, b"");
        ask(&mut state, number::SET_META_CONTEXT, &contexts("db", BASE_ALLOCATION));
        let (next, _) = ask(&mut state, number::GO, &go("web"));
        assert_eq!(next, Next::Transmit { export: 0, modes: Modes { structured: true, allocation: false } });
    }

    #[test]
    fn a_choice_of_contexts_that_fails_leaves_none() {
        for failing in [contexts("no", BASE_ALLOCATION), vec![0; 3], vec![0xff; 20]] {
            let mut state = begin(Encryption::Off);
            ask(&mut state, number::STRUCTURED_REPLY, b"");
            ask(&mut state, number::SET_META_CONTEXT, &contexts("web", BASE_ALLOCATION));
            ask(&mut state, number::SET_META_CONTEXT, &failing);
            let (next, _) = ask(&mut state, number::GO, &go("web"));
            assert_eq!(next, Next::Transmit { export: 0, modes: Modes { structured: true, allocation: false } });
        }
    }

    #[test]
    fn contexts_need_structured_replies_and_an_export() {
        let mut state = begin(Encryption::Off);
        let set = contexts("web", BASE_ALLOCATION);
        assert_eq!(ask(&mut state, number::SET_META_CONTEXT, &set).1, [error::INVALID]);
        ask(&mut state, number::STRUCTURED_REPLY, b"");
        assert_eq!(ask(&mut state, number::SET_META_CONTEXT, &contexts("no", "base:")).1, [error::UNKNOWN]);
        assert_eq!(ask(&mut state, number::SET_META_CONTEXT, &contexts("web", "qemu:x")).1, [answer::ACK]);
        let all = ask(&mut state, number::LIST_META_CONTEXT, &contexts("web", "base:")).1;
        assert_eq!(all, [answer::META_CONTEXT, answer::ACK]);
    }

    #[test]
    fn an_unknown_export_is_refused_and_by_its_bare_name_hung_up_on() {
        let mut state = begin(Encryption::Off);
        assert_eq!(ask(&mut state, number::GO, &go("no")), (Next::Option, vec![error::UNKNOWN]));
        let mut out = BytesMut::new();
        assert_eq!(state.answer(number::EXPORT_NAME, b"no", &exports(), &mut out), Next::Close);
        assert!(out.is_empty());
        assert!(matches!(
            state.answer(number::EXPORT_NAME, b"", &exports(), &mut out),
            Next::Transmit { export: 0, .. }
        ));
        assert_eq!(out.len(), 10);
    }

    #[test]
    fn zeros_follow_the_bare_name_unless_the_client_can_do_without() {
        let mut out = BytesMut::new();
        let mut old = Negotiation::begin([0; 4], Encryption::Off).unwrap();
        old.answer(number::EXPORT_NAME, b"web", &exports(), &mut out);
        assert_eq!(out.len(), 134);
    }

    #[test]
    fn where_tls_is_required_nothing_is_told_before_it() {
        let mut state = begin(Encryption::Required);
        for (number, data) in [(number::LIST, &b""[..]), (number::GO, &go("web")), (77, b"x")] {
            assert_eq!(ask(&mut state, number, data), (Next::Option, vec![error::TLS_REQUIRED]));
        }
        let mut out = BytesMut::new();
        assert_eq!(state.clone().answer(number::EXPORT_NAME, b"web", &exports(), &mut out), Next::Close);
        assert_eq!(ask(&mut state, number::STARTTLS, b""), (Next::StartTls, vec![answer::ACK]));
        assert_eq!(ask(&mut state, number::STARTTLS, b"").1, [error::INVALID]);
        assert_eq!(ask(&mut state, number::LIST, b"").1, [answer::SERVER, answer::SERVER, answer::ACK]);
        assert_eq!(ask(&mut begin(Encryption::Off), number::STARTTLS, b"").1, [error::POLICY]);
    }

    #[test]
    fn strange_options_are_answered_and_the_negotiation_goes_on() {
        let mut state = begin(Encryption::Off);
        assert_eq!(ask(&mut state, 4711, b"x"), (Next::Option, vec![error::UNSUPPORTED]));
        assert_eq!(ask(&mut state, number::LIST, b"x"), (Next::Option, vec![error::INVALID]));
        assert_eq!(ask(&mut state, number::ABORT, b""), (Next::Close, vec![answer::ACK]));
        assert!(Negotiation::begin([0, 0, 0, 4], Encryption::Off).is_err());
    }
}
