"""Several approaches as one: the answer that most of them give, or the label that is likeliest by their mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.approaches.base import Answers, Approach, Cost, further, silent
from nbtune.errors import ComparisonError, SpecError
from nbtune.spec import Spec, option
from nbtune.training.evaluation import best_label

if TYPE_CHECKING:
    from nbtune.approaches.base import Asking, Progress, Setting, Sort
    from nbtune.task import Task

__all__ = ["KIND", "Ensemble", "EnsembleSpec"]


class EnsembleSpec(Spec):
    """Whose answers, and how they become one."""

    what: ClassVar[str] = "ensemble option"

    of: Any = option(..., "list of approaches, as in a comparison")
    by: Literal["vote", "mean"] = option(
        "vote", "the answer that most give, of as many the first one's; or the label of the highest mean probability"
    )


@dataclass(frozen=True, repr=False)
class _Together(Approach):
    """Asks each member in turn."""

    members: tuple[Approach, ...]
    by: str

    @property
    def parts(self) -> tuple[Approach, ...]:
        """Its members' parts."""
        return tuple(part for member in self.members for part in member.parts)

    def shown(self, prompts: Sequence[str]) -> frozenset[str]:
        """What any member shows."""
        return frozenset().union(*(member.shown(prompts) for member in self.members))

    @property
    def kind(self) -> Sort:
        """Tuned where a member is."""
        kinds = {member.kind for member in self.members}
        return "tuned" if "tuned" in kinds else "prompting" if "prompting" in kinds else "other"

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """As `Approach.answer`.

        Raises:
            ComparisonError: a mean is wanted, and a member gives no probabilities.
        """
        found = []
        for number, member in enumerate(self.members):
            found.append(member.answer(prompts, asking, progress=further(progress, number, len(self.members), len(prompts))))
        outputs, scores = self._voted(found) if self.by == "vote" else self._mean(found)
        tokens = tuple(sum(row) for row in zip(*(each.prompt_tokens for each in found), strict=True))
        notes = tuple(note for each in found for note in each.notes)
        return Answers(tuple(outputs), sum(each.seconds for each in found), tokens, scores, notes=notes)

    def _voted(self, found: Sequence[Answers]) -> tuple[list[str], None]:
        outputs = []
        for row in zip(*(each.outputs for each in found), strict=True):
            votes = Counter(row)
            outputs.append(max(votes, key=votes.__getitem__))
        return outputs, None

    def _mean(self, found: Sequence[Answers]) -> tuple[list[str], tuple[tuple[float, ...], ...]]:
        import numpy as np
        from scipy.special import log_softmax, logsumexp

        for member, each in zip(self.members, found, strict=True):
            if each.label_scores is None:
                message = f"{self.label}: {member.label} gives answers without probabilities, of which there is no mean"
                raise ComparisonError(message, hint="use by: vote, or members whose labels are scored")
        known = log_softmax(np.asarray([one.label_scores for one in found], dtype=float), axis=2)  # [members, rows, labels]
        mean = logsumexp(known, axis=0) - np.log(len(found))
        scores = tuple(tuple(map(float, row)) for row in mean)
        return [self.task.labels[best_label(row)] for row in scores], scores


class Ensemble:
    """See the module's text."""

    name: ClassVar[str] = "ensemble"
    summary: ClassVar[str] = "several approaches as one, by vote or by their mean probability"
    spec: ClassVar[type[Spec]] = EnsembleSpec
    asks_base: ClassVar[bool] = False

    def called(self, options: EnsembleSpec) -> str:
        """By its members."""
        from nbtune.approaches import label_of, wanted

        names = [label_of(*wanted(entry)) for entry in _members(options)]
        return f"ensemble ({options.by}): {' + '.join(names)}"

    def make(self, task: Task, options: EnsembleSpec, setting: Setting, label: str) -> Approach:
        """All members, their models loaded.

        Raises:
            SpecError: fewer than two members, or a mean where there are no labels; or as a member's kind.
        """
        from nbtune.approaches import approach_of

        entries = _members(options)
        if options.by == "mean" and task.kind != "classification":
            message = f"ensemble by mean averages probabilities of labels, and task {task.name!r} is of kind {task.kind}"
            raise SpecError(message, hint="use by: vote")
        members = tuple(approach_of(entry, task, setting) for entry in entries)
        notes = tuple(note for member in members for note in member.notes)
        warnings = tuple(warning for member in members for warning in member.warnings)
        cost = Cost.sum([member.cost for member in members])
        return _Together(label, task, members, options.by, cost=cost, notes=notes, warnings=warnings)


def _members(options: EnsembleSpec) -> list[Any]:
    if not isinstance(options.of, list | tuple) or len(options.of) < 2:  # noqa: PLR2004
        raise SpecError(f"ensemble: of is a list of two approaches or more, not {options.of!r:.60}", hint="of: [zero-shot, run: NAME]")
    return list(options.of)


KIND: Final = Ensemble()
