"""The seams of the book: every link leads somewhere, what is stored is what the rows say, pages need no other host."""
import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from browser import look_at, open_browser

from cotstudy.book import (Change, _cut, broken_links, broken_pages, changes, execute, execute_again, in_short, notebooks, site,
                           site_sources, slides_of, text_of, ways, write_slides, write_ways)
from cotstudy.pages import moved, to_markdown
from cotstudy.results import good_rows

ROOT = Path(__file__).parent.parent
BOOK = notebooks(ROOT)


def outputs(path):
    return [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]


def test_every_link_of_notebooks_and_texts_leads_somewhere():
    assert len(BOOK) > 30 and not (broken := broken_links(ROOT)), "\n".join(broken)


def test_lab_opens_where_links_lead():
    "With a file as its argument, Lab takes the file's folder as its root: `../` would lead out of it."
    recipe = re.search(r"^lab:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert "root_dir" in recipe and "default_url" in recipe and "lab nbs/" not in recipe


def test_broken_links_are_seen(tmp_path):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "a.md").write_text("# A b\n\n[x](#a-b) [y](#c) [z](../no.md) [w](https://example.org/no) `[v](none)`")
    assert broken_links(tmp_path, [tmp_path / "nbs" / "a.md"]) == ["nbs/a.md: #c", "nbs/a.md: ../no.md"]
    (tmp_path / "p.html").write_text('<h1 id="x"></h1><a href="#x"></a><a href="#y"></a><script src="q.js"></script>'
                                     '<svg><a xlink:href="#x"></a><a xlink:href="../r.html#p"></a></svg>')
    assert broken_pages(tmp_path) == ["p.html: #y", "p.html: q.js", "p.html: ../r.html#p"]


def test_every_chapter_leads_back_on_and_to_the_contents(tmp_path):
    said = ways(ROOT)
    assert len(said) > 40 and all(nbformat.read(p, 4).cells[1].source == line for p, line in said.items()), "run `make readme`"
    first, *_, last = said.values()
    assert "←" not in first and "→" not in last and all("#The-book" in line for line in said.values())
    (tmp_path / "nbs").mkdir()
    for p in list(said)[:3]: shutil.copy(p, tmp_path / "nbs")
    assert [p.name for p in write_ways(tmp_path)] == [list(said)[2].name] and not write_ways(tmp_path)  # no fourth: nothing to lead on to


def test_readme_is_the_index_with_its_links_moved():
    text = to_markdown(ROOT / "nbs" / "index.ipynb")
    assert (ROOT / "README.md").read_text() == moved(text, ROOT / "nbs", ROOT)
    assert "](nbs/images/headline.svg)" in (ROOT / "README.md").read_text()


def test_index_says_what_the_project_holds_today(tmp_path, monkeypatch):
    "Tables of lessons, chapters, analyses and speed, and what was found; what the commands say has a test of its own."
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(ROOT / "outputs"))
    (tmp_path / "nbs").mkdir()
    (tmp_path / "outputs").symlink_to(ROOT / "outputs")
    for p in (ROOT / "nbs").iterdir():
        if p.name == "images": shutil.copytree(p, tmp_path / "nbs" / p.name)
        elif p.name != "index.ipynb": (tmp_path / "nbs" / p.name).symlink_to(p)
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    nb.cells = [c for c in nb.cells if "COMMANDS = " not in c.source]
    assert sum(c.cell_type == "code" for c in nb.cells) > 7
    nbformat.write(nb, tmp_path / "nbs" / "index.ipynb")
    assert not execute_again(tmp_path / "nbs" / "index.ipynb", keep=False), "run `cotstudy book nbs/index.ipynb`, then `cotstudy readme`"


README = (ROOT / "README.md").read_text()


@pytest.fixture
def typed(tmp_path, monkeypatch):
    "Type a command in a folder of its own, and read what it says."
    import shlex

    from typer.testing import CliRunner

    from cotstudy.cli import app
    from cotstudy.models import threads
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))

    def run(command: str) -> str:
        name, *args = shlex.split(command, comments=True)
        assert name == "cotstudy"
        with threads(1): done = CliRunner().invoke(app, args)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        return done.stdout
    return run


def test_five_commands_say_what_the_readme_shows(typed):
    block = re.search(r"```console\n(.*?)\n```", README, re.S)[1]
    shown = [part.split("\n", 1) for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
    assert [c.split()[1] for c, _ in shown] == ["ask", "sample", "distil", "evaluate", "show"]
    words = lambda text: re.sub(r"[-\d.,]+", "#", " ".join(text.split()))
    for command, told in shown:
        said = typed(command)
        if command.split()[1] in ("ask", "show"): assert said.strip()  # a model's words; another machine may round to others
        else: assert words(said) == words(told), command
    accuracy = [float(re.search(r"([\d.]+) % \[", text)[1]) for text in (shown[3][1], typed(shown[3][0]))]
    assert abs(accuracy[0] - accuracy[1]) < 8, "another number than the README shows"


def test_commands_of_a_study_of_ones_own_run(typed, tmp_path):
    import yaml
    mine = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.S)[1])
    grid = mine["cells"][0]
    assert mine["base"]["task_args.n_test"] >= 500 and len(grid["with"]["seeds"]) > 2 and len(grid["over"]["student"]) > 1
    lines = re.search(r"```sh\n(cotstudy run mine\.yaml --dry-run.*?)```", README, re.S)[1].strip().split("\n")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    assert "2" in typed(lines[0]), "the dry run of the file as it stands"
    mine["base"] = {"task_args.n_train": 12, "task_args.n_test": 16, "teacher.pool": 2, "recipe.steps": 3, "recipe.batch": 4}
    grid["over"]["student"], grid["with"] = ["pocket/xs"], dict(n_rationales=[1, 2], seeds=[0, 1])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    for line in lines:
        if " slides " in line and find_spec("sphinx_revealjs") is None: continue
        assert typed(line).strip(), line
    assert (tmp_path / "outputs" / "mine" / "report.html").exists()


def test_everything_else_that_the_readme_lets_one_type_exists():
    from cotstudy.cli import app
    typed_in = "\n".join(re.findall(r"`([^`\n]+)`", README) + re.findall(r"^(make .*|cotstudy .*|papermill .*)$", README, re.M))
    made = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    asked = {m.split()[0] for m in re.findall(r"\bmake ([a-z-]+)", typed_in)}
    assert {"study", "test", "lab", "site"} <= asked <= made, asked - made
    commands = {c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands} | {g.name for g in app.registered_groups}
    named = set(re.findall(r"\bcotstudy ([a-z][a-z-]*)", typed_in))
    assert {"run", "status", "claims", "slides", "bench"} <= named <= commands, named - commands


def test_papermill_takes_the_parameters_of_the_readme(tmp_path):
    import papermill
    line = re.search(r"`papermill (\S+) out\.ipynb ((?:-p \w+ \S+ ?)+)`", README)
    given = dict(re.findall(r"-p (\w+) (\S+)", line[2]))
    assert not {*given} - {*papermill.inspect_notebook(str(ROOT / line[1]))}
    papermill.execute_notebook(str(ROOT / line[1]), str(tmp_path / "out.ipynb"), given, prepare_only=True)


def test_numbers_of_the_readme_are_those_of_the_rows():
    rows = good_rows(pd.read_parquet(ROOT / "outputs" / "pocket" / "rows.parquet")).drop_duplicates("row_id")
    told = re.findall(r"^\| (\w+)[^|]*\| (pocket/\w+) \| (\d+) \[\d+, \d+\] \| (\d+) \[", (ROOT / "README.md").read_text(), re.M)
    mean = (100 * rows.groupby(["task", "student", "method"]).accuracy.mean()).round()
    assert told and all(float(before) == mean[t, s, "zero_shot_cot"] and float(labels) == mean[t, s, "label_only"]
                        for t, s, before, labels in told)


def test_stored_figures_are_vectors_or_true_in_colour():
    for path in BOOK:
        for o in outputs(path):
            data = o.get("data", {})
            if png := data.get("image/png"):
                import base64
                assert base64.b64decode(png)[25] in (2, 6), f"{path.name}: a PNG with a palette; its colours are not those of the figure"
            if svg := data.get("image/svg+xml"): assert 'aria-label="' in svg, f"{path.name}: a figure without words"


METHOD = ("06_procedural", "15_prompts", "18_answers", "30_draws", "35_filters", "40_students", "45_evaluate", "50_conditions", "55_runs",
          "60_pocket", "70_figures", "75_claims", "77_analyses", "03_pictures")

@pytest.mark.parametrize("name", METHOD)
def test_chapters_of_the_method_have_a_figure(name):
    kinds = [k for o in outputs(ROOT / "nbs" / f"{name}.ipynb") for k in o.get("data", {})]
    assert {"image/svg+xml", "image/png"} & set(kinds)


@pytest.mark.parametrize("path", BOOK, ids=lambda p: p.stem)
def test_no_figure_is_shown_twice(path):
    drawn = [d for o in outputs(path) for k, d in o.get("data", {}).items() if k.startswith("image/")]
    assert len(drawn) == len(set(drawn))


def test_changes_are_found_and_drawings_are_not_words():
    def nb(*said): return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[
        nbformat.v4.new_output("stream", name="stdout", text=s)]) for s in said])
    assert changes(nb("a", "1"), nb("a", "2")) == [Change(1, "1", "2")] and not changes(nb("a"), nb("a"))
    drawn = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[
        nbformat.v4.new_output("display_data", {"text/plain": "<Figure size 1x1>", "image/svg+xml": "<svg/>"})])])
    assert not changes(drawn, nb(""))


def test_glossary_and_citation():
    import yaml
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["title"].startswith("cotstudy") and len(cited["references"]) == 2
    words = re.findall(r"^\*\*(.+?)\.\*\*", text_of(ROOT / "nbs" / "glossary.md"), re.M)
    assert len(words) > 25 and [w.lower() for w in words] == sorted((w.lower() for w in words))
    assert text_of(ROOT / "nbs" / "bibliography.md").count("](https://") > 25


def test_sources_of_the_site_hide_what_is_hidden(tmp_path):
    site_sources(ROOT, tmp_path)
    for p in tmp_path.rglob("*.ipynb"):
        cells = [c["source"] for c in json.loads(p.read_text())["cells"] if c["cell_type"] == "code"]
        assert not any("".join(c).startswith("#|") for c in cells), p.name
    texts = [text_of(p) for p in (*tmp_path.rglob("*.md"), *tmp_path.rglob("*.ipynb"))]
    assert len(texts) > 80 and not any(re.search(r"\]\([^)\s:]*#[^)\s]*[A-Z]", t) for t in texts), "pages name headings in small letters"
    index = (tmp_path / "index.md").read_text()
    assert all(f"nbs/{p.stem}" in index for p in (ROOT / "nbs").glob("[0-9]*.ipynb")) and "api/figures" in index


@pytest.mark.skipif(find_spec("myst_nb") is None, reason="no Sphinx: pip install -c constraints.txt -e '.[site]' to build the site")
def test_site_from_a_folder(tmp_path):
    (mine := tmp_path / "thesis" / "chapter.txt").parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(ValueError, match="thesis holds other files"): site(ROOT, mine.parent)
    assert mine.read_text() == "mine"
    first = site(ROOT, tmp_path / "site")  # raises where a link is broken
    assert {p.name for p in tmp_path.iterdir()} == {"thesis", "site"}, "something lies beside the site"
    with open_browser() as browser:
        def search(page):
            page.goto((tmp_path / "site" / "search.html").as_uri() + "?q=rationale")
            page.wait_for_selector("ul.search li", timeout=20_000)
        for width in (1200, 400):
            seen = look_at(browser, first, width, after=search if width == 1200 else None)
            assert not seen.said and not seen.asked and seen.scroll_width <= width


def test_no_slide_holds_what_was_left_over():
    for n in range(12):
        parts = list(_cut(range(n), 4))
        assert [x for part in parts for x in part] == list(range(n)) and max(map(len, parts), default=0) <= 4
        assert len({*map(len, parts)}) <= 2 and (n < 5 or min(map(len, parts)) > 1), parts
    told = pd.DataFrame(dict(verdict=["reproduced", "inconclusive", "reproduced", "not testable here"], effect=[0.1, 0.0, 0.2, None],
                             paper=["ho2023", "beyond", "ho2023", "scotd2023"]))
    rest = "1 of 3 claims of the two papers, and 0 of the 1 that go beyond them, are not tested here"
    first = "Of 3 claims that were tested: 2 reproduced, 1 inconclusive."
    assert in_short(told) == [first, f"{rest}; the scorecard says why."] and in_short(told[:3]) == [first] and in_short(told[:0]) == []


def test_a_notebook_keeps_no_state_of_its_widgets(tmp_path):
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install -e '.[judge]'")
    shown = nbformat.v4.new_code_cell("import anywidget, traitlets\nclass W(anywidget.AnyWidget): _esm = 'export default {}'\nW()")
    nbformat.write(nbformat.v4.new_notebook(cells=[shown]), tmp_path / "w.ipynb")
    found = execute(tmp_path / "w.ipynb")
    assert found.cells[0].outputs and "widgets" not in found.metadata


def test_slides_leave_what_is_none_alone(tmp_path):
    (tmp_path / "thesis.html").write_text("<p>mine</p>")
    for name, said in (("thesis.html", "holds no slides"), ("thesis.txt", "expected .html")):
        with pytest.raises(ValueError, match=said): write_slides(SimpleNamespace(folder=tmp_path, title=""), tmp_path / name)
    assert (tmp_path / "thesis.html").read_text() == "<p>mine</p>"


@pytest.mark.skipif(find_spec("sphinx_revealjs") is None, reason="no reveal.js: pip install -c constraints.txt -e '.[site]' to make slides")
def test_slides_turn_offline(tmp_path, monkeypatch):
    from cotstudy.report import read_report, verdicts
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    (tmp_path / "pocket").mkdir()
    for name in ("rows", "items"): shutil.copy(ROOT / "outputs" / "pocket" / f"{name}.parquet", tmp_path / "pocket")
    r = read_report("pocket", "Pocket")
    deck = write_slides(r)
    shown = slides_of(r)
    claims = verdicts(r).query("effect == effect")
    assert all(sum(f"{v.id} {v.title}: {v.verdict}" in s.drawn for s in shown) == 1 for v in claims.itertuples())
    assert next(k for k, s in enumerate(shown) if s.drawn) < 5, "a picture comes soon"
    assert deck.read_text().count("<section>") > 7 and "What became of the claims" in deck.read_text() and "<svg" in deck.read_text()
    (tmp_path / "pocket" / "report.md").write_text("# Pocket")
    monkeypatch.setitem(r.__dict__, "plan", r.plan.model_copy(update=dict(beside=["pocket"])))
    assert (deck.parent / re.search(r'href="(\.\.[^"#]*)"', write_slides(r, tmp_path / "pocket" / "two.html").read_text())[1]).exists()
    with open_browser() as browser:
        def turn(page):
            page.wait_for_function("Reveal.isReady()")
            page.keyboard.press("ArrowRight")
            page.wait_for_url("**#/1", timeout=10_000)  # reveal.js writes the address once a second at most
        seen = look_at(browser, deck, 1280, after=turn)
        assert not seen.said and not seen.asked
