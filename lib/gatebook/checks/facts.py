"""Key information: which facts an answer states, which it must not state, and how densely."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from gatebook.checks.evidence import Evidence
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import EMPTY, Text, Words, check, each_text, lacks, parameters
from gatebook.config.cases import Case

COVERAGE = "coverage"
"""Unit of what the check measures."""
Fact = Text | Words
"""One fact: a wording, or several of which one is enough. `re:` opens a regular expression."""
Stated = Annotated[list[Fact], Field(description="What an answer must state.")]
Wrong = Annotated[
    list[Fact], Field(description='What contradicts them. "no refund" states no refund; `re:` sees no denial.')
]
Coverage = Annotated[float, Field(gt=0, le=1, description="Share of the required facts that an answer must state.")]
AskName = Annotated[str | None, Field(description="Only the answer of this ask; without it each answer of the case.")]


def _says_something(
    case: Case, required: list[Fact] = EMPTY, forbidden: list[Fact] = EMPTY, ask: str | None = None, **_: Any
) -> str | None:
    if not required and not forbidden:
        return "has neither required nor forbidden facts; name at least one; correct it"
    for wording in (w for fact in required + forbidden for w in wordings(fact) if w.startswith("re:")):
        try:
            re.compile(wording[3:])
        except re.error as error:
            return f"{wording!r} is no regular expression ({error}); correct it"
    return lacks(case, ask) if ask else None


@check(Stage.BEHAVIOUR, _says_something, judges_text=True)
def facts(
    evidence: Evidence,
    *,
    required: Stated = EMPTY,
    forbidden: Wrong = EMPTY,
    min_coverage: Coverage = 1.0,
    ask: AskName = None,
) -> Result:
    """Coverage: stated / required, in [0, 1]; nothing forbidden may be stated. Density is told: facts per 100 characters.

    Source: research/science.md §7 (equal keyword sets hold for 4 % of correct paraphrases; facts decide instead).
    """
    if not ask:
        return each_text(evidence, lambda text: covered(text, required, forbidden, min_coverage))
    result = covered(evidence.reply(ask).answer.text, required, forbidden, min_coverage)
    return replace(result, reason=f"{ask}: {result.reason}")


def covered(
    text: str, required: list[Fact] = EMPTY, forbidden: list[Fact] = EMPTY, min_coverage: float = 1.0
) -> Result:
    """Judge one text against the facts."""
    said, total = normal(text), len(required)
    missing = [fact for fact in required if not states(said, fact)]
    words = [w for fact in forbidden for w in wordings(fact) if not w.startswith("re:")]
    wrong = [fact for fact in forbidden if any(_asserted(said, w, words) for w in wordings(fact))]
    found = total - len(missing)
    coverage = round(found / total, 4) if total else None
    if wrong:
        return Result("fail", f"states what is wrong: {named(wrong)}", coverage, min_coverage, COVERAGE)
    if coverage is None:
        return Result("pass", "states nothing that is forbidden")
    if coverage < min_coverage:
        reason = f"{len(missing)} of {total} facts missing: {named(missing)}"
        return Result("fail", reason, coverage, min_coverage, COVERAGE)
    dense = f", {100 * found / max(len(said), 1):.1f} facts per 100 characters" if found else ""
    return Result("pass", f"{found} of {total} facts stated{dense}", coverage, min_coverage, COVERAGE)


def states_all(case: Case, text: str) -> bool:
    """Whether a text passes every `facts` of the case's last answer."""
    last = case.requests()[-1].name
    listed = [parameters(case, "facts", item["facts"]) for item in case.expect if "facts" in item]
    mine = [given for given in listed if given.pop("ask", None) in (None, last)]
    return all(covered(text, **given).outcome == "pass" for given in mine)


def wordings(fact: Fact) -> list[str]:
    return [fact] if isinstance(fact, str) else fact


def named(listed: list[Fact]) -> str:
    """Facts for a reason, each by its first wording."""
    return ", ".join(wordings(fact)[0].removeprefix("re:") for fact in listed)


def normal(text: str) -> str:
    """NFKC, lower case, white space squeezed: １２ is 12, Ａ is a. A Chinese comma ends a number: 4417，5 is no 4,417,5."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text.replace("，", ", "))).casefold()


_CJK = r"[\u3400-\u9fff]"
_BLANK = re.compile(rf"(?<={_CJK}) | (?={_CJK})")
_COUNTED = re.compile(
    r"(?<![一二两三四五六七八九十百千万第周期拜])([一二两三四五六七八九]?十[一二三四五六七八九]?|[一二两三四五六七八九])(?=个|把|台|天|年|月|日|小时|分钟|秒|次|笔|份|件|条|行|"
    r"人|元|块|页|级|层|岁|米|公斤|克|度|号|倍|支|盒|箱|双|张|本|名|位|家|种|项|部|辆|间|楼|寸|周|星期|平)"
)
_DIGITS = {char: number for number, char in enumerate("零一二三四五六七八九")} | {"两": 2, "": 0}


def _tight(said: str) -> str:
    """A second normal form for Chinese: no blanks beside its letters, and 十二天 is 12天. `said` is `normal` already."""
    return _COUNTED.sub(lambda m: str(_number(m[1])), _BLANK.sub("", said))


def _number(text: str) -> int:
    tens, ten, ones = text.rpartition("十")
    return (_DIGITS[tens] or 1) * 10 * bool(ten) + _DIGITS[ones]


def states(said: str, fact: Fact) -> bool:
    """Whether a text, already `normal`, states a fact by one of its wordings.

    A number is not found inside a longer one (12 is not in 128, 1.12 or 12,000), nor a Latin word inside another; a plural
    is no other word. Chinese is compared with and without blanks and with numbers in digits: 十二天 is 12 天.
    """
    return any(any(_places(said, wording)) for wording in wordings(fact))


def _places(said: str, wording: str) -> Iterator[re.Match[str]]:
    """Where a wording stands in a text, in either normal form."""
    if wording.startswith("re:"):
        for form in (said, _tight(said)):
            yield from re.finditer(wording[3:], form, re.IGNORECASE)
        return
    wanted = normal(wording)
    for form, words in ((said, wanted), (_tight(said), _tight(wanted))):
        yield from re.finditer(_whole(words), form)


def _whole(wanted: str) -> str:
    first, last = wanted[0], wanted[-1]
    before = r"(?<![0-9a-z_])" if first.isascii() and first.isalnum() else ""
    before += r"(?<![0-9][.,])" if first.isdigit() else ""
    after = r"s?" if last.isascii() and last.isalpha() and len(wanted) > 2 else ""
    after += r"(?![0-9a-z_])" if last.isascii() and last.isalnum() else ""
    after += r"(?![.,][0-9])" if last.isdigit() else ""
    return before + re.escape(wanted) + after


_NOT_ZH = r"(?:(?<!有)没有?|(?!(?<=是)不是|(?<=能)不能|(?<=会)不会|(?<=可)不可|(?<=想)不想|(?<=用)不用)(?<!要)不(?!仅|但|光|只|止|过|管|论)|未|无法?|(?<!除)非(?!要(?!求)|得)|勿|(?<![分特区级类个])别|拒绝|放弃|排除)"
"""Not in 有没有, 要不要 or 是不是 (a question), 非要 (insists), 分别 and 特别 (other words)."""
_ABOUT_ZH = (
    r"(?:再|会|能够?|可以?|想要?|要求?|愿意?|需要?|须|必|用|肯|接受|考虑|同意|打算|希望|申请|选择|支持|提供|是|做|进行|得|曾|有|提出|提及|提到|任何|其他|"
    r"涉及|包括|包含|含|给予?|予|办理|客户|对方)"
)
_NOT_EN = (
    r"(?:\b(?:not|no|never|neither|nor|cannot|declin(?:es?|ed|ing)|refus(?:es?|ed|ing)|rather than|instead of)|n['’]t)"
)
_ABOUT_EN = (
    r"(?:wants?|wanted|wish(?:es)?|needs?|needed|asks?|asked|asking|seeks?|seeking|like|accepts?|accepted|requests?|requested|requesting|"
    r"requires?|interested|looking|offered|granted|promised|longer|for|in|to|be|been|get|have|an?|any|the|of|as|it|is|was)"
)
_DENIED_AFTER = re.compile(
    r"(?:就|也|都|一概|均|则|暂)*(?:不要|不用|不必|不需要|不考虑|不接受|不想|免了|算了|除外)了?(?=[,。;!. ]|$)"
    r"|(?: or [a-z ]{1,20})? (?:is|was|are|were) (?:not|never) (?:wanted|needed|requested|required|asked for|granted|offered)\b"
)


def _asserted(said: str, wording: str, words: list[str]) -> bool:
    """Whether a forbidden wording stands in the text without being denied there. `words`: the others that it may be denied with."""
    return any(wording.startswith("re:") or not _denied(place, words) for place in _places(said, wording))


def _denied(place: re.Match[str], words: list[str]) -> bool:
    """不想维修, 不要求换货或维修, no refund, does not want a repair or a refund. Two denials are none: 不得不退款."""
    before, after = place.string[: place.start()], place.string[place.end() :]
    if _DENIED_AFTER.match(after):
        return True
    if re.match("不可|不行|不成", after):  # 非退款不可
        return False
    also = "|".join(re.escape(form) for word in words for form in {normal(word), _tight(normal(word))})
    for denial, about, beside in (
        (_NOT_ZH, f" ?(?:{_ABOUT_ZH} ?)*", rf"(?:{also})(?:、|, ?|或者?|和|与|及|以及|还是|也不|并)+"),
        (_NOT_EN, f" (?:{_ABOUT_EN} )*", rf"(?:{also})s?,?(?: (?:or|nor|and|an?|any|the))* "),
    ):
        if found := re.search(rf"((?:{denial}{about})+)(?:{beside})*$", before):
            return len(re.findall(denial, found[1])) % 2 == 1
    return False
