//! Bugs of the relay: access, limits and what its log shows.

use super::{
    Bug, Edit, Proof,
    proof::{through_http, unit},
};

/// All of them.
pub(super) const RELAY: &[Bug] = &[
    Bug {
        name: "a-token-lives-for-ever",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: "if now >= claims.exp {",
            becomes: "if now >= claims.exp.saturating_mul(2) {",
        }],
        found_by: unit(
            "relay",
            "jwt::",
            "a_token_is_read_back_until_its_time_has_passed",
        ),
    },
    Bug {
        name: "any-algorithm",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: ".filter(|_| said == header)",
            becomes: ".filter(|_| !said.is_empty())",
        }],
        found_by: unit(
            "relay",
            "jwt::",
            "no_other_header_is_read_even_if_it_is_signed",
        ),
    },
    Bug {
        name: "a-refresh-token-opens",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: "if claims.token_type != kind {",
            becomes: "if claims.token_type != kind && claims.iat == 0 {",
        }],
        found_by: unit(
            "relay",
            "jwt::",
            "a_token_is_read_back_until_its_time_has_passed",
        ),
    },
    Bug {
        name: "a-mistyped-key-is-looked-up",
        edits: &[Edit {
            file: "crates/relay/src/keys.rs",
            is: "(checksum(body) == sum).then_some",
            becomes: "(checksum(body).len() == sum.len()).then_some",
        }],
        found_by: unit("relay", "keys::", "a_mistyped_key_is_not_a_key"),
    },
    Bug {
        name: "a-revoked-key-opens",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if record.revoked_at.is_some() {",
            becomes: "if record.revoked_at.is_some_and(|at| at.0 == 0) {",
        }],
        found_by: through_http(
            "doors",
            "no_route_is_open_to_a_missing_a_wrong_or_a_revoked_key",
        ),
    },
    Bug {
        name: "an-expired-key-opens",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if record.has_expired(now) {",
            becomes: "if record.has_expired(now) && record.id.is_empty() {",
        }],
        found_by: through_http("ceilings", "an_expired_key_opens_nothing_and_is_told_why"),
    },
    Bug {
        name: "no-scope-is-asked-for",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if !scopes.contains(&scope) {",
            becomes: "if scopes.is_empty() {",
        }],
        found_by: through_http(
            "matrix",
            "every_route_lets_in_whom_the_document_says_and_nobody_else",
        ),
    },
    Bug {
        name: "a-key-in-the-path-may-all",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if location == KeyLocation::Header {",
            becomes: "if location == KeyLocation::Header && scopes.is_empty() {",
        }],
        found_by: through_http(
            "path_keys",
            "a_key_in_the_path_may_only_ask_and_read_whatever_its_scopes",
        ),
    },
    Bug {
        name: "any-header-is-believed",
        edits: &[Edit {
            file: "crates/relay/src/peer.rs",
            is: "if !is_proxy(peer.address) {",
            becomes: "if !is_proxy(peer.address) && headers.is_empty() {",
        }],
        found_by: unit(
            "relay",
            "peer::",
            "only_listed_proxies_are_believed_and_only_as_far_as_they_saw",
        ),
    },
    Bug {
        name: "guessing-costs-nothing",
        edits: &[Edit {
            file: "crates/relay/src/rate.rs",
            is: "            self.until = now + wait;\n",
            becomes: "",
        }],
        found_by: unit(
            "relay",
            "rate::",
            "who_fails_too_often_waits_and_each_time_twice_as_long",
        ),
    },
    Bug {
        name: "all-are-remembered",
        edits: &[Edit {
            file: "crates/relay/src/rate.rs",
            is: "            self.older = mem::take(&mut self.newer);\n",
            becomes: "            drop(mem::take(&mut self.older));\n",
        }],
        found_by: unit("relay", "rate::", "only_so_many_are_remembered"),
    },
    Bug {
        name: "a-webhook-goes-inside",
        edits: &[Edit {
            file: "crates/relay/src/webhook/target.rs",
            is: "        ([169, 254, 0, 0], 16),   // link-local, most clouds' metadata\n",
            becomes: "",
        }],
        found_by: unit("relay", "webhook::", "no_address_inside_is_public"),
    },
    Bug {
        name: "a-path-shows-its-key",
        edits: &[Edit {
            file: "crates/relay/src/target.rs",
            is: "after_k = segment.eq_ignore_ascii_case(\"k\");",
            becomes: "after_k = segment == \"\";",
        }],
        found_by: unit(
            "relay",
            "target::",
            "a_path_is_shown_without_what_may_be_a_key",
        ),
    },
    Bug {
        name: "a-line-has-no-end",
        edits: &[Edit {
            file: "crates/relay/src/carrier/leases.rs",
            is: "if open.partial.len() + part.len() > limits::LINE_MAX {",
            becomes: "if part.len() > limits::LINE_MAX {",
        }],
        found_by: unit(
            "relay",
            "carrier::",
            "a_line_over_the_limit_breaks_the_protocol_before_it_is_kept",
        ),
    },
    Bug {
        name: "a-prompt-in-the-log",
        edits: &[Edit {
            file: "crates/relay/src/submission.rs",
            is: "let (op, bytes) = (job.op, job.body.0.len());",
            becomes: "let (op, bytes) = (job.op, job.body.0.len());
                tracing::info!(body = %String::from_utf8_lossy(&job.body.0));",
        }],
        found_by: Proof::Kills,
    },
    Bug {
        name: "a-head-may-take-for-ever",
        edits: &[Edit {
            file: "crates/relay/src/listen.rs",
            is: "head: relay.settings.head_patience,",
            becomes: "head: relay.settings.head_patience * 1_000,",
        }],
        found_by: through_http(
            "arriving",
            "who_dawdles_over_head_body_or_answer_is_cut_and_others_are_served",
        ),
    },
    Bug {
        name: "no-request-is-shed",
        edits: &[Edit {
            file: "crates/relay/src/concurrency.rs",
            is: "        inside < self.most\n",
            becomes: "        inside < self.most.max(1_000_000)\n",
        }],
        found_by: through_http(
            "overload",
            "when_there_is_too_much_to_do_requests_are_shed_but_health_and_workers_get_through",
        ),
    },
    Bug {
        name: "a-bad-login-breaks-its-handler",
        edits: &[Edit {
            file: "crates/relay/src/api/sessions.rs",
            is: "    ApiError::new(ErrorCode::BadRequest, message)",
            becomes: "    ApiError::new(ErrorCode::Internal, message)",
        }],
        found_by: Proof::Hostile,
    },
    Bug {
        name: "a-token-in-the-url",
        edits: &[Edit {
            file: "crates/relay/src/pipeline.rs",
            is: "NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))",
            becomes: "NAMES.iter().any(|known| name.len() > 99 && name.eq_ignore_ascii_case(known))",
        }],
        found_by: unit(
            "relay",
            "pipeline::",
            "a_token_in_the_query_is_found_by_name",
        ),
    },
    Bug {
        name: "a-revoked-key-keeps-its-socket",
        edits: &[Edit {
            file: "crates/relay/src/upkeep.rs",
            is: "Ok(false) => connection.cancel(),",
            becomes: "Ok(false) => {}",
        }],
        found_by: through_http(
            "socket",
            "a_key_that_another_process_revoked_loses_its_connection_within_five_seconds",
        ),
    },
    Bug {
        name: "anybody-may-be-a-developer",
        edits: &[Edit {
            file: "crates/relay/src/serve.rs",
            is: "if address.ip().is_loopback() {",
            becomes: "if !address.ip().is_multicast() {",
        }],
        found_by: through_http(
            "doors",
            "a_relay_starts_only_with_a_key_or_for_a_developer_on_loopback",
        ),
    },
    Bug {
        name: "what-is-compressed-is-read",
        edits: &[Edit {
            file: "crates/relay/src/payload.rs",
            is: "if request.headers().contains_key(CONTENT_ENCODING) {",
            becomes: "if request.headers().contains_key(\"x-\") && request.headers().contains_key(CONTENT_ENCODING) {",
        }],
        found_by: through_http(
            "hygiene",
            "compressed_requests_are_refused_on_every_route_that_reads_one",
        ),
    },
    Bug {
        name: "a-connection-goes-on-after-chunks",
        edits: &[Edit {
            file: "crates/relay/src/pipeline.rs",
            is: "let is_last = is_chunked || unread.is_any();",
            becomes: "let is_last = (is_chunked && false) || unread.is_any();",
        }],
        found_by: through_http(
            "hygiene",
            "chunks_end_their_connection_with_or_without_a_length_beside_them",
        ),
    },
    Bug {
        name: "a-reader-may-take-for-ever",
        edits: &[Edit {
            file: "crates/relay/src/listen.rs",
            is: "write: relay.settings.write_patience,",
            becomes: "write: relay.settings.write_patience * 1_000,",
        }],
        found_by: through_http(
            "readers",
            "a_reader_that_takes_nothing_is_cut_and_its_job_cancelled",
        ),
    },
    Bug {
        name: "a-series-for-each-model",
        edits: &[Edit {
            file: "crates/telemetry/src/metrics.rs",
            is: "models.len() + 1 < MODELS_MAX &&",
            becomes: "models.len() + 1 < 100 * MODELS_MAX &&",
        }],
        found_by: unit(
            "telemetry",
            "",
            "ten_thousand_models_make_no_more_series_than_fifty",
        ),
    },
    Bug {
        name: "a-proxy-hides-its-clients",
        edits: &[Edit {
            file: "crates/relay/src/payload.rs",
            is: "let _until_it_has_arrived = slot.transpose()?;",
            becomes: "let _until_it_has_arrived = slot.transpose().ok();",
        }],
        found_by: through_http(
            "proxies",
            "only_so_many_slow_bodies_without_a_key_arrive_from_a_client_of_a_proxy",
        ),
    },
];
