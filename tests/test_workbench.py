"""One's own questions become a corpus, a student and a number; what passes between the steps is complete and comes back the same."""
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import typer
from hypothesis import HealthCheck, given, settings, strategies as st
from typer.testing import CliRunner

from cotstudy import models, workbench as w
from cotstudy.cli import app
from cotstudy.decoding import Completion, Decoding, Model, prompt_id
from cotstudy.prompts import format_named
from cotstudy.runs import Condition, Store, Teacher, run_cell
from cotstudy.servers import budget
from cotstudy.recorded import recorded
from cotstudy.students import Recipe
from cotstudy.tasks import load as load_task


class Scripted(Model):
    "A teacher that is right in even draws, one too high in odd ones, and breaks off after `n_left` draws."
    name, id, engine, device, dtype = "scripted", "scripted-1", "test", "cpu", "float32"
    n_made, n_left = 0, 10**9

    def __init__(self):
        self.words = []

    def decode(self, token_ids, stop=()):
        return " ".join(self.words[t] for t in token_ids)

    def say(self, a, b, c):
        return f" Ann has {a} + {b} = {c} pens. So the answer is: {c}"

    def complete(self, requests, decoding):
        for r in requests:
            a, b = map(int, re.findall(r"\d+", r.prompt)[-2:])
            for k in r.draw_indices:
                if self.n_left <= self.n_made:
                    raise ConnectionError("the teacher hung up; run the same again")
                self.n_made += 1
                text = self.say(a, b, a + b + k % 2)
                ids = tuple(range(len(self.words), len(self.words) + len(text.split())))
                self.words.extend(text.split())
                yield [Completion(r.instance, r.prompt, prompt_id(self, r.prompt, decoding), k, text, ids, tuple(-0.1 for _ in ids), len(ids), "stop")]


def pens(a, b):
    return dict(question=f"Ann has {a} pens. Ann buys {b} more. How many pens does Ann have now?", answer=a + b)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    Path("pens.jsonl").write_text("".join(json.dumps(pens(a, b)) + "\n" for a in range(2, 6) for b in range(2, 7)))
    store = Store()
    store._models["scripted", None, 0] = Scripted()
    return store


def sampled(store, path="corpus.jsonl", **changes):
    rows = w.sample(**dict(task="pens.jsonl", teacher="scripted", n=4, store=store) | changes)
    return w.write_corpus(rows, path), rows


SMALL = dict(steps=4, batch=4, seed=1)


# --- the whole way

def test_own_questions_end_to_end(desk):
    path, rows = sampled(desk)
    task = load_task("pens.jsonl")
    assert {r["instance"] for r in rows} == {i.id for i in task.split("train")} and len(rows) == 4 * len(task.split("train"))
    assert all(r["correct"] == (r["draw_index"] % 2 == 0) for r in rows)
    assert all(r["teacher"] == "scripted" and r["split"] == "train" and r["temperature"] == 1.0 and r["n_tok"] and r["logprob"] == pytest.approx(-0.1) for r in rows)
    made = w.distil(path, "scratch/0.1m", "student", filters=["correct", "sample:1"], store=desk, **SMALL)
    assert made["n_completions"] == made["n_questions"] == len(task.split("train"))
    result, items = w.evaluate("student", "pens.jsonl", max_tok=12, store=desk)
    assert result["n"] == len(task.split("test")) == len(items) and result["n_correct"] == items.correct.sum() and result["lo"] - 1e-9 <= result["accuracy"] <= result["hi"]
    assert result["format"] == "cotstudy" and result["n_truncated"] == items.truncated.sum()

    from transformers import AutoModelForCausalLM, AutoTokenizer
    net, tokenizer = AutoModelForCausalLM.from_pretrained("student"), AutoTokenizer.from_pretrained("student")
    assert net.num_parameters() > 50_000 and len(tokenizer) <= net.config.vocab_size
    assert json.loads(Path("student/train.json").read_text())["step"] == 4


def test_a_broken_sampling_goes_on_and_more_draws_cost_the_difference(desk):
    teacher = desk._models["scripted", None, 0]
    n = len(load_task("pens.jsonl").split("train"))
    teacher.n_left = 5
    with pytest.raises(ConnectionError):
        sampled(desk, n=2)
    assert not Path("corpus.jsonl").exists() and desk.ledger.count() == 5
    teacher.n_left = 10**9
    first = sampled(desk, n=2)[1]
    assert teacher.n_made == 2 * n
    again = sampled(desk, n=3)[1]
    assert teacher.n_made == 3 * n and [r for r in again if r["draw_index"] < 2] == first


def test_a_broken_training_ends_in_the_same_weights(desk):
    path, _ = sampled(desk)
    w.distil(path, "scratch/0.1m", "whole", store=desk, **SMALL)

    def hang_up(step, steps, loss):
        if step == 2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        w.distil(path, "scratch/0.1m", "broken", store=desk, progress=hang_up, **SMALL)
    assert not Path("broken/train.json").exists()
    w.distil(path, "scratch/0.1m", "broken", store=desk, **SMALL)
    assert Path("whole/model.safetensors").read_bytes() == Path("broken/model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="another folder"):
        w.distil(path, "scratch/0.1m", "broken", store=desk, **SMALL | dict(seed=2))


# --- the test split

def test_test_questions_are_not_trained_on_unless_asked_by_name(desk):
    path, rows = sampled(desk, split="test")
    assert {r["split"] for r in rows} == {"test"}
    with pytest.raises(ValueError, match="test split"):
        w.distil(path, "scratch/0.1m", "s", store=desk, **SMALL)
    assert w.distil(path, "scratch/0.1m", "s", split="test", store=desk, **SMALL)["n_questions"] == len({r["instance"] for r in rows})


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


# --- what a student learns

def test_completions_are_rendered_from_gold_or_from_the_teacher(desk):
    rows = sampled(desk, n=2)[1]
    examples, n = w.examples_of(w.select(rows, ["parsed"], 0), format_named("ho"), "cot")
    first = {r["draw_index"]: r for r in rows if r["instance"] == examples[0].instance}
    assert n == 0 and examples[0].prompt == f"{first[0]['question']} ###"
    assert examples[0].completions == tuple(f" {first[k]['rationale']} --> {int(first[0]['gold']) + k}" for k in (0, 1))
    label, _ = w.examples_of(w.select(rows, None, 0), format_named("ho"), "label")
    assert {e.instance: e.completions for e in label} == {r["instance"]: (f" {r['gold']}",) for r in rows}


def test_labels_do_not_depend_on_what_the_teacher_got_right(desk):
    path, rows = sampled(desk, n=2)
    w.write_corpus([r | dict(correct=r["correct"] and k < 4) for k, r in enumerate(rows)], "few.jsonl")
    n = len({r["instance"] for r in rows})
    assert w.distil("few.jsonl", "scratch/0.1m", "l", method="label", store=desk, **SMALL)["n_completions"] == n
    assert w.distil("few.jsonl", "scratch/0.1m", "c", store=desk, **SMALL)["n_questions"] < n
    assert w.distil("few.jsonl", "scratch/0.1m", "d", filters=["correct"], method="label", store=desk, **SMALL)["n_questions"] < n


def test_without_gold_the_parsed_ones_are_kept(desk):
    rows = [r | dict(gold=None, correct=None) for r in sampled(desk, n=2)[1]]
    assert len(w.select(rows, None, 0)) == len(rows)
    with pytest.raises(ValueError, match="needs `correct`"):
        w.select(rows, ["correct"], 0)
    with pytest.raises(ValueError, match="needs `logprob`"):
        w.select([r | dict(logprob=None) for r in rows], ["likely:1"], 0)


@pytest.mark.parametrize("rule", ["gold", "vote"])
def test_checkpoints_are_scored_on_the_task_of_the_corpus(desk, rule):
    path, _ = sampled(desk, n=2, max_tok=100)
    w.distil(path, "scratch/0.1m", "s", store=desk, checkpoint=rule, score_every=2, max_student_tok=6, **SMALL)
    assert [s for s, _ in json.loads(Path("s/train.json").read_text())["scores"]] == [2, 4]
    w.write_corpus([r | dict(task=None) for r in w.read_corpus(path)], "nameless.jsonl")
    w.write_corpus([r | dict(split="selection") for r in w.read_corpus(path)], "chosen.jsonl")
    with pytest.raises(ValueError, match="of the selection split, on which checkpoint"):
        w.distil("chosen.jsonl", "scratch/0.1m", "u", store=desk, checkpoint=rule, **SMALL)
    with pytest.raises(ValueError, match="checkpoint='last'"):
        w.distil("nameless.jsonl", "scratch/0.1m", "t", store=desk, checkpoint=rule, **SMALL)


# --- corpora come back

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
value = {str: words, int: st.integers(-2**62, 2**62), float: st.floats(allow_nan=False, allow_infinity=False), bool: st.booleans()}
anything = st.one_of(st.none(), words, st.integers(), st.booleans(), st.lists(st.integers(), max_size=2))
raw_row = st.fixed_dictionaries(
    dict(question=st.sampled_from(["Q1?", "Q2?", "Ünï \u2028 q"]), answer=words),
    optional={k: st.one_of(st.none(), value[t]) for k, t in w.FIELDS.items() if k not in ("question", "answer", "split", "instance", "draw_index", "task")}
    | dict(split=st.sampled_from([None, "train", "test"]), extra=anything, note=anything))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raws=st.lists(raw_row, min_size=1, max_size=6), schema=st.sampled_from(w.SCHEMAS))
def test_export_and_import_give_the_same_rows(tmp_path, raws, schema):
    rows = w.check_corpus(raws)
    assert w.read_corpus(w.write_corpus(rows, tmp_path / "c.jsonl")) == rows
    try:
        done = w.export(tmp_path / "c.jsonl", tmp_path / "out", schema)
    except ValueError as e:  # no answer that the format can carry
        assert schema != "raw" and "can carry" in str(e)
        return
    assert w.import_corpus(tmp_path / "out") == rows and done["n_rows"] + done["n_left_out"] == len(rows)
    assert schema != "raw" or done["n_left_out"] == 0


@pytest.mark.parametrize("schema, columns", [("prompt_completion", {"prompt", "completion"}), ("chat", {"messages"}), ("raw", {*w.FIELDS, "extra"})])
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
    assert all(part in text for part in ("license:", "the user's own", "teacher: scripted", "filters: correct", "100.0 % of the answers", "temperature: 1.0"))
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
    ("{}", "question"), ('{"question": " ", "answer": "1"}', "question"), ('{"question": "Q?"}', "neither"), ('{"question": "Q?", "answer": 5}', "`answer` is 5"),
    ('{"question": "Q?", "answer": "5", "correct": 1}', "`correct`"), ('{"question": "Q?", "answer": "5", "n_tok": true}', "`n_tok`"),
    ('{"question": "Q?", "answer": "\\ud800"}', "half a character"), ('{"question": "Q?", "answer": "5", "split": "dev"}', "split"),
    ('{"question": "Q?", "answer": "5", "draw_index": 0}\n{"question": "Q?", "answer": "6", "draw_index": 0}', "twice"),
    ('{"question": "Q?", "answer": "5", "instance": "a"}\n{"question": "R?", "answer": "6", "instance": "a"}', "another question"), ("[1]", "list"), ("oops", "JSON"), ("", "no rows")])
def test_malformed_corpora_are_named(tmp_path, line, said):
    (tmp_path / "c.jsonl").write_text(line)
    with pytest.raises(ValueError, match=said) as e:
        w.read_corpus(tmp_path / "c.jsonl")
    assert "c.jsonl" in str(e.value) and "\n" not in str(e.value)


# --- evaluate, show, ask

@pytest.fixture
def student(desk):
    path, _ = sampled(desk, n=2)
    w.distil(path, "scratch/0.1m", "student", store=desk, **SMALL)
    return desk


def test_a_student_is_asked_as_it_was_taught(student):
    w.distil("corpus.jsonl", "scratch/0.1m", "other", format="ho", store=student, **SMALL)
    assert w.evaluate("other", "pens.jsonl", n_items=2, max_tok=4, store=student)[0]["format"] == "ho"
    with pytest.raises(ValueError, match="trained on"):
        w.evaluate("other", "pens.jsonl", format="cotstudy", n_items=2, max_tok=4, store=student)
    w.distil("corpus.jsonl", "scratch/0.1m", "label", method="label", store=student, **SMALL)
    assert w.evaluate("label", "pens.jsonl", n_items=2, max_tok=4, store=student)[0]["method"] == "label"


def test_a_vote_counts_its_paths(student):
    result, items = w.evaluate("student", "pens.jsonl", decoding="vote", n_paths=3, n_items=2, max_tok=4, store=student)
    assert result["n"] == 2 and result["n_paths"] == 3 and len(items) == 6
    for name in ("items.jsonl", "items.csv", "items.parquet"):
        w.write_items(items, name)
    assert len(pd.read_parquet("items.parquet")) == len(Path("items.jsonl").read_text().splitlines()) == len(pd.read_csv("items.csv")) == 6


def test_show_gives_the_words_behind_the_items(desk):
    shown = w.show(model="scripted", task="pens.jsonl", store=desk, n_each=2)
    assert shown["point"]["accuracy"] == 1.0 and len(shown["right"]) == 2 and not shown["wrong"]
    assert all(e["text"].endswith(f": {e['prediction']}") and e["prediction"] == e["gold"] and e["rationale"] in e["text"] for e in shown["right"])
    vote = w.show(model="scripted", task="pens.jsonl", store=desk, decoding="vote", n_paths=2)
    assert vote["right"] and vote["wrong"] and all(e["path"] == 1 and e["text"].endswith(f": {int(e['gold']) + 1}") for e in vote["wrong"])
    page = w.side_by_side(vote, 90)
    assert max(map(len, page.splitlines())) <= 90 and "RIGHT" in page and f"gold: {vote['wrong'][0]['gold']}" in page


def test_show_finds_a_point_of_a_study(desk):
    base = Condition(task="pens.jsonl", method="cot", n_rationales=2, teacher=Teacher(model="scripted", pool=2, max_tok=200), student="scratch/0.1m",
                     recipe=Recipe(steps=2, batch=4), max_student_tok=8)
    run_cell("s", "c", [base, base.with_(seed=1), base.with_(method="zero_shot_cot", student="scripted", max_student_tok=64)], desk)
    with pytest.raises(ValueError, match="2 points .*seed: 0, 1"):
        w.show("s", dict(method="cot"), store=desk)
    shown = w.show("s", dict(method="cot", seed="1", n_rationales="2"), store=desk)
    assert shown["point"]["seed"] == 1 and shown["stored"] and not shown["right"] and len(shown["wrong"]) == 3
    teacher = w.show("s", dict(student="scripted"), store=desk)
    assert teacher["right"][0]["text"].endswith(f": {teacher['right'][0]['gold']}")
    for where, said in ((dict(sede="1"), "no column"), (dict(seed="7"), "it is 0, 1")):
        with pytest.raises((ValueError, KeyError), match=said):
            w.show("s", where, store=desk)
    elsewhere = w.show("s", dict(method="cot", seed="1"), store=Store("empty"))
    assert not elsewhere["stored"] and elsewhere["wrong"][0]["text"] is None and "not stored here" in w.side_by_side(elsewhere)


def test_ask(desk):
    said, = w.ask("scripted", "3 pens and 2", store=desk)
    assert said["rationale"] == "Ann has 3 + 2 = 5 pens." and said["answer_text"] == "5"
    assert [s["answer_text"] for s in w.ask("scripted", "3 pens and 2", n=3, temperature=1.0, store=desk)] == ["5", "6", "5"]
    assert w.ask("scripted", "3 pens and 2", label=True, store=desk)[0]["rationale"] is None
    with pytest.raises(ValueError, match="temperature"):
        w.ask("scripted", "3 pens and 2", n=2, store=desk)


# --- chat

TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def polite(folder, template=TEMPLATE, end="<|end|>"):
    "A small model whose tokenizer has a chat template and puts a BOS before everything."
    from tokenizers import Tokenizer, decoders, models as parts, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    special = ["<bos>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(parts.BPE({c: i for i, c in enumerate(special + alphabet)}, []))
    tok.add_special_tokens(special)
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tok.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<bos>", eos_token=end, pad_token=end, chat_template=template)
    models.scratch("0.1m", tokenizer).save(folder)
    return folder


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")])
def test_the_template_alone_writes_special_tokens(tmp_path, template):
    lm = models.load(polite(tmp_path / "m", template))
    text = lm.tokenizer.decode(lm.as_chat().prompt_ids("How many?"))
    assert text == ("<bos>" if "bos" in template else "") + "<|user|>How many?<|end|><|assistant|>"
    assert lm.tokenizer.decode(lm.prompt_ids("How many?")) == "<bos>How many?" and not lm.chat
    assert lm.as_chat().as_chat().id == lm.as_chat().id != lm.id
    # asked in both ways, one ledger keeps the draws apart
    assert prompt_id(lm, "Q", Decoding()) != prompt_id(lm.as_chat(), "Q", Decoding())


def test_a_chat_student_end_to_end(desk):
    polite("tuned")
    path, _ = sampled(desk, n=2)
    w.distil(path, "tuned", "student", format="chat", store=desk, **SMALL)
    result, items = w.evaluate("student", "pens.jsonl", n_items=2, max_tok=8, store=desk)
    assert result["format"] == "chat" and result["model_id"].endswith("/chat")
    assert w.show(model="student", task="pens.jsonl", n_items=2, max_tok=8, store=desk)["stored"]
    stored = desk.ledger.read(["prompt", "model_id"])
    assert any(m.endswith("/chat") and p.endswith("<answer>") for p, m in zip(stored.prompt, stored.model_id))
    assert len(w.ask("student", "How many?", max_tok=4, store=desk)) == 1
    cond = Condition(task="pens.jsonl", method="cot", n_rationales=1, teacher=Teacher(model="scripted", pool=2, max_tok=200), student="tuned", format="chat",
                     recipe=Recipe(steps=2, batch=4), max_student_tok=8, n_items=2)
    rows = run_cell("chat", "c", [cond], desk)
    assert rows.model_id.iloc[0].endswith("/chat")


def test_a_model_without_a_template_cannot_chat(desk):
    with pytest.raises(ValueError, match="chat"):
        w.sample("pens.jsonl", "scripted", n=1, format="chat", store=desk)
    with pytest.raises(ValueError, match="no chat template"):
        w.ask("scratch/0.1m", "How many?", format="chat", store=desk)


class Thinking(Scripted):
    "An instruction-tuned teacher that thinks first."
    chat = True

    def say(self, a, b, c):
        return f"<think>\nSo the answer is: {c + 100}? No.\n</think>\n\nAnn has {a} + {b} = {c} pens.\nSo the answer is: {c}"


def test_a_thinking_teacher_is_read_for_what_it_says_or_for_what_it_thinks(desk):
    desk._models["scripted", None, 0] = Thinking()
    said = sampled(desk, n=1, format="chat")[1]
    assert all(r["correct"] and "100" not in r["rationale"] and r["rationale"].startswith("Ann has") for r in said)
    thought = sampled(desk, n=1, format="chat_think")[1]
    assert all(r["correct"] and r["rationale"].endswith("No.") for r in thought)


# --- recorded teachers

def test_recorded_completions_of_own_questions(desk):
    task = load_task("pens.jsonl")
    said = [dict(id=i.id, completion_index=k, rationale=f"That makes\n\n{int(i.answer) + k}.", answer_text=f" {int(i.answer) + k}.", finish_reason="stop")
            for s in ("train", "test") for i in task.split(s) for k in range(2)]
    Path("old.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said + [dict(said[0], id="stranger")]))
    rows = w.import_recorded("old.jsonl", "pens.jsonl", store=desk)
    assert len(rows) == len(said) == desk.ledger.count() and all(r["correct"] == (r["draw_index"] == 0) for r in rows)
    assert {r["engine"] for r in rows} == {"recorded"} and {r["teacher"] for r in rows} == {"recorded:old.jsonl"} and all(r["temperature"] is None for r in rows)
    assert {(r["instance"], r["draw_index"]): r["rationale"] for r in rows} == {(r["id"], r["completion_index"]): r["rationale"] for r in said}
    path = w.write_corpus(rows, "old_corpus.jsonl")
    with pytest.raises(ValueError, match="test split"):
        w.distil(path, "scratch/0.1m", "s", store=desk, **SMALL)
    assert w.distil(path, "scratch/0.1m", "s", split="train", store=desk, **SMALL)["n_completions"] == len(task.split("train"))
    with pytest.raises(KeyError, match="--task"):
        w.import_recorded("old.jsonl", store=desk)
    with pytest.raises(ValueError, match="has an id"):
        w.import_recorded("old.jsonl", "arith", store=desk)


@pytest.mark.parametrize("name, task, splits", [
    ("multiarith__zero_shot_cot", "multiarith", {"train", "selection", "test"}), ("quarel_test__gpt3_mario", "quarel:official_test", {"test"}),
    ("aqua__zero_shot", "aqua_heldout", {"test"})])
def test_recorded_files_keep_every_completion(desk, data_dir, name, task, splits):
    rows, table = w.import_recorded(name, store=desk), recorded(name)
    texts = {(r.instance, r.draw_index): r for r in table.itertuples()}
    assert len(rows) == len(table) == len(texts) and {r["task"] for r in rows} == {task} and {r["split"] for r in rows} == splits
    for r in rows:  # also where two questions have the same words
        said = texts[r["instance"], r["draw_index"]]
        assert all((part or "").strip() in r["text"] for part in (said.rationale, said.answer_text)) and r["prompt"] == (said.prompt or r["prompt"])
        assert r["question"] == (said.question or r["question"]) and r["recorded_sha256"] == table.attrs["sha256"]
    with pytest.raises(ValueError, match="test split"):
        w.rows_to_train_on(rows, None)


def test_recorded_files_find_their_task_by_their_ids(desk, data_dir, tmp_path):
    said = [dict(id=f"strategy_qa-{k}", rationale="So it is.", prediction="yes", gold="yes") for k in range(9)] + [dict(id="stranger-1", rationale="No.")]
    (path := tmp_path / "strategyqa_train__somebody.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    assert {r["task"] for r in w.import_recorded(path, store=desk)} == {"strategy_qa"}
    facts = json.loads(cotstudy("import-recorded", path, "--out", tmp_path / "c.jsonl", "--json").stdout)
    assert (facts["n_rows"], facts["n_of_unknown_questions"], facts["task"]) == (9, 1, "strategy_qa")


@pytest.mark.parametrize("name", ["date_understanding:ho", "tracking_shuffled_objects:ho", "date_understanding"])
def test_letters_are_read_with_the_options_that_were_asked(desk, data_dir, tmp_path, name):
    task, base = load_task(name), name.split(":")[0]
    said = [dict(id=i.id, question=i.question, rationale="So it is.", answer_text=f" ({i.answer})", gold=i.answer) for s in task.splits.values() for i in s]
    (path := tmp_path / f"{base}__ho_zero_shot_cot.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    rows = w.import_recorded(path, store=desk)
    assert len(rows) == len(said) and {r["task"] for r in rows} == {name} and all(r["correct"] for r in rows)
    other = {"date_understanding:ho": "date_understanding", "date_understanding": "date_understanding:ho"}.get(name)
    if other is None: return  # both list these options in one order
    with pytest.raises(ValueError, match="letters mean something else; name the rendering"): w.import_recorded(path, other, store=desk)
    with pytest.raises(ValueError, match="letters mean something else"): w.sample(other, f"recorded:{path}", 1, store=desk)


def test_explanations_of_a_known_answer_have_it_only_when_told(desk, data_dir, tmp_path):
    said = [dict(id=i.id, rationale="Because of that.", gold=i.answer) for i in load_task("openbookqa").split("train")[:9]]
    (path := tmp_path / "why.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    assert not any(r["answer"] or r["correct"] for r in w.import_recorded(path, store=desk))
    assert all(r["correct"] and r["conditioned"] and r["answer"] == r["gold"] for r in w.import_recorded(path, conditioned=True, store=desk))


# --- a teacher behind an address

@pytest.fixture
def address():
    "A server that speaks the protocol, adds what it is asked to add, and slips where its seed is odd."
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"] if "messages" in body else body["prompt"]
            found = [int(x) for x in re.findall(r"\d+", prompt)][-2:]
            text = str(body["seed"]) if len(found) < 2 else f" That is {sum(found)}. So the answer is: {sum(found) + body['seed'] % 2}"
            said = dict(message=dict(role="assistant", content=text, reasoning_content="So the answer is: 999")) if "messages" in body else dict(text=text)
            data = json.dumps(dict(id="1", object="x", created=1, model="m", choices=[dict(index=0, finish_reason="stop", **said)],
                                   usage=dict(prompt_tokens=9, completion_tokens=7, total_tokens=16))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args): pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.mark.parametrize("fmt", ["cotstudy", "chat"])
def test_a_corpus_from_a_server(desk, address, fmt):
    args = ["sample", "--task", "pens.jsonl", "--teacher", "api:toy", "--base-url", address, "--format", fmt, "--n", 3, "--max-tok", 20, "--out", "c.jsonl", "--json"]
    poor = cotstudy(*args, "--budget-tok", 300)
    assert poor.exit_code == 1 and "budget" in poor.stderr and not Path("c.jsonl").exists()
    some = Store().ledger.count()
    assert 0 < some
    facts = json.loads(cotstudy(*args).stdout)
    rows = w.read_corpus("c.jsonl")
    assert facts["n_rows"] == len(rows) == Store().ledger.count() > some and 0 < facts["accuracy"] < 1 and facts["n_unparsed"] == 0
    assert all("999" not in r["rationale"] and r["engine"] == "openai" and r["n_tok"] == 7 for r in rows)


@pytest.mark.parametrize("name", ["said.jsonl", "said.jsonl.gz"])
def test_rescore_prints_percent_to_two_decimals(tmp_path, name):
    text = "".join(json.dumps(dict(id=k, rationale="I see 1.", answer_text=f" {k}.", gold="1")) + "\n" for k in range(3))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    asked = ["rescore", tmp_path / name, "--task", "gsm8k", "--rule", "kojima"]
    assert json.loads(cotstudy(*asked, "--json").stdout) == dict(n=3, accuracy=33.33, unparsed=0)
    assert cotstudy(*asked).stdout.split() == "n 3 accuracy 33.33 % unparsed 0".split()


@pytest.mark.parametrize("price, said", [("cheap", "expected input,output"), ("1", "expected input,output"), ("nan,1", "expected input,output"), ("-1,1", "expected input,output"), ("", "needs a price")])
def test_a_budget_in_money_needs_a_price(price, said):
    assert budget(money=5, price="0.15,0.60").cost(10**6, 10**6) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=said):
        budget(money=5, price=price)


# --- the command line

def cotstudy(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_commands_print_one_json_document_and_report_on_stderr(desk):
    out = cotstudy("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 2, "--max-tok", 8, "--n-questions", 3, "--out", "c.jsonl", "--json")
    facts = json.loads(out.stdout)
    assert facts["n_rows"] == 6 == len(w.read_corpus("c.jsonl")) and "draws" in out.stderr
    w.write_corpus(w.check_corpus([pens(a, 2) | dict(answer=str(a + 2), rationale=f"{a} + 2 = {a + 2}") for a in range(20, 24)]), "own.jsonl")
    made = cotstudy("distil", "--corpus", "own.jsonl", "--student", "scratch/0.1m", "--out", "student", "--steps", 2, "--batch", 4, "--json")
    assert json.loads(made.stdout)["steps"] == 2 and "steps 2/2" in made.stderr
    got = cotstudy("evaluate", "student", "--task", "pens.jsonl", "--n-items", 2, "--max-tok", 4, "--items", "items.jsonl", "--json")
    assert json.loads(got.stdout)["n"] == 2 == len(Path("items.jsonl").read_text().splitlines())
    assert json.loads(cotstudy("ask", "student", "How many?", "--max-tok", 4, "--json").stdout)[0]["n_tok"] <= 4
    assert "RIGHT" in cotstudy("show", "--model", "student", "--task", "pens.jsonl", "--n-items", 2, "--max-tok", 4).stdout
    assert json.loads(cotstudy("export", "own.jsonl", "--out", "hf", "--schema", "chat", "--json").stdout)["n_rows"] == 4
    cotstudy("import-corpus", "hf", "--out", "back.jsonl")
    assert w.read_corpus("back.jsonl") == w.read_corpus("own.jsonl")


@pytest.mark.parametrize("args, said", [
    (("sample", "--task", "pns", "--teacher", "pocket/xs", "--out", "c.jsonl"), "no task"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xxs", "--out", "c.jsonl"), "did you mean"),
    (("sample", "--task", "pens.jsonl", "--teacher", "gpt2", "--out", "c.jsonl"), "no folder here, and as a hub model its revision"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--out", "."), "is a folder"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--rule", "mine", "--out", "c.jsonl"), "rule: "),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--split", "tset", "--out", "c.jsonl"), "no split"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--temperature", 0, "--out", "c.jsonl"), "--n 1"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 0, "--out", "c.jsonl"), "at least 1"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n-questions", 999, "--out", "c.jsonl"), "ask for fewer"),
    (("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--format", "cto", "--out", "c.jsonl"), "no format"),
    (("distil", "--corpus", "none.jsonl", "--student", "scratch/0.1m", "--out", "s"), "no file"),
    (("distil", "--corpus", "wrong.jsonl", "--student", "scratch/0.1m", "--out", "s"), "no training example"),
    (("distil", "--corpus", "right.jsonl", "--student", "scratch/0.1m", "--out", "s", "--steps", 0), "steps"),
    (("distil", "--corpus", "right.jsonl", "--student", "scratch/0.2m", "--out", "s"), "no size"),
    (("distil", "--corpus", "right.jsonl", "--student", "scratch/0.1m", "--out", "s", "--filters", "corect"), "no filter"),
    (("distil", "--corpus", "right.jsonl", "--student", "scratch/0.1m", "--out", "s", "--method", "rote"), "method"),
    (("evaluate", "nowhere/at/all", "--task", "pens.jsonl"), "neither a folder"),
    (("evaluate", "pocket/xs", "--task", "pens.jsonl", "--decoding", "beam"), "decoding"),
    (("evaluate", "pocket/xs", "--task", "pens.jsonl", "--rule", "mine"), "rule"),
    (("evaluate", "pocket/xs", "--task", "pens.jsonl", "--n-items", 1, "--max-tok", 4, "--items", "x.xls"), ".parquet"),
    (("show",), "name a study"), (("show", "--study", "nope"), "cotstudy run nope"), (("show", "--study", "nope", "--where", "seed"), "column=value"),
    (("ask", "pocket/xs", " "), "empty"), (("export", "right.jsonl", "--out", "hf", "--schema", "alpaca"), "schema"), (("import-corpus", "."), "import")])
def test_expected_errors_are_one_line_that_says_what_to_do(desk, args, said):
    Path("right.jsonl").write_text(json.dumps(dict(question="Q?", rationale="R.", answer="5")))
    Path("wrong.jsonl").write_text(json.dumps(dict(question="Q?", rationale="R.", answer="5", correct=False)))
    if args[0] == "import-corpus":
        args, said = (*args, "--out", "x.jsonl"), "cotstudy export"
    result = cotstudy(*args)
    lines = [x for x in result.stderr.splitlines() if x.startswith("cotstudy: ")]
    assert result.exit_code == 1 and len(lines) == 1 and said in lines[0] and "Traceback" not in result.stderr and not result.stdout
    assert Store().ledger.count() == 0  # said before the work


def test_a_wrong_data_folder_is_one_line_too(monkeypatch):
    monkeypatch.setenv("COTSTUDY_DATA", "/nowhere/at/all")
    for args in (["tasks"], ["sample", "--task", "gsm8k", "--teacher", "pocket/xs", "--out", "c.jsonl"]):
        result = cotstudy(*args)
        assert result.exit_code == 1 and "COTSTUDY_DATA is '/nowhere/at/all'" in result.stderr and len(result.stderr.splitlines()) == 1


def test_every_command_has_help():
    listed = set(typer.main.get_command(app).commands)
    assert {"sample", "distil", "evaluate", "show", "ask", "export", "import-corpus", "import-recorded"} <= listed
    for name in listed:
        assert cotstudy(name, "--help").exit_code == 0
