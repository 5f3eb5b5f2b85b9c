//! `GET /openapi.json`: every route of this relay as an OpenAPI 3.1 document.
//!
//! The schemas of native types are derived from the types. Requests of other projects' clients are
//! free objects with a link to their documentation. A test checks that the document and the router
//! have the same routes.

mod entry;
mod routes;

use std::sync::OnceLock;

use axum::response::Response;
use bytes::Bytes;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::entry::{Access, Entry, Param};
use super::written;
use crate::{error_format::ErrorFormat, headers};

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| document(routes::ROUTES).to_string().into());
    written("application/json", text.clone())
}

fn document(routes: &[Entry]) -> Value {
    let mut paths = Map::new();
    for entry in routes {
        let path = entry.path.replace("{*", "{");
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[entry.method] = operation(entry);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hearth relay",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A durable job queue for language models that run on their owners' machines.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "responses": errors(),
            "schemas": schemas(),
        },
    })
}

fn operation(entry: &Entry) -> Value {
    let mut operation = json!({
        "operationId": entry.name(),
        "tags": [entry.tag()],
        "summary": entry.summary,
        "security": [],
        "responses": {
            entry.status.to_string(): answer(entry),
            "default": {"$ref": format!("#/components/responses/{}", shape(entry.path))},
        },
    });
    if entry.may_say_nothing {
        operation["responses"]["204"] = json!({"description": "Nothing to deliver at the moment."});
    }
    if let Access::Key(scope) = entry.access {
        operation["security"] = json!([{"bearer": []}, {"key": []}]);
        operation["x-hearth-scope"] = scope.into();
        operation["description"] = format!("Requires a key with the scope `{scope}`.").into();
    }
    let parameters: Vec<Value> = path_parameters(entry.path)
        .chain(entry.params.iter().map(Param::json))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(content) = entry.takes.json() {
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if let Some(url) = entry.docs {
        operation["externalDocs"] = json!({"url": url});
    }
    operation
}

fn answer(entry: &Entry) -> Value {
    let mut answer = json!({"description": entry.gives.describe()});
    if let Some(content) = entry.gives.json() {
        answer["content"] = content;
    }
    answer
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('{').skip(1);
    let names = names.filter_map(|rest| rest.split('}').next());
    names.map(|name| {
        json!({
            "name": name.trim_start_matches('*'),
            "in": "path",
            "required": true,
            "schema": {"type": "string"},
        })
    })
}

/// Returns the name of the error response for a route.
fn shape(path: &str) -> String {
    format!("{:?}Error", ErrorFormat::of(path))
}

fn errors() -> Value {
    let told = |schema: &Value| {
        json!({
            "description": "Error; the header `x-hearth-error` contains its stable code.",
            "headers": {(headers::CODE): {"schema": {"$ref": "#/components/schemas/ErrorCode"}}},
            "content": {"application/json": {"schema": schema}},
        })
    };
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let detail = object(json!({
        "type": {"type": "string"},
        "message": {"type": "string"},
        "code": {"type": ["string", "null"]},
        "param": {"type": ["string", "null"]},
    }));
    let mut errors = Map::new();
    for shape in ErrorFormat::ALL {
        let schema = match shape {
            ErrorFormat::Native => json!({"$ref": "#/components/schemas/ErrorBody"}),
            ErrorFormat::Ollama => object(json!({"error": {"type": "string"}})),
            ErrorFormat::OpenAi => object(json!({"error": detail})),
            ErrorFormat::Rest => object(json!({"detail": {"type": "string"}})),
            ErrorFormat::Anthropic => object(json!({
                "type": {"const": "error"},
                "error": detail,
                "request_id": {"type": ["string", "null"]},
            })),
        };
        errors.insert(format!("{shape:?}Error"), told(&schema));
    }
    errors.into()
}

/// Returns every schema that a route or another schema refers to.
fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    name::<proto::SubmitJob>(&mut generator);
    name::<proto::JobView>(&mut generator);
    name::<proto::ErrorBody>(&mut generator);
    name::<proto::End>(&mut generator);
    name::<proto::admin::Overview>(&mut generator);
    name::<proto::admin::KeyView>(&mut generator);
    name::<proto::admin::NewKey>(&mut generator);
    generator.take_definitions(true)
}

fn name<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

    use axum::body::Body;
    use http::{Request, header};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{Relay, RelaySettings, SystemWorld};

    /// Collects the paths of every `.route("…"` in the crate.
    fn written_in(folder: &Path, found: &mut BTreeSet<String>) {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                written_in(&path, found);
            } else {
                let source = fs::read_to_string(&path).unwrap();
                let call = concat!(".", "route(");
                let calls = source.split(call).skip(1);
                let paths = calls.filter_map(|rest| rest.trim_start().strip_prefix('"'));
                let paths = paths.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
                found.extend(paths.filter(|path| path.starts_with('/')));
            }
        }
    }

    /// Returns the methods that the router allows on a path, except `HEAD`.
    async fn methods(relay: &Relay, path: &str) -> BTreeSet<String> {
        let names: Vec<_> = path.split('{').skip(1).collect();
        let mut url = path.to_owned();
        for name in names {
            let name = format!("{{{}}}", name.split('}').next().unwrap());
            url = url.replace(&name, "x");
        }
        let request = Request::builder().method("BREW").uri(url);
        let request = request.body(Body::empty()).unwrap();
        let answer = crate::api::routes(relay.clone()).oneshot(request).await;
        let answer = answer.unwrap();
        let allow = answer.headers().get(header::ALLOW);
        let allow = allow.unwrap_or_else(|| panic!("{path} is not served"));
        let allow = allow.to_str().unwrap().split(',').map(str::to_lowercase);
        allow.filter(|method| method != "head").collect()
    }

    #[tokio::test]
    async fn every_route_that_is_served_is_in_the_document_and_no_other() {
        let store = Arc::new(queue::MemoryQueue::default());
        let relay = Relay::new(store, RelaySettings::default(), Arc::new(SystemWorld));
        let mut paths = BTreeSet::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        written_in(&source, &mut paths);
        let mut served = BTreeSet::new();
        for path in paths {
            for method in methods(&relay, &path).await {
                served.insert((path.clone(), method));
            }
        }
        let told: BTreeSet<_> = routes::ROUTES
            .iter()
            .map(|entry| (entry.path.to_owned(), entry.method.to_owned()))
            .collect();
        assert!(served.len() > 25, "{served:?}");
        let missing: Vec<_> = served.difference(&told).collect();
        assert!(
            missing.is_empty(),
            "not in api/openapi/routes.rs: {missing:?}"
        );
        let too_much: Vec<_> = told.difference(&served).collect();
        assert!(
            too_much.is_empty(),
            "in routes.rs, but not served: {too_much:?}"
        );
        assert_eq!(told.len(), routes::ROUTES.len(), "one is there twice");
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn follow(whole: &Value, part: &Value, seen: &mut usize) {
            match part {
                Value::Object(fields) => {
                    if let Some(Value::String(place)) = fields.get("$ref") {
                        *seen += 1;
                        let place = place.strip_prefix('#').unwrap();
                        assert!(whole.pointer(place).is_some(), "{place}");
                    }
                    fields.values().for_each(|field| follow(whole, field, seen));
                }
                Value::Array(items) => items.iter().for_each(|item| follow(whole, item, seen)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let whole = document(routes::ROUTES);
        let mut seen = 0;
        follow(&whole, &whole, &mut seen);
        assert!(seen > 20, "{seen}");
        let names: BTreeSet<_> = routes::ROUTES.iter().map(Entry::name).collect();
        assert_eq!(
            names.len(),
            routes::ROUTES.len(),
            "operation ids are unique"
        );
    }

    #[test]
    fn the_schema_of_a_job_says_what_the_type_says() {
        let whole = document(routes::ROUTES);
        let submit = &whole["components"]["schemas"]["SubmitJob"];
        assert_eq!(submit["required"], json!(["op", "body"]));
        assert_eq!(submit["additionalProperties"], json!(false));
        assert_eq!(
            submit["properties"]["priority"]["$ref"],
            "#/components/schemas/Priority"
        );
        let codes = whole["components"]["schemas"]["ErrorCode"]["enum"].as_array();
        assert!(codes.unwrap().contains(&json!("queue_full")));
        assert_eq!(
            whole["paths"]["/api/jobs"]["post"]["responses"]["default"]["$ref"],
            "#/components/responses/NativeError"
        );
    }
}
