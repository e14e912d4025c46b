"""Identities are chained from contents, nothing is made twice, and few-shot supervision never meets a gold answer."""
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest

from cotstudy import openers, runs, steps
from cotstudy.conditions import Condition, Teacher
from cotstudy.folders import read_student
from cotstudy.instances import Instance, Task
from cotstudy.decoding import Completion, Model, prompt_id
from cotstudy.procedural import FAMILIES, procedural_task
from cotstudy.methods import METHODS, Method
from cotstudy.prompts import Parsed
from cotstudy.results import collect, run_cell, show_answers, show_chains, texts_of
from cotstudy.runs import Exam, Store, Voice, carry_out, exam_of, home, make_items, plan_of, reading_of, run, teach
from cotstudy.students import Recipe

SIZES = dict(n_train=10, n_selection=4, n_test=6)


class Scripted(Model):
    "A teacher that knows the right chain for even draws and slips on odd ones."
    name, id, engine, device, dtype = "scripted", "scripted-1", "test", "cpu", "float32"

    def __init__(self):
        self.n_made = 0
        task = procedural_task("arith", **SIZES)
        self.by_prompt = {i.question: i for split in ("train", "selection", "test") for i in task.split(split)}

    def decode(self, token_ids, stop=()):
        return " ".join(self.words[t] for t in token_ids)

    words: list = []

    def complete(self, requests, decoding):
        from random import Random
        for r in requests:
            i = next(i for q, i in self.by_prompt.items() if q in r.prompt)
            done = []
            for k in r.draw_indices:
                answer = i.answer if k % 2 == 0 else str(int(i.answer) + 1)
                text = f" {FAMILIES['arith'].rationale(i, Random(k))} So the answer is: {answer}"
                ids = tuple(range(len(self.words), len(self.words) + len(text.split())))
                self.words.extend(text.split())
                self.n_made += 1
                done.append(Completion(r.instance, r.prompt, prompt_id(self, r.prompt, decoding), k, text, ids, tuple(-0.1 for _ in ids),
                                       len(ids), "stop"))
            yield done


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    teacher = Scripted()
    monkeypatch.setitem(openers.OPENERS, "toy:", openers.Scheme(lambda name, revision, seed, **options: teacher))
    store = Store(tmp_path / "store")
    store.teacher = teacher
    return store


def make_corpus(store, cond, task=None):
    plan = plan_of(store, cond, task)
    return runs.make_corpus(store.ledger, plan.lessons, plan.exam.method, plan.exam.voice.fmt)


def condition(**changes):
    values = dict(task="arith", task_args=SIZES, method="cot", n_rationales=2, teacher=Teacher(model="toy:scripted", pool=4, max_tok=200),
                  student="scratch/0.1m", recipe=Recipe(steps=3, batch=4), max_student_tok=8)
    return Condition(**values | changes)


def test_the_same_condition_is_made_once(store):
    row, items = run(condition(), store)
    made, students = store.ledger.count(), sorted((store.folder / "students").glob("*/model.safetensors"))
    stamps = [p.stat().st_mtime_ns for p in students]
    again, items_again = run(condition(), store)
    assert {k: row[k] for k in ("row_id", "corpus_id", "student_id", "eval_id", "n_correct")} == {k: again[k] for k in ("row_id",
            "corpus_id", "student_id", "eval_id", "n_correct")}
    assert items.equals(items_again) and store.ledger.count() == made and [p.stat().st_mtime_ns for p in students] == stamps


def test_n_is_a_view_of_the_same_draws(store):
    for n in (4, 1, 2):
        make_corpus(store, condition(n_rationales=n), procedural_task("arith", **SIZES))
    assert store.teacher.n_made == SIZES["n_train"] * 4


def test_ids_follow_contents(store):
    task = procedural_task("arith", **SIZES)
    corpus = make_corpus(store, condition(n_rationales=4), task)
    # with all of the pool in use, the seed selects nothing: same contents, same corpus
    assert make_corpus(store, condition(n_rationales=4, seed=5), task).id == corpus.id
    assert make_corpus(store, condition(n_rationales=4, filters=("correct",)), task).id == corpus.id
    assert make_corpus(store, condition(n_rationales=4, filters=()), task).id != corpus.id
    assert make_corpus(store, condition(n_rationales=1), task).id != corpus.id
    assert make_corpus(store, condition(n_rationales=4, format="ho"), task).id != corpus.id


def test_greedy_and_vote_share_a_student(store):
    greedy, _ = run(condition(), store)
    vote, items = run(condition(decoding="vote", n_paths=3), store)
    assert greedy["student_id"] == vote["student_id"] and greedy["eval_id"] != vote["eval_id"]
    assert vote["n_paths"] == 3 and len(items) == 3 * vote["n"]


def test_correct_filter_keeps_right_chains_only(store):
    corpus = make_corpus(store, condition(n_rationales=4), procedural_task("arith", **SIZES))
    assert corpus.facts["n_drawn"] == 40 and corpus.facts["n_kept"] == 20 and corpus.facts["label_accuracy"] == 1.0
    unfiltered = make_corpus(store, condition(n_rationales=4, filters=()), procedural_task("arith", **SIZES))
    assert unfiltered.facts["label_accuracy"] == 0.5


@pytest.mark.parametrize("method, labels", [("cot", None), ("greedy_cot", None), ("label_only", "greedy"), ("label_only", "vote"),
                                            ("label_only", None)])
def test_few_shot_corpus_does_not_depend_on_gold(store, method, labels):
    "Change every gold answer: a corpus made without gold must not notice."
    task = procedural_task("arith", **SIZES)
    poisoned = Task(**{f: getattr(task, f) for f in ("name", "kind", "labels", "chance", "rule_key")},
                    splits={k: [replace(i, answer="-77") for i in v] for k, v in task.splits.items()})
    cond = condition(method=method, supervision="few_shot", labels=labels)
    assert make_corpus(store, cond, task).id == make_corpus(store, cond, poisoned).id
    full = condition(method=method)
    if method == "label_only":
        assert make_corpus(store, full, task).id != make_corpus(store, full, poisoned).id
    else:
        with pytest.raises(ValueError, match="no training example"):
            make_corpus(store, full, poisoned)


@pytest.mark.parametrize("rule", ["gold", "vote"])
def test_checkpoints_are_chosen_without_the_test_split(store, rule, monkeypatch):
    task = procedural_task("arith", **SIZES)
    seen = []
    watched = Task(**{f: getattr(task, f) for f in ("name", "kind", "labels", "chance", "rule_key")},
                   splits={k: Watched(v, k, seen) for k, v in task.splits.items()})
    monkeypatch.setattr(runs, "load_task", lambda *a, **k: watched)
    cond = condition(recipe=Recipe(steps=4, batch=4, checkpoint=rule, score_every=2), supervision="full" if rule == "gold" else "few_shot")
    teach(store, plan_of(store, cond))
    assert "selection" in seen and "test" not in seen


class Watched(Sequence):
    "A split that notes when somebody reads it. Only its length is free; it is no list, so nothing in C reads past these two methods."
    def __init__(self, items, name, seen):
        self._items, self._name, self._seen = list(items), name, seen

    def __len__(self): return len(self._items)

    def __getitem__(self, k):
        self._seen.append(self._name)
        return self._items[k]


READ = dict(loop=lambda s: [i for i in s], unpack=lambda s: [*s], slice=lambda s: s[:9], none=lambda s: s[:0], last=lambda s: s[-1],
            contains=lambda s: "b" in s, reverse=lambda s: list(reversed(s)), index=lambda s: s.index("a"), count=lambda s: s.count("a"),
            sort=sorted, array=lambda s: np.asarray(s, dtype=object), zip=lambda s: list(zip(s, "xy")), map=lambda s: list(map(len, s)),
            pick=lambda s: Random(0).sample(s, 1), next=lambda s: next(iter(s)))


@pytest.mark.parametrize("how", READ)
def test_a_watched_split_sees_every_way_to_read_it(how):
    seen = []
    watched = Watched(["a", "b"], "test", seen)
    assert len(watched) == 2 and not seen
    READ[how](watched)
    assert set(seen) == {"test"}


def test_a_failed_condition_is_a_row_without_a_value_and_is_tried_again(store, monkeypatch):
    conditions = [condition(), condition(task="no_such_task")]
    with pytest.raises(RuntimeError, match="1 of 2"):
        run_cell("s", "c", conditions, store)
    rows, items = collect("s")
    bad = rows[rows.error.notna()]
    assert len(rows) == 2 and len(bad) == 1 and bad.accuracy.isna().all() and "no_such_task" in bad.error.iloc[0]
    load = runs.load_task
    monkeypatch.setattr(runs, "load_task", lambda name, **kw: load("arith", **kw))
    assert run_cell("s", "c", conditions, store).error.isna().all()


def test_items_do_not_depend_on_order_or_on_what_was_there(tmp_path, monkeypatch, store):
    a = run_cell("one", "c", [condition(n_rationales=n) for n in (1, 2, 4)], store)
    other = Store(tmp_path / "other")
    b = run_cell("two", "c", [condition(n_rationales=n) for n in (4, 1, 2)], other)
    ours, theirs = (f.set_index("n_rationales")[["corpus_id", "student_id", "eval_id", "n_correct"]].sort_index() for f in (a, b))
    assert ours.equals(theirs)


def test_shorter_limits_are_views(store):
    run(condition(max_student_tok=8), store)
    n = store.ledger.count()
    row, items = run(condition(max_student_tok=4), store)
    assert store.ledger.count() == n and items.n_tok.max() <= 4 and row["n_truncated"] > 0


def test_a_recorded_teacher_answers_by_question_id(store, tmp_path, monkeypatch):
    "Two questions of the same words keep their own completions, whichever is asked first."
    monkeypatch.chdir(tmp_path)
    twins = [Instance(f"q{k}", "Ann has 3 pens. How many pens does Ann have?", "3") for k in range(3)]
    Path("old.jsonl").write_text("".join(json.dumps(dict(id=i.id, rationale=f"Said of {i.id}.", answer_text=" 3.")) + "\n" for i in twins))
    cond = condition(method="greedy_cot", n_rationales=1, teacher=Teacher(model="recorded:old.jsonl", format="ho_teacher", pool=1))
    task = procedural_task("arith", **SIZES)
    said = lambda asked: runs.said(store.ledger, runs.teacher_voice(store, cond.teacher, task, greedy=True), asked, 1)
    for asked in (twins[:1], twins[1:2], twins):
        draws = said(asked)
        assert [t.split(".")[0].strip() for t in draws.text] == [f"Said of {i.id}" for i in asked]
        assert {p for p in draws.prompt} == {"Q: Ann has 3 pens. How many pens does Ann have?\nA: Let's think step by step."}
    assert store.ledger.count() == 3


@pytest.fixture
def server(monkeypatch):
    "An OpenAI-compatible server that knows the chain of every arith question, and slips where its seed is odd."
    knows, asked, lock = Scripted(), [], threading.Lock()

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, *args): pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock: asked.append(dict(body, key=self.headers["authorization"]))
            i = next((i for q, i in knows.by_prompt.items() if q in body["prompt"]), None)
            text = str(body["seed"]) if i is None else f" It is so. So the answer is: {int(i.answer) + body['seed'] % 2}"
            data = json.dumps(dict(id="x", object="o", created=0, model="m", choices=[dict(index=0, finish_reason="stop", text=text)],
                                   usage=dict(prompt_tokens=30, completion_tokens=10, total_tokens=40))).encode()
            self.send_response(200)
            for k, v in (("content-type", "application/json"), ("content-length", str(len(data)))): self.send_header(k, v)
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{http.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-written")
    yield asked
    http.shutdown()


def api(name="api:desk", **changes): return condition(teacher=Teacher(model=name, pool=4, max_tok=60), **dict(n_rationales=4) | changes)


def test_a_condition_whose_teacher_is_behind_an_address(store, server, tmp_path):
    frame = run_cell("s", "c", [api(), api(method="label_only", supervision="few_shot", labels="vote")], store)
    # the probe, and each draw once
    assert frame.error.isna().all() and frame.n_chains.notna().all() and len(server) == 3 + 4 * SIZES["n_train"]
    assert {a["key"] for a in server} == {"Bearer sk-never-written"} and {a["temperature"] for a in server} == {1.0}
    draws = store.ledger.read(columns=["model", "engine", "model_id", "n_tok"])
    teachers = draws[draws.engine == "openai"]
    assert len(teachers) == 40 and {*teachers.model} == {"api:desk"} and {*teachers.n_tok} == {10}
    assert teachers.model_id.str.contains("127.0.0.1", regex=False).all()
    made = len(server)
    again = run_cell("s", "c2", [api(), api(n_rationales=2, filters=())], Store(store.folder))  # another process
    assert len(server) == made and again.corpus_id.iloc[0] == frame.corpus_id.iloc[0] != again.corpus_id.iloc[1]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 10 and not [p for p in files if b"sk-never-written" in p.read_bytes()]


def test_a_budget_in_the_name_holds_for_the_whole_store(store, server):
    with pytest.raises(RuntimeError, match="OverBudget.*the budget is 1,000"): run_cell("s", "c", [api("api:desk?tokens=1000")], store)
    spent = 40 * len(server)
    assert 0 < spent <= 1000 and store.ledger.count() > 0
    # another process, the same book
    with pytest.raises(RuntimeError, match="OverBudget"): run_cell("s", "c", [api("api:desk?tokens=1000")], Store(store.folder))
    assert 40 * len(server) <= 1000
    file, = (store.folder / "budgets").glob("*.json")
    assert json.loads(file.read_text()) == [30 * len(server), 10 * len(server), 0, 0]  # spent in and out, and nothing set aside
    assert json.loads(file.with_suffix(".book").read_text())["held"] == {}
    assert run_cell("s", "c", [api("api:desk?tokens=100000")], Store(store.folder)).error.isna().all()
    assert len(server) < 4 * SIZES["n_train"] + 15  # what was drawn before was not drawn again


def test_what_runs_elsewhere_is_asked_but_not_trained(store, server):
    row, items = run(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="api:desk"), store)
    assert row["n"] == SIZES["n_test"] and items.parsed.all()  # right where the seed is even
    for student in ("api:desk", "recorded:x", "vllm:x"):
        with pytest.raises(ValueError, match="no weights here"): store.models.fresh(student)


@pytest.mark.parametrize("name, said", [("api:", "expected api:MODEL"), ("api:m?tokens=many", "cannot be read"), ("api:m?money=5",
        "needs a price"),
                                        ("api:m?api_key=sk", "only read from the environment"), ("api:m?chat=maybe", "cannot be read"),
                                        ("api:m?dialect", "cannot be read"), ("api:m?dialect=french", "cannot be read")])
def test_names_of_servers_are_checked_before_anything_is_asked(name, said):
    with pytest.raises(ValueError, match=re.escape(said)): api(name)


# --- methods, measures and sources ---

def test_a_toy_method_needs_no_change_anywhere_else(store, monkeypatch):
    "Another order of rationale and answer, another loss, another way to answer: one record."
    import torch
    from cotstudy.students import padded_nll
    seen = dict(objective=0, answers=0)

    def reason_after(fmt, rationale, answer, question=""): return f" It is {answer}, because {rationale}"

    def read_reason_after(fmt, text, mode="cot"):
        answer, _, rationale = text.strip().removeprefix("It is ").partition(", because ")
        return Parsed(rationale or None, answer or None)

    def doubled(net, rows):
        seen["objective"] += 1
        return 2 * padded_nll(net, rows) + 0 * sum(p.sum() for p in net.parameters())

    def always_four(ledger, voice, asked, n, limit=None, progress=None):
        seen["answers"] += len(asked)
        draws = runs.said(ledger, voice, asked, n)
        return draws.assign(text=[" It is 4, because I say so" for _ in draws.text])

    monkeypatch.setitem(METHODS, "toy", Method("toy", "toy", "#000000", "h", "cot", "sampled", render=reason_after, parse=read_reason_after,
                                               objective=doubled, answers=always_four))
    cond, task = condition(method="toy"), procedural_task("arith", **SIZES)
    assert all(c.startswith(" It is ") and ", because " in c for e in make_corpus(store, cond, task).examples for c in e.completions)
    row, items = run(cond, store)
    plain, _ = run(condition(), store)
    assert seen["objective"] >= 3 and seen["answers"] == SIZES["n_test"] and row["student_id"] != plain["student_id"]
    assert set(items.prediction) == {"4"} and row["method"] == "toy" and row["n_rationales"] == 2
    assert torch.get_num_threads() >= 1


class Mumbling(Scripted):
    "Names its answer only where it is asked for it; every second first text is silent."
    name, id = "mumbling", "mumbling-1"

    def complete(self, requests, decoding):
        for r in requests:
            i = next(i for q, i in self.by_prompt.items() if q in r.prompt)
            asked = r.prompt.rstrip().endswith(("So the answer is:", "the answer is"))
            text = f" {i.answer}" if asked else " Hm." if hash_of(i.id) % 2 else f" Easy. So the answer is: {i.answer}"
            ids = tuple(range(len(self.words), len(self.words) + len(text.split())))
            self.words.extend(text.split())
            yield [Completion(r.instance, r.prompt, prompt_id(self, r.prompt, decoding), k, text, ids, tuple(-0.1 for _ in ids), len(ids),
                              "stop") for k in r.draw_indices]


def hash_of(text): return sum(map(ord, text))


def test_one_who_was_never_taught_is_asked_for_the_answer_it_did_not_name(store, monkeypatch):
    monkeypatch.setitem(openers.OPENERS, "shy:", openers.Scheme(lambda name, revision, seed, **options: Mumbling()))
    for fmt, twice in (("cotstudy", "silent"), ("ho", True), ("ho_teacher", True)):
        cond = Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="shy:x", format=fmt)
        row, items = run(cond, store)
        plan = plan_of(store, cond)
        assert row["accuracy"] == 1.0 and row["n_unparsed"] == 0 and plan.exam.voice.twice == twice and row["format"] == fmt
        texts = runs.said(store.ledger, plan.exam.of(store.model("shy:x")).voice, plan.exam.asked, 1).text
        assert texts.str.count("he answer is").eq(1).all() or fmt != "cotstudy", "who has answered is not asked again"
    asked = exam_of(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="shy:x", format="ho"))
    assert asked.voice.fmt.name == "ho_teacher" and "step by step" in asked.voice.prompts(asked.asked)[0][1]
    literal = exam_of(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="shy:x", format="ho"), to_the_letter=True)
    assert literal.voice.fmt.name == "ho" and literal.voice.twice is False
    for method, more in (("few_shot_cot", {}), ("zero_shot_cot", dict(n_exemplars=2)), ("greedy_cot", {})):
        known = exam_of(Condition(task="arith", task_args=SIZES, method=method, student="pocket/s", format="ho", **more))
        assert known.voice.fmt.name == "ho" and not known.voice.twice, "who sees or was taught the format is asked in it"
    own = exam_of(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="pocket/s")).voice
    assert not own.asks_again(" 3 + 4 = 7. The answer is 7.") and own.asks_again(" Hm.") and own.asks_again(" 3 + 4 = 7. So the answer is:")
    teacher = exam_of(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="pocket/teacher", format="cotstudy"))
    assert teacher.voice.twice is False


def test_a_student_of_a_store_says_how_it_was_taught(store):
    *_, folder = teach(store, plan_of(store, condition(format="ho")))
    assert read_student(folder) == dict(format="ho", method="cot")
    again = exam_of(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student=str(folder), format="ho"))
    assert again.voice.fmt.name == "ho" and not again.voice.twice


def test_a_student_that_was_taught_before_is_asked_as_it_was_taught(tmp_path):
    (tmp_path / "student.json").write_text(json.dumps(dict(format="ho", method="cot")))
    voice = lambda fmt: exam_of(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student=str(tmp_path), format=fmt)).voice
    assert [(voice(f).fmt.name, voice(f).twice) for f in ("ho", "wei")] == [("ho", False), ("ho_teacher", True)]


def test_right_by_luck_is_counted_in_items_and_corpora(store):
    row, items = run(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="toy:scripted"), store)
    assert row["mean_sound"] == 1.0 and row["mean_lucky"] == 0.0 and {"sound", "lucky", "length", "new_wording", "copied"} <= set(items)
    lame = Scripted()
    lame.id = "lame-1"
    right = {q: i.answer for q, i in lame.by_prompt.items()}
    said = lambda r: next(a for q, a in right.items() if q in r.prompt)
    lame.complete = lambda requests, decoding: ([Completion(r.instance, r.prompt, prompt_id(lame, r.prompt, decoding), k,
                                                 f" It just is. So the answer is: {said(r)}", (1,), (-0.1,), 1,
                                                 "stop") for k in r.draw_indices] for r in requests)
    task = procedural_task("arith", **SIZES)
    exam = Exam(task, Voice(lame, runs.format_named("cotstudy"), runs.Decoding(max_tok=99)), METHODS["zero_shot_cot"])
    _, items = make_items(store, exam)
    assert items.correct.all() and items.lucky.mean() == 1.0 and items.sound.mean() == 0.0
    corpus = make_corpus(store, condition(n_rationales=4), task)
    assert corpus.facts["n_sound"] == corpus.facts["n_kept"] == 20 and corpus.facts["n_lucky"] == 0


def test_a_measure_added_later_is_computed_from_stored_texts(store, monkeypatch):
    from cotstudy.measures import MEASURES, Measure
    run(condition(), store)
    n = store.ledger.count()
    shouting = Measure("shouting", "capitals", lambda i, said, task: float(sum(c.isupper() for c in said.text)))
    monkeypatch.setitem(MEASURES, "shouting", shouting)
    row, items = run(condition(), store)
    assert "shouting" in items and "mean_shouting" in row and store.ledger.count() == n


def test_the_golden_filter_keeps_sound_chains(store):
    task = procedural_task("arith", **SIZES)
    every, sound = (make_corpus(store, condition(n_rationales=4, filters=f), task) for f in ((), ("sound",)))
    assert 0 < sound.facts["n_kept"] == sound.facts["n_sound"] <= every.facts["n_kept"]


def test_sources_are_taught_in_place_of_the_task(store):
    cond = Condition(task="sst", sources=("arith", "coin"), task_args=dict(n_train=6, n_selection=2, n_test=4), method="label_only",
                     student="scratch/0.1m",
                     recipe=Recipe(steps=2, batch=2), max_student_tok=8)
    corpus = make_corpus(store, cond, runs.load_task("sst", **cond.task_args))
    assert {e.instance.split("-")[0] for e in corpus.examples} == {"arith", "coin"} and corpus.facts["n_taught"] == 12
    row, items = run(cond, store)
    assert row["sources"] == "arith coin" and {i.split("-")[0] for i in items.instance} == {"sst"}


def test_the_text_shown_is_the_text_that_was_read(store):
    "A model asked greedily, for a vote and with examples: each number shows its own texts."
    base = dict(task="arith", task_args=dict(n_train=12, n_selection=2, n_test=6), student="pocket/xs", max_student_tok=48)
    conditions = [Condition(method="zero_shot_cot", **base),
                  Condition(method="zero_shot_cot", decoding="vote", n_paths=3, temperature=1.0, **base),
                  Condition(method="few_shot_cot", n_exemplars=2, **base)]
    for cond in conditions:
        run(cond, store)
    conditions.append(conditions[0].with_(max_student_tok=5))  # a view of the longer draws
    for cond in conditions:
        plan = plan_of(store, cond)
        shown = show_answers(store, plan, n_each=6)
        read = [runs.read_answer(text, plan.exam.voice, plan.exam.task, "cotstudy") for text in shown.said]
        assert len(read) >= 6 and read == [None if pd.isna(p) else p for p in shown.prediction]


# --- names are read at the door ---

def close_the_door(monkeypatch, teacher):
    "From now on no table knows a name: of no task, format, method, filter, teacher or field of a condition."
    from cotstudy import filters, methods, procedural, prompts, sources, tasks
    def refuse(*names, **more): raise AssertionError(f"a name was looked up behind the door: {names}")
    class Closed(dict):
        __getitem__ = __contains__ = __iter__ = get = keys = values = items = refuse
    for module, table in ((methods, "METHODS"), (prompts, "FORMATS"), (procedural, "FAMILIES"), (sources, "SOURCES"), (tasks, "TASKS"),
                          (filters, "FILTERS")):
        monkeypatch.setattr(module, table, Closed())
    for name in ("load_task", "method_named", "format_named", "describe", "teacher_voice", "answer_voice", "plan_of", "exam_of"):
        monkeypatch.setattr(runs, name, refuse)
    for part in ("teaching", "with_"): monkeypatch.setattr(Condition, part, refuse)
    open_model = openers.open_model
    but_not_its = lambda name, *how, **more: refuse(name) if name == teacher else open_model(name, *how, **more)
    monkeypatch.setattr(openers, "open_model", but_not_its)


@pytest.mark.parametrize("changes", [dict(filters=("correct", "sound")), dict(method="greedy_cot"),
                                     dict(method="label_only", labels="vote"), dict(method="label_only", sources=("arith", "coin")),
                                     dict(format="kojima_number", method="zero_shot_cot", student="pocket/xs"), dict(supervision="few_shot",
                                     recipe=Recipe(steps=4, batch=4, checkpoint="vote", score_every=2)),
                                     dict(decoding="vote", n_paths=2)], ids=str)
def test_behind_the_door_nobody_asks_for_a_name(store, changes, monkeypatch):
    "A plan is carried out, and what was said is read, while every table of names refuses to answer."
    plan = plan_of(store, condition(**changes))
    close_the_door(monkeypatch, plan.columns["teacher"])
    row, items = carry_out(store, plan)
    assert row["n"] == SIZES["n_test"] and row["method"] == plan.exam.method.name and len(items) == row["n"] * plan.exam.n_paths
    assert show_answers(store, plan).said.notna().all()
    if plan.lessons and plan.lessons[0].voice: assert len(show_chains(store, plan)) > 0
    texts = texts_of(store, plan.exam, row["model_id"], plan.start.model.decode)
    told = steps.behind(plan.exam, items, texts, 2)
    assert told["stored"] and all(e["text"] == texts[e["instance"], e["path"]] for e in told["right"] + told["wrong"])


def test_what_cannot_be_trained_is_refused_before_the_teacher_is_asked(store):
    with pytest.raises(ValueError, match="no weights here"): run(condition(student="recorded:x"), store)
    assert store.teacher.n_made == 0


def test_an_exam_reads_its_split_when_it_is_asked(store):
    seen, task = [], procedural_task("arith", **SIZES)
    watched = replace(task, splits={k: Watched(v, k, seen) for k, v in task.splits.items()})
    plan = plan_of(store, condition(), watched)
    assert "test" not in seen and len(plan.exam.asked) == SIZES["n_test"] and "test" in seen


# --- what must never be taken for the same ---

@pytest.mark.parametrize("fmt", ["scotd", "ho", "wei", "cotstudy"])
def test_two_readings_of_one_text_are_two_evaluations(store, fmt):
    "In some formats a label and a rationale are asked for in the same words; the answers are read differently."
    base = dict(task="arith", task_args=SIZES, student="pocket/xs", max_student_tok=24, format=fmt)
    rows = [run(Condition(method=m, **base), store)[0] for m in ("zero_shot", "zero_shot_cot")]
    assert rows[0]["eval_id"] != rows[1]["eval_id"] and "mean_sound" in rows[1] and "mean_sound" not in rows[0]


def test_a_chain_without_an_answer_is_not_taught(store, monkeypatch):
    whole = store.teacher.complete
    def cut(requests, decoding):
        for part in whole(requests, decoding):
            yield [replace(c, text=c.text.split("So the answer")[0] if c.draw_index == 1 else c.text) for c in part]
    monkeypatch.setattr(store.teacher, "complete", cut)
    corpus = make_corpus(store, condition(n_rationales=4, filters=(), supervision="few_shot"), procedural_task("arith", **SIZES))
    told = [c.rpartition("So the answer is:")[2].strip() for e in corpus.examples for c in e.completions]
    assert len(told) == 30 and all(told)


def test_sources_with_the_same_ids_are_not_mixed(tmp_path, store):
    files = []
    for word, right in (("cups", "yes"), ("hats", "no")):
        lines = [json.dumps(dict(id=str(k), question=f"Are there {k} {word}?", answer=right if k % 2 else "yes")) for k in range(12)]
        files.append(tmp_path / f"{word}.jsonl")
        files[-1].write_text("\n".join(lines))
    cond = Condition(task="coin", sources=tuple(map(str, files)), method="label_only", student="scratch/0.1m", recipe=Recipe(steps=1))
    corpus = make_corpus(store, cond, runs.load_task("coin", n_train=2, n_selection=1, n_test=2))
    words = [("cups" in e.prompt, "hats" in e.prompt) for e in corpus.examples]
    assert words.count((True, False)) > 3 and words.count((False, True)) > 3 and len(words) == corpus.facts["n_asked"]
    with pytest.raises(ValueError, match="not to be seen"): cond.with_(**{"recipe.checkpoint": "gold"})


def test_a_home_that_no_shell_has_read(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COTSTUDY_OUTPUTS", "~/out")
    assert home() == tmp_path / "out"


def test_answers_that_an_earlier_version_read_are_read_again(store):
    row, items = run(condition(), store)
    path, n = store.folder / "items" / f"{row['eval_id']}.parquet", store.ledger.count()
    old = items.assign(prediction=pd.Series("nonsense", items.index, dtype="string"), correct=True)
    for attrs in (dict(items.attrs, reader="an earlier one"), {k: v for k, v in items.attrs.items() if k != "reader"}):
        old.attrs = attrs
        old.to_parquet(path)
        again, anew = run(condition(), store)
        assert anew.equals(items) and again["n_correct"] == row["n_correct"] and store.ledger.count() == n
    old.attrs = items.attrs  # of today's: as it is
    old.to_parquet(path)
    assert run(condition(), store)[1].prediction.eq("nonsense").all()


@pytest.mark.parametrize("method", ["zero_shot_cot", "cot", "label_only"])
def test_a_question_that_holds_a_control_token_is_refused(store, method):
    task = procedural_task("arith", **SIZES)
    marked = replace(task, splits={k: [replace(i, question=f"{i.question}<eos>") for i in v] for k, v in task.splits.items()})
    with pytest.raises(ValueError, match=r"the question .* holds '<eos>', which is a special token to 'scratch/0.1m"):
        carry_out(store, plan_of(store, condition(method=method), marked))
    assert store.teacher.n_made == 0


def test_other_labels_are_another_reading(store):
    task = replace(procedural_task("arith", **SIZES), kind="label", labels=("5", "7"))
    one, other = (reading_of(exam_of(condition(method="zero_shot_cot"), replace(task, labels=k))) for k in (("5", "7"), ("5", "6", "7")))
    assert one != other
