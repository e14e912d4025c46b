"""Rationales whose writer is gone: read as they were written, kept apart by their question, laid out as they are asked."""
import gzip
import json

import pandas as pd
import pytest
from hypothesis import given, settings as hyp, strategies as st

from cotstudy.decoding import Decoding, Request
from cotstudy.draws import Ledger
from cotstudy.instances import Instance, Task
from cotstudy.prompts import FORMATS, format_named, parse_completion
from cotstudy.recorded import Recorded, lay_out, recorded


def rows(*said, **more):
    return pd.DataFrame([dict(instance=i, draw_index=k, rationale=r, answer_text=a, prediction=None, gold="5", finish_reason="stop",
                              question=None, prompt=None) | more
                         for i, k, r, a in said])


def test_a_file_is_read_plain_or_packed_by_path_or_name(tmp_path, monkeypatch):
    lines = "\n".join(json.dumps(dict(id="q", rationale=f"r{k}", answer_text=str(k))) for k in range(3))
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "toy__x.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "toy.jsonl").write_text(lines)
    monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
    named, plain = recorded("toy__x"), recorded(tmp_path / "toy.jsonl")
    assert named.attrs["name"] == "toy__x" and named.equals(plain) and named.draw_index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("text, message", [
    ('{"x": 1}', "expected `id`"), ('{"id": "q", "draw_index": 0, "rationale": "a"}\n' * 2, "draw 0 of 'q' twice"),
    ("{", "line 1: not JSON"),
    ('{"id": "q", "rationale": ["a"]}', "record 1: `rationale` is a list"),
    *((json.dumps(dict(id="q", rationale="r", draw_index=n)), "the number of a draw") for n in ("x", [0], -1, 0.5, True, None, 1e400)),
    *((json.dumps(dict(id=name, rationale="r")), "`id` is") for name in (None, [1], {}, True)),
    ('{"id": "q", "rationale": "r", "rationale": "s"}', "'rationale' occurs twice")])
def test_files_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message): recorded(tmp_path / "bad.jsonl")


def test_two_questions_that_read_alike_keep_their_own_draws(tmp_path):
    model = Recorded(rows(("a", 0, "of a", "1"), ("b", 0, "of b", "2"), ("a", 1, "more of a", "3"), ("b", 1, "more of b", "4")), "somebody")
    model = model.in_format(format_named("cotstudy"))
    for _ in range(2):
        view = Ledger(tmp_path).draw(model, [("a", "Why?"), ("b", "Why?")], 2, Decoding(1.0, max_tok=50))
        assert [t.split(" So")[0].strip() for t in view.text] == ["of a", "more of a", "of b", "more of b"] and set(view.prompt) == {"Why?"}
    assert Ledger(tmp_path).count() == 4


WORDS = st.text(alphabet="abc 123.", max_size=12).map(str.strip)

@hyp(max_examples=60, deadline=None)
@given(rationale=WORDS, answer=WORDS.filter(bool), fmt=st.sampled_from([f for f in FORMATS.values() if not f.thinks]))
def test_what_is_laid_out_is_read_back(rationale, answer, fmt):
    text = lay_out(rows(("q", 0, rationale, answer)), fmt).text[0]
    found = parse_completion(fmt, text)
    assert found.rationale == rationale and (found.answer_text or "").removesuffix(".").strip() == answer.removesuffix(".").strip()


def test_identity_is_what_was_said():
    one, two, three = (Recorded(rows(("q", 0, r, "5")), n) for r, n in (("a", "x"), ("a", "y"), ("b", "x")))
    assert one.id == two.id != three.id
    a, b = (one.in_format(format_named(f)) for f in ("cotstudy", "ho"))
    assert a.id != b.id and a.in_format(format_named("ho")).id == b.id
    bare = Recorded(pd.DataFrame(dict(instance=["q"], draw_index=[0], text=["5"])), "bare")
    assert bare.in_format(format_named("ho")) is bare  # texts that are laid out already


def test_what_is_not_there():
    model = Recorded(rows(("q", 0, "a", "5")), "somebody")
    with pytest.raises(ValueError, match="in_format"): list(model.complete([Request("Why?", (0,), "q")], Decoding(1.0)))
    asked = model.in_format(format_named("ho"))
    with pytest.raises(ValueError, match="draws .1. were asked"): list(asked.complete([Request("Why?", (0, 1), "q")], Decoding(1.0)))
    with pytest.raises(ValueError, match="has 0 completions of 'p'"): list(asked.complete([Request("Why?", (0,), "p")], Decoding(1.0)))
    with pytest.raises(ValueError, match="without tokens"): asked.decode([1])
    with pytest.raises(ValueError, match="recorded twice"): Recorded(rows(("q", 0, "a", "5"), ("q", 0, "b", "5")), "x")
    with pytest.raises(ValueError, match="lack"): Recorded(pd.DataFrame(dict(instance=["q"])), "x")


@pytest.mark.parametrize("question, fits", [(None, True), ("Which? (A) red (B) blue", True), ("Which? A) red B) blue", True),
                                            ("Which? (A) blue (B) red", False)])
def test_letters_of_other_options_are_refused(question, fits):
    task = Task("shop", "choice", dict(train=(Instance("q", "Which? (A) red (B) blue", "A", ("red", "blue")),), selection=(), test=()))
    model = Recorded(rows(("q", 0, "because", "A"), question=question), "somebody")
    for m in (model, model.in_format(format_named("cotstudy"))):
        if fits: assert m.check(task) is m
        else:
            with pytest.raises(ValueError, match="its letters mean something else.*shop:ho"): m.check(task)
