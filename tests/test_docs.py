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


def test_a_pass_that_changes_nothing_has_no_row() -> None:
    head, idle, twice = ["none", "9", "", "1"], ["fold", "9", "+0.0%", "1"], ["fold", "9", "+0.0%", "2"]
    assert generate.changed([head, idle, twice, idle]) == [head, twice, idle]


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


TRACKED = [
    p for p in ROOT.rglob("*") if not {".venv", "build", "__pycache__"} & set(p.relative_to(ROOT).parts)
]
READERS = ("doubles.py", "unit_rows.py")  # files that who follows a page writes
ENDS = {"/".join(p.relative_to(ROOT).parts[-n:]) for p in TRACKED for n in range(1, 6)}


@pytest.mark.parametrize("name", [name for name in TEXTS if "/decisions/0" not in name])
def test_a_file_that_a_page_names_is_there(name: str) -> None:
    """Decisions name files as they were called on their date; what a page writes it may name."""
    assert missing(TEXTS[name]) == []


def missing(page: str) -> list[str]:
    """Return the files and folders that a page names in backticks and that are neither there nor its own."""
    named = re.findall(r"`([\w./-]+\.(?:py|toml)|(?:mtia_emu|compiler|kernels|tests|docs)/[\w./-]*)`", page)
    own = [*READERS, *(match["info"].partition(" ")[2] for match in fences.FENCE.finditer(page))]
    return [file for file in named if file.rstrip("/") not in ENDS and Path(file).name not in own]


def test_a_file_that_is_not_there_is_found() -> None:
    page = (
        "In `docs/fences.py`, `fences.py`, `mine.py`, `mtia_emu/engine/` and `gone.py`, `mtia_emu/gone/`.\n"
    )
    assert missing(page + "```python mine.py\n```\n") == ["gone.py", "mtia_emu/gone/"]


DECISIONS = {path.name: path.read_text("utf-8") for path in sorted((DOCS / "decisions").glob("[0-9]*.md"))}
DAY = r"\d{4}-\d\d-\d\d"
LINK = r"\[(\d{4})\]\((\1-[\w-]+\.md)\)"


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_has_a_date_a_status_and_what_was_turned_down(name: str) -> None:
    assert fault(name, DECISIONS[name]) == ""


def fault(name: str, page: str) -> str:
    """Return what a page of a decision lacks of the form in docs/decisions/README.md, or nothing."""
    head = re.match(rf"# (\d{{4}})\. .+\n\n- Date: ({DAY})\n- Status: (.+)\n\n## ", page)
    if head is None or head[1] != name[:4]:
        return "title, date or status"
    first, *more = head[3].split("; ")
    if not re.fullmatch(rf"accepted|superseded by {LINK}", first):
        return f"status {first!r}"
    if "\n## Choice\n" not in page or "\n## Turned down\n" not in page:
        return "Choice or Turned down"
    amended = [part for part in more if part.startswith("amended on ")]
    if not all(re.match("amended on |refines |refined by ", part) for part in more):
        return f"status {head[3]!r}"
    days = re.findall(rf"^- \*({DAY})\*: ", page.partition("\n## Amendments\n")[2], re.MULTILINE)
    if set(re.findall(DAY, "".join(amended))) != set(days) or days != sorted(days):
        return "the status names the days of the amendments, which stand in order"
    return "" if all(day >= head[2] for day in days) else "an amendment before the decision"


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        (("- Date: 2026-01-02\n", ""), "title, date or status"),
        (("accepted", "in force"), "status 'in force'"),
        (("Turned down", "Others"), "Choice or Turned down"),
        (
            ("; amended on 2026-02-03", ""),
            "the status names the days of the amendments, which stand in order",
        ),
        (("2026-01-02", "2026-03-02"), "an amendment before the decision"),
    ],
)
def test_a_decision_without_them_is_found(change: tuple[str, str], lack: str) -> None:
    page = (
        "# 0001. A choice\n\n- Date: 2026-01-02\n- Status: accepted; amended on 2026-02-03\n\n"
        "## Choice\n\nThis.\n\n## Turned down\n\n- *That*: no.\n\n## Amendments\n\n- *2026-02-03*: More.\n"
    )
    assert fault("0001-a.md", page) == ""
    assert fault("0001-a.md", page.replace(*change)) == lack


def test_every_decision_is_listed_once_by_its_number() -> None:
    listed = re.findall(LINK, (DOCS / "decisions" / "README.md").read_text("utf-8"))
    assert [file for _, file in listed] == list(DECISIONS)
