"""Wrong and harmless variations of a good answer, check by check, each wrong or harmless by construction.

A mutator sees the case, the check's parameters and a good answer and yields variations; dice are seeded by the caller.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from gatebook.checks.similarity import mutants
from gatebook.config.cases import Case

Mutator = Callable[[Case, Any, str, random.Random], Iterator[str]]
WRONG: dict[str, list[Mutator]] = {}
HARMLESS: dict[str, list[Mutator]] = {}
JSON_CHECKS = ("json_parses", "json_schema", "json_value", "keyword")
CODE_CHECKS = ("identifiers_kept", "literals_kept", "same_syntax_tree")
PROSE_CHECKS = ("contains_any", "facts", "no_live_facts", "not_degenerate", "rule_kept")
ENGLISH = (
    "The shop opens at nine in the morning and closes late, and everyone who lives nearby knows the old owner well."
)
MANDARIN = "这家店早上九点开门，晚上很晚才关门，住在附近的人都认识那位年长的店主，他对每一位顾客都很客气。"
LOOKALIKES = str.maketrans("aeopc", "аеорс")
"""Cyrillic letters that look Latin."""
ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)、])\s*")
TODAY = (
    "Right now it's {n} degrees.",
    "目前股价是{n}.2元。",
    "今天是5月{d}日，星期三。",
    "The match ended {d}-2 last night.",
    "It is currently {n}°C outside.",
    "The price right now is ${n}.50.",
    "Today is Monday, May {d}.",
    "现在的气温是{n}℃。",
    "It's {d}:30 pm right now.",
    "昨晚的比分是{d}比2。",
)


def wrong(*checks: str) -> Callable[[Mutator], Mutator]:
    return _into(WRONG, checks)


def harmless(*checks: str) -> Callable[[Mutator], Mutator]:
    return _into(HARMLESS, checks)


def _into(table: dict[str, list[Mutator]], checks: tuple[str, ...]) -> Callable[[Mutator], Mutator]:
    def add(mutator: Mutator) -> Mutator:
        for name in checks:
            table.setdefault(name, []).append(mutator)
        return mutator

    return add


# --- JSON ----------------------------------------------------------------------------------------------------


@wrong(*JSON_CHECKS)
def not_json(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    yield good[: dice.randrange(1, len(good) - 1)]
    yield good + "}"
    yield "Here is the JSON: " + good
    yield f"```json\n{good}\n```"
    yield good.replace('"', "'")
    yield "\ufeff" + good
    yield good + " // done"
    yield good.rstrip("}]") + "," + good[len(good.rstrip("}]")) :]
    yield "“" + good[1:]


@harmless(*JSON_CHECKS)
def written_otherwise(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    value = json.loads(good)
    yield json.dumps(value, indent=dice.choice((1, 2, 4)))
    yield json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, dict):
        yield json.dumps(dict(dice.sample(list(value.items()), len(value))), ensure_ascii=False)
    yield f"\n{good}  \n"


@wrong("json_schema", "keyword")
def breaks_schema(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    value, schema = json.loads(good), _schema(case, params)
    for path, part in _objects(schema):
        for name in part.get("required", []):
            yield _changed(value, path, lambda o, n=name: o.pop(n, None))
        if part.get("additionalProperties") is False and "patternProperties" not in part:
            yield _changed(value, path, lambda o: o.update(unasked=1))
        for name, rule in part.get("properties", {}).items():
            for bad in _violations(rule, dice):
                yield _changed(value, path, lambda o, n=name, b=bad: o.update({n: b}) if n in o else None)


def _violations(rule: dict[str, Any], dice: random.Random) -> Iterator[Any]:
    """Values that the rule of one property forbids."""
    kind = rule.get("type")
    if isinstance(kind, str):
        yield {
            "string": 7,
            "integer": "seven",
            "number": "seven",
            "boolean": "yes",
            "array": {},
            "object": [],
            "null": 0,
        }[kind]
    if "enum" in rule:
        yield f"{rule['enum'][0]}{dice.choice('xyz')}"
    if "const" in rule:
        yield f"{rule['const']}-"
    if "maxLength" in rule:
        yield "ab" * (rule["maxLength"] + 1)
    if rule.get("minLength", 0) > 0:
        yield ""
    if "minimum" in rule:
        yield rule["minimum"] - dice.randrange(1, 9)
    if "maximum" in rule:
        yield rule["maximum"] + dice.randrange(1, 9)
    if "multipleOf" in rule and rule["multipleOf"] != 1:
        yield (rule.get("minimum", 0) // rule["multipleOf"] + 1) * rule["multipleOf"] + rule["multipleOf"] / 2
    if rule.get("minItems", 0) > 0:
        yield []


def _schema(case: Case, params: Any) -> dict[str, Any]:
    if isinstance(params, dict):
        return params
    options = case.requests()[0].options
    return dict(options.get("response_format", {}).get("json_schema", {}).get("schema", {}))


def _objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Objects of the schema that stand at a plain path; combinations are left alone."""
    if any(key in schema for key in ("anyOf", "oneOf", "allOf", "$ref", "not", "if")):
        return
    if schema.get("type") == "object":
        yield path, schema
        for name, part in schema.get("properties", {}).items():
            yield from _objects(part, (*path, name))


def _changed(value: Any, path: tuple[str, ...], change: Callable[[dict[str, Any]], Any]) -> str:
    copy = deepcopy(value)
    owner = copy
    for step in path:
        owner = owner.get(step, {}) if isinstance(owner, dict) else {}
    if isinstance(owner, dict):
        change(owner)
    return json.dumps(copy, ensure_ascii=False)


@wrong("json_value")
def means_another(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    value, name = json.loads(good), params.path.removeprefix("$.")
    if not isinstance(value, dict) or name not in value:
        return
    yield _changed(value, (), lambda o: o.pop(name))
    if params.equals is not None:
        old = params.equals
        yield _changed(
            value, (), lambda o: o.update({name: f"{old}{dice.choice('xyz')}" if isinstance(old, str) else str(old)})
        )
        yield _changed(value, (), lambda o: o.update({name: [old]}))
    if params.min_chars:
        yield _changed(value, (), lambda o: o.update({name: str(o[name])[: params.min_chars - 1]}))
        yield _changed(value, (), lambda o: o.update({name: " " * params.min_chars}))


# --- words, lengths, facts -----------------------------------------------------------------------------------


@harmless(
    "length_chars",
    "contains_none",
    "list_items",
    "markdown_table",
    "lines_kept",
    "todos",
    "regex",
    *PROSE_CHECKS,
    *CODE_CHECKS,
)
def framed_by_space(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    yield f"\n\n{good}"
    yield f"{good}{' ' * dice.randrange(1, 4)}\n"


@harmless("contains_any", "facts", "not_degenerate", "rule_kept", "contains_none")
def kindly_closed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    if getattr(params, "ends", None):
        return
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in good) > len(good) / 4
    if chinese:
        yield good + dice.choice(
            ("希望啲資料幫到你。",)
            if "rule" in case.id or "memory" in case.id
            else ("希望对您有所帮助。", "祝您一切顺利。")
        )
    else:
        yield good + dice.choice((" I hope this helps.", " Let me know what else you need."))


@wrong("length_chars")
def too_long_or_short(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    yield good.strip()[: params.min - 1]
    if params.max < 10**6:
        yield (good.strip() + " and so on") * (params.max // max(len(good.strip()), 1) + 1)
        yield good.strip() + "x" * (params.max - len(good.strip()) + 1)


@wrong("contains_any")
def without_the_words(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    for word in sorted(params, key=len, reverse=True):
        good = good.replace(word, "")
    yield good


@wrong("contains_none")
def with_a_word(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    for word in params:
        yield f"{good} {word}"
        at = dice.randrange(len(good) + 1)
        yield f"{good[:at]} {word} {good[at:]}"


@wrong("regex")
def without_the_pattern(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    text = good
    while re.search(params, text) and text:
        text = re.sub(params, "", text)
    if not re.search(params, text):  # a pattern of what must not stand there cannot be taken out
        yield text


@wrong("facts")
def a_fact_lost_or_changed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    if params.min_coverage == 1:
        for fact in params.required:
            yield _without(good, fact)
            for wording in [fact] if isinstance(fact, str) else fact:
                number = re.fullmatch(r"\d+", wording)
                if number and wording in good and fact == wording:
                    yield re.sub(rf"(?<!\d){wording}(?!\d)", str(int(wording) + dice.randrange(1, 9)), good)
    elif params.required:
        text = good
        for fact in params.required:
            text = _without(text, fact)
        yield text
    for fact in params.forbidden:
        wording = fact if isinstance(fact, str) else fact[0]
        if not wording.startswith("re:"):
            yield f"{good} {wording}."


def _without(text: str, fact: Any) -> str:
    for wording in sorted([fact] if isinstance(fact, str) else fact, key=len, reverse=True):
        pattern = wording[3:] if wording.startswith("re:") else re.escape(wording)
        text = re.sub(pattern, "", text, flags=re.IGNORECASE)
    return text


@wrong("facts")
def a_word_against_the_facts(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    """A number of the required facts changed, or the statement denied (checks/similarity.py)."""
    known = {wording for fact in params.required for wording in ([fact] if isinstance(fact, str) else fact)}
    for text, kind in mutants(good, [], []).items():
        lost = [n for n in re.findall(r"\d+", good) if n not in re.findall(r"\d+", text)]
        if kind == "number" and any(n in known for n in lost):
            yield text


@wrong("no_live_facts")
def states_this_moment(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    for pattern in TODAY:
        said = pattern.format(n=dice.randrange(12, 38), d=dice.randrange(1, 9))
        yield said
        yield f"{good} {said}"


@wrong("not_degenerate")
def no_language(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    scripts = [
        "the",
        "ing",
        "的",
        "是",
        "ных",
        "στα",
        "の",
        "ます",
        "한다",
        "في",
        "में",
        "ქართ",
        "ไทย",
        "});",
        "::=",
        "▁▁",
    ]
    yield dice.choice("!?0的 a.,") * dice.randrange(40, 200)
    yield (
        " ".join(dice.sample(good.split() or [good], min(3, len(good.split() or [good])))) + " again "
    ) * dice.randrange(12, 30)
    yield good + "".join(dice.choices(scripts, k=120))
    yield good + "\n" * dice.randrange(60, 90) + "."
    yield (
        good
        + " "
        + dice.choice(("I am here to help you today. ", "我很高兴为您服务。", "Yes, and then "))
        * dice.randrange(16, 40)
    )
    yield "".join(dice.choice("的一是不了人我在有他这") for _ in range(4)) * 40


@wrong("language")
def another_language(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    if params.where == "prose":
        yield ENGLISH if params.is_ != "en" else MANDARIN
        yield f"{ENGLISH if params.is_ != 'en' else MANDARIN} " * 3 + good[:12]


@wrong("language")
def half_in_another(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    """vllm-ascend#10405: the answer changes its language on the way."""
    if params.where == "prose" and params.is_ in ("zh", "ja", "ko", "yue"):
        yield good + " " + ENGLISH * (1 + len(good) // 20)


@harmless("language")
def with_terms_or_code(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    yield f"{good}\n"
    if params.where == "prose":
        yield f"{good}\n\n```python\nvalue = read_table('orders', limit={dice.randrange(9)})\n```"
        yield f"{good} {good}"


@wrong("rule_kept")
def in_mandarin(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    yield MANDARIN
    yield ENGLISH


# --- form ----------------------------------------------------------------------------------------------------


@wrong("list_items")
def items_lost_or_added(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    lines = good.splitlines()
    items = [n for n, line in enumerate(lines) if ITEM.match(line)]
    yield "\n".join(line for n, line in enumerate(lines) if n != dice.choice(items))
    yield f"{good}\n{lines[dice.choice(items)]}"
    yield ", ".join(ITEM.sub("", line) for line in lines)


@harmless("list_items")
def other_markers(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    bare = [ITEM.sub("", line) for line in good.splitlines() if ITEM.match(line)]
    if len(bare) == params.count:
        yield "\n".join(f"{dice.choice('-*+')} {line}" for line in bare)
        yield "\n\n".join(f"{n}) {line}" for n, line in enumerate(bare, 1))
        yield "Here they are.\n\n" + good


@wrong("markdown_table")
def table_broken(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    lines = good.splitlines()
    at = next(n for n, line in enumerate(lines) if re.fullmatch(r"[|:\- ]+", line))
    yield "\n".join(lines[: at - 1] + lines[at + 1 :])
    yield "\n".join(lines[:at] + lines[at + 1 :])
    yield "\n".join(lines[: at + 1])
    yield "\n".join([*lines[: at - 1], re.sub(r"\w+", "Thing", lines[at - 1]), *lines[at:]])
    yield "\n".join([*lines[:at], "| --- |", *lines[at + 1 :]])


@harmless("markdown_table")
def table_drawn_otherwise(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    yield "Sure, here it is:\n\n" + good
    yield re.sub(r"(?m)^\|[|:\- ]+\|$", lambda m: re.sub(r"-{2,}", ":---:", m[0].replace(":", "-")), good)
    yield "\n".join(re.sub(r" \|", "   |", line) for line in good.splitlines())


@wrong("lines_kept")
def log_changed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    for line in params.log.splitlines():
        spots = [m for m in re.finditer(r"\d", line)]
        spot = dice.choice(spots)
        other = line[: spot.start()] + str((int(spot[0]) + 1) % 10) + line[spot.end() :]
        yield (
            good.replace(line[:24], other[:24])
            if spot.start() < 24
            else good.replace(line.split()[3], other.split()[3])
            if line.split()[3] != other.split()[3]
            else good.replace(line[:24], "")
        )
        yield "\n".join(part for part in good.splitlines() if line[:19] not in part) or "nothing"
        for level, word in (("ERROR", "错误"), ("WARN", "警告"), ("INFO", "信息")):
            if f" {level} " in line:
                yield good.replace(f" {level} ", f" {word} ")
        yield good.replace(line[:10], line[:10].replace("-", "/"))


@wrong("todos")
def todos_spoiled(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    lines = good.splitlines()
    yield "\n".join(lines[1:])
    yield "\n".join([*lines, lines[-1]])
    yield re.sub(r"【.】|\[\w+\]\s*", "", good)
    owners = re.findall(r"[（(]([^（()）]+)[）)]", good)
    if len(set(owners)) > 1:
        one, two = dice.sample(sorted(set(owners)), 2)
        yield good.replace(one, "\0").replace(two, one).replace("\0", two)
    tags = re.findall(r"【.】|\[\w+\]", good)
    if len(set(tags)) > 1:
        yield "\n".join(reversed(lines))


# --- code ----------------------------------------------------------------------------------------------------


@wrong("identifiers_kept")
def renamed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    for name in _identifiers(params):
        for other in (
            name + "s",
            name.translate(LOOKALIKES),
            name.replace("_", "\\_"),
            name.replace("_", " "),
            name[:-1] + "x",
            name.upper() if name != name.upper() else name.lower(),
            re.sub(r"_(\w)", lambda m: m[1].upper(), name),
        ):
            if other != name:
                yield re.sub(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", other, good)


@wrong("literals_kept")
def literal_changed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    for literal in params if isinstance(params, list) else _literals(params.code):
        if literal.strip() and literal in good:
            at = dice.randrange(len(literal))
            yield good.replace(literal, literal[:at] + "~" + literal[at + 1 :])
            yield good.replace(literal, literal + " ")
            yield good.replace(f'"{literal}"', f"“{literal}”").replace(f"'{literal}'", f"“{literal}”")


@wrong("same_syntax_tree")
def code_changed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    names = _identifiers(params)
    if names:
        name = dice.choice(names)
        yield re.sub(rf"\b{re.escape(name)}\b", name + "2", good)
    yield (
        re.sub(r"return .*", "return None", good)
        if "return " in good and "return None" not in good
        else good.replace("=", "= not ", 1)
    )
    yield re.sub(r"(?m)^(def .*)$", r"\1\n    pass", good) if "def " in good else "print(1)"


@harmless(*CODE_CHECKS)
def code_framed(case: Case, params: Any, good: str, dice: random.Random) -> Iterator[str]:
    fenced = good if "```" in good else f"```python\n{good}\n```"
    yield f"Here is the code:\n\n{fenced}\n"
    yield (
        re.sub(r"(?m)^(\s*def .*)$", r"# a remark\n\1", fenced, count=1)
        if not re.search(r"(?m)^\s+def", fenced)
        else fenced
    )


def _identifiers(params: Any) -> list[str]:
    if isinstance(params, list):
        return params
    tree = ast.parse(params.code)
    found = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return found + [
        a.arg for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) for a in n.args.args if a.arg != "self"
    ]


def _literals(code: str) -> list[str]:
    tree = ast.parse(code)
    return [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
