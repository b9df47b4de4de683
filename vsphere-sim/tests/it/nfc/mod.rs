//! The NFC client of `vsphere-nfc` against the simulator's 902 server.
//!
//! [`ROWS`] says which tests show which row of the table "simulator behaviours and what the client
//! must survive" (section 7 of the sheet of NFC facts). A row that names a test of the codec or of
//! the reader has it in `vsphere-nfc` itself, where bytes can be made up freely.

mod authd;
mod close;
mod compression;
mod disconnect;
mod disk;
mod errors;
mod files;
mod fragments;
mod host;
mod ladder;
mod leaks;
mod line;
mod memory;
mod metadata;
mod open;
mod reopen;
mod session;
mod sizes;
mod slowness;
mod soap;
mod start;
mod synchronous;
mod tickets;
mod tls;
mod traces;
mod writes;

/// A row of the table: what the simulator does, and the tests that show what the client does.
struct Row {
    number: u8,
    what: &'static str,
    tests: &'static [&'static str],
}

const fn row(number: u8, what: &'static str, tests: &'static [&'static str]) -> Row {
    Row { number, what, tests }
}

const ROWS: [Row; 28] = [
    row(
        1,
        "tickets: used, unknown, two open at once",
        &[
            "used_ticket_is_an_authd_refusal_and_a_silent_close_a_disconnect",
            "two_tickets_may_be_out_at_once_and_each_opens_one_connection",
            "refused_ticket_is_replaced_at_most_once_and_the_secret_is_never_told",
            "daemon_that_repeats_the_ticket_does_not_bring_it_into_the_error",
        ],
    ),
    row(
        2,
        "tickets without host, port, thumbprint",
        &[
            "ticket_without_a_certificate_is_refused_unless_allowed",
            "a_host_without_a_name_is_the_one_that_was_asked",
            "thumbprints_of_both_lengths_are_taken_and_broken_ones_refused",
            "a_bare_host_leaves_its_name_out_of_tickets",
        ],
    ),
    row(
        3,
        "wrong certificates",
        &[
            "wrong_certificate_is_noticed_before_the_ticket_is_sent",
            "second_certificate_may_differ_only_when_it_was_announced",
        ],
    ),
    row(
        4,
        "host with SHA-1 certificates only",
        &[
            "sha_1_host_is_refused_with_a_hint_unless_legacy_tls_is_allowed",
            "legacy_handshake_is_tried_once_with_the_same_ticket_and_remembered",
            "legacy_handshake_trusts_no_other_certificate",
        ],
    ),
    row(
        5,
        "odd banners",
        &[
            "first_line_decides_whether_there_is_tls_and_whether_the_thumbprint_is_asked_for",
            "first_line_without_an_end_is_neither_kept_nor_waited_for",
            "session_over_a_line_of_single_bytes_is_the_same_session",
        ],
    ),
    row(
        6,
        "silence and refusals of the daemon",
        &[
            "refused_encryption_does_not_lead_to_a_connection_in_clear",
            "daemon_answers_nothing_to_session_and_530_to_what_it_does_not_know",
            "every_step_of_the_start_that_is_refused_closed_or_silent_names_its_phase",
        ],
    ),
    row(
        7,
        "lines and records cut anywhere, both TLS versions",
        &[
            "both_tls_versions_work_in_both_stages",
            "daemon_takes_commands_in_one_record_and_in_a_record_for_every_byte",
            "session_over_a_line_of_single_bytes_is_the_same_session",
        ],
    ),
    row(8, "close_notify at the hand-over", &["close_notify_at_the_hand_over_is_not_taken_for_data_of_the_disk"]),
    row(
        9,
        "odd starts",
        &[
            "every_step_of_the_start_that_is_refused_closed_or_silent_names_its_phase",
            "every_release_is_met_on_the_first_rung_that_it_understands",
            "host_that_refuses_a_message_is_asked_without_it_and_remembered",
            "versions_of_the_server_decide_what_it_is_told",
            "machine_that_goes_to_and_fro_between_two_hosts_is_not_tried_for_ever",
        ],
    ),
    row(
        10,
        "fragments in any order, interleaved, of odd sizes",
        &[
            "fragments_in_any_order_and_size_are_put_together",
            "fragments_of_two_reads_may_interleave_and_come_backwards",
        ],
    ),
    row(11, "illegal fragments and headers", &["fragments_that_do_not_belong_to_the_read_end_the_connection"]),
    row(
        12,
        "compression",
        &[
            "every_compression_and_any_mixture_gives_the_same_bytes",
            "zlib_fragment_is_taken_although_it_was_not_asked_for",
            "bomb_and_truncated_data_are_refused",
            "damage_gives_a_value_or_an_error",
            "the_public_reference_and_we_read_each_others_blocks",
            "hostile_blocks_are_refused",
            "hostile_runs_are_refused",
        ],
    ),
    row(
        13,
        "disks of odd and huge sizes",
        &[
            "disk_of_62_tib_has_64_bit_offsets_everywhere",
            "empty_disk_and_sector_sizes_0_and_4096_work",
            "disks_of_a_sector_a_tail_and_two_tebibytes_are_read_to_their_last_sector",
        ],
    ),
    row(
        14,
        "OPEN_SESSION refused above a limit",
        &["refused_buffers_lead_to_smaller_ones_on_a_new_connection_with_a_new_ticket"],
    ),
    row(
        15,
        "NFC memory of the host, connection limits",
        &[
            "host_without_nfc_memory_is_waited_for_with_ever_fewer_buffers_and_then_reported",
            "sessions_share_the_nfc_memory_of_the_host",
            "connection_that_is_one_too_many_is_refused_in_words_that_say_try_later",
        ],
    ),
    row(
        16,
        "refused opens",
        &[
            "open_errors_are_told_apart",
            "the_disk_in_use_of_a_running_vm_is_refused_by_every_transport_with_its_reason",
            "a_file_of_another_machine_is_not_asked_for",
        ],
    ),
    row(
        17,
        "writes that fail",
        &[
            "failed_write_is_never_reported_as_done_and_names_the_range",
            "disk_full_in_the_middle_of_many_writes_leaves_none_of_them_reported_as_done",
            "reply_to_a_write_whose_data_is_not_sent_is_no_success",
            "server_that_hangs_up_without_reading_is_quoted_and_not_the_broken_pipe",
        ],
    ),
    row(
        18,
        "allocation",
        &[
            "allocation_is_merged_clipped_and_paged_and_the_tail_counts_as_allocated",
            "refused_allocation_query_does_not_stop_later_reads",
        ],
    ),
    row(
        19,
        "disk database",
        &[
            "metadata_is_found_or_none",
            "huge_value_and_other_chunk_count_are_refused",
            "values_are_text_whatever_bytes_they_have_and_missing_keys_are_none",
        ],
    ),
    row(
        20,
        "disconnect after every byte",
        &[
            "connection_cut_anywhere_gives_an_error_or_the_right_bytes_and_never_hangs",
            "connection_cut_after_any_byte_is_a_disconnect_that_names_the_phase_and_leaves_nothing",
            "every_byte_of_the_line_is_cut_at",
            "connection_for_files_cut_anywhere_gives_an_error_or_the_right_bytes",
        ],
    ),
    row(
        21,
        "slow servers",
        &[
            "silent_server_is_a_time_out_and_the_connection_is_dropped",
            "server_of_a_byte_per_second_is_waited_for_as_long_as_the_limits_say",
            "stall_in_the_middle_of_a_fragment_is_a_time_out_of_the_read",
            "request_of_a_caller_that_is_gone_is_timed_for_those_who_wait_for_its_budget",
            "write_does_not_wait_for_ever_for_a_read_that_the_server_forgot",
            "slow_write_does_not_cost_the_reads_behind_it_their_connection",
            "no_deadlock_when_both_sides_send_and_the_line_holds_next_to_nothing",
        ],
    ),
    row(
        22,
        "idle drop",
        &[
            "idle_session_is_kept_alive_or_made_anew",
            "keep_alive_waits_for_writes_and_ends_with_the_disk",
            "read_survives_as_many_losses_as_it_makes_progress_and_no_more",
        ],
    ),
    row(
        23,
        "host switch",
        &[
            "error_of_one_read_fails_the_others_and_the_next_read_connects_again",
            "read_goes_on_at_the_missing_part_on_the_host_that_the_new_ticket_names",
            "host_that_is_gone_is_tried_a_few_times_by_one_caller_for_all",
            "allocation_and_metadata_go_on_after_a_loss",
            "disk_that_changed_its_size_is_not_read_on",
            "writing_goes_on_only_after_an_explicit_reopen",
        ],
    ),
    row(
        24,
        "unknown and misplaced messages",
        &[
            "message_of_an_unknown_kind_is_skipped_when_nobody_waits_for_it",
            "fragments_that_do_not_belong_to_the_read_end_the_connection",
            "ping_and_rate_control_are_passed_over_a_few_times",
            "ping_and_rate_control_are_passed_over",
        ],
    ),
    row(
        25,
        "classic PUT and GET",
        &[
            "disks_go_and_come_back_with_their_database",
            "content_that_is_not_the_announced_one_is_refused",
            "empty_frame_behind_a_disk_is_passed_over_once",
            "child_disk_is_refused_unless_allowed",
            "files_go_and_come_back_over_one_connection",
            "upload_beyond_the_capacity_is_refused_before_it_is_sent",
            "client_in_another_language_stores_and_fetches_files_and_disks",
        ],
    ),
    row(
        26,
        "errors of the classic layer",
        &[
            "error_within_a_fetched_disk_ends_it_with_the_servers_words",
            "error_within_or_after_an_upload_is_heard",
            "text_of_any_length_and_form_is_bounded",
            "text_of_a_classic_error_is_bounded_and_shown_as_far_as_it_came",
        ],
    ),
    row(
        27,
        "the layouts of AIO errors",
        &[
            "error_of_any_layout_fails_its_request_and_disconnects_the_others",
            "error_of_every_layout_is_told_with_its_code_and_costs_the_connection",
            "long_read_reports_the_error_of_whichever_of_its_parts_failed",
        ],
    ),
    row(
        28,
        "closing",
        &[
            "close_returns_within_its_time_with_the_first_error",
            "disk_is_closed_only_when_what_was_asked_for_has_been_answered",
        ],
    ),
];

#[test]
fn every_row_names_tests_that_exist() {
    let sources = sources();
    for (row, number) in ROWS.iter().zip(1..) {
        assert_eq!(row.number, number, "{}", row.what);
        assert!(!row.tests.is_empty(), "row {number} ({}) is shown by no test", row.what);
        for test in row.tests {
            let there = sources.iter().any(|source| is_test(source, test));
            assert!(there, "row {number} names {test}, which is no test");
        }
    }
}

#[test]
fn only_functions_marked_as_tests_count_as_tests() {
    const SOURCE: &str = "fn helper() {}\n\n#[test]\nfn fact() {}\n\n\
        #[tokio::test(flavor = \"multi_thread\")]\nasync fn other() {}\n\n// fn gone() {}\n";
    assert!(is_test(SOURCE, "fact") && is_test(SOURCE, "other"));
    for name in ["helper", "gone", "fac", "act", "nowhere"] {
        assert!(!is_test(SOURCE, name), "{name}");
    }
    assert!(!sources().iter().any(|source| is_test(source, concat!("a_test_that_", "nobody_wrote"))));
}

/// Whether `source` has a function of this name with the attribute of a test among the lines above it.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let starts = [format!("fn {name}("), format!("async fn {name}(")];
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        starts.iter().any(|start| line.starts_with(start.as_str()))
            && above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// The text of every file that may hold a test of the table.
fn sources() -> Vec<String> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("tests/it")];
    folders.extend(["nfc/src", "nfc/tests", "vim/src"].map(|folder| here.join(format!("../vsphere-{folder}"))));
    folders.push(here.join("../vixdisklib/tests"));
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("nfc/mod.rs") {
                sources.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}
