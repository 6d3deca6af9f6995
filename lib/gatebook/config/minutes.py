"""Meeting minutes with known truth, from a seed: how many to-dos there are, whose, how urgent, and what is no to-do.

Every minutes hold at least one pair of near-duplicates (two prices, two reports) that must stay two to-dos, decisions, and
things that are done already. The truth is written into the case, so that a run keeps its own truth when this file changes.
"""

from __future__ import annotations

import random
from typing import Any, Literal

from pydantic import Field

from gatebook.config.files import Strict

Language = Literal["zh", "en"]
Priority = Literal["high", "medium", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "medium", "low")
MOST = 8

# (what is to be done, the words that no other entry has): the entries of one row are near-duplicates of each other.
Entry = tuple[str, str]
TASKS: dict[Language, list[list[Entry]]] = {
    "zh": [
        [("跟进客户反馈", "客户反馈"), ("整理周报", "周报")],
        [("更新测试环境", "测试环境"), ("更新测试用例", "测试用例")],
        [("向供应商确认报价", "报价"), ("向供应商确认交期", "交期")],
        [("修复登录页报错", "登录页"), ("修复支付页报错", "支付页")],
        [("核对三月账单", "三月账单"), ("核对四月账单", "四月账单")],
        [("准备周一的评审材料", "评审材料"), ("准备周五的演示材料", "演示材料")],
        [("联系法务审合同", "合同"), ("联系法务审隐私条款", "隐私条款")],
        [("导出订单数据", "订单数据"), ("导出库存数据", "库存数据")],
        [("预订培训场地", "培训场地")],
        [("回访流失用户", "流失用户")],
    ],
    "en": [
        [("follow up on customer feedback", "customer feedback"), ("write the weekly report", "weekly report")],
        [("update the test environment", "test environment"), ("update the test cases", "re:test cases?")],
        [("ask the supplier about the price", "price"), ("ask the supplier about the delivery date", "delivery")],
        [("fix the login page", "login"), ("fix the payment page", "payment")],
        [("check the March invoices", "march"), ("check the April invoices", "april")],
        [("prepare the review slides", "review"), ("prepare the demo slides", "demo")],
        [("send the contract to legal", "contract"), ("send the privacy notice to legal", "privacy")],
        [("export the order data", "order data"), ("export the stock data", "stock data")],
        [("book the training room", "training room")],
        [("call the lost customers", "re:lost customers?")],
    ],
}
SETTLED: dict[Language, list[Entry]] = {
    "zh": [
        ("{who}说新版官网上周已经上线，没有遗留问题。", "官网"),
        ("会议决定沿用现有的会员价，不做调整。", "会员价"),
        ("{who}已经把旧打印机退掉了。", "打印机"),
        ("大家同意年会推迟，时间以后再说。", "年会"),
    ],
    "en": [
        ("{who} said that the new website went live last week, nothing is open there.", "website"),
        ("It was decided to keep the membership fee as it is.", "membership fee"),
        ("{who} has already returned the old printer.", "printer"),
        ("All agreed that the summer party is postponed.", "party"),
    ],
}
OWNERS: dict[Language, list[str]] = {
    "zh": ["小李", "小王", "老陈", "小赵", "小周", "老林", "小吴", "老郑", "小孙", "老钱"],
    "en": ["Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Iris", "Jon"],
}
SAYS: dict[Language, list[str]] = {
    "zh": [
        "{who}负责{task}，优先级{rank}。",
        "{task}交给{who}，优先级{rank}。",
        "优先级{rank}的一件事：由{who}{task}。",
    ],
    "en": [
        "{who} will {task}, priority {rank}.",
        "{who} takes this on with priority {rank}: {task}.",
        "Priority {rank} for {who}: {task}.",
    ],
}
RANKS: dict[Language, dict[Priority, str]] = {
    "zh": {"high": "高", "medium": "中", "low": "低"},
    "en": {"high": "high", "medium": "medium", "low": "low"},
}


class Todo(Strict):
    task: str
    mark: str
    """Words of the task that no other task has: how it is found in an answer. `re:` opens a regular expression."""
    owner: str
    priority: Priority


class Minutes(Strict):
    """What a case says of its minutes, and after reading also the truth."""

    seed: int
    todos: int = Field(default=5, ge=2, le=MOST)
    language: Language = "zh"
    truth: list[Todo] = Field(default_factory=list)
    settled: list[str] = Field(default_factory=list)
    """Marks of what was mentioned and is no to-do."""


def minutes(seed: int, todos: int, language: Language) -> tuple[str, Minutes]:
    """The text of a meeting's minutes and its truth; the same for the same arguments, on every machine."""
    dice = random.Random(f"{language}/{todos}/{seed}")  # noqa: S311 (no secret); a text seeds alike everywhere
    rows = dice.sample([row for row in TASKS[language] if len(row) == 2], 1 + todos // 4)
    chosen = [entry for row in rows for entry in row]
    rest = [entry for row in TASKS[language] for entry in row if entry not in chosen]
    chosen = (chosen + dice.sample(rest, max(todos - len(chosen), 0)))[:todos]
    dice.shuffle(chosen)
    owners = dice.sample(OWNERS[language], len(OWNERS[language]))
    ranks: list[Priority] = ["high", "low", *dice.choices(PRIORITIES, k=todos - 2)]
    dice.shuffle(ranks)
    truth = [Todo(task=t, mark=m, owner=o, priority=p) for (t, m), o, p in zip(chosen, owners, ranks, strict=False)]
    lines = [
        dice.choice(SAYS[language]).format(who=t.owner, task=t.task, rank=RANKS[language][t.priority]) for t in truth
    ]
    settled = dice.sample(SETTLED[language], 2)
    for line, _ in settled:
        lines.insert(dice.randint(0, len(lines)), line.format(who=owners[-1]))
    found = Minutes(seed=seed, todos=todos, language=language, truth=truth, settled=[mark for _, mark in settled])
    return "\n".join(lines), found


def line(todo: Todo, language: Language) -> str:
    """【高】跟进客户反馈（小李）, or [high] follow up on customer feedback (Ana)."""
    rank = RANKS[language][todo.priority]
    return f"【{rank}】{todo.task}（{todo.owner}）" if language == "zh" else f"[{rank}] {todo.task} ({todo.owner})"


def ordered(truth: list[Todo]) -> list[Todo]:
    return sorted(truth, key=lambda todo: PRIORITIES.index(todo.priority))


def answers(found: Minutes) -> dict[str, str]:
    """The perfect answer, and one with each mistake: what `good` and `bad` of a case are filled with."""
    todos, language = ordered(found.truth), found.language
    lines = [line(todo, language) for todo in todos]
    a, b = todos[0], todos[-1]
    both = a.model_copy(update={"task": f"{a.task}{'并' if language == 'zh' else ' and '}{b.task}"})
    swapped = [a.model_copy(update={"owner": b.owner}), *todos[1:-1], b.model_copy(update={"owner": a.owner})]
    made = {
        "todos": lines,
        "todos-lost": lines[:-1],
        "todos-merged": [line(both, language), *lines[1:-1]],
        "todos-unsorted": lines[::-1],
        "todos-untagged": [f"{todo.task}（{todo.owner}）" for todo in todos],
        "todos-swapped": [line(todo, language) for todo in swapped],
    }
    return {name: "\n".join(listed) for name, listed in made.items()}


def fill_in(case: dict[str, Any]) -> dict[str, Any]:
    """A case as it stands in its file, with `{minutes}` and `{todos...}` replaced and the truth added. Raises ValueError."""
    asked = Minutes.model_validate(case["minutes"])
    text, found = minutes(asked.seed, asked.todos, asked.language)
    return {**_replaced(case, {"minutes": text, **answers(found)}), "minutes": found.model_dump()}


def _replaced(value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, texts) for item in value]
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(f"{{{name}}}", text)
    return value
