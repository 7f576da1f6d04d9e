"""The one error of the lab: a sentence for a person, and what to do next. `corral_lab.cli` prints it."""

from __future__ import annotations


class LabError(Exception):
    """Something that the lab needs is not there or did not work.

    `sentence` says what, with the names of the operation and the object; `next_step` says what to type or to look at.
    """

    def __init__(self, sentence: str, *, next_step: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = next_step
