use proto::{JobState, ModelName, Timestamp};
use serde_json::Value;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/queries/", $name)).trim_end()
    };
}

/// 2025-11-11T12:00:00Z, in milliseconds.
const NOON: i64 = 1_762_862_400_000;

fn fields(body: &str) -> Fields {
    Fields::parse(Some("application/json"), body.as_bytes()).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> (u16, String) {
    let refusal = answer.unwrap_err();
    let body = String::from_utf8(refusal.body.to_vec()).unwrap();
    (refusal.status, body)
}

fn query_2() -> Query {
    Query {
        id: 2,
        project: 2,
        project_name: "P2".into(),
        user: Some(1),
        user_name: "u".into(),
        query_text: "x".into(),
        answer_text: "".into(),
        status: Status::InProgress,
        query_created: Timestamp(NOON + 123),
        query_started: Some(Timestamp(NOON + 5_000)),
        query_finished: None,
        logs_count: 0,
        logs: None,
    }
}

#[test]
fn a_login_is_answered_in_exactly_these_bytes() {
    let mut answer = LoggedIn {
        access: "A.B.C",
        refresh: "D.E.F",
        user: Profile {
            id: 5,
            username: "worker",
            project: None,
            first_login: true,
            date_joined: Timestamp(NOON),
            last_login: None,
        },
    };
    assert_eq!(logged_in(&answer), fixture!("login-service.json"));
    answer.user = Profile {
        id: 6,
        username: "jan",
        project: Some((1, "home")),
        first_login: false,
        date_joined: Timestamp(NOON),
        last_login: Some(Timestamp(NOON + 5_250)),
    };
    assert_eq!(logged_in(&answer), fixture!("login-user.json"));
    assert_eq!(refreshed("A.B.C"), r#"{"access":"A.B.C"}"#);
}

#[test]
fn queries_logs_and_pages_have_exactly_these_bytes() {
    assert_eq!(query(&query_2()), fixture!("claimed.json"));
    let entry = Log {
        id: 7,
        project: 2,
        query: 2,
        log_data: "Начинаем обработку...".into(),
        create_dtime: Timestamp(NOON + 6_000),
    };
    let done = Query {
        answer_text: "y".into(),
        status: Status::Done,
        query_finished: Some(Timestamp(NOON + 300_000)),
        logs_count: 1,
        logs: Some(vec![entry]),
        ..query_2()
    };
    assert_eq!(query(&done), fixture!("query-with-logs.json"));
    let empty = Page {
        count: 51,
        next: Some("http://r/api/queries/?page=2".into()),
        previous: None,
        results: vec![],
    };
    assert_eq!(page(&empty), fixture!("page.json"));
}

#[test]
fn refusals_have_exactly_these_bytes() {
    let said = |refusal: Refusal| {
        (
            refusal.status,
            String::from_utf8(refusal.body.to_vec()).unwrap(),
        )
    };
    let is = |status, body: &str| (status, body.to_owned());
    assert_eq!(
        said(Refusal::nothing_queued()),
        is(404, fixture!("nothing-queued.json"))
    );
    assert_eq!(
        said(Refusal::bad_token(Why::Invalid)),
        is(401, fixture!("bad-token.json"))
    );
    assert_eq!(
        said(Refusal::bad_login()),
        is(401, r#"{"error":"Invalid credentials"}"#)
    );
    assert_eq!(
        said(Refusal::bad_refresh(Why::Expired)),
        is(
            401,
            r#"{"detail":"Token is expired","code":"token_not_valid"}"#
        )
    );
    assert_eq!(
        said(Refusal::no_query()),
        is(404, r#"{"detail":"No Query matches the given query."}"#)
    );
}

#[test]
fn what_its_clients_send_is_read() {
    let patch = fields(fixture!("patch.json")).patch().unwrap();
    let answer = Some("Результат обработки".into());
    assert_eq!(
        (patch.status, patch.answer_text),
        (Some(Status::Done), answer)
    );
    let log = fields(fixture!("new-log.json")).new_log().unwrap();
    assert_eq!((log.query, &*log.log_data), (123, "Начинаем обработку..."));
    let query = fields(fixture!("new-query.json")).new_query().unwrap();
    assert_eq!((query.project, &*query.query_text), (1, "Тестовый запрос"));
    assert_eq!(fields("{}").patch(), Ok(Patch::default()));
}

#[test]
fn a_form_is_read_like_json_and_nothing_else_is() {
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let read = Fields::parse(Some(form), b"username=jan&password=a%2Bb+c").unwrap();
    assert_eq!(
        (read.text("username"), read.text("password")),
        (Some("jan"), Some("a+b c"))
    );
    let json = Fields::parse(Some(form), br#" {"username":"jan"}"#).unwrap();
    assert_eq!(json.text("username"), Some("jan"), "what curl -d sends");
    assert_eq!(
        Fields::parse(None, br#"{"a":"b"}"#).unwrap().text("a"),
        Some("b")
    );
    assert_eq!(
        refused(Fields::parse(Some("text/plain"), b"{}")),
        (
            415,
            r#"{"detail":"Unsupported media type \"text/plain\" in request."}"#.into()
        )
    );
}

#[test]
fn a_wrong_field_is_named_and_so_is_every_other() {
    let refuse = |body: &str| fields(body).new_query();
    for (body, said) in [
        (
            "{}",
            r#"{"project":["This field is required."],"query_text":["This field is required."]}"#,
        ),
        (
            r#"{"project":null,"query_text":" "}"#,
            r#"{"project":["This field may not be null."],"query_text":["This field may not be blank."]}"#,
        ),
        (
            r#"{"project":"abc","query_text":1}"#,
            r#"{"project":["Incorrect type. Expected pk value, received str."],"query_text":["Not a valid string."]}"#,
        ),
        (
            r#"{"project":true,"query_text":"x"}"#,
            r#"{"project":["Incorrect type. Expected pk value, received bool."]}"#,
        ),
    ] {
        assert_eq!(refused(refuse(body)), (400, said.into()));
    }
    assert_eq!(
        refuse(r#"{"project":"3","query_text":"x"}"#)
            .unwrap()
            .project,
        3
    );
    let weird = fields(r#"{"status":"weird"}"#).patch();
    assert_eq!(
        refused(weird),
        (
            400,
            r#"{"status":["\"weird\" is not a valid choice."]}"#.into()
        )
    );
    let foreign = fields(r#"{"project":1,"query":-4,"log_data":"x"}"#).new_log();
    assert_eq!(
        refused(foreign),
        (
            400,
            r#"{"query":["Invalid pk \"-4\" - object does not exist."]}"#.into()
        )
    );
    assert_eq!(
        refused(fields("{}").refresh()),
        (400, r#"{"refresh":["This field is required."]}"#.into())
    );
    let list = Fields::parse(None, b"[1]");
    assert_eq!(
        refused(list),
        (
            400,
            r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got list."]}"#.into()
        )
    );
    let (status, body) = refused(Fields::parse(None, b"{"));
    assert!(
        status == 400 && body.starts_with(r#"{"detail":"JSON parse error - "#),
        "{body}"
    );
}

#[test]
fn texts_are_bounded() {
    let long = serde_json::json!({"project": 1, "query": 1, "log_data": "x".repeat(65_537)});
    let (status, body) = refused(fields(&long.to_string()).new_log());
    assert_eq!(status, 400);
    assert_eq!(
        body,
        r#"{"log_data":["Ensure this field has no more than 65536 characters."]}"#
    );
}

#[test]
fn a_query_becomes_a_native_chat_and_is_found_in_it_again() {
    let model = ModelName::new("m:1b").unwrap();
    let text = "Тест \"x\"\n";
    let request = native(text, &model);
    assert_eq!(
        request,
        r#"{"model":"m:1b","messages":[{"role":"user","content":"Тест \"x\"\n"}],"stream":true}"#
    );
    assert_eq!(text_of(&request), text);
    assert_eq!(text_of(b""), "", "it was erased");
}

#[test]
fn every_state_has_one_status_and_back() {
    use JobState::{Cancelled, Completed, Failed, Leased, Queued};
    for state in [Queued, Leased, Completed, Failed, Cancelled] {
        let status = Status::of(state);
        assert!(status.states().contains(&state));
        let word: Value = serde_json::to_value(status).unwrap();
        assert_eq!(Status::parse(word.as_str().unwrap()), Some(status));
    }
}

#[test]
fn no_text_and_no_token_is_printed() {
    let answer = LoggedIn {
        access: "canary",
        refresh: "canary",
        user: Profile {
            id: 1,
            username: "jan",
            project: None,
            first_login: true,
            date_joined: Timestamp(0),
            last_login: None,
        },
    };
    let asked = fields(
        r#"{"project":1,"query":1,"query_text":"canary","log_data":"canary","answer_text":"canary","password":"canary"}"#,
    );
    let query = Query {
        query_text: "canary".into(),
        ..query_2()
    };
    let printed = format!(
        "{answer:?} {asked:?} {:?} {:?} {:?} {query:?}",
        asked.new_query(),
        asked.new_log(),
        asked.patch()
    );
    assert!(!printed.contains("canary"), "{printed}");
}
