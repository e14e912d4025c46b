"""A pack is whole, its numbers can be made again, and a program that is not ours reads its logs to the same numbers."""
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from cotstudy import pack
from cotstudy.conditions import checked
from cotstudy.prompts import FORMATS, render_completion
from cotstudy.results import results
from cotstudy.runs import Store
from desk import cotstudy


@pytest.fixture(scope="module")
def packed(study_made):
    "The pack of the small study."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTSTUDY_OUTPUTS", str(study_made))
        facts = json.loads(cotstudy("pack", "judged", "--json").stdout)
    return Path(facts["out"]), facts


def test_a_pack_is_whole(packed):
    where, facts = packed
    rows = pd.read_parquet(where / "rows.parquet")
    untaught = int((rows.method == "zero_shot_cot").sum())  # may be asked twice, which the harness cannot do
    assert facts["numbers"] == len(rows) and facts["without_log"] == untaught > 0
    assert facts["with_log"] == facts["filters_agree"] == len(rows) - untaught
    listed = dict(reversed(line.split("  ", 1)) for line in (where / "SHA256SUMS").read_text().splitlines()[1:])
    files = {p.relative_to(where).as_posix(): p for p in where.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert listed == {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}
    if shutil.which("sha256sum"): subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=where, check=True)
    text = "".join(p.read_text() for p in files.values() if p.suffix in (".md", ".csv", ".json", ".jsonl", ".yaml", ".py"))
    assert str(where) not in text and "/tmp/" not in text, "no path of this machine"
    table = pd.read_csv(where / "numbers.csv")
    assert (table.by_filter - table.accuracy).abs().max() < 1e-9 and table.command.str.startswith("cotstudy reproduce judged ").all()


def test_every_model_and_corpus_has_a_card_with_its_numbers(packed):
    where, _ = packed
    rows = pd.read_parquet(where / "rows.parquet")
    cards = "\n".join(p.read_text() for p in (where / "models").iterdir())
    for r in rows.itertuples(): assert f"| {100 * r.accuracy:.1f} | {100 * r.lo:.1f} to {100 * r.hi:.1f} |" in cards and r.model_id in cards
    assert len(list((where / "models").iterdir())) == rows.model_id.nunique()
    assert cards.count("had read\n\nA Llama of") == rows.model_id.nunique(), "a card that does not say on what its model was pre-trained"
    trained = rows[rows.student_id.notna()]  # two students may have the same weights: a seed that changes nothing
    assert cards.count("sha256 of model.safetensors") == trained.model_id.nunique() and all(s in cards for s in trained.student_id)
    corpora = [p for p in (where / "datasets").iterdir() if p.name.startswith("corpus-")]
    assert {p.stem.removeprefix("corpus-") for p in corpora} == set(rows.corpus_id.dropna())
    assert all("## Limits" in p.read_text() for folder in ("models", "datasets") for p in (where / folder).iterdir())
    made_again = {m for p in where.rglob("*.md") for m in re.findall(r"cotstudy reproduce judged (\w+)` makes it", p.read_text())}
    assert made_again and all(rows.row_id.str.startswith(m).sum() == 1 for m in made_again)


def test_only_what_differs_is_told():
    rows = pd.DataFrame(dict(task="t", student="s", method=["cot", "cot", "label_only"], seed=0, lr=[1e-3, 2e-3, 1e-3],
                             pool=[8, 8, None], max_rationale_tok=[None, 48, None], steps=[9, 9, 9]))
    assert {*pack.varied(rows)} == {"task", "student", "method", "seed", "lr", "max_rationale_tok"}
    assert pack._plain(1e-8) == 1e-8 and pack._plain(0.123456) == 0.1235 and pack._plain(2.0) == 2


def test_a_number_is_made_again_from_nothing(studied, packed, monkeypatch):
    where, _ = packed
    row = pd.read_csv(where / "numbers.csv").query("method == 'cot' and decoding == 'greedy'").iloc[0]
    assert row.command == f"cotstudy reproduce judged {row.row_id}"
    again = json.loads(cotstudy(*row.command.split()[1:], "--json").stdout)
    assert again["same_corpus_id"] and again["same_student_id"] and again["same_eval_id"]
    assert again["same_answers"] == again["of"] == again["n"] and again["now"] == again["recorded"] == row.n_correct
    assert (studied / "_reproduced" / "students").is_dir(), "in a store that knew nothing"


@pytest.mark.parametrize("args, said", [(("reproduce", "judged", "zzz"), "0 rows"), (("reproduce", "judged", ""), "rows of study"),
                                        (("pack", "nope"), "cotstudy run nope")])
def test_what_cannot_be_packed_or_made_again_says_so(studied, args, said):
    result = cotstudy(*args)
    assert result.exit_code == 1 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_pack_is_left_alone(studied, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = cotstudy("pack", "judged", "--out", tmp_path / "mine")
    assert result.exit_code == 1 and "holds other files" in result.stderr and (tmp_path / "mine" / "thesis.txt").exists()


def test_texts_that_are_not_here_are_said_to_be_missing(studied, tmp_path):
    facts = pack.write_pack("judged", tmp_path / "p", Store(tmp_path / "empty"))
    assert facts["with_log"] == 0 and facts["without_log"] == facts["numbers"]
    assert "because its texts are not stored here" in (tmp_path / "p" / "README.md").read_text()


# --- the filters

@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if not f.chat])
@pytest.mark.parametrize("mode", ["cot", "label"])
def test_the_strict_filter_reads_what_a_format_writes(name, mode):
    fmt = FORMATS[name]
    asked = pack.Asked("arith", "{}", "test", None, name, mode, 0, 0.0, 1, 64, "cotstudy")
    for answer in ("39", "B"):
        text = render_completion(fmt, "First this. Then 7." if mode == "cot" else None, answer, "Q (A) x (B) y")
        assert pack._strict(asked, [text]) in (answer, answer.lower()), (text, pack.strict_pattern(name, mode))
    assert pack._strict(asked, [""]) in ("[invalid]", "")


def test_what_the_harness_cannot_ask_is_left_out_with_a_reason(studied):
    cond = checked(json.loads(results("judged")[0].condition.iloc[0]))
    assert pack.not_for_the_harness(cond) == ""
    assert "second time" in pack.not_for_the_harness(cond.with_(method="zero_shot_cot", format="ho_teacher"))
    assert "chat" in pack.not_for_the_harness(cond.with_(format="chat"))


# --- lm-evaluation-harness itself

def test_the_harness_reads_our_logs_to_our_numbers(packed):
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e '.[harness]'")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Replay(LM):
        "Says what a log says, draw by draw."
        def __init__(self, lines):
            super().__init__()
            self.said = {line["arguments"]["gen_args_0"]["arg_0"]: list(line["resps"][0]) for line in lines}
            self.asked = {}

        def generate_until(self, requests, disable_tqdm=False):
            out = []
            for r in requests:
                prompt, how = r.args
                self.asked[prompt] = how
                out.append(self.said[prompt].pop(0))
            return out

        def loglikelihood(self, requests): raise NotImplementedError
        def loglikelihood_rolling(self, requests): raise NotImplementedError

    where, _ = packed
    manager = TaskManager(include_path=str(where / "harness"), include_defaults=False)
    table = pd.read_csv(where / "numbers.csv")
    assert (table.decoding == "vote").any() and (table.decoding == "greedy").any()
    assert set(table[table.log.isna()].method) == {"zero_shot_cot"}
    for r in table[table.log.notna()].itertuples():
        lines = [json.loads(line) for line in (where / "harness" / "samples" / r.log).read_text().splitlines()]
        model = Replay(lines)
        found = lm_eval.simple_evaluate(model=model, tasks=[r.harness_task], task_manager=manager, bootstrap_iters=0, log_samples=True)
        scores = found["results"][r.harness_task]
        assert scores["exact_match,cotstudy"] == pytest.approx(r.accuracy, abs=1e-9), r
        assert scores["exact_match,strict"] == pytest.approx(r.strict, abs=1e-9), r
        theirs = {(s["doc_id"], s["filter"]): s for s in found["samples"][r.harness_task]}
        for line in lines:
            s = theirs[line["doc_id"], line["filter"]]
            for k in ("doc_hash", "prompt_hash", "target_hash", "target", "filtered_resps", "exact_match"): assert s[k] == line[k], k
        assert all(how["until"] == ["\n\n"] for how in model.asked.values())


def test_a_folder_with_checksums_of_its_own_is_no_pack(packed, study_made, tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(study_made))
    (theirs := tmp_path / "images").mkdir()
    (theirs / "SHA256SUMS").write_text("abc  ubuntu.iso\n")
    (theirs / "ubuntu.iso").write_text("precious")
    with pytest.raises(ValueError, match="holds other files"): pack.write_pack("judged", theirs)
    assert (theirs / "ubuntu.iso").read_text() == "precious"
