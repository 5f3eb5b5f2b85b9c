//! Restriction of JSON schemas to what llama.cpp can safely convert to a grammar.
//!
//! llama.cpp converts the schema in this process and cannot be interrupted: a reference to itself
//! overflows its stack; references that each lead to two others, or nested repetitions in a
//! pattern, take exponential time; a list with a minimum above its maximum takes all memory. So it
//! is given a schema in which every reference and every list of types is expanded, without keywords
//! that it does not read, and only up to a size that it converts quickly.

mod pattern;

use std::collections::HashMap;

use engine::EngineError;
use serde_json::{Map, Value};

use crate::request::refused;

/// Maximum length of a schema, in bytes.
const TEXT_MAX: usize = 64 * 1024;
/// Maximum number of parts of the expanded grammar: values of enums, elements of patterns, and two
/// for each schema. As many positions may be open at once, and each token is checked against all of
/// them.
const PARTS_MAX: usize = 4096;
/// Maximum number of properties of one object: their rules grow quadratically.
const PROPERTIES_MAX: usize = 256;
/// Maximum length of a property's name, and of a pattern, in bytes.
const NAME_MAX: usize = 256;
/// Maximum number of ways in which one pattern can match a text.
const PATTERN_WAYS_MAX: u64 = 1 << 19;
/// Maximum nesting depth, references included.
const DEPTH_MAX: usize = 32;
/// Maximum number of bytes of rules that are written and looked up during the conversion.
const WORK_MAX: usize = 4 << 20;
/// Number of bytes that a rule counts besides its name.
const RULE: usize = 32;

const TOO_LARGE: &str = "makes too large a grammar";
const UNREADABLE: &str = "is not a valid schema";

/// Returns the restricted schema as text, for llama.cpp.
pub(crate) fn text(schema: &Value) -> Result<String, EngineError> {
    let written = if schema.to_string().len() > TEXT_MAX {
        Err("is longer than 64 KiB")
    } else {
        Writing::new(schema).schema(schema, "", DEPTH_MAX)
    };
    written.map(|schema| schema.to_string()).map_err(|wrong| {
        let not_taken = "which the built-in engine does not accept";
        refused(
            400,
            format!("invalid format: the JSON schema {wrong}, {not_taken}"),
        )
    })
}

/// A schema that is being expanded, and the remaining budgets.
struct Writing<'a> {
    root: &'a Value,
    parts: usize,
    work: usize,
    /// Number of properties whose rules have one name. llama.cpp keeps only letters and digits of a
    /// name and appends increasing numbers until it is unused.
    named: HashMap<String, usize>,
}

type Written<T> = Result<T, &'static str>;

impl<'a> Writing<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            parts: PARTS_MAX,
            work: WORK_MAX,
            named: HashMap::new(),
        }
    }

    /// Expands a schema. `name` is the name of its rule in llama.cpp.
    fn schema(&mut self, at: &Value, name: &str, levels: usize) -> Written<Value> {
        let fields = at.as_object().ok_or(UNREADABLE)?;
        let levels = levels.checked_sub(1);
        let levels = levels.ok_or("refers to itself, or is nested over 32 deep")?;
        self.part(2)?;
        self.work(name.len() + RULE)?;
        if let Some(reference) = fields.get("$ref") {
            let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
            let pointer = pointer.filter(|pointer| pointer.starts_with('/'));
            let to = pointer.and_then(|pointer| self.root.pointer(pointer));
            let to = to.ok_or("has a reference that does not resolve within it")?;
            return self.schema(to, name, levels);
        }
        for either in ["oneOf", "anyOf"] {
            if let Some(ways) = fields.get(either) {
                return Ok(either_of(self.schemas(ways, name, levels)?));
            }
        }
        self.typed(fields, fields.get("type"), name, levels)
    }

    /// Expands the keywords beside `type`. Each of several types becomes a schema of its own.
    fn typed(
        &mut self,
        fields: &Map<String, Value>,
        kind: Option<&Value>,
        name: &str,
        levels: usize,
    ) -> Written<Value> {
        let mut written = Map::new();
        match kind {
            None | Some(Value::Null) => {}
            Some(Value::String(kind)) => drop(written.insert("type".into(), kind.as_str().into())),
            Some(Value::Array(kinds)) => {
                let ways = kinds.iter().enumerate().map(|(n, kind)| {
                    self.part(2)?;
                    let kind = kind.is_string().then_some(kind).ok_or(UNREADABLE)?;
                    self.typed(fields, Some(kind), &format!("{name}-{n}"), levels)
                });
                return Ok(either_of(ways.collect::<Written<_>>()?));
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(UNREADABLE),
        }
        for (key, value) in fields {
            if let Some(value) = self.keyword(key, value, name, levels)? {
                written.insert(key.clone(), value);
            }
        }
        for (least, most) in [
            ("minLength", "maxLength"),
            ("minItems", "maxItems"),
            ("minimum", "maximum"),
        ] {
            let at = |key| written.get(key).and_then(Value::as_f64);
            if let (Some(least), Some(most)) = (at(least), at(most))
                && least > most
            {
                return Err("has a minimum above its maximum");
            }
        }
        self.properties_of_all(&written, name)?;
        Ok(Value::Object(written))
    }

    /// Expands one of the keywords that llama.cpp reads; `None` for all others.
    fn keyword(
        &mut self,
        key: &str,
        value: &Value,
        name: &str,
        levels: usize,
    ) -> Written<Option<Value>> {
        Ok(Some(match key {
            "properties" => self.properties(value, name, levels)?,
            "additionalProperties" if value.is_boolean() => value.clone(),
            "additionalProperties" => {
                self.schema(value, &format!("{name}-additional-value"), levels)?
            }
            "items" | "prefixItems" if value.is_array() => self
                .schemas(value, &format!("{name}-tuple"), levels)?
                .into(),
            "items" | "prefixItems" => self.schema(value, &format!("{name}-item"), levels)?,
            "allOf" => self.schemas(value, name, levels)?.into(),
            "enum" => {
                let values = value.as_array().ok_or(UNREADABLE)?;
                self.part(values.len())?;
                self.work(value.to_string().len())?;
                value.clone()
            }
            "const" | "required" => {
                self.work(value.to_string().len())?;
                value.clone()
            }
            "format" if value.is_string() => value.clone(),
            "pattern" => {
                let text = value.as_str().ok_or(UNREADABLE)?;
                if text.len() > NAME_MAX {
                    return Err("has a pattern of over 256 bytes");
                }
                let pattern::Cost { size, ways } = pattern::cost(text);
                if ways > PATTERN_WAYS_MAX {
                    return Err("has a pattern that can match in too many ways");
                }
                self.part(usize::try_from(size).unwrap_or(usize::MAX))?;
                self.work(
                    usize::try_from(ways)
                        .unwrap_or(usize::MAX)
                        .saturating_mul(4),
                )?;
                value.clone()
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" => {
                // llama.cpp reads 32 bits of the number, whatever its size.
                let count = value.as_u64().and_then(|count| i32::try_from(count).ok());
                let count = count.and_then(|count| usize::try_from(count).ok());
                // llama.cpp refuses counts above 2000, or takes them for unbounded.
                self.work(count.ok_or(UNREADABLE)?.min(2001) * RULE)?;
                value.clone()
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                value.is_number().then(|| value.clone()).ok_or(UNREADABLE)?
            }
            _ => return Ok(None),
        }))
    }

    fn schemas(&mut self, list: &Value, name: &str, levels: usize) -> Written<Vec<Value>> {
        let list = list.as_array().ok_or(UNREADABLE)?;
        let written = list.iter().enumerate();
        written
            .map(|(n, one)| self.schema(one, &format!("{name}-{n}"), levels))
            .collect()
    }

    fn properties(&mut self, properties: &Value, name: &str, levels: usize) -> Written<Value> {
        let properties = properties.as_object().ok_or(UNREADABLE)?;
        if properties.len() > PROPERTIES_MAX {
            return Err("has over 256 properties in one object");
        }
        let mut written = Map::new();
        for (before, (property, schema)) in properties.iter().enumerate() {
            if property.len() > NAME_MAX {
                return Err("has a name of over 256 bytes");
            }
            let name = format!("{name}-{property}");
            let same = self.named.entry(as_a_rule(&name)).or_default();
            *same += 1;
            // One rule for the property, and one for its successors after each property before it.
            let rules = (name.len() + RULE) * (before + 2) * *same;
            self.work(rules)?;
            written.insert(property.clone(), self.schema(schema, &name, levels)?);
        }
        Ok(Value::Object(written))
    }

    /// Merges the properties of all parts of an `allOf` into one object.
    fn properties_of_all(&mut self, fields: &Map<String, Value>, name: &str) -> Written<()> {
        let own = |part: &Value| part["properties"].as_object().map_or(0, Map::len);
        let parts = fields.get("allOf").and_then(Value::as_array);
        let all = parts.into_iter().flatten().map(|part| {
            let ways = part["anyOf"].as_array().into_iter().flatten();
            own(part) + ways.map(own).sum::<usize>()
        });
        let all: usize = all.sum();
        if all > PROPERTIES_MAX {
            return Err("has over 256 properties in one object");
        }
        let same = self.named.values().max().copied().unwrap_or(1);
        self.work(all * all * (name.len() + RULE) * same)
    }

    fn part(&mut self, many: usize) -> Written<()> {
        self.parts = self.parts.checked_sub(many).ok_or(TOO_LARGE)?;
        Ok(())
    }

    fn work(&mut self, much: usize) -> Written<()> {
        self.work = self.work.checked_sub(much).ok_or(TOO_LARGE)?;
        Ok(())
    }
}

fn either_of(ways: Vec<Value>) -> Value {
    Value::Object(Map::from_iter([("anyOf".to_owned(), ways.into())]))
}

/// Converts a name as llama.cpp does: each run of other characters than letters and digits becomes
/// one dash.
fn as_a_rule(name: &str) -> String {
    let mut rule = String::with_capacity(name.len());
    let mut was_other = false;
    for sign in name.chars() {
        let is_other = !sign.is_ascii_alphanumeric() && sign != '-';
        match (is_other, was_other) {
            (true, true) => {}
            (true, false) => rule.push('-'),
            (false, _) => rule.push(sign),
        }
        was_other = is_other;
    }
    rule
}

#[cfg(test)]
mod tests;
