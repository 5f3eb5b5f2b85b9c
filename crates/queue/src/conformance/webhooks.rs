//! Rules for webhooks: due when their job has ended, retried until delivered or given up.

use proto::{End, SecretBytes, WebhookState};

use super::sample::{T0, at, id, job, job_of, next};
use crate::{
    DeliveryOutcome, Extras, NewWebhook, Owner, QueueError, RESULT_RETENTION, Store, Webhook,
};

fn hook(n: u8) -> NewWebhook {
    NewWebhook {
        url: format!("https://example.org/{n}"),
        secret: SecretBytes::new(vec![n; 32]),
    }
}

async fn submit(store: &dyn Store, n: u8) {
    submit_of(store, n, "a").await;
}

async fn submit_of(store: &dyn Store, n: u8, account: &str) {
    let extras = Extras {
        webhook: Some(hook(n)),
        ..Extras::default()
    };
    let job = job_of(n, account);
    store.submit(T0, job, extras).await.unwrap();
}

async fn due(store: &dyn Store, seconds: u64) -> Vec<u8> {
    let found = store.due_webhooks(at(seconds), 10, 10).await.unwrap();
    let ids = found.due.iter().map(|(job, webhook)| {
        assert_eq!(webhook.new, hook(job.new.id.0[0]));
        assert!(job.new.body.0.is_empty() && job.state.is_final());
        job.new.id.0[0]
    });
    ids.collect()
}

/// A webhook is not due before, and due after every kind of end.
pub async fn a_webhook_is_due_when_its_job_has_ended(store: &dyn Store) {
    let nothing = store.due_webhooks(T0, 10, 10).await.unwrap();
    assert!(!nothing.any);
    submit(store, 1).await;
    submit(store, 2).await;
    store.enqueue(T0, job(3)).await.unwrap();
    let waiting = store.due_webhooks(T0, 10, 10).await.unwrap();
    assert!(waiting.any && waiting.due.is_empty() && waiting.next.is_none());

    let mut endings = store.endings();
    endings.borrow_and_update();
    let token = next(store, T0).await.unwrap().token;
    assert!(!endings.has_changed().unwrap(), "nothing has ended");
    store
        .complete(at(1), token, 0, End::Completed)
        .await
        .unwrap();
    endings.changed().await.unwrap();
    assert_eq!(due(store, 1).await, [1]);
    store.cancel(at(2), Owner::Anyone, id(2)).await.unwrap();
    endings.changed().await.unwrap();
    assert_eq!(due(store, 2).await, [1, 2]);
    let one = store.due_webhooks(at(2), 1, 1).await.unwrap();
    assert_eq!(one.due.len(), 1);
}

/// The first webhook of each account comes before the second of any.
pub async fn no_account_hides_the_webhooks_of_another(store: &dyn Store) {
    for n in 1..=6 {
        submit(store, n).await;
        store
            .cancel(at(n.into()), Owner::Anyone, id(n))
            .await
            .unwrap();
    }
    submit_of(store, 7, "b").await;
    store.cancel(at(7), Owner::Anyone, id(7)).await.unwrap();
    let due = async |limit, of_each| {
        let found = store.due_webhooks(at(9), limit, of_each).await.unwrap();
        let ids = found.due.iter().map(|(job, _)| job.new.id.0[0]);
        ids.collect::<Vec<_>>()
    };
    assert_eq!(due(10, 3).await, [1, 7, 2, 3]);
    assert_eq!(due(3, 3).await, [1, 7, 2]);
    assert_eq!(due(10, 10).await, [1, 7, 2, 3, 4, 5, 6]);
    store
        .webhook_tried(id(1), DeliveryOutcome::Delivered)
        .await
        .unwrap();
    assert_eq!(due(10, 1).await, [2, 7]);
}

/// A failure delays the next attempt; success and giving up are final.
pub async fn a_webhook_is_tried_until_it_is_told_or_given_up(store: &dyn Store) {
    for n in 1..=2 {
        submit(store, n).await;
        store.cancel(T0, Owner::Anyone, id(n)).await.unwrap();
    }
    let failed = DeliveryOutcome::Failed {
        again_at: at(60),
        error: "HTTP 500".into(),
    };
    store.webhook_tried(id(1), failed).await.unwrap();
    let found = store.due_webhooks(at(59), 10, 10).await.unwrap();
    assert_eq!(found.next, Some(at(60)));
    assert_eq!(due(store, 59).await, [2]);
    assert_eq!(due(store, 60).await, [2, 1]);
    store
        .webhook_tried(id(1), DeliveryOutcome::Delivered)
        .await
        .unwrap();
    let error = "HTTP 410".to_owned();
    let given_up = DeliveryOutcome::GivenUp { error };
    store.webhook_tried(id(2), given_up).await.unwrap();
    assert!(!store.due_webhooks(at(60), 10, 10).await.unwrap().any);
    let of = async |n| store.webhook(id(n)).await.unwrap().unwrap();
    let told = Webhook {
        state: WebhookState::Delivered,
        tries: 2,
        next_at: at(60),
        ..Webhook::new(hook(1))
    };
    assert_eq!(of(1).await, told);
    let lost = of(2).await;
    assert_eq!((lost.state, lost.tries), (WebhookState::GivenUp, 1));
    assert_eq!(lost.error.as_deref(), Some("HTTP 410"));
}

/// A webhook of a refused job is not stored.
pub async fn a_webhook_is_kept_exactly_as_long_as_its_job(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let extras = Extras {
        webhook: Some(hook(1)),
        ..Extras::default()
    };
    let refused = store.submit(T0, job(1), extras).await.unwrap_err();
    assert!(matches!(refused, QueueError::Exists(_)), "{refused}");
    assert_eq!(store.webhook(id(1)).await.unwrap(), None);
    submit(store, 2).await;
    store.cancel(T0, Owner::Anyone, id(2)).await.unwrap();
    store.reap(T0 + RESULT_RETENTION).await.unwrap();
    assert_eq!(store.webhook(id(2)).await.unwrap(), None);
    store
        .webhook_tried(id(2), DeliveryOutcome::Delivered)
        .await
        .unwrap();
}
