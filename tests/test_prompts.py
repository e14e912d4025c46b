"""Rendering and parsing are inverse to each other, for every format."""
import pytest
from hypothesis import assume, given, strategies as st

from cotstudy.prompts import FORMATS, Exemplar, check_same_prompt, format_named, parse_completion, render_completion, render_prompt

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
