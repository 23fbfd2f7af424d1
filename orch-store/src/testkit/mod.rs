//! The conformance kit: what every [`Store`](crate::Store) has to do, as tests that any implementation can run.
//!
//! Switch on the feature `testkit` in the dev-dependencies and name a function that makes an empty store:
//!
//! ```
//! use std::sync::Arc;
//! use orch_store::MemoryStore;
//! use orch_store::testkit::Fixture;
//!
//! async fn fixture() -> Fixture {
//!     Fixture::new(Arc::new(MemoryStore::new()))
//! }
//!
//! // In a test file this makes one `#[test]` for each check.
//! orch_store::conformance!(fixture);
//!
//! // All at once, for programs that are no test.
//! # let mut done = 0;
//! orch_store::testkit::run_all(fixture, |name| done += 1);
//! # assert!(done > 20);
//! ```
//!
//! The checks panic with what was wrong, as tests do. Each needs a store that nobody else uses meanwhile; it need not be
//! empty. They ask for a runtime with several threads, which [`block_on`] gives them.

mod caller;
pub mod checks;
mod fixture;
pub mod history;

use std::future::Future;

pub use self::fixture::Fixture;

/// Runs one check to its end, on a runtime of its own.
///
/// # Panics
/// When the check fails.
pub fn block_on<F: Future>(check: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime can be made")
        .block_on(check)
}

/// Runs every check on a store of its own, after telling its name.
///
/// # Panics
/// When a check fails.
pub fn run_all<F>(make: impl Fn() -> F, mut begin: impl FnMut(&'static str))
where
    F: Future<Output = Fixture>,
{
    macro_rules! run {
        ($make:path; $($check:ident)*) => {
            $(
                begin(stringify!($check));
                block_on(async { checks::$check(&$make().await).await });
            )*
        };
    }
    crate::for_each_check!(run, make);
}

/// Makes one `#[test]` for each check of the [kit](crate::testkit), with the stores that the given
/// `async fn() -> Fixture` makes.
#[macro_export]
macro_rules! conformance {
    ($make:path) => {
        $crate::for_each_check!($crate::conformance_tests, $make);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($make:path; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::testkit::block_on(async {
                    $crate::testkit::checks::$check(&$make().await).await
                });
            }
        )*
    };
}

/// The names of all checks: the one place where a new check is entered.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_check {
    ($callback:path, $make:path) => {
        $callback! {
            $make;
            a_write_raises_the_revision_and_a_read_does_not
            versions_count_the_writes_of_one_life
            reads_at_a_revision_show_the_state_of_that_time
            revisions_of_the_future_are_refused
            a_key_in_use_cannot_be_created
            a_stale_update_is_refused
            a_stale_delete_is_refused
            a_delete_of_nothing_is_refused
            a_refused_write_changes_nothing
            lists_keep_to_the_prefix_in_byte_order
            pages_cover_everything_once
            pages_of_one_list_show_one_state_while_writers_go_on
            a_page_may_start_after_a_key_that_is_gone
            a_list_can_only_count
            a_watch_delivers_every_event_with_its_previous_value
            a_watch_from_the_past_replays_it
            a_watch_keeps_to_its_prefix
            a_quiet_watcher_tells_its_progress_when_asked
            a_cancelled_wait_loses_no_event
            a_watch_goes_on_where_another_ended
            list_and_watch_together_miss_nothing
            many_watchers_see_the_same
            who_sees_an_event_reads_its_state
            compacted_history_is_gone_and_the_rest_stays
            a_watch_cannot_begin_before_the_compaction
            compaction_may_be_repeated
            a_waiting_watcher_survives_compaction
            a_slow_watcher_is_complete_or_cut_off
            compaction_under_load_disturbs_nobody
            a_key_ends_when_its_time_is_over
            an_update_renews_or_lifts_the_time_to_live
            keys_and_values_have_limits
            keys_and_values_are_opaque
            one_of_many_creators_wins
            guarded_increments_are_never_lost
            concurrent_histories_are_linearizable
            concurrent_writes_are_published_in_order
            a_cancelled_write_happens_wholly_or_not_at_all
            every_call_may_be_cancelled
            a_disrupted_watch_misses_nothing
            disrupted_histories_are_linearizable
        }
    };
}
