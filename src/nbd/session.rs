//! Sessions: how a client gets rid of a connection that it has lost and the server may still have.
//!
//! NBD cannot call a request back, and a connection that a client has given up may still hold some that the server carries
//! out whenever it gets to them. So a client names the *session* of each connection and its *generation*; one of a newer
//! generation ends all older ones of its session, and is let in when nothing of theirs is under way any more. That can be
//! asked for by another way to the same server than the lost connection took.
//!
//! It is asked for as a metadata context of our own, which other servers do not know and pass over:
//!
//! ```text
//!   client:  SET_META_CONTEXT  raidlab:session/SESSION/GENERATION
//!   server:  META_CONTEXT      raidlab:session/SESSION/GENERATION/SERVER
//! ```
//!
//! Session and server are 128 bits in hexadecimal, chosen at random: the server's anew whenever it starts.

use std::fmt;

const PREFIX: &str = "raidlab:session/";

/// A connection's place among those of its client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    /// Which.
    pub id: u128,
    /// Connections of older ones are over.
    pub generation: u64,
}

impl Session {
    /// What a query for a metadata context names, if it names a session.
    pub fn of_query(query: &str) -> Option<Session> {
        let (id, generation) = query.strip_prefix(PREFIX)?.split_once('/')?;
        Some(Session { id: number(id)?, generation: u64::try_from(number(generation)?).ok()? })
    }

    /// What a server of this number answers when the session is its client's.
    pub fn answer(&self, server: u128) -> String {
        format!("{self}/{server:x}")
    }

    /// Which server gave an answer to the query for this session, if it is one.
    pub fn server_of(&self, answer: &str) -> Option<u128> {
        answer.strip_prefix(&self.to_string())?.strip_prefix('/').and_then(number)
    }
}

fn number(digits: &str) -> Option<u128> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

impl fmt::Display for Session {
    /// The query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:x}/{:x}", self.id, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_asked_for_and_its_answer_names_the_server() {
        for (id, generation) in [(0, 0), (u128::MAX, u64::MAX), (0xabc, 17)] {
            let session = Session { id, generation };
            assert_eq!(Session::of_query(&session.to_string()), Some(session));
            assert_eq!(session.server_of(&session.answer(99)), Some(99));
            assert_eq!(Session { id: id ^ 1, generation }.server_of(&session.answer(99)), None);
            assert_eq!(session.server_of(&session.to_string()), None);
        }
        for text in ["", "raidlab:session/", "raidlab:session/1", "raidlab:session/+1/2", "raidlab:state", "base:1/2"] {
            assert_eq!(Session::of_query(text), None, "{text}");
        }
        assert_eq!(Session::of_query("raidlab:session/1/10000000000000000"), None, "65 bits");
    }
}
