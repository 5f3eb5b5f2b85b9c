//! Tests of the registry of workers.

use std::time::Duration;

use proto::{Account, EngineKind, LeaseToken, ModelEntry, ModelName, ModelShow, limits};
use serde_json::value::RawValue;

use super::{lent::LENT_MAX, *};

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn online(key: &str, name: &str) -> OnlineWorker {
    OnlineWorker {
        key: Some(key.to_owned()),
        serve: Serve::All,
        allowed_models: ModelPatterns::default(),
        report: None,
        until: None,
        poll: None,
        link: Some(Link {
            worker: worker(name),
            maybe_dead: Arc::default(),
            displaced: CancellationToken::new(),
            routing_entry: Arc::new(crate::routing::Routing::default().join()),
        }),
        carrier: proto::admin::WorkerCarrier::Websocket,
    }
}

#[test]
fn those_of_a_name_are_found_while_they_sit_and_by_nobody_else() {
    let workers = Workers::default();
    let registry: [OnlineId; 3] = std::array::from_fn(|_| workers.new_id());
    let whose = [("k", "a"), ("other", "a"), ("k", "b")];
    for (id, (key, name)) in registry.iter().zip(whose) {
        workers.register(id.clone(), online(key, name));
    }
    let poll = OnlineId::Poll("k".to_owned(), worker("a"));
    let polling = OnlineWorker {
        link: None,
        ..online("k", "a")
    };
    workers.register(poll.clone(), polling);
    let sits = |key: &str, name: &str| {
        let who = (key.to_owned(), worker(name));
        workers.lock().seat_of(&who).is_some()
    };
    assert!(whose.iter().all(|(key, name)| sits(key, name)));
    assert!(!sits("other", "b"));

    workers.suspect_older(Some(&"k".to_owned()), &worker("a"));
    let in_doubt = |id: &OnlineId| {
        let registry = workers.lock();
        let link = registry.online.get(id).and_then(|(o, _)| o.link.clone());
        link.is_some_and(|link| link.maybe_dead.is_raised())
    };
    assert_eq!(registry.each_ref().map(in_doubt), [true, false, false]);

    workers.leave(&registry[0], Timestamp(1));
    assert!(sits("k", "a"), "it polls still");
    workers.dismiss(&poll);
    assert!(!sits("k", "a") && sits("other", "a"));
    workers.leave(&registry[1], Timestamp(1));
    workers.leave(&registry[2], Timestamp(1));
    let registry = workers.lock();
    assert!(registry.named.is_empty() && registry.online.is_empty());
}

#[test]
fn of_more_than_two_connections_of_one_worker_the_oldest_are_closed() {
    let workers = Workers::default();
    let displaced: Vec<_> = ["a", "b", "a", "a", "a"]
        .map(|name| {
            let there = online("k", name);
            let displaced = there.link.clone().unwrap().displaced;
            workers.register(workers.new_id(), there);
            displaced
        })
        .into();
    workers.register(workers.new_id(), online("other", "a"));
    let are_closed: Vec<_> = displaced
        .iter()
        .map(CancellationToken::is_cancelled)
        .collect();
    assert_eq!(are_closed, [true, false, true, false, false]);
}

const HERE: Timestamp = Timestamp(1);

/// Registers a worker with these models on a connection.
fn sits(workers: &Workers, key: &str, name: &str, models: &[String]) -> OnlineId {
    let id = workers.new_id();
    let entry = |model: &String| {
        let tag = format!(r#"{{"name":"{model}","model":"{model}","size":1}}"#);
        ModelEntry {
            name: ModelName::new(model.as_str()).unwrap(),
            loaded: false,
            tag: RawValue::from_string(tag).unwrap(),
        }
    };
    let report = WorkerReport {
        engine: EngineKind::Ollama,
        engine_version: "1".into(),
        engine_up: true,
        model_changes: false,
        models: models.iter().map(entry).collect(),
    };
    let there = OnlineWorker {
        report: Some(Arc::new(report)),
        ..online(key, name)
    };
    workers.register(id.clone(), there);
    id
}

/// Stores details of the maximum size for one model.
fn shows(workers: &Workers, id: &OnlineId, model: &str) {
    let show = format!("\"{}\"", "x".repeat(limits::SHOW_MAX - 2));
    let detail = Detail::Show(ModelShow {
        model: ModelName::new(model).unwrap(),
        show: RawValue::from_string(show).unwrap(),
    });
    assert!(workers.tell(id, vec![detail]));
}

/// Returns the total size of the stored details of these models, in bytes.
fn shown(workers: &Workers, models: &[String]) -> usize {
    let catalog = workers.catalog(&Account::new("a").unwrap(), HERE);
    let told = models.iter().filter_map(|model| {
        let show = catalog.show(&ModelName::new(model.as_str()).unwrap())?;
        (show.len() == limits::SHOW_MAX).then_some(show.len())
    });
    told.sum()
}

#[test]
fn of_those_that_left_the_latest_are_remembered_and_no_key_takes_anothers_place() {
    let workers = Workers::default();
    let knows = |model: &str| {
        let catalog = workers.catalog(&Account::new("a").unwrap(), HERE);
        let mut models = catalog.reports().flat_map(|report| &report.models);
        models.any(|entry| entry.name.as_str() == model)
    };
    let mut now = HERE;
    let mut comes_and_goes = |key: &str, name: &str| {
        let id = sits(&workers, key, name, &[format!("{key}-{name}")]);
        now = now + Duration::from_millis(1);
        workers.leave(&id, now);
    };
    comes_and_goes("quiet", "w");
    for n in 0..2_000 {
        comes_and_goes("busy", &format!("w{n:04}"));
    }
    assert!(knows("quiet-w"));
    assert!(knows("busy-w1999") && !knows("busy-w0000"));
    for key in 0..2_000 {
        comes_and_goes(&format!("k{key:04}"), "w");
    }
    assert!(knows("k1999-w") && !knows("quiet-w"));
    let gone = workers.lock().gone.len();
    assert!(gone <= 1024, "{gone} are remembered");
}

#[test]
fn what_workers_tell_has_a_bound_and_those_that_left_make_room_for_those_that_are_here() {
    let workers = Workers::default();
    let each = limits::SHOWS_MAX / limits::SHOW_MAX - 1;
    let of = |n: usize| -> Vec<String> { (0..each).map(|m| format!("m{n}-{m}")).collect() };
    let all: Vec<Vec<String>> = (0..6).map(of).collect();
    for (n, models) in all.iter().enumerate() {
        let id = sits(&workers, "k", &format!("w{n}"), models);
        models.iter().for_each(|m| shows(&workers, &id, m));
        workers.leave(&id, HERE);
    }
    let told: Vec<usize> = all.iter().map(|models| shown(&workers, models)).collect();
    let whole = each * limits::SHOW_MAX;
    assert_eq!(told[0], 0, "who went first is forgotten first");
    assert_eq!(told[5], whole);
    let sum: usize = told.iter().sum();
    assert!(sum <= 64 * 1024 * 1024 && sum >= 3 * whole, "{told:?}");

    // The limit also holds while all are online, and another key has a limit of its own.
    let workers = Workers::default();
    for (n, models) in all.iter().enumerate() {
        let id = sits(&workers, "k", &format!("w{n}"), models);
        models.iter().for_each(|m| shows(&workers, &id, m));
    }
    let told: Vec<usize> = all.iter().map(|models| shown(&workers, models)).collect();
    let sum: usize = told.iter().sum();
    assert!(sum <= 64 * 1024 * 1024 && sum >= 3 * whole, "{told:?}");
    let other = ["other".to_owned()];
    let id = sits(&workers, "another", "w", &other);
    shows(&workers, &id, "other");
    assert_eq!(shown(&workers, &other), limits::SHOW_MAX);
}

#[test]
fn of_many_leases_the_newest_are_renewed_until_they_are_returned_or_overdue() {
    let workers = Workers::default();
    let id = workers.new_id();
    workers.register(id.clone(), online("k", "a"));
    let token = |job: usize| LeaseToken {
        job: proto::JobId([job as u8; 16]),
        attempt: 1,
    };
    let end = |job: usize| Timestamp(job as i64);
    let most = LENT_MAX;
    (0..=most).for_each(|job| workers.lend(&id, token(job), end(job)));
    let newest: Vec<_> = (1..=most).map(token).collect();
    assert_eq!(workers.lent(&id, end(0)), newest);
    workers.returned(&id, token(most - 1));
    assert_eq!(
        workers.lent(&id, end(most - 3)),
        [token(most - 2), token(most)]
    );
}
