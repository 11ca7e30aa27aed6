"""Next values that are inferred: of training steps of ours, whose states are known, and of graphs without."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.next_values import next_values
from mtia_emu.compiler.text import parse

import mtia_emu

OPTIMISERS = (
    "sgd", "sgd{momentum=0.9}", "sgd{momentum=0.9,nesterov=true,weight_decay=0.1}", "adam{weight_decay=0.1}",
    "adamw", "adagrad", "adagrad{rowwise=true,weight_decay=0.1}",
)  # fmt: skip
STEP = """
graph step {{
  in %x : fp32[4,8]
  in %w : fp32[8,8]
  in %m : fp32[8,8]
  {input}
  %y : fp32[4,8] = matmul(%x, %w)
  %t : fp32[8,4] = transpose(%x) {{perm=[1, 0]}}
  %g : fp32[8,8] = matmul(%t, %y)
  %s : fp32[4,8] = mul(%y, %y)
  %loss : fp32[] = reduce_sum(%s) {{axes=[0, 1], keepdims=false}}
  {body}
  out %loss
  {outputs}
}}
"""


def written(body: str, outputs: str, more: str = "") -> dict[str, str]:
    outs = "\n  ".join(f"out %{name}" for name in outputs.split())
    return dict(next_values(parse(STEP.format(body=body, outputs=outs, input=more))))


@pytest.mark.parametrize("embeddings", ["rows", "tables"])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_the_states_of_our_own_steps_are_found(optimizer: str, embeddings: str) -> None:
    step = mtia_emu.training_step("zoo:dlrm-small", "bce", optimizer, embeddings=embeddings, clip=1.0).graph
    assert dict(next_values(step.with_states({}))) == dict(step.states)


def test_a_gradient_follows_nothing() -> None:
    assert written("%d : fp32[8,8] = add(%g, %g)", "d") == {}


def test_what_is_only_moved_follows_nothing() -> None:
    assert written("%n : fp32[8,8] = copy(%w)", "n") == {}


def test_what_is_only_chosen_follows_nothing() -> None:
    assert written("%n : fp32[8,8] = where(%p, %w, %g)", "n", "in %p : bool[8,8]") == {}


def test_what_no_gradient_changes_follows_nothing() -> None:
    assert written("%n : fp32[8,8] = add(%w, %w)", "n") == {}
    assert written("%n : fp32[8,8] = add(%w, %o)", "n", "in %o : fp32[8,1]") == {}


def test_a_state_is_found_beside_its_weight_alone() -> None:
    moment = "%v : fp32[8,8] = add(%m, %g)"
    assert written(moment, "v") == {}, "a sum of gradients that changes no weight"
    step = f"{moment}\n  %n : fp32[8,8] = sub(%w, %v)"
    assert written(step, "v n") == {"v": "m", "n": "w"}


def test_two_that_could_follow_one_another_follow_neither() -> None:
    mixed = (
        "%a : fp32[8,8] = add(%m, %o)\n  %p : fp32[8,8] = add(%a, %g)\n  %q : fp32[8,8] = sub(%a, %g)\n"
        "  %n : fp32[8,8] = sub(%w, %g)"
    )
    assert written(mixed, "p q n", "in %o : fp32[8,8]") == {"n": "w"}
    behind = mixed.replace("sub(%w, %g)", "sub(%w, %p)")
    assert written(behind, "p q n", "in %o : fp32[8,8]") == {}


def test_a_recurrent_state_that_an_answer_depends_on_is_left_alone() -> None:
    """A cell has a next state by arithmetic and by products too, but what one float it answers is of that."""
    cell = parse("""
    graph cell {
      in %h : fp32[1,8]
      const %w : fp32[8,8] = absent
      const %o : fp32[8,1] = absent
      %z : fp32[1,8] = matmul(%h, %w)
      %n : fp32[1,8] = mul(%h, %z)
      %answer : fp32[1,1] = matmul(%n, %o)
      out %answer
      out %n
    }""")
    assert dict(next_values(cell)) == {}
