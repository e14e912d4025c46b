"""A condition is said once: every field has its place in one table, and no two conditions are ever taken for one."""
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from cotstudy.claims import cells_of
from cotstudy.conditions import (COLUMNS, FIELDS, HEADLINE, STAGES, Condition, Teacher, base_of, changed, checked, completed,
                                 content_id, describe,
                                 is_untaught, leaves, row_id, stage_key, value, vary, words_of)
from cotstudy.figures import fig_sample_count
from cotstudy.folders import pocket_models
from cotstudy.prompts import FORMATS
from cotstudy.recipes import PRESETS
from cotstudy.recipes import LATER

FULL = Condition(task="arith", method="cot", n_rationales=2, decoding="vote", n_paths=3, teacher=Teacher(pool=4))
OTHER = {  # leaf -> another legal value than FULL's
    "task": "strategy", "task_args": dict(n_train=7), "sources": ["coin"], "method": "greedy_cot", "supervision": "few_shot",
    "student": "pocket/s",
    "revision": "0" * 40, "format": "ho", "n_rationales": 3, "n_questions": 5, "filters": ["parsed"], "max_rationale_tok": 12, "seed": 1,
    "split": "selection", "n_items": 9, "n_exemplars": 2, "decoding": "vote", "n_paths": 5, "temperature": 0.9, "max_student_tok": 12,
    "rule": "ho", "teacher.model": "pocket/l", "teacher.revision": "1" * 40, "teacher.format": "ho", "teacher.temperature": 0.7,
    "teacher.top_p": 0.9, "teacher.top_k": 5, "teacher.max_tok": 99, "teacher.pool": 6, "teacher.n_exemplars": 1, "recipe.steps": 3,
    "recipe.batch": 5, "recipe.lr": 5e-3, "recipe.weight_decay": 0.1, "recipe.beta1": 0.8, "recipe.beta2": 0.9, "recipe.eps": 1e-6,
    "recipe.warmup": 4, "recipe.schedule": "cosine", "recipe.clip": 0.5, "recipe.precision": "bfloat16", "recipe.dropout": True,
    "recipe.max_prompt_tok": 77, "recipe.max_completion_tok": 78, "recipe.truncate": "drop", "recipe.chains_per_visit": 2,
    "recipe.balancing": "chain", "recipe.checkpoint": "gold", "recipe.score_every": 3, "recipe.epochs": 2.0,
    "recipe.lora_rank": 4, "recipe.weight_dtype": "bfloat16", "recipe.gradient_checkpointing": True}
REFUSED = {"labels", "recipe.seed", "recipe.optimiser", "recipe.lora_alpha"}  # no other value is legal for this method; see below
DIFFER = sorted(set(OTHER) - {"decoding"})


def test_every_field_is_in_the_table_and_in_this_test():
    assert set(FIELDS) == set(leaves()) == set(OTHER) | REFUSED
    assert len(set(COLUMNS.values())) == len(FIELDS) and {f.stage for f in FIELDS.values()} == set(STAGES)
    assert all(f.words for f in FIELDS.values()) and set(HEADLINE) <= set(COLUMNS.values())


@pytest.mark.parametrize("leaf, bad", [("labels", "vote"), ("recipe.seed", 1), ("recipe.optimiser", "sgd"),
                                       ("recipe.lora_alpha", 8.0)])
def test_a_field_that_has_no_other_value_refuses_one(leaf, bad):
    with pytest.raises(ValueError): changed(FULL, {leaf: bad})


def rows_of(*conditions):
    "Rows as a study would have them, all with the same accuracy and items."
    return pd.DataFrame([describe(c) | dict(eval_id=f"e{k}", n=10, accuracy=0.5, n_params=1e6, chance=0.0)
                         for k, c in enumerate(conditions)])


@pytest.mark.parametrize("leaf", DIFFER)
def test_two_conditions_that_differ_in_one_field_are_never_one(leaf):
    other = changed(FULL, {leaf: OTHER[leaf]})
    assert value(other, leaf) != value(FULL, leaf)
    assert row_id(other) != row_id(FULL)
    rows = rows_of(FULL, other)
    cells = cells_of(rows.assign(instance="q", score=0.5))
    assert len(cells.table) == 2, "a claim would take two conditions for one"
    if leaf in ("task", "method", "seed", "n_rationales", "decoding"): return  # what the figure itself tells apart
    with pytest.raises(ValueError, match=COLUMNS[leaf]): fig_sample_count(rows)
    plt.close("all")


@pytest.mark.parametrize("leaf", DIFFER)
def test_a_field_decides_its_stage_and_all_after_it(leaf):
    other, at = changed(FULL, {leaf: OTHER[leaf]}), STAGES.index(FIELDS[leaf].stage)
    same = [stage_key(other, s) == stage_key(FULL, s) for s in STAGES]
    silent = leaf == "method"  # labels ask no teacher, so that there are no draws either
    assert same == [k < at and not silent for k in range(len(STAGES))]


def test_what_plays_no_part_is_empty():
    prompted, labels = (describe(FULL.with_(method=m)) for m in ("zero_shot_cot", "label_only"))
    assert prompted["steps"] is prompted["teacher"] is prompted["supervision"] is None and prompted["n_rationales"] == 0
    assert labels["teacher"] is None and labels["labels"] == "gold" and labels["steps"] == 400
    voted = describe(FULL.with_(method="label_only", labels="vote"))
    assert (voted["teacher"], voted["labels"], voted["pool"]) == ("pocket/teacher", "vote", 4)
    assert describe(FULL.with_(method="greedy_cot"))["n_rationales"] == 1 and describe(FULL.with_(method="greedy_cot"))["pool"] is None


def test_a_row_holds_its_condition():
    assert checked(json.loads(describe(FULL)["condition"])) == FULL


@pytest.mark.parametrize("bad, said", [
    ({"recipe.lrate": 1.0}, "recipe.lr"), ({"n_rationale": 1}, "n_rationales"), ({"recipe.lr": -1.0}, "recipe.lr"), ({"teacher.pool": 0},
            "teacher.pool"),
    ({"teacher": 3}, "teacher"), ({"seed": 1.5}, "seed"), ({"seed": "1"}, "seed"), ({"method": "greedy-cot"}, "greedy_cot"),
    ({"format": "hoo"}, "no format"),
    ({"teacher.format": "hoo"}, "no format"), ({"filters": ["furst:1"]}, "no filter"), ({"n_rationales": 9}, "pool"), ({"": 1},
            "no field"), ({"..": 1}, "no field"),
    ({"recipe.seed": 3}, "one seed"), ({"labels": "vote"}, "labels"), ({"teacher.model": "api:"}, "api:MODEL"), ({"n_paths": 3,
            "decoding": "greedy"}, "one path")])
def test_what_is_wrong_is_said_in_one_line(bad, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")) as e: changed(FULL, bad)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("bad", [dict(filters=("correct",)), dict(labels="gold", method="label_only"), {"recipe.checkpoint": "gold"},
                                 dict(filters=("sample:2", "correct")), dict(filters=("sound",))])
def test_few_shot_refuses_gold(bad):
    with pytest.raises(ValueError, match="few_shot"): changed(FULL, {"supervision": "few_shot"} | bad)


def first_fields():
    "FULL without the fields that came later."
    return {k: v for k, v in FULL.model_dump(mode="json").items() if k not in FIELDS or not FIELDS[k].later}


def test_a_later_field_changes_no_name_until_it_is_used():
    told = first_fields()
    first = {k: v for k, v in told["recipe"].items() if k not in LATER}  # as recipes were before these fields
    assert row_id(FULL) == content_id("eval", told | dict(recipe=first | dict(epochs=0.0))) and FULL.recipe.named() == first
    wide, narrow = (changed(FULL, {"recipe.lora_rank": 4, "recipe.lora_alpha": a}) for a in (0.0, 4.0))
    assert len({row_id(FULL), row_id(wide), row_id(narrow)}) == len({str(c.recipe.named()) for c in (FULL, wide, narrow)}) == 3


def test_the_words_in_which_one_who_was_never_taught_is_asked_are_part_of_its_name(monkeypatch):
    asked, trained = (FULL.with_(method=m, format="ho") for m in ("zero_shot_cot", "cot"))
    was = row_id(asked), row_id(trained)
    for name, fmt in (("ho", replace(FORMATS["ho"], untaught="kojima_number")), ("ho", replace(FORMATS["ho"], untaught="")),
                      ("ho_teacher", replace(FORMATS["ho_teacher"], cot_prompt="Q: {q}\nA: Well."))):
        with monkeypatch.context() as m:
            m.setitem(FORMATS, name, fmt)
            assert row_id(asked) != was[0] and row_id(trained) == was[1], fmt
    assert (row_id(asked), row_id(trained)) == was


def test_rows_that_are_committed_have_the_names_of_today():
    rows = pd.read_parquet(Path(__file__).parents[1] / "outputs/pocket/rows.parquet", columns=["row_id", "condition"])
    assert [row_id(checked(json.loads(c))) for c in rows.condition] == rows.row_id.tolist()


@pytest.mark.parametrize("leaf", ["task", "task_args", "sources"])
def test_another_file_at_the_same_place_is_another_condition(leaf, tmp_path):
    file = tmp_path / "own.jsonl"
    cond = FULL.with_(**{leaf: dict(task=str(file), task_args=dict(exemplars=str(file)), sources=[str(file)])[leaf]})
    found = []
    for text in ("one", "two", "one"):
        file.write_text(text)
        found.append((row_id(cond), stage_key(cond, "draws")))
    assert found[0] == found[2] and found[0][0] != found[1][0] and found[0][1] != found[1][1]
    assert row_id(FULL) == row_id(checked(FULL.model_dump()))


def test_another_model_in_the_same_folder_is_another_condition(tmp_path):
    folder = Path(shutil.copytree(pocket_models()["pocket/xs"], tmp_path / "s"))
    taught, taught_by = FULL.with_(student=str(folder)), FULL.with_(**{"teacher.model": str(folder)})
    labels = taught_by.with_(method="label_only", n_rationales=1)
    was = [(row_id(c), stage_key(c, "draws"), stage_key(c, "student")) for c in (taught, taught_by, labels)]
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("{", '{"x": 1,', 1))
    now = [(row_id(c), stage_key(c, "draws"), stage_key(c, "student")) for c in (taught, taught_by, labels)]
    assert [[a != b for a, b in zip(x, y)] for x, y in zip(was, now)] == [[True, False, True], [True] * 3, [False] * 3]


def test_a_student_that_was_taught_before_is_not_untaught(tmp_path):
    folder = tmp_path / "taught"
    folder.mkdir()
    asked = FULL.with_(method="zero_shot_cot", student=str(folder), format="ho")
    never = row_id(asked)
    assert is_untaught(asked)
    (folder / "student.json").write_text(json.dumps(dict(format="ho", method="cot")))
    assert not is_untaught(asked) and row_id(asked) != never
    assert is_untaught(asked.with_(format="cotstudy")) and not is_untaught(asked.with_(n_exemplars=2, format="cotstudy"))
    (folder / "student.json").write_text(json.dumps(dict(format="ho", method="label")))
    assert is_untaught(asked) and not is_untaught(asked.with_(method="zero_shot"))


@pytest.mark.parametrize("leaf", ["n_items", "teacher.top_k"])
def test_a_field_that_came_later_changes_no_name_until_it_is_used(leaf, monkeypatch):
    told, other = first_fields(), changed(FULL, {leaf: 9})
    names = row_id(FULL), row_id(other)
    monkeypatch.setitem(FIELDS, leaf, FIELDS[leaf]._replace(later=True))
    (told["teacher"] if "." in leaf else told).pop(leaf.split(".")[-1])
    before = content_id("eval", told | dict(recipe=dict(epochs=0.0) | FULL.recipe.named()))
    assert row_id(FULL) == before != names[0] and row_id(other) == names[1]


def test_rows_from_before_a_field_was_there_have_its_cell():
    rows = rows_of(FULL, FULL.with_(method="zero_shot_cot"))
    assert completed(rows.drop(columns=["n_items", "lr"])).equals(rows[[c for c in rows if c not in ("n_items", "lr")] + ["lr", "n_items"]])
    assert completed(rows) is rows


def test_vary_makes_every_combination_once_and_changes_nothing_else():
    grid = vary(FULL, n_rationales=[1, 2, 4], seed=[0, 1], **{"recipe.lr": [1e-3, 2e-3]})
    assert len(grid) == len({row_id(c) for c in grid}) == 12
    back = {"n_rationales": FULL.n_rationales, "seed": FULL.seed, "recipe.lr": FULL.recipe.lr}
    assert {row_id(changed(c, back)) for c in grid} == {row_id(FULL)}


def test_the_base_of_a_study_is_a_condition_with_its_own_words():
    c = base_of("arith", "pocket/s", {"format": "ho", "task_args.n_train": 9, "recipe": dict(steps=7)})
    assert (c.teacher.format, c.task_args, c.recipe.steps, c.recipe.warmup) == ("ho", dict(n_train=9), 7, 30)
    assert base_of("arith", "pocket/s", {"format": "ho", "teacher.format": "wei"}).teacher.format == "wei"
    with pytest.raises(ValueError, match="-y 'base"): base_of("arith", "pocket/s", '{"recipe.lr": 0.002}')
    assert words_of("n_rationales") == "rationales per question" and words_of("mean_sound") == "mean sound"


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*leaves(), "task_args.n_train", "recipe", "teacher", "x", "recipe.x"]), JSON, max_size=3))
def test_any_value_is_a_condition_or_a_clear_error(changes):
    try: c = changed(FULL, changes)
    except ValueError as e: assert str(e) and "\n" not in str(e) or "\\n" in repr(changes) or "\n" in str(changes.values())
    else: assert isinstance(c, Condition) and isinstance(c.task_args, Mapping)


@pytest.mark.parametrize("name", PRESETS)
def test_a_base_names_a_recipe_and_departs_from_it(name):
    assert base_of("arith", "pocket/s", {"recipe": name}).recipe == PRESETS[name]
    assert base_of("arith", "pocket/s", {"recipe.lr": 0.5, "recipe": name}).recipe == PRESETS[name].model_copy(update=dict(lr=0.5))
    with pytest.raises(ValueError, match="no recipe 'adam'; there are pocket"): base_of("arith", "pocket/s", {"recipe": "adam"})


def test_no_filter_at_all_is_another_condition_than_the_usual_ones():
    usual = Condition(task="arith", method="cot", n_rationales=2, teacher=Teacher(pool=2))
    none = usual.with_(filters=())
    assert describe(usual)["filters"] == "" and describe(none)["filters"] == "none" and row_id(usual) != row_id(none)
    assert stage_key(usual, "corpus") != stage_key(none, "corpus") and stage_key(usual, "draws") == stage_key(none, "draws")
    assert describe(none.with_(method="label_only", filters=()))["filters"] == ""  # which has no chains to filter
