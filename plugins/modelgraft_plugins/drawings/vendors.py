"""Who drew what: packages with their hashes and licences, and which of them train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Use = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Package:
    """An archive of the npm registry: `name@version`, and the sha256 of its file."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """What `npm pack` calls the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True, slots=True)
class DebianPackage(Package):
    """A package of Debian for all architectures. pool: its folder at any mirror, for those who fetch it by hand."""

    pool: str

    @property
    def file(self) -> str:
        """What `apt-get download` calls it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


@dataclass(frozen=True, slots=True)
class Vendor:
    """One hand that drew emoji.

    use      test: never trained on, so that what is learned can be judged on drawings of another hand
    licence  as SPDX writes it;  author, home: whom the licence wants named, and where the drawings come from
    """

    package: Package
    use: Use
    licence: str
    author: str
    home: str


def _drawn(name: str, version: str, sha256: str, *, use: Use, licence: str, author: str, home: str) -> Vendor:
    return Vendor(Package(f"@iconify-json/{name}", version, sha256), use, licence, author, home)


CLIPART = DebianPackage(
    "openclipart-svg", "1:0.18+dfsg-19", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5", pool="pool/main/o/openclipart"
)
CLIPART_LICENCE, CLIPART_HOME = "public domain, as each file says of itself", "https://openclipart.org"

NAMES = Package("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
NAMES_LICENCE = "MIT; the names and keywords are Unicode's CLDR (Unicode-3.0)"

VENDORS: Mapping[str, Vendor] = {
    "twemoji": _drawn(
        "twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        use="train", licence="CC-BY-4.0", author="Twitter, Inc. and other contributors", home="https://github.com/jdecked/twemoji",
    ),
    "noto": _drawn(
        "noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        use="train", licence="Apache-2.0", author="Google Inc.", home="https://github.com/googlefonts/noto-emoji",
    ),
    "noto-v1": _drawn(
        "noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        use="train", licence="Apache-2.0", author="Google Inc.", home="https://github.com/googlefonts/noto-emoji",
    ),
    "fluent-emoji-flat": _drawn(
        "fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        use="train", licence="MIT", author="Microsoft Corporation", home="https://github.com/microsoft/fluentui-emoji",
    ),
    "emojione": _drawn(
        "emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        use="train", licence="CC-BY-4.0", author="Emoji One", home="https://github.com/EmojiTwo/emojitwo",
    ),
    "fluent-emoji": _drawn(
        "fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        use="test", licence="MIT", author="Microsoft Corporation", home="https://github.com/microsoft/fluentui-emoji",
    ),
    "fxemoji": _drawn(
        "fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        use="test", licence="Apache-2.0", author="Mozilla", home="https://github.com/mozilla/fxemoji",
    ),
    "emojione-v1": _drawn(
        "emojione-v1", "1.2.3", "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
        use="test", licence="CC-BY-SA-4.0", author="Emoji One", home="https://github.com/joypixels/emojione-legacy",
    ),
    "openmoji": _drawn(
        "openmoji", "1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        use="test", licence="CC-BY-SA-4.0", author="OpenMoji", home="https://github.com/hfg-gmuend/openmoji",
    ),
}  # fmt: skip
