"""The live panel: never in the way of training, whole after a gap or a reload, and static at the end; in a real kernel, too."""

import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from nbtune import events as ev
from nbtune_widgets import RunPanel
from nbtune_widgets._live import POINTS, LivePanel
from nbtune_widgets.progress import Progress
from tests.widgets.fake_run import FakeRun, plausible_events

ROOT = Path(__file__).parents[2]
WIDGET = "application/vnd.jupyter.widget-view+json"


class Recorded:
    """A live panel over a progress, and what it sent."""

    def __init__(self):
        self.progress = Progress()
        self.asked = []
        self.panel = LivePanel(self.progress, {"name": "x"}, on_control=lambda *asked: self.asked.append(asked), on_ready=lambda: None)
        self.sent = []
        self.panel.send = lambda content, buffers=None: self.sent.append((content, buffers))

    def tell(self, first, last):
        for step in range(first, last):
            self.progress.add(step_of(step))
        self.panel.publish()


def step_of(step: int) -> ev.Step:
    figures = {"grad_norm": 1.0, "num_tokens": step, "seconds": step, "tokens_per_second": 1.0, "memory_bytes": 1}
    return ev.Step(step=step, epoch=0.1, loss=1 / (step + 1), learning_rate=1e-3, **figures)


def losses(packed: bytes) -> tuple[int, list[float]]:
    """(seq, the steps of the loss curve)."""
    numbers = struct.unpack(f"<{len(packed) // 8}d", packed)
    return int(numbers[0]), list(numbers[5 : 5 + int(numbers[1])])


def test_each_message_holds_only_the_new_points_and_the_next_number():
    recorded = Recorded()
    recorded.tell(1, 4)
    recorded.tell(4, 6)
    recorded.tell(6, 6)
    assert [content["type"] for content, _ in recorded.sent] == ["append", "append"]
    assert [losses(buffers[0]) for _, buffers in recorded.sent] == [(1, [1, 2, 3]), (2, [4, 5])]
    assert recorded.panel.state["seq"] == 2


def test_a_front_end_that_missed_something_gets_all_points_with_the_number_they_stand_for():
    recorded = Recorded()
    recorded.tell(1, 4)
    recorded.progress.add(step_of(4))  # folded, not sent yet: it comes with the next message, not twice
    recorded.panel._message(None, {"type": "snapshot"}, [])
    content, buffers = recorded.sent[-1]
    assert content["type"] == "snapshot"
    assert losses(buffers[0]) == (1, [1, 2, 3])


def test_a_reloaded_page_asks_for_the_state_and_gets_the_curves_as_they_are():
    recorded = Recorded()
    recorded.tell(1, 10)
    assert losses(recorded.panel.get_state()["history"]) == (1, list(range(1, 10)))


def test_a_snapshot_of_a_long_run_is_thinned():
    recorded = Recorded()
    recorded.tell(1, 9 * POINTS)
    _, steps = losses(recorded.panel.get_state()["history"])
    assert POINTS // 2 < len(steps) <= POINTS
    assert (steps[0], steps[-1]) == (1, 9 * POINTS - 1)


def test_a_run_that_goes_back_to_a_checkpoint_sends_its_curves_anew():
    recorded = Recorded()
    recorded.tell(1, 10)
    recorded.tell(5, 7)
    content, buffers = recorded.sent[-1]
    assert content["type"] == "snapshot"
    assert losses(buffers[0]) == (2, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("action", ["stop", "pause", "resume", "evaluate", "sample", "checkpoint"])
def test_each_button_of_the_front_end_reaches_the_run(action):
    recorded = Recorded()
    recorded.panel._message(None, {"type": action}, [])
    assert recorded.asked == [(action, None)]


@pytest.mark.parametrize("content", [None, "stop", [], {}, {"type": "dance"}, {"type": ["stop"]}, {"type": None}, {"type": "__class__"}])
def test_noise_from_the_page_asks_nothing_of_the_run(content):
    recorded = Recorded()
    recorded.panel._message(None, content, [])
    assert recorded.asked == []


@pytest.mark.parametrize("value", [None, "1e-4", True, float("nan"), float("inf"), 10**400, [1e-4], {}])
def test_a_learning_rate_that_is_no_finite_number_never_reaches_the_run_as_one(value):
    recorded = Recorded()
    recorded.panel._message(None, {"type": "set", "learning_rate": value}, [])
    recorded.panel._message(None, {"type": "set", "learning_rate": 1e-4}, [])
    assert recorded.asked == [("set", None), ("set", 1e-4)]


def test_what_is_not_finite_is_never_sent_as_json():
    recorded = Recorded()
    recorded.progress.add(ev.Step(**{**vars(step_of(1)), "loss": float("nan"), "grad_norm": float("inf")}))
    recorded.panel.publish()
    assert recorded.panel.state["loss"] is None


def test_the_time_left_leaves_out_the_first_step_which_warms_up():
    progress = Progress()
    events = [event for event in plausible_events(100) if event.type in {"started", "step"}]
    for event in events[:11]:
        late = ev.Step(**{**vars(event), "seconds": event.seconds + 30}) if isinstance(event, ev.Step) else event
        progress.add(late)
    assert progress.seconds_left == pytest.approx(90 * 0.8)


def test_without_a_notebook_the_panel_is_silent_and_costs_nothing(capsys):
    run = FakeRun(list(plausible_events(5)))
    panel = RunPanel(run)
    panel.show()
    panel.close()
    assert run.listeners == 0
    assert capsys.readouterr() == ("", "")


def test_importing_the_package_imports_no_front_end():
    code = "import sys, nbtune_widgets, nbtune_widgets.views; print([m for m in ('ipywidgets','anywidget','plotly','pandas','IPython','torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"


class Kernel:
    """A real kernel, with what it published."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
        self.messages = []
        self.lock = threading.Lock()

    def run(self, code, wait=0.0):
        """Execute `code`, then listen for `wait` seconds more."""
        reply = self.client.execute_interactive(code, output_hook=self.messages.append, timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        self.listen(wait)

    def listen(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self.messages.append(self.client.get_iopub_msg(timeout=left))
            except Exception:  # noqa: BLE001  queue.Empty, from whichever queue jupyter_client has
                return

    def of(self, kind):
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    def comm(self, **content):
        """Send what the front end of the last panel would."""
        (panel,) = [found for found in self.of("comm_open") if "samples" in found["data"]["state"]][-1:]
        data = {"method": "custom", "content": content}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", {"comm_id": panel["comm_id"], "data": data}))


@pytest.fixture(scope="module")
def kernel():
    made = Kernel()
    made.run("from nbtune_widgets import RunPanel\nfrom tests.widgets.fake_run import FakeRun, plausible_events")
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)


@pytest.fixture
def fresh(kernel):
    kernel.messages.clear()
    return kernel


START = "run = FakeRun(); panel = RunPanel(run); panel.show(); run.start(plausible_events({steps}), pace={pace})"


@pytest.mark.kernel
def test_a_finished_run_leaves_static_content_in_the_panels_place(fresh):
    fresh.run(START.format(steps=60, pace=0.02), wait=0.1)
    fresh.comm(type="ready")
    fresh.listen(3)
    (shown,) = fresh.of("display_data")
    assert {WIDGET, "text/html", "text/plain"} <= set(shown["data"])
    assert "starting" in shown["data"]["text/plain"]
    (final,) = fresh.of("update_display_data")
    assert WIDGET not in final["data"]
    assert "finished" in final["data"]["text/plain"]
    assert "<svg" in final["data"]["text/html"]
    assert final["transient"]["display_id"] == shown["transient"]["display_id"]
    fresh.run("print(run.listeners)")
    assert fresh.of("stream")[-1]["text"] == "0\n"


@pytest.mark.kernel
def test_a_thousand_events_a_second_become_at_most_a_few_messages_a_second(fresh):
    fresh.run(START.format(steps=2000, pace=0.0005), wait=0.1)
    fresh.comm(type="ready")
    fresh.listen(6)
    times = [message["header"]["date"] for message in fresh.messages if message["msg_type"] == "comm_msg"]
    span = (times[-1] - times[0]).total_seconds()
    assert "2,000 of 2,000" in fresh.of("update_display_data")[-1]["data"]["text/html"]
    assert len(times) <= 3 * (span / 0.2 + 3)


@pytest.mark.kernel
def test_stop_pressed_in_the_front_end_stops_the_run_at_its_next_step(fresh):
    fresh.run(START.format(steps=5000, pace=0.6), wait=0.8)
    fresh.comm(type="ready")
    fresh.comm(type="stop")
    fresh.listen(2)
    states = [found["data"]["state"]["state"]["status"] for found in fresh.of("comm_msg") if "state" in found["data"].get("state", {})]
    assert "stopping" in states
    assert states[-1] == "stopped"
    assert "stopped" in fresh.of("update_display_data")[-1]["data"]["text/plain"]


def states(kernel):
    """The states that the panel published, in order."""
    return [found["data"]["state"]["state"] for found in kernel.of("comm_msg") if "state" in found["data"].get("state", {})]


@pytest.mark.kernel
def test_pause_stands_still_between_two_steps_until_resume(fresh):
    fresh.run(START.format(steps=5000, pace=0.3), wait=1)
    fresh.comm(type="ready")
    fresh.comm(type="pause")
    fresh.listen(1.5)
    assert any(state["asked"] == ["pause"] for state in states(fresh))
    paused = states(fresh)[-1]
    assert (paused["status"], paused["asked"], paused["controls"]) == ("paused", [], {"pause": 1})
    fresh.comm(type="resume")
    fresh.listen(1.5)
    assert states(fresh)[-1]["status"] == "running"
    assert states(fresh)[-1]["step"] > paused["step"]
    fresh.run("run.stop(); run.wait(); panel.close()")


@pytest.mark.kernel
def test_a_learning_rate_from_the_page_is_the_next_steps_and_a_bad_one_is_answered_with_the_errors_two_lines(fresh):
    fresh.run(START.format(steps=5000, pace=0.1), wait=0.5)
    fresh.comm(type="ready")
    fresh.comm(type="set", learning_rate=0.00025)
    fresh.listen(1)
    step = int(states(fresh)[-1]["answer"]["text"].removeprefix("learning_rate = 2.5e-4 after step "))
    fresh.comm(type="set", learning_rate=7)
    fresh.listen(0.5)
    refused = states(fresh)[-1]
    assert refused["answer"]["level"] == "error"
    assert "at most 1, not 7" in refused["answer"]["text"]
    assert refused["answer"]["hint"] == "peak learning rate"
    fresh.comm(type="set", learning_rate="much")
    fresh.listen(0.5)
    assert states(fresh)[-1]["answer"]["text"] == "the learning rate must be a number"
    assert (states(fresh)[-1]["refused"], states(fresh)[-1]["asked"]) == (2, [])
    fresh.run(
        f"run.stop(); run.wait(); panel.close(); print([e.learning_rate == 2.5e-4 for e in run.events() if e.type == 'step'][{step - 1}:{step + 1}])"
    )
    assert fresh.of("stream")[-1]["text"] == "[False, True]\n"


@pytest.mark.kernel
def test_a_control_that_breaks_is_told_in_the_panel_and_the_kernel_goes_on(fresh):
    fresh.run(START.format(steps=5000, pace=0.1) + "\ndef broken(): raise OSError('no space left')\nrun.evaluate = broken", wait=0.5)
    fresh.comm(type="ready")
    fresh.comm(type="evaluate")
    fresh.listen(0.8)
    assert states(fresh)[-1]["answer"]["text"] == "OSError: no space left"
    assert states(fresh)[-1]["asked"] == []
    fresh.run("run.stop(); run.wait(); panel.close()")


@pytest.mark.kernel
def test_where_no_widget_comes_up_html_progress_takes_its_place_and_gives_way_again(fresh):
    fresh.run(START.format(steps=5000, pace=0.05), wait=5.5)
    updates = fresh.of("update_display_data")
    assert 1 <= len(updates) <= 4
    assert all(WIDGET not in update["data"] and "running" in update["data"]["text/html"] for update in updates)
    fresh.comm(type="ready")
    fresh.listen(1)
    assert WIDGET in fresh.of("update_display_data")[-1]["data"]
    fresh.run("run.stop(); run.wait(); panel.close(); panel.close()", wait=0.5)
    assert "stopped" in fresh.of("update_display_data")[-1]["data"]["text/plain"]


@pytest.mark.kernel
def test_a_run_that_is_over_is_shown_static_at_once(fresh):
    fresh.run("RunPanel(FakeRun(list(plausible_events(30)))).show()")
    (shown,) = fresh.of("display_data")
    assert set(shown["data"]) == {"text/html", "text/plain"}
    assert not fresh.of("comm_open")


@pytest.mark.kernel
def test_a_panel_opened_late_has_what_was_before_and_a_run_of_another_process_is_followed_from_its_events(fresh):
    code = """
    run = FakeRun(); run.start(plausible_events(5000), pace=0.01)
    import time; time.sleep(0.5)
    run.listen = lambda callback: (lambda: None)
    panel = RunPanel(run); panel.show(); print(panel._progress.steps_done)
    """
    fresh.run("\n".join(line.strip() for line in code.splitlines()), wait=3)
    (opened,) = [found["data"]["state"] for found in fresh.of("comm_open") if "samples" in found["data"]["state"]]
    assert opened["state"]["step"] >= 20
    steps = [found["data"]["state"]["state"]["step"] for found in fresh.of("comm_msg") if "state" in found["data"].get("state", {})]
    assert steps[-1] > opened["state"]["step"]
    fresh.run("run.stop(); run.wait(); panel.close()")


@pytest.mark.kernel
def test_the_first_panel_is_drawn_by_what_is_quick_to_import():
    first = Kernel()
    try:
        first.run("from tests.widgets.fake_run import FakeRun; import nbtune_widgets, sys; nbtune_widgets.RunPanel(FakeRun()).show()")
        assert WIDGET in first.of("display_data")[-1]["data"]
        first.run("print([name for name in ('torch', 'transformers', 'pandas', 'plotly', 'scipy', 'sklearn') if name in sys.modules])")
        assert first.of("stream")[-1]["text"].strip() == "[]"
    finally:
        first.client.stop_channels()
        first.manager.shutdown_kernel(now=True)
