"""What users of such pages complain of, as requirements, and the tests that hold each."""

from __future__ import annotations

READER, MEMORY, PROCESS = (
    "process/studio/test_page_reader",
    "process/studio/test_page_memory",
    "process/studio/test_page_process",
)
JOBS, BROWSER, WHOLE = (
    "process/studio/test_page_jobs",
    "process/studio/test_page_browser",
    "real/studio/test_page_whole",
)
TUNE, RENDER, TURNS = "real/studio/test_page_tune", "pure/studio/test_render", "pure/studio/test_turns"
GUARD, ORDER = "pure/studio/test_guard", "pure/studio/test_order"

REQUIREMENTS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "Three streaming panes stay smooth (numbers: make bench-studio)",
        (f"{READER}::test_nine_tabs_with_running_answers_all_load",),
    ),
    2: (
        "Long chats open at their end and scroll back to their start",
        (f"{PROCESS}::test_a_long_chat_shows_its_end_first",),
    ),
    3: (
        "No answer is lost by a reload or with all tabs closed",
        (
            f"{READER}::test_a_reload_in_the_middle_shows_the_whole_answer",
            f"{PROCESS}::test_an_answer_goes_on_when_no_tab_looks",
        ),
    ),
    4: (
        "History is on the server; a full disk harms nothing old",
        (
            f"{READER}::test_another_browser_sees_the_chat",
            f"{READER}::test_a_full_disk_refuses_the_new_file_and_harms_nothing_old",
        ),
    ),
    5: (
        "The context that is shown is the one that runs",
        (
            f"{WHOLE}::test_a_model_is_found_fetched_started_with_a_chosen_context_and_asked",
            f"{WHOLE}::test_a_model_is_removed_and_what_cannot_start_says_why",
        ),
    ),
    6: (
        "Untouched fields are not sent; each value shows its source",
        (
            f"{TURNS}::test_untouched_fields_are_absent",
            f"{MEMORY}::test_each_parameter_tells_what_holds_and_where_it_comes_from",
        ),
    ),
    7: (
        "Context, quant and memory are chosen before anything loads",
        (f"{WHOLE}::test_a_model_is_found_fetched_started_with_a_chosen_context_and_asked",),
    ),
    8: (
        "The thinking switch changes the profile",
        (
            f"{ORDER}::test_the_thinking_switch_changes_the_profile_unless_one_was_chosen",
            f"{MEMORY}::test_without_thinking_the_profile_for_that_is_asked_for",
        ),
    ),
    9: (
        "Downloads tell rate and time left; words explain themselves",
        (
            f"{JOBS}::test_a_download_tells_its_rate_and_ends_only_after_its_proof",
            f"{READER}::test_each_word_of_the_trade_explains_itself_one_key_away",
        ),
    ),
    10: (
        "A killed download says so and goes on",
        (f"{JOBS}::test_a_fetch_that_was_killed_says_so_and_goes_on_from_where_it_was",),
    ),
    11: (
        "Each load ends in ready or in a cause",
        (f"{WHOLE}::test_a_model_is_removed_and_what_cannot_start_says_why",),
    ),
    12: (
        "Without a sandbox code is off, and the page says what is missing",
        (f"{MEMORY}::test_without_a_sandbox_code_is_off_and_the_page_says_what_is_missing",),
    ),
    13: (
        "Quoted text never becomes a call",
        ("pure/gateway/test_gateway_toolcalls::test_what_must_never_become_a_call_does_not_in_full_either",),
    ),
    14: (
        "Nothing that a model says runs",
        (
            f"{RENDER}::test_payloads_cut_at_every_place_become_no_markup",
            f"{BROWSER}::test_hostile_answers_run_nothing_and_fetch_nothing",
            f"{READER}::test_hostile_titles_names_logs_and_events_run_nothing",
            f"{READER}::test_exports_of_hostile_chats_are_files_and_no_pages",
        ),
    ),
    15: (
        "No other site drives the server",
        (
            f"{GUARD}::test_every_combination_is_refused_unless_all_of_it_is_ours",
            f"{PROCESS}::test_a_page_of_another_site_changes_nothing",
        ),
    ),
    16: (
        "A refusal names the option that allows the address",
        (f"{GUARD}::test_a_refused_host_names_the_option_that_allows_it",),
    ),
    17: (
        "A session that ends keeps the draft; nothing is told before a login",
        (
            f"{READER}::test_a_session_that_ends_keeps_the_draft_and_asks_no_further",
            f"{PROCESS}::test_nothing_is_told_before_a_login",
        ),
    ),
    18: ("Pages need no build step", (f"{BROWSER}::test_from_the_first_launch_to_an_answer_by_clicks",)),
    19: ("No request leaves the origin", (f"{BROWSER}::test_from_the_first_launch_to_an_answer_by_clicks",)),
    20: (
        "Prices are no formulas",
        (
            f"{RENDER}::test_prices_are_no_formulas",
            f"{RENDER}::test_formulas_are_mathml",
            f"{RENDER}::test_tex_that_cannot_be_read_is_shown_as_it_was_typed",
        ),
    ),
    21: (
        "What cannot fit is not sent; a cut answer says so and goes on",
        (
            f"{READER}::test_what_cannot_fit_is_said_and_not_sent",
            f"{READER}::test_an_answer_cut_by_its_length_says_so_and_goes_on",
        ),
    ),
    22: (
        "The page does not scroll under its reader",
        (f"{READER}::test_a_reader_who_has_scrolled_up_stays_there_and_one_at_the_end_follows",),
    ),
    23: (
        "An answer is edited and continued without losing what follows",
        (
            f"{READER}::test_an_edited_answer_keeps_what_follows_and_an_edited_question_its_old_branch",
            f"{PROCESS}::test_an_answer_that_was_cut_goes_on_without_losing_or_repeating_a_letter",
        ),
    ),
    24: (
        "Panes keep their order; memory decides whether they are asked at once",
        (f"{MEMORY}::test_panes_are_asked_at_once_or_in_turn_as_memory_allows_the_loaded_model_first",),
    ),
    25: (
        "Every control has a name and works by keyboard",
        (
            f"{READER}::test_a_chat_works_by_the_keyboard_alone",
            f"{READER}::test_every_control_has_a_name_and_every_text_enough_contrast",
        ),
    ),
    26: (
        "Stop stops",
        (
            f"{PROCESS}::test_stop_closes_the_request_at_once_and_keeps_what_came",
            f"{BROWSER}::test_an_answer_is_stopped_and_goes_on",
        ),
    ),
    27: (
        "Training goes on at the same step, by its own record",
        (f"{TUNE}::test_a_training_is_paused_goes_on_at_the_same_step_and_shows_its_own_record",),
    ),
    28: (
        "Each answer keeps what made it",
        (f"{PROCESS}::test_an_answer_is_streamed_stored_and_told_with_its_numbers",),
    ),
    29: ("Nine tabs load", (f"{READER}::test_nine_tabs_with_running_answers_all_load",)),
}
