"""Conversations as files: one page that needs nothing else and runs nothing, and JSON that is read again."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy
import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.plugin import InputError
from modelgraft.records.conversation import ConversationType
from modelgraft.records.conversation_page import conversation_page
from modelgraft.records.record_type import Reading
from modelgraft.records.shipped import SHIPPED
from modelgraft.records.writing import write_value
from support.command import commands

HARM = '<script>alert("1")</script> & <img src=x onerror=alert(1)> "\' </article>'


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (height, width, 3), numpy.uint8))


def sound(rate: int = 24_000) -> mg.Audio:
    return mg.Audio((0.3 * numpy.sin(numpy.arange(rate) / 9)).astype(numpy.float32)[None], rate)


def film() -> mg.Video:
    return mg.Video(numpy.random.default_rng(1).integers(0, 256, (5, 32, 48, 3), numpy.uint8), 10.0)


def talk() -> tuple[dict[str, object], ...]:
    return (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": noise(33, 21)}, {"type": "text", "text": HARM}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "A\nB"}, {"type": "audio", "audio": sound()}, {"type": "video", "video": film()}],
            "time": "2026-01-31T12:30:00+00:00",
            "nodes": {"look/eye": 1.5, "asks": 0.0002},
        },
    )


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]


def test_whatever_was_said_is_text():
    """No tag of a message becomes one of the page, and the page lets nothing run or be fetched."""
    page = Page(conversation_page(talk()))
    assert not page.all("script")
    assert [found["src"][:11] for found in page.all("img") if found["src"]] == ["data:image/"]
    assert HARM in page.said
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    (policy,) = [found["content"] for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    addresses = [value for _, found in page.tags for name, value in found.items() if name in ("src", "href") and value]
    assert all(value.startswith(("data:", "#")) for value in addresses)


def test_media_lie_in_the_page_and_say_what_they_are():
    """A drawing as it is, a sound and a film as players of their kinds, each told in words as well."""
    page = Page(conversation_page(talk()))
    (picture,), (player,), (shown,) = page.all("img"), page.all("audio"), page.all("video")
    assert picture["alt"] == "picture of 33 x 21 (You, message 2)"
    held = base64.b64decode(str(picture["src"]).partition(",")[2])
    import io

    assert numpy.array_equal(numpy.asarray(Image.open(io.BytesIO(held))), numpy.asarray(noise(33, 21)))
    assert (str(player["src"])[:16], "controls" in player) == ("data:audio/mpeg;", True)
    assert (str(shown["src"])[:15], shown["aria-label"]) == ("data:video/mp4;", "video of 5 frames 48 x 32, 500 ms (Model, message 3)")


def test_a_photograph_is_no_larger_than_a_screen_and_a_sound_of_an_odd_rate_is_a_wav():
    page = Page(conversation_page(({"role": "user", "content": [{"type": "image", "image": noise(2000, 900)}]},)))
    (picture,) = page.all("img")
    assert str(picture["src"]).startswith("data:image/webp;")
    assert picture["alt"] == "picture of 2000 x 900 (You, message 1)"
    (player,) = Page(conversation_page(({"role": "user", "content": [{"type": "audio", "audio": sound(9_999)}]},))).all("audio")
    assert str(player["src"]).startswith("data:audio/wav;")


def test_roles_times_and_nodes_are_told():
    page = conversation_page(talk(), about="by companion")
    assert "by companion" in page
    assert re.findall(r'<article class="(\w+)"', page) == ["system", "user", "assistant"]
    assert '<time datetime="2026-01-31T12:30:00+00:00">31 Jan 2026, 12:30</time>' in page
    assert "<summary>1 node, 1.50 s</summary>" in page
    assert "1 more, each below a millisecond" in page


def test_a_role_and_a_time_are_no_markup_either():
    page = conversation_page(({"role": '"><b>', "content": "x", "time": '"><i>'},))
    assert not Page(page).all("b") + Page(page).all("i")


def test_what_is_written_as_json_is_read_again(tmp_path):
    """With its media: pictures exactly, sounds to the last of 16 bits; times and nodes stand there too."""
    write_value(talk(), tmp_path / "talk.json")
    back = ConversationType().read(json.loads((tmp_path / "talk.json").read_text()), Reading("talk", types=SHIPPED))
    _, asked, answer = back
    assert numpy.array_equal(numpy.asarray(asked["content"][0]["image"]), numpy.asarray(noise(33, 21)))
    assert abs(answer["content"][1]["audio"].samples - sound().samples).max() < 2**-14
    assert len(answer["content"][2]["video"].frames) == 5
    assert (answer["time"], answer["nodes"]) == ("2026-01-31T12:30:00+00:00", {"look/eye": 1.5, "asks": 0.0002})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user", "content": [{"type": "image", "image": "data:image/png;base64,###"}]}, "holds no file"),
        ({"role": "user", "content": [{"type": "image", "image": "data:image/png,abc"}]}, "does not begin with data:KIND;base64,"),
        ({"role": "user", "content": [{"type": "image", "image": "data:image/png;base64,aGVsbG8="}]}, "no picture that can be read"),
        ({"role": "user", "content": "x", "time": 3}, "time is 3, wanted a text"),
        ({"role": "user", "content": "x", "nodes": ["a"]}, "nodes is .*, wanted the seconds of each by its name"),
        ({"role": "user", "content": "x", "mood": "good"}, "a mapping of exactly"),
    ],
)
def test_what_is_no_message_is_told_with_its_place(message, said):
    with pytest.raises(InputError, match=said) as caught:
        ConversationType().read([{"role": "user", "content": "x"}, message], Reading("talk", types=SHIPPED))
    assert "talk message 1" in str(caught.value)


GRAPH = """# Say it back.
modelgraft: 1
inputs: {talk: conversation}
nodes: {big: {use: toy/upper, in: {text: inputs.text}}}
outputs: {talk: inputs.talk, text: big}
""".replace("inputs: {talk: conversation}", "inputs: {talk: conversation, text: {type: text, default: a}}")


def test_an_output_goes_into_a_page_with_what_ran(monkeypatch, tmp_path, capsys):
    """`run --output talk=FILE.html`: one file; a text still goes into .html as it is."""
    run = commands(monkeypatch, tmp_path, capsys)
    Path("talk.yaml").write_text(GRAPH)
    code, _, err = run("run", "talk.yaml", "--quiet", "--input", "talk=Hello", "--output", "talk=talk.html", "--output", "text=a.html")
    assert (code, "wrote talk to talk.html" in err) == (0, True)
    assert "Hello" in Page(Path("talk.html").read_text()).said
    assert "<time " in Path("talk.html").read_text()
    assert Path("a.html").read_text() == "A\n"
    code, _, err = run("run", "talk.yaml", "--input", "talk=Hello", "--output", "talk=talk.png")
    assert (code, "goes into a file that ends in .json, .html" in err) == (1, True)
