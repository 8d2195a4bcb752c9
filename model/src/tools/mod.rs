//! Function calls in what a language model writes.
//!
//! A model that was given tools writes a call as JSON, `{"name": …, "arguments": …}`, inside the tags that it was
//! trained with or, when it is small, bare or in a Markdown fence. [`Scanner`] takes the reply as it is written and
//! parts what is for the listener from what is a call, tolerantly: nothing that may still become a call is spoken. From
//! the moment that a call has certainly begun its [`Acceptor`] says which tokens may follow, so that a finished call
//! has the name of a declared function and arguments of the declared shape.

mod acceptor;
mod number;
mod pattern;
mod scanner;
mod schema;
#[cfg(test)]
mod tests;

pub use acceptor::{Acceptor, Grammar};
pub use scanner::{Piece, Scanner};
