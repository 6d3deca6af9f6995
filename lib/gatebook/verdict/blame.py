"""Whose fault a request without a usable reply is (DESIGN §6), and what broke with it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from operator import itemgetter

from gatebook.checks.evidence import epoch_ms
from gatebook.checks.finding import Result, Stage
from gatebook.config.profile import Profile
from gatebook.engines import credentials_refused
from gatebook.engines.fronts import said_by
from gatebook.record.exchange import ELSEWHERE, GONE, Exchange
from gatebook.record.identity import Identity
from gatebook.record.replies import is_good

MOMENT_MS = 1_000
"""Requests that break within it broke together: the API server of a vLLM whose engine is dead exits within a second."""
GONE_MS = 10_000
"""How soon after a break a refused connection tells that the server went with it: past the pauses between the tries."""


class Blame:
    """What a notebook's record, and those before it, say of the requests that got no usable reply."""

    def __init__(
        self, profile: Profile, identity: Identity, earlier: list[Exchange], exchanges: list[Exchange]
    ) -> None:
        self._profile, self._identity = profile, identity
        self._earlier, self._exchanges = earlier, exchanges
        self._order = {e.key: number for number, e in enumerate(exchanges)}
        first = next((number for number, e in enumerate(exchanges) if is_good(e)), len(exchanges))
        self._first_good = -1 if any(is_good(e) for e in earlier) else first
        self.stops = [e.detail for e in exchanges if e.kind == "stop"]

    def of(self, exchange: Exchange) -> Result:
        """Return the first reason that holds; without any it is the deployment's fault."""
        reasons = (self._not_served, self._key_refused, self._never_answered, self._cut_short)
        return next((said for reason in reasons if (said := reason(exchange))), None) or self._failed(exchange)

    def unasked(self, lost: str = "") -> Result:
        """Return why the rest of the notebook was not asked: what stopped it, else an error that says `lost`."""
        if not self.stops:
            return Result("error", lost)
        gone = self.stops[-1].startswith(GONE)
        said = self._in_flight(self._last_crash) if gone else ""
        return Result("not_measured", f"{self.stops[-1]}{said}", stage=Stage.GONE if gone else None)

    def went_with(self, exchange: Exchange) -> bool:
        """Return whether nobody was listening any more when this request broke, or soon after."""
        if exchange.fault == "connect" or (exchange.kind == "ready" and exchange.fault == "no_byte"):
            return True
        broke = _break(exchange)
        return broke is not None and any(-MOMENT_MS <= at - broke[1] <= GONE_MS for at in self._refused)

    @cached_property
    def _refused(self) -> list[float]:
        """When connections of this notebook were refused, in ms of the clock."""
        return [
            epoch_ms(a.at)
            for e in self._exchanges
            for a in (e.attempts if e.kind not in ELSEWHERE else [])
            if a.fault == "connect" or (a.fault == "no_byte" and (e.kind == "ready" or e.ask == "still-there"))
        ]

    def _not_served(self, exchange: Exchange) -> Result | None:
        model, models = self._profile.target.model, self._identity.models
        if exchange.status != 404 or not (models or "model" in exchange.detail.lower()):
            return None
        unloaded = model in models and self._good_before(exchange) and model in exchange.detail
        if model in models and not unloaded:
            return None
        told = f"; served: {', '.join(models)}" if models and not unloaded else f": {exchange.detail}"
        word = "not served any more" if self._good_before(exchange) else "not served"
        return Result("fail", f"model {model!r} is {word}{told}", stage=Stage.NOT_SERVED)

    def _key_refused(self, exchange: Exchange) -> Result | None:
        if not credentials_refused(exchange.status, exchange.detail):
            return None
        variable = self._profile.target.api_key_env or "OPENAI_API_KEY"
        said = f"the key was refused ({exchange.detail}); check the variable {variable}"
        if self._good_before(exchange):
            return Result("fail", said, stage=Stage.REFUSED)
        return Result("error", said, stage=Stage.UNREACHABLE)

    def _never_answered(self, exchange: Exchange) -> Result | None:
        if self._good_before(exchange):
            return None
        detail, model = self._detail(exchange), self._profile.target.model
        again = [e for e in (*self._earlier, *self._exchanges) if e.kind == "ready" and e.status == exchange.status]
        refused = exchange.kind == "ready" and exchange.refused_for_good and len(again) > 1
        if refused and model in self._identity.models:
            said = f"{detail}; the server refused a plain chat twice so, though it lists {model!r} and took the key"
            return Result("fail", said, stage=Stage.REFUSED)
        said = f"{detail}; the server has not given one good answer in this run"
        return Result("error", said, stage=Stage.UNREACHABLE)

    def _cut_short(self, exchange: Exchange) -> Result | None:
        limit_s = self._profile.limits.request_deadline_s
        if exchange.fault != "deadline" or exchange.had(limit_s):
            return None
        before = next((e.detail for e in reversed(self._earlier) if e.kind == "stop"), None)
        tried = before and exchange.kind == "ready"
        why = f"one short try, because {before}" if tried else "our own deadline cut it short"
        return Result("not_measured", f"{self._detail(exchange)}, and a request may take {limit_s:g} s: {why}")

    def _failed(self, exchange: Exchange) -> Result:
        detail, fault = self._detail(exchange), "the server had answered before, so this is the deployment's fault"
        opening = exchange.kind == "ready"
        if self.went_with(exchange):
            back = not opening and not any(said.startswith(GONE) for said in self.stops)
            word = "the server was gone for a while" if back else GONE
            open_ = self._in_flight(self._last_crash if opening else exchange)
            return Result("fail", f"{word}: {detail}{open_}; {fault}", stage=Stage.GONE)
        others = [name for name in self._company(exchange) if name != exchange.case]
        beside = others and exchange.fault in ("no_byte", "broken")
        told = f" (in flight with it: {', '.join(others[:5])})" if beside else ""
        return Result("fail", f"{detail}; {fault}{told}", stage=self._stage(exchange))

    def _stage(self, exchange: Exchange) -> Stage:
        """Return what the request explains: it was refused, broke off alone, or everything after it broke too."""
        status = exchange.status or 0
        lives = self._last_good > self._order[exchange.key]
        if 400 <= status < 500 or (status >= 500 and (lives or not self.stops)):
            return Stage.REFUSED
        if lives and exchange.fault == "deadline":
            return Stage.BEHAVIOUR  # an answer without an end, as other sampling makes one
        return Stage.ENVELOPE if lives else Stage.GONE

    def _detail(self, exchange: Exchange) -> str:
        alive = exchange.fault == "deadline" and self._identity.health == 200
        front = said_by(exchange.headers, exchange.text) if exchange.fault == "status" else None
        told = f" (said by {front}, not by the server behind it)" if front else ""
        return exchange.detail + told + (", though /health says 200" if alive else "")

    def _good_before(self, exchange: Exchange) -> bool:
        return self._first_good < self._order[exchange.key]

    def _company(self, exchange: Exchange) -> list[str]:
        """Return the cases whose requests were open when this one broke and broke with it, its own included."""
        if (own := _break(exchange)) is None:
            return []
        broke = itemgetter(0)
        begin = bisect_left(self._broken, own[1] - MOMENT_MS, key=broke)
        near = self._broken[begin : bisect_right(self._broken, own[1] + MOMENT_MS, key=broke)]
        first = near[0][0] if near else own[1]
        return list(dict.fromkeys(name for _, _, name, sent in sorted(near, key=itemgetter(1)) if sent <= first))

    @cached_property
    def _broken(self) -> list[tuple[float, int, str, float]]:
        """Requests of this and earlier notebooks that broke: (when, place in the record, case, when sent)."""
        kinds, told = ("ask", "canary", "parent"), (*self._earlier, *self._exchanges)
        asked = [e for e in told if e.kind in kinds and e.case is not None]
        return sorted((span[1], n, str(e.case), span[0]) for n, e in enumerate(asked) if (span := _break(e)))

    @cached_property
    def _last_good(self) -> int:
        """Index of the last good reply in this notebook's record; -1 where there is none."""
        return next((n for n in range(len(self._exchanges) - 1, -1, -1) if is_good(self._exchanges[n])), -1)

    def _in_flight(self, exchange: Exchange | None) -> str:
        names = self._company(exchange) if exchange else []
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"; in flight: {', '.join(names[:8])}{more}" if names else "; nothing was in flight"

    @cached_property
    def _last_crash(self) -> Exchange | None:
        """The last request of this notebook or an earlier one that broke, unless the server answered after it."""
        asked = [e for e in (*self._earlier, *self._exchanges) if e.kind in ("ask", "canary", "parent", "ready")]
        broken = [(e, span[1]) for e in asked if e.case is not None and (span := _break(e))]
        crash, broke = broken[-1] if broken else (None, 0.0)
        return None if any(epoch_ms(e.at) > broke and is_good(e) for e in asked) else crash


def _break(exchange: Exchange) -> tuple[float, float] | None:
    """Return when a broken, refused or 5xx request was sent and when it broke, in ms of the clock; None for any other."""
    if exchange.fault not in ("connect", "no_byte", "broken") and (exchange.status or 0) < 500:
        return None
    first = next((a for a in exchange.attempts if a.fault), None)
    return None if first is None else (epoch_ms(first.at), epoch_ms(first.at) + first.elapsed_ms)
