//! What of a JSON schema llama.cpp is given to make a grammar of. It does that in this process and
//! hears of no end: a reference that leads to itself takes its stack, a few that lead to two others
//! each or a pattern whose repetitions stand within each other take its time, and a list that is to
//! be longer than it may be takes all memory. So it is given the schema with every reference and
//! every list of types written out, nothing that it does not read, and no more of it than it makes
//! a grammar of at once.

mod pattern;

use std::collections::HashMap;

use engine::EngineError;
use serde_json::{Map, Value};

use crate::request::refused;

/// Longest schema, in bytes.
const TEXT_MAX: usize = 64 * 1024;
/// Most parts of the grammar, once all is written out: values of enums, elements of patterns, and two
/// for each schema. As many places of it may be open at once, and each token is held against all.
const PARTS_MAX: usize = 4096;
/// Most properties of one object: the rules for them grow with their square.
const PROPERTIES_MAX: usize = 256;
/// Longest name of a property, and longest pattern, in bytes.
const NAME_MAX: usize = 256;
/// Most ways to read a text by one pattern.
const PATTERN_WAYS_MAX: u64 = 1 << 19;
/// Deepest nesting, references included.
const DEPTH_MAX: usize = 32;
/// Bytes of rules that are written and looked for on the way.
const WORK_MAX: usize = 4 << 20;
/// What a rule costs beside its name.
const RULE: usize = 32;

const TOO_LARGE: &str = "makes too large a grammar";
const UNREADABLE: &str = "is not as a schema must be";

/// The schema as a text, for llama.cpp.
pub(crate) fn text(schema: &Value) -> Result<String, EngineError> {
    let written = if schema.to_string().len() > TEXT_MAX {
        Err("is longer than 64 KiB")
    } else {
        Writing::new(schema).schema(schema, "", DEPTH_MAX)
    };
    written.map(|schema| schema.to_string()).map_err(|wrong| {
        let not_taken = "which the built-in engine does not take";
        refused(
            400,
            format!("invalid format: the JSON schema {wrong}, {not_taken}"),
        )
    })
}

/// A schema that is being written out, and what may still come of it.
struct Writing<'a> {
    root: &'a Value,
    parts: usize,
    work: usize,
    /// How many properties have rules of one name. llama.cpp leaves only letters and digits of it,
    /// and tries one number after the other behind it until it is free.
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

    /// `name` is what llama.cpp's rule for it will be called.
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
            let to = to.ok_or("has a reference that leads nowhere within it")?;
            return self.schema(to, name, levels);
        }
        for either in ["oneOf", "anyOf"] {
            if let Some(ways) = fields.get(either) {
                return Ok(either_of(self.schemas(ways, name, levels)?));
            }
        }
        self.typed(fields, fields.get("type"), name, levels)
    }

    /// What stands beside the type. Each of several types is a schema of its own.
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
                return Err("has a least that is more than its most");
            }
        }
        self.properties_of_all(&written, name)?;
        Ok(Value::Object(written))
    }

    /// One of the words that llama.cpp reads; `None` for all others.
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
                    return Err("has a pattern that can be read in too many ways");
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
                // llama.cpp reads 32 bits of it, whatever there is.
                let count = value.as_u64().and_then(|count| i32::try_from(count).ok());
                let count = count.and_then(|count| usize::try_from(count).ok());
                // From 2001 on it refuses it, or takes it for no bound at all.
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
            // A rule for it, and one for what may follow it behind each of those before it.
            let rules = (name.len() + RULE) * (before + 2) * *same;
            self.work(rules)?;
            written.insert(property.clone(), self.schema(schema, &name, levels)?);
        }
        Ok(Value::Object(written))
    }

    /// The properties of all parts of an `allOf` make one object.
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

/// What llama.cpp leaves of a name: each stretch of what is no letter and no digit is one dash.
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
