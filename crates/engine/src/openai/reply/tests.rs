use super::*;

const NOW: Timestamp = Timestamp(1_795_320_443_082);
const TOOK: Duration = Duration::from_nanos(5);

const fn shape(form: Form, stream: bool) -> Shape {
    Shape { form, stream }
}

fn translate(shape: Shape, events: &[Value]) -> Vec<Value> {
    let mut reply = Reply::new("m".into(), shape);
    let mut lines = Vec::new();
    for event in events {
        lines.extend(reply.event(event.to_string().as_bytes(), NOW).unwrap());
    }
    lines.extend(reply.end(Ending::Done, TOOK, NOW).unwrap());
    let parse = |line: &Bytes| serde_json::from_slice(line).unwrap();
    lines.iter().map(parse).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "the calls read better so")]
fn delta(delta: Value, finish: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

#[test]
fn a_streamed_chat_becomes_ollamas_lines() {
    let lines = translate(
        shape(Form::Chat, true),
        &[
            delta(json!({"role": "assistant", "content": ""}), Value::Null),
            delta(json!({"reasoning_content": "hm"}), Value::Null),
            delta(json!({"content": "Hi"}), Value::Null),
            delta(json!({}), json!("length")),
            json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        ],
    );
    let at = "2026-11-22T04:07:23.082Z";
    assert_eq!(
        lines,
        [
            json!({"model": "m", "created_at": at, "message": {"role": "assistant",
                "content": "", "thinking": "hm"}, "done": false}),
            json!({"model": "m", "created_at": at, "message": {"role": "assistant",
                "content": "Hi"}, "done": false}),
            json!({"model": "m", "created_at": at, "message": {"role": "assistant",
                "content": ""}, "done": true, "done_reason": "length", "total_duration": 5,
                "prompt_eval_count": 3, "eval_count": 2, "eval_duration": 5}),
        ]
    );
}

#[test]
fn an_answer_in_one_piece_holds_the_whole_text() {
    let lines = translate(
        shape(Form::Generate, false),
        &[
            delta(json!({"content": "a"}), Value::Null),
            delta(json!({"content": "b"}), json!("stop")),
        ],
    );
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["response"], "ab");
    assert_eq!(lines[0]["done_reason"], "stop");
    assert_eq!(lines[0]["eval_count"], 2);
}

#[test]
fn a_tool_call_in_parts_is_given_whole_with_its_arguments_as_an_object() {
    let part = |id: Value, name: Value, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        delta(
            json!({"tool_calls": [{"index": 0, "id": id, "function": function}]}),
            Value::Null,
        )
    };
    let events = [
        part(json!("c1"), json!("f"), "{\"a\""),
        part(Value::Null, Value::Null, ":1}"),
        delta(json!({}), json!("tool_calls")),
    ];
    let expected = json!([{"id": "c1", "function":
        {"index": 0, "name": "f", "arguments": {"a": 1}}}]);
    let lines = translate(shape(Form::Chat, true), &events);
    assert_eq!(lines[0]["message"]["tool_calls"], expected);
    assert_eq!(lines[1]["done_reason"], "stop");
    let whole = translate(shape(Form::Chat, false), &events);
    assert_eq!(whole[0]["message"]["tool_calls"], expected);
    assert_eq!(whole[0]["done"], true);
}

#[test]
fn whole_calls_that_share_an_index_are_told_apart_by_their_ids() {
    let call = |index: u64, id: &str, name: &str, arguments: &str| json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}});
    let called = |calls: Value| {
        let events = [delta(json!({"tool_calls": calls}), json!("tool_calls"))];
        let lines = translate(shape(Form::Chat, false), &events);
        let calls = lines[0]["message"]["tool_calls"]
            .as_array()
            .unwrap()
            .clone();
        calls
            .into_iter()
            .map(|call| {
                let function = &call["function"];
                json!([
                    call["id"],
                    function["index"],
                    function["name"],
                    function["arguments"]
                ])
            })
            .collect::<Vec<_>>()
    };
    let two = called(json!([
        call(0, "c1", "f", "{}"),
        call(0, "c2", "g", "{\"a\":1}")
    ]));
    assert_eq!(
        two,
        [json!(["c1", 0, "f", {}]), json!(["c2", 1, "g", {"a": 1}])]
    );
    // An id that each part repeats is one id.
    let one = called(json!([
        call(0, "c1", "f", "{\"a\""),
        call(0, "c1", "", ":1}")
    ]));
    assert_eq!(one, [json!(["c1", 0, "f", {"a": 1}])]);
    // Parts of two calls may alternate.
    let mixed = called(json!([
        call(0, "c1", "f", "{\"a\""),
        call(1, "c2", "g", "{}"),
        call(0, "", "", ":1}"),
    ]));
    assert_eq!(
        mixed,
        [json!(["c1", 0, "f", {"a": 1}]), json!(["c2", 1, "g", {}])]
    );
}

#[test]
fn a_thought_under_both_of_its_names_is_one() {
    let both = json!({"reasoning": "hm", "reasoning_content": "hm"});
    let lines = translate(shape(Form::Chat, true), &[delta(both, json!("stop"))]);
    assert_eq!(lines[0]["message"]["thinking"], "hm");
}

#[test]
fn the_arguments_of_a_call_are_an_object_or_the_answer_is_broken() {
    let called = |arguments: Value, finish: &str| {
        let mut reply = Reply::new("m".into(), shape(Form::Chat, false));
        let call = json!({"index": 0, "function": {"name": "f", "arguments": arguments}});
        let event = delta(json!({"tool_calls": [call]}), json!(finish));
        reply.event(event.to_string().as_bytes(), NOW).unwrap();
        let lines = reply.end(Ending::Done, TOOK, NOW)?;
        let line: Value = serde_json::from_slice(&lines[0]).unwrap();
        Ok(line["message"]["tool_calls"][0]["function"]["arguments"].clone())
    };
    for nothing in [
        json!(""),
        json!(" "),
        json!("null"),
        json!("{}"),
        Value::Null,
    ] {
        assert_eq!(called(nothing, "tool_calls"), Ok(json!({})));
    }
    for none in ["{\"a\"", "[]", "7", "\"\""] {
        let error = called(json!(none), "tool_calls").unwrap_err();
        assert!(matches!(error, EngineError::Unusable(_)), "{none}: {error}");
    }
    assert_eq!(
        called(json!("{\"a\""), "length"),
        Ok(Value::Null),
        "a call that was cut"
    );
}

#[test]
fn an_answer_that_just_stops_is_a_failure() {
    let mut reply = Reply::new("m".into(), shape(Form::Chat, true));
    let event = delta(json!({"content": "Hi"}), Value::Null).to_string();
    reply.event(event.as_bytes(), NOW).unwrap();
    let end = reply.end(Ending::Cut, TOOK, NOW);
    assert!(matches!(end, Err(EngineError::Broken(_))));
}

#[test]
fn an_error_in_the_middle_is_a_failure_with_its_words() {
    for event in [
        json!({"error": {"message": "out of memory"}}),
        json!({"error": "out of memory"}),
    ] {
        let mut reply = Reply::new("m".into(), shape(Form::Chat, true));
        let error = reply.event(event.to_string().as_bytes(), NOW).unwrap_err();
        assert_eq!(error, EngineError::Broken("out of memory".into()));
    }
}
