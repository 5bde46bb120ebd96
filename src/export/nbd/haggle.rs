//! The haggling over options.

use super::Export;
use super::command::Style;
use crate::nbd::{
    ClientOption, Info, InfoQuery, InfoRequest, MetaQuery, Misread, OptionReply, Refusal, ReplyStyle, RequestStyle,
    Session,
};

/// A metadata context: something that is known of ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Context {
    /// Where there are holes. The volume has none: what was forgotten is kept as zeroes.
    Allocation,
    /// How well sectors are kept.
    State,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrecy {
    /// It cannot be.
    None,
    /// It can be.
    Offered,
    /// It has to be before anything else.
    Required,
    /// It is.
    Agreed,
}

/// What was agreed on so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    pub(super) style: Style,
    pub(super) contexts: Vec<Context>,
    secrecy: Secrecy,
}

/// What comes after an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// More options.
    Haggle,
    /// More options, once nothing of older connections of a session is under way.
    TakeOver(Session),
    /// TLS, and more options under it.
    Encrypt,
    /// Requests.
    Transmit,
    /// Requests, and the oldest answer before them.
    TransmitAsOfOld,
    /// The client goes.
    Leave,
    /// There is no way to answer: the connection ends.
    Break,
}

/// The number of a session among the contexts; block status never has it.
const SESSION_ID: u32 = 100;

impl Context {
    const ALL: [Context; 2] = [Context::Allocation, Context::State];

    /// Its number in block status.
    pub(super) fn id(self) -> u32 {
        self as u32 + 1
    }

    fn name(self) -> &'static str {
        match self {
            Context::Allocation => "base:allocation",
            Context::State => "raidlab:state",
        }
    }

    /// Whether a query of a list means it: by its name, or by its namespace.
    fn is_listed_by(self, query: &str) -> bool {
        query == self.name() || (query.ends_with(':') && self.name().starts_with(query))
    }
}

impl Terms {
    pub(super) fn new(secrecy: Secrecy) -> Terms {
        let style = Style { requests: RequestStyle::Compact, replies: ReplyStyle::Simple };
        Terms { style, contexts: Vec::new(), secrecy }
    }

    /// Takes an option; what to answer, and what comes next.
    pub(super) fn haggle(
        &mut self,
        export: &Export,
        option: Result<ClientOption, Misread>,
    ) -> (Vec<OptionReply>, Outcome) {
        let option = match option {
            Ok(option) => option,
            Err(Misread) => return refuse(Refusal::Invalid, "the data of this option are not as they should be"),
        };
        match option {
            ClientOption::Abort => (vec![OptionReply::Ack], Outcome::Leave),
            ClientOption::StartTls => match self.secrecy {
                Secrecy::None => refuse(Refusal::Unsupported, "this server has no TLS"),
                Secrecy::Agreed => refuse(Refusal::Invalid, "TLS is spoken already"),
                Secrecy::Offered | Secrecy::Required => {
                    // Whatever was agreed on in the clear may have been put there by somebody else.
                    *self = Terms::new(Secrecy::Agreed);
                    (vec![OptionReply::Ack], Outcome::Encrypt)
                }
            },
            ClientOption::ExportName(_) if self.secrecy == Secrecy::Required => (vec![], Outcome::Break),
            _ if self.secrecy == Secrecy::Required => refuse(Refusal::TlsRequired, "this server asks for TLS first"),
            ClientOption::ExportName(name) => {
                let welcome = export.is_called(&name) && self.style.requests == RequestStyle::Compact;
                (vec![], if welcome { Outcome::TransmitAsOfOld } else { Outcome::Break })
            }
            ClientOption::List => {
                let (name, description) = (export.name.clone(), export.description.clone());
                (vec![OptionReply::Server { name, description }, OptionReply::Ack], Outcome::Haggle)
            }
            ClientOption::Info(query) => self.tell(export, &query, Outcome::Haggle),
            ClientOption::Go(query) => self.tell(export, &query, Outcome::Transmit),
            ClientOption::StructuredReply if self.style.replies == ReplyStyle::Extended => {
                refuse(Refusal::ExtendedHeadersRequired, "extended headers were agreed on")
            }
            ClientOption::StructuredReply => {
                self.style.replies = ReplyStyle::Structured;
                (vec![OptionReply::Ack], Outcome::Haggle)
            }
            ClientOption::ExtendedHeaders => {
                self.style = Style { requests: RequestStyle::Extended, replies: ReplyStyle::Extended };
                (vec![OptionReply::Ack], Outcome::Haggle)
            }
            ClientOption::ListMetaContext(query) => self.contexts(export, &query, false),
            ClientOption::SetMetaContext(query) => {
                self.contexts.clear();
                self.contexts(export, &query, true)
            }
            ClientOption::Unknown(_) => refuse(Refusal::Unsupported, "this option is not known here"),
        }
    }

    fn tell(&self, export: &Export, query: &InfoQuery, then: Outcome) -> (Vec<OptionReply>, Outcome) {
        if !export.is_called(&query.export) {
            return refuse(Refusal::Unknown, "there is no such export");
        }
        let flags = export.flags(self.style.replies);
        let mut replies = vec![OptionReply::Info(Info::Export { size: export.size, flags })];
        for (wanted, info) in [
            (InfoRequest::Name, Info::Name(export.name.clone())),
            (InfoRequest::Description, Info::Description(export.description.clone())),
            (InfoRequest::BlockSize, export.block_size()),
        ] {
            if query.wanted.contains(&wanted) {
                replies.push(OptionReply::Info(info));
            }
        }
        replies.push(OptionReply::Ack);
        (replies, then)
    }

    fn contexts(&mut self, export: &Export, query: &MetaQuery, select: bool) -> (Vec<OptionReply>, Outcome) {
        if self.style.replies == ReplyStyle::Simple {
            return refuse(Refusal::Invalid, "metadata contexts want structured replies first");
        }
        if !export.is_called(&query.export) {
            return refuse(Refusal::Unknown, "there is no such export");
        }
        let is_meant = |context: &Context| match select {
            true => query.queries.iter().any(|query| query == context.name()),
            false => query.queries.is_empty() || query.queries.iter().any(|query| context.is_listed_by(query)),
        };
        let meant: Vec<Context> = Context::ALL.into_iter().filter(is_meant).collect();
        let reply = |context: &Context| OptionReply::MetaContext {
            id: if select { context.id() } else { 0 },
            name: context.name().to_owned(),
        };
        let mut replies: Vec<OptionReply> = meant.iter().map(reply).collect();
        let mut outcome = Outcome::Haggle;
        if select {
            self.contexts = meant;
            if let (Some(server), Some(session)) =
                (export.server, query.queries.iter().find_map(|query| Session::of_query(query)))
            {
                replies.push(OptionReply::MetaContext { id: SESSION_ID, name: session.answer(server) });
                outcome = Outcome::TakeOver(session);
            }
        }
        replies.push(OptionReply::Ack);
        (replies, outcome)
    }
}

fn refuse(refusal: Refusal, message: &str) -> (Vec<OptionReply>, Outcome) {
    (vec![OptionReply::Refused { refusal, message: message.to_owned() }], Outcome::Haggle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Limits, Sectors};

    fn export() -> Export {
        Export::new("lab", "raid5", Limits::of_disk(Sectors(2048)), false)
    }

    fn meta(queries: &[&str]) -> MetaQuery {
        MetaQuery { export: String::new(), queries: queries.iter().map(|query| (*query).to_owned()).collect() }
    }

    fn names(replies: &[OptionReply]) -> Vec<&str> {
        let name = |reply: &'_ OptionReply| match reply {
            OptionReply::MetaContext { name, .. } => Some(name.as_str().len()),
            _ => None,
        };
        replies
            .iter()
            .filter(|reply| name(reply).is_some())
            .map(|reply| match reply {
                OptionReply::MetaContext { name, .. } => name.as_str(),
                _ => "",
            })
            .collect()
    }

    #[test]
    fn contexts_are_listed_by_namespace_and_selected_by_name() {
        let mut terms = Terms::new(Secrecy::None);
        terms.haggle(&export(), Ok(ClientOption::StructuredReply));
        let mut list = |queries: &[&str]| {
            let (replies, _) = terms.haggle(&export(), Ok(ClientOption::ListMetaContext(meta(queries))));
            names(&replies).join(" ")
        };
        assert_eq!(list(&[]), "base:allocation raidlab:state");
        assert_eq!(list(&["base:"]), "base:allocation");
        assert_eq!(list(&["raidlab:", "qemu:"]), "raidlab:state");
        assert_eq!(list(&["base:other"]), "");
        for (queries, selected) in [
            (&["base:"][..], vec![]),
            (&["raidlab:state"], vec![Context::State]),
            (&["raidlab:state", "base:allocation", "raidlab:state"], vec![Context::Allocation, Context::State]),
            (&[], vec![]),
        ] {
            terms.haggle(&export(), Ok(ClientOption::SetMetaContext(meta(queries))));
            assert_eq!(terms.contexts, selected, "{queries:?}");
        }
    }

    #[test]
    fn a_session_is_taken_over_where_the_server_has_a_number_and_passed_over_elsewhere() {
        let session = Session { id: 7, generation: 3 };
        for server in [None, Some(99)] {
            let mut terms = Terms::new(Secrecy::None);
            terms.haggle(&export(), Ok(ClientOption::StructuredReply));
            let export = Export { server, ..export() };
            let query = meta(&["base:allocation", &session.to_string()]);
            let (replies, outcome) = terms.haggle(&export, Ok(ClientOption::SetMetaContext(query)));
            let answered = names(&replies).into_iter().find_map(|name| session.server_of(name));
            assert_eq!((answered, terms.contexts), (server, vec![Context::Allocation]));
            assert_eq!(outcome, server.map_or(Outcome::Haggle, |_| Outcome::TakeOver(session)));
        }
    }

    #[test]
    fn contexts_want_structured_replies() {
        let mut terms = Terms::new(Secrecy::None);
        let (replies, _) = terms.haggle(&export(), Ok(ClientOption::SetMetaContext(meta(&["base:allocation"]))));
        assert!(matches!(replies[..], [OptionReply::Refused { refusal: Refusal::Invalid, .. }]));
        assert!(terms.contexts.is_empty());
    }

    #[test]
    fn extended_headers_take_precedence_and_end_the_oldest_way_in() {
        let mut terms = Terms::new(Secrecy::None);
        terms.haggle(&export(), Ok(ClientOption::ExtendedHeaders));
        let (replies, _) = terms.haggle(&export(), Ok(ClientOption::StructuredReply));
        assert!(matches!(replies[..], [OptionReply::Refused { refusal: Refusal::ExtendedHeadersRequired, .. }]));
        let (_, outcome) = terms.haggle(&export(), Ok(ClientOption::ExportName(String::new())));
        assert_eq!(outcome, Outcome::Break);
    }

    /// Anybody on the way could have put options there that the client never sent.
    #[test]
    fn what_was_agreed_on_before_tls_is_forgotten() {
        let mut terms = Terms::new(Secrecy::Offered);
        terms.haggle(&export(), Ok(ClientOption::StructuredReply));
        terms.haggle(&export(), Ok(ClientOption::SetMetaContext(meta(&["base:allocation"]))));
        let (replies, outcome) = terms.haggle(&export(), Ok(ClientOption::StartTls));
        assert_eq!((replies, outcome), (vec![OptionReply::Ack], Outcome::Encrypt));
        assert_eq!(terms, Terms::new(Secrecy::Agreed));
        let (replies, outcome) = terms.haggle(&export(), Ok(ClientOption::StartTls));
        assert!(matches!(replies[..], [OptionReply::Refused { refusal: Refusal::Invalid, .. }]), "{replies:?}");
        assert_eq!(outcome, Outcome::Haggle);
    }

    #[test]
    fn where_tls_is_required_nothing_is_told_without() {
        let mut terms = Terms::new(Secrecy::Required);
        let query = || InfoQuery { export: String::new(), wanted: vec![] };
        for option in [
            ClientOption::List,
            ClientOption::Info(query()),
            ClientOption::Go(query()),
            ClientOption::StructuredReply,
            ClientOption::ExtendedHeaders,
            ClientOption::ListMetaContext(meta(&[])),
            ClientOption::Unknown(77),
        ] {
            let (replies, outcome) = terms.haggle(&export(), Ok(option));
            assert!(matches!(replies[..], [OptionReply::Refused { refusal: Refusal::TlsRequired, .. }]), "{replies:?}");
            assert_eq!(outcome, Outcome::Haggle);
        }
        let (replies, outcome) = terms.haggle(&export(), Ok(ClientOption::ExportName(String::new())));
        assert_eq!((replies, outcome), (vec![], Outcome::Break));
        assert_eq!(terms.haggle(&export(), Ok(ClientOption::Abort)).1, Outcome::Leave);
        assert_eq!(terms.haggle(&export(), Ok(ClientOption::StartTls)).1, Outcome::Encrypt);
        assert_eq!(terms.haggle(&export(), Ok(ClientOption::Go(query()))).1, Outcome::Transmit);
    }

    #[test]
    fn the_default_export_and_its_name_are_known_and_no_others() {
        for (name, expected) in [("", Outcome::Transmit), ("lab", Outcome::Transmit), ("la", Outcome::Haggle)] {
            let query = InfoQuery { export: name.to_owned(), wanted: vec![InfoRequest::BlockSize] };
            let (replies, outcome) = Terms::new(Secrecy::None).haggle(&export(), Ok(ClientOption::Go(query)));
            assert_eq!(outcome, expected);
            assert_eq!(replies.last() == Some(&OptionReply::Ack), outcome == Outcome::Transmit);
        }
    }
}
