"""Text is text, whatever it holds; and stays so behind a child."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.view.html.elements import el, markup


class Seen(HTMLParser):
    """What a parser of HTML finds."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.values: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "S"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    seen = Seen()
    seen.feed(markup(el("p", text, el("b", text), text, aria_label=text)))
    seen.close()
    assert seen.tags == ["p", "b"] and seen.text == 3 * text and seen.values == [text]


def test_attributes() -> None:
    assert markup(el("rect", x=1.0, y=2.345, class_="fill", stroke_width=None)) == (
        '<rect x="1" y="2.35" class="fill"></rect>'
    )
    assert markup(el("meta", charset="utf-8")) == '<meta charset="utf-8">'
    assert markup(el("p", "a\x00\x1b[31mb\uffff")) == "<p>ab</p>"
