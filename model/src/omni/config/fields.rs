//! Reading a configuration strictly: a missing field is an error that names its path, never a default. The defaults of
//! the reference implementation's classes differ from the released values in many places.

use serde_json::Value;

use crate::omni::OmniError;

/// Far above every published model, and small enough that a product of three cannot overflow.
const LARGEST: usize = 1 << 20;

/// An object inside the configuration, and where it is.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn error(&self, name: &str, problem: impl Into<String>) -> OmniError {
        OmniError::config(self.path(name), problem)
    }

    pub(super) fn optional(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&'a Value, OmniError> {
        self.optional(name).ok_or_else(|| self.error(name, "is missing"))
    }

    pub(super) fn object(&self, name: &str) -> Result<Self, OmniError> {
        let value = self.required(name)?;
        if !value.is_object() {
            return Err(self.error(name, "is not an object"));
        }
        Ok(Self { path: self.path(name), value })
    }

    /// Whichever of two spellings is there: releases of the reference implementation differ.
    pub(super) fn either<'n>(&self, first: &'n str, second: &'n str) -> &'n str {
        if self.optional(first).is_none() && self.optional(second).is_some() { second } else { first }
    }

    /// A count, one or more.
    pub(super) fn size(&self, name: &str) -> Result<usize, OmniError> {
        self.size_to(name, LARGEST)
    }

    /// A count from one to `most`.
    pub(super) fn size_to(&self, name: &str, most: usize) -> Result<usize, OmniError> {
        match self.required(name)?.as_u64() {
            Some(0) => Err(self.error(name, "is 0")),
            Some(value) if value <= most as u64 => Ok(value as usize),
            Some(value) => Err(self.error(name, format!("is {value}; the most is {most}"))),
            None => Err(self.error(name, format!("is {}, not a count", self.value[name]))),
        }
    }

    /// Refuses a flag that asks for what this implementation does not compute. Files may leave it out.
    pub(super) fn refuse(&self, name: &str, refused: bool) -> Result<(), OmniError> {
        match self.optional(name) {
            Some(_) if self.flag(name)? == refused => {
                Err(self.error(name, format!("is {refused}; known is {}", !refused)))
            }
            _ => Ok(()),
        }
    }

    /// Numbers of layers and the like, which may be 0.
    pub(super) fn indices(&self, name: &str) -> Result<Vec<usize>, OmniError> {
        let list = self.required(name)?.as_array().ok_or_else(|| self.error(name, "is not a list"))?;
        let number = |value: &Value| value.as_u64().filter(|v| *v < LARGEST as u64).map(|v| v as usize);
        let numbers: Option<Vec<usize>> = list.iter().map(number).collect();
        numbers.ok_or_else(|| self.error(name, format!("is {}, not a list of numbers", self.value[name])))
    }

    pub(super) fn token(&self, name: &str) -> Result<u32, OmniError> {
        let value = self.required(name)?.as_u64();
        let id = value.filter(|v| *v < LARGEST as u64).ok_or_else(|| self.error(name, "is not a token"))?;
        Ok(id as u32)
    }

    /// A positive number.
    pub(super) fn float(&self, name: &str) -> Result<f64, OmniError> {
        let value = self.required(name)?.as_f64();
        value.filter(|v| v.is_finite() && *v > 0.0).ok_or_else(|| self.error(name, "is not a positive number"))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, OmniError> {
        self.required(name)?.as_bool().ok_or_else(|| self.error(name, "is neither true nor false"))
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, OmniError> {
        self.required(name)?.as_str().ok_or_else(|| self.error(name, "is not text"))
    }

    /// Refuses a value that this implementation does not compute.
    pub(super) fn expect(&self, name: &str, expected: &str) -> Result<(), OmniError> {
        let found = self.text(name)?;
        if found == expected { Ok(()) } else { Err(self.error(name, format!("is `{found}`; known is `{expected}`"))) }
    }

    /// The members of an object whose values are tokens.
    pub(super) fn tokens(&self, name: &str) -> Result<Vec<(String, u32)>, OmniError> {
        let object = self.object(name)?;
        let members = object.value.as_object().into_iter().flatten();
        members.map(|(key, _)| Ok((key.clone(), object.token(key)?))).collect()
    }
}
