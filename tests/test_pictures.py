"""The seams of pictures: whole SVG, words for those who cannot see it, numbers that are those given."""
from xml.etree import ElementTree

import pytest

from cotstudy.figures import VERDICT_COLOURS
from cotstudy.pictures import chain, intervals, marks, pipeline, places, spans, trunk

DRAWN = {
    "pipeline": pipeline(), "chain": chain([("a & b", "<c>", "plain")] * 5, "A chain & more.", per_row=2),
    "marks": marks({"row": ["right", "wrong", "lucky", "none", "kept"]}, "Marks.", {"N = 2": 2}), "trunk": trunk(10, [3, 4], ["a", "b"]),
    "spans": spans([("Q: 1 < 2?\nA:", "prompt", "question"), (" yes", "answer", "result")], "Spans."),
    "intervals": intervals([("reproduced", 4.0, 6.0, 8.0)], 3, "One.", VERDICT_COLOURS)}


@pytest.mark.parametrize("name", DRAWN)
def test_is_whole_svg_with_words(name):
    p = DRAWN[name]
    root = ElementTree.fromstring(p.svg())
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert root.get("role") == "img" and root.get("aria-label") == title.text == p.says and len(p.says) > 2
    assert len(p.svg()) < 12_000 and "http" not in p.svg().replace('xmlns="http://www.w3.org/2000/svg"', "")


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_lies_outside_the_sheet(name):
    p = DRAWN[name]
    for e in ElementTree.fromstring(p.svg()).iter():
        if e.tag.endswith("rect") and e.get("x"):
            assert 0 <= float(e.get("x")) and float(e.get("x")) + float(e.get("width")) <= p.width + 0.01
            assert 0 <= float(e.get("y")) and float(e.get("y")) + float(e.get("height")) <= p.height + 0.01


def test_trunk_counts_tokens():
    p = trunk(20, [5, 5, 5])
    assert "35 tokens in place of 75" in p.says and "2.1 times fewer" in p.says


def test_a_long_chain_turns():
    p = chain([(str(k), "", "plain") for k in range(7)], "Seven.", per_row=3)
    assert p.svg().count("<polygon") == 6 and p.height > 3 * 84


@pytest.mark.parametrize("most", [6, 11, 30])
def test_a_text_is_broken_between_words(most):
    text = "Ann has 4 pens, extraordinarily long.\nSo 5"
    lines = {}
    for c, (line, k) in zip(text, where := places(text, most)):
        assert k == len(lines.setdefault(line, "")) < most
        lines[line] += c
    assert len(where) == len(text) and "".join(lines.values()) == text
    whole = {w for w in text.split() if len(w) < most}
    assert whole <= {w for line in lines.values() for w in line.split()}, "a word that fits on a line was cut"


def test_saves_what_it_shows(tmp_path):
    p = pipeline()
    assert p.save(tmp_path / "x" / "p.svg").read_text().strip() == p._repr_svg_()
