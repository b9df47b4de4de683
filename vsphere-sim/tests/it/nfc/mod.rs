//! The NFC client of `vsphere-nfc` against the simulator's 902 server.
//!
//! [`ROWS`] says which tests show which row of the table "simulator behaviours and what the client
//! must survive" (section 7 of the sheet of NFC facts). A row that names a test of the codec or of
//! the reader has it in `vsphere-nfc` itself, where bytes can be made up freely.

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
mod memory;
mod metadata;
mod open;
mod reopen;
mod session;
mod sizes;
mod slowness;
mod start;
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
        &["used_ticket_is_an_authd_refusal_and_a_silent_close_a_disconnect"],
    ),
    row(2, "tickets without host, port, thumbprint", &["ticket_without_a_certificate_is_refused_unless_allowed"]),
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
    row(5, "odd banners", &[]),
    row(6, "silence and refusals of the daemon", &[]),
    row(7, "lines and records cut anywhere, both TLS versions", &["both_tls_versions_work_in_both_stages"]),
    row(8, "close_notify at the hand-over", &[]),
    row(
        9,
        "odd starts",
        &[
            "every_step_of_the_start_that_is_refused_closed_or_silent_names_its_phase",
            "every_release_is_met_on_the_first_rung_that_it_understands",
            "host_that_refuses_a_message_is_asked_without_it_and_remembered",
            "versions_of_the_server_decide_what_it_is_told",
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
        ],
    ),
    row(
        13,
        "disks of odd and huge sizes",
        &["disk_of_62_tib_has_64_bit_offsets_everywhere", "empty_disk_and_sector_sizes_0_and_4096_work"],
    ),
    row(
        14,
        "OPEN_SESSION refused above a limit",
        &["refused_buffers_lead_to_smaller_ones_on_a_new_connection_with_a_new_ticket"],
    ),
    row(
        15,
        "NFC memory of the host, connection limits",
        &["host_without_nfc_memory_is_waited_for_with_ever_fewer_buffers_and_then_reported"],
    ),
    row(16, "refused opens", &["open_errors_are_told_apart"]),
    row(17, "writes that fail", &["failed_write_is_never_reported_as_done_and_names_the_range"]),
    row(
        18,
        "allocation",
        &[
            "allocation_is_merged_clipped_and_paged_and_the_tail_counts_as_allocated",
            "refused_allocation_query_does_not_stop_later_reads",
        ],
    ),
    row(19, "disk database", &["metadata_is_found_or_none", "huge_value_and_other_chunk_count_are_refused"]),
    row(
        20,
        "disconnect after every byte",
        &["connection_cut_anywhere_gives_an_error_or_the_right_bytes_and_never_hangs"],
    ),
    row(21, "slow servers", &["silent_server_is_a_time_out_and_the_connection_is_dropped"]),
    row(
        22,
        "idle drop",
        &["idle_session_is_kept_alive_or_made_anew", "keep_alive_waits_for_writes_and_ends_with_the_disk"],
    ),
    row(
        23,
        "host switch",
        &[
            "error_of_one_read_fails_the_others_and_the_next_read_connects_again",
            "read_goes_on_at_the_missing_part_on_the_host_that_the_new_ticket_names",
        ],
    ),
    row(
        24,
        "unknown and misplaced messages",
        &[
            "message_of_an_unknown_kind_is_skipped_when_nobody_waits_for_it",
            "ping_and_rate_control_are_passed_over_a_few_times",
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
        ],
    ),
    row(27, "the layouts of AIO errors", &["error_of_any_layout_fails_its_request_and_disconnects_the_others"]),
    row(28, "closing", &["close_returns_within_its_time_with_the_first_error"]),
];

/// Rows whose behaviour is not there yet. To be empty.
const OPEN: &[u8] = &[5, 6, 8];

#[test]
fn every_row_names_tests_that_exist() {
    let sources = sources();
    for (row, number) in ROWS.iter().zip(1..) {
        assert_eq!(row.number, number, "{}", row.what);
        assert_eq!(row.tests.is_empty(), OPEN.contains(&number), "row {number}: {}", row.what);
        for test in row.tests {
            let is_test = |source: &String| source.contains(&format!("fn {test}("));
            assert!(sources.iter().any(is_test), "row {number} names {test}, which is no test");
        }
    }
}

/// The text of every file that may hold a test of the table.
fn sources() -> Vec<String> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("tests/it"), here.join("../vsphere-nfc/src"), here.join("../vsphere-nfc/tests")];
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
