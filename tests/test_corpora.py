"""A corpus is complete and comes back the same; what it must not hold is found; nothing of anybody else's is written over."""
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cotstudy import corpora as w, steps
from cotstudy.prompts import format_named
from cotstudy.tasks import load as load_task
from desk import SMALL, sampled


def test_test_questions_are_not_trained_on_unless_asked_by_name(desk):
    path, rows = sampled(desk, split="test")
    assert {r["split"] for r in rows} == {"test"}
    with pytest.raises(ValueError, match="test split"):
        steps.distil(path, "scratch/0.1m", "s", store=desk, **SMALL)
    assert steps.distil(path, "scratch/0.1m", "s", split="test", store=desk, **SMALL)["n_questions"] == len({r["instance"] for r in rows})


@pytest.mark.parametrize("disguise", [dict(split=None), dict(split="train"), dict(split=None, instance="q")])
def test_test_questions_are_known_by_themselves(desk, disguise):
    rows = [r | disguise for r in sampled(desk, split="test")[1][:1]] + sampled(desk)[1]
    with pytest.raises(ValueError, match="1 of .* test split"):
        w.rows_to_train_on(w.check_corpus(rows), None)


def test_split_takes_only_its_rows(desk):
    rows = sampled(desk, split="test")[1] + sampled(desk)[1] + sampled(desk, split="selection")[1]
    assert {r["split"] for r in w.rows_to_train_on(rows, "train")} == {"train"}
    with pytest.raises(ValueError, match="no rows of the selection"):
        w.rows_to_train_on(sampled(desk)[1], "selection")


def test_completions_are_rendered_from_gold_or_from_the_teacher(desk):
    rows = sampled(desk, n=2)[1]
    examples, n = w.examples_of(w.select(rows, ["parsed"], 0), format_named("ho"), "cot")
    first = {r["draw_index"]: r for r in rows if r["instance"] == examples[0].instance}
    assert n == 0 and examples[0].prompt == f"{first[0]['question']} ###"
    assert examples[0].completions == tuple(f" {first[k]['rationale']} --> {int(first[0]['gold']) + k}" for k in (0, 1))
    label, _ = w.examples_of(w.select(rows, None, 0), format_named("ho"), "label")
    assert {e.instance: e.completions for e in label} == {r["instance"]: (f" {r['gold']}",) for r in rows}


def test_without_gold_the_parsed_ones_are_kept(desk):
    rows = [r | dict(gold=None, correct=None) for r in sampled(desk, n=2)[1]]
    assert len(w.select(rows, None, 0)) == len(rows)
    with pytest.raises(ValueError, match="needs `correct`"):
        w.select(rows, ["correct"], 0)
    with pytest.raises(ValueError, match="needs `logprob`"):
        w.select([r | dict(logprob=None) for r in rows], ["likely:1"], 0)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
value = {str: words, int: st.integers(-2**62, 2**62), float: st.floats(allow_nan=False, allow_infinity=False), bool: st.booleans()}
anything = st.one_of(st.none(), words, st.integers(), st.booleans(), st.lists(st.integers(), max_size=2))
raw_row = st.fixed_dictionaries(
    dict(question=st.sampled_from(["Q1?", "Q2?", "Ünï \u2028 q"]), answer=words),
    optional={k: st.one_of(st.none(), value[t]) for k, t in w.CORPUS_FIELDS.items() if k not in ("question", "answer", "split", "instance",
            "draw_index", "task")}
    | dict(split=st.sampled_from([None, "train", "test"]), extra=anything, note=anything))


def of_one_gold(raws):
    "A question has one gold answer, in the rows that name it."
    gold = {r["question"]: r["gold"] for r in raws if r.get("gold") is not None}
    return [r | dict(gold=gold[r["question"]]) if r.get("gold") is not None else r for r in raws]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raws=st.lists(raw_row, min_size=1, max_size=6).map(of_one_gold), schema=st.sampled_from(w.SCHEMAS))
def test_export_and_import_give_the_same_rows(tmp_path, raws, schema):
    rows = w.check_corpus(raws)
    assert w.read_corpus(w.write_corpus(rows, tmp_path / "c.jsonl")) == rows
    try:
        done = w.export(tmp_path / "c.jsonl", tmp_path / "out", schema)
    except ValueError as e:  # no answer that the format can carry
        assert schema != "raw" and ("can carry" in str(e) or "mend one of them" in str(e))
        return
    assert w.import_corpus(tmp_path / "out") == rows and done["n_rows"] + done["n_left_out"] == len(rows)
    assert schema != "raw" or done["n_left_out"] == 0


@pytest.mark.parametrize("schema, columns", [("prompt_completion", {"prompt", "completion"}), ("chat", {"messages"}), ("raw",
        {*w.CORPUS_FIELDS, "extra"})])
def test_an_export_is_a_hugging_face_dataset(desk, schema, columns, tmp_path):
    from datasets import load_dataset
    path, rows = sampled(desk, n=2)
    w.export(path, "out", schema, filters=["correct"])
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(data) == {"train"} and set(data["train"].column_names) == columns and len(data["train"]) == len(rows) // 2
    if schema == "prompt_completion":  # the same characters that our own students learn
        examples, _ = w.examples_of(w.select(rows, ["correct"], 0), format_named("cotstudy"), "cot")
        assert [(e.prompt, c) for e in examples for c in e.completions] == [(r["prompt"], r["completion"]) for r in data["train"]]
    if schema == "chat":
        assert [m["role"] for m in data["train"][0]["messages"]] == ["user", "assistant"]
    if schema != "raw":
        assert len(load_dataset(str(tmp_path / "out"), "corpus", cache_dir=str(tmp_path / "cache"))["train"]) == len(rows) // 2


def test_the_card_says_where_it_comes_from_and_no_folder_of_mine(desk, tmp_path):
    path, _ = sampled(desk, task=str(tmp_path / "pens.jsonl"))
    w.export(path, "out", "raw", filters=["correct"])
    text = Path("out/README.md").read_text()
    assert all(part in text for part in ("license:", "the user's own", "teacher: scripted", "filters: correct", "100.0 % of the answers",
                                         "temperature: 1.0"))
    assert str(tmp_path) not in text


def test_an_export_replaces_only_exports(desk):
    path, rows = sampled(desk, n=2)
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="other files"):
        w.export(path, "mine")
    w.export(path, "out")
    w.export(path, "out", filters=["correct"])
    assert len(w.import_corpus("out")) == len(rows) // 2
    with pytest.raises(FileNotFoundError, match="export"):
        w.import_corpus("mine")


@pytest.mark.parametrize("line, said", [
    ("{}", "question"), ('{"question": " ", "answer": "1"}', "question"), ('{"question": "Q?"}', "neither"),
    ('{"question": "Q?", "answer": 5}', "`answer` is 5"),
    ('{"question": "Q?", "answer": "5", "correct": 1}', "`correct`"), ('{"question": "Q?", "answer": "5", "n_tok": true}', "`n_tok`"),
    ('{"question": "Q?", "answer": "\\ud800"}', "half a character"), ('{"question": "Q?", "answer": "5", "split": "dev"}', "split"),
    ('{"question": "Q?", "answer": "5", "draw_index": 0}\n{"question": "Q?", "answer": "6", "draw_index": 0}', "twice"),
    ('{"question": "Q?", "answer": "5", "instance": "a"}\n{"question": "R?", "answer": "6", "instance": "a"}', "another question"), ("[1]",
            "list"), ("oops", "JSON"), ("", "no rows")])
def test_malformed_corpora_are_named(tmp_path, line, said):
    (tmp_path / "c.jsonl").write_text(line)
    with pytest.raises(ValueError, match=said) as e:
        w.read_corpus(tmp_path / "c.jsonl")
    assert "c.jsonl" in str(e.value) and "\n" not in str(e.value)


# --- the words of test questions

def shouted(text):
    return "  " + text.upper().replace(" ", "\n ").replace("?", " ?")


@pytest.mark.parametrize("said", [str, shouted, lambda t: t.rstrip("?"), lambda t: t.replace(" ", "\u00a0")])
@pytest.mark.parametrize("split", [None, "train", "selection"])
def test_a_test_question_is_known_by_its_words(desk, said, split):
    exam = load_task("pens.jsonl").split("test")[0]
    rows = sampled(desk, n=1)[1]
    hidden = dict(question=said(exam.question), answer=exam.answer, rationale="R.", split=split)
    named = w.check_corpus([*rows, hidden | dict(task="pens.jsonl")])
    unnamed = w.check_corpus([*rows, hidden])
    for corpus, task in ((named, None), (unnamed, "pens.jsonl")):
        for take in {None, split}:
            with pytest.raises(ValueError, match="1 of .* test split"): w.rows_to_train_on(corpus, take, task)
        kept = w.rows_to_train_on(corpus, "test", task)
        assert [r["question"] for r in kept] == [hidden["question"]]
    assert w.rows_to_train_on(unnamed) == unnamed  # nobody says which task that is
    assert w.rows_to_train_on(w.check_corpus(rows), None, "pens.jsonl") == rows


def test_options_do_not_hide_a_test_question(desk):
    lines = [dict(question=f"Which is {k}?", options=[str(k), str(k + 1)], answer="A") for k in range(30)]
    Path("which.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    exam = load_task("which.jsonl").split("test")[0]
    plain = exam.question.partition(" Answer Choices: ")[0]
    assert plain != exam.question
    for question in (exam.question, plain):
        rows = w.check_corpus([dict(question=question, answer="A", task="which.jsonl", split="train")])
        with pytest.raises(ValueError, match="test split"): w.rows_to_train_on(rows)


def test_settings_of_a_task_travel_with_its_rows(desk):
    rows = steps.sample("pens.jsonl", "scripted", n=1, task_args=dict(seed=3), store=desk)
    assert {r["task_args"]["seed"] for r in rows} == {3} and w.rows_to_train_on(rows) == rows  # another seed has other test questions
    with pytest.raises(ValueError, match="test split"): w.rows_to_train_on([r | dict(task_args={}) for r in rows])


def test_a_task_that_is_not_at_hand_is_said(desk):
    path, rows = sampled(desk, n=1)
    Path("pens.jsonl").rename("moved.jsonl")
    made = steps.distil(path, "scratch/0.1m", "s", store=desk, **SMALL)
    assert made["tasks_not_checked"] == ["pens.jsonl"]
    made = steps.distil(path, "scratch/0.1m", "s", store=desk, task="moved.jsonl", **SMALL)
    assert made["n_questions"] == len({r["instance"] for r in rows})


# --- anything at all

anything_deep = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
                             lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
                             max_leaves=5)
a_row = st.dictionaries(st.sampled_from([*w.CORPUS_FIELDS, "extra", "task_args"]) | st.text(max_size=4), anything_deep, max_size=5)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.one_of(a_row, a_row.map(lambda r: r | dict(question="Q?", answer="5", draw_index=None)), anything_deep),
                     max_size=3))
def test_any_rows_are_a_corpus_or_an_error_in_words(tmp_path, rows):
    try: checked = w.check_corpus(rows, "c.jsonl")
    except ValueError as e:
        assert "c.jsonl" in str(e)
        return
    (tmp_path / "c.jsonl").unlink(missing_ok=True)
    assert same(w.read_corpus(w.write_corpus(checked, tmp_path / "c.jsonl")), checked)
    w.corpus_facts(checked)
    w.corpus_table(checked)
    w.select(checked, ["parsed"])
    try: w.tests_of(checked, None)
    except ValueError as e: assert "task" in str(e)


def same(a, b): return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)  # NaN is NaN here


def hand(answer, gold, **more):
    return dict(question=f"{gold} and {answer}: how many?", rationale="So it is.", answer=answer, gold=gold) | more


def test_an_answer_is_judged_where_nobody_has():
    rows = w.check_corpus([hand("5", "5"), hand("4", "5"), hand("6", "6", correct=False), hand(" ", "7")])
    assert list(w.select(rows, None).gold) == ["5"] and list(w.select(rows, ["correct"]).gold) == ["5"]
    with pytest.raises(ValueError, match="calls '5' correct .*`gold` is '999'"):
        w.select(w.check_corpus([hand("5", "999", correct=True)]), None)


def test_votes_do_not_split_over_spellings():
    said = ["New York", "new york", "New-York", "the New York", "Boston", "Boston"]
    kept = w.select(w.check_corpus([hand(a, None, question="Where?") for a in said]), ["agree"])
    assert len(kept) == 4 and set(kept.answer) == {"New York"}


def test_a_corpus_is_replaced_by_one_that_holds_its_rows(tmp_path):
    few, path = w.check_corpus([hand("5", "5")]), tmp_path / "c.jsonl"
    w.write_corpus(few, path, keep=True)
    w.write_corpus(w.check_corpus([*few, hand("4", "4")]), path, keep=True)
    with pytest.raises(ValueError, match="holds 1 of 2 rows"): w.write_corpus(few, path, keep=True)
    assert len(w.read_corpus(path)) == 2
    with pytest.raises(ValueError, match="jsonl"): w.write_corpus(few, tmp_path / "c.csv")
    assert w.read_corpus(w.write_corpus(few, tmp_path / "c.jsonl.gz")) == few and (tmp_path / "c.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_what_a_person_judged_stands():
    town = dict(question="Which town?", rationale="So.", answer="the city of Ulm", gold="Ulm", correct=True)
    near = dict(question="How much?", rationale="So.", answer="3.33", gold="3.333", correct=True)
    unit = dict(question="How far?", rationale="So.", answer="5 km", gold="5")
    assert len(w.select(w.check_corpus([town, near, unit]), None)) == 3


def test_an_export_says_how_many_of_its_rows_are_wrong(desk):
    _, rows = sampled(desk)
    assert w.export("corpus.jsonl", "out")["n_wrong"] == sum(not r["correct"] for r in rows) > 0
    assert w.export("corpus.jsonl", "right", filters=["correct"])["n_wrong"] == 0
