//! The only place where `tonic::Status` is made.

use causerie_session::{Problem, ProblemCode};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Trailer that says in how many seconds to try again, for clients that do not read `google.rpc.RetryInfo`.
pub const RETRY_AFTER: &str = "retry-after";

/// The status that ends a stream because of a problem.
pub fn status(problem: &Problem) -> Status {
    let message = problem.to_string();
    let Some(seconds) = problem.retry_after_seconds() else { return Status::new(code(problem.code), message) };
    let details = ErrorDetails::with_retry_info(problem.retry_after);
    let mut metadata = MetadataMap::new();
    metadata.insert(RETRY_AFTER, MetadataValue::from(seconds));
    Status::with_error_details_and_metadata(code(problem.code), message, details, metadata)
}

/// The gRPC code of a kind of problem.
pub fn code(code: ProblemCode) -> Code {
    match code {
        ProblemCode::InvalidArgument => Code::InvalidArgument,
        ProblemCode::FailedPrecondition => Code::FailedPrecondition,
        ProblemCode::NotFound => Code::NotFound,
        ProblemCode::Unauthenticated => Code::Unauthenticated,
        ProblemCode::Unimplemented => Code::Unimplemented,
        ProblemCode::ResourceExhausted => Code::ResourceExhausted,
        ProblemCode::PermissionDenied => Code::PermissionDenied,
        ProblemCode::Aborted => Code::Aborted,
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
        ProblemCode::Unauthenticated => "UNAUTHENTICATED",
        ProblemCode::Unimplemented => "UNIMPLEMENTED",
        ProblemCode::ResourceExhausted => "RESOURCE_EXHAUSTED",
        ProblemCode::PermissionDenied => "PERMISSION_DENIED",
        ProblemCode::Aborted => "ABORTED",
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_status_names_the_field() {
        let problem = Problem::new(ProblemCode::InvalidArgument, "setup.model", "it is wrong");
        let status = status(&problem);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "setup.model: it is wrong"));
    }

    #[test]
    fn a_status_says_when_to_try_again() {
        let problem =
            Problem::new(ProblemCode::ResourceExhausted, "", "full").retry_after(Duration::from_millis(1_200));
        let status = status(&problem);
        assert_eq!(status.metadata().get(RETRY_AFTER).unwrap(), "2");
        let info = status.get_details_retry_info().unwrap();
        assert_eq!(info.retry_delay, Some(Duration::from_millis(1_200)));
    }

    #[test]
    fn kinds_have_the_names_of_their_codes() {
        for (kind, expected) in [
            (ProblemCode::InvalidArgument, 3),
            (ProblemCode::FailedPrecondition, 9),
            (ProblemCode::NotFound, 5),
            (ProblemCode::Unauthenticated, 16),
            (ProblemCode::Unimplemented, 12),
            (ProblemCode::ResourceExhausted, 8),
            (ProblemCode::PermissionDenied, 7),
            (ProblemCode::Aborted, 10),
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
