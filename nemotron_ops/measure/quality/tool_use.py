"""Task: the right tool with the right arguments, or none where none fits. Seeded random numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from nemotron_ops.measure.quality.item import Answer, Call, Item

CITIES = (
    *("Oslo", "Lima", "Cairo", "Kyoto", "Quito", "Turin", "Perth", "Riga", "Accra", "Porto", "Dakar", "Bern"),
    *("Hanoi", "Malmo", "Tunis", "Sofia", "Cusco", "Delhi", "Turku", "Nantes", "Leeds", "Osaka", "Boston", "Minsk"),
)
COINS = ("EUR", "USD", "JPY", "NOK", "CHF", "BRL", "INR")
NAMES = ("Ada", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hal", "Ida", "Jon", "Kim", "Lea", "Max", "Nora")
TOPICS = (
    *("the budget", "the new kitchen", "Friday's trip", "the choir", "the old bridge", "a lost key", "the garden"),
    *("next week", "the piano", "your letter"),
)
PLAIN = (
    "Name {n} animals.", "Which number comes after {n}?", "Is {n} an even number?", "Say hello {n} times in French.",
    "Name a fruit with {n} seeds or more.", "Write {n} backwards.",
)  # fmt: skip


def _tool(name: str, about: str, **fields: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
TOOLS = (
    _tool("get_weather", "Weather of a city.", city=TEXT, unit={"type": "string", "enum": ["celsius", "fahrenheit"]}),
    _tool("convert_money", "Converts an amount.", amount=WHOLE, source=TEXT, target=TEXT),
    _tool("set_timer", "Starts a kitchen timer.", minutes=WHOLE),
    _tool("send_message", "Sends a message to a person.", recipient=TEXT, subject=TEXT),
)


def item(n: int, draws: random.Random) -> Item:
    """Item `n`: in rotation the four tools, then none that fits; the tools come in random order."""
    tools = tuple(draws.sample(TOOLS, len(TOOLS)))
    if n % 5 == 4:
        prompt = f"{draws.choice(PLAIN).format(n=draws.randrange(2, 30))} Answer in words."
        answer = Answer(content="In words.")
        return Item(id=f"tool-use-{n}", prompt=prompt, tools=tools, check="no_call", expected={}, solution=answer)
    prompt, name, arguments = _wanted(draws, n % 5)
    answer = Answer(calls=(Call(name=name, arguments=json.dumps(arguments)),))
    expected = {"name": name, "arguments": arguments}
    return Item(id=f"tool-use-{n}", prompt=prompt, tools=tools, check="call", expected=expected, solution=answer)


def _wanted(draws: random.Random, kind: int) -> tuple[str, str, dict[str, Any]]:
    match kind:
        case 0:
            city, unit = draws.choice(CITIES), draws.choice(("celsius", "fahrenheit"))
            ask = draws.choice(
                ("How warm is it in {}, in {}?", "What is the weather in {}? Use {}.", "{} today, in {}?")
            )
            return ask.format(city, unit), "get_weather", {"city": city, "unit": unit}
        case 1:
            (source, target), amount = draws.sample(COINS, 2), draws.randrange(2, 5000)
            arguments = {"amount": amount, "source": source, "target": target}
            return f"How many {target} are {amount} {source}?", "convert_money", arguments
        case 2:
            minutes = draws.randrange(1, 120)
            return f"Wake me in {minutes} minutes, the oven is on.", "set_timer", {"minutes": minutes}
        case _:
            name, topic = draws.choice(NAMES), draws.choice(TOPICS)
            prompt = f'Write a message to {name} with the subject "{topic}".'
            return prompt, "send_message", {"recipient": name, "subject": topic}
