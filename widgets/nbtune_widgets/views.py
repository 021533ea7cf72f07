"""What the backend finds by the entry point group `nbtune.views`, so that it can be shown without knowing this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune_widgets.comparison import comparison_html, comparison_page, comparison_text
from nbtune_widgets.diagnosis import diagnosis_html, diagnosis_text
from nbtune_widgets.figures import comparison_figure, run_figure
from nbtune_widgets.markdown import comparison_markdown
from nbtune_widgets.protocols import ComparisonView, RunView, SearchView, SteeredRun, TaskView, TokensView
from nbtune_widgets.retrieved import index_html, index_text, passages_html, passages_text
from nbtune_widgets.search import search_html, search_text
from nbtune_widgets.static import run_card_html, run_text
from nbtune_widgets.task_card import task_html, task_text

if TYPE_CHECKING:
    from nbtune.data.doctor import Diagnosis
    from nbtune.retrieval import Index, Passages

__all__ = [
    "comparison_figure",
    "comparison_markdown",
    "comparison_mimebundle",
    "comparison_page",
    "doctor_mimebundle",
    "index_mimebundle",
    "passages_mimebundle",
    "run_figure",
    "run_mimebundle",
    "search_mimebundle",
    "show_run",
    "task_mimebundle",
]


def show_run(run: SteeredRun) -> None:
    """Draw a run where the current cell's output goes: live while it goes on, static when it is over."""
    from nbtune_widgets.panel import RunPanel

    RunPanel(run).show()


def run_mimebundle(run: RunView) -> dict[str, Any]:
    """The run as a cell's result."""
    return {"text/plain": run_text(run), "text/html": run_card_html(run)}


def comparison_mimebundle(comparison: ComparisonView) -> dict[str, Any]:
    """The comparison as a cell's result."""
    return {"text/plain": comparison_text(comparison), "text/html": comparison_html(comparison)}


def search_mimebundle(search: SearchView) -> dict[str, Any]:
    """What a prompt search found as a cell's result."""
    return {"text/plain": search_text([search]), "text/html": search_html([search])}


def task_mimebundle(task: TaskView, tokens: TokensView | None = None) -> dict[str, Any]:
    """The task's preview as a cell's result."""
    return {"text/plain": task_text(task, tokens), "text/html": task_html(task, tokens)}


def doctor_mimebundle(diagnosis: Diagnosis) -> dict[str, Any]:
    """What the data doctor found as a cell's result."""
    return {"text/plain": diagnosis_text(diagnosis), "text/html": diagnosis_html(diagnosis)}


def index_mimebundle(index: Index) -> dict[str, Any]:
    """An index as a cell's result."""
    return {"text/plain": index_text(index), "text/html": index_html(index)}


def passages_mimebundle(passages: Passages) -> dict[str, Any]:
    """What a search has found as a cell's result."""
    return {"text/plain": passages_text(passages), "text/html": passages_html(passages)}
