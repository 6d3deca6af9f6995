"""What is shown beside a verdict of an answer's words: how much they hang on the phrasing of a prompt, and which matter most."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache, partial
from itertools import combinations
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from gatebook.record.replies import read_answer
from gatebook.record.run import Run

TOP = 10
FACTS_GROUP = "fingerprint.facts"
IDENTIFIER = re.compile(r"([A-Za-z0-9_]+(?:[._:/+#-]+[A-Za-z0-9_]+)*)")
"""What segmentation would tear apart: calculate_score, v2.4.1, 08:42, east-2."""


def pss(scores: list[int]) -> float | None:
    """PromptSensiScore: mean of |s_a - s_b| over all pairs of phrasings of a task, in [0, 1]; None for fewer than two.

    Source: ProSA (Zhuo et al., arXiv 2410.12405).
    """
    return fmean(abs(a - b) for a, b in combinations(scores, 2)) if len(scores) > 1 else None


def keywords(text: str) -> list[str]:
    """Return the ten words with the highest TF-IDF (jieba's corpus), best first, lower case; identifiers stay whole."""
    return [str(word) for word in _extractor().extract_tags(text.casefold(), topK=TOP)]


def jaccard(one: list[str], other: list[str]) -> float | None:
    """Words in both over words in either, in [0, 1]; None when neither has any."""
    either = set(one) | set(other)
    return len(set(one) & set(other)) / len(either) if either else None


def answer_keywords(run: Run) -> dict[str, list[str]]:
    """Case id -> key words of its answer, for the cases that ask for key information."""
    keys = {f"{c.id}/{c.requests()[0].name}": c for c in run.cases.values() if c.group == FACTS_GROUP}
    notebooks = sorted({case.notebook for case in keys.values()} & set(run.notebooks))
    replies = (e for notebook in notebooks for e in run.exchanges(notebook) if e.key in keys and not e.fault)
    return {keys[e.key].id: keywords(text) for e in replies if (text := read_answer(e).text)}


def _cut(text: str, jieba: Any) -> Iterator[str]:
    """jieba's words of what lies between identifiers, and the identifiers whole."""
    for number, piece in enumerate(IDENTIFIER.split(text)):
        yield from [piece] if number % 2 else jieba.dt.cut(piece)


@cache
def _extractor() -> Any:
    """jieba loads its dictionary in a second and warns of unclosed files, old escapes and pkg_resources while it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba.analyse

        jieba.setLogLevel("ERROR")
        jieba.initialize()
        extractor = jieba.analyse.TFIDF()
    extractor.tokenizer = SimpleNamespace(cut=partial(_cut, jieba=jieba))
    return extractor
