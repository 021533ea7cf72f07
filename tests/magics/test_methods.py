"""`%methods` in a real kernel: every method there is, with what it would train of the model."""

from __future__ import annotations

import pytest

from tests.magics.kernel import Kernel

pytestmark = pytest.mark.kernel


def test_every_method_is_shown_once_with_its_count_and_paper_and_returned(kernel: Kernel) -> None:
    result = kernel.run("x = %methods tiny", timeout=120)
    assert result.status == "ok", result.lines
    shown = result.shown[-1]
    for name in ("lora", "adapter", "ia3", "full", "layernorm"):
        assert f"<td>{name}</td>" in shown["text/html"] or f">{name}<" in shown["text/html"]
    assert 'href="https://arxiv.org/abs/2106.09685"' in shown["text/html"]
    assert "which have 375 together" in shown["text/plain"]
    kernel.run("import nbtune")
    assert kernel.value("{each.name for each in x} == set(nbtune.methods.names())") == "True"


def test_a_quantization_leaves_those_out_that_cannot_and_says_why(kernel: Kernel) -> None:
    result = kernel.run("x = %methods tiny --quantization nf4", timeout=120)
    assert result.status == "ok", result.lines
    assert kernel.value("{each.name for each in x if each.refused} >= {'loha', 'full', 'bitfit'}") == "True"
    assert "loha does not work on a base held as nf4" in result.shown[-1]["text/plain"]


def test_an_unknown_model_and_a_second_word_are_told_in_two_lines(kernel: Kernel) -> None:
    failed = kernel.run("%methods tiny smollm2-135m")
    assert (failed.status, len(failed.lines)) == ("error", 2)
    assert "unexpected word 'smollm2-135m'" in failed.lines[0]
    failed = kernel.run("%methods smollm3-135m")
    assert failed.status == "error"
    assert "smollm3-135m" in failed.lines[0]
