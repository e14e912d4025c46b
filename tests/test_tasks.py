"""The table of names, and a user's own file with everything that can be wrong with it."""
import gzip
import json
import time

import pytest
from hypothesis import given, settings, strategies as st

from cotstudy.instances import Instance, SPLITS, Task, leakage
from cotstudy.quantities import number_of
from cotstudy.tasks import (FAMILIES, TASKS, exemplars_for, kind_and_why, load, outline, question_key, read_own, same_key,
                            situations, task_table, why_kind)

OK = ('{"question": "Ann has 3 pens. How many?", "answer": "3"}\n'
      '{"question": "Bob has 4 pens. How many?", "answer": "4"}\n'
      '{"question": "Cy has 5 pens. How many?", "answer": "5"}\n')


def own(tmp_path, text, name="mine.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return path


def line(**kw): return json.dumps(dict(question="Who?", answer="x") | kw)


def choice(answer="A", options=("red", "blue"), **kw):
    return line(answer=answer, options=list(options) if isinstance(options, tuple) else options, **kw)


BAD = [  # (line that stands third in the file, what the error must say)
    ("Ann has 3 pens.", "not a JSON object"), ("{", "not a JSON object"), ("}", "not a JSON object"),
    ('{"question": "a"', "not a JSON object"),
    ("{'question': 'a', 'answer': 'b'}", "not a JSON object"), ('{"question": "a", "answer": "b",}', "not a JSON object"),
    ('{"question": "a", "answer": "b"} x', "not a JSON object"), (line() + line(), "not a JSON object"),
    (line() + "," , "not a JSON object"),
    ("question,answer", "not a JSON object"), ("undefined", "not a JSON object"), ("{question: 1}", "not a JSON object"),
    ("\x00", "not a JSON object"),
    ('{"question": "a\tb", "answer": "c"}', "not a JSON object"), ('{"question": "a", "answer": 0x10}', "not a JSON object"),
    ('{"question": "a", "answer": 01}', "not a JSON object"),
    ('{"question": "a", "answer": .5}', "not a JSON object"), ('{"question": "a", "answer": +5}', "not a JSON object"),
    ('{"question": "a", "answer": ' + "9" * 5000 + "}", "not a JSON object"),
    ('{"question": "\\x", "answer": "b"}', "not a JSON object"), ('{"question": "\\u12", "answer": "b"}', "not a JSON object"),
    ("[" * 100_000, "not a JSON object"),
    ("[]", "a list"), ("[1, 2]", "a list"), ('"text"', "a str"), ("3", "a int"), ("3.5", "a float"), ("true", "a bool"),
    ("null", "a NoneType"), ("NaN", "a float"), ('[{"question": "a"}]', "a list"),
    ("{}", "no `question`"), ('{"answer": "b"}', "no `question`"), ('{"question": "a"}', "no `answer`"),
    ('{"question": null, "answer": "b"}', "no `question`"),
    ('{"question": "a", "answer": null}', "no `answer`"), (line(question=None), "no `question`"),
    ('{"Question": "a", "answer": "b"}', "unknown field 'Question'"), ('{"prompt": "a", "answer": "b"}', "unknown field 'prompt'"),
    (line(gold="x"), "unknown field 'gold'"),
    (line(label=1), "unknown field 'label'"), (line(choices=["a", "b"]), "unknown field 'choices'"), (line(**{"": 1}), "unknown field ''"),
    (line(**{"question ": "x"}), "unknown field 'question '"),
    ('{"question": "a", "question": "b", "answer": "c"}', "occurs twice"),
    ('{"question": "a", "answer": "b", "answer": "b"}', "occurs twice"), (line().replace("}", ', "id": 1, "id": 2}'), "occurs twice"),
    (line(question=3), "`question` is a int"), (line(question=["a"]), "`question` is a list"),
    (line(question={"text": "a"}), "`question` is a dict"), (line(question=True), "`question` is a bool"),
    (line(question=""), "`question` is empty"), (line(question="   "), "`question` is empty"),
    (line(question="\n\t"), "`question` is empty"),
    (line(answer=""), "`answer` is empty"), (line(answer="  "), "`answer` is empty"), (line(answer=True), "`answer` is a bool"),
    (line(answer=False), "`answer` is a bool"),
    (line(answer=["3"]), "`answer` is a list"), (line(answer={"value": 3}), "`answer` is a dict"), (line(answer=[]), "`answer` is a list"),
    ('{"question": "a", "answer": NaN}', "is nan"), ('{"question": "a", "answer": Infinity}', "`answer` is"),
    ('{"question": "a", "answer": -Infinity}', "`answer` is"), ('{"question": "a", "answer": 1e999}', "`answer` is inf"),
    (line(id=""), "`id` is empty"), (line(id=" "), "`id` is empty"), (line(id=1.5), "`id` is a float"), (line(id=True), "`id` is a bool"),
    (line(id=["a"]), "`id` is a list"), (line(id={}), "`id` is a dict"),
    (line(template=3), "`template` is a int"), (line(template=["a"]), "`template` is a list"), (line(rationale=3), "`rationale` is a int"),
    (line(rationale=["step"]), "`rationale` is a list"),
    (choice(options="red"), "`options` is a str"), (choice(options={"A": "red"}), "`options` is a dict"),
    (choice(options=2), "`options` is a int"), (choice(options=True), "`options` is a bool"),
    (choice(options=()), "0 options"), (choice(options=("red",)), "1 options"), (choice(options=tuple("abcdefghi")), "9 options"),
    (choice(options=("red", "red")), "occurs twice"), (choice(options=("red", " red ")), "occurs twice"),
    (choice(options=("red", 1, "1")), "occurs twice"),
    (choice(options=("red", "")), "option '' is not a text"), (choice(options=("red", None)), "option None is not a text"),
    (choice(options=("red", ["blue"])), "is not a text"),
    (choice(options=("red", {"text": "blue"})), "is not a text"), (choice(options=("red", True)), "is not a text"),
    ('{"question": "a", "answer": "A", "options": ["red", NaN]}', "is not a text"),
    (choice("C"), "not among the options"), (choice("green"), "not among the options"), (choice("redd"), "not among the options"),
    (choice(2), "not among the options"), (choice("A, B"), "not among the options"),
    (choice("AB"), "not among the options"), (choice("Z"), "not among the options"), (choice("()"), "not among the options"),
    (choice(0), "not among the options"),
    (line(question="Ann has 3 pens. How many?"), "also on line 1"), (line(question=" Bob has 4 pens. How many? "), "also on line 2"),
    (choice("x" * 1000), "not among the options"), (choice(), "unlike the lines before"), (line(question="a\ud800b"), "not text"),
    (line(answer="\udfff"), "not text"), (line(question="a\0b"), "not text"),
    (line(question="\u200b"), "`question` is empty"), (line(answer="\ufeff"), "`answer` is empty"),
    (choice("red", options=("red", "\ud800")), "`options` holds a character"),
]


def test_there_are_about_a_hundred(): assert len(BAD) >= 100 and len({b for b, _ in BAD}) == len(BAD)


@pytest.mark.parametrize("k", range(len(BAD)))
def test_malformed_lines_give_one_clear_line(k, tmp_path):
    bad, says = BAD[k]
    two = OK.split("\n")[:2]
    with pytest.raises(ValueError) as e: load(own(tmp_path, "\n".join([*two, bad, ""])))
    text = str(e.value)
    assert text.startswith("mine.jsonl, line 3: ") and says in text and "\n" not in text and len(text) < 400


@pytest.mark.parametrize("text, says", [
    ("", "0 questions"), ("\n\n", "0 questions"), (OK.split("\n")[0], "1 questions"), (b"\xff\xfe" + OK.encode("utf-16-le"), "UTF-8"),
    (OK.encode() + b'{"question": "\xe9", "answer": "x"}', "UTF-8"),
    (OK.replace("}\n", ', "id": "a"}\n'), "line 2: id 'a' is also on line 1"),
    (OK.replace("}\n", ', "template": "one"}\n'), "nothing is left"),
])
def test_malformed_files(text, says, tmp_path):
    with pytest.raises(ValueError, match=says) as e: load(own(tmp_path, text))
    assert "\n" not in str(e.value) and "mine.jsonl" in str(e.value)


def test_not_gzip_and_not_there(tmp_path):
    with pytest.raises(ValueError, match="gzip"): load(own(tmp_path, OK, "mine.jsonl.gz"))
    with pytest.raises(FileNotFoundError, match="no file"): load(tmp_path / "none.jsonl")


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: "\n\n" + t.replace("\n", "\n\n"),
                                    lambda t: t.rstrip("\n"), lambda t: "  " + t.replace("\n", "  \n  ")])
def test_harmless_differences(change, tmp_path):
    assert [i.question for i in read_own(own(tmp_path, change(OK)))[1]] == [i.question for i in read_own(own(tmp_path, OK))[1]]


def test_gzipped(tmp_path):
    assert read_own(own(tmp_path, gzip.compress(OK.encode()), "mine.jsonl.gz"))[0] == "number"


def many(tmp_path, answers, n=20, **kw):
    rows = [dict(question=f"Question {k}?", answer=answers[k % len(answers)], **{a: b(k) for a, b in kw.items()}) for k in range(n)]
    return own(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("answers, options, kind, labels, chance", [
    ((5, "1,000", 2.5, "$3"), None, "number", (), 0.0),
    ((5, "1/2", "50%", 1e-5, "1e3", "2 1/2", "\u22123", "$1,000", "10^6"), None, "number", (), 0.0),
    (("Yes", "no"), None, "yesno", ("yes", "no"), 0.5), (("red", "blue", "green"), None, "label", ("blue", "green", "red"), 1 / 3),
    (("B", "red"), ["red", "blue"], "choice", ("A", "B"), 0.5),
    (("(b)", "a"), ["red", "blue", "green", "black"], "choice", tuple("ABCD"), 0.25),
    ((1.0, 2.5, "1"), [1.0, 2.5], "choice", ("A", "B"), 0.5), ([f"word {k}" for k in range(20)], None, "text", (), 0.0)])
def test_kind_labels_and_chance_are_derived(answers, options, kind, labels, chance, tmp_path):
    task = load(many(tmp_path, answers, **({"options": lambda k: options} if options else {})))
    assert (task.kind, task.labels, task.chance) == (kind, labels, pytest.approx(chance))
    n_train, n_selection, n_test = (len(task.split(s)) for s in SPLITS)
    assert n_train + n_selection + n_test == 20 and n_selection == 1 and 4 <= n_test <= 8  # about 30 %, each question by its own text
    if kind in ("choice", "label", "yesno"): assert {i.answer for s in SPLITS for i in task.split(s)} <= set(labels)


def test_options_are_shown_once(tmp_path):
    lines = [json.dumps(dict(question=q, options=["red", "blue"], answer="blue"))
             for q in ("Which?", "Which one (A) red (B) blue?", "What?")]
    shown = [i.question for i in read_own(own(tmp_path, "\n".join(lines)))[1]]
    assert shown == ["Which? Answer Choices: (A) red (B) blue", "Which one (A) red (B) blue?", "What? Answer Choices: (A) red (B) blue"]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(8, 60), groups=st.integers(4, 9), seed=st.integers(0, 99))
def test_own_splits_are_disjoint_and_templates_stay_together(n, groups, seed, tmp_path_factory):
    path = many(tmp_path_factory.mktemp("own"), (1, 2, 3), n, template=lambda k: f"t{k % groups}", id=lambda k: f"q{k}")
    task = load(path, seed=seed)
    ids = [{i.id for i in task.split(s)} for s in SPLITS]
    assert len(set().union(*ids)) == sum(map(len, ids)) == n and all(ids)
    seen = {i.template for s in ("train", "selection") for i in task.split(s)}
    assert not seen & {i.template for i in task.split("test")}
    again = load(path, seed=seed)
    assert all(task.split(s) == again.split(s) for s in SPLITS)


def test_sizes_of_an_own_task(tmp_path):
    path = many(tmp_path, (1, 2, 3))
    assert [len(load(path, n_train=4, n_selection=2, n_test=3).split(s)) for s in SPLITS] == [4, 2, 3]
    n_train, _, n_test = (len(load(path).split(s)) for s in SPLITS)
    for kw in (dict(n_train=n_train + 1), dict(n_test=n_test + 1), dict(n_selection=n_train + 1), dict(n_train=-1)):
        with pytest.raises(ValueError, match="ask for fewer|nothing is left"): load(path, **kw)


def test_unknown_names_come_with_close_ones():
    with pytest.raises(KeyError, match="multiarith"): load("multarith")
    with pytest.raises(KeyError, match="strategy_qa"): load("strategyqa")
    with pytest.raises(KeyError, match="there are"): load("zzzzzz")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads(name):
    task = load(name, n_train=5, n_selection=2, n_test=3, seed=1)
    assert [len(task.split(s)) for s in SPLITS] == [5, 2, 3] and task.kind == outline(name).kind and task.labels == outline(name).labels


@pytest.mark.parametrize("args", [None, "", "{}", '{"exemplars": "gone.jsonl"}', '{"difficulty": {"hops": [1, 9]}}', "[1]", "{"])
def test_what_questions_are_about_never_stands_in_the_way_of_reading_results(args):
    assert len(situations("relations", args)) in (0, 1000) and situations("gsm8k", args) == {} == situations("relations:nowhere", args)
    with pytest.raises(TypeError): situations("relations")["x"] = "y"


def test_difficulty_reaches_the_family():
    hard = load("arith", n_train=2, n_selection=1, n_test=1, difficulty=dict(steps=[8, 8]))
    assert all(e.question.count(".") > 7 for e in (*exemplars_for(hard, 3), *hard.split("test")))  # as hard
    with pytest.raises(ValueError, match="no difficulty"): load("arith", n_train=1, n_selection=1, n_test=1, difficulty=dict(nonsense=3))
    assert load("arith", n_train=2, n_selection=1, n_test=1, difficulty=dict(FAMILIES["arith"].difficulty)).split("train")


def test_outlines_need_no_data(monkeypatch, tmp_path):
    monkeypatch.delenv("COTSTUDY_DATA", raising=False)
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path))
    for name in TASKS:
        task = outline(name)
        assert isinstance(task, Task) and not any(task.split(s) for s in SPLITS)
    assert outline("date_understanding:ho").rule_key == "date_understanding" and outline("sst2_sentences").rule_key == "sst2"


def test_table_without_data(monkeypatch, tmp_path):
    monkeypatch.delenv("COTSTUDY_DATA", raising=False)
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path))
    table = task_table(["coin", "multiarith", "aqua"]).set_index("name")
    assert list(table) == ["kind", "n_train", "n_selection", "n_test", "chance", "split_rule", "source", "revision", "sha256", "licence",
                           "verified"]
    assert table.n_test["coin"] == 500 and table.n_test.isna()["multiarith"] and table.verified.tolist() == [True, True, False]
    assert "5ef330fcdeec0cd26aee27943504f91f8ec1c33c" in table.source["multiarith"] and table.revision["multiarith"]
    assert table.sha256["multiarith"].startswith("dc9db1b6") and table.sha256["aqua"].startswith("- 4a52301d")
    assert "70:30" in table.split_rule["multiarith"]


def test_table_with_data(data_dir):
    table = task_table(["multiarith", "multiarith:template", "quarel"]).set_index("name")
    assert table.n_test.tolist() == [180, 187, 278] and table.verified.all()


@pytest.mark.parametrize("name", ["coin", "arith", "arith:template", "sentiment:contrast"])
def test_exemplars_are_neither_taught_nor_asked(name):
    task = load(name, n_train=40, n_selection=10, n_test=40)
    shown = exemplars_for(task, 5)
    elsewhere = {i.question for s in SPLITS for i in task.split(s)}
    assert len({s.question for s in shown}) == 5 and not {s.question for s in shown} & elsewhere and all(s.rationale for s in shown)
    assert exemplars_for(task, 5) == shown and exemplars_for(task, 0) == () and exemplars_for(task, 3) == shown[:3]


def test_exemplars_of_an_own_file_are_kept_out_of_its_splits(tmp_path):
    mine = load(many(tmp_path, tuple(range(1, 61)), n=60, rationale=lambda k: f"because {k}"))
    shown, elsewhere = exemplars_for(mine, 5), {i.question for s in SPLITS for i in mine.split(s)}
    assert len(shown) == 5 and not {s.question for s in shown} & elsewhere
    numbers = [(s.question.split()[1][:-1], s.rationale.split()[1]) for s in shown]
    assert numbers and all(a == b for a, b in numbers)
    with pytest.raises(ValueError, match="`rationale`"): exemplars_for(load(many(tmp_path, (1, 2))), 2)


def test_no_test_question_has_a_template_that_was_taught():
    for name in ("arith:template", "dates:template"):
        task = load(name, n_train=100, n_selection=20, n_test=60)
        assert leakage([*task.split("train"), *task.split("selection")], task.split("test"))["template"] == 0
        assert leakage(load(name.split(":")[0], n_train=100, n_test=60).split("train"), task.split("test"))["scenario"] == 0


def test_contrast_questions_flip_the_answers_of_the_plain_ones():
    plain, edited = (load(n, n_train=9, n_selection=2, n_test=30) for n in ("sentiment", "sentiment:contrast"))
    pairs = list(zip(plain.split("test"), edited.split("test")))
    assert len(pairs) == 30 and all(a.answer != b.answer for a, b in pairs)
    assert [i.question for i in plain.split("train")] == [i.question for i in edited.split("train")]
    for a, b in pairs:
        words = [(x, y) for x, y in zip(a.question.split(), b.question.split()) if x != y]
        assert len(a.question.split()) == len(b.question.split()) and len(words) == 1


def test_instances_are_instances(tmp_path):
    assert all(isinstance(i, Instance) for s in SPLITS for i in load(many(tmp_path, (1, 2, 3))).split(s))


# --- numbers, kinds, ids ---

@pytest.mark.parametrize("given, gold", [(0.00005, "0.00005"), (1e3, "1000"), (1e22, "1" + "0" * 22), (-2.50, "-2.5"), (7, "7"),
                                         ("1e3", "1000"), ("$1,250.50", "1250.5"), ("1/2", "0.5"), ("50%", "50%"), ("\u22123", "-3"),
                                         ("-0.0", "0")])
def test_numbers_become_plain(given, gold, tmp_path):
    answers = {i.answer for i in read_own(many(tmp_path, (given, 1)))[1]}
    assert answers == {gold, "1"}


@settings(max_examples=60, deadline=None)
@given(x=st.one_of(st.integers(-10**15, 10**15), st.floats(-1e12, 1e12, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-12)))
def test_a_json_number_keeps_its_value(x, tmp_path_factory):
    from fractions import Fraction
    gold = read_own(many(tmp_path_factory.mktemp("n"), (x, 1)))[1][0].answer
    assert number_of(gold).value == Fraction(str(x))


def test_gsm8k_answers_are_taken_apart(tmp_path):
    kind, items, rationales = read_own(many(tmp_path, ("He adds. <<1+1=2>>2 it is.\n#### 1,002", "#### 7")))
    assert kind == "number" and [i.answer for i in items[:2]] == ["1002", "7"] and rationales[:2] == ["He adds. 2 it is.", ""]
    with pytest.raises(ValueError, match="mine.jsonl, line 1: `answer` ends in `####`"):
        read_own(many(tmp_path, ("He adds. #### ", "#### 7")))


def test_the_kind_says_why_and_names_the_odd_one(tmp_path):
    assert why_kind(many(tmp_path, (1, "2/3"))) == ("number", "all 20 answers are numbers, such as '1'")
    kind, why = why_kind(many(tmp_path, tuple(range(9)) + ("5 pens",)))
    assert kind == "text" and "18 of 20 are numbers, but not '5 pens' (question 10)" in why
    assert kind_and_why(["red", "blue"] * 5, [()] * 10)[0] == "label"
    assert kind_and_why(["Yes", "no"], [(), ()])[0] == "yesno" and kind_and_why(["A"], [("x", "y")])[0] == "choice"


@settings(max_examples=60, deadline=None)
@given(n=st.integers(10, 60), seed=st.integers(0, 9), at=st.integers(0, 60))
def test_an_inserted_line_moves_no_id_and_hardly_a_question(n, seed, at, tmp_path_factory):
    path = many(tmp_path_factory.mktemp("own"), (1, 2, 3), n)
    old = load(path, seed=seed)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:at], line(question="A new one?", answer="4"), *lines[at:]]))
    new = load(path, seed=seed)
    def by_question(task): return {i.question: i.id for s in SPLITS for i in task.split(s)}
    assert by_question(old).items() <= by_question(new).items()
    def asked(task, *splits): return {i.question for s in splits for i in task.split(s)}
    moved = asked(old, "test") & asked(new, "train", "selection") | asked(old, "train", "selection") & asked(new, "test")
    n_test = len(asked(old, "test"))
    assert len(moved) <= (0 if 0.2 * n + 1 < n_test < 0.4 * n - 1 else 1)  # only where a side would become far too small


def test_ids_follow_the_text_but_not_its_case_spaces_or_marks(tmp_path):
    assert question_key("How  many, then?") == question_key("how many then")
    assert question_key("**How** many&nbsp;then?") == question_key("How many `then`") and question_key("2 * 3") != question_key("2 3")
    assert question_key("-5 + 2?") != question_key("5 + 2?") and question_key("1.5") != question_key("15")
    assert question_key("3 < 4?") != question_key("3 > 4?") and question_key("?") != question_key("!") and len(question_key("x")) == 12
    with pytest.raises(ValueError, match="line 2: question 'WHO is it' is also on line 1"):
        read_own(own(tmp_path, line(question="Who is it?") + "\n" + line(question="WHO is  it")))
    assert read_own(many(tmp_path, (1, 2), id=lambda k: f"q{k}"))[1][3].id == "q3"


SHOWN = ('{"question": "Ann has 3 pens. How many?", "rationale": "She has 3.", "answer": 3}\n'
         '{"question": "Bob has 4 pens. How many?", "rationale": "He has 4.", "answer": "4"}\n')


def test_a_users_exemplars_are_shown_and_not_asked(tmp_path):
    shown = own(tmp_path, SHOWN, "shown.jsonl")
    mine = many(tmp_path, tuple(range(1, 61)), n=60, rationale=lambda k: f"because {k}")
    plain = load(mine)
    asked = next(i.question for i in plain.split("test"))
    shown.write_text(SHOWN + json.dumps(dict(question=asked, rationale="It is so.", answer="1")) + "\n")
    task = load(mine, exemplars=str(shown))
    assert [s.answer for s in exemplars_for(task, 3)] == ["3", "4", "1"] and exemplars_for(task, 1) == exemplars_for(task, 3)[:1]
    assert {i.question for i in plain.split("test")} - {i.question for i in task.split("test")} == {asked}
    assert [i for i in plain.split("train") if i.question != asked] == list(task.split("train"))
    with pytest.raises(ValueError, match="was given 3 exemplars, asked for 4"): exemplars_for(task, 4)


def test_an_exemplar_that_begins_like_every_question_is_refused(tmp_path):
    lines = [dict(question=f"Which of these is heavier? Options: stone {k}, feather {k}.", answer=f"stone {k}") for k in range(40)]
    mine = tmp_path / "heavier.jsonl"
    mine.write_text("".join(json.dumps(x) + "\n" for x in lines))
    shown = tmp_path / "shown.jsonl"
    shown.write_text(json.dumps(dict(question="Which of these is heavier? Options: iron, air.", rationale="Iron.", answer="iron")) + "\n")
    with pytest.raises(ValueError, match="begin like one that is shown solved"): load(mine, exemplars=str(shown))


@pytest.mark.parametrize("text, says", [
    ("", "has no records"), ('{"question": "a", "answer": "b"}', "record 1: no `rationale`"), ("{", "line 1: not JSON"),
    ('{"question": "a", "rationale": ["b"], "answer": "c"}', "`rationale` is a list"),
    (SHOWN + '{"question": " ", "rationale": "b", "answer": "c"}', "record 3: no `question`")])
def test_exemplars_that_are_none_are_one_line(tmp_path, text, says):
    with pytest.raises(ValueError) as e: load("arith", exemplars=own(tmp_path, text, "shown.jsonl"), n_train=4)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_given_exemplars_stand_in_the_prompts_of_teacher_and_student(tmp_path):
    from cotstudy.conditions import Condition, Teacher, row_id
    from cotstudy.prompts import Exemplar
    from cotstudy.runs import exam_of, exemplars as shown_of
    shown, small = own(tmp_path, SHOWN, "shown.jsonl"), dict(n_train=4, n_selection=1, n_test=2)
    cond = Condition(task="arith", task_args=small | dict(exemplars=str(shown)), method="few_shot_cot", student="pocket/xs", n_exemplars=2,
                     teacher=Teacher(n_exemplars=2))
    exam = exam_of(cond, load("arith", **cond.task_args))
    assert [e.answer for e in exam.voice.shown] == ["3", "4"] and isinstance(exam.voice.shown[0], Exemplar)
    assert shown_of(exam.task, cond.teacher.n_exemplars) == exam.voice.shown
    prompts = [prompt for _, prompt in exam.voice.prompts(exam.asked)]
    assert len(prompts) == 2 and all(0 < p.index("She has 3.") < p.index("He has 4.") for p in prompts)
    assert row_id(cond) != row_id(cond.with_(task_args=small))


@pytest.mark.parametrize("answers, kind, n_labels", [
    (["True", "true", "False"], "label", 2), (["Yes.", "No", "no", "Yes"], "yesno", 2), (["Positive", "positive", "negative"], "label", 2),
    (["(A)", "A", "b", "(B)"], "label", 2), (["red", "Red", "RED", "red.", "'red'", "blue", "Blue", "blue."], "label", 2),
    (["non-toxic", "non toxic", "toxic"], "label", 2), (["the cat", "Cat", "dog"], "label", 2)])
def test_spellings_of_one_answer_are_one_class(tmp_path, answers, kind, n_labels):
    rows = [line(question=f"Case {k}, how is it?", answer=answers[k % len(answers)]) for k in range(40)]
    task = load(str(own(tmp_path, "\n".join(rows))))
    assert (task.kind, len(task.labels), task.chance) == (kind, n_labels, 1 / n_labels)
    assert {i.answer for s in SPLITS for i in task.split(s)} <= set(task.labels)


def test_numbers_with_units_are_told_about(tmp_path):
    rows = [line(question=f"Ann has {k} pens. How many?", answer=f"{k} pens") for k in range(40)]
    assert "8 for 8 pens" in why_kind(own(tmp_path, "\n".join(rows)))[1]


def test_a_question_with_its_options_in_another_order_falls_to_the_same_side(tmp_path):
    rows = [choice(question=f"Which is it, case {k}?", options=options, answer=f"blue {k}") for k in range(40)
            for options in ((f"red {k}", f"blue {k}", f"green {k}"), (f"green {k}", f"red {k}", f"blue {k}"))]
    task = load(str(own(tmp_path, "\n".join(rows))))
    test = {same_key(i.question) for i in task.split("test")}
    assert len(test) >= 5 and not test & {same_key(i.question) for s in SPLITS if s != "test" for i in task.split(s)}


@pytest.mark.parametrize("again", ["Q: {}", "Question 3: {} Answer:", "### Instruction:\n{}", "<|im_start|>user\n{}<|im_end|>",
                                   "[INST] {} [/INST]", "{} Let's think step by step.", "*{}*", "<b>{}</b>", "1. {}",
                                   "{} (Answer in one word.)", "{}\nA:"])
def test_a_question_is_the_same_in_a_frame(again):
    for q in ("Ann has 3 pens and buys 2. How many pens has she?", "Which one? Answer Choices: (A) red (B) blue"):
        assert same_key(again.format(q)) == same_key(q)
    assert same_key("Which one? (A) red (B) blue") == same_key("Which one? A) blue B) red") == same_key("Which one?\n(a) red\n(b) blue")
    assert same_key("Which one? (A) red (B) blue") != same_key("Which one? (A) red (B) green")


@pytest.mark.parametrize("question, options, answer, gold", [
    ("Pets? (A) cat (B) dog", ["dog", "cat"], "cat", "another order"), ("Pets? (A) Cat. (B) the dog", ["cat", "dog"], "cat", "A"),
    ("Set (A) has 1 and set (B) has 2. Which is larger?", ["first", "second"], "second", "B"),
    ("P?", ["b", "a", "c"], "A", "also an option"), ("P?", ["a", "b", "c"], "A", "A"),
    ("P? (A) x > 1 (B) x < 1", ["x > 1", "x < 1"], "x < 1", "B"), ("P? (A) 5 (B) 5.5", ["5", "5.5"], "A", "A")])
def test_gold_is_the_option_that_the_model_sees(tmp_path, question, options, answer, gold):
    others = [choice(question=f"Q{k}?") for k in range(3)]
    path = own(tmp_path, "\n".join([*others, choice(question=question, options=options, answer=answer)]))
    if len(gold) > 1:
        with pytest.raises(ValueError, match=gold): read_own(path)
    else:
        i = read_own(path)[1][-1]
        assert i.answer == gold and all(f"({k}) " in i.question for k in "AB")
        assert all(o.casefold() in i.question.casefold() for o in options)


@pytest.mark.parametrize("a, b", [
    ("What does the tag <em> mean?", "What does the tag <ul> mean?"), ("What is P(a)?", "What is P(b)?"),
    ("What is 2 * 3?", "What is 2 ** 3?"),
    ("Is P(A) > P(B)?", "Is P(B) > P(A)?"), ("Which letter comes after (b)?", "Which letter comes after (x)?"),
    ("Premise: A. Therefore?", "Premise: B. Therefore?"), ("Is set (A) > set (B)?", "Is set (B) > set (A)?")])
def test_other_questions_are_others(a, b):
    assert same_key(a) != same_key(b)


@pytest.mark.parametrize("odd", ["Fix this:\n" + "#" * 300_000 + "\n# main", "think step by step " * 30_000 + "b",
                                 "a" + " " * 500_000 + "b",
                                 "(A) " * 100_000, "*" * 300_000, "1. " * 100_000, "<b>" * 100_000, "A) x B) y " * 50_000])
def test_no_question_takes_long(odd):
    began = time.process_time()
    same_key(odd)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("shown, options", [
    ("P? (A) x < 1 (B) x > 1", ["x > 1", "x < 1"]), ("L? (A) C# (B) C", ["C", "C#"]), ("P? (A) 5% (B) $5", ["$5", "5%"]),
    ("Pets? A) dog B) cat", ["cat", "dog"]), ("Pets? (A) dog (B) cat. Answer (A) or (B).", ["cat", "dog"])])
def test_options_in_two_orders_are_refused(tmp_path, shown, options):
    others = [choice(question=f"Q{k}?") for k in range(3)]
    for listed, fine in ((options, False), (options[::-1], True)):
        path = own(tmp_path, "\n".join([*others, choice(question=shown, options=listed, answer=listed[0])]))
        if fine: assert read_own(path)[1][-1].question == shown
        else:
            with pytest.raises(ValueError, match="another order"): read_own(path)


@pytest.mark.parametrize("options, answers, fine", [
    (["1", "0", "2"], [0, 1, 2], False), (["1", "0", "2"], ["A", "B", "C"], True),
    (["2", "0", "1"], ["C", "A", "B"], True), (["10", "20", "30"], [0, 1, 2], None),
    (["1", "0", "3"], [0, 1, 3], True), (["0", "1", "2"], [0, 1, 2], True), (["red", "blue", "green"], ["red", "blue", "green"], True)])
def test_places_of_options_that_are_numbers_too(tmp_path, options, answers, fine):
    path = tmp_path / "f.jsonl"
    rows = [dict(question=f"Which, {k} or {9 * k}?", options=options, answer=answers[k % 3]) for k in range(9)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    if fine: assert load(str(path)).kind == "choice"
    else:
        with pytest.raises(ValueError, match="an answer may be an option or its place" if fine is False else "is not among the options"):
            load(str(path))
