//! Any bytes of a client are borne: what the server says stays within its bounds, and the connection ends.
#![no_main]

use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use raidlab::block::{Instant, IoError, Limits, Op, Sectors, State};
use raidlab::export::nbd::{Connection, Export, Secrecy, WINDOW, Work};
use raidlab::nbd::{ClientOption, InfoQuery, MetaQuery, Side};

const SECTORS: Sectors = Sectors(1 << 16);

/// What comes before the bytes: nothing, or a handshake that agrees on simple, structured or extended replies, and on
/// TLS before that.
fn prelude(kind: u8) -> Vec<u8> {
    let queries = vec![String::from("base:allocation"), String::from("raidlab:state")];
    let contexts = ClientOption::SetMetaContext(MetaQuery { export: String::new(), queries });
    let options = match kind % 4 {
        0 => return Vec::new(),
        1 => vec![],
        2 => vec![ClientOption::StructuredReply, contexts],
        _ => vec![ClientOption::ExtendedHeaders, contexts],
    };
    let go = ClientOption::Go(InfoQuery { export: String::new(), wanted: vec![] });
    let tls = (kind & 8 != 0).then_some(&ClientOption::StartTls);
    let options = tls.into_iter().chain(&options).chain([&go]).flat_map(ClientOption::encode);
    3_u32.to_be_bytes().into_iter().chain(options).collect()
}

fuzz_target!(|input: (u8, u8, Vec<Vec<u8>>)| {
    let (kind, habits, portions) = input;
    let export = Export::new("fuzz", "", Limits { preferred: Sectors(384), ..Limits::of_disk(SECTORS) }, habits & 1 != 0);
    let secrecy = match kind >> 4 & 3 {
        0 => Secrecy::Required,
        1 => Secrecy::Offered,
        _ => Secrecy::None,
    };
    let mut connection = Connection::new(Rc::new(export), secrecy, Instant::START);
    let mut pieces = Vec::new();
    let mut work = |connection: &mut Connection, all: bool| {
        while let Some(work) = connection.next_work() {
            match work {
                Work::Io { piece, extent, op } => {
                    assert!(extent.end().0 <= SECTORS.0, "{extent:?} is beyond the end");
                    pieces.push((piece, op));
                }
                Work::States { command, extent } => {
                    assert!(extent.end().0 <= SECTORS.0, "{extent:?} is beyond the end");
                    connection.told(command, &[(extent.length, State::Degraded)]);
                }
            }
        }
        while pieces.len() > if all { 0 } else { usize::from(habits >> 4) } {
            let (piece, op) = pieces.swap_remove(usize::from(habits) % pieces.len());
            let fails = habits & 2 != 0 && matches!(op, Op::Read(_)) && piece % 2 == 0;
            connection.completed(piece, op, if fails { Err(IoError::Medium) } else { Ok(()) });
        }
    };
    let send = |connection: &mut Connection| {
        let bytes: usize = connection.slices().iter().map(|slice| slice.len()).sum();
        assert!(bytes <= 2 * WINDOW + (32 << 20), "{bytes} bytes wait");
        connection.sent(bytes);
    };
    for portion in std::iter::once(&prelude(kind)).chain(&portions) {
        let mut rest = &portion[..];
        while !rest.is_empty() {
            let mut taken = 0;
            for mut space in connection.spaces() {
                let now = space.len().min(rest.len() - taken);
                space[..now].copy_from_slice(&rest[taken..taken + now]);
                taken += now;
            }
            if taken > 0 {
                connection.received(taken);
            }
            rest = &rest[taken..];
            work(&mut connection, taken == 0);
            if habits & 4 == 0 || taken == 0 {
                send(&mut connection);
            }
            // What encrypts is not here: bytes are taken as they come out of it.
            if connection.awaits_tls() {
                connection.encrypted();
            }
            connection.go_on();
            if taken == 0 && connection.spaces().is_empty() {
                break;
            }
        }
    }
    connection.ended();
    while !connection.is_over() {
        work(&mut connection, true);
        send(&mut connection);
    }
});
