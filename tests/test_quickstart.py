"""The quickstart, executed on the real model: it ends well, fine-tuning beats prompting there, and what is kept needs no kernel."""

import nbformat
import pytest

pytestmark = [pytest.mark.real_model, pytest.mark.kernel, pytest.mark.timeout(1800)]


def test_it_ends_well_and_prints_its_grids(quickstart):
    assert quickstart.returncode == 0, quickstart.printed
    for said in ("run: tickets_lora", "run: dates_lora", "zero-shot", str(quickstart.page)):
        assert said in quickstart.printed


def test_fine_tuning_beats_the_best_prompting_on_tickets_by_an_interval_that_excludes_zero(quickstart):
    assert quickstart.returncode == 0, quickstart.printed
    rows = {row["approach"]: row for row in quickstart.grids["tickets"]}
    tuned = rows.pop("run: tickets_lora")
    assert len(rows) >= 2
    assert tuned["versus"] in rows
    assert tuned["difference_low"] > 0


def test_fine_tuning_beats_zero_shot_on_dates(quickstart):
    assert quickstart.returncode == 0, quickstart.printed
    rows = {row["approach"]: row for row in quickstart.grids["dates"]}
    assert rows["run: dates_lora"]["ci_low"] > rows["zero-shot"]["exact_match"]


@pytest.mark.parametrize("task", ["tickets", "dates"])
def test_all_columns_answer_the_same_rows_and_only_the_run_and_the_classifier_over_words_have_trained(quickstart, task):
    assert quickstart.returncode == 0, quickstart.printed
    rows = quickstart.grids[task]
    assert len({row["rows"] for row in rows}) == 1
    assert {row["approach"]: row["trainable_parameters"] > 0 for row in rows} == {
        row["approach"]: row["approach"].startswith(("run: ", "floor: tf-idf")) for row in rows
    }


def test_no_cell_wrote_to_the_error_stream(quickstart):
    executed = nbformat.read(quickstart.notebook, as_version=4)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []


def test_the_saved_notebook_is_small_and_holds_no_script_and_no_live_widget(quickstart):
    assert quickstart.notebook.stat().st_size < 1_000_000
    executed = nbformat.read(quickstart.notebook, as_version=4)
    shown = [output.data for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output]
    assert any("<svg" in data.get("text/html", "") for data in shown)
    for data in shown:
        assert "text/plain" in data
        assert "application/vnd.jupyter.widget-view+json" not in data
        assert "<script" not in data.get("text/html", "").lower()
