"""The pages: their code runs, what they show is what there is, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import fences  # noqa: E402
import generate  # noqa: E402
import hollow  # noqa: E402

PAGES = {str(page.relative_to(ROOT)): page for page in generate.pages()}
TEXTS = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
LONG = {"tutorial-architect.md", "tutorial-compiler.md", "explain-a-model.md", "tune-mappings.md"}
STALE = "run `make docs` and look at what it changes"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.deep] * (Path(name).name in LONG))
        for name, text in TEXTS.items()
        if fences.runs(text)
    ],
)
def test_page_runs_and_shows_what_it_prints(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(DOCS / "fences.py"), str(PAGES[name]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    real = done.stdout.decode()
    shown = TEXTS[name].splitlines()
    changed = [
        f"- {a}\n+ {b}" for a, b in zip(shown, real.splitlines(), strict=False) if a.split() != b.split()
    ]
    assert fences.same(TEXTS[name], real), f"{name} is stale: {STALE}\n" + "\n".join(changed[:20])


@pytest.mark.parametrize(
    "name", [n for n, t in TEXTS.items() if set(fences.section_names(t)) & set(generate.CHEAP)]
)
def test_generated_tables_are_up_to_date(name: str) -> None:
    made = fences.fill(TEXTS[name], generate.CHEAP)
    assert made.split() == TEXTS[name].split(), f"{name} is stale: {STALE}"


def test_every_generated_section_is_known_and_used() -> None:
    used = {section for text in TEXTS.values() for section in fences.section_names(text)}
    assert used == set(generate.SECTIONS)


def test_generated_sections_are_not_empty() -> None:
    for name, text in TEXTS.items():
        for match in fences.SECTION.finditer(text):
            assert len(match[0].splitlines()) > 4, f"{name}: section {match['name']} is empty: {STALE}"


@pytest.mark.parametrize("name", [n for n, t in TEXTS.items() if hollow.FENCE.search(t)])
def test_no_row_of_a_generated_table_is_empty_but_those_declared(name: str) -> None:
    assert not hollow.unexplained(TEXTS[name])


def test_every_declared_row_is_of_a_section_that_there_is() -> None:
    names = {match["name"] for text in TEXTS.values() for match in hollow.FENCE.finditer(text)}
    assert {*hollow.ROWS} <= names


@pytest.mark.parametrize("cell", ["0.0", "", "no layer", "+0.00 %", "-0.0%", "0 us", "0.0e+00", "**0**", "-"])
def test_a_row_of_nothing_is_found_whatever_is_published_beside_it(cell: str) -> None:
    head = "| operator | published, % | here % | of it |\n| --- | --- | --- | --- |\n"
    table = f"{head}| FC | 42.1 | 64.2 | 1,024 |\n| Bag | 31.2 | {cell} | 0 |\n| Add | 7 | 0 | 0.1 % |\n"
    assert list(hollow.hollow(table)) == ["Bag"]
    with pytest.raises(ValueError, match="row 'Bag' has no figure but zeros"):
        fences.fill("<!-- generated: x -->\n<!-- end -->", {"x": lambda: table})


def test_a_table_of_words_has_no_row_of_nothing() -> None:
    assert not list(hollow.hollow("| key | unit | meaning |\n| --- | --- | --- |\n| `a` | | text |\n"))


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        page = (PAGES[name].parent / path).resolve() if path else PAGES[name]
        assert page.exists(), f"{name} links to {target}, which is not there"
        if anchor:
            assert anchor in _anchors(page.read_text(encoding="utf-8")), (
                f"{name} links to {target}: no such heading"
            )


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_page_is_reached_from_the_readme() -> None:
    reached, work = set(), ["README.md"]
    while work:
        name = work.pop()
        if name in reached or name not in TEXTS:
            continue
        reached.add(name)
        for target in re.findall(r"\]\(([^)\s#]+)", TEXTS[name]):
            page = (PAGES[name].parent / target).resolve()
            if page.is_relative_to(ROOT):
                work.append(str(page.relative_to(ROOT)))
    assert reached == set(TEXTS)


def test_every_picture_is_drawn_by_the_generator_and_shown() -> None:
    shown = {Path(p).name for text in TEXTS.values() for p in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)}
    drawn = {path.name for path in (DOCS / "pictures").iterdir()}
    assert shown == drawn


def test_what_a_cut_output_shows_is_found_again() -> None:
    real = "a 1\nb 2.5\nc 3\nd 4\n"
    assert fences.refresh("b 9.1\n...\nd 0\n", real) == "b 2.5\n...\nd 4\n"
    assert fences.refresh("b 9\n", real) == real
    with pytest.raises(fences.Stale, match="no line like 'e 1'"):
        fences.refresh("...\ne 1\n", real)


def test_pages_may_differ_only_where_the_oracle_decides() -> None:
    assert fences.same("largest relative error 0.1, tolerance 1", "largest relative error 0.2,  tolerance 1")
    assert not fences.same("time 1 us", "time 2 us")
    assert not fences.same("a", "a\nb")
