"""Analyses are records: their conditions, prices, figures and sentences follow; every claim finds results that one of them makes."""
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cotstudy.analyses import (ANALYSES, THEMES, TOK_PER_ROW, Analysis, analysis, analysis_named, api_cost, conditions_of, cost,
                               difference, feeds, figures_of, panels, references, sample_count, says, seen_by, side_by_side, study_cell,
                               teacher_row)
from cotstudy.claims import CLAIMS, cells_of, join_items, measure, read_solutions, verdict_table
from cotstudy.conditions import Condition, base_of, describe, row_id, vary
from cotstudy.figures import published
from cotstudy.measures import MEASURES
from cotstudy.methods import method_named
from cotstudy.procedural import situation
from cotstudy.results import by_measure, good_rows
from cotstudy.servers import Price
from cotstudy.tasks import load as load_task

ROOT = Path(__file__).parent.parent
BASE = base_of("arith", "pocket/s", {"task_args.n_train": 400, "task_args.n_test": 40, "teacher.pool": 30})
SIZES = {"pocket/xs": 1e5, "pocket/s": 3e5, "pocket/m": 6e5, "pocket/l": 1e6, "pocket/teacher": 1.5e6,
         "pocket/teacher_s": 3e5}
KNOBS = dict(sample_count=dict(n_rationales=[1, 4, 30], seeds=[0, 1], supervisions=["full", "few_shot"], n_paths=5,
                               methods=["zero_shot_cot", "few_shot_cot", "label_only", "greedy_cot"]),
             student_size=dict(n_rationales=30, seeds=[0, 1]), rationale_quality={}) | {
             name: dict(seeds=[0, 1]) for name, a in ANALYSES.items()
             if "seeds" in a.knobs and name not in ("sample_count", "student_size")}
KNOBS["question_count"] |= dict(n_questions=[8, 128])
ASKED_OF = dict(transfer="sst", contrast_sets="sentiment")  # analyses of tasks of their own


KINDS = ("calculation", "reasoning", "format")  # of error


def results_of(conditions, name, seed=0):
    "Rows and joined items of conditions as if they had been run: answers are coins."
    rng, rows, items = np.random.default_rng(seed), [], []
    # what is the same work has one evaluation
    known = lambda c: str({k: v for k, v in describe(c).items() if k not in ("row_id", "condition")})
    for known_as, c in {known(c): c for c in conditions}.items():
        score = rng.random(40) < 0.3 + 0.4 * rng.random()
        e = f"e{hash(known_as)}"
        rows.append(describe(c) | dict(eval_id=e, n=40, accuracy=score.mean(), n_params=SIZES[c.student], chance=0.25, student_id=e,
                                       analysis=name, n_asked=400, n_truncated=0, teacher_truncated=0,
                                       n_drawn=400 * c.n_rationales, n_passed=30, mean_tok=9.0,
                                       mean_error_calculation=0.1, mean_error_reasoning=0.1, mean_error_format=0.1))
        asked = [f"q{i}" for i in range(40)]
        if name == "overlap": asked = [i.id for i in load_task(c.task, n_train=20, n_test=40).split("test")]  # whose words are looked at
        items.append(pd.DataFrame(dict(eval_id=e, instance=asked, path=0, prediction="x", correct=score, parsed=True,
                                       truncated=False, n_tok=9, sound=score.astype(float), lucky=rng.random(40), length=9 * rng.random(40),
                                       wordy=rng.random(40), **{f"error_{k}": rng.random(40) < 0.1 for k in KINDS})))
    return pd.DataFrame(rows), pd.concat(items)


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.kind != "not testable here"], ids=lambda c: c.id)
def test_every_claim_finds_results_that_an_analysis_makes(claim, monkeypatch):
    monkeypatch.setattr("cotstudy.claims.read_solutions", lambda student: False)
    assert feeds()[claim.id], "no analysis feeds it"
    task = (claim.stand_ins or claim.tasks)[0]
    found = []
    for name in feeds()[claim.id]:
        for student in ("pocket/xs", "pocket/m"):
            base = base_of(task, student, {"task_args.n_train": 400, "teacher.pool": 30})
            found.append(results_of(conditions_of(name, base, KNOBS.get(name, {})), name, seed=1))  # no two teachers alike
    rows, items = (pd.concat(parts, ignore_index=True) for parts in zip(*found))
    joined = join_items(rows.drop_duplicates("row_id"), items.drop_duplicates(["eval_id", "instance"]))
    got = measure(claim, cells_of(joined, claim.score), n_boot=50)
    alone = claim.holds == ("some", "task") and got.reason == "only one task"
    assert got.estimate is not None and (got.can_decide or alone), got.reason
    assert got.tasks == (task,)


def test_questions_about_one_situation_stay_together_all_the_way():
    base = base_of("relations", "pocket/s", {"task_args.n_train": 20, "task_args.n_test": 120, "teacher.pool": 4})
    rows, items = results_of(conditions_of("sample_count", base, dict(n_rationales=[4], seeds=[0, 1])), "sample_count")
    asked = sorted(load_task("relations", n_train=20, n_test=120).split("test"), key=situation)
    items = items.drop_duplicates(["eval_id", "instance"])
    items = items.assign(instance=items.instance.map(dict(zip(items.instance.unique(), [i.id for i in asked]))))
    joined = join_items(rows, items)
    assert joined.situation.nunique() < joined.instance.nunique()
    found = difference(joined, dict(method="cot"), dict(method="label_only"))
    alone = difference(joined.drop(columns="situation"), dict(method="cot"), dict(method="label_only"))
    assert found.value == alone.value and 0 < found.n_situations < found.n and alone.n_situations == 0
    claim = next(c for c in CLAIMS if c.id == "ho-H3")
    measured = measure(replace(claim, tasks=("relations",), stand_ins=()), cells_of(joined), n_boot=50)
    assert measured.estimate.n_situations > 0


def test_sides_of_another_difficulty_are_compared_as_other_questions():
    def side(name, right, **difficulty):
        asked = load_task("coin", n_train=1, n_selection=1, n_test=200, difficulty=difficulty).split("test")
        luck = np.random.default_rng(0).random(200) < right
        return pd.DataFrame(dict(task="coin", seed=0, side=name, instance=[i.id for i in asked], situation=[situation(i) for i in asked],
                                 score=luck.astype(float)))
    usual, short = side("usual", 0.9), side("short", 0.5, flips=[5, 8])
    assert 0 < (usual.situation == short.situation).sum() < 60  # the same names, and now and then the same question
    found = difference(pd.concat([usual, short]), dict(side="usual"), dict(side="short"))
    assert found.n == 200 and found.value == pytest.approx(usual.score.mean() - short.score.mean()) and found.n_situations < 200
    half = pd.concat([usual, short.assign(situation=None, instance=usual.instance.values)])  # of a study that does not say
    assert difference(half, dict(side="usual"), dict(side="short")).n == 200


def test_sizes_without_a_sampled_arm_ask_for_no_sampled_chain():
    some = conditions_of("student_size", BASE, dict(n_rationales=0))
    assert {c.method for c in some} == {"zero_shot_cot", "label_only", "greedy_cot"}


def test_claims_about_prompted_models_are_judged_on_those_that_read_no_solution(monkeypatch):
    rows, items = results_of(conditions_of("sample_count", BASE, dict(n_rationales=[4], seeds=[0, 1])), "sample_count")
    cells = cells_of(join_items(rows, items.drop_duplicates(["eval_id", "instance"])))
    novice = next(c for c in CLAIMS if c.id == "ho-H12")
    assert {c.id for c in CLAIMS if c.novices} == {"ho-H1", "ho-H1b", "ho-H12", "scotd-H1", "scotd-H11"}
    for read, found in ((True, False), (False, True), (None, False)):
        monkeypatch.setattr("cotstudy.claims.read_solutions", lambda student: read)
        got = measure(novice, cells, n_boot=50)
        assert (got.estimate is not None) == found and ("worked solutions" in got.reason) != found


def test_every_analysis_has_its_template_and_every_template_its_analysis():
    from cotstudy.studies import parameters_of
    templates = {p.stem for p in (ROOT / "nbs" / "studies").glob("*.ipynb")} - {"report"}
    assert templates == set(ANALYSES)
    for name in templates:
        found = parameters_of(ROOT / "nbs" / "studies" / f"{name}.ipynb")
        assert set(found) - {"study", "cell", "task", "student", "base"} == set(ANALYSES[name].knobs), name


@pytest.mark.parametrize("name", ANALYSES)
def test_conditions_figures_and_sentences_of_every_analysis(name):
    a = analysis_named(name)
    conditions = conditions_of(name, BASE.with_(task=ASKED_OF.get(name, "arith")), KNOBS.get(name, {}))
    assert conditions and a.source and a.conditions.__doc__
    if name == "student_size": conditions += conditions_of(name, BASE.with_(student="pocket/m"), KNOBS[name])
    rows, items = results_of(conditions, name)
    rows = good_rows(rows.assign(error=None))
    drawn = figures_of(a, rows, items=items)
    assert drawn and all(figure.axes for figure in drawn.values())
    plt.close("all")
    told = says(a, rows, items)
    assert "difference" in told and ("points" in told or MEASURES[a.measure].words in told)


def test_sentences_speak_of_what_their_figure_shows():
    told = {}
    for name in ("overlap", "error_types", "wording", "conciseness"):
        rows, items = results_of(conditions_of(name, BASE, KNOBS.get(name, {})), name)
        rows = good_rows(rows.assign(error=None))
        told[name] = says(analysis_named(name), by_measure(rows, items, analysis_named(name).measure), items).split("\n\n")
    assert len(told["overlap"]) == 6 and all("least familiar third" in t for t in told["overlap"])  # of 3 methods
    words = [MEASURES[f"error_{k}"].words for k in KINDS]
    assert len(told["error_types"]) == 9 and all(sum(w in t for w in words) == 1 for t in told["error_types"])
    assert not any("a gain" in t or "a loss" in t for t in told["error_types"] + told["conciseness"])  # more is not better there
    assert [sum(f" at {f} (chance 25);" in t for t in told["wording"]) for f in ("ho", "scotd")] == [2, 2]  # every name beside the first


@pytest.mark.parametrize("name", ANALYSES)
def test_figures_over_two_tasks(name):
    tasks = ("arith", "letters") if name == "free_form" else ("arith", "dates")
    parts = [results_of(conditions_of(name, BASE.with_(task=task, student=s), KNOBS.get(name, {})), name)
             for task in tasks for s in ("pocket/s", "pocket/m")]
    rows, items = (pd.concat(found) for found in zip(*parts))
    items = items.drop_duplicates(["eval_id", "instance"])  # both students have one teacher
    drawn = figures_of(analysis_named(name), good_rows(rows.assign(error=None)), items=items)
    assert drawn
    plt.close("all")


def test_supervisions_are_told_apart_in_sentences():
    rows, items = results_of(conditions_of("sample_count", BASE, dict(n_rationales=[1, 4], supervisions=["full", "few_shot"])),
                             "sample_count")
    told = says(ANALYSES["sample_count"], rows, items.drop_duplicates(["eval_id", "instance"]))
    assert told.count("CoT, sampled") == 2


def test_two_values_of_a_field_that_nobody_named_are_not_mixed():
    rows, items = results_of(conditions_of("sample_count", BASE, dict(n_rationales=[4], seeds=[0, 1])), "sample_count")
    other, more = results_of(conditions_of("sample_count", BASE.with_(**{"recipe.lr": 9e-3}), dict(n_rationales=[4], seeds=[0, 1])),
                             "other")
    every = join_items(pd.concat([rows, other]), pd.concat([items, more]).drop_duplicates(["eval_id", "instance"]))
    table = verdict_table(every).set_index("id")
    assert "differ in lr" in table.reason["ho-H3"] and table.verdict["ho-H3"] == "not testable here"
    fed = verdict_table(every, feeds=feeds()).set_index("id")
    assert fed.effect.notna()["ho-H3"]


def test_the_shipped_pocket_study_answers_the_claims_it_can():
    rows, items = (pd.read_parquet(ROOT / "outputs" / "pocket" / f"{n}.parquet") for n in ("rows", "items"))
    table = verdict_table(join_items(good_rows(rows), items), feeds=feeds(), n_boot=200).set_index("id")
    reached = set(table.index[table.effect.notna()])
    sizes = {"ho-H7a", "ho-H7b"} if good_rows(rows).student.nunique() > 2 else set()  # teacher and one student: no size to compare
    assert not read_solutions("pocket/s") and {"ho-H1", "ho-H3", "ho-H4", "ho-H12"} | sizes <= reached
    assert not table.reason.str.contains("only one chains_per_visit").any()


# --- knobs and prices ---

@pytest.mark.parametrize("knobs, said", [(dict(seeds=3), "seeds"), (dict(n_rationales="many"), "n_rationales"), (dict(seed=[0]),
        "no knob seed"),
                                         (dict(n_paths=1.5), "n_paths"), (dict(n_rationales=[0]), "n_rationales"),
                                         (dict(methods=["magic"]), "magic")])
def test_knobs_are_checked(knobs, said):
    with pytest.raises(ValueError, match=said): conditions_of("sample_count", BASE, knobs)


def priced(conditions): return cost(conditions, lambda c, task, split: c.task_args.get(f"n_{split}", 100), lambda name: 1000)


def test_shared_work_is_priced_once():
    one, four = vary(BASE, n_rationales=[1]), vary(BASE, n_rationales=[1, 4, 30])
    assert priced(one)["teacher_draws"] == priced(four)["teacher_draws"] == 400 * 30 and priced(four)["students"] == 3
    greedy = vary(BASE, method=["greedy_cot"], n_rationales=[1, 4], seed=[0, 1])
    assert priced(greedy)["students"] == 2 and priced(greedy)["teacher_draws"] == 400
    vote = vary(BASE, decoding=["vote"], n_paths=[5])
    assert priced(one + vote)["students"] == 1 and priced(one + vote)["student_draws"] == 40 * 6
    assert priced(vary(BASE, max_student_tok=[16, 96]))["student_draws"] == 40
    assert priced(vary(BASE, decoding=["vote"], n_paths=[5, 30]))["student_draws"] == 40 * 30  # the five are among the thirty
    assert priced(vary(BASE, method=["cot", "cot_falsified"]))["students"] == 1  # the same student, asked otherwise
    assert priced(vary(BASE, method=["cot"], n_exemplars=[2, 3]))["students"] == 1
    assert priced(vary(BASE, method=["cot_shown"], n_exemplars=[0, 2, 4]))["students"] == 2, "0: as many as the method shows, four"
    asked = vary(BASE.with_(task="sentiment", sources=["sentiment"]), task=["sentiment", "sentiment:contrast"])
    assert priced(asked)["students"] == 1 and priced(asked)["teacher_draws"] == 400 * 30


@pytest.mark.parametrize("changes, draws", [
    (dict(method="label_only"), 0), (dict(method="label_only", labels="vote"), 400 * 30), (dict(method="label_only",
            supervision="few_shot"), 400),
    (dict(method="zero_shot_cot"), 0), (dict(n_questions=8), 8 * 30), ({"recipe.checkpoint": "vote"}, 500 * 30), (dict(sources=["coin",
            "dates"]), 800 * 30)])
def test_what_a_condition_asks_of_its_teacher(changes, draws):
    assert priced([BASE.with_(**changes)])["teacher_draws"] == draws


def test_every_field_that_matters_to_a_student_is_another_student():
    from test_conditions import DIFFER, OTHER
    from cotstudy.conditions import FIELDS, changed
    for leaf in DIFFER:
        base = BASE.with_(decoding="vote", n_paths=3)
        n = priced([base, changed(base, {leaf: "pocket/xs" if leaf == "student" else OTHER[leaf]})])["students"]
        assert n == (1 if FIELDS[leaf].stage == "eval" else 2), leaf


# --- one of one's own ---

def test_an_analysis_of_ones_own_is_one_function(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("cotstudy.questions.ANALYSES", dict(ANALYSES))
    from cotstudy import analyses

    @analysis("Learning rate", "here", "lr", columns=("lr", "seed"))
    def learning_rate(base: Condition, rates: list[float] = (1e-3, 2e-3), seeds: list[int] = (0,)) -> list[Condition]:
        "Accuracy against the learning rate."
        return vary(base.with_(method="label_only"), seed=seeds, **{"recipe.lr": rates})

    small = {"task_args.n_train": 8, "task_args.n_selection": 2, "task_args.n_test": 6, "recipe.steps": 2, "recipe.batch": 4}
    found = study_cell("learning_rate", "mine", "", "arith", "scratch/0.1m", small, rates=[1e-3, 5e-3])
    assert isinstance(analyses.analysis_named("learning_rate"), Analysis) and set(found.rows.analysis) == {"learning_rate"}
    assert found.table().lr.tolist() == [1e-3, 5e-3] and found.figure().axes[0].get_xlabel() == "learning rate"
    assert "learning rate 0.001" in found.says()
    plt.close("all")


def test_every_analysis_has_its_part_of_a_report():
    assert {a.theme for a in ANALYSES.values()} == set(THEMES) - {"more"}
    with pytest.raises(ValueError, match="no theme 'numbers'; there are gain, number"): analysis("A", "here", "lr", theme="numbers")


def test_references_and_the_teacher_are_asked_without_what_is_not_theirs():
    few = BASE.with_(supervision="few_shot", filters=["parsed"])
    assert all(c.supervision == "full" and c.filters is None for c in references(few, [0], ["zero_shot_cot"]) + teacher_row(few))
    assert teacher_row(BASE.with_(**{"teacher.model": "recorded:quarel_train__gpt3_mario"})) == []
    assert {c.supervision for c in references(few, [0, 1], ["label_only"])} == {"few_shot"}
    assert [method_named(c.method).trained for c in sample_count(BASE, (1,), methods=())] == [False, True]


def test_panels_share_what_belongs_to_all():
    rows, _ = results_of(conditions_of("sample_count", BASE, dict(n_rationales=[1, 4], supervisions=["full", "few_shot"])), "sample_count")
    rows = rows.drop_duplicates("row_id")
    parts = panels(ANALYSES["sample_count"], rows)
    assert set(parts) == {"sample_count | full | pocket/s", "sample_count | few_shot | pocket/s"}
    assert all((g.method == "teacher").sum() == 1 and (g.method == "zero_shot_cot").sum() == 1 for g in parts.values())


def test_a_task_that_a_student_was_not_taught_has_no_panel():
    rows, _ = results_of(conditions_of("sample_count", BASE, dict(n_rationales=[1, 4])), "sample_count")
    rows = rows.drop_duplicates("row_id")
    both = pd.concat([rows, rows.assign(task="letters"), rows[rows.method != "teacher"].assign(student="pocket/m")])
    parts = panels(ANALYSES["sample_count"], both)
    assert {name: set(g.task) for name, g in parts.items()} == {
        "sample_count | full | pocket/s": {"arith", "letters"}, "sample_count | full | pocket/m": {"arith"}}
    assert "teacher" in set(parts["sample_count | full | pocket/m"].method)


def test_a_difference_is_paired():
    joined = pd.DataFrame(dict(task="t", seed=[0] * 4, instance=["a", "b"] * 2, n=[1, 1, 4, 4], score=[0.0, 1.0, 1.0, 1.0]))
    e = difference(joined, dict(n=4), dict(n=1))
    assert e.value == 0.5 and difference(joined, dict(n=4), dict(n=9)) is None


def test_measures_of_analyses_exist():
    assert all(a.measure == "accuracy" or a.measure in MEASURES for a in ANALYSES.values())


PAPERS_NAME = dict(arith="multiarith", sst="sst2", sentiment="imdb_contrast", letters="last_letter_concatenation")
WITH_PUBLISHED = {"sample_count", "student_size", "main_table", "samples", "free_form", "questions_by_rationales", "data_fraction",
                  "question_count", "contrast_sets", "transfer"}  # what the papers' own tables hold values of


def marks_of(ax):
    "Ends of intervals, heights of hollow marks, heights of dotted lines."
    bars = [(s[0][1], s[-1][1]) for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments() if len(s)]
    bars += [tuple(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1]  # of levels
    hollow = [y for line in ax.lines if line.get_markerfacecolor() == "none" and line.get_linestyle() == "None" for y in line.get_ydata()]
    return bars, hollow, [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]


@pytest.mark.parametrize("name", ANALYSES)
def test_every_figure_says_what_it_rests_on(name):
    "Intervals, items, seeds, chance, and published values, hollow, where there are any and only where they belong."
    a, task = analysis_named(name), "letters" if name == "free_form" else ASKED_OF.get(name, "arith")
    conditions = conditions_of(name, BASE.with_(task=task), KNOBS.get(name, {}))
    if name == "student_size": conditions += conditions_of(name, BASE.with_(task=task, student="pocket/m"), KNOBS[name])
    rows, items = results_of(conditions, name)
    rows, known = by_measure(good_rows(rows.assign(error=None)), items, a.measure), published(task=PAPERS_NAME[task])
    n_hollow = 0
    for figure_name, figure in figures_of(a, rows, known, items if a.split else None).items():
        for ax in (ax for ax in figure.axes if hasattr(ax, "points")):
            p, told, (bars, hollow, dotted) = ax.points, " ".join(t.get_text() for t in ax.texts), marks_of(ax)
            n_hollow += len(hollow)
            n = "n = 13 to 14 items" if a.split else "n = 40 items"
            assert n in told and "95 % intervals" in told and ("2 seeds" in told or "1 seed" in told)
            if figure_name.startswith("error_types | arith"): continue  # shares of all answers, stacked
            assert (p.lo <= p.accuracy + 1e-9).all() and (p.accuracy <= p.hi + 1e-9).all() and (p.hi > p.lo).all() and p.n_seeds.min() >= 1
            ends = {(round(float(lo), 6), round(float(hi), 6)) for lo, hi in bars}
            shown = p[(p.decoding != "vote") | p.method.duplicated(keep=False)] if "decoding" in p else p
            assert {(round(lo, 6), round(hi, 6)) for lo, hi in zip(shown.lo, shown.hi)} <= ends
            assert dotted == ([0.25] if a.measure == "accuracy" else [])
            assert ("hollow" in told) == bool(hollow) and {round(y, 6) for y in hollow} <= set(known.accuracy.round(6))
    assert bool(n_hollow) or name not in WITH_PUBLISHED
    assert not n_hollow or a.measure == "accuracy"
    plt.close("all")


def test_a_seed_given_twice_is_one():
    base = Condition(task="arith", method="cot")
    once, twice = (conditions_of("sample_count", base, dict(n_rationales=[1], seeds=s)) for s in ([0, 1], [0, 1, 0]))
    assert [row_id(c) for c in once] == [row_id(c) for c in twice]


def test_a_price_counts_what_the_teacher_answers_itself_and_how_it_is_asked(monkeypatch):
    base = Condition(task="arith", method="cot", n_rationales=1, teacher=dict(model="api:m", pool=3))
    monkeypatch.setattr("cotstudy.analyses.price_of", lambda name: Price(1e6, 0.0, "2026-01-01"))
    sizes = dict(train=7, selection=2, test=5)
    paid = lambda *cs: api_cost(cs, lambda c, task, split: sizes[split])[0] / TOK_PER_ROW
    own = base.with_(method="zero_shot_cot", student="api:m")
    assert paid(base) == pytest.approx(21) and paid(base, own) == pytest.approx(26) and paid(own, own) == pytest.approx(5)
    shown = base.with_(teacher=base.teacher.model_copy(update=dict(n_exemplars=2)))
    assert paid(shown) == pytest.approx(63)
    twice = base.with_(teacher=base.teacher.model_copy(update=dict(format="ho_teacher", max_tok=TOK_PER_ROW)))
    assert paid(twice) == pytest.approx(21 * 3)  # the second time with what it wrote


@pytest.mark.parametrize("name, knobs, arms", [
    ("data_fraction", dict(fractions=[0.5], n_rationales=[1, 4]), ["CoT, sampled, 1", "CoT, sampled, 4"]),
    ("learning_rates", dict(rates=[3e-3], batches=[4, 8]), ["CoT, sampled, 4", "CoT, sampled, 8", "label only, 4", "label only, 8"])])
def test_where_nothing_varies_along_the_axis_conditions_are_still_apart(name, knobs, arms):
    rows, items = results_of(conditions_of(name, BASE, knobs | dict(seeds=[0, 1])), name)
    told = says(ANALYSES[name], rows, items.drop_duplicates(["eval_id", "instance"]))
    assert all(a in told for a in arms), told
    fig = side_by_side(ANALYSES[name], seen_by(ANALYSES[name], rows))
    assert len(fig.axes[0].points) == rows[["method", "n_rationales", "batch"]].drop_duplicates().shape[0]
    plt.close("all")


def test_arms_of_two_cells_are_told_apart_by_what_they_differ_in():
    made = [results_of(conditions_of("rationale_content", BASE.with_(n_rationales=n), dict(methods=["label_only", "cot"], n_rationales=n)),
                       "rationale_content") for n in (1, 4)]
    rows = pd.concat([r for r, _ in made]).drop_duplicates("row_id")
    seen = ANALYSES["rationale_content"].view(rows)
    assert sorted(set(seen.arm)) == ["CoT, sampled, 1 rationale per question", "CoT, sampled, 4 rationales per question", "label only"]


@pytest.mark.parametrize("name, knobs, said", [("down_sampling", dict(seeds=[]), "seeds is empty"),
                                               ("sample_count", dict(seeds=()), "seeds is empty"),
                                               ("budgets", dict(n_rationales=[]), "no conditions; empty: n_rationales"),
                                               ("transfer", dict(sources=[["strategy"], []]), "one of the lists of sources is empty")])
def test_lists_with_nothing_in_them_are_refused(name, knobs, said):
    known = {k: v for k, v in knobs.items() if k in ANALYSES[name].knobs}
    with pytest.raises(ValueError, match=said): conditions_of(name, BASE, known)


def of_seeds(n_seeds, n, p, sd, rng, side):
    "Answers of several trainings to questions of a side."
    shift = rng.normal(0, sd, n_seeds)
    logit = np.log(p / (1 - p)) + shift[:, None] + rng.normal(0, 1, n)
    right = rng.random((n_seeds, n)) < 1 / (1 + np.exp(-logit))
    return pd.DataFrame(dict(task="t", method="cot", seed=np.repeat(range(n_seeds), n), instance=[f"{side}{i}" for i in range(n)] * n_seeds,
                             score=right.ravel().astype(float), side=side))


def test_differences_over_other_questions_know_that_two_trainings_are_few():
    rng, false = np.random.default_rng(0), []
    for _ in range(60):
        both = pd.concat([of_seeds(2, 300, 0.5, 0.5, rng, side) for side in "ab"])
        found = difference(both, dict(side="a"), dict(side="b"))
        lo, hi = found.interval()
        false.append(not lo <= 0 <= hi)
    assert found.df < 10 and np.mean(false) < 0.13, "95 % intervals leave out zero 13 times in 100 where there is no difference"


def test_all_right_on_few_other_questions_is_no_certainty():
    side = lambda name, score: pd.DataFrame(dict(task="t", method="cot", seed=0, instance=[f"{name}{i}" for i in range(20)], score=score,
                                                 side=name))
    same = difference(pd.concat([side("a", 1.0), side("b", 1.0)]), dict(side="a"), dict(side="b"))
    apart = difference(pd.concat([side("a", 1.0), side("b", 0.0)]), dict(side="a"), dict(side="b"))
    assert same.value == 0 and same.interval()[1] > 0.05 and apart.value == 1 and apart.interval()[0] < 0.95


def test_a_method_that_leaves_questions_out_is_compared_on_those_it_answered():
    rows, items = results_of(conditions_of("faithfulness", BASE, dict(n_rationales=4, seeds=[0, 1])), "faithfulness")
    falsified = set(rows.eval_id[rows.method == "cot_falsified"])
    one = min(falsified)
    items = items[~(items.eval_id.isin(falsified) & items.instance.isin(["q0"]) | (items.eval_id == one) & (items.instance == "q1"))]
    told = says(ANALYSES["faithfulness"], rows, items)
    assert "38 questions" in told
    kept = items[~items.instance.isin(["q0", "q1"])].merge(rows[["eval_id", "method"]])
    means = 100 * kept.groupby("method").correct.mean()
    assert f"falsified {means['cot_falsified']:.1f}" in told and f"sampled {means['cot']:.1f}" in told
    table = verdict_table(join_items(rows.assign(error=None), items), feeds=feeds(), n_boot=200).set_index("id")
    fed = [c for c in ANALYSES["faithfulness"].claims if "missing" in str(table.reason[c])]
    assert not fed
