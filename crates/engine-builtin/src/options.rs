//! Ollama's `options`.

use serde_json::Value;

/// The `options` that this engine supports, with Ollama's defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) temperature: f32,
    pub(crate) top_k: i32,
    pub(crate) top_p: f32,
    pub(crate) min_p: f32,
    pub(crate) typical_p: f32,
    pub(crate) repeat_penalty: f32,
    pub(crate) repeat_last_n: i32,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    /// Seed of the random numbers; a negative value means a different one for each request.
    pub(crate) seed: i64,
    /// Maximum number of tokens to generate; the size of the context if not positive.
    pub(crate) num_predict: i64,
    pub(crate) num_ctx: Option<i64>,
    pub(crate) stop: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: -1,
            num_predict: -1,
            num_ctx: None,
            stop: Vec::new(),
        }
    }
}

impl Options {
    /// Parses options. Unknown names are ignored, and null counts as absent. The error is Ollama's
    /// own text.
    pub(crate) fn read(options: &serde_json::Map<String, Value>) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in options {
            if !value.is_null() {
                read.set(name, value)?;
            }
        }
        Ok(read)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            "temperature" => self.temperature = float(name, value)?,
            "top_k" => self.top_k = small(name, value)?,
            "top_p" => self.top_p = float(name, value)?,
            "min_p" => self.min_p = float(name, value)?,
            "typical_p" => self.typical_p = float(name, value)?,
            "repeat_penalty" => self.repeat_penalty = penalty(name, value)?,
            "repeat_last_n" => self.repeat_last_n = small(name, value)?,
            "presence_penalty" => self.presence_penalty = float(name, value)?,
            "frequency_penalty" => self.frequency_penalty = float(name, value)?,
            "seed" => self.seed = integer(name, value)?,
            "num_predict" => self.num_predict = integer(name, value)?,
            "num_ctx" => self.num_ctx = Some(integer(name, value)?),
            "stop" => self.stop = texts(name, value)?,
            // Known to Ollama but without a meaning here: only the type is checked.
            "num_keep" | "num_batch" | "num_gpu" | "main_gpu" | "num_thread" => {
                integer(name, value)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads a float within finite bounds: huge ones are clamped, and JSON has neither NaN nor
/// infinity.
fn float(name: &str, value: &Value) -> Result<f32, String> {
    let number = value.as_f64();
    let number = number.ok_or_else(|| format!("option {name:?} must be of type float32"))?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an option has the precision of an f32"
    )]
    Ok(number.clamp(-1e9, 1e9) as f32)
}

/// Reads a penalty, which must not be zero because logits are divided by it.
fn penalty(name: &str, value: &Value) -> Result<f32, String> {
    let penalty = float(name, value)?;
    if penalty < 1e-3 {
        return Err(format!("option {name:?} must be greater than 0"));
    }
    Ok(penalty)
}

/// Reads an integer; fractions are truncated, as in Ollama.
fn integer(name: &str, value: &Value) -> Result<i64, String> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is what is wanted"
    )]
    let whole = value
        .as_i64()
        .or_else(|| value.as_f64().map(|float| float as i64));
    whole.ok_or_else(|| format!("option {name:?} must be of type integer"))
}

fn small(name: &str, value: &Value) -> Result<i32, String> {
    let whole = integer(name, value)?;
    Ok(i32::try_from(whole).unwrap_or(if whole < 0 { i32::MIN } else { i32::MAX }))
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array();
    let list = list.ok_or_else(|| format!("option {name:?} must be of type array"))?;
    let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
    let texts: Option<_> = texts.collect();
    texts.ok_or_else(|| format!("option {name:?} must be of an array of strings"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &Value) -> Result<Options, String> {
        Options::read(options.as_object().unwrap())
    }

    #[test]
    fn options_are_read_and_unknown_ones_ignored() {
        let options = read(&json!({
            "temperature": 0, "top_k": 7, "top_p": 0.5, "min_p": 0.1, "seed": 7, "num_predict": 3.7,
            "num_ctx": 512, "stop": ["a", "b"], "repeat_penalty": 1.1, "repeat_last_n": -1,
            "zzz": "anything", "use_mmap": true, "num_gpu": 0
        }));
        let expected = Options {
            temperature: 0.0,
            top_k: 7,
            top_p: 0.5,
            min_p: 0.1,
            seed: 7,
            num_predict: 3,
            num_ctx: Some(512),
            stop: vec!["a".to_owned(), "b".to_owned()],
            repeat_penalty: 1.1,
            repeat_last_n: -1,
            ..Options::default()
        };
        assert_eq!(options, Ok(expected));
        assert_eq!(
            read(&json!({"stop": null, "seed": null})),
            Ok(Options::default())
        );
    }

    #[test]
    fn a_wrong_type_is_refused_in_ollamas_words() {
        for (wrong, text) in [
            (
                json!({"temperature": "hot"}),
                "option \"temperature\" must be of type float32",
            ),
            (
                json!({"seed": "x"}),
                "option \"seed\" must be of type integer",
            ),
            (
                json!({"num_gpu": true}),
                "option \"num_gpu\" must be of type integer",
            ),
            (
                json!({"stop": "x"}),
                "option \"stop\" must be of type array",
            ),
            (
                json!({"stop": [1]}),
                "option \"stop\" must be of an array of strings",
            ),
            (
                json!({"repeat_penalty": 0}),
                "option \"repeat_penalty\" must be greater than 0",
            ),
        ] {
            assert_eq!(read(&wrong), Err(text.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn numbers_beyond_every_range_are_cut_not_wrapped() {
        let options = read(&json!({"top_k": 1e300, "seed": -1e300, "temperature": 1e300})).unwrap();
        assert_eq!(options.top_k, i32::MAX);
        assert_eq!(options.seed, i64::MIN);
        assert!(options.temperature.is_finite());
    }
}
