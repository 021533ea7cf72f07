"""Templates read columns and nothing else, and never turn data into template."""

from __future__ import annotations

import pytest

from nbtune.data import Template
from nbtune.errors import DataError


def test_columns_are_found_in_order_without_what_loops_bind():
    template = Template("{{ b }}{% if a %}{% for c in d %}{{ c }}{{ loop.index }}{{ e }}{% endfor %}{% endif %}{{ b }}")
    assert template.fields == ("b", "a", "d", "e")


@pytest.mark.parametrize(
    ("source", "row", "text"),
    [
        ("{{ a }}\n", {"a": "x"}, "x\n"),
        ("{{ a }} {{ b }} {{ c }}", {"a": 1, "b": 2.50, "c": True}, "1 2.5 True"),
        ("{{ a }}", {"a": "{{ b }}{% raise %}{# #}"}, "{{ b }}{% raise %}{# #}"),
        ("{{ a }}", {"a": "<b> & \"c\" 'd'"}, "<b> & \"c\" 'd'"),
        ("{{ a ~ b|tojson }}", {"a": "<", "b": {"é": "<&>"}}, '<{"é": "<&>"}'),
        ("{{ a|upper|truncate(5) }}", {"a": "abcdefghijkl"}, "AB..."),
        ("{% for x in a %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}", {"a": ["p", "q"]}, "p, q"),
        ("{{ Ticket_text }}", {"Ticket text": "x"}, "x"),
        ("{{ range }}{{ dict }}{{ loop }}{{ class }}", {"range": 1, "dict": 2, "loop": 3, "class": 4}, "1234"),
        ("{% raw %}{{ a }}{% endraw %}{{ b }}", {"b": 1}, "{{ a }}1"),
    ],
)
def test_a_row_fills_a_template(source, row, text):
    assert Template(source).render(row) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% if a %}{{ a }}{% else %}none{% endif %}", "none"),
        ("{{ a|default('?') }}", "?"),
        ("{{ 'no' if a is none else a }}", "no"),
        ("x", "x"),
    ],
)
def test_a_template_may_provide_for_a_missing_value(source, text):
    assert Template(source).render({"a": None}) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}",
        "{{ a|upper }}",
        "{{ a ~ 'x' }}",
        "{{ a|tojson }}",
        "{% for x in a %}{{ x }}{% endfor %}",
        "{{ a == 'x' }}",
        "{{ a|length }}",
    ],
)
def test_a_missing_value_is_never_written_as_a_word(source):
    with pytest.raises(DataError, match="no value in column 'a'"):
        Template(source).render({"a": None})


def test_a_none_inside_a_list_is_refused():
    with pytest.raises(DataError, match="None"):
        Template("{% for x in a %}{{ x }}{% endfor %}").render({"a": ["x", None]})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ x.__class__ }}", "reads an attribute"),
        ("{{ x.y }}", "reads an attribute"),
        ("{{ ''.__class__ }}", "reads an attribute"),
        ("{{ loop.index }}", "reads an attribute"),
        ("{% for a in b %}{{ loop.changed }}{% endfor %}", "reads an attribute"),
        ("{{ x['a'] }}", "reads an item"),
        ("{{ x[:3] }}", "reads an item"),
        ("{{ f() }}", "calls a function"),
        ("{{ '{}'.format(x) }}", "calls a function"),
        ("{{ x|join(',', 'name') }}", "attribute through the filter 'join'"),
        ("{{ x|sort(attribute='name') }}", "attribute through the filter 'sort'"),
        ("{{ x|join(*y) }}", "attribute through the filter 'join'"),
        ("{{ x|attr('a') }}", "no filter 'attr'"),
        ("{{ x|random }}", "no filter 'random'"),
        ("{{ x|map('upper') }}", "no filter 'map'"),
        ("{% include 'a' %}", "includes a file"),
        ("{% import 'a' as b %}", "imports a file"),
        ("{% from 'a' import b %}", "imports a file"),
        ("{% extends 'a' %}", "extends a file"),
        ("{% macro a() %}{% endmacro %}", "defines a macro"),
        ("{% set a = 1 %}", "sets a variable"),
        ("{% block a %}{% endblock %}", "'block'"),
        ("{{ 9 ** 9 }}", "'pow'"),
        ("{{ 'a' * 9 }}", "'mul'"),
        ("{{ self }}", "'self' is a word of the template language"),
    ],
)
def test_whatever_is_no_column_if_for_filter_or_literal_is_refused(source, message):
    with pytest.raises(DataError, match=message) as caught:
        Template("first line\n" + source)
    assert caught.value.message.startswith("line 2 of the template")


@pytest.mark.parametrize("source", ["{{ text }", "{{ }}", "{% if a %}x", "{# a", "{% nonsense %}", "{{ text"])
def test_a_syntax_error_names_its_line(source):
    with pytest.raises(DataError, match="line 3 of the template"):
        Template("a\nb\n" + source)


def test_a_column_name_with_a_space_gets_its_mend():
    with pytest.raises(DataError, match="line 1") as caught:
        Template("{{ Ticket text }}")
    assert "Ticket_text" in caught.value.hint


def test_an_unknown_filter_gets_its_mend():
    with pytest.raises(DataError, match="no filter 'uper'") as caught:
        Template("{{ a|uper }}")
    assert caught.value.hint == "did you mean 'upper'?"


def test_a_missing_column_names_those_there_are():
    with pytest.raises(DataError, match="the template reads column 'txt', the data has: text, team") as caught:
        Template("{{ txt }}").render({"text": "a", "team": "b"})
    assert caught.value.hint == "did you mean 'text'?"


def test_a_value_that_does_not_fit_is_an_error_of_the_data():
    with pytest.raises(DataError, match="cannot be filled"):
        Template("{{ a + 1 }}").render({"a": "x"})
