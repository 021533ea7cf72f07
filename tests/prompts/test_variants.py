"""What becomes of what people and models write: templates that keep the task's columns, or a refusal."""

from __future__ import annotations

import pytest

from nbtune.prompts.variants import Frame, Unusable
from tests.examples import pair_task, ticket_task

OWN = "Which team?\nTicket: {{ text }}\nTeam:"
BODY = "Ticket: {{ text }}\nTeam:"


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Frame.of(ticket_task(prompt=OWN))


@pytest.mark.parametrize(
    ("written", "template"),
    [
        ("Name the team.", f"Name the team.\n{BODY}"),
        ('  "Name the team."\n', f"Name the team.\n{BODY}"),
        ("Instruction: Name the team.", f"Name the team.\n{BODY}"),
        ("**Improved prompt:** Name the team.", f"Name the team.\n{BODY}"),
        ("Sure! Here is a better one:\n\nName the team.", f"Name the team.\n{BODY}"),
        ("It is this.\n```\nName the team.\n```\nGood luck!", f"Name the team.\n{BODY}"),
        ("Who sees to {{ text }}?", "Who sees to {{ text }}?"),
        ("Who sees to {text}?", "Who sees to {{ text }}?"),
        ("Who sees to {{ text }?", "Who sees to {{ text }}?"),
        ("Who sees to {{text}}?", "Who sees to {{ text }}?"),
        ('The "team" is asked for, in "quotes"', f'The "team" is asked for, in "quotes"\n{BODY}'),
        ('Answer with {"a": 1}.', f'Answer with {{"a": 1}}.\n{BODY}'),
    ],
)
def test_an_instruction_is_put_before_the_tasks_layout_and_a_whole_template_stands_as_it_is(
    frame: Frame, written: str, template: str
) -> None:
    assert frame.variant(written, "round 1").source == template


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("``````", "not a template|empty"),
        ("Read {{ team }} and say it.", "reads other columns"),
        ("{% for a in text %}{% for b in text %}{{ text }}{% endfor %}{% endfor %}", "not a template"),
        ("{{ text.__class__ }}", "not a template"),
        ("{{ text | shout }}", "not a template"),
        ("again " * 1000, "too long"),
    ],
)
def test_what_no_row_could_be_asked_with_or_what_would_tell_the_answer_is_refused(frame: Frame, written: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        frame.variant(written, "round 1")


def test_a_column_that_is_left_out_is_put_back_with_its_line() -> None:
    frame = Frame.of(pair_task(prompt="Does it follow?\nFirst: {{ premise }}", text_pair="Second: {{ hypothesis }}\nAnswer:"))
    assert frame.fields == ("premise", "hypothesis")
    made = frame.variant("Given {{ premise }}", "round 1")
    assert made.source == "Given {{ premise }}\nSecond: {{ hypothesis }}\nAnswer:"
    assert set(frame.variant("Say yes or no about {{ hypothesis }}", "round 1").template.fields) == {"premise", "hypothesis"}
