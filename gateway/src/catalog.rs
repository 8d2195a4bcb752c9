//! The names by which clients ask for a model.

use std::collections::BTreeMap;

use causerie_session::{Problem, ProblemCode};

/// The model that is served, under all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    served: String,
    aliases: BTreeMap<String, String>,
}

impl Catalog {
    /// The name that always exists.
    pub const DEFAULT: &str = "default";

    /// A catalog of one served model and further names for it.
    pub fn new(served: impl Into<String>, aliases: impl IntoIterator<Item = String>) -> Self {
        let served = served.into();
        let aliases = aliases.into_iter().map(|alias| (strip(&alias).to_owned(), served.clone())).collect();
        Self { served, aliases }
    }

    /// The canonical name of the model that a client means. `models/` before a name and `publishers/…/models/` are
    /// ignored; an empty name is the default.
    ///
    /// # Errors
    /// No such model; the message lists those that exist.
    pub fn resolve(&self, asked: &str) -> Result<&str, Problem> {
        let name = strip(asked.trim());
        if name.is_empty() || name == Self::DEFAULT || name == self.served {
            return Ok(&self.served);
        }
        match self.aliases.get(name) {
            Some(served) => Ok(served),
            None => Err(Problem::new(
                ProblemCode::NotFound,
                "setup.model",
                format!("model {:?} does not exist; there are: {}", shorten(asked), self.names().join(", ")),
            )),
        }
    }

    /// Every name that a client may use.
    pub fn names(&self) -> Vec<&str> {
        let mut names = vec![Self::DEFAULT, self.served.as_str()];
        names.extend(self.aliases.keys().map(String::as_str).filter(|a| *a != Self::DEFAULT && *a != self.served));
        names
    }
}

fn strip(name: &str) -> &str {
    match name.rfind("models/") {
        Some(at) => &name[at + "models/".len()..],
        None => name,
    }
}

/// A client's own words in a message to it, cut so that they cannot fill a log or a header.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved() {
        let catalog = Catalog::new("cascade", ["gemini-live".to_owned(), "models/other".to_owned()]);
        for asked in [
            "",
            "default",
            "models/default",
            "cascade",
            "models/cascade",
            "gemini-live",
            "publishers/google/models/gemini-live",
            "other",
        ] {
            assert_eq!(catalog.resolve(asked), Ok("cascade"), "{asked}");
        }
        let problem = catalog.resolve("models/nothing").expect_err("it does not exist");
        assert_eq!(problem.code, ProblemCode::NotFound);
        for name in ["\"models/nothing\"", "default", "cascade", "gemini-live", "other"] {
            assert!(problem.message.contains(name), "{} lacks {name}", problem.message);
        }
    }

    #[test]
    fn long_names_are_cut() {
        let problem = Catalog::new("m", []).resolve(&"ü".repeat(100_000)).expect_err("it does not exist");
        assert!(problem.message.len() < 400);
    }
}
