"""Broken text is caught, and text that people write is not: every false alarm here would stop a healthy deployment."""

from __future__ import annotations

import json

import pytest
from gatebook.checks.text import broken_characters, degenerate, leaked_markup, noise
from hypothesis import given
from hypothesis import strategies as st

SMALL_TABLE = "| Model | Size | Speed |\n|-------|------|-------|\n| small | 135 MB | fast |\n| large | 4 GB | slow |\n"
HEALTHY = {
    "English": "The sky is blue because air scatters short waves of sunlight more than long ones. At sunset the light travels further, so the blue is gone and red remains.",
    "one word": "Paris.",
    "a number": "42",
    "Chinese": "灯塔看守人每天傍晚点亮灯火，为远处的船只指引方向。他喜欢下雨的夜晚，因为雨声让孤独变得温柔。许多年后，人们仍然记得那一束穿过雾气的光。",
    "Chinese and English": "在 Kubernetes 中部署 vLLM 时，请先确认 GPU 驱动版本，再用 Helm chart 安装；API 网关的 timeout 建议设为 60 秒，并打开 Prometheus metrics。",
    "Chinese, English and Greek": "能量E与频率ν的关系是E=hν，其中h是普朗克常数，λ是波长，c是光速，所以ν=c/λ，动量p=h/λ，角频率ω=2πν。",
    "English formulas": "Let α, β and γ be the angles of a triangle; then α + β + γ = π. If f(x) = μ + σ·x, the variance of f is σ², so Δf = σ·Δx and ∂f/∂x = σ.",
    "Chinese with micrometres": "厚度 5 µm，时间 10 µs，电流 3 µA，体积 2 µL，质量 7 µg，长度 12 µm，间隔 4 µs，电容 8 µF，共八项。",
    "Chinese with both ways of spelling": "你（ㄋㄧˇ，nǐ）好（ㄏㄠˇ，hǎo），茶（ㄔㄚˊ，chá）是（ㄕˋ，shì）热（ㄖㄜˋ，rè）的（˙ㄉㄜ，de）。",
    "Japanese": "東京タワーは1958年に完成した電波塔です。エッフェル塔をモデルにしており、高さは333メートルあります。スマートフォンのアプリでVR体験もできますよ。",
    "Japanese with wide letters": "ＷｅｂサイトのＵＲＬを入力して、ＯＫボタンを押してください。ＩＤとパスワードはＥメールで届きます。",
    "French": "« L'été, où vas-tu ? » demanda-t-elle. — À Noël, peut-être ; le cœur a ses raisons, et l'œuvre naïve coûte 25 €, c'est-à-dire très peu.",
    "German": "Die Straße führt über die Brücke nach Österreich; größere Fahrzeuge müssen außen herum fahren.",
    "Polish and Vietnamese": "Zażółć gęślą jaźń. Tiếng Việt có sáu thanh điệu: ngang, huyền, sắc, hỏi, ngã, nặng.",
    "Spanish in capitals": "¡ATENCIÓN! LA REUNIÓN ESPAÑOLA SERÁ MAÑANA, ¿VENDRÁS TÚ TAMBIÉN?",
    "Korean": "안녕하세요! 주문하신 상품은 내일 발송될 예정입니다. 배송 조회는 앱의 '내 주문' 메뉴에서 확인하실 수 있습니다.",
    "Russian": "Небо голубое, потому что воздух рассеивает короткие волны солнечного света сильнее, чем длинные.",
    "Arabic with English": "يمكنك تثبيت Python من الموقع الرسمي ثم تشغيل الأمر pip install numpy في سطر الأوامر.",
    "a word in ten languages": "Thank you: Chinese 谢谢, Korean 감사합니다, Russian спасибо, Arabic شكرا, Greek ευχαριστώ, Japanese ありがとう, Hindi धन्यवाद, Thai ขอบคุณ.",
    "emoji": "Great idea! 🎉🎉🎉 Let's go 🚀 and bring the family 👨‍👩‍👧‍👦 ❤️ 👍🏽",
    "code": "```python\ndef add(a: int, b: int) -> int:\n    if a == 0:\n        for _ in range(3):\n            if b > 0:\n                return b\n    return a + b\n```",
    "code with a list of zeros": "```python\ncounts = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\nfor word in words:\n    counts[len(word)] += 1\nprint(counts)\n```",
    "F#": 'let result = [1; 2; 3] |> List.map (fun x -> x * 2)\nprintfn "%A" <| List.rev result',
    "shell": "$ ls -la\n----------\n$ git log --oneline | head -5",
    "small table": SMALL_TABLE,
    "table of eight columns": "| Day | 1 | 2 | 3 | 4 | 5 | 6 | 7 |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n| Ana | 5 | 3 | 8 | 9 | 1 | 4 | 7 |\n| Tom | 2 | 6 | 4 | 3 | 8 | 5 | 9 |\n",
    "table of wide columns": "| Name".ljust(22) + "| Role".ljust(22) + "| City |\n|" + ("-" * 21 + "|") * 2 + "-" * 21 + "|\n| Ana".ljust(22) + "| cook".ljust(22) + "| Rome |\n",
    "centred table": "| Mon | Tue | Wed | Thu | Fri | Sat | Sun |\n| :---: | :---: | :---: | :---: | :---: | :---: | :---: |\n| 8 | 8 | 7 | 8 | 6 | 0 | 0 |\n",
    "JSON": json.dumps({"name": "Ana", "tags": ["a", "b"], "address": {"city": "Rome", "zip": "00100"}}, indent=2),
    "JSON of numbers, indented by 4": json.dumps({"rows": [list(range(10)), list(range(10, 20))]}, indent=4),
    "JSON of objects": json.dumps([{"id": n, "name": f"user{n}", "active": True, "role": "admin"} for n in range(8)], indent=2),
    "numbered list": "\n".join(f"{n}. {word}" for n, word in enumerate(["Wash the rice.", "Add water.", "Bring it to a boil.", "Wait.", "Serve."], 1)),
    "one to fifty": ", ".join(str(n) for n in range(1, 51)),
    "one to fifty in lines": "\n".join(str(n) for n in range(1, 51)),
    "times table": "\n".join(f"{a} x {b} = {a * b}" for a in (7, 8) for b in range(1, 11)),
    "binary": "37 in binary is 100101, and 85 is 1010101; in 16 bits they are 0000000000100101 and 0000000001010101.",
    "poem with a refrain": "The lamp is lit, the night is long,\nand rain, and rain, and rain again.\nThe keeper hums a sailor's song,\nand rain, and rain, and rain again.\nThe ships go by, the ships are gone,\nand rain, and rain, and rain again.\nHe waits until the night is done,\nand rain, and rain, and rain again.",
    "laughter": "Ha ha ha ha, that is a good one! 哈哈哈哈哈",
    "mathematics": "$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$ and $\\sum_{n=1}^{\\infty} \\frac{1}{n^2} = \\frac{\\pi^2}{6}$.",
    "a web page": "<ul>\n  <li><b>Price</b>: <s>20 €</s> 15 €</li>\n  <li>Size: M</li>\n</ul>",
}  # fmt: skip


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY.keys())
def test_healthy_text_is_not_degenerate(text: str) -> None:
    assert degenerate(text) is None


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY.keys())
def test_healthy_text_has_no_broken_characters(text: str) -> None:
    assert broken_characters(text, cut=False) is None


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY.keys())
def test_healthy_text_has_no_leaked_markup(text: str) -> None:
    assert leaked_markup(text) is None


SENTENCE = "The fisherman sailed out before dawn and "
DEGENERATE = {
    "F01 bang": "!" * 32,
    "F01 bang after a word": "The " + "!" * 60,
    "F01 bang with spaces": "! " * 30,
    "F01 zeros": "0" * 40,
    "F01 line breaks": "\n" * 60 + "a",
    "F01 spaces": "Hello" + " " * 100,
    "F03 script soup": "The capital isのрас한εthe 中dé한наのαß国кthe 한εла のсth中é нα国 의εр のт한 中κ",
    "F03 soup after good words": SENTENCE * 2 + "中εр한のт국кαの한рε中наκ한тのε中р한кの한рε中наκ한тのε中р한к",
    "F07 phrase": "and then " * 12,
    "F07 sentence": "I am a helpful assistant that can help you. " * 6,
    "F07 Chinese phrase": "我是一个助手，" * 12,
    "F07 two characters over and over": "好的" * 40,
    "F07 two letters over and over": "no" * 40,
    "F07 loop after a good beginning": "Once upon a time there was a fisherman who lived by the sea. " + "He went to the sea. " * 20,
    "F07 long loop": " ".join(["The model answers that the storm was coming and the boat was far away from home and the sea was cold today."] * 4),
    "F07 ruler of a table without end": "| Name | Age |\n" + "| --- " * 100,
    "F07 rulers without a table": "| Name | Age |\n" + "|---|---|\n" * 40,
    "F07 growing loop with a counter": "".join(f"Item {n}: the same thing said over and over without end. " for n in range(60)),
}  # fmt: skip


@pytest.mark.parametrize("text", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_text_is_caught(text: str) -> None:
    assert degenerate(text)


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY.keys())
def test_healthy_text_is_no_noise(text: str) -> None:
    assert noise(text) is None


@pytest.mark.parametrize("text", ["@#" * 28, "。，" * 20, "Hi: " + "#$%&" * 14, "🌊💧" * 12])
def test_signs_over_and_over_are_noise(text: str) -> None:
    assert noise(text)


@pytest.mark.parametrize(
    "text",
    [
        "Yes! " * 4 + "...",
        "a + b = c; (a) [b] {c}",
        "| a | b |\n|---|---|\n" * 3,
        "1.0.1.0.1.0.1.0.1.0.1.0",
        "哈哈！" * 3,
    ],
)
def test_signs_of_a_text_are_no_noise(text: str) -> None:
    assert noise(text) is None


@pytest.mark.parametrize(("name", "text"), DEGENERATE.items(), ids=DEGENERATE.keys())
def test_a_loop_is_no_noise_because_healthy_small_models_loop(name: str, text: str) -> None:
    if name.startswith("F07"):
        assert noise(text) is None
    elif not text.isspace() and " " * 9 not in text and "\n" * 9 not in text:
        assert noise(text)


@pytest.mark.parametrize(
    "text",
    [
        "聪\ufffd的人",
        "\ufffd",
        "caf\ufffd is open",
        "cafÃ© au lait",
        "ä½\xa0å¥½ï¼\x8cä¸\x96ç\x95\x8c",
        "Itâ€™s a lovely day",
        "ÐŸÑ€Ð¸Ð²ÐµÑ‚, Ð¼Ð¸Ñ€",
    ],
)
def test_broken_characters_are_caught(text: str) -> None:
    assert broken_characters(text, cut=False)


@pytest.mark.parametrize(
    ("text", "broken"), [("聪明的\ufffd", False), ("\ufffd\ufffd", False), ("聪\ufffd明", True), ("聪明", False)]
)
def test_only_the_last_character_may_be_cut(text: str, broken: bool) -> None:
    assert bool(broken_characters(text, cut=True)) is broken
    assert bool(broken_characters(text, cut=False)) is ("\ufffd" in text)


def test_where_a_broken_character_stands_is_said() -> None:
    assert "at position 3" in str(broken_characters("你好！\ufffd的", cut=False))


LEAKED = {
    "Qwen turn": "Paris.<|im_end|>",
    "next turn": "Paris.<|im_end|>\n<|im_start|>user\n",
    "Llama 3": "Paris.<|eot_id|>",
    "Llama 3 header": "<|start_header_id|>assistant<|end_header_id|>Paris.",
    "GPT": "Paris.<|endoftext|>",
    "Llama 2": "[INST] What? [/INST] Paris.",
    "Llama 2 system": "<<SYS>> be kind <</SYS>> Paris.",
    "Mistral end": "Paris.</s>",
    "Gemma": "Paris.<end_of_turn>",
    "Gemma end": "Paris.<eos>",
    "unknown token": "The <unk> city",
    "DeepSeek": "Paris.<｜end▁of▁sentence｜>",
    "thinking block": "<think>\nThe user asks\n</think>\nParis.",
    "thinking block closed": "The user asks for a city.\n</think>\n\nParis.",
    "empty thinking block": "<think>\n\n</think>\n\nParis.",
    "thinking block cut": "<think> so the user",
    "role header": "assistant\nParis.",
    "role header with a space": " assistant\n\nParis.",
    "tool call": '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>',
}


@pytest.mark.parametrize("text", LEAKED.values(), ids=LEAKED.keys())
def test_leaked_markup_is_caught(text: str) -> None:
    assert leaked_markup(text)


@given(st.text(max_size=300) | st.text("ab 中α한\n|-", max_size=400))
def test_no_text_raises(text: str) -> None:
    for said in (degenerate(text), broken_characters(text, cut=True), leaked_markup(text)):
        assert said is None or said.encode()
