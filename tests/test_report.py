"""The seams of a report: every sentence from rows, every point with its answers, one page that asks nobody for anything."""
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import look_at, open_browser

from cotstudy.analyses import THEMES, study_cell
from cotstudy.pages import anchor, to_pages, write_pages
from cotstudy.recorded import recorded
from cotstudy.report import (besides, briefly, corpora, examples, failures, findings, number, parts, pooled, power, read_report, scorecard,
                             table_md, tally, unfinished, verdicts, whole, with_points, write_answers)
from cotstudy.studies import expand, load_study
from cotstudy.tasks import load

ROOT = Path(__file__).parent.parent
SMALL = {"task_args.n_train": 12, "task_args.n_test": 16, "recipe.steps": 4, "recipe.batch": 4, "teacher.pool": 2}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    "A study of two tasks and two seeds, with its texts."
    with pytest.MonkeyPatch.context() as m:
        m.setenv("COTSTUDY_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        for task in ("arith", "shuffle"):
            study_cell("sample_count", "toy", "", task, "pocket/xs", SMALL, n_rationales=[1, 2], seeds=[0, 1])
        study_cell("student_size", "toy", "", "arith", "pocket/xs", SMALL, n_rationales=2, seeds=[0, 1])
        study_cell("samples", "toy", "", "arith", "pocket/xs", SMALL, n_rationales=2)
        r = read_report("toy", "A toy study")
        text = whole(r).replace("](../", "](")
        write_pages(text, r.folder / "report", r.title)
        yield r, text


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    "The report of a study as a checkout has it: rows and items, no texts."
    with pytest.MonkeyPatch.context() as m:
        m.setenv("COTSTUDY_OUTPUTS", str(folder := tmp_path_factory.mktemp("committed")))
        (folder / "pocket").mkdir()
        for name in ("rows", "items"): shutil.copy(ROOT / "outputs" / "pocket" / f"{name}.parquet", folder / "pocket")
        r = read_report("pocket", "Pocket")
        text = whole(r).replace("](../", "](")
        write_pages(text, r.folder / "report", r.title)
        yield r, text


def test_a_point_is_a_condition_with_its_seeds(toy):
    r, _ = toy
    assert r.good.groupby("point").seed.nunique().max() == 2
    seedless = ["task", "method", "n_rationales", "student"]
    assert (r.once.groupby(seedless).point.nunique() == 1).all(), "two seeds of a condition are two points"
    assert len(pooled(r.good)) == r.good.point.nunique(), "a condition of two analyses is counted twice"


def test_rows_that_differ_in_a_limit_are_not_pooled(toy):
    r, _ = toy
    one = r.once[r.once.method == "cot"].head(1).drop(columns=["point", "link"])
    both = with_points(pd.concat([one, one.assign(max_student_tok=one.max_student_tok / 2, row_id="another-limit")]))
    assert both.point.nunique() == 2 and len(pooled(both)) == 2


def test_numbers_of_the_table_are_those_of_the_rows(committed):
    r, text = committed
    told = [float(x) for x in re.findall(r"\| ([\d.]+) \[[\d., -]+\] \| \d+ \| [\d,]+ \|", text)]
    rows = pd.read_parquet(ROOT / "outputs" / "pocket" / "rows.parquet")
    want = 100 * rows.drop_duplicates("row_id").groupby(["task", "student", "method", "n_rationales"]).accuracy.mean()
    assert sorted(told) == pytest.approx(sorted(want), abs=0.0501)  # told with one decimal


def test_findings_say_every_verdict_and_what_is_open(committed):
    r, text = committed
    table = verdicts(r)
    tested = table[table.effect.notna()]
    found = findings(r, table)
    assert len(tested) and all(f"**{v.verdict}** ({v.id})" in found for v in tested.itertuples())
    theirs = table[table.paper != "beyond"]
    assert f"{theirs.effect.isna().sum()} of {len(theirs)} claims of the two papers" in found
    assert all(i in scorecard(r, table) for i in table.id)
    headed = dict(re.findall(r"^### (\w[\w ]+): (\d+)$", found, re.M))
    assert headed == {v.capitalize(): str(n) for v, n in tested.verdict.value_counts().items()}


def test_sections_stand_by_theme_and_the_contents_lead_to_each(toy):
    r, text = toy
    themes = [THEMES[a.theme] for a in r.analyses]
    assert themes == sorted(themes, key=list(THEMES.values()).index) and len(set(themes)) > 1
    for a in r.analyses:
        before = text[:text.index(f"\n### {a.title}\n")]
        assert re.findall(r"^## (.+)$", before, re.M)[-1] == THEMES[a.theme]
        assert f"\n  * [{a.title}](#{anchor(a.title)})\n" in before


def test_what_an_open_verdict_would_have_taken():
    told = lambda **v: power(pd.Series(dict(kind="difference", smallest=0.03, detectable=0.11) | v))
    assert "11 points would have been found four times in five" in told()
    assert "no effect would have been found" in told(detectable=float("inf"))
    assert "within 3 points" in told(kind="equivalence") and "found" not in told(kind="equivalence")


def test_a_report_says_where_more_rows_were_asked(committed, monkeypatch):
    r, text = committed
    assert r.plan.study == "pocket" and besides(r) == "" and "reads its own rows alone" not in text
    beside = replace(r, study="other")
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(r.folder.parent))
    monkeypatch.setitem(beside.__dict__, "plan", r.plan.model_copy(update=dict(beside=["pocket", "gone"])))
    assert "`cotstudy claims other` reads those of [pocket](../../pocket/report.md), gone, too" in besides(beside)
    assert replace(r, study="no such study").plan is None and besides(replace(r, study="no such study")) == ""


def test_the_contents_of_a_page_are_one_list_of_lists(toy):
    r, _ = toy
    page = (r.folder / "report.html").read_text()
    nav = re.search(r"<nav.*?</nav>", page, re.S)[0]
    named = set(re.findall(r'<h[23] id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', nav)) == named and nav.count("<ul>") == nav.count("</ul>") > 2


def test_a_tally_counts_what_is_said():
    told = "\n\n".join(["a: difference +1 points, a gain (3 seeds)", "b: difference +0 points, not told apart from nothing (9)",
                        "c: difference -1 points, a loss (3 seeds)", "d: difference -1 points, a loss (3 seeds)"])
    assert tally(told) == "4 curves, the last point of each against its first: 1 gained, 2 lost, 1 undecided (from -1.0 to +1.0 points)"
    assert tally(told, along=False).startswith("4 comparisons: 1 gained")
    assert tally("Nothing of this kind was measured.") == "nothing that can be compared"


def test_few_comparisons_are_told_and_many_counted():
    told = "a: difference +1 points, a gain (3 seeds).\n\nb: difference +0 points, not told apart from nothing (9)."
    assert briefly(told) == told.replace("\n\n", " ")[:-1] and "3 curves" in briefly(told + "\n\n" + told.split("\n\n")[0])
    assert briefly("Nothing of this kind was measured.") == "nothing that can be compared"


def test_what_was_not_run_is_told(toy, committed):
    r, text = committed
    planned, run = len(expand(load_study("pocket"))), r.rows.cell.nunique()
    assert (f"{run} of {planned} cells" in text) == (run < planned)
    assert unfinished(toy[0]) == "" and unfinished(replace(r, rows=r.rows.assign(cell="of another study"))) == ""


def test_no_section_is_empty(toy, committed):
    for r, _ in (toy, committed):
        found = parts(r)
        assert all(len(text) > 20 for text in found.values())
    assert "What was taught" in parts(toy[0])


def test_corpora_are_told_once(toy):
    r, _ = toy
    head, _, *lines = corpora(r).split("\n")
    at = [h.strip() for h in head.split("|")].index("corpora")
    n_corpora = r.once.corpus_id[r.once.n_drawn.notna()].nunique()
    assert len(lines) == len(set(lines)) and sum(int(line.split("|")[at]) for line in lines) == n_corpora


def test_every_point_leads_to_its_answers(toy, committed):
    for r, text in (toy, committed):
        answers, page = (r.folder / "answers.md").read_text(), (r.folder / "answers.html").read_text()
        links = re.findall(r"\(answers\.md#(p-\w+)\)", text)
        assert set(links) == {f"p-{p}" for p in r.good.point}
        assert all(f'<a id="{name}"></a>' in answers and f'id="{name}"' in page for name in links)
        figures = "".join(re.findall(r"<figure>.*?</figure>", (r.folder / "report.html").read_text(), re.S))
        drawn = re.findall(r'href="([^"]*)#(p-\w+)"', figures)
        assert {name for _, name in drawn} == set(links), "a point of a figure leads nowhere"
        assert {to for to, _ in drawn} == {"answers.html"}, "the page beside the report"


def test_answers_hold_the_texts_and_mark_luck(toy):
    r, _ = toy
    found = pd.read_parquet(r.folder / "answers.parquet")
    assert found.said.notna().all() and {"right", "wrong"} & set(found.kind)
    lucky = r.items[(r.items.lucky == 1)].eval_id if "lucky" in r.items else []
    assert len(lucky) == 0 or "lucky" in set(found.kind)


def test_samples_are_the_words_of_all_arms_to_the_same_questions(toy):
    r, text = toy
    shown = re.split(r"\n##+ ", text.partition("\n### Samples\n")[2])[0]
    questions = [i.question for i in load("arith", n_train=12, n_test=16).split("test")[:3]]
    assert "![" not in shown and all(shown.count(q) == 1 for q in questions)
    arms = [p.split(", ")[0] for p in shown.split("\n\n") if p.endswith(("right:", "wrong:", "steps:"))]
    assert arms == ["teacher", "zero-shot CoT", "label only", "CoT"] * 3
    assert shown.count("\n\n> ") == 12, "an arm without its words"


def test_without_texts_the_page_says_so(committed):
    r, _ = committed
    assert "not stored here" in (r.folder / "answers.md").read_text()
    assert "Behind" in write_answers(r, examples(r))


def test_what_failed_is_told(toy):
    r, _ = toy
    assert failures(r).startswith("Nothing")
    broken = r.rows.assign(error=["ValueError: no"] + [None] * (len(r.rows) - 1))
    assert "ValueError: no" in failures(type(r)(r.study, r.title, broken, r.good, r.items, r.folder))


def test_a_study_without_values_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    (tmp_path / "none").mkdir()
    for name in ("rows", "items"): pd.DataFrame(dict(error=["x"], eval_id=[None])).to_parquet(tmp_path / "none" / f"{name}.parquet")
    with pytest.raises(ValueError, match="no row with a value"): read_report("none")


def test_a_cell_with_a_bar_does_not_break_a_table():
    assert table_md(pd.DataFrame(dict(a=["x|y"], n=[3]))).split("\n") == ["| a | n |", "|:--|--:|", "| x\\|y | 3 |"]


def test_page_is_whole(toy):
    r, text = toy
    page = (r.folder / "report.html").read_text()
    assert page.count("<svg") == text.count("](figures/") - text.count(".csv](figures/") and "<script" not in page
    assert not re.findall(r'(?:src|href)="https?:', page), "a page that asks another host"
    assert page.count("<figcaption>") == page.count("<figure>") and 'role="img"' in page
    assert all(len(alt) > 30 for alt in re.findall(r"<svg[^>]*aria-label=\"([^\"]*)\"", page))
    assert not re.search(r"<h2[^>]*>[^<]*</h2>\s*(<h2|</main>)", page), "an empty section"


def test_a_notebook_becomes_both_pages(tmp_path):
    import nbformat
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[
        nbformat.v4.new_output("display_data", {"text/markdown": "# T\n\n## A b\n\n[f](../figures/x.csv)"})])])
    nbformat.write(nb, tmp_path / "n.ipynb")
    md, html = to_pages(tmp_path / "n.ipynb", tmp_path / "t")
    assert "](figures/x.csv)" in md.read_text() and '<h2 id="a-b">' in html.read_text()


@pytest.mark.parametrize("width", [1200, 400])
def test_pages_in_a_browser(committed, width, tmp_path):
    r, _ = committed
    with open_browser() as browser:
        for page in ("report", "answers"):
            seen = look_at(browser, r.folder / f"{page}.html", width, tmp_path / f"{page}-{width}.png")
            assert not seen.said and not seen.asked, (seen.said, seen.asked)
            assert seen.scroll_width <= width, f"{page} is wider than the screen of {width}"
            assert (tmp_path / f"{page}-{width}.png").stat().st_size > 10_000


UNDER = """links => links.map(a => { a.scrollIntoView({block: "center"}); const b = a.getBoundingClientRect();
  const e = document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2); return e && e.closest("a") ? 1 : 0 })"""


def test_every_point_of_a_figure_can_be_clicked(committed):
    r, _ = committed
    with open_browser() as browser:
        page = browser.new_page(viewport=dict(width=1200, height=900))
        page.goto((r.folder / "report.html").as_uri())
        hit = page.eval_on_selector_all("figure svg a", UNDER)
        assert len(hit) >= r.good.point.nunique() and all(hit), f"{hit.count(0)} of {len(hit)} points are covered or cannot be hit"


def test_a_value_that_is_not_there_is_read_as_nothing():
    assert [number(x) for x in (None, float("nan"), pd.NA, "", 2, 0.5, True, "vote")] == ["", "", "", "", "2", "0.5", "1", "vote"]


def test_texts_of_others_are_named_and_not_copied(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    base = {k: v for k, v in SMALL.items() if not k.startswith("task_args")} | {
        "n_questions": 8, "n_items": 6, "format": "ho", "teacher.pool": 1, "teacher.model": "recorded:coin_flip__ho_zero_shot_cot",
        "teacher.format": "ho_teacher", "teacher.max_tok": 512}
    methods = ["label_only", "greedy_cot"]
    found = study_cell("sample_count", "real-toy", "", "coin_flip", "pocket/xs", base, n_rationales=[], methods=methods)
    r = read_report("real-toy", "Real")
    shown = [found.chains(), found.samples(2), *(pd.read_parquet(p) for p in tmp_path.rglob("answers.parquet"))]
    told = whole(r) + "".join(x.to_csv() for x in shown) + "".join(p.read_text() for p in r.folder.rglob("*.md"))
    asked = {i.question for split in ("train", "test") for i in load("coin_flip").split(split)}
    assert any(i.id in told for i in load("coin_flip").split("test")) and not any(q in told for q in asked)
    assert not any(t in told for t in recorded("coin_flip__ho_zero_shot_cot").rationale if len(t) > 40)


def test_an_analysis_that_cannot_be_told_does_not_take_the_others_with_it(toy, monkeypatch):
    from cotstudy import report
    r = replace(toy[0], title="Another")
    broken = r.analyses[0]
    def fails(a, *given):
        if a is broken: raise ValueError("several rows per point")
        return figures(a, *given)
    figures = report.figures_of
    monkeypatch.setattr(report, "figures_of", fails)
    with pytest.warns(UserWarning, match="several rows per point"): told = report.section(r, broken)
    assert "could not be told: ValueError: several rows per point" in told and "difference" in told
    assert "could not be told" not in report.section(r, r.analyses[1])


@pytest.mark.parametrize("study", ["pocket", "pocket-full", "precision", "real"])
def test_nothing_is_missing_from_a_committed_report(study):
    assert "could not be told" not in (ROOT / "outputs" / study / "report.md").read_text()


def test_a_dataset_that_is_not_at_hand_costs_its_texts_and_not_the_report(committed, monkeypatch):
    from cotstudy import report
    def offline(cond): raise FileNotFoundError("could not get it; go online")
    monkeypatch.setattr(report, "exam_of", offline)
    assert examples(committed[0]).empty
