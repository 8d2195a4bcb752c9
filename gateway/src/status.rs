//! The only place where `tonic::Status` is made.

use causerie_session::{Problem, ProblemCode};
use tonic::{Code, Status};

/// The status that ends a stream because of a problem.
pub fn status(problem: &Problem) -> Status {
    let message = match problem.field.as_str() {
        "" => problem.message.clone(),
        field => format!("{field}: {}", problem.message),
    };
    Status::new(code(problem.code), message)
}

/// The gRPC code of a kind of problem.
pub fn code(code: ProblemCode) -> Code {
    match code {
        ProblemCode::InvalidArgument => Code::InvalidArgument,
        ProblemCode::FailedPrecondition => Code::FailedPrecondition,
        ProblemCode::NotFound => Code::NotFound,
        ProblemCode::Unimplemented => Code::Unimplemented,
        ProblemCode::ResourceExhausted => Code::ResourceExhausted,
        ProblemCode::DeadlineExceeded => Code::DeadlineExceeded,
        ProblemCode::Unavailable => Code::Unavailable,
        ProblemCode::Internal => Code::Internal,
    }
}

/// The canonical name of a kind of problem, as it stands in messages.
pub fn code_name(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::InvalidArgument => "INVALID_ARGUMENT",
        ProblemCode::FailedPrecondition => "FAILED_PRECONDITION",
        ProblemCode::NotFound => "NOT_FOUND",
        ProblemCode::Unimplemented => "UNIMPLEMENTED",
        ProblemCode::ResourceExhausted => "RESOURCE_EXHAUSTED",
        ProblemCode::DeadlineExceeded => "DEADLINE_EXCEEDED",
        ProblemCode::Unavailable => "UNAVAILABLE",
        ProblemCode::Internal => "INTERNAL",
    }
}

/// What a failure to read a client's stream means: a problem that the client is told, or `None` when the client is
/// gone and nobody is left to tell.
pub fn read_problem(error: &Status, limit_bytes: usize) -> Option<Problem> {
    if std::error::Error::source(error).is_some() {
        // Errors of the connection carry their cause; those of the message do not.
        return None;
    }
    match error.code() {
        Code::OutOfRange | Code::ResourceExhausted => Some(Problem::new(
            ProblemCode::ResourceExhausted,
            "",
            format!("a message is larger than {limit_bytes} bytes; send media in smaller pieces"),
        )),
        Code::Internal if error.message().starts_with("Unexpected EOF") => None,
        Code::Internal | Code::InvalidArgument => Some(Problem::new(
            ProblemCode::InvalidArgument,
            "",
            "a message is not a causerie.live.v1.ClientMessage: its bytes cannot be decoded",
        )),
        Code::Unimplemented => {
            Some(Problem::new(ProblemCode::Unimplemented, "", "compressed messages are not supported"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_the_field() {
        let problem = Problem::new(ProblemCode::InvalidArgument, "setup.model", "it is wrong");
        let status = status(&problem);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "setup.model: it is wrong"));
    }

    #[test]
    fn kinds_have_the_names_of_their_codes() {
        for (kind, expected) in [
            (ProblemCode::InvalidArgument, 3),
            (ProblemCode::FailedPrecondition, 9),
            (ProblemCode::NotFound, 5),
            (ProblemCode::Unimplemented, 12),
            (ProblemCode::ResourceExhausted, 8),
            (ProblemCode::DeadlineExceeded, 4),
            (ProblemCode::Unavailable, 14),
            (ProblemCode::Internal, 13),
        ] {
            assert_eq!(code(kind) as i32, expected);
            let camel: String = format!("{:?}", code(kind)).to_uppercase();
            assert_eq!(code_name(kind).replace('_', ""), camel);
        }
    }
}
