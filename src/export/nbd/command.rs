//! What a request means, or why it is refused: nothing here remembers anything.

use super::Export;
use crate::block::Durability;
use crate::nbd::{Command, CommandFlags, NbdError, PAYLOAD_MAX, ReplyStyle, RequestHeader, RequestStyle};

/// What is to be done for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Task {
    /// Bytes to the client; `whole`: all of them behind one header.
    Read { whole: bool },
    /// Bytes from the client.
    Write(Durability),
    /// Zeroes that keep their room.
    Zero(Durability),
    /// Sectors are forgotten, and flushed before the reply if asked.
    Trim(Durability),
    /// Read, and thrown away: what lies below may keep it at hand.
    Cache,
    /// What was acknowledged is made durable.
    Flush,
    /// What is known of the range; `one` extent of it at most.
    Status { one: bool },
    /// The client goes.
    Disconnect,
}

/// Why a request is refused: what to send, and what to say.
pub(super) type Objection = (NbdError, &'static str);

/// How the client and the server speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Style {
    pub(super) requests: RequestStyle,
    pub(super) replies: ReplyStyle,
}

/// What `request` asks for, and that it may.
pub(super) fn judge(request: &RequestHeader, export: &Export, style: Style) -> Result<Task, Objection> {
    let invalid = |why| Err((NbdError::Invalid, why));
    let Some(command) = request.command() else { return invalid("there is no such command") };
    if !request.flags.difference(flags_of(command, style)).is_empty() {
        return invalid("a flag does not go with this command");
    }
    let task = task_of(command, request.flags, style);
    if export.read_only && matches!(task, Task::Write(_) | Task::Zero(_) | Task::Trim(_)) {
        return Err((NbdError::NotPermitted, "the export is read-only"));
    }
    match command {
        Command::Disconnect => return Ok(task),
        Command::Flush if request.offset == 0 && request.length == 0 => return Ok(task),
        Command::Flush => return invalid("a flush has no range"),
        _ => {}
    }
    if request.length == 0 {
        return invalid("the range is empty");
    }
    let Some(end) = request.offset.checked_add(request.length) else {
        return invalid("the range ends beyond 2^64");
    };
    if end > export.size {
        let writes = matches!(command, Command::Write | Command::WriteZeroes);
        let error = if writes { NbdError::NoSpace } else { NbdError::Invalid };
        return Err((error, "the range ends beyond the export"));
    }
    // What is known can be told of any byte.
    let block = u64::from(export.block);
    if command != Command::BlockStatus && !(request.offset.is_multiple_of(block) && end.is_multiple_of(block)) {
        return invalid("the range is not whole blocks");
    }
    if command == Command::Read && request.length > u64::from(PAYLOAD_MAX) {
        let error = if style.replies == ReplyStyle::Simple { NbdError::Invalid } else { NbdError::Overflow };
        return Err((error, "that is too much for one read"));
    }
    // Whole stripes of zeroes need no parity computed and no bytes moved.
    let whole_stripes =
        request.offset.is_multiple_of(export.stripe) && (end.is_multiple_of(export.stripe) || end == export.size);
    if request.flags.contains(CommandFlags::FAST_ZERO) && !whole_stripes {
        return Err((NbdError::NotSupported, "zeroes are fast in whole stripes only"));
    }
    Ok(task)
}

/// The flags a command may have. `FUA` may be on any.
fn flags_of(command: Command, style: Style) -> CommandFlags {
    let own = match command {
        Command::Read if style.replies != ReplyStyle::Simple => CommandFlags::DF,
        Command::Write if style.requests == RequestStyle::Extended => CommandFlags::PAYLOAD_LEN,
        Command::WriteZeroes => CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO,
        Command::BlockStatus => CommandFlags::REQ_ONE,
        _ => CommandFlags::empty(),
    };
    own | CommandFlags::FUA
}

fn task_of(command: Command, flags: CommandFlags, style: Style) -> Task {
    let durability = if flags.contains(CommandFlags::FUA) { Durability::Fua } else { Durability::Volatile };
    match command {
        Command::Read => Task::Read { whole: style.replies == ReplyStyle::Simple || flags.contains(CommandFlags::DF) },
        Command::Write => Task::Write(durability),
        Command::Disconnect => Task::Disconnect,
        Command::Flush => Task::Flush,
        Command::Cache => Task::Cache,
        Command::WriteZeroes if flags.contains(CommandFlags::NO_HOLE) => Task::Zero(durability),
        // Forgotten sectors read as zero, and take no room.
        Command::WriteZeroes | Command::Trim => Task::Trim(durability),
        Command::BlockStatus => Task::Status { one: flags.contains(CommandFlags::REQ_ONE) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Limits, Sectors};

    const STRUCTURED: Style = Style { requests: RequestStyle::Compact, replies: ReplyStyle::Structured };
    const EXTENDED: Style = Style { requests: RequestStyle::Extended, replies: ReplyStyle::Extended };
    const MIB: u64 = 1 << 20;

    fn export(read_only: bool) -> Export {
        let limits = Limits { preferred: Sectors(128), ..Limits::of_disk(Sectors(2048)) };
        Export::new("lab", "", limits, read_only)
    }

    fn ask(style: Style, command: Command, flags: CommandFlags, offset: u64, length: u64) -> Result<Task, NbdError> {
        let request = RequestHeader { flags, number: command.number(), cookie: 1, offset, length };
        judge(&request, &export(false), style).map_err(|(error, _)| error)
    }

    #[test]
    fn a_range_that_is_not_within_the_export_is_refused() {
        let none = CommandFlags::empty();
        let all =
            [Command::Read, Command::Write, Command::Trim, Command::Cache, Command::WriteZeroes, Command::BlockStatus];
        for command in all {
            let beyond = match command {
                Command::Write | Command::WriteZeroes => NbdError::NoSpace,
                _ => NbdError::Invalid,
            };
            assert!(ask(STRUCTURED, command, none, 0, MIB).is_ok());
            assert_eq!(ask(STRUCTURED, command, none, MIB - 512, 1024), Err(beyond));
            assert_eq!(ask(STRUCTURED, command, none, 1 << 63, 512), Err(beyond));
            assert_eq!(ask(STRUCTURED, command, none, u64::MAX - 511, 1024), Err(NbdError::Invalid));
            assert_eq!(ask(STRUCTURED, command, none, 512, 0), Err(NbdError::Invalid));
            let unaligned = ask(STRUCTURED, command, none, 1, 512);
            assert_eq!(unaligned.is_ok(), command == Command::BlockStatus);
        }
        assert_eq!(ask(STRUCTURED, Command::Flush, none, 512, 512), Err(NbdError::Invalid));
        assert_eq!(ask(STRUCTURED, Command::Flush, none, 0, 0), Ok(Task::Flush));
    }

    #[test]
    fn a_flag_that_does_not_go_with_the_command_is_refused() {
        for bit in 0..16 {
            let flag = CommandFlags::from_bits_retain(1 << bit);
            let allowed = |style, command| ask(style, command, flag, 0, 65536).is_ok();
            assert_eq!(allowed(STRUCTURED, Command::Read), matches!(bit, 0 | 2), "{flag:?}");
            assert_eq!(allowed(STRUCTURED, Command::Write), bit == 0, "{flag:?}");
            assert_eq!(allowed(STRUCTURED, Command::WriteZeroes), matches!(bit, 0 | 1 | 4), "{flag:?}");
            assert_eq!(allowed(STRUCTURED, Command::BlockStatus), matches!(bit, 0 | 3), "{flag:?}");
            assert_eq!(allowed(EXTENDED, Command::Write), matches!(bit, 0 | 5), "{flag:?}");
        }
        let fua = CommandFlags::FUA | CommandFlags::PAYLOAD_LEN;
        assert_eq!(ask(EXTENDED, Command::Write, fua, 0, 512), Ok(Task::Write(Durability::Fua)));
    }

    #[test]
    fn an_unknown_command_and_a_write_to_a_read_only_export_are_refused() {
        let request = RequestHeader { flags: CommandFlags::empty(), number: 8, cookie: 1, offset: 0, length: 512 };
        assert_eq!(judge(&request, &export(false), STRUCTURED).map_err(|(error, _)| error), Err(NbdError::Invalid));
        for command in [Command::Write, Command::WriteZeroes, Command::Trim] {
            let request = RequestHeader { number: command.number(), ..request };
            let refused = judge(&request, &export(true), STRUCTURED).map_err(|(error, _)| error);
            assert_eq!(refused, Err(NbdError::NotPermitted));
        }
    }

    #[test]
    fn zeroes_are_fast_in_whole_stripes_and_otherwise_refused_if_they_must_be() {
        let fast = CommandFlags::FAST_ZERO;
        assert!(ask(STRUCTURED, Command::WriteZeroes, fast, 65536, 131_072).is_ok());
        assert_eq!(ask(STRUCTURED, Command::WriteZeroes, fast, 512, 65536), Err(NbdError::NotSupported));
    }
}
