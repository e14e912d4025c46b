"""The course: every lesson has its parts, every link leads somewhere, every exercise can be solved, got wrong and left open."""
import json
import math
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from cotstudy.book import broken_links, notebooks, said, text_of
from cotstudy.conditions import Condition
from cotstudy.course import EXERCISES, ask, check, compare, solution
from cotstudy.models import load
from cotstudy.pocket import WORDS_KNOWN
from cotstudy.procedural import procedural_task
from cotstudy.results import good_rows

ROOT = Path(__file__).parent.parent
COURSE = ROOT / "nbs" / "course"
LESSONS = sorted(COURSE.glob("[1-8]_*.ipynb"))
BESIDE = [COURSE / "solutions.ipynb", COURSE / "instructor.ipynb"]
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
each_exercise = pytest.mark.parametrize("number", sorted(EXERCISES))


def cells(path): return nbformat.read(path, 4).cells


def links(text): return re.findall(r"\]\(([^)]+)\)", text)


def test_there_are_eight_lessons_and_what_belongs_to_them():
    assert [p.name[0] for p in LESSONS] == list("12345678") and all(p.exists() for p in BESIDE)
    assert sorted(EXERCISES) == [f"{lesson}.{k}" for lesson in range(1, 9) for k in (1, 2, 3)]
    assert {*LESSONS, *BESIDE} <= set(notebooks(ROOT)), "the book's tools do not see the course"


@each_lesson
def test_a_lesson_has_its_parts(path):
    nb, text, number = cells(path), text_of(path), path.name[0]
    assert re.match(rf"# {number} · .+\n\n> .+", nb[0].source), "a title and a line below it"
    assert "**Ten minutes. Afterwards you can**" in nb[2].source and nb[2].source.count("\n* ") >= 3
    drawn = [k for c in nb for o in c.get("outputs", []) for k in o.get("data", {}) if k.startswith("image/")]
    assert drawn, "a lesson without a picture"
    assert [s for s in ("## Exercises", "**What to keep.**", "**The end") if s in text][:1] == ["## Exercises"]
    asked = [k for c in nb if c.cell_type == "code" for k in re.findall(r'^ask\("(\d\.\d)"\)', c.source, re.M)]
    checked = [k for c in nb if c.cell_type == "code" for k in re.findall(r'^check\("(\d\.\d)"', c.source, re.M)]
    assert asked == checked == [f"{number}.{k}" for k in (1, 2, 3)]


@each_lesson
def test_a_guess_comes_before_its_result(path):
    kinds = [("guess" if c.source.startswith("guess = ") else "compare") for c in cells(path)
             if c.cell_type == "code" and (c.source.startswith("guess = ") or re.search(r"^compare\(guess", c.source, re.M))]
    assert kinds and kinds == ["guess", "compare"] * (len(kinds) // 2)
    assert all("..." in c.source for c in cells(path) if c.source.startswith("guess = "))


@each_lesson
def test_a_lesson_leads_back_on_and_to_the_contents(path):
    nb, k = cells(path), LESSONS.index(path)
    expected = [LESSONS[k - 1].name] * (k > 0) + ["../index.ipynb#The-course"] + [p.name for p in LESSONS[k + 1:k + 2]]
    assert links(nb[1].source) == links(nb[-1].source) == expected


def test_links_of_the_course_lead_somewhere():
    assert not (broken := broken_links(ROOT, [*LESSONS, *BESIDE])), "\n".join(broken)


def test_the_index_leads_to_the_course_first():
    shown = (ROOT / "README.md").read_text()
    assert links(shown.partition("## The course")[2])[:8] == [f"nbs/course/{p.name}" for p in LESSONS]
    assert shown.index("## ") == shown.index("## The course") < shown.index("## The book")


@each_lesson
def test_no_number_of_the_prose_is_typed(path):
    "A number of two digits or more, or one with a point, stands in the cells or in what they print; years and scales of papers excepted."
    nb = cells(path)
    made = "\n".join([c.source for c in nb if c.cell_type == "code"] + [said(c) for c in nb if c.cell_type == "code"])
    prose = "\n".join(c.source for c in nb if c.cell_type == "markdown")
    prose = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|95 %|\(The papers'.*?\)|up to 6\.7 billion|\b2023\b", "", prose, flags=re.S)
    typed = {n for n in re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*", prose) if len(n) > 1}
    known = set(re.findall(r"\d+(?:[.,]\d+)*", made)) | {f"{float(n) * 100:.0f}" for n in re.findall(r"0\.\d+", made)}
    assert not typed - known


@pytest.mark.parametrize("path", [*LESSONS, *BESIDE], ids=lambda p: p.stem)
def test_stored_outputs_are_of_open_dots(path):
    told = [said(c) for c in cells(path) if re.search(r"^check\(", c.source, re.M)]
    assert all(t.startswith("◦ ") for t in told) and len(told) == (3 if path in LESSONS else 0)


def test_every_exercise_has_a_solution_that_passes():
    found = {k: said(c) for c in cells(BESIDE[0]) if c.cell_type == "code" for k in re.findall(r'^solution\("(\d\.\d)"', c.source, re.M)}
    assert sorted(found) == sorted(EXERCISES)
    assert all(f"✓ **{k} is right.**" in text for k, text in found.items())


@pytest.fixture(scope="module")
def made():
    score = dict(label_only=pd.Series([0, 0, 0, 1, 1, 1.0]), cot=pd.Series([1, 1, 0, 0, 1, 1.0]))
    arms = pd.DataFrame(dict(n_rationales=[1, 4, 16, 30], accuracy=[0.3, 0.5, 0.58, 0.6]))
    base, tokenizer = Condition(task="arith", method="label_only"), load("pocket/s").tokenizer
    return {"2.1": dict(tokenizer=tokenizer), "2.2": dict(tokenizer=tokenizer), "3.1": dict(score=score),
            "3.2": dict(base=base, n_chains=100), "3.3": dict(base=base), "5.2": dict(arms=arms),
            "7.2": dict(task=procedural_task("arith", 8, 3, 4))}


BASE = Condition(task="arith", method="label_only")
WRONG = {  # mistakes that somebody makes, and a piece of the hint for each
    "1.1": (["question", "corpus", "draws", "student", "answers"], "too early"), "1.2": ("4 + 3 = 7. So the answer is: 5", "missing"),
    "1.3": (3200, "drawn"), "2.1": (5, "Too few"), "2.2": ("pens", "whole pieces"), "2.3": (math.log2(len(WORDS_KNOWN)), "bits"),
    "3.1": (4, "altogether"), "3.2": (1.0, "shared out"), "3.3": (BASE.with_(method="greedy_cot"), "method"),
    "4.1": ("4 + 3 = 7. 7 - 2 = 5. So the answer is: 5", "sound"), "4.2": (dict(correct="abcef", sound="ae"), "does not keep c"),
    "4.3": (0.15, "kept"), "5.1": (6400, "there already"), "5.2": (4, "three points"), "5.3": ((12, 12), "different"),
    "6.1": (100, "points to each side"), "6.2": ([1] * 20 + [0] * 10, "read"), "6.3": (1.0, "none"),
    "7.1": ("{'question': 'x'}", "stumbles"), "7.2": (3, "two parts"), "7.3": ("scenario", "same build"), "8.1": (0.192, "reading"),
    "8.2": (dict.fromkeys(["pocket/teacher", "hub/facebook/opt-125m", "api:gpt-4o-mini", "recorded:NAME"], "ships"), "opt-125m"),
    "8.3": ("parsed", "without gold")}


@each_exercise
def test_a_wrong_answer_gets_a_hint(number, made):
    answer, piece = WRONG[number]
    found = check(number, answer, **made.get(number, {}))
    assert not found and found.text.startswith(f"✗ **{number}**") and piece in found.text
    with pytest.raises(AssertionError): solution(number, answer, **made.get(number, {}))


@each_exercise
@pytest.mark.parametrize("odd", [None, "", "seven", -1, 1e400, [], {}, (1, 2), object(), True],
                         ids=["none", "empty", "word", "negative", "endless", "list", "dict", "pair", "object", "true"])
def test_no_answer_ends_in_a_traceback(number, odd, made):
    assert not check(number, odd, **made.get(number, {}))


@each_exercise
def test_an_open_exercise_is_only_open(number, made):
    for answer in (..., [...], (1, ...), dict(correct=...)):
        found = check(number, answer, **made.get(number, {}))
        assert not found and found.text.startswith("◦") and "waiting" in found.text
    assert ask(number).text.startswith(f"**Exercise {number}.**")


def test_other_right_answers_are_right_too(made):
    assert check("1.1", ["Question", "draws ", "corpus", "student", "answers"])
    assert check("1.2", "Ann buys 3, so 4 plus 3 is 7. Then 7 minus 2 is 5. So Ann has 5 pens. So the answer is: 5")
    assert "digits" in check("1.2", "4 + 3 = 7. 7 - 2 = 5. So the answer is: five").text
    assert "not all of it" in check("4.1", "4 + 3 = 7. So the answer is: 5").text
    assert check("5.2", "16", **made["5.2"]) and check("6.1", "1064") and not check("6.1", 1050)
    assert check("4.2", dict(correct="a, b and e", sound="a, e"))
    assert "cannot read" in check("7.1", "[" * 100_000).text
    assert check("4.1", "7 - 2 = 5. 4 + 4 = 7. So the answer is: 5") and check("4.2", dict(correct="a, b, e", sound=["a", "e"]))
    assert check("5.2", 16, **made["5.2"]) and check("7.1", json.dumps(dict(answer="11", question="Dora has 6 cups. Dora finds 5 more.")))
    assert check("7.3", "`template`") and all(check("8.3", f) for f in ("correct", "sound"))


def test_what_an_exercise_needs_must_be_handed_over():
    with pytest.raises(TypeError): check("2.1", 6)
    with pytest.raises(KeyError, match="no exercise '9.9'"): check("9.9", 6)


def test_guesses_beside_measurements():
    open_ = compare(dict(a=..., b=...), dict(a=1.0, b=2.0))
    assert open_.text.count("no guess") == 2 and "No guess this time" in open_.text
    mixed = compare(dict(a=50, b="labels", c="x"), dict(a=(52.0, 48.0, 56.0), b="rationales", c=3.0), " %")
    assert "inside the interval" in mixed.text and "another one" in mixed.text and "not a number" in mixed.text
    assert "missed" in mixed.text and "missed" not in compare(dict(a=50), dict(a=(52.0, 48.0, 56.0))).text
    assert "no guess" in compare({}, dict(a=1.0)).text and "off by 2 points" in compare(dict(a=1), dict(a=3.0), " %").text


def test_stored_numbers_of_the_lessons_are_those_of_the_rows():
    rows = good_rows(pd.read_parquet(ROOT / "outputs" / "pocket" / "rows.parquet"))
    cot = rows[(rows.task == "arith") & (rows.method == "cot")]
    cot = cot[cot.student == cot.loc[cot.n_params.idxmax(), "student"]]
    most = cot[cot.n_rationales == cot.n_rationales.max()]
    one = most[most.seed == 1]
    for lesson, accuracy in (("1_", most.accuracy.mean()), ("5_", most.accuracy.mean()), ("6_", one.accuracy.mean())):
        told = "\n".join(said(c) for p in LESSONS if p.name.startswith(lesson) for c in cells(p) if c.cell_type == "code")
        written = f"{100 * accuracy:.1f} %", f"{100 * accuracy:.3g} %"
        assert any(w in told for w in written), f"lesson {lesson[0]} was executed with other rows: cotstudy book"
