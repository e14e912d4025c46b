"""What people type comes to a result or to one line that says what is wrong and what to do."""
import gzip
import json
from pathlib import Path

import pytest
import typer

from cotstudy import corpora as w
from cotstudy.cli import app
from cotstudy.runs import Store
from desk import cotstudy, desk, pens  # noqa: F401


@pytest.mark.parametrize("name", ["said.jsonl", "said.jsonl.gz"])
def test_rescore_prints_percent_to_two_decimals(tmp_path, name):
    text = "".join(json.dumps(dict(id=k, rationale="I see 1.", answer_text=f" {k}.", gold="1")) + "\n" for k in range(3))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    asked = ["rescore", tmp_path / name, "--task", "gsm8k", "--rule", "kojima"]
    assert json.loads(cotstudy(*asked, "--json").stdout) == dict(n=3, accuracy=33.33, unparsed=0)
    assert cotstudy(*asked).stdout.split() == "n 3 accuracy 33.33 % unparsed 0".split()


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
