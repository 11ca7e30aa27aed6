"""The command `mtia-emu explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options as o
from .output import console, progress, say

if TYPE_CHECKING:
    from ..results.explanation import Explanation


@click.command("explain", short_help="Say what bounds each layer of a model, and what would help.")
@o.MODEL
@o.options(*o.COMPILE, o.JSON, o.ROOFLINE, o.HTML, o.LAYERS)
@click.option(
    "--what-if/--no-what-if",
    default=True,
    show_default=True,
    help="Time the model again for each numeric parameter of the chip, made a tenth better.",
)
def explain(model: str, what_if: bool, **flags: Any) -> None:
    """Explain the time of MODEL: an ONNX file, hf:FOLDER, a graph's text FILE.ir, a program, or zoo:NAME.

    Prints where the time went, what bounds each layer, every layer on the roofline, and what a better chip
    would change: one parameter at a time, with the same program or, for sizes that a program depends on, with
    a new one.

    \b
    Examples:
      mtia-emu explain zoo:llama-3-8b --dim seq=1 --dim past=2048
      mtia-emu explain model.onnx --chip mtia-1 --html explain.html
      mtia-emu explain zoo:dlrm-mlperf --no-what-if --json -
    """
    from ..api import explain as explain_model

    with progress() as tick:
        explanation = explain_model(
            model,
            flags["chip"],
            settings=o.parse_settings(flags["settings"]),
            dims=o.parse_dims(flags["dims"]),
            what_if=what_if,
            progress=tick,
            options=o.chosen(flags),
        )
    roofline, json_file = flags["roofline"], flags["json_file"]
    if roofline is not None:
        from ..view.plot import roofline as draw

        draw(explanation.report, explanation.roofs, roofline)
    if flags["html_file"] is not None:
        from ..view.explain_page import write_explain_page
        from .pages import origin

        write_explain_page(flags["html_file"], explanation, origin())
    if json_file is not None:
        _write(explanation, json_file)
    if json_file != "-":
        from ..view.explain import print_explanation

        print_explanation(explanation, console(), rows=flags["layers"])


def _write(explanation: Explanation, to: str) -> None:
    from ..files.writing import json_text, write_json
    from ..results.explanation import as_json

    if to == "-":
        say(json_text(as_json(explanation)), nl=False)
    else:
        write_json(to, as_json(explanation))
