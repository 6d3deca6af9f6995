"""Nearness to golden answers, as a guard with known power: cosines, and mutants of right answers that measure it."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gatebook.config import project
from gatebook.config.cases import Case
from gatebook.config.files import read_yaml, replace_text
from gatebook.config.profile import Similarity
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, first_line
from gatebook.record.replies import read_answer
from gatebook.record.run import Run

MOST_NUMBERS, MOST_ENTITIES = 2, 2
TOLERANCE = 1e-3
"""Largest difference between two computations of a cosine: processors add up in another order."""
LOCAL = "local"
"""The version of a model that is a folder and no package."""
ENOUGH = 20
"""Mutants and paraphrases that it takes to speak of a rate."""
NUMBER = re.compile(r"\d+")
CHINESE_NUMBER = re.compile(r"[一二两三四五六七八九十](?=[个天次件台条份周月年元人点小分项把张套])")
NEXT = str.maketrans("一二两三四五六七八九十", "二三三四五六七八九十一")
NEGATIONS = [
    (r"没有", "有"), (r"无法|不能", "可以"), (r"尚未|还没|未", "已"), (r"不再|并不|不(?!同|过|仅|但)", ""),
    (r"\bcannot\b|\bcan't\b", "can"), (r"\b(is|are|was|were|does|do|did|has|have|can|will|must|should) not\b", r"\1"),
    (r"\bno longer\b", "still"), (r"\bnot\b ?", ""),
    (r"(?=希望|需要|要求|可以|支持|能够|必须|应该|属于|会|能)", "不"), (r"已经|已", "未"), (r"(?=是|在|要|请|用|为)", "不"), (r"有", "没有"),
    (r"\b(is|are|was|were|can|will|must|should|may)\b", r"\1 not"), (r"\bhas\b", "has not"), (r"\bhave\b", "do not have"),
    (r"\bwants\b", "does not want"), (r"(\b(?!this\b)[a-z]{3,}(?<!s)s)(?= (?:the|a|an|to|on|after|every|at|in|for|from)\b)", r"never \1"),
]  # fmt: skip
"""Pattern and replacement; the first that is found makes a text another. A text with a negation loses it, one without gets one."""
Embed = Callable[[tuple[str, ...]], Any]
"""Texts -> unit vectors, a row each."""


@dataclass(frozen=True)
class Sample:
    """A text whose cosine with the golden answers of a case says something of the guard."""

    case: str
    kind: str
    """`number`, `negation`, `entity` (mutants), `paraphrase`, `off_topic` (golden answer of another case)."""
    text: str


def mutants(golden: str, own: list[str], other: list[str]) -> dict[str, str]:
    """Wrong answers, each one edit away from a golden one -> what was changed (`number`, `negation`, `entity`).

    `own` and `other` are the entities of this case and of another one, slot by slot (order number, product, ...): an
    entity goes where the answer names the case's own. At most 2 numbers, 1 negation and 2 entities.
    """
    spots = [(m, str(int(m[0]) + 1).zfill(len(m[0]))) for m in NUMBER.finditer(golden)]
    spots += [(m, m[0].translate(NEXT)) for m in CHINESE_NUMBER.finditer(golden)]
    slots = ((mine, new) for mine, new in zip(own, other, strict=False) if mine in golden and new not in golden)
    swaps = [(mine, new) for mine, new in slots if new.casefold() != mine.casefold() and not NUMBER.fullmatch(mine)]
    made = [("number", golden[: m.start()] + new + golden[m.end() :]) for m, new in spots[:MOST_NUMBERS]]
    rules = ((re.compile(pattern, re.IGNORECASE), new) for pattern, new in NEGATIONS)
    made += [("negation", next((rule.sub(new, golden, 1) for rule, new in rules if rule.search(golden)), golden))]
    made += [("entity", golden.replace(mine, new)) for mine, new in swaps[:MOST_ENTITIES]]
    found: dict[str, str] = {}
    for kind, text in made:
        if text != golden:
            found.setdefault(text, kind)
    return found


def samples(cases: list[Case]) -> list[Sample]:
    """Mutants of every golden answer, the paraphrases, and each other case's first golden answer as off-topic text.

    The entities of a mutant are those of the next case of the same group whose facts stand in as many slots.
    """
    found = []
    for number, case in enumerate(cases):
        own = entities(case)
        near = [entities(c) for c in (*cases[number + 1 :], *cases[:number]) if c.group == case.group]
        other = next((theirs for theirs in near if len(theirs) == len(own)), [])
        made = [(kind, text) for golden in case.golden for text, kind in mutants(golden, own, other).items()]
        made += [("paraphrase", text) for text in case.paraphrases]
        made += [("off_topic", c.golden[0]) for c in cases if c.id != case.id and c.golden[0] not in case.golden]
        found += [Sample(case.id, kind, text) for kind, text in made]
    return found


def entities(case: Case) -> list[str]:
    """What the case's `facts` require of the last answer, slot by slot, each by its first wording."""
    last = case.requests()[-1].name
    listed = [item["facts"] for item in case.expect if "facts" in item]
    facts = [fact for given in listed if given.get("ask") in (None, last) for fact in given.get("required", [])]
    return [fact if isinstance(fact, str) else fact[0] for fact in facts]


class Model(BaseModel):
    """Which model embedded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    weights_sha256: str


class Kept(BaseModel):
    """`<notebook>.similarity.json`: derived data, recomputed by every replay of its notebook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    model: Model
    cosines: dict[str, float]
    """Keyed by the first 16 hex digits of the sha256 of both texts, in their order."""


@dataclass(frozen=True)
class Power:
    """How the guard does at one cut; counts, so that intervals can be told."""

    kills: int
    mutants: int
    alarms: int
    paraphrases: int

    def meets(self, settings: Similarity) -> bool:
        """Whether it may decide: enough samples, enough kills, few enough false alarms."""
        return (
            min(self.mutants, self.paraphrases) >= ENOUGH
            and self.kills / self.mutants >= settings.floor_kill
            and self.alarms / self.paraphrases <= settings.ceiling_false_alarm
        )


class Cosines:
    """The cosines of one notebook of a run."""

    def __init__(self, cases: list[Case], kept: Kept) -> None:
        self.cases, self.kept, self.model = [case for case in cases if case.golden], kept, kept.model.name

    def nearest(self, case: Case, text: str) -> float:
        """Cosine with the nearest golden answer of the case. Raises KeyError for a text that was not computed."""
        return max(self.kept.cosines[_key(golden, text)] for golden in case.golden)

    @cached_property
    def samples(self) -> list[tuple[Sample, float]]:
        """Every mutant, paraphrase and off-topic text with its cosine."""
        by_id = {case.id: case for case in self.cases}
        return [(sample, self.nearest(by_id[sample.case], sample.text)) for sample in samples(self.cases)]

    def power(self, cut: float) -> Power:
        """Over all cases with golden answers: mutants, and correct paraphrases, that fall below `cut`."""
        wrong = [cosine < cut for sample, cosine in self.samples if sample.kind not in ("paraphrase", "off_topic")]
        good = [cosine < cut for sample, cosine in self.samples if sample.kind == "paraphrase"]
        return Power(sum(wrong), len(wrong), sum(good), len(good))


def auc(higher: list[float], lower: list[float]) -> float | None:
    """P(X > Y) + P(X = Y)/2 for X of `higher`, Y of `lower` (Mann-Whitney U over its pairs); None without pairs."""
    ranked, pairs = sorted(lower), len(higher) * len(lower)
    return sum(bisect_left(ranked, x) + bisect_right(ranked, x) for x in higher) / (2 * pairs) if pairs else None


def cosines_of(run: Run, notebook: str) -> Cosines:
    """From the run folder when it is complete for the answers and the profile's model, else computed. Raises ImportError."""
    kept, wanted = stored(run, notebook), _pairs(run, notebook)
    if kept and kept.model.name == run.manifest.profile.similarity.model and wanted.keys() <= kept.cosines.keys():
        return Cosines(run.expected(notebook), kept)
    return Cosines(run.expected(notebook), computed(run, notebook))


def stored(run: Run, notebook: str) -> Kept | None:
    """What the run folder says; None when there is nothing that can be read."""
    with suppress(OSError, ValidationError):
        return Kept.model_validate_json(run.similarity_file(notebook).read_bytes())
    return None


def keep(run: Run, notebook: str) -> bool:
    """Compute the cosines from the record and write them into the run folder; False when no case asks for them."""
    if not any(case.golden and any("similar" in item for item in case.expect) for case in run.expected(notebook)):
        return False
    replace_text(run.similarity_file(notebook), computed(run, notebook).model_dump_json(indent=1))
    return True


def computed(run: Run, notebook: str) -> Kept:
    """The cosines from the record and from nothing else. Raises ImportError when the packages are not there."""
    pairs, name = _pairs(run, notebook), run.manifest.profile.similarity.model
    if run.path.resolve().parent in _located(name)[0].resolve().parents:
        beside = f"similarity.model {name!r} lies beside the record; a bundle brings no model of its own"
        raise BrokenRecord(f"{run.path}: {beside}")
    if not is_own(name):
        todo = "name it as similarity.model in a profile of your params/, if it is yours"
        raise BrokenRecord(
            f"{run.path}: similarity.model {name!r} is a folder that no profile of this project names; {todo}"
        )
    model, embed = encoder(name)
    texts = tuple(sorted({text for pair in pairs.values() for text in pair}))
    vectors = dict(zip(texts, embed(texts), strict=True)) if texts else {}
    cosines = {key: round(float(vectors[a] @ vectors[b]), 6) for key, (a, b) in sorted(pairs.items())}
    return Kept(model=model, cosines=cosines)


def differences(kept: Kept, again: Kept) -> list[str]:
    """What is not the same in two computations; cosines may differ by TOLERANCE."""
    found = [f"the model is {again.model}, the file says {kept.model}"] if kept.model != again.model else []
    if missing := again.cosines.keys() - kept.cosines.keys():
        found.append(f"{len(missing)} cosines are missing")
    both = [(kept.cosines[key], value, key) for key, value in again.cosines.items() if key in kept.cosines]
    if off := [(old, new, key) for old, new, key in both if not abs(old - new) <= TOLERANCE]:
        old, new, key = off[0]
        found.append(f"{len(off)} cosines differ, {key}: {new} and not {old}")
    return found


def _pairs(run: Run, notebook: str) -> dict[str, tuple[str, str]]:
    """Everything whose cosine is needed: key -> (golden answer, text)."""
    by_id = {case.id: case for case in run.expected(notebook) if case.golden}
    last = {f"{case.id}/{case.requests()[-1].name}": case for case in by_id.values()}
    said = [(last[e.key], read_answer(e).text) for e in run.exchanges(notebook) if e.kind == "ask" and e.key in last]
    said += [(by_id[sample.case], sample.text) for sample in samples(list(by_id.values()))]
    return {_key(golden, text): (golden, text) for case, text in said for golden in case.golden}


def _key(golden: str, text: str) -> str:
    return " ".join(hashlib.sha256(one.encode()).hexdigest()[:16] for one in (golden, text))


def _located(name: str) -> tuple[Path, str]:
    """The folder of the model of this name, and its version."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    module = name.replace("-", "_")
    package = find_spec(module) if module.isidentifier() else None
    if package and package.origin:
        with suppress(PackageNotFoundError):  # a module of Python's own
            return Path(package.origin).parent / "model", version(name)
    return Path(name), LOCAL


def _stands(folder: Path) -> bool:
    """Whether it is there; what cannot be, with a name too long, is not."""
    with suppress(OSError):
        return folder.exists()
    return False


def is_own(name: str) -> bool:
    """Whether a model is an installed package, or its folder is named by a profile of this project; so is what is nowhere."""
    folder, number = _located(name)
    if number != LOCAL or not _stands(folder):
        return True
    named, project_folder = set[Path](), project.find()
    for file in (project_folder / "params").glob("*.yaml") if project_folder else ():
        with suppress(BadInput, LookupError, TypeError):
            named.add(Path(read_yaml(file)["similarity"]["model"]).resolve())
    return folder.resolve() in named


@cache
def encoder(name: str) -> tuple[Model, Embed]:
    """The model of this name: the packaged MiniLM, or a folder with a sentence-transformers model. Nothing is downloaded."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    folder, number = _located(name)
    if not _stands(folder) or not folder.is_dir():
        raise ImportError(f"similarity.model {name!r} is neither an installed package with a model nor a folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of notebook widgets that are not installed
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)  # the model server has the other processor
    try:
        loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except Exception as error:  # each of the libraries below raises its own
        raise CannotMeasure(f"similarity.model {name!r}: cannot be loaded: {first_line(error)}") from None
    weights = hashlib.sha256()
    for file in sorted({*folder.rglob("*.safetensors"), *folder.rglob("*.bin")}):
        weights.update(file.read_bytes())

    @cache  # a notebook computes once to keep and once to compare
    def embed(texts: tuple[str, ...]) -> Any:
        return loaded.encode(list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=32)

    return Model(name=name, version=number, weights_sha256=weights.hexdigest()), embed
