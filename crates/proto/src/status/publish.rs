//! The fields of the status that other programs may publish.

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// A field that other programs may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// A voice command is being recorded.
    IsListening,
    /// The wake word was detected.
    WakeWordDetected,
    /// Speech is being output.
    IsSpeaking,
    /// The status as text.
    Text,
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 4] = [
        Self::IsListening,
        Self::WakeWordDetected,
        Self::IsSpeaking,
        Self::Text,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IsListening => "is_listening",
            Self::WakeWordDetected => "wake_word_detected",
            Self::IsSpeaking => "is_speaking",
            Self::Text => "text",
        }
    }
}

/// Fields of a publisher. An absent field stays unchanged; `null` withdraws it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Whether a voice command is being recorded.
    #[serde(
        default,
        deserialize_with = "named",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(test, ts(optional, type = "boolean | null"))]
    pub is_listening: Option<Option<bool>>,
    /// Whether the wake word was detected.
    #[serde(
        default,
        deserialize_with = "named",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(test, ts(optional, type = "boolean | null"))]
    pub wake_word_detected: Option<Option<bool>>,
    /// Whether speech is being output.
    #[serde(
        default,
        deserialize_with = "named",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(test, ts(optional, type = "boolean | null"))]
    pub is_speaking: Option<Option<bool>>,
    /// The status as text.
    #[serde(
        default,
        deserialize_with = "named",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(test, ts(optional, type = "string | null"))]
    pub text: Option<Option<String>>,
}

/// Reads a field so that `null` differs from an absent field.
fn named<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl Published {
    /// Whether it has a value for this field.
    #[must_use]
    pub const fn holds(&self, field: Field) -> bool {
        match field {
            Field::IsListening => matches!(self.is_listening, Some(Some(_))),
            Field::WakeWordDetected => matches!(self.wake_word_detected, Some(Some(_))),
            Field::IsSpeaking => matches!(self.is_speaking, Some(Some(_))),
            Field::Text => matches!(self.text, Some(Some(_))),
        }
    }

    /// The fields that it has values for.
    pub fn held(&self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(|field| self.holds(*field))
    }

    /// Applies the fields that `new` names.
    pub fn write(&mut self, new: &Self) {
        put(&mut self.is_listening, new.is_listening);
        put(&mut self.wake_word_detected, new.wake_word_detected);
        put(&mut self.is_speaking, new.is_speaking);
        put(&mut self.text, new.text.clone());
    }

    /// Removes the fields for which `new` has a value, and returns them.
    pub fn give_up(&mut self, new: &Self) -> Vec<Field> {
        let lost: Vec<_> = self.held().filter(|field| new.holds(*field)).collect();
        for field in &lost {
            match field {
                Field::IsListening => self.is_listening = None,
                Field::WakeWordDetected => self.wake_word_detected = None,
                Field::IsSpeaking => self.is_speaking = None,
                Field::Text => self.text = None,
            }
        }
        lost
    }

    /// Overwrites the fields of a status with its values.
    pub fn show_on(&self, status: &mut Status) {
        let put = |to: &mut bool, value: Option<Option<bool>>| *to = value.flatten().unwrap_or(*to);
        put(&mut status.is_listening, self.is_listening);
        put(&mut status.wake_word_detected, self.wake_word_detected);
        put(&mut status.is_speaking, self.is_speaking);
        if let Some(Some(text)) = &self.text {
            status.text.clone_from(text);
        }
    }
}

fn put<T>(old: &mut Option<Option<T>>, new: Option<Option<T>>) {
    if let Some(value) = new {
        *old = value.map(Some);
    }
}
