"""Asks for the records of people in use again shortly before they are old: many people with one query.

Without it each person's next request would wait for PostgreSQL every `cache.near_ttl`, with a query of its own. Who was
not seen since is not asked for. What changed is not judged here: it is believed no more, and the person's next
request goes the long way, where a refusal has its place.
"""

from collections.abc import Callable, Sequence

from gateway.actors.beliefs import KnownCaller
from gateway.actors.standings import Moment
from provisioning.arrivals import Arrivals
from provisioning.records import Standing, Subject

AHEAD = 0.15
"""How long before they are old, in parts of their time; longer than a round lasts for any `near_ttl` above 4 s."""
ROUND_S = 0.5
PEOPLE = 500
"""How many one query asks for: a millisecond or two of the loop's time."""


class Renewal:
    """Remembers when which entries are due.

    Attributes:
        forgot_all_at: Entries kept before this count (`Proof.kept_at`) are believed no more, and asked about no more.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        monotonic: Callable[[], float],
        moment: Callable[[], Moment],
        remember: Callable[[Subject, Standing, Moment], float],
    ) -> None:
        """Nothing is due yet.

        Args:
            arrivals: Knows our records.
            monotonic: Seconds.
            moment: Notes when the records begin to be asked.
            remember: Takes what was read of a person and when; gives until when that is believed.
        """
        self._arrivals = arrivals
        self._monotonic = monotonic
        self._moment = moment
        self._remember = remember
        self._due: dict[int, list[KnownCaller]] = {}
        self.forgot_all_at = 0

    def plan(self, known: KnownCaller) -> None:
        """Look at an entry again before it is old; then alone, also if it was planned for another moment before."""
        now = self._monotonic()
        if known.believed_until < known.proven_until:  # else it ends with its token
            at = known.believed_until - AHEAD * (known.believed_until - now)
            known.due = int(at / ROUND_S)
            self._due.setdefault(known.due, []).append(known)

    async def renew(self) -> int:
        """Ask for all who are due and in use; due every ROUND_S. Gives how many entries are believed for longer.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now; what was due is left to grow old.
        """
        people: dict[Subject, list[KnownCaller]] = {}
        for known in self._take_due():
            people.setdefault(known.subject, []).append(known)
        subjects, renewed = list(people), 0
        for start in range(0, len(subjects), PEOPLE):
            asked = subjects[start : start + PEOPLE]
            began = self._moment()
            standings = await self._arrivals.standings(asked)
            for subject, standing in zip(asked, standings, strict=True):
                renewed += self._settle(subject, people[subject], standing, began)
        return renewed

    def _take_due(self) -> Sequence[KnownCaller]:
        now = self._monotonic()
        rounds = [at for at in self._due if at <= now / ROUND_S]
        due = [known for at in rounds for known in self._due.pop(at) if known.due == at]
        return [
            known for known in due if known.used and now < known.believed_until and known.kept_at >= self.forgot_all_at
        ]

    def _settle(
        self, subject: Subject, entries: Sequence[KnownCaller], standing: Standing | None, began: Moment
    ) -> int:
        """Believe entries for longer, or no more; gives how many for longer."""
        until = self._remember(subject, standing, began) if standing is not None else 0.0
        renewed = 0
        for known in entries:
            if not known.believed_until or known.kept_at < self.forgot_all_at:
                continue  # forgotten while we asked: what was read may be older than the reason
            if known.caller.standing != standing:
                known.believed_until = 0.0
                continue
            known.believed_until = min(until, known.proven_until)
            known.used = False
            self.plan(known)
            renewed += 1
        return renewed
