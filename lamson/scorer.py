"""What judges messages: the interface of every scorer, and the verdict that it gives.

A scorer is asked by `lamson.spam` before a handler runs. It looks at a message, changes nothing, and answers with a `Verdict`: ham, unsure
or spam, its score, and the reasons in words. One that cannot answer raises `ScorerError`. It knows nothing of queues, of states or of what
becomes of the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lamson.mail import MailRequest

Label = Literal["ham", "unsure", "spam"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scorer says of a message. True where it is spam: `if verdict: ...`.

    `score`: on the scorer's own scale, spam being high. `reasons`: in words, the strongest first. `scorer`: who says so.
    """

    label: Label
    score: float
    reasons: tuple[str, ...] = ()
    scorer: str = ""

    def __bool__(self) -> bool:
        return self.label == "spam"

    def __str__(self) -> str:
        """In one line, as a queue keeps it."""
        why = f": {', '.join(self.reasons)}" if self.reasons else ""
        return f"{self.label}, {self.score:.3f} by {self.scorer}{why}"


class Scorer:
    """The interface. A scorer of one's own has these methods."""

    #: How it is called in verdicts.
    name = "scorer"

    def score(self, message: MailRequest) -> Verdict:
        """Judges the message and changes nothing. Raises `ScorerError` when there is no answer."""
        raise NotImplementedError

    def learn(self, message: MailRequest, spam: bool) -> bool:
        """Takes the message as an example of spam, or of ham. False when it was that already. `TypeError`: it is taught elsewhere."""
        raise TypeError(f"{self.name} does not learn from Lamson: train it with its own tools.")

    def unlearn(self, message: MailRequest, spam: bool) -> bool:
        """Takes that back. False when it had not been learnt so."""
        raise TypeError(f"{self.name} does not learn from Lamson: train it with its own tools.")

    def close(self) -> None:
        """Lets go of what it keeps open; it may be used again."""
