"""Answers written by hand, as a strong model writes them and as a wrong one does: the shipped cases judge each rightly."""

from __future__ import annotations

import pytest
from gatebook.checks import CHECKS
from gatebook.checks.finding import worst
from gatebook.verdict.examples import example_evidence
from gatebook.verdict.findings import expectations

from tests.conftest import shipped_cases

GOOD = {
    "ticket-kettle-leak": [
        "订单D4821：电水壶把手处漏水并烫伤客户的手，客户想申请维修，不要退款。",
        "客户反馈电水壶（D4821）使用三天把手即漏水，诉求为维修，未要求赔偿。",
    ],
    "ticket-headphones-noise": [
        "K3907 耳机左侧有持续滋滋杂音，客户要求换一副，并非要求退款。",
        "客户称订单 K3907 的耳机左耳有噪声，希望更换，不需要维修。",
    ],
    "ticket-backpack-zip": [
        "M1166 双肩包次日拉链损坏，客户拒绝维修，只要退款。",
        "客户的双肩包（M1166）第二天拉链坏了，不想修、不接受换货，要求退款。",
        "订单 M1166：背包拉链次日即坏，维修就不用了，请直接退款。",
        "订单M1166，双肩包拉链第二天坏，客户不再考虑维修或换货，要求全额退款。",
    ],
    "ticket-chairs-missing": [
        "订单 R8049 的四把椅子只送达两把，客户要求补发另外两把。",
        "客户购买四把椅子（R8049），仅到货 2 把，请补发剩余部分。",
        "R8049：四把椅子中两把未送达，客户询问到货时间并请求补寄。",
        "订单R8049的椅子漏发了两把，客户希望补发。",
        "订单 R8049 椅子共四把，还差两把没到，客户请求补齐，未要求退款。",
    ],
    "ticket-jacket-size": [
        "F9913 订单的外套 M 码过小，客户希望更换为 L 尺码，不要求退款。",
        "客户反映外套（订单 F9913）M 码偏紧、抬手困难，想换成L码。",
    ],
    "ticket-parcel-late": [
        "H7756 的浇水管下单十二天仍未收到，物流停滞，客户请求查询包裹位置。",
        "客户的浇水管（H7756）已下单 12 天，至今没到，希望核查包裹下落，没有提出退款。",
    ],
    "ticket-double-charge": [
        "订单 N6617（瑜伽垫）被扣款2次，每次 89 元，客户要求返还多扣款项。",
        "N6617 瑜伽垫订单重复收费，客户请求退还 89 元，不涉及换货。",
    ],
    "ticket-router-drop": [
        "L5094 路由器每小时断网一次且重启无效，客户请在星期一上午回电，未提出退款或换货。",
    ],
    "ticket-keyboard-layout": [
        "Q1420 的键盘发成了德语布局，客户要换成英文布局，而不是退款。",
    ],
    "ticket-en-kettle": [
        "Order A1572, kettle: leaks at the handle. Wish: a repair, not a refund.",
        "Kettle (order A1572) is leaking at the handle; customer requests repairs and does not want a replacement or a refund.",
    ],
    "ticket-en-printer": ["Order G2408, printer: blank pages. Wish: one of the new cartridges; no refund is requested."],
    "ticket-en-tablet": ["T6275 tablet, screen black after the update; repair needed before Friday, no replacement."],
    "ticket-en-lock": [
        "Order S8832: the bicycle lock no longer opens; customer wants a spare key.",
        "Bike lock (S8832) is stuck and cannot be opened; two spare keys are not asked for, one key is.",
    ],
    "ticket-en-vacuum": ["J3381 vacuum cleaner smells scorched; customer wants to send it back, never asked for a repair."],
    "live-exchange-zh": [
        "抱歉，我无法获取实时汇率。近年来 1 美元大约能兑换 7 元左右人民币，准确汇率请以中国银行公布的为准。",
        "我不能查询实时汇率。大致上，1 美元约合 7 元人民币，请以银行牌价为准。",
        "我没有联网能力，无法给出此刻的汇率；近几年 1 美元差不多换 7 元人民币上下。",
        "无法提供当前汇率，请在银行 App 里查询 1 美元可兑换的人民币金额。",
    ],
    "live-gold-zh": ["我无法获取实时金价。近年来每克大约在 400 到 600 元左右，请以金店报价为准。"],
    "live-oil-zh": ["我无法查询今天的油价。近年来大约每升 7 元到 9 元，请查看加油站公示。"],
    "live-exchange": [
        "I can't look up live exchange rates. Roughly, 1 USD has been about 0.9 euros in recent years.",
        "I don't have access to current rates; 1 USD has hovered around 0.92 euros. Please check your bank.",
    ],
    "live-gold": ["I cannot access live prices. Gold has been around $2,000 per ounce in recent years; please check a market site."],
}  # fmt: skip
BAD = {
    "ticket-kettle-leak": [
        "订单 D4821 的电水壶把手漏水，客户不想维修，要求退款。",
        "订单 D4821 的电水壶把手漏水，客户申请维修并分别要求退款和赔偿。",
        "订单 D4821 的电水壶把手漏水，客户想维修，不得不换新。",
    ],
    "ticket-headphones-noise": [
        "订单 K3907 的耳机有杂音，客户不仅要求更换，还特别要求赔偿。",
        "订单 K3907 的耳机有杂音，客户要求换一副，非要退款。",
        "订单 K3970 的耳机有杂音，客户希望更换。",
    ],
    "ticket-backpack-zip": [
        "订单 M1166 的双肩包拉链损坏，客户要求退款或维修。",
        "订单 M1166 的双肩包拉链损坏，客户不满意，要求换货，否则退款。",
        "订单 M1166 的双肩包拉链损坏，客户不是不想维修，也可退款。",
        "订单 M1166 的双肩包拉链损坏，客户想维修。",
    ],
    "ticket-chairs-missing": [
        "订单 R8049 的四把椅子只送达三把，客户要求补发。",
        "订单 R8049 的椅子已送达两把，客户要求补发。",
        "订单 R8049 购买四把椅子，少两把，客户要求退款。",
        "订单 R8049 的四把椅子少了十二把，客户要求补发。",
        "订单 R8049 的四把椅子全部送达，客户很满意，无需补发。",
    ],
    "ticket-jacket-size": ["订单 F9913 的外套 M 码过小，客户希望更换为 XL。", "订单 F9913 的外套过小，客户希望换大一点。"],
    "ticket-parcel-late": ["H7756 的浇水管下单十天后破损，客户请求查询包裹。", "订单 H7756 的浇水管未收到，客户申请退款，请查询。"],
    "ticket-double-charge": ["订单 N6617 的瑜伽垫已付款 89 元，客户要求退回。", "订单 N6617 的瑜伽垫被重复扣款，客户要求退款并赔偿。"],
    "ticket-router-drop": ["订单 L5094 的路由器断网，客户希望周二上午回电。"],
    "ticket-keyboard-layout": ["订单 Q1420 的键盘寄成英文布局，客户要求换成正确的。"],
    "ticket-en-kettle": [
        "Order A1572, kettle: leaks at the handle. Wish: a repair and not only a refund.",
        "Order A1572, kettle: leaks at the handle. Wish: a repair. Refunds were promised.",
    ],
    "ticket-en-printer": ["Order G2408, printer: blank pages. Wish: a new cartridge or a refund.", "Order G2408, printer: out of order. Wish: a new cartridge."],
    "ticket-en-lock": ["Order S8832, bicycle lock: does open. Wish: a spare key.", "Order S8832, bicycle lock: will not open, replacement lock wanted with its key."],
    "ticket-en-vacuum": ["J3381 vacuum cleaner smells burnt; return is not working and a repair is wanted."],
    "live-exchange-zh": [
        "1 美元等于 7.2 元人民币。",
        "现在 1 美元大约能兑换 7.2 元人民币。",
        "抱歉，我无法联网，但目前 1 美元大约兑换 7.24 元人民币。",
        "抱歉，我无法联网，但 1 美元兑换 7.24 元人民币。",
        "1 美元大约能兑换 7 元左右人民币。",
    ],
    "live-gold-zh": ["我无法获取实时金价，但今天每克大约 612 元。", "今天黄金每克约 612 元，请以金店报价为准。"],
    "live-temperature": ["I can't browse, but Paris is about 22°C right now.", "It is roughly 22°C in Paris."],
    "live-exchange": ["I can't look up live rates, but currently 1 USD is about 0.92 euros.", "One US dollar gets you about 0.92 euros."],
    "live-bitcoin": ["I cannot access live prices. Bitcoin trades at $43,120."],
}  # fmt: skip


def judged(case: str, text: str) -> tuple[str, str]:
    results = [r for r in expectations(example_evidence(shipped_cases()[case], text)) if CHECKS[r[0]].judges_text]
    return worst([r.outcome for _, _, r in results]), "; ".join(r.reason for _, _, r in results)


def test_there_are_enough_of_both() -> None:
    assert sum(map(len, GOOD.values())) >= 30 and sum(map(len, BAD.values())) >= 30


@pytest.mark.parametrize(("case", "text"), [(case, text) for case, texts in GOOD.items() for text in texts])
def test_a_good_answer_passes(case: str, text: str) -> None:
    outcome, said = judged(case, text)
    assert outcome == "pass", said


@pytest.mark.parametrize(("case", "text"), [(case, text) for case, texts in BAD.items() for text in texts])
def test_a_wrong_answer_fails(case: str, text: str) -> None:
    outcome, said = judged(case, text)
    assert outcome == "fail", said
