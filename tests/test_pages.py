"""The README and the pages of `docs`: short enough to be read, and no link that leads nowhere."""

import re

import pytest

from norface_lib.common.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "DATASET.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(text):
    """What GitHub makes of the headings of a page, to be linked to."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for place, anchor in LINK.findall(text):
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name} links to {place}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{place}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {ROOT / place for place, _ in LINK.findall(readme)}
    assert {*PAGES} - {ROOT / "README.md", ROOT / "docs/faults.md"} <= linked
    notebooks = {*(ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks and notebooks <= linked


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.sub(r"<!-- results:.*?<!-- /results -->", "", text, flags=re.DOTALL).splitlines()
    assert len(lines) <= 120, "generated tables are not counted"
    prose = [line for line in lines if not line.startswith(("|", "!["))]
    assert max(map(len, prose)) <= 120


def test_anchors_are_those_of_github():
    assert anchors("# A `b`: c, d-e\n```\n# no heading\n```\n## What is *still* wrong") == {
        "a-b-c-d-e",
        "what-is-still-wrong",
    }
