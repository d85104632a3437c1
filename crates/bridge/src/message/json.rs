//! How values are read and written: leniently as Go reads them, and one document inside another.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned, ser};
use serde_json::Value;

use crate::{Error, Result};

/// Reads a JSON document. `null` stands for an absent value wherever it occurs, as in Go.
///
/// # Errors
/// [`crate::ErrorKind::Json`] when it is not JSON, or not of the type.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .and_then(from_value)
        .map_err(|error| Error::json("invalid JSON in message", error))
}

/// Reads a document, which is always an object (or `null`: all zero), never its members in a row.
pub(crate) fn from_value<T: DeserializeOwned>(mut value: Value) -> serde_json::Result<T> {
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    if !value.is_object() {
        return Err(de::Error::custom("not an object"));
    }
    remove_nulls(&mut value);
    T::deserialize(value)
}

/// The recursion is bounded by the parser's own limit on depth.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(remove_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::json("a message has no JSON form", error))
}

/// A JSON document inside a string, encoded twice. An empty string is the default value.
///
/// ```
/// use opengcs_bridge::message::{Nested, PropertyQuery};
/// let query: Nested<PropertyQuery> =
///     serde_json::from_str(r#""{\"PropertyTypes\":[\"ProcessList\"]}""#)?;
/// assert_eq!(query.0.property_types, ["ProcessList"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nested<T>(pub T);

impl<T: Serialize> Serialize for Nested<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Nested<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(T::default()));
        }
        serde_json::from_str(&text)
            .and_then(from_value)
            .map(Self)
            .map_err(|error| de::Error::custom(format!("in the document inside a string: {error}")))
    }
}
