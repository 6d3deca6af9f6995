"""A numbered product specification of any length, in which some modules implement the limits of section 12.

The article's long-context task: which modules implement them, with clause numbers. Clauses of other modules mention
section 12 without implementing it, so that a search for the number is not enough.
"""

from __future__ import annotations

import hashlib
import random

from gatebook.config.documents import Question

SECTION = 12
IMPLEMENTING = 3
LEAST_SECTIONS = 14

_MODULES = {
    "en": ["login session", "offline queue", "image upload", "payment page", "search box", "message centre", "report export", "address book",
           "coupon wallet", "voice input", "dark theme", "crash reporter", "family account", "print service", "map view", "help desk"],
    "zh": ["登录态同步", "离线消息队列", "图片上传", "支付页面", "搜索框", "消息中心", "报表导出", "通讯录",
           "优惠券钱包", "语音输入", "深色主题", "崩溃上报", "家庭账号", "打印服务", "地图视图", "在线客服"],
}  # fmt: skip
_LIMITS = {
    "en": ["devices with less than 2 GB of memory", "systems older than Android 9", "browsers without WebSocket", "networks behind a proxy"],
    "zh": ["内存小于 2 GB 的设备", "低于 Android 9 的系统", "不支持 WebSocket 的浏览器", "经过代理的网络"],
}  # fmt: skip
_FILLER = {
    "en": ["The {m} shows at most {n} rows a page.", "Texts of the {m} are kept for {n} days.", "The {m} asks again after {n} minutes.",
           "Icons of the {m} are {n} pixels wide.", "The {m} writes one log line for every {n} events."],
    "zh": ["{m}每页最多显示{n}行。", "{m}的文字保存{n}天。", "{m}在{n}分钟后再次询问。", "{m}的图标宽{n}像素。", "{m}每{n}个事件写一行日志。"],
}  # fmt: skip
_SAYS = {
    "en": ("{i}. {m}", "{i}. Compatibility limits", "{c} This section limits {x}.", "{c} The {m} enforces the limit of clause {l} and refuses {x}.",
           "{c} The {m} is not affected by clause {l}.", "Product specification",
           "Which modules implement the limits of section 12? Name each module with the number of the clause that does it."),
    "zh": ("{i}. {m}", "{i}. 兼容性限制", "{c} 本节限制{x}。", "{c} {m}落实第 {l} 条的限制，拒绝{x}。", "{c} {m}不受第 {l} 条影响。", "产品需求规格说明书",
           "第12节提到的兼容性限制，在哪些模块有具体实现约束？请逐个写出模块名和对应的条款编号。"),
}  # fmt: skip


def text(language: str, seed: int, chars: int) -> str:
    """The specification with about `chars` characters, never fewer sections than the question needs."""
    sections = LEAST_SECTIONS + seed % 3
    limits = _section(language, seed, SECTION, 0)
    each = (chars - len(limits) - len(_SAYS[language][5])) // (sections - 1)
    made, used = [_SAYS[language][5]], 0
    for i in range(1, sections + 1):
        if i == SECTION:
            made.append(limits)
            continue
        room = each * (i if i < SECTION else i - 1) - used  # what one section lacks, the next one has
        made.append(_section(language, seed, i, room))
        used += len(made[-1]) + 1
    return "\n".join(made)


def question(language: str, seed: int) -> Question:
    """Right answers name every implementing module and its clause."""
    found = [(_module(language, seed, i), f"{i}.{_clause(seed, i)}") for i in _implementing(seed)]
    answers = tuple(word for pair in found for word in pair)
    return Question(_SAYS[language][6], answers, tuple(f"{clause} {module}" for module, clause in found))


def _section(language: str, seed: int, i: int, size: int) -> str:
    says, rng = _SAYS[language], _random(seed, f"section {i}")
    if i == SECTION:
        head = says[1].format(i=i)
        return "\n".join([head, *(says[2].format(c=f"{i}.{k}", x=x) for k, x in enumerate(_LIMITS[language], 1))])
    module = _module(language, seed, i)
    lines, k = [says[0].format(i=i, m=module)], 0
    used = len(lines[0]) + 1
    while True:
        k += 1
        limit = rng.randrange(len(_LIMITS[language]))
        told = {"c": f"{i}.{k}", "m": module, "l": f"{SECTION}.{limit + 1}", "x": _LIMITS[language][limit]}
        filler = f"{i}.{k} " + rng.choice(_FILLER[language]).format(m=module, n=rng.randrange(3, 60))
        if i in _implementing(seed):
            line = says[3].format(**told) if k == _clause(seed, i) else filler
        else:
            line = says[4].format(**told) if k == 2 and i % 4 == 0 else filler
        if k > 3 and used + len(line) > size:
            return "\n".join(lines)
        lines.append(line)
        used += len(line) + 1


def _implementing(seed: int) -> list[int]:
    """Section numbers: one before, one around and one after the middle, never section 12 itself."""
    rng = _random(seed, "implementing")
    return [rng.randrange(1, 5), rng.randrange(6, 11), rng.randrange(13, LEAST_SECTIONS + 1)]


def _clause(seed: int, i: int) -> int:
    return _random(seed, f"clause {i}").randrange(1, 4)


def _module(language: str, seed: int, i: int) -> str:
    order = _random(seed, "modules").sample(range(len(_MODULES[language])), len(_MODULES[language]))
    number = order[(i - 1) % len(order)]
    return _MODULES[language][number] + ("" if i <= len(order) else f" {i}")


def _random(seed: int, purpose: str) -> random.Random:
    digest = hashlib.sha256(f"specification/{seed}/{purpose}".encode()).hexdigest()
    return random.Random(int(digest[:16], 16))
