"""What people type comes to a result or to one line that says what is wrong and what to do."""
import errno
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
import typer
from hypothesis import HealthCheck, given, settings, strategies as st

from cotstudy import corpora as w
from cotstudy.cli import app, one_line
from cotstudy.models import pocket_models
from cotstudy.runs import Store
from cotstudy.studies import expand, load_study
from cotstudy.tasks import load as load_task
from desk import cotstudy, pens
from odd import Odd


@pytest.mark.parametrize("name", ["said.jsonl", "said.jsonl.gz"])
def test_rescore_prints_percent_to_two_decimals(tmp_path, name):
    text = "".join(json.dumps(dict(id=k, rationale="I see 1.", answer_text=f" {k}.", gold="1")) + "\n" for k in range(3))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    asked = ["rescore", tmp_path / name, "--task", "gsm8k", "--rule", "kojima"]
    assert json.loads(cotstudy(*asked, "--json").stdout) == dict(n=3, accuracy=33.33, unparsed=0)
    assert cotstudy(*asked).stdout.split() == "n 3 accuracy 33.33 % unparsed 0".split()


def test_commands_print_one_json_document_and_report_on_stderr(desk):
    out = cotstudy("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 2, "--max-tok", 8, "--n-questions", 3, "--out",
                   "c.jsonl", "--json")
    facts = json.loads(out.stdout)
    assert facts["n_rows"] == 6 == len(w.read_corpus("c.jsonl")) and "draws" in out.stderr
    w.write_corpus(w.check_corpus([pens(a, 2) | dict(answer=str(a + 2), rationale=f"{a} + 2 = {a + 2}") for a in range(20, 24)]),
                   "own.jsonl")
    made = cotstudy("distil", "--corpus", "own.jsonl", "--student", "scratch/0.1m", "--out", "student", "--steps", 2, "--batch", 4,
                    "--json")
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
    (("show",), "name a study"), (("show", "--study", "nope"), "cotstudy run nope"), (("show", "--study", "nope", "--where", "seed"),
                                                                                      "column=value"),
    (("ask", "pocket/xs", " "), "empty"), (("export", "right.jsonl", "--out", "hf", "--schema", "alpaca"), "schema"), (("import-corpus",
            "."), "import")])
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


# --- what is malformed

GOOD = b'{"question": "Q?", "rationale": "R.", "answer": "5"}\n'
BAD_FILES = {  # no JSON-lines file of questions, completions or draws, whichever way one looks at it
    "empty": b"", "spaces": b" \n\t\n \n", "binary": bytes(range(256)) * 8,
    "latin1": '{"question": "Wie gro\xdf?", "answer": "5"}'.encode("latin-1"),
    "utf16": GOOD.decode().encode("utf-16"), "number": b"5\n", "list": b"[1, 2, 3]\n", "text": b"Once upon a time.\n", "half": GOOD[:20],
    "deep": b"[" * 100_000, "deep_object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep_field": b'{"question": "Q?", "answer": "5", "x": '
    + b"[" * 50_000 + b"]" * 50_000 + b"}", "null": b"null\n", "true": b"true\n", "csv": b"question,answer\nQ?,5\n",
    "html": b"<html><body>404</body></html>",
    "no_question": b'{"answer": "5"}\n' * 3, "no_answer": b'{"question": "Q?"}\n', "question_number": b'{"question": 5, "answer": "5"}\n',
    "question_list": b'{"question": ["Q?"], "answer": "5"}\n', "question_null": b'{"question": null, "answer": "5"}\n',
    "answer_list": b'{"question": "Q?", "answer": ["5"]}\n', "answer_object": b'{"question": "Q?", "answer": {"a": 5}}\n',
    "surrogate": b'{"question": "Q\\ud800?", "answer": "5"}\n', "second_line": GOOD + b"oops\n", "zip": b"PK\x03\x04" + bytes(60),
    "parquet": b"PAR1" + bytes(60) + b"PAR1", "digits": b'{"question": "Q?", "answer": ' + b"9" * 6000 + b"}\n",
    "yaml": b"question: Q?\nanswer: 5\n"}
PLACES = ["folder", "loop", "dangling", "missing", "below_a_file", "n" * 300]


def litter():
    "Malformed files, and names behind which there is no file."
    for name, data in BAD_FILES.items():
        Path(f"{name}.jsonl").write_bytes(data)
    Path("cut.jsonl.gz").write_bytes(gzip.compress(GOOD * 99)[:-12])
    Path("no.jsonl.gz").write_bytes(b"\x1f\x8b" + bytes(40))
    Path("folder.jsonl").mkdir()
    Path("loop.jsonl").symlink_to("loop.jsonl")
    Path("dangling.jsonl").symlink_to("nowhere.jsonl")
    Path("file").write_text("x")


READERS = {  # commands that read a file of lines
    "tasks": ["tasks", "{}"], "sample": ["sample", "--task", "{}", "--teacher", "pocket/xs", "--out", "c.jsonl"],
    "evaluate": ["evaluate", "pocket/xs", "--task", "{}"], "show": ["show", "--model", "pocket/xs", "--task", "{}"],
    "rescore": ["rescore", "{}", "--task", "arith"], "distil": ["distil", "--corpus", "{}", "--student", "scratch/0.1m", "--out", "s"],
    "distil_task": ["distil", "--corpus", "right.jsonl", "--task", "{}", "--student", "scratch/0.1m", "--out", "s"],
    "export": ["export", "{}", "--out", "hf"], "import-recorded": ["import-recorded", "{}", "--task", "arith", "--out", "c.jsonl"],
    "import-corpus": ["import-corpus", "{}", "--out", "c.jsonl"]}
NAMES = [f"{n}.jsonl" for n in BAD_FILES] + ["cut.jsonl.gz", "no.jsonl.gz", "file/below.jsonl"] + [
    f"{n}.jsonl" for n in PLACES if n != "below_a_file"]


def complains(*args, says=(), code=1):
    "Run a command that must fail: one line that names what is wrong, nothing on stdout, no traceback."
    result = cotstudy(*args)
    lines = [x for x in result.stderr.splitlines() if x.startswith("cotstudy: ")]
    told = result.stderr[-600:]
    assert result.exit_code == code and "Traceback" not in result.stderr and not result.stdout, told
    if code == 1:
        assert len(lines) == 1 and 20 < len(lines[0]) <= 1100 and lines[0].isprintable(), told
        assert "[Errno" not in lines[0], "an error of the system is put in words"
    missing = [s for s in ([says] if isinstance(says, str) else says) if s not in result.stderr]
    assert not missing, f"{missing} is not in: {told}"
    return result


@pytest.mark.parametrize("command", READERS)
def test_malformed_files_are_named(desk, command):
    litter()
    Path("right.jsonl").write_bytes(GOOD)
    for name in NAMES:
        fine = {"rescore": ["digits"], "import-recorded": []}.get(command, [])
        if name.split(".")[0] in fine: continue
        complains(*[a.replace("{}", name) for a in READERS[command]], says=name.split("/")[-1].split(".")[0][:100])
    assert not Path("c.jsonl").exists() and not Path("hf").exists() and not Path("s").exists()


STUDY = "study: mine\ntitle: T\ncells:\n  - {template: sample_count, over: {task: [arith], student: [pocket/xs]}}\n"
BAD_STUDIES = {
    "bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n" + "study: *i\ntitle: T\n".join(["".join(  # 387 million values
            f"{z}: &{z} [{', '.join([f'*{y}'] * 9)}]\n" for y, z in zip("abcdefgh", "bcdefghi")), ""]),
    "holds itself": "study: &a [*a]\ntitle: T\n",
    "many keys": "study: s\n" + "".join(f"k{k}: 1\n" for k in range(40_000)),
    "empty": "", "comment": "# nothing\n", "number": "5", "text": "hello", "list": "- a\n- b", "null": "null", "tab": "study:\n\ttitle: x",
    "colon": "study: a: b", "bracket": "study: [a", "quote": 'study: "a', "anchor": "study: *x",
    "tag": "study: !!python/object/apply:os.system [ls]",
    "twice": STUDY + "title: again\n", "twice_below": STUDY.replace("task: [arith]", "task: [arith], task: [coin]"),
    "unknown": STUDY + "colour: red\n", "no_title": STUDY.replace("title: T\n", ""), "no_cells": "study: mine\ntitle: T\n",
    "cells_empty": "study: mine\ntitle: T\ncells: []\n", "cells_text": "study: mine\ntitle: T\ncells: all\n",
    "cells_object": "study: mine\ntitle: T\ncells: {a: 1}\n", "name_up": STUDY.replace("mine", "../mine"),
    "name_path": STUDY.replace("mine", "/tmp/mine"),
    "name_empty": STUDY.replace("mine", "''"), "name_number": STUDY.replace("mine", "5"), "name_list": STUDY.replace("mine", "[a]"),
    "name_dots": STUDY.replace("mine", ".."), "template_path": STUDY.replace("sample_count", "../studies/sample_count"),
    "template_unknown": STUDY.replace("sample_count", "sample_counts"), "over_text": STUDY.replace("[arith]", "arith"),
    "over_null": STUDY.replace("[arith]", "null"), "over_number": STUDY.replace("[arith]", "5"), "task_unknown": STUDY.replace("arith",
            "arithm"),
    "task_number": STUDY.replace("[arith]", "[5]"), "task_null": STUDY.replace("[arith]", "[null]"),
    "student_unknown": STUDY.replace("pocket/xs", "pocket/xxxs"), "student_scheme": STUDY.replace("pocket/xs", "'opn:xs'"),
    "parameter": STUDY.replace("over:", "with: {colour: red}, over:"), "parameter_type": STUDY.replace("over:",
            "with: {seeds: many}, over:"),
    "parameter_object": STUDY.replace("over:", "with: {seeds: {a: 1}}, over:"), "base_text": STUDY + "base: x\n",
    "base_list": STUDY + "base: [a]\n",
    "base_number": STUDY + "base: {5: 5}\n", "base_null": STUDY + "base: {null: 1}\n", "base_dots": STUDY + "base: {'a..b': 1}\n",
    "base_unknown": STUDY + "base: {recipe.stepps: 4}\n", "base_value": STUDY + "base: {recipe.steps: many}\n",
    "base_negative": STUDY + "base: {recipe.steps: -4}\n", "base_nan": STUDY + "base: {recipe.lr: .nan}\n",
    "base_inf": STUDY + "base: {recipe.lr: .inf}\n",
    "base_yes": STUDY + "base: {recipe.steps: yes}\n", "base_exponent": STUDY + "base: {recipe.lr: 1e}\n",
    "base_format": STUDY + "base: {format: cto}\n", "base_teacher": STUDY + "base: {teacher.model: 'gpt:4'}\n",
    "huge_train": STUDY + "base: {task_args.n_train: 1000000000000}\n", "huge_float": STUDY + "base: {task_args.n_train: 1.0e+12}\n",
    "train_text": STUDY + "base: {task_args.n_train: many}\n", "train_list": STUDY + "base: {task_args.n_train: [1]}\n",
    "train_negative": STUDY + "base: {task_args.n_train: -1}\n", "args_unknown": STUDY + "base: {task_args.colour: 1}\n",
    "timeout": STUDY + "timeout_s: 0\n", "timeout_text": STUDY + "timeout_s: soon\n", "summary_path": STUDY + "summaries: ['../x']\n",
    "summary_absolute": STUDY + "summaries: ['/tmp/x']\n", "summary_unknown": STUDY + "summaries: [reprot]\n",
    "summary_text": STUDY + "summaries: report\n",
    "deep": "study: " + "[" * 5000, "deep_map": "a: {" * 3000, "huge": "#" * 2_000_000, "latin1": STUDY.replace("T\n", "\xdf\n"),
    "control": STUDY.replace("T\n", "\x07\n"), "date": STUDY.replace("mine", "2020-01-01"), "same_cell": STUDY.replace("[arith]",
            "[arith, arith]"),
    "product": STUDY.replace("over: {", "over: {" + ", ".join(f"x{k}: [{', '.join(map(str, range(100)))}]" for k in range(4)) + ", ")}


@pytest.mark.parametrize("name", BAD_STUDIES)
def test_malformed_studies_are_named(desk, name):
    Path(f"{name}.yaml").write_bytes(BAD_STUDIES[name].encode("latin-1" if name == "latin1" else "utf-8"))
    complains("run", f"{name}.yaml", "--dry-run")
    assert not Path("outputs").exists()


@pytest.mark.parametrize("args", [["run", "{}", "--dry-run"], ["run", "{}"], ["status", "{}"], ["claims", "{}"], ["show", "--study", "{}"]],
                         ids=lambda a: "-".join(a[:1] + a[2:]))
def test_strange_names_of_studies_are_refused(desk, args):
    litter()
    for name in ["nope", "", " ", ".", "..", "../mine", "/etc/passwd", "a/b", "a\\b", "a\0b", "\x1b[31mred", "n" * 300, "m\xfcll er", "*",
                 "~", "$HOME",
                 "folder.yaml", "loop.yaml", "nope.yaml", "n" * 300 + ".yaml", "a\0b.yaml", "\ud800", "pens.jsonl"]:
        Path("loop.yaml").unlink(missing_ok=True)
        Path("loop.yaml").symlink_to("loop.yaml")
        Path("folder.yaml").mkdir(exist_ok=True)
        complains(*[a.replace("{}", name) for a in args])
    assert not list(Path().glob("outputs/*/rows*"))


SAMPLE = ["sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--out", "c.jsonl"]
DISTIL = ["distil", "--corpus", "right.jsonl", "--student", "scratch/0.1m", "--out", "s", "--steps", 1, "--batch", 1]
EVALUATE = ["evaluate", "pocket/xs", "--task", "pens.jsonl", "--n-items", 1, "--max-tok", 1]
BAD_VALUES = [(command, option, value) for command, option, values in [
    (SAMPLE, "--n", [-1, 0, 10**9, 10**30, "many", 1.5]), (SAMPLE, "--temperature", [-1, "nan", "inf", "warm"]), (SAMPLE, "--top-p", [0,
            -1, 2, "nan"]),
    (SAMPLE, "--top-k", [-1, "x"]), (SAMPLE, "--max-tok", [0, -1, "x"]), (SAMPLE, "--n-questions", [-1, 10**9]), (SAMPLE, "--split", ["",
            "tset", "TEST"]),
    (SAMPLE, "--format", ["cto", "COT", "../x"]), (SAMPLE, "--rule", ["", "mine"]), (SAMPLE, "--task", ["", "arithm", ".", "/",
            "~nobody/x", "a\0b", "http://x/y"]),
    (SAMPLE, "--teacher", ["", "pocket/", "pocket/xxs", "gpt2", "gpt2@main", "opn:x", "recorded:none", "recorded:", "scratch/",
                           "scratch/9m", ".", "~nobody/x",
                           "a\0b", "/etc/passwd", "a/b/c", "n" * 300, "\ud800"]),
    (SAMPLE, "--out", [".", "..", "/", "", "pens.jsonl", "file/c.jsonl", "n" * 300]),
    (DISTIL, "--steps", [0, -1, 10**12, "x"]), (DISTIL, "--lr", [0, -1, "nan", "x"]), (DISTIL, "--batch", [0, -1, 10**12]), (DISTIL,
            "--seed", [-1, 10**30]),
    (DISTIL, "--checkpoint", ["", "best", "gold", "vote"]), (DISTIL, "--score-every", [-1]), (DISTIL, "--max-tok", [0, 1, -1]), (DISTIL,
            "--truncate", ["maybe"]),
    (DISTIL, "--precision", ["int8"]), (DISTIL, "--method", ["rote", "zero_shot"]), (DISTIL, "--split", ["dev", "test", "train"]),
    (DISTIL, "--filters", ["corect", "sample", "sample:x", "sample:0", "sample:-1", "diverse_by:x", "sound", "correct", "likely:2"]),
    (DISTIL, "--task", ["arithm", "nope.jsonl", "."]), (DISTIL, "--student", ["", "pocket/xxs", "scratch/9m", "api:gpt", "recorded:x",
                                                                              "gpt2", ".", "vllm:x"]),
    (DISTIL, "--out", [".", "/", "file", "file/s", "mine", "n" * 300]), (DISTIL, "--corpus", [".", "mine", "pocket/xs"]),
    (EVALUATE, "--split", ["", "tset"]), (EVALUATE, "--decoding", ["", "beam"]), (EVALUATE, "--method", ["rote"]), (EVALUATE, "--format",
            ["cto"]),
    (EVALUATE, "--rule", ["mine"]), (EVALUATE, "--n-items", [-1, "x"]), (EVALUATE, "--max-tok", [0, -1]), (EVALUATE, "--revision",
            ["\ud800" * 0 + "x" * 0]),
    (EVALUATE, "--items", ["x.xls", ".", "mine", "pens.jsonl", "file/x.csv", "x"]), ([*EVALUATE, "--decoding", "vote"], "--n-paths", [0,
            -1, 10**9]),
    ([*EVALUATE, "--decoding", "vote"], "--temperature", [0, -1, "nan", "inf"]),
    (["ask", "pocket/xs", "Q?"], "--n", [0, -1, 2, 10**9]), (["ask", "pocket/xs", "Q?"], "--temperature", [-1, "nan", "inf"]),
    (["ask", "pocket/xs", "Q?"], "--max-tok", [0, -1]), (["ask", "pocket/xs", "Q?"], "--format", ["cto", "chat"]),
    (["show", "--model", "pocket/xs", "--task", "pens.jsonl", "--n-items", 1, "--max-tok", 1], "--n", [0, -1]),
    (["export", "right.jsonl", "--out", "hf"], "--schema", ["", "alpaca"]), (["export", "right.jsonl", "--out", "hf"], "--student-format",
                                                                             ["cto"]),
    (["export", "right.jsonl", "--out", "hf"], "--filters", ["corect", "correct", "sample:x"]),
    (["export", "right.jsonl", "--out", "hf"], "--out", [".", "..", "/", "file", "file/hf", "mine", "n" * 300]),
    (["import-corpus", "mine"], "--out", ["c.jsonl"]), (["import-recorded", "right.jsonl", "--out", "c.jsonl"], "--task", ["arithm",
            "pens.jsonl"]),
    (["rescore", "right.jsonl", "--task", "arith"], "--rule", ["mine"]), (["rescore", "right.jsonl", "--task", "arith"], "--task",
                                                                          ["arithm", ""]),
    (["run", "smoke"], "--workers", [-1, "many", 10**9]), (["bench", "train"], "--repeats", [0, -1]), (["pocket", "build"], "--size",
            ["xxl"]),
    (["bench"], "nothing", [""])] for value in values if value != "" or option in ("--teacher", "--student", "--split", "--schema")]


@pytest.mark.parametrize("command, option, value", BAD_VALUES, ids=lambda x: str(x)[:20] if isinstance(x, (str, int, float)) else x[0])
def test_bad_values_of_options_are_refused(desk, command, option, value):
    Path("right.jsonl").write_bytes(GOOD)
    Path("file").write_text("x")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    if value == "" and option == "--split" and command[0] == "distil": return
    result = cotstudy(*command, option, value)
    assert result.exit_code in (1, 2) and "Traceback" not in result.stderr and not result.stdout, result.output[-500:]
    assert len(result.stderr.splitlines()) <= (1 if result.exit_code == 1 else 12), result.stderr
    assert "[Errno" not in result.stderr and len(result.stderr) > 30
    assert Path("mine/thesis.txt").read_text() == "years of work" and len(load_task("pens.jsonl").split("train")) > 0
    assert Path("right.jsonl").read_bytes() == GOOD and not Path("s").exists() and not Path("hf").exists()


# --- what is damaged

def shipped(name):
    "A copy of a model folder, to be damaged."
    return Path(shutil.copytree(pocket_models()["pocket/xs"], name))


def configured(folder, **said):
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | said))


def indexed(folder, found):
    "Weights in parts, with an index that says something strange."
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(found))


def said_beside(folder, **said):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))


DAMAGE = {
    "no_config": lambda m: (m / "config.json").unlink(), "config_empty": lambda m: (m / "config.json").write_text(""),
    "config_list": lambda m: (m / "config.json").write_text("[]"),
    "config_half": lambda m: (m / "config.json").write_text('{"model_type": "lla'),
    "config_strange": lambda m: (m / "config.json").write_text('{"model_type": "abacus"}'),
    "config_folder": lambda m: ((m / "config.json").unlink(), (m / "config.json").mkdir()),
    "config_binary": lambda m: (m / "config.json").write_bytes(bytes(range(256))),
    "no_weights": lambda m: (m / "model.safetensors").unlink(),
    "weights_empty": lambda m: (m / "model.safetensors").write_bytes(b""), "weights_cut": lambda m: os.truncate(m / "model.safetensors",
            5000),
    "weights_pointer": lambda m: (m / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
    "no_tokenizer": lambda m: [p.unlink() for p in m.glob("*token*")], "tokenizer_half": lambda m: os.truncate(m / "tokenizer.json", 100),
    "no_heads": lambda m: configured(m, num_attention_heads=0), "layers_text": lambda m: configured(m, num_hidden_layers="two"),
    "width": lambda m: configured(m, hidden_size=77), "eos_text": lambda m: configured(m, eos_token_id="x"),
    "remote": lambda m: configured(m, model_type="own", auto_map={"AutoModelForCausalLM": "own.Model"}),
    "generation_half": lambda m: (m / "generation_config.json").write_text("{"),
    "generation_list": lambda m: (m / "generation_config.json").write_text("[]"),
    "index_list": lambda m: indexed(m, dict(metadata={}, weight_map=[])), "index_none": lambda m: indexed(m, {}),
    "index_number": lambda m: indexed(m, dict(metadata={}, weight_map={"a": 3})),
    "index_outside": lambda m: indexed(m, dict(metadata={}, weight_map={"a": "../pens.jsonl"})),
    "longest_text": lambda m: said_beside(m, model_max_length="long"),
    "rope_strange": lambda m: configured(m, rope_scaling=dict(rope_type="banana", factor=2)),
    "student_text": lambda m: (m / "student.json").write_text("mine"), "student_list": lambda m: (m / "student.json").write_text("[]"),
    "student_format": lambda m: (m / "student.json").write_text('{"format": "cto", "method": "cot"}'),
    "student_method": lambda m: (m / "student.json").write_text('{"format": "ho", "method": 5}')}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_models_are_named(desk, what):
    DAMAGE[what](shipped("damaged"))
    complains("evaluate", "damaged", "--task", "pens.jsonl", "--n-items", 1, "--max-tok", 1)
    complains("ask", "damaged", "Q?", "--max-tok", 1)


@pytest.mark.parametrize("template", ["{% for m in %}", "{{ raise_exception('no') }}", "{{ messages[7].content }}"])
def test_chat_templates_that_fail_are_named(desk, template):
    said = shipped("damaged") / "tokenizer_config.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | dict(chat_template=template)))
    complains("ask", "damaged", "Q?", "--max-tok", 1, "--format", "chat", says="chat template of 'damaged' fails")


def test_damaged_exports_are_named(desk):
    Path("right.jsonl").write_bytes(GOOD)
    assert cotstudy("export", "right.jsonl", "--out", "hf").exit_code == 0
    part = next(Path("hf/corpus").glob("*.parquet"))
    whole = part.read_bytes()
    wrong = [b"", whole[:50], whole[:-3], b"PAR1" * 9, GOOD]
    for data in wrong:
        part.write_bytes(data)
        complains("import-corpus", "hf", "--out", "back.jsonl", says="corpus")
        complains("distil", "--corpus", "hf", "--student", "scratch/0.1m", "--out", "s", says="corpus")
        complains("export", "right.jsonl", "--out", "hf", says="changed")  # somebody's hand was there
    for frame in (dict(a=[1]), {k: [5] for k in w.ARROW.names}, {k: [None] for k in w.ARROW.names}):
        pd.DataFrame(frame).to_parquet(part)
        complains("import-corpus", "hf", "--out", "back.jsonl", says="corpus")
    assert not Path("back.jsonl").exists()


def test_a_full_disk_names_the_path_and_leaves_the_old_file(desk, monkeypatch):
    assert cotstudy("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 1, "--n-questions", 2, "--max-tok", 2, "--out",
                    "c.jsonl").exit_code == 0
    before = Path("c.jsonl").read_bytes()
    assert cotstudy("export", "c.jsonl", "--out", "hf", "--schema", "raw").exit_code == 0
    card = Path("hf/README.md").read_bytes()

    def full(*_, **__): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("cotstudy.files.os.replace", full)
    again = ["sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 1, "--n-questions", 2, "--max-tok", 2, "--out", "c.jsonl"]
    complains(*again, says=["c.jsonl", "disk is full"])
    complains("export", "c.jsonl", "--out", "hf", "--schema", "raw", says=["hf", "disk is full"])
    assert Path("c.jsonl").read_bytes() == before and Path("hf/README.md").read_bytes() == card
    assert sorted(p.name for p in Path().iterdir()) == ["c.jsonl", "hf", "outputs", "pens.jsonl"]  # and nothing half-written


# --- nothing of a user's is written over

def test_files_of_others_are_left_alone(desk):
    Path("right.jsonl").write_bytes(GOOD)
    shipped("begin")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    before = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file() and "outputs" not in p.parts}
    assert len(before) > 5
    sampling = ["sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 1, "--max-tok", 2, "--out"]
    for out in ("pens.jsonl", "right.jsonl", "mine/thesis.txt", "begin/config.json"): complains(*sampling, out, says=out)
    for out in ("begin", "mine", "right.jsonl", "begin/../begin"):
        complains("distil", "--corpus", "right.jsonl", "--student", "begin", "--out", out, "--steps", 1, says=out)
        complains("export", "right.jsonl", "--out", out, says=out)
    for out in ("right.jsonl", "pens.jsonl"): complains("evaluate", "pocket/xs", "--task", "pens.jsonl", "--items", out, says=out)
    complains("import-recorded", "right.jsonl", "--task", "pens.jsonl", "--out", "pens.jsonl", says="pens.jsonl")
    assert {p: p.read_bytes() for p in before} == before


def test_what_was_written_here_is_written_again(desk):
    sampling = ["sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--max-tok", 2, "--out", "c.jsonl", "--n"]
    asking = ["evaluate", "pocket/xs", "--task", "pens.jsonl", "--n-items", 2, "--max-tok", 2, "--items"]
    for n in (1, 2): assert cotstudy(*sampling, n).exit_code == 0
    assert len(w.read_corpus("c.jsonl")) == 2 * len(load_task("pens.jsonl").split("train"))
    for name in ("i.jsonl", "i.csv", "i.parquet"):
        for _ in range(2): assert cotstudy(*asking, name).exit_code == 0


# --- tasks, claims, progress, Ctrl-C

def test_a_file_of_ones_own_is_read_as_a_kind_and_why(desk):
    said = cotstudy("tasks", "pens.jsonl")
    assert "number" in said.stdout and "all 20 answers are numbers" in said.stdout and len(said.stdout.splitlines()) == 3
    told = json.loads(cotstudy("tasks", "pens.jsonl", "arith", "--json").stdout)
    assert [t["kind"] for t in told] == ["number", "number"] and "numbers" in told[0]["why"] and not told[1]["why"]
    facts = json.loads(cotstudy("sample", "--task", "pens.jsonl", "--teacher", "pocket/xs", "--n", 1, "--max-tok", 2, "--out", "c.jsonl",
                                "--json").stdout)
    assert "all 20 answers are numbers" in facts["read_as"]


COMMITTED = str(Path(__file__).parent.parent / "outputs")


@pytest.mark.parametrize("study", sorted(p.parent.name for p in Path(COMMITTED).glob("*/rows.parquet")))
def test_claims_of_committed_results(study, monkeypatch):
    from cotstudy.analyses import feeds
    from cotstudy.claims import CLAIMS, VERDICTS
    monkeypatch.setenv("COTSTUDY_OUTPUTS", COMMITTED)
    told = json.loads(cotstudy("claims", study, "--json").stdout)
    assert [c["id"] for c in told["claims"]] == [c.id for c in CLAIMS]
    assert sum(n for counts in told["counts"].values() for n in counts.values()) == len(CLAIMS)
    page = cotstudy("claims", study).stdout
    for c in told["claims"]:
        line, = [x for x in page.splitlines() if x.startswith(f"{c['id']} ")]
        assert c["verdict"] in VERDICTS and c["verdict"] in line and c["title"][:40] in line
        assert c["effect"] is None or f"{100 * c['effect']:+.1f} [{100 * c['lo']:+.1f}, {100 * c['hi']:+.1f}]" in line
        assert all(not c[why] or c[why] in page for why in ("reason", "notes"))
    read = {name for names in feeds().values() for name in names}  # `precision` is read by none
    asked = read & set(pd.read_parquet(Path(COMMITTED) / study / "rows.parquet").analysis)
    assert any(c["effect"] is not None for c in told["claims"]) == bool(asked)


def test_show_reads_rows_of_an_older_form(monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", COMMITTED)
    where = [x for c in ("task=arith", "method=cot", "student=pocket/s", "n_rationales=4", "seed=2",
                         "cell=sample_count-arith-pocket_s") for x in ("--where", c)]
    shown = json.loads(cotstudy("show", "--study", "pocket", *where, "--json").stdout)
    assert shown["point"]["seed"] == 2 and len(shown["right"]) == len(shown["wrong"]) == 3
    assert all(e["question"] and e["prediction"] != e["gold"] for e in shown["wrong"])
    many = complains("show", "--study", "pocket", says="name more of them (task: arith, relations, strategy; student: pocket/l")
    assert "nan" not in many.stderr and "weight_decay" not in many.stderr
    complains("show", "--study", "pocket", "--task", "arith", "--max-tok", 9, says="--task, --max-tok would do nothing with --study")
    complains("show", "--model", "pocket/xs", "--task", "arith", "--where", "seed=0", says="--where chooses among the rows of a study")
    complains("run", "quick", "--dry-run", "--smoke", says="give one of them")
    complains("run", "quick", "--dry-run", "--needs", "GPU=1", says="give it with --cluster")
    complains("show", "--study", "pocket", "--where", "seed=99", says="no row has seed=99")
    complains("show", "--study", "pocket", "--where", "sede=1", says="no column 'sede'")


class Terminal(io.StringIO):
    def isatty(self): return True


def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere():
    from cotstudy.steps import Reporter
    seen = {}
    for to in (Terminal(), io.StringIO()):
        with Reporter("steps", every_s=0, to=to) as report:
            report.say("three cells")
            for step in (201, 300, 400): report(step, 400, 0.25)
        seen[to.isatty()] = to.getvalue()
    assert "\r" in seen[True] and "100%" in seen[True] and "400/400" in seen[True] and "three cells\n" in seen[True]
    assert "loss 0.250" in seen[True]
    assert seen[False].splitlines() == ["three cells", *seen[False].splitlines()[1:3],
                                        "steps 400/400  loss 0.250"] and "left" in seen[False]
    assert "\r" not in seen[False] and "%" not in seen[False]


SLOW = """study: slow
title: Slow
base: {task_args.n_train: 24, task_args.n_test: 40, teacher.pool: 4, recipe.steps: 100000}
cells:
  - {template: sample_count, over: {task: [arith, coin, letters], student: [pocket/xs]}, with: {n_rationales: [1, 2]}}
"""


@pytest.mark.parametrize("again", [True, False])
def test_ctrl_c_says_what_it_waits_for_and_a_second_one_stops(desk, again):
    Path("slow.yaml").write_text(SLOW if again else SLOW.replace("100000", "4"))
    root = str(Path(__file__).parent.parent)
    call = [sys.executable, "-c", "from cotstudy.cli import app; app()", "run", str(Path("slow.yaml").resolve()), "--workers", "1"]
    run = subprocess.Popen(call, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    record = Path("outputs/slow/record/sample_count-arith-pocket_xs.json")
    for _ in range(600):
        if record.exists() and json.loads(record.read_text())["status"] == "running": break
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    if again:
        time.sleep(2)
        assert run.poll() is None, "it waits"
        run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 130 and "Traceback" not in said, said
    assert "waiting for sample_count-arith-pocket_xs; Ctrl-C once more stops them" in said
    told = json.loads(record.read_text())
    assert (told["status"], told.get("error")) == (("failed", "stopped") if again else ("done", None))
    assert "again to go on" in said and len(list(record.parent.glob("*.json"))) == 1, "no further cell was begun"


# --- real processes

def shell(*args, **env):
    where = dict(os.environ, PYTHONPATH=str(Path(__file__).parent.parent), **env)
    call = [sys.executable, "-c", "from cotstudy.cli import app; app()", *map(str, args)]
    return subprocess.run(call, capture_output=True, text=True, env=where, timeout=120, encoding="utf-8", errors="replace")


def test_in_a_process_of_its_own(desk):
    strange = "".join(json.dumps(pens(a, b) | dict(answer="größer" if a < b else "kleiner"), ensure_ascii=False) + "\n"
                      for a in range(2, 6) for b in range(2, 7))
    for name in ("u.jsonl", "ü.jsonl"): Path(name).write_text(strange, "utf-8")
    for name, code in (("u.jsonl", 0), ("ü.jsonl", 1)):  # a terminal that knows nothing but ASCII
        said = shell("tasks", name, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert said.returncode == code and ("'gr\\xf6\\xdfer'" in said.stdout) == (not code), said.stderr
        assert len(said.stderr.splitlines()) == code and ("PYTHONUTF8=1" in said.stderr) == bool(code)
    assert "größer" in shell("tasks", "ü.jsonl", PYTHONUTF8="1").stdout
    for args in (["sample", "--task", "nope.jsonl", "--teacher", "pocket/xs", "--out", "c.jsonl"], ["claims", "nope"], ["run",
            "nope.yaml"]):
        wrong = shell(*args)
        assert wrong.returncode == 1 and len(wrong.stderr.splitlines()) == 1 and wrong.stderr.startswith("cotstudy: "), wrong.stderr


# --- anything at all

names = st.sampled_from(["study", "title", "base", "cells", "summaries", "timeout_s", "needs_data", "template", "over", "with", "task",
                         "student"])
leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["arith", "pocket/xs",
        "sample_count", "mine", "../x"]))
trees = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=5), inner, max_size=4),
                     max_leaves=12)


def test_no_output_of_commands_holds_the_key(desk, monkeypatch):
    "A server that repeats the key wherever it can: in its texts, as its name, in an error, as a reason to stop."
    secret, server = "sk-very-secret", Odd()
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    def behave(body, n):
        if n == 2: return 500, dict(error=dict(message=f"bad key {secret}"))
        said = f" {secret} says {body['seed']}. So the answer is: 5"
        return 200, server.good(body, choice=dict(text=said, finish_reason=secret if n > 8 else "stop"), model=f"m-{secret}")
    server.behave = behave
    asked = ["sample", "--task", "pens.jsonl", "--teacher", "api:m", "--base-url", server.url, "--n", 2, "--n-questions", 4,
             "--max-tok", 40]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told = [cotstudy(*asked, "--budget-tok", 100_000, "--out", "c.jsonl"), cotstudy("export", "c.jsonl", "--out", "hf")]
        server.behave = lambda body, n: (401, dict(error=dict(message=f"no such key: {secret}")))
        told.append(cotstudy(*asked[:-4], "--n-questions", 5, "--max-tok", 50, "--out", "d.jsonl"))
    assert [r.exit_code for r in told] == [0, 0, 1] and server.keys == {f"Bearer {secret}"}
    assert not [x for r in told for x in (r.stdout, r.stderr) if secret in x] and not [w for w in caught if secret in str(w.message)]
    files = [p for p in Path().rglob("*") if p.is_file()]
    assert len(files) > 4 and not [p for p in files if secret.encode() in p.read_bytes()]
    tables = [pd.read_parquet(p).to_csv() for p in files if p.suffix == ".parquet"]
    assert tables and not [x for x in tables if secret in x] and any("***" in x for x in tables)
    server.http.shutdown()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees | st.fixed_dictionaries(dict(study=leaf, title=leaf, cells=st.lists(st.fixed_dictionaries(dict(
    template=st.sampled_from(["sample_count", "student_size", "nope"]), over=st.dictionaries(names, st.lists(leaf, max_size=2),
            max_size=2))), max_size=2)),
    optional=dict(base=st.dictionaries(st.sampled_from(["recipe.steps", "recipe.lr", "format", "task_args.n_train", "x"]), leaf,
                                       max_size=2), summaries=trees)))
def test_any_tree_is_a_study_or_an_error_in_words(tmp_path, tree):
    (tmp_path / "s.yaml").write_text(json.dumps(tree))
    try: expand(load_study(tmp_path / "s.yaml"))
    except (ValueError, KeyError, FileNotFoundError) as e: assert one_line(e)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_file_or_an_error_in_words(tmp_path, data):
    for name, read in (("s.yaml", load_study), ("c.jsonl", w.read_corpus), ("c.jsonl.gz", w.read_corpus), ("t.jsonl", load_task)):
        (tmp_path / name).write_bytes(data)
        try: read(tmp_path / name)
        except (ValueError, KeyError, FileNotFoundError) as e: assert one_line(e)


# --- code beside weights, ends that cannot be written, paces, addresses, frames around a question

@pytest.mark.parametrize("file, said", [
    ("tokenizer_config.json", dict(tokenizer_class="Nowhere", auto_map={"AutoTokenizer": ["own.Tokenizer", None]})),
    ("config.json", dict(model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}))])
def test_code_beside_weights_is_neither_run_nor_asked_about(desk, monkeypatch, file, said):
    folder = shipped("theirs")
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    (folder / "own.py").write_text("from pathlib import Path\nfrom transformers import LlamaConfig as Config, LlamaForCausalLM as Model, "
                                   f"PreTrainedTokenizerFast as Tokenizer\nPath({str(Path('ran').absolute())!r}).write_text('x')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what transformers asks, where it is let
    told = complains("ask", "theirs", "Q?", "--max-tok", 1, says=["theirs", "never run"])
    assert not Path("ran").exists() and "trust_remote_code" not in told.stderr


@pytest.mark.parametrize("eos", [[None, "a"], "x", [[1]], -5])
def test_ends_that_are_no_tokens_are_named(desk, eos):
    told = shipped("damaged") / "tokenizer_config.json"
    (told.parent / "generation_config.json").write_text(json.dumps(dict(eos_token_id=eos)))
    for name in ("config.json", "tokenizer_config.json"):
        path = told.parent / name
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(eos_token_id=None, eos_token=None)))
    complains("ask", "damaged", "Q?", "--max-tok", 1, says=["damaged"])


def test_a_configuration_nested_without_end_is_named(desk):
    (shipped("damaged") / "config.json").write_text('{"a":' * 20_000 + "1" + "}" * 20_000)
    complains("ask", "damaged", "Q?", "--max-tok", 1, says="config.json")


@pytest.mark.parametrize("option, value, says", [
    ("--concurrency", 0, "concurrency is 0"), ("--concurrency", 10**8, "1 to 1024"), ("--base-url", "http://127.0.0.1:99999/v1", "99999"),
    ("--base-url", "http://[::1/v1", "[::1"), ("--base-url", "http://a b/v1", "a b")])
def test_servers_that_cannot_be_asked_are_named(desk, option, value, says):
    given = {"--base-url": "http://127.0.0.1:9/v1"} | {option: value}
    named = [x for kv in given.items() for x in kv]
    complains("sample", "--task", "pens.jsonl", "--teacher", "api:m", "--out", "c.jsonl", *named, says=says)


def test_half_a_character_of_a_question_is_named(desk):
    complains("ask", "pocket/xs", "\ud800", "--max-tok", 1, says="part of a character")


@pytest.mark.parametrize("changed, says", [("base: {recipe.steps: 1000000000000000000000}\n", "recipe.steps"),
                                           ("base: {recipe: 5}\n", "recipe"), ("base: {recipe.steps: 1:30}\n", "recipe.steps"),
                                           ("base: {recipe.lr.x: 1}\n", "recipe.lr.x")])
def test_errors_of_a_plan_name_the_study_and_the_cell(desk, changed, says):
    Path("mine.yaml").write_text(STUDY + changed)
    complains("run", "mine.yaml", "--dry-run", says=["study 'mine', cell 'sample_count-arith-pocket_xs'", says])


def test_the_name_of_a_study_is_one_of_a_folder(desk):
    Path("mine.yaml").write_text(STUDY.replace("mine", "m" * 300))
    complains("run", "mine.yaml", "--dry-run", says="at most 100 characters")


def test_a_price_of_some_cells(desk):
    Path("mine.yaml").write_text(STUDY)
    complains("run", "mine.yaml", "--dry-run", "--only", "*-facts-*", says=["no cell of 'mine'", "sample_count-arith-pocket_xs"])
    some = cotstudy("run", "mine.yaml", "--dry-run", "--only", "*-arith-*")
    assert some.exit_code == 0 and "sample_count-arith-pocket_xs" in some.stdout


FRAMES = ["{}", "Q: {}", "Question: {}\nAnswer:", "Q: {}\nA: Let's think step by step.", "\u200b{}", "User: {}\n\n"]


@pytest.mark.parametrize("frame", FRAMES)
def test_no_frame_hides_a_test_question(desk, frame):
    asked = load_task("pens.jsonl").split("test")[0].question
    Path("taken.jsonl").write_text(json.dumps(dict(question=frame.format(asked), rationale="R.", answer="5")))
    complains("distil", "--corpus", "taken.jsonl", "--student", "scratch/0.1m", "--out", "s", "--task", "pens.jsonl", "--steps", 1,
              "--batch", 1, says="test split")
    assert not Path("s").exists()


def test_a_task_that_was_named_was_looked_at(desk):
    Path("right.jsonl").write_bytes(GOOD)
    told = cotstudy("distil", "--corpus", "right.jsonl", "--student", "scratch/0.1m", "--out", "s", "--task", "pens.jsonl", "--steps", 1,
                    "--batch", 1, "--json")
    assert told.exit_code == 0 and json.loads(told.stdout)["tasks_not_checked"] == []
