"""What a model writes where it means to call a function, and what clients must get of it: 24 scripts for a model.

`text` and `calls` are what a client gets at the level `safe`; calls of None are whatever right call the engine's
grammar makes of it. In one script no token may be followed by two others, and tokens of one script stand in no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemotron_ops.models.synthetic.scripts import END, END_THINK, Script

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer"},
    },
    "required": ["city"],
}
TOOLS: dict[str, dict[str, Any]] = {
    "get_weather": WEATHER,
    "now": {"type": "object", "properties": {}},
    "set_mode": {
        "type": "object",
        "properties": {"mode": {"anyOf": [{"type": "string", "enum": ["edit", "view"]}, {"type": "integer"}]}},
        "required": ["mode"],
    },
}
Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """One script: the tokens of its answer, and what comes of them. `think` is written before the thinking ends."""

    answer: tuple[str, ...]
    think: tuple[str, ...] = ()
    text: str = ""
    calls: tuple[Call, ...] | None = ()
    steps: tuple[str, ...] = ()
    invalid: bool = False


def xml(city: str, *more: str, name: str = "get_weather") -> str:
    """A call as Nemotron 3 writes it, without the tags around it; `more` are further parameters, `name=value`."""
    values = [f"city={city}", *more] if city else list(more)
    pairs = (value.partition("=") for value in values)
    return (
        f"<function={name}>\n" + "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, _, v in pairs) + "</function>"
    )


def weather(city: str, **more: Any) -> Call:
    """A call of get_weather."""
    return "get_weather", {"city": city, **more}


OPEN, CLOSE = "<tool_call>", "</tool_call>"
BROKEN: dict[str, Broken] = {
    "alpha": Broken(answer=(OPEN, f"\n{xml('Alta')}\n", CLOSE), calls=(weather("Alta"),)),
    "bravo": Broken(answer=(xml("Bodo"),), calls=(weather("Bodo"),), steps=("extract",)),
    "charlie": Broken(
        answer=("A look", " outside.\n", xml("Drammen")), text="A look outside.", calls=(weather("Drammen"),),
        steps=("extract",),
    ),
    "delta": Broken(
        answer=(xml("Elverum", "days=3"),), calls=(weather("Elverum", days=3),), steps=("extract", "coerce")
    ),
    "echo": Broken(
        answer=('{"name": "get_weather", "arguments": {"city": "Florø"}}',),
        text='{"name": "get_weather", "arguments": {"city": "Florø"}}',
    ),
    "foxtrot": Broken(
        answer=('```json\n{"name": "get_weather", "arguments": {"city": "Gol"}}\n```',),
        text='```json\n{"name": "get_weather", "arguments": {"city": "Gol"}}\n```',
    ),
    "golf": Broken(
        answer=('<invoke name="get_weather"><parameter name="city">Hamar</parameter></invoke>',),
        calls=(weather("Hamar"),), steps=("extract",),
    ),
    "hotel": Broken(
        answer=("One writes", f" `{xml('Ibestad')}`", " for that,"), text=f"One writes `{xml('Ibestad')}` for that,"
    ),
    "india": Broken(
        answer=(xml("Jevnaker"), "\nand so on,"), text=f"{xml('Jevnaker')}\nand so on,"
    ),
    "juliett": Broken(answer=(xml("Kiel", name="get_moon"),), text=xml("Kiel", name="get_moon")),
    "kilo": Broken(
        answer=("All is well", ",\n</parameter>\n</function>\n</tool_call>"),
        text="All is well,\n</parameter>\n</function>\n</tool_call>",
    ),
    "lima": Broken(
        answer=(OPEN, f"\n{xml('Lom', 'unit=kelvin')}\n", CLOSE), calls=(weather("Lom", unit="kelvin"),), invalid=True
    ),
    "mike": Broken(
        answer=(OPEN, f"\n{xml('Moss', 'unit=celsius')}\n", CLOSE), calls=(weather("Moss", unit="celsius"),)
    ),
    "november": Broken(
        answer=(xml("Narvik", name="getWeather"),), calls=(weather("Narvik"),), steps=("extract", "name")
    ),
    "oscar": Broken(answer=(xml("", "days=4"),), text=xml("", "days=4")),
    "papa": Broken(
        answer=(xml("Porsgrunn"), f"\n{xml('Rjukan')}"), calls=(weather("Porsgrunn"), weather("Rjukan")),
        steps=("extract",),
    ),
    "quebec": Broken(answer=(OPEN, f"\n{xml('', name='now')}\n", CLOSE), calls=(("now", {}),)),
    "romeo": Broken(answer=(OPEN, '\n{"name": "get_weather", "arguments": {"city": "Skien"}}\n', CLOSE), calls=None),
    "sierra": Broken(answer=(OPEN, f"\n{xml('Tana', name='getweather')}\n", CLOSE), calls=None),
    "tango": Broken(
        answer=(OPEN, f"\n{xml('', 'mode=edit', name='set_mode')}\n", CLOSE), calls=(("set_mode", {"mode": "edit"}),)
    ),
    "uniform": Broken(
        answer=(xml("Ulvik", "unit=celsius", "unit=fahrenheit"),), calls=(weather("Ulvik", unit="fahrenheit"),),
        steps=("extract",),
    ),
    "victor": Broken(
        answer=('[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Voss"}}]',), calls=(weather("Voss"),),
        steps=("extract",),
    ),
    "whiskey": Broken(answer=("Nothing", " to call here,"), text="Nothing to call here,"),
    "xray": Broken(answer=(xml("Ørsta", "days=soon"),), text=xml("Ørsta", "days=soon")),
}  # fmt: skip


def scripts() -> dict[str, Script]:
    """The scripts, each behind its keyword."""
    return {
        word: Script(
            keywords=(word,), think=(*one.think, f"Idea-{n}", f"-of-{n}\n", END_THINK), answer=(*one.answer, END)
        )
        for n, (word, one) in enumerate(BROKEN.items())
    }
