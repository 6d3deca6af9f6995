"""Cases: what is asked and what is expected, read from params/cases/*.yaml."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from gatebook.config import documents, policies, project, rows
from gatebook.config.documents import Document, Minutes, with_minutes
from gatebook.config.files import FileName, Strict, build, demand, read_yaml
from gatebook.config.policies import Feature, Load
from gatebook.config.profile import Suite
from gatebook.config.rows import Repeat, rows_of
from gatebook.errors import BadInput

Finish = Literal["stop", "length", "tool_calls", "any"]
NONCE = "{nonce}"
"""Where the messages of a timed case take digits of their own."""
FINGERPRINT = frozenset({"prompt_tokens", "first_token_logprobs", "greedy_logprobs", "default_samples"})
"""Checks whose cases measure what is served."""
SCORED = "golden_logprobs"
"""The check of a case whose golden answer is given to the server, which only tells how likely it is."""
ROLES = ("system", "developer", "user", "assistant", "tool")
_IS_KEBAB = demand(
    re.compile(r"[a-z0-9][a-z0-9.\-]*").fullmatch,
    "an id is lower-case letters, digits, '-' and '.', because it names files and JUnit cases",
)
_ONE_CHECK_EACH = demand(
    lambda expect: all(len(item) == 1 for item in expect), "every item of expect is one check: `- name: parameters`"
)


class Ask(Strict):
    """One request of a case. What it leaves out comes from the case."""

    name: str
    """Names the request in records and reasons."""
    path: str | None = None
    """GET this path instead of a chat completion, relative to the base URL (`models`) or to the host (`/version`)."""
    messages: list[dict[str, Any]] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Merged over the case's options; a null takes the option out."""
    follows: str | None = None
    """Goes on with the conversation of this earlier ask: its messages and the model's own answer come before these."""
    repeat: Repeat | None = None
    """A long text for `{repeat}` in the messages and options."""
    stream: bool | None = None
    """false asks for a plain reply."""
    finish: Finish | None = None
    language: str | None = None
    """Asked only where the profile's `languages` have it."""


class Case(Strict):
    """One prompt or conversation with request options and expectations."""

    id: Annotated[str, _IS_KEBAB]
    """Its name for good: results are compared by it. Lower-case letters, digits, '-' and '.'."""
    notebook: FileName
    """The notebook that asks it, such as 02_structured_output."""
    group: str
    """`<prefix>.<name>`: the cases that one policy of the profile judges together."""
    suites: list[Suite] = Field(default_factory=list)
    """Where it runs; every case runs in `full`."""
    tags: dict[str, str | int] = Field(default_factory=dict)
    """What it is about, as data: `{task: table, phrasing: 3, language: zh}`. Tables are made by tags; nothing is read out of an id.
    `language` and `from` (that of its material) say what a model must know to be asked it: the profile's `languages` select by them."""
    why: Annotated[str, demand(str.strip, "say in one sentence why this case exists")]
    """One sentence for whoever reads the red line."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    """The conversation, as the API takes it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Everything else of the request: temperature, max_tokens, response_format, tools ..."""
    stream: bool = True
    """Ask for a streamed reply."""
    needs: list[Feature] = Field(default_factory=list)
    """Parts of the API that it cannot do without: where the profile's `offers` say that one is not offered, it is not asked."""
    asks: list[Ask] = Field(default_factory=list, max_length=1000)
    """Several requests of one case; without them it is asked once."""
    finish: Finish = "stop"
    """The finish_reason of a good answer; `any` where a cut is no fault."""
    negative: bool = False
    """The server may refuse with a clean 4xx; that is then a result."""
    raw: bool = False
    """Looks at what is generated and not at an answer: the first thoughts of a model that thinks do as well, within max_tokens."""
    canary: bool = False
    """A plain request must still be answered afterwards."""
    samples: int | None = Field(default=None, ge=2, le=1000)
    """Asks its one request so many times, one after the other with nothing beside it: a latency to be judged. `{nonce}` in a
    message becomes eight digits of their own each time, so that no prefix cache knows it."""
    draws: int | None = Field(default=None, ge=2, le=100)
    """Asks its one request so many times, with seeds 1, 2, ... and the sampling that its options, or the service, say. Its score is
    the share of answers that pass every check; compared cases are paired by it (docs/verdict.md, "Pooled")."""
    drawn: int | None = Field(default=None, ge=2, le=100)
    """Written by `--effort deep`: it is drawn so many times, and stays the question that it is with `draws`."""
    pass_share: float = Field(default=0.5, gt=0, le=1)
    """The share of `draws` with which it passes."""
    document: Document | None = None
    """A long text from a seed, written when it is asked, in the server's own tokens; `{document}` and `{question}` in a message take it."""
    load: Load | None = None
    """Asks its requests many at a time. `{word}` in messages and options becomes a word that no other request has."""
    over: str | None = None
    """Asks nothing: judged from the outcomes of all cases of this group; `gauges`: from what GPU and engine showed while
    the notebook asked; `settings`: from what the server says of how it was started."""
    expect: Annotated[list[dict[str, Any]], _ONE_CHECK_EACH] = Field(default_factory=list)
    """One check an item: `- name: parameters`."""
    good: list[str] = Field(default_factory=list)
    """Answers that every check must pass: tried by `gatebook cases check`, never sent."""
    bad: list[str] = Field(default_factory=list)
    """Answers that some check must fail."""
    golden: list[str] = Field(default_factory=list)
    """Answers that an expert would give to the last request: what the cosine is taken with, and what `golden_logprobs` scores."""
    paraphrases: list[str] = Field(default_factory=list)
    """Correct answers in other words: how often the cosine cries wolf is measured with them."""
    minutes: Minutes | None = None
    """Puts the minutes of this seed in the place of `{minutes}` when the file is read, and keeps their truth."""

    _source: str = PrivateAttr(default="")

    @property
    def languages(self) -> list[str]:
        """What a model must know to be asked it."""
        return [str(self.tags[tag]) for tag in ("language", "from") if tag in self.tags]

    @property
    def source(self) -> str:
        """Return the file it was read from, for messages."""
        return self._source

    @property
    def checks(self) -> list[str]:
        return [name for item in self.expect for name in item]

    @property
    def fingerprints(self) -> bool:
        """Whether it measures what is served, so that every replica is asked it too."""
        return not FINGERPRINT.isdisjoint(self.checks)

    @property
    def of_deployment(self) -> bool:
        """Whether its values describe the whole deployment and are compared together."""
        return self.fingerprints or self.scored

    def mistakes(self) -> Iterator[str]:
        asks = self.requests()
        yield from self._misnamed()
        yield from self._misused(asks)
        yield from self._misplaced(asks)
        yield from self._misscored()
        yield from self._empty(asks)
        try:
            json.dumps([ask.model_dump() for ask in asks], ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            yield f"its messages or options hold what JSON cannot carry ({error}); quote it or correct it"

    def _misnamed(self) -> Iterator[str]:
        count, earlier, everyone = (
            Counter(ask.name for ask in self.asks),
            set[str](),
            all(a.language for a in self.asks),
        )
        quoted = set(str([self.expect, [a.follows for a in self.asks]]).split("'"))
        for ask in self.asks:
            if count[ask.name] > 1 or ask.name == "canary":
                yield f"key 'asks' has the name {ask.name!r} twice or reserved; give every ask its own name"
            if ask.follows is not None and ask.follows not in earlier:
                yield f"key 'asks.{ask.name}.follows' names {ask.follows!r}, which is no earlier ask"
            if ask.language and (everyone or ask.follows or ask.name in quoted):
                yield f"key 'asks.{ask.name}.language': the case cannot do without this ask; tag the case instead"
            earlier.add(ask.name)

    def _misused(self, asks: list[Ask]) -> Iterator[str]:
        """What `samples` and `load` cannot be combined with."""
        special = self.over or self.canary or self.negative
        pathed = any(ask.path or ask.follows for ask in self.asks)
        if self.draws and (len(self.asks) > 1 or pathed or special or self.document or self.samples or self.load):
            yield "key 'draws' repeats one plain request: no second ask, path, document, samples, load, over, canary or negative"
        if self.pass_share != 0.5 and not self.draws:
            yield "key 'pass_share' belongs to a case with key 'draws'"
        if self.drawn and self.drawn < (self.draws or self.drawn + 1):
            yield "key 'drawn' belongs to --effort deep and a case with fewer 'draws'; delete it"
        if self.samples and (len(self.asks) > 1 or self.document or special):
            yield "key 'samples' repeats one plain request: no second ask, document, over, canary or negative"
        if self.samples and (pathed or not all(ask.stream for ask in asks)):
            yield "key 'samples' times a streamed chat: no path, no follows, no stream: false"
        if self.load and (special or pathed):
            yield "key 'load' asks plain chats beside each other: no over, canary, negative, path or follows"

    def _misscored(self) -> Iterator[str]:
        """What a case whose golden answer is scored cannot have."""
        special = (self.asks, self.samples, self.load, self.document, self.over, self.canary, self.negative)
        if self.scored and (any(special) or len(self.expect) > 1):
            yield f"check {SCORED!r} stands alone and scores an answer to plain messages: no asks, samples, load, document, over, canary or negative"
        if self.scored and (len(self.golden) != 1 or self.golden[0] != self.golden[0].strip() or not self.golden[0]):
            yield f"check {SCORED!r} scores one answer: key 'golden' holds one text, without blanks around it"

    def _misplaced(self, asks: list[Ask]) -> Iterator[str]:
        """Which `{place}` of a request has nothing to take its place, and the other way round."""
        if not self.load and policies.PLACE in str([[ask.messages, ask.options] for ask in asks]):
            yield f"{policies.PLACE} in a message or option belongs to a case with key 'load'"
        if (self.document is None) == (documents.PLACE in str([ask.messages for ask in asks])):
            yield f"key 'document' and {documents.PLACE} in a message belong together"
        for ask in asks:
            if (ask.repeat is None) == (rows.PLACE in str([ask.messages, ask.options])):
                yield f"key 'asks.{ask.name}.repeat' and {rows.PLACE} in its request belong together"

    def _empty(self, asks: list[Ask]) -> Iterator[str]:
        """Requests or expectations that are empty, and roles that the API does not have."""
        if self.over is not None and (self.messages or self.asks or self.over == self.group):
            yield "key 'over' names another group, and a case with it asks nothing: no messages, no asks"
        for ask in () if self.negative else asks:
            if ask.path is None and not ask.messages:
                yield f"key 'messages' is empty, so {ask.name!r} would ask nothing; say what it asks"
            for role in [message.get("role") for message in ask.messages or ()]:
                if role not in ROLES:
                    yield f"key 'messages' has the role {role!r}; roles are {', '.join(ROLES)}"
        if not self.expect and all(ask.finish == "any" for ask in asks):
            yield "key 'expect' is empty and any finish will do, so nothing of it would be judged; expect something"

    def requests(self) -> list[Ask]:
        """Return the case's requests, everything filled in, in the order asked."""
        if self.over is not None:
            return []
        found = []
        for name, ask, sampling in self._turns(self.asks or [Ask(name="ask")]):
            options = {**self.options, **sampling, **ask.options}
            filled = {
                "name": name,
                "messages": self.messages if ask.messages is None else ask.messages,
                "options": {key: value for key, value in options.items() if value is not None},
                "stream": self.stream if ask.stream is None else ask.stream,
                "finish": ask.finish or self.finish,
            }
            found.append(ask.model_copy(update=filled))
        return found

    def _turns(self, asks: list[Ask]) -> Iterator[tuple[str, Ask, dict[str, Any]]]:
        """Yield each request with its name and sampling: draws and samples are numbered, under load the level comes first."""
        if self.draws:
            seeds = range(1, (self.drawn or self.draws) + 1)
            yield from ((f"{ask.name}-{seed:02d}", ask, {"seed": seed}) for ask in asks for seed in seeds)
        elif self.samples:
            yield from ((f"{ask.name}-{n:03d}", ask, {}) for ask in asks for n in range(1, self.samples + 1))
        elif self.load:
            turns = [*enumerate(islice(cycle(asks), self.load.requests or len(asks)), 1)]
            yield from ((f"{level}-{ask.name}-{i:02d}", ask, {}) for level in self.load.at_once for i, ask in turns)
        else:
            yield from ((ask.name, ask, {}) for ask in asks)

    @property
    def cluster(self) -> str:
        """The unit of observation: the phrasings of one task, or the questions of one document, are one."""
        if "phrasing" in self.tags:
            return f"{self.group}/{self.tags.get('task', '')}"
        if self.document is not None:
            return f"document/{self.document.name}"
        return f"minutes/{self.minutes.seed}" if self.minutes else self.id

    @property
    def scored(self) -> bool:
        """Whether the server is given its golden answer and asked only for the log probabilities."""
        return SCORED in self.checks

    @property
    def prompt_hash(self) -> str:
        """What was asked, in 12 hex digits: a case whose prompt changed is not compared with its old result."""
        asked: list[dict[str, Any]] = []
        for ask in self.model_copy(update={"drawn": None}).requests():
            unset = [key for key in ("follows", "repeat") if getattr(ask, key) is None]
            asked.append(ask.model_dump(exclude={"finish", "language", *unset}))
        asked += [{"document": self.document.model_dump()}] if self.document else []
        asked += [{"golden": self.golden}] if self.scored else []
        asked += [{"over": self.over, "expect": self.expect}] if self.over else []
        return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def load_cases(*folders: Path) -> list[Case]:
    """Read every case file of these folders. Raises BadInput on the first mistake."""
    cases = [case for file in case_files(*folders) for case in read_case_file(file)]
    refuse_twins(cases)
    return cases


def case_files(*folders: Path) -> list[Path]:
    """The case files of each folder, sorted. Raises BadInput when there is none."""
    files = [file for folder in folders for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))]
    if not files:
        raise BadInput(f"{folders[-1]}: no case files (*.yaml); add one or name the right folder")
    return files


def refuse_twins(cases: list[Case]) -> None:
    """Raise BadInput when an id stands twice."""
    for name, count in Counter(case.id for case in cases).items():
        if count > 1:
            places = list(dict.fromkeys(case.source for case in cases if case.id == name))
            ours = len(places) > 1 and Path(places[0]).is_relative_to(project.PACKAGE)
            todo = (
                "a case of the package is not replaced, give yours another id" if ours else "give every case its own id"
            )
            raise BadInput(f"{', '.join(places)}: key 'id' has value {name!r} {count} times; {todo}")


def read_case_file(path: Path) -> list[Case]:
    return cases_in(read_yaml(path), str(path))


def cases_in(data: Any, path: str) -> list[Case]:
    """Return the cases of a file's content; `path` names it in messages. Raises BadInput."""
    if not isinstance(data, list) or not data:
        raise BadInput(f"{path}: holds no cases; a case file is a list of cases (- id: ...)")
    found = []
    for number, entry in enumerate(data, 1):
        if not isinstance(entry, dict):
            raise BadInput(f"{path}: item {number} is {entry!r}; a case is a mapping with id, notebook, group, why ...")
        where = f"{path}, case {entry.get('id', f'number {number}')!r}"
        for row in rows_of(entry, where):
            case = build(Case, with_minutes(row, where), where)
            if case.drawn:
                raise BadInput(f"{where}: key 'drawn' has value {case.drawn}: only --effort deep writes it; delete it")
            case._source = path
            found.append(case)
    return found
