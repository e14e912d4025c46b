"""The seams of figures: facts carried over exactly, points that are what the rows say, figures that refuse silent mixing, stable files."""
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from xml.etree import ElementTree

from cotstudy.evaluate import wilson
from cotstudy.figures import (
    VERDICT_COLOURS, caption, cut_share, fig_against, fig_arms, fig_errors, fig_claims, fig_length, fig_limit, fig_sample_count,
    fig_student_size, fig_supervision, fig_vote, points_of, published, save_figure, size_text, small_multiples, style)
from cotstudy.methods import METHODS, SHOWN, look_of


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def rows(task="t", student="s", n_params=1e6, supervision="full", decoding="greedy", seeds=(0, 1, 2), ns=(1, 8), n=200, chance=0.25,
         **more):
    out = []
    def add(method, accuracy, seed, n_rationales, sup=supervision, dec=decoding):
        out.append(dict(task=task, student=student, n_params=n_params, method=method, supervision=sup, decoding=dec, seed=seed,
                        n_rationales=n_rationales, max_rationale_tok=96, max_student_tok=96, n=n, n_paths=1, accuracy=accuracy,
                        n_truncated=10, n_unparsed=5, chance=chance) | more)
    add("zero_shot_cot", 0.1, 0, 0, None, "greedy")
    add("teacher", 0.9, 0, 0, None, "greedy")
    for s in seeds:
        add("label_only", 0.3 + 0.02 * s, s, 0)
        add("greedy_cot", 0.4 + 0.02 * s, s, 1)
        for k in ns: add("cot", 0.4 + 0.02 * k + 0.03 * s, s, k)
    return pd.DataFrame(out)


def heights(ax, colour, marker):
    "y values of the filled marks of one colour and marker."
    return sorted(float(y) for line in ax.lines if line.get_color() == colour and line.get_marker() == marker for y in line.get_ydata())


# --- published facts ---

@pytest.mark.parametrize("query, value", [
    (dict(paper="ho2023", table="gpt3", task="gsm8k", method="teacher"), 42.17),
    (dict(paper="ho2023", table="gpt3", task="date_understanding", method="cot", model="curie"), 83.78),
    (dict(paper="ho2023", table="gpt3", task="coin_flip", method="zero_shot_cot"), 46.67),
    (dict(paper="ho2023", table="flan_t5", task="tracking_shuffled_objects", method="cot", model="flan-t5-large"), 89.33),
    (dict(paper="ho2023", table="diverse_reasoning", task="svamp", model="curie", n_rationales=64), 30.33),
    (dict(paper="ho2023", table="dataset_size", task="last_letter_concatenation", method="cot", n_questions=128), 54.0),
    (dict(paper="ho2023", table="teacher_performance", task="svamp", method="greedy_cot", teacher="text-davinci-003"), 25.33),
    (dict(paper="ho2023", table="submission", task="commonsense_qa", method="greedy_cot", model="curie", n_questions=9741), 51.02),
    (dict(paper="scotd2023", table="2a", task="quarel", model="opt-1.3b", decoding="vote"), 48.2),
    (dict(paper="scotd2023", table="2b", task="openbookqa", method="cot", supervision="few_shot"), 57.8),
    (dict(paper="scotd2023", table="3b", task="openbookqa", decoding="vote", n_rationales=20), 59.8),
    (dict(paper="scotd2023", table="figure5", task="imdb_contrast", method="cot"), 92.0),
    (dict(paper="scotd2023", table="discarded", metric="discarded", task="quarel"), 34.2),
    (dict(paper="scotd2023", table="human", metric="win_rate", n=654), 61)])
def test_published_values(query, value):
    found = published(**query)
    assert found.value.tolist() == [value] and found.accuracy[0] == pytest.approx(value / 100)


def test_published_is_complete_and_tidy():
    every = published(metric=None)
    assert (every.groupby(["paper", "table"]).size().loc["ho2023"].drop("submission") >= 12).all()
    assert len(published("ho2023", "diverse_reasoning")) == 4 * 3 * 2 * 7 and len(published("scotd2023", "3b")) == 30
    accuracies = published()
    key = ["paper", "table", "task", "model", "method", "supervision", "decoding", "n_rationales", "n_questions", "teacher"]
    assert not accuracies.duplicated(key).any()
    assert accuracies.accuracy.between(0, 1).all() and set(every.confidence) == {"exact", "digitised"}
    assert set(accuracies.method) <= {*METHODS, *SHOWN} | {"few_shot"}
    assert accuracies[accuracies.method.isin(["greedy_cot", "cot", "label_only"])].supervision.notna().all()


def test_published_tables_follow_the_counts():
    """Exact student accuracies of Ho et al. are k/n of their test sets (to two decimals): a slip in copying would show."""
    exact = published("ho2023", confidence="exact").dropna(subset=["n"])
    k = (exact.value / 100 * exact.n).round()
    assert ((100 * k / exact.n - exact.value).abs() < 0.0051).all()


def test_published_refuses_unknown_names():
    with pytest.raises(KeyError, match="choose from"): published("ho2023", "gpt3", task="multiarth")
    with pytest.raises(KeyError, match="no column"): published(taks="svamp")


# --- one look ---

def test_every_method_and_verdict_has_its_own_colour():
    looks = [look_of(m) for m in (*METHODS, *SHOWN)]
    assert len({m.colour for m in looks}) == len({m.marker for m in looks}) == len({m.words for m in looks}) == len(looks)
    assert len(set(VERDICT_COLOURS.values())) == 6


def test_style_leaves_no_trace():
    before = dict(plt.rcParams)
    with style(): assert plt.rcParams["svg.hashsalt"] == "cotstudy"
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize("n, text", [(1e5, "0.1M"), (460e3, "0.46M"), (3e6, "3M"), (35e6, "35M"), (1.3e9, "1.3B"), (12e3, "12k")])
def test_sizes_as_people_write_them(n, text): assert size_text(n) == text


# --- sample count ---

def test_sample_count_draws_the_seed_means_with_intervals():
    df = rows()
    ax = fig_sample_count(df)
    assert heights(ax, look_of("cot").colour, "o") == pytest.approx([0.45, 0.59])
    levels = {line.get_gid(): float(line.get_ydata()[0]) for line in ax.lines if (line.get_gid() or "").startswith("level")}
    assert levels == pytest.approx({"level label_only": 0.32, "level greedy_cot": 0.42, "level zero_shot_cot": 0.1, "level teacher": 0.9})
    p = ax.points.query("method == 'teacher'").iloc[0]
    assert (p.lo, p.hi) == pytest.approx(wilson(180, 200))
    assert ax.points.query("method == 'cot'").n_seeds.tolist() == [3, 3] and (ax.points.lo <= ax.points.accuracy).all()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "8"]
    chance = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert len(chance) == 1 and chance[0].get_ydata()[0] == 0.25


def test_chance_that_depends_on_the_place_is_drawn_at_each():
    levels = dict(original=0.5, edited=0.5, both=0.25)
    asked = pd.concat([rows(chance=c).query("method == 'cot' and n_rationales == 8").assign(asked=a) for a, c in levels.items()])
    pieces = next(c for c in fig_against(asked, "asked").collections if c.get_linestyle()[0][1] is not None).get_segments()
    assert [tuple(np.round([s[:, 0].mean(), *s[:, 1]], 9)) for s in pieces] == [(k, c, c) for k, c in enumerate(levels.values())]
    odd = asked.assign(chance=[0.1 if first else c for first, c in zip(asked.index == asked.index[0], asked.chance)])
    with pytest.raises(ValueError, match="several chance rates"): fig_against(odd, "asked")


def test_single_seeds_are_faint_dots_and_one_seed_has_none():
    ax = fig_sample_count(rows())
    dots = [c for c in ax.collections if c.get_alpha() == 0.45]
    assert len(dots) == 1 and len(dots[0].get_offsets()) == 6
    assert not [c for c in fig_sample_count(rows(seeds=[0])).collections if c.get_alpha() == 0.45]


def test_greedy_and_vote_are_two_curves():
    df = pd.concat([rows(), rows(decoding="vote", ns=(1, 8)).query("method == 'cot'").assign(n_paths=5)])
    ax = fig_sample_count(df)
    assert set(ax.points.query("method == 'cot'").decoding) == {"greedy", "vote"}
    assert {"--", "-"} <= {line.get_linestyle() for line in ax.lines if line.get_marker() == "o"}


def test_published_marks_are_hollow():
    theirs = published("scotd2023", "3b", task="quarel", decoding="greedy")
    ax = fig_sample_count(rows(supervision="few_shot"), published=theirs)
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and line.get_linestyle() == "None"
              and line.get_marker() == "o"]
    assert len(hollow) == 1 and sorted(hollow[0].get_ydata()) == pytest.approx([0.622, 0.687, 0.698, 0.709, 0.734])
    assert any("hollow" in a.get_text() for a in ax.texts)


def test_only_comparable_published_values_are_drawn():
    "Other supervision, decoding and methods stay out; of twelve students the nearest in size is shown, with its teacher."
    everything = published(task="multiarith")
    ax = fig_sample_count(rows(n_params=1e6), published=everything)
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and line.get_linestyle() == "None"]
    by_marker = {line.get_marker(): sorted(100 * y for y in line.get_ydata()) for line in hollow}
    assert by_marker["o"] == pytest.approx([6.67, 7.78, 9.44, 10.56, 13.89, 15.0, 15.0])  # t5-small
    assert by_marker["^"] == pytest.approx([13.89])
    assert by_marker["*"] == pytest.approx([78.79]) and "v" not in by_marker and "P" not in by_marker
    assert ax.get_xlim()[1] > 64


@pytest.mark.parametrize("other, word", [
    (dict(student="bigger"), "student"), (dict(supervision="few_shot"), "supervision"), (dict(max_student_tok=32), "max_student_tok")])
def test_rows_that_mix_conditions_are_refused(other, word):
    with pytest.raises(ValueError, match=word): fig_sample_count(pd.concat([rows(), rows(**other)]))


def test_tasks_need_panels():
    with pytest.raises(ValueError, match="several tasks|task"): fig_sample_count(pd.concat([rows("a"), rows("b")]))
    with pytest.raises(ValueError, match="lack"): fig_sample_count(rows().drop(columns="accuracy"))
    with pytest.raises(ValueError, match="none with an accuracy"): fig_sample_count(rows().assign(accuracy=np.nan))


def test_failed_runs_are_left_out_and_counted():
    df = rows()
    df.loc[df.index[-1], "accuracy"] = np.nan
    ax = fig_sample_count(df)
    assert "1 failed" in " ".join(a.get_text() for a in ax.texts) and "failed" not in caption(fig_sample_count(rows()).points)


def test_the_same_row_in_two_studies_counts_once():
    df = rows()
    pd.testing.assert_frame_equal(fig_sample_count(pd.concat([df, df])).points, fig_sample_count(df).points)


def test_small_multiples_share_axis_and_legend():
    fig = small_multiples(fig_sample_count, pd.concat([rows("a"), rows("b"), rows("c", chance=0.5)]), n_columns=2)
    shown = [a for a in fig.axes if a.get_visible()]
    assert len(shown) == 3 and len({a.get_ylim() for a in shown}) == 1
    names = [t.get_text() for t in fig.legends[0].get_texts()]
    assert {"CoT, sampled", "label only", "teacher", "chance"} <= set(names)
    assert set(points_of(fig).panel) == {"a", "b", "c"}


# --- against anything ---

def test_names_stand_side_by_side_and_are_not_joined():
    df = pd.concat([rows(filters=f).query("method == 'cot' and n_rationales == 8").assign(accuracy=a)
                    for f, a in (("", 0.5), ("correct sound", 0.4))])
    ax = fig_against(df, "filters", text=lambda f: f or "all")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["all", "correct sound"] and ax.get_xlabel() == "filters"
    assert heights(ax, look_of("cot").colour, "o") == pytest.approx([0.4, 0.5])
    assert {line.get_linestyle() for line in ax.lines if line.get_marker() == "o"} == {"None"}


@pytest.mark.parametrize("leaf, one, other", [("lr", 1e-3, 2e-3), ("teacher_temperature", 1.0, 0.7), ("n_exemplars", 0, 2)])
def test_rows_that_differ_in_any_field_are_never_one_point(leaf, one, other):
    "Equal accuracies included: two conditions are two conditions."
    same = rows(ns=(1,)).query("method == 'cot'")
    with pytest.raises(ValueError, match=leaf): fig_sample_count(pd.concat([same.assign(**{leaf: one}), same.assign(**{leaf: other})]))


def test_seeds_that_differ_in_a_field_are_never_pooled():
    mixed = rows(ns=(1,), seeds=(0, 1)).query("method == 'cot'").assign(lr=[1e-3, 2e-3])
    with pytest.raises(ValueError, match="lr"): fig_sample_count(mixed)


def test_a_measure_that_is_no_share_has_its_own_interval_and_axis():
    long = rows(ns=(1, 8), seeds=(0, 1)).query("method == 'cot'").assign(measure="length", accuracy=40.0, lo=38.0, hi=42.0)
    ax = fig_sample_count(long)
    assert ax.get_ylim()[1] > 42 and ax.get_ylabel() == "tokens" and ax.points.lo.between(30, 40).all()


def test_a_measure_in_place_of_accuracy_is_named_on_the_axis():
    assert fig_sample_count(rows(measure="sound")).get_ylabel() == "sound chains" and fig_sample_count(rows()).get_ylabel() == "accuracy"


# --- the others ---

def test_student_size_lines_and_teacher():
    df = pd.concat([rows(student="small", n_params=1e5), rows(student="large", n_params=1e6).query("method != 'teacher'")])
    ax = fig_student_size(df)
    assert len(heights(ax, look_of("label_only").colour, "^")) == 2
    assert set(ax.points.query("method == 'cot'").n_rationales) == {8}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.1M", "1M"]
    assert ax.points.query("method == 'teacher'").shape[0] == 1
    assert set(fig_student_size(df, n_rationales=1).points.query("method == 'cot'").n_rationales) == {1}


def lengths():
    base, limits = rows(ns=[8]).query("method == 'cot'"), (24, 48, 96)
    a = pd.concat([base.assign(max_student_tok=k, accuracy=k / 200, n_truncated=200 * (96 - k) / 96) for k in limits])
    b = pd.concat([base.assign(max_rationale_tok=k, accuracy=k / 200, n_truncated=0, teacher_truncated=96 - k, n_drawn=96) for k in limits])
    return pd.concat([a.assign(teacher_truncated=0, n_drawn=96), b.query("max_rationale_tok < 96")])


def test_length_panels_show_what_was_cut():
    left = fig_length(lengths())
    axes = left, left.beside
    for ax, limit in zip(axes, ("max_rationale_tok", "max_student_tok")):
        assert ax.points[limit].tolist() == [24, 48, 96] and ax.points.accuracy.tolist() == pytest.approx([0.12, 0.24, 0.48])
        assert ax.points.cut.tolist() == pytest.approx([0.75, 0.5, 0.0])
        strip = [a for a in ax.figure.axes if a not in axes and a.get_xlabel().startswith(limit.split("_")[1])][0]
        assert sorted(p.get_height() for p in strip.patches) == pytest.approx([0.0, 0.5, 0.75])


def test_cut_share_counts_completions():
    df = pd.DataFrame(dict(decoding=["vote"], n=[10], n_paths=[5], n_truncated=[25]))
    assert cut_share(df, "max_student_tok").tolist() == [0.5]
    with pytest.raises(ValueError, match="n_paths"): cut_share(df.drop(columns="n_paths"), "max_student_tok")
    assert cut_share(df, "max_rationale_tok").isna().all()
    with pytest.raises(ValueError, match="expected one of"): fig_limit(lengths(), limit="max_tok")


def test_pairs_of_bars():
    full, few = rows(), rows(supervision="few_shot")
    ax = fig_supervision(pd.concat([full, few.assign(accuracy=few.accuracy / 2)]))
    bars = [p.get_height() for p in ax.patches]
    assert bars == pytest.approx([0.16, 0.32, 0.21, 0.42, 0.295, 0.59]) and len(ax.containers) >= 6
    voted = few.query("method == 'cot'").assign(decoding="vote", accuracy=0.8)
    ax = fig_vote(pd.concat([few.query("method == 'cot'"), voted]))
    assert [p.get_height() for p in ax.patches] == pytest.approx([0.59, 0.8])


def test_pairs_of_bars_stand_beside_what_was_published():
    made = (rows(task="quarel", n_params=1.3e9, ns=(1, 30), supervision=s) for s in ("full", "few_shot"))
    full, few = (r.assign(accuracy=0.9 * r.accuracy) for r in made)
    ax = fig_supervision(pd.concat([full, few]), published=published(task="quarel"))
    known = published("scotd2023", table=["2b", "3a"], task="quarel", decoding="greedy")  # Table 2b has votes where 3a has not
    hollow = next(line for line in ax.lines if line.get_mfc() == "none" and len(line.get_xdata()))
    assert set(hollow.get_ydata()) == set(known.accuracy) and len(hollow.get_xdata()) == 5  # no greedy chain without gold and vote
    place = {round(x): i for i, x in enumerate(ax.get_xticks())}
    assert all(abs(x - round(x)) < 0.5 and round(x) in place for x in hollow.get_xdata())
    assert any("hollow: published (opt-1.3b)" in t.get_text() for t in ax.texts)
    voted = pd.concat([full.query("method == 'cot'"), full.query("method == 'cot'").assign(decoding="vote")])
    ax = fig_vote(voted.query("n_rationales == 30"), published=published(task="quarel"))
    assert {y for line in ax.lines if line.get_mfc() == "none" for y in line.get_ydata()} == {0.838}
    fewer = fig_supervision(pd.concat([full, few]).query("n_rationales < 30"), published=published(task="quarel"))
    assert 0.838 not in {y for line in fewer.lines for y in line.get_ydata()}, "a mark of thirty chains beside a bar of one"


def test_claims_forest_keeps_order_and_colours():
    table = pd.DataFrame([("A", "one", 0.1, 0.05, 0.15, 0.2, 0.03, "reproduced"),
                          ("B", "two", np.nan, np.nan, np.nan, np.nan, 0.03, "not testable here")],
                         columns=["id", "title", "effect", "lo", "hi", "published_effect", "smallest", "verdict"])
    ax = fig_claims(table)
    assert [t.get_text() for t in sorted(ax.texts, key=lambda t: t.xy[1]) if t.xy[0] == 0] == ["B  two", "A  one"], "the first on top"
    assert {"reproduced", "not testable here"} <= {a.get_text() for a in ax.texts}


# --- files ---

def test_saved_figures_are_stable_and_carry_their_points(tmp_path):
    df = rows()
    for name in ("a", "b"):
        svg, csv = save_figure(fig_sample_count(df).figure, None, tmp_path / "deep" / name)
        ElementTree.parse(svg)
    assert (tmp_path / "deep/a.svg").read_bytes() == (tmp_path / "deep/b.svg").read_bytes()
    assert "<dc:date>" not in svg.read_text()
    saved = pd.read_csv(csv)
    assert saved.accuracy.tolist() == pytest.approx(fig_sample_count(df).points.accuracy.tolist(), rel=1e-5)
    assert {"lo", "hi", "n", "n_seeds"} <= set(saved)
    moved = df.assign(accuracy=df.accuracy + 0.01)
    assert save_figure(fig_sample_count(moved).figure, moved, tmp_path / "c")[0].read_bytes() != (tmp_path / "deep/a.svg").read_bytes()
    assert len(pd.read_csv(tmp_path / "c.csv")) == len(moved)


def test_a_stem_with_a_dot_keeps_its_name(tmp_path):
    assert save_figure(fig_sample_count(rows()).figure, None, tmp_path / "opt-1.3b")[0].name == "opt-1.3b.svg"


def test_nothing_to_save():
    with pytest.raises(ValueError, match="no points"): points_of(plt.figure())


ARMS = [("cot",), ("zero_shot_cot", "teacher"), ("teacher", "zero_shot_cot", "label_only", "greedy_cot", "cot"),
        ("teacher", "zero_shot", "zero_shot_cot", "few_shot", "few_shot_cot", "label_only", "greedy_cot", "cot"), tuple(METHODS)]


@pytest.mark.parametrize("methods", ARMS, ids=len)
@pytest.mark.parametrize("n_tasks", [0, 1, 2, 3])
def test_names_of_arms_stand_side_by_side_and_inside(methods, n_tasks):
    "Names neither touch each other nor leave the figure; 0 tasks: bars of errors."
    one = rows(ns=(8,)).assign(mean_error_calculation=0.1, mean_error_reasoning=0.1, mean_error_format=0.1)
    of = lambda task: pd.concat([one[one.method == "cot"].assign(method=m, task=task, arm=look_of(m).words) for m in methods])
    if n_tasks == 0: figure = fig_errors(of("t")).figure
    elif n_tasks == 1: figure = fig_arms(of("t")).figure
    else:
        several = pd.concat([of(f"t{k}") for k in range(n_tasks)])
        figure = small_multiples(fig_arms, several)
    figure.canvas.draw()
    for ax in (a for a in figure.axes if a.get_visible()):
        names = [t for t in ax.get_xticklabels() if t.get_text()]
        assert [" ".join(t.get_text().split()) for t in names] == [look_of(m).words for m in methods]
        boxes = [t.get_window_extent() for t in names]
        assert all(b.x0 > -1 and b.y0 > -1 and b.x1 < figure.bbox.width + 1 for b in boxes), "a name leaves the figure"
        if not names[0].get_rotation(): assert all(a.x1 < b.x0 + 1 for a, b in zip(boxes, boxes[1:])), "names touch"


def test_a_curve_of_which_nothing_was_measured():
    df = rows()
    ax = fig_sample_count(df[df.method == "label_only"])  # a study of labels alone: a level and no ticks
    assert len(ax.points)


def test_a_point_is_drawn_where_another_has_the_same_accuracy():
    "The axis tells rows apart even where it is no field of a condition: thirds of the questions, samplings, sides of a pair."
    df = pd.DataFrame([dict(task="t", student="s", method="cot", decoding="greedy", n_rationales=1, seed=s, n=20, accuracy=0.4, third=k,
                            eval_id=f"e{s}")
                       for k in range(3) for s in (0, 1)])
    points = fig_against(df, "third").points
    assert points.third.tolist() == [0, 1, 2] and (points.n_seeds == 2).all() and (points.accuracy == 0.4).all()


def test_long_titles_stay_above_their_panels():
    names = ("t", "tracking_shuffled_objects:ho:scenario", "date_understanding:ho:template")
    fig = small_multiples(fig_sample_count, pd.concat([rows(task=t) for t in names]))
    fig.draw_without_rendering()
    for ax in (ax for ax in fig.axes if ax.get_visible()):
        wide = [t.get_window_extent().width for t in ax.findobj(matplotlib.text.Text) if t.get_text() in names]
        assert wide and max(wide) <= 1.04 * ax.get_window_extent().width  # letters have whole pixels


@pytest.mark.parametrize("teacher, said", [("recorded:obqa_train__gpt35_kard20", True), ("recorded:quarel_train__gpt3_mario", False),
                                           ("pocket/teacher", False)])
def test_a_teacher_that_saw_gold_is_named_in_the_title(teacher, said):
    ax = fig_sample_count(rows(task="openbookqa", teacher=teacher))
    assert ("teacher saw gold" in "".join(ax.get_title(loc=where) for where in ("left", "center"))) == said
