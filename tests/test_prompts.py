"""Rendering and parsing are inverse to each other, for every format."""
import re

import pytest
from hypothesis import assume, given, strategies as st

from cotstudy.prompts import (FORMATS, Exemplar, check_same_prompt, format_named, parse_completion, render_completion, render_prompt,
                              split_thinking)

text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=80).map(str.strip).filter(bool)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@given(rationale=text, answer=text)
def test_parse_inverts_render(fmt, rationale, answer):
    try:
        completion = render_completion(fmt, rationale, answer)
    except ValueError:
        assume(False)
    if fmt.end == ".":  # a final full stop belongs to the frame
        assume(not answer.endswith("."))
    assume(fmt.letter == "{a}" or not re.fullmatch(r"\([A-Za-z]\)", answer))  # brackets around a letter belong to the frame, too
    # a separator that only arises where rationale and answer meet it cannot be told from the real one
    assume(completion.count(fmt.sep.strip()) == 1)
    assert parse_completion(fmt, completion) == (rationale, answer)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@given(garbage=st.text(max_size=200))
def test_parse_never_raises(fmt, garbage):
    parsed = parse_completion(fmt, garbage)
    assert parsed.rationale is not None
    assert parsed.answer_text is None or parsed.answer_text.strip()


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_refuses_what_it_could_not_read_back(fmt):
    with pytest.raises(ValueError, match=fmt.name):
        render_completion(fmt, f"one{fmt.sep}two", "5")


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("rationale", ["Ice is smooth.", None])
def test_letters_of_choices_are_written_as_the_format_writes_them(fmt, rationale):
    mode = "label" if rationale is None else "cot"
    for answer in ("B", "b", "yes", "(B) or (C)", "AB"):
        written = render_completion(fmt, rationale, answer)
        assert ("(B)" in written) == (answer == "(B) or (C)" or (answer == "B" and fmt.name == "scotd"))
        assert parse_completion(fmt, written, mode) == (rationale, answer)
    lower = render_completion(fmt, rationale, "B", "Which? (a) sand (b) ice")
    assert ("(b)" in lower) == (fmt.name == "scotd") and parse_completion(fmt, lower, mode) == (rationale, "B")


def test_exemplars_share_the_frame_of_the_query():
    fmt = format_named("cotstudy")
    page = render_prompt(fmt, "Q2", exemplars=[Exemplar("Q1", "R1.", "1")])
    assert page.startswith(render_prompt(fmt, "Q1")) and page.endswith(render_prompt(fmt, "Q2"))


def test_our_prompts_do_not_end_in_a_space():
    assert not any(render_prompt(format_named("cotstudy"), "Q", mode).endswith(" ") for mode in ("cot", "label"))


def test_prompt_mismatch_is_refused_unless_equal():
    check_same_prompt(format_named("ho"), format_named("ho"), "label")
    with pytest.raises(ValueError, match="trained on"):
        check_same_prompt(format_named("ho_gpt3"), format_named("ho_gpt3_as_inferred"), "label")


@given(thought=text, said=text)
def test_thinking_is_separated_from_what_is_said(thought, said):
    assume("<think>" not in thought + said and "</think>" not in thought + said)
    for opening in ("<think>\n", ""):  # some templates open the block themselves
        assert split_thinking(f"{opening}{thought}\n</think>\n\n{said}") == (thought, said)
    assert split_thinking(f"<think>{thought}") == (thought, "")
    assert split_thinking(said) == (None, said)


@given(thought=text, rationale=text, answer=text)
def test_what_was_thought_is_no_part_of_what_a_chat_format_reads(thought, rationale, answer):
    fmt = format_named("chat")
    assume("</think>" not in thought)
    for given_rationale, mode in ((rationale, "cot"), (None, "label")):
        try:
            completion = render_completion(fmt, given_rationale, answer)
        except ValueError:
            assume(False)
        assume("think>" not in completion)
        for f in (fmt, format_named("chat_think"))[: 1 if mode == "cot" else 2]:
            assert parse_completion(f, f"<think>{thought}</think>\n\n{completion}", mode) == parse_completion(f, completion, mode)


def test_a_thinking_student_is_taught_its_thoughts():
    fmt = format_named("chat_think")
    completion = render_completion(fmt, "3 + 2 = 5", "5")
    assert completion == "<think>\n3 + 2 = 5\n</think>\n\n5"
    # a template that opens the block leaves the opening tag out of the completion
    assert parse_completion(fmt, completion) == parse_completion(fmt, completion.removeprefix("<think>\n")) == ("3 + 2 = 5", "5")
    assert parse_completion(fmt, "<think>\n3 + 2 = 5, but wait") == ("3 + 2 = 5, but wait", None)


def test_a_solved_chat_block_does_not_run_into_its_instruction():
    page = render_prompt(format_named("chat"), "Q2", exemplars=[Exemplar("Q1", "R1.", "1")])
    assert "<answer>\n\nR1.\nSo the answer is: 1\n\nQ2\n\n" in page


VARIED = ["So, the answer is: {}", "so the answer is: {}", "So the answer is {}", "**So the answer is:** {}", "So, the answer is **{}**.",
          "Therefore, the answer is: {}", "The answer is: {}", "\nThe final answer is {}", "\n**Answer:** {}", "\n**Final Answer:** {}",
          "So the answer is:\n{}", "Thus, the correct answer is {}."]


@pytest.mark.parametrize("name", ["cotstudy", "chat", "ho_teacher", "wei"])
@pytest.mark.parametrize("said", VARIED)
def test_a_separator_is_found_however_a_chat_model_writes_it(name, said):
    parsed = parse_completion(format_named(name), f"Ann has 3 + 2 = 5 pens. {said.format(5)}")
    assert parsed.answer_text.strip("*.: ") == "5" and parsed.rationale.rstrip("* ") == "Ann has 3 + 2 = 5 pens."


def test_the_very_separator_comes_first():
    fmt = format_named("cotstudy")
    completion = render_completion(fmt, "Some say the answer is: 4.", "5")
    assert parse_completion(fmt, completion) == ("Some say the answer is: 4.", "5")
    for text in ("Ann thinks about the answer.", "The answer depends on Ann.", "So the answers are many.", "3 --> 5"):
        assert parse_completion(fmt, text).answer_text is None
    assert parse_completion(format_named("ho"), "The answer is 5").answer_text is None  # an arrow has no words to vary


def test_long_garbage_is_parsed_quickly():
    import time
    began = time.process_time()
    for unit in ("so ", "answer ", "the answer ", "*", "_", "\n", "so, the final answer", " ", "So the answer is: ", "("):
        for fmt in FORMATS.values(): parse_completion(fmt, unit * (30_000 // len(unit)))
    assert time.process_time() - began < 20
