//! The rules of [`crate::Queue`] and of the other parts of a store, one test function each.
//!
//! A store runs them all with `queue::conformance_suite!(async { store })`, where `store` is
//! anything that dereferences to a [`crate::Store`]: a `Box`, or a guard of its own.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

pub mod batches;
pub mod bounds;
pub mod choice;
pub mod ending;
pub mod keys;
pub mod leasing;
pub mod order;
pub mod overview;
pub mod queries;
pub mod reading;
pub mod sample;
pub mod sessions;
pub mod submissions;
pub mod users;
pub mod webhooks;

/// Runs one rule, with a timeout, so that a store that hangs fails the test.
///
/// # Panics
/// If the rule is broken or takes longer than a minute.
pub fn run(rule: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let limit = std::time::Duration::from_secs(60);
    let ended = runtime.block_on(async { tokio::time::timeout(limit, rule).await });
    assert!(ended.is_ok(), "the store did not answer within a minute");
}

/// Generates one test per rule, for the store that the given future yields.
#[macro_export]
macro_rules! conformance_suite {
    ($store:expr) => {
        $crate::conformance_rules! { $store;
            order::an_accepted_job_is_found_and_counted,
            order::an_id_is_never_used_twice,
            order::one_account_cannot_fill_the_queue,
            order::the_urgent_job_goes_first,
            order::of_equal_jobs_the_oldest_goes_first,
            order::accounts_take_turns,
            order::a_flood_of_one_account_takes_no_more_than_every_other_turn,
            order::waiting_makes_a_job_more_urgent,
            order::what_is_too_long_for_a_worker_is_passed_over,
            order::a_model_that_nobody_has_blocks_no_other,
            order::a_bare_model_name_is_its_latest_tag,
            order::a_worker_that_names_no_models_is_lent_any,
            order::what_waits_for_no_slot_goes_before_all_and_is_lent_where_no_slot_is_free,
            order::a_worker_gets_only_jobs_of_accounts_it_serves,
            order::a_job_past_its_deadline_is_never_lent,
            order::a_job_without_a_deadline_waits_for_so_long_and_no_longer,
            order::a_job_that_a_worker_lost_waits_twice_as_long_as_one_that_none_took,
            order::arrivals_tell_of_new_work_and_of_an_earlier_reap,
            choice::jobs_that_are_not_for_a_worker_do_not_stand_in_its_way,
            choice::a_waiting_job_has_a_place_and_an_expected_wait,
            choice::what_waits_for_a_worker_is_counted_up_to_a_bound,
            choice::a_worker_is_lent_only_models_that_its_key_allows,
            choice::a_worker_is_lent_only_requests_that_it_has_room_for,
            choice::a_change_of_models_is_lent_only_where_it_is_allowed,
            choice::a_job_for_one_worker_is_lent_to_no_other,
            choice::a_job_for_one_worker_stands_in_nobodys_way,
            choice::a_worker_leaves_to_others_what_they_do_better,
            leasing::a_lease_carries_the_request_unchanged,
            leasing::a_leased_job_is_lent_to_nobody_else,
            leasing::several_jobs_are_lent_at_once_best_first,
            leasing::jobs_lent_at_once_are_no_longer_together_than_a_request_may_be,
            leasing::an_expired_lease_is_lent_again,
            leasing::a_heartbeat_keeps_the_lease,
            leasing::a_leased_job_ends_at_its_deadline,
            leasing::a_withdrawn_job_is_not_ended_by_its_deadline,
            leasing::a_line_keeps_the_lease_for_what_it_was_lent_for,
            leasing::the_late_worker_cannot_finish_a_job_that_was_handed_on,
            leasing::nothing_holds_a_job_that_never_was,
            leasing::a_job_given_back_is_lent_again_and_not_counted,
            leasing::a_job_to_be_tried_later_waits,
            leasing::the_fifth_lost_attempt_is_the_last,
            leasing::a_job_given_back_too_often_fails_with_the_last_reason,
            leasing::a_job_given_back_for_good_fails_with_the_reason,
            leasing::a_step_back_of_the_clock_expires_nothing,
            leasing::a_lease_says_when_it_must_be_reaped,
            ending::a_repeated_end_is_accepted_once,
            ending::an_acknowledged_end_never_changes,
            ending::an_end_with_missing_lines_is_refused,
            ending::a_waiting_job_is_cancelled_at_once,
            ending::a_leased_job_is_cancelled_through_its_worker,
            ending::a_cancelled_job_ends_as_cancelled_whatever_its_worker_says,
            ending::a_cancelled_job_whose_worker_vanished_ends_as_cancelled,
            ending::an_ended_job_cannot_be_cancelled,
            ending::who_waits_for_a_cancellation_hears_of_a_lost_lease,
            ending::an_ended_job_is_erased_after_a_day,
            ending::prompt_and_answer_go_an_hour_after_the_answer_was_fetched,
            ending::dead_jobs_and_queries_keep_their_prompts,
            ending::the_first_end_is_told_to_whoever_reaps,
            ending::an_observer_hears_what_becomes_of_each_job,
            ending::attended_jobs_are_listed_until_they_end,
            ending::a_closed_store_refuses_everything,
            reading::a_line_is_readable_as_soon_as_it_was_taken,
            reading::repeated_lines_are_skipped,
            reading::a_gap_is_refused_and_names_the_last_line,
            reading::a_log_that_nobody_writes_any_more_says_so,
            reading::a_reader_follows_a_job_from_the_queue_to_its_end,
            reading::a_reader_of_an_older_attempt_is_told_it_restarted,
            reading::a_page_holds_what_was_asked_and_at_least_one_line,
            reading::an_ended_log_is_read_again_from_anywhere,
            reading::a_job_that_failed_half_way_keeps_its_lines,
            reading::lines_are_stored_without_being_asked_for,
            reading::the_account_of_a_job_is_known_from_first_to_last,
            reading::another_account_sees_nothing,
            reading::jobs_are_listed_newest_first_and_without_their_bodies,
            keys::a_key_is_found_by_its_id,
            keys::a_name_is_taken_until_its_key_is_revoked,
            keys::an_id_of_a_revoked_key_stays_taken,
            keys::a_revoked_key_is_found_with_the_time,
            keys::the_last_use_of_a_key_is_noted,
            keys::keys_are_listed_oldest_first,
            submissions::a_name_stands_for_one_job,
            submissions::a_name_cannot_stand_for_two_requests,
            submissions::accounts_name_their_jobs_apart,
            submissions::a_name_that_was_refused_is_free,
            submissions::of_many_who_ask_at_once_one_makes_the_job,
            submissions::a_name_outlives_its_job_until_two_days_after_its_submission,
            submissions::a_name_stays_for_as_long_as_its_job,
            submissions::a_name_of_the_relays_own_goes_with_its_job,
            submissions::an_end_is_told_to_whoever_reaps_also_while_only_a_name_is_kept,
            submissions::jobs_are_searched_by_what_they_are,
            submissions::waiting_jobs_are_paged_newest_first,
            submissions::pages_follow_each_other_whatever_is_accepted_meanwhile,
            submissions::a_search_shows_no_foreign_job,
            submissions::a_failed_job_is_dead_until_it_is_tried_again,
            overview::waiting_jobs_are_counted_by_priority,
            overview::a_running_job_is_told_with_its_holder_and_its_speed,
            overview::a_job_that_was_handed_on_is_told_of_its_new_holder,
            overview::whoever_watches_is_told_of_every_change,
            webhooks::a_webhook_is_due_when_its_job_has_ended,
            webhooks::no_account_hides_the_webhooks_of_another,
            webhooks::a_webhook_is_tried_until_it_is_told_or_given_up,
            webhooks::a_webhook_is_kept_exactly_as_long_as_its_job,
            queries::a_query_is_found_by_its_number_and_its_job,
            queries::a_query_of_another_account_is_not_found,
            queries::who_asks_for_queries_gets_the_oldest_and_nothing_else,
            queries::a_query_is_a_job_like_any_other,
            queries::a_claim_and_a_draft_are_kept,
            queries::log_entries_are_kept_in_order,
            queries::queries_are_listed_newest_first,
            queries::what_is_long_stands_in_the_query_itself_only,
            queries::a_query_goes_with_its_job,
            users::a_user_is_found_by_id_and_by_name,
            users::a_user_name_is_taken_until_its_user_is_removed,
            users::an_id_of_a_removed_user_is_never_given_again,
            users::each_change_of_a_user_is_a_new_generation,
            users::a_login_is_noted,
            users::the_token_key_is_chosen_once,
            users::logging_all_out_replaces_the_token_key_and_ends_every_session,
            sessions::a_session_is_renewed_by_its_token_in_force,
            sessions::a_token_that_was_shown_before_ends_the_session,
            sessions::a_session_that_was_ended_is_gone,
            sessions::only_so_many_sessions_are_kept,
            batches::a_file_is_kept_in_parts,
            batches::a_forgotten_file_is_gone_at_once,
            batches::files_and_batches_are_seen_by_their_owner,
            batches::a_batch_is_kept_as_it_moves_on,
            batches::a_line_has_one_result,
            batches::a_file_is_erased_when_its_time_has_passed,
            batches::a_batch_without_its_file_is_erased_in_its_time,
        }
    };
}

/// Generates the tests of the limits, for a store that was opened with [`bounds::limits`].
#[macro_export]
macro_rules! bounds_suite {
    ($store:expr) => {
        $crate::conformance_rules! { $store;
            bounds::an_account_has_a_share_of_the_queue,
            bounds::an_account_has_a_share_of_the_bytes,
            bounds::an_account_has_a_share_of_what_is_kept,
            bounds::an_account_has_a_share_of_what_is_written_to_queries,
            bounds::a_name_that_outlives_its_job_counts_for_its_account,
            bounds::the_queue_as_a_whole_has_bounds,
            bounds::an_answer_that_grows_too_long_fails_its_job,
            bounds::all_answers_together_have_a_bound,
            bounds::a_job_is_tried_as_often_as_the_limits_say,
        }
    };
}

/// Generates one test per named rule. Used by [`conformance_suite!`].
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_rules {
    ($store:expr; $($module:ident::$rule:ident,)*) => {$(
        #[test]
        fn $rule() {
            $crate::conformance::run(async {
                let store = $store.await;
                $crate::conformance::$module::$rule(&*store).await;
            });
        }
    )*};
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_rule_is_in_the_suite() {
        let suite = include_str!("mod.rs");
        let sources = [
            ("order", include_str!("order.rs")),
            ("choice", include_str!("choice.rs")),
            ("overview", include_str!("overview.rs")),
            ("leasing", include_str!("leasing.rs")),
            ("ending", include_str!("ending.rs")),
            ("reading", include_str!("reading.rs")),
            ("keys", include_str!("keys.rs")),
            ("submissions", include_str!("submissions.rs")),
            ("webhooks", include_str!("webhooks.rs")),
            ("queries", include_str!("queries.rs")),
            ("users", include_str!("users.rs")),
            ("sessions", include_str!("sessions.rs")),
            ("batches", include_str!("batches.rs")),
            ("bounds", include_str!("bounds.rs")),
        ];
        let modules = suite
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod "));
        for module in modules.map(|line| line.trim_end_matches(';')) {
            let is_listed = sources.iter().any(|(listed, _)| *listed == module);
            assert!(is_listed || module == "sample", "{module} is not read here");
        }
        for (module, source) in sources {
            let rules = source.split("pub async fn ").skip(1);
            let names = rules.map(|rest| rest.split('(').next().unwrap());
            for name in names {
                assert!(
                    suite.contains(&format!(" {module}::{name},")),
                    "{module}::{name}"
                );
            }
        }
    }
}
