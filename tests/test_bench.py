"""The bench measures the same work on both sides and says where a number comes from; how fast anything is, no test asks."""
import json
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cotstudy import bench as b
from cotstudy.analyses import study_cell
from cotstudy.cli import app
from cotstudy.stack import plain_cell

SMALL = replace(b.work_of("train_n30", fast=True), n_prompts=2, n=3, width=16, layers=1)


def test_an_epoch_of_ours_sees_every_completion_once():
    seen: dict = {}
    assert b.ours_training(SMALL, batch=3, seen=seen)()() == 6
    pairs = b.Counter((tuple(b.model(SMALL).prompt_ids(e.prompt)), tuple(b.model(SMALL).completion_ids(c, eos=True)))
                      for e in b.examples(SMALL) for c in e.completions)
    assert seen["ours"] == dict(completions=6, label_tok=sum(len(c) for _, c in pairs), digest=b._digest(pairs))


def test_trl_sees_the_same_completions():
    pytest.importorskip("trl", reason="trl is not installed: pip install 'cotstudy[bench]'")
    seen: dict = {}
    for make in (b.ours_training, b.trl_training): make(SMALL, batch=3, seen=seen)()()
    assert seen["ours"] == seen["peer"]


def test_without_trl_the_train_rows_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    result = CliRunner().invoke(app, ["bench", "train", "--fast"])
    assert result.exit_code == 1 and "cotstudy[bench]" in result.output


def test_unknown_groups_few_turns_and_a_missing_gpu_are_refused():
    with pytest.raises(KeyError, match="train, sample, real, study, stack"): b.bench("speed")
    with pytest.raises(ValueError, match="at least 3"): b.bench("sample", repeats=1)
    with pytest.raises(ValueError, match="no fast form"): b.stack_row(fast=True)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA"): b.bench("gpu")


def test_papermill_takes_the_peers_notebook(tmp_path):
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    b.nbformat.write(b.plain_notebook(), tmp_path / "plain.ipynb")
    cells = parameterize_notebook(load_notebook_node(str(tmp_path / "plain.ipynb")), dict(given=dict(a=1))).cells
    assert [c.metadata["tags"] for c in cells[:2]] == [["parameters"], ["injected-parameters"]] and "plain_cell" in cells[2].source


def test_the_usual_libraries_do_a_whole_study(tmp_path):
    pytest.importorskip("trl", reason="trl is not installed: pip install 'cotstudy[bench]'")
    study, seen = tmp_path / "tiny.yaml", {}
    study.write_text("""study: tiny
title: tiny
base: {task_args.n_train: 6, task_args.n_test: 6, teacher.pool: 1, recipe.steps: 2, recipe.batch: 2}
cells: [{template: sample_count, over: {task: [arith], student: [pocket/xs]}, with: {n_rationales: [1], methods: [label_only]}}]
""")
    assert b.stack_studying(str(study), seen=seen)()() == 1 and {"cot", "label_only"} <= set(seen["peer_accuracy"])


@pytest.mark.parametrize("name", b.GROUPS["real"])
def test_rows_of_a_real_size_choose_their_precision(name, recwarn):
    pytest.importorskip("trl", reason="trl is not installed: pip install 'cotstudy[bench]'")
    row = (b.train_row if "train" in name else b.sample_row)(name, repeats=1, fast=True)
    settings, half = row["settings"], "precision" if "train" in name else "dtype"
    assert b.WORKS[name].shape == "smollm2_135m" and settings["ours"][half] in ("float32", "bfloat16")
    assert {key.rpartition("=")[2] for key in settings["our_sweep"]} == {"float32", "bfloat16"} and min(settings["our_sweep"].values()) > 0
    assert len(settings["sweep"]) >= 4 and min(settings["sweep"].values()) > 0, "the peer chooses, too"


def test_the_usual_libraries_do_the_same_conditions(tmp_path, monkeypatch):
    pytest.importorskip("trl", reason="trl is not installed: pip install 'cotstudy[bench]'")
    small = {"task_args.n_train": 30, "task_args.n_test": 40, "teacher.pool": 2, "recipe.steps": 60, "recipe.batch": 12, "recipe.lr": 0.002,
             "teacher.max_tok": 64, "max_student_tok": 64}
    knobs = dict(n_rationales=[1, 2], methods=["zero_shot_cot", "label_only", "greedy_cot"])
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    ours = study_cell("sample_count", "s", "", "strategy", "pocket/xs", small, **knobs).rows
    found = json.loads(plain_cell("sample_count", "strategy", "pocket/xs", small, "theirs", **knobs).read_text())
    assert [c["method"] for c in found] == ["zero_shot_cot", "zero_shot_cot", "label_only", "greedy_cot", "cot", "cot"]
    untaught = ours[ours.student_id.isna()].accuracy
    assert [c["accuracy"] for c in found[:2]] == pytest.approx(untaught.tolist()), "greedy answers are the same, whoever computes them"
    assert all(0.2 < c["accuracy"] for c in found[2:]), "TRL's students learn, too"


def test_what_the_usual_libraries_do_not_do_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    for analysis, knobs, method in (("self_consistency", dict(n_paths=[1, 5]), "cot"), ("distillation", {}, "token_level")):
        with pytest.raises(ValueError, match=f"need more than a trainer and `generate`, {method} for one"):
            plain_cell(analysis, "strategy", "pocket/xs", {}, **knobs)


@pytest.mark.parametrize("name", b.GROUPS["gpu"])
def test_gpu_rows_run_anywhere_when_fast(name):
    if "train" in name: pytest.importorskip("trl", reason="trl is not installed: pip install 'cotstudy[bench]'")
    row = b.gpu_row(name, repeats=2, fast=True)
    turns = row["settings"]["turns"]
    assert row["name"] == name and {k: len(v) for k, v in turns.items()} == dict(ours=2, peer=2) and min(turns["ours"] + turns["peer"]) > 0
    assert row["unit"] == ("rows/s" if "train" in name else "tokens/s") and row["settings"]["fast"]


def test_a_row_holds_medians_of_rates_and_their_ratio(monkeypatch):
    told = dict(ours=b.Turns([6, 6, 6], [2, 1, 3], [2, 2, 2]), peer=b.Turns([6, 6, 6], [6, 3, 12], [6, 6, 6]))  # 3, 6, 2 and 1, 2, 0.5
    asked = []
    def noted(arms, repeats):
        asked.append((sorted(arms), repeats))
        return {k: told.get(k, told["peer"]) for k in arms}
    monkeypatch.setattr(b, "take_turns", noted)
    row = b.gpu_row("gpu_sample_gpt2", repeats=3, fast=True)
    assert (row["ours"], row["peer"], row["ratio"]) == (3, 1, 3) and row["settings"]["ratio_cpu"] == 3
    assert asked[-1] == (["ours", "peer"], 3) and all(n == 1 for _, n in asked[:-1]), "single turns of each setting, then those that count"
    assert row["settings"]["turns"] == dict(ours=[3, 6, 2], peer=[1, 2, 0.5])


def test_a_setting_that_fails_is_left_out_and_said():
    def broken(): raise NotImplementedError("not here")
    with pytest.warns(UserWarning, match="odd: NotImplementedError: not here"):
        best, reached = b.best_of({"odd": broken, "fine": b.ours_sampling(SMALL)})
    assert best == "fine" and reached["odd"] == 0 < reached["fine"]
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="none of odd runs here"): b.best_of({"odd": broken})


def test_steps_on_a_gpu_are_the_steps_of_train(monkeypatch):
    losses, real = [], b.students.backward
    def noted(*args, **kw):
        out = real(*args, **kw)
        losses.append(float(out[0]))
        return out
    monkeypatch.setattr(b.students, "backward", noted)
    assert b.stepped_training(SMALL, 3)()() == 6
    steps, told = losses[:], []
    lm = b.LM(deepcopy(b.model(SMALL).net), b.model(SMALL).tokenizer, "x", b.model(SMALL).id)
    plan = b._plan(SMALL, 3).model_copy(update=dict(precision="bfloat16"))
    with tempfile.TemporaryDirectory() as folder:
        b.students.train(lm, b.examples(SMALL), plan, Path(folder) / "s", eos=True, progress=lambda i, n, loss: told.append(loss))
    assert steps == pytest.approx(told, rel=1e-3) and len(steps) == 2


def test_both_ways_of_sampling_count_the_tokens_of_whole_draws():
    work = replace(SMALL, n_eos=4)
    for arm in (b.ours_sampling(work), b.generate_sampling(work, 1)):
        n = arm()()
        assert work.n_prompts * work.n <= n <= work.n_prompts * work.n * work.longest and n == int(n)


def test_random_numbers_stay_as_they_were():
    b.model.cache_clear()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    net = b.model(SMALL).net
    assert torch.equal(before, torch.get_rng_state())
    b.model.cache_clear()
    torch.manual_seed(8)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), b.model(SMALL).net.parameters())), "weights depend on the work alone"


def test_published_shapes_have_their_sizes():
    from transformers import AutoModelForCausalLM
    vocab = {"gpt2": 50_257, "smollm2_135m": 49_152, "opt_1.3b": 50_272}
    with torch.device("meta"):
        n = {k: AutoModelForCausalLM.from_config(make(vocab_size=vocab[k])).num_parameters() for k, make in b.SHAPES.items()}
    assert {k: round(v / 1e6) for k, v in n.items()} == {"gpt2": 124, "smollm2_135m": 135, "opt_1.3b": 1316}


def test_operations_are_counted_as_executed_and_not_as_padded():
    work = replace(SMALL, width=64, n=4, shortest=20, longest=20)
    rows, _ = b.students.tokenise(b.model(work), b.examples(work), b._plan(work, 1), True)
    shared, padded = (b.operations(lambda: nll(b.model(work).net, rows).backward())
                      for nll in (b.students.shared_nll, b.students.padded_nll))
    # weights that a token meets; the last MLP and the head only where a label is
    attention, mlp, head = 4 * 64**2, 12 * 64**2, 64 * work.vocab
    told = 2 * 320 * (attention + mlp + head) / (2 * 140 * attention + 2 * 80 * (mlp + head))
    assert padded / shared == pytest.approx(told, rel=0.05), "four rows of 80 tokens against one of 140"


def test_fast_rows_are_not_kept(tmp_path):
    row = dict(name="train_n1", ours=2.0, peer=1.0, ratio=2.0, unit="rows/s", settings=dict(fast=True, machine=b.machine()))
    with pytest.raises(ValueError, match="measure nothing"): b.save([row], tmp_path / "bench.json")
    b.save([row | dict(settings=dict(fast=False, machine=b.machine()))], tmp_path / "bench.json")
    assert "| 2.00x | 1.30x | 1.80x | aim |" in b.bench_table(tmp_path / "bench.json")


def test_start_share_is_the_time_before_the_first_condition(tmp_path):
    def cell(source, start): return dict(source=[source], metadata=dict(papermill=dict(start_time=f"2026-01-01T00:00:{start:02}")))
    whole = dict(papermill=dict(start_time="2026-01-01T00:00:00", end_time="2026-01-01T00:00:40"))
    (tmp_path / "a.ipynb").write_text(json.dumps(dict(cells=[cell("import x", 2), cell("rows = study_cell(study)", 10)], metadata=whole)))
    (tmp_path / "report.ipynb").write_text(json.dumps(dict(cells=[cell("read()", 1)], metadata=whole)))
    assert b.start_share(tmp_path) == 0.25


def test_a_ledger_step_counts_its_draws(tmp_path):
    seen = {what: b.ledger_step(what, 600, str(tmp_path)) for what in b.LEDGER_STEPS}
    assert seen == dict(append=570, count=570, view=76, resume=600, whole=600) and b.ledger_step("count", 600, str(tmp_path)) == 600
