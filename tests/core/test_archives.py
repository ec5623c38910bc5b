"""Files inside packages: fetched by pip's directions from an index, resumed, checked, unpacked safely, kept."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.server
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from modelgraft.installed.discovery import discover
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import archives, downloads, kept
from modelgraft.sources.progress import heard_by
from modelgraft.tools.keeping import Keeping

CONTENT = random.Random(0).randbytes(600_000)  # does not repeat: a byte out of place is noticed


class Index(http.server.ThreadingHTTPServer):
    """A package index on this machine. `cuts` holds after how many bytes the next answers break off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Stay quiet when a client goes away."""


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        """Stay quiet."""

    def do_GET(self):
        index: Index = self.server
        content = index.files.get(self.path.split("#")[0])
        if content is None:
            return self.send_error(404)
        is_file = self.path.endswith(".whl")
        wanted = self.headers.get("Range") if is_file and index.knows_ranges else None
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if is_file:
            index.ranges.append(self.headers.get("Range"))
        if start >= len(content) and wanted:
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "application/octet-stream" if is_file else "text/html")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if is_file and index.cuts:
            body = body[: index.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        return None

    def do_HEAD(self):
        self.send_error(405)


@pytest.fixture
def pip_index(tmp_path, monkeypatch):
    """An index that pip asks instead of any other, and a cache of its own."""
    server = Index()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{server.address}/simple", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"}
    for name, value in {**settings, "NO_PROXY": "127.0.0.1", "MODELGRAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def index(pip_index, monkeypatch):
    """The same, but what pip would answer is read from the index's page: starting pip takes longer than all the rest."""

    def ask(client, requirement):
        page = pip_index.files[f"/simple/{requirement.partition('==')[0]}/"].decode()
        return re.search(r'href="([^"#]+)#sha256=([0-9a-f]+)"', page).groups()

    monkeypatch.setattr(downloads, "_ask", ask)
    return pip_index


def wheel(folder: Path, members: dict[str, bytes]) -> bytes:
    """A package `parts` 1.0 whose code would stop the test if it were imported."""
    path = folder / "parts-1.0-py3-none-any.whl"
    meta = {"METADATA": "Metadata-Version: 2.1\nName: parts\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n"}
    meta["WHEEL"] = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"parts/__init__.py": b"raise SystemExit('imported')", **members}
    files |= {f"parts-1.0.dist-info/{name}": text.encode() for name, text in meta.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        rows = [
            f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(c).digest()).decode().rstrip('=')},{len(c)}" for n, c in files.items()
        ]
        archive.writestr("parts-1.0.dist-info/RECORD", "\n".join([*rows, "parts-1.0.dist-info/RECORD,,"]))
    return path.read_bytes()


def publish(index: Index, content: bytes, *, sha256: str | None = None) -> None:
    name = "parts-1.0-py3-none-any.whl"
    digest = sha256 or hashlib.sha256(content).hexdigest()
    with zipfile.ZipFile(_buffer(content)) as archive:
        metadata = archive.read("parts-1.0.dist-info/METADATA")
    index.files[f"/files/{name}"] = content
    index.files[f"/files/{name}.metadata"] = metadata
    has_metadata = f'data-dist-info-metadata="sha256={hashlib.sha256(metadata).hexdigest()}"'
    index.files["/simple/parts/"] = f'<a href="{index.address}/files/{name}#sha256={digest}" {has_metadata}>{name}</a>'.encode()


def _buffer(content: bytes):
    import io

    return io.BytesIO(content)


def reference(member: str = "parts/w.bin", content: bytes = CONTENT) -> str:
    return f"pypi:parts==1.0/{member}#sha256={hashlib.sha256(content).hexdigest()}"


def refused(text: str, **how) -> str:
    with pytest.raises(SourceError) as caught:
        archives.member(text, **how)
    return str(caught.value)


def test_a_member_is_fetched_without_dependencies_once_and_then_found_offline(pip_index, tmp_path):
    """The package needs another that does not exist, and its code stops whoever imports it."""
    publish(pip_index, wheel(tmp_path, {"parts/w.bin": CONTENT, "parts/w.json": b"{}", "other/x.json": b"{}"}))
    heard: list[tuple[int, int | None, str]] = []
    path = archives.member(reference(), progress=lambda done, total, label: heard.append((done, total, label)))
    assert path.read_bytes() == CONTENT
    size = len(pip_index.files["/files/parts-1.0-py3-none-any.whl"])
    assert heard[-1] == (size, size, "bytes of parts==1.0")
    pip_index.files.clear()
    assert archives.member(reference(), offline=True) == path
    assert archives.member("pypi:parts==1.0/parts/w.json", offline=True).read_bytes() == b"{}"
    assert "parts" not in sys.modules


def test_what_lies_beside_a_member_comes_with_it_when_asked(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT, "parts/w.json": b"{}", "parts/w.txt": b"", "other/x.json": b"{}"}))
    path = archives.member(reference(), beside=(".json",))
    assert {p.name for p in path.parent.iterdir() if not p.name.startswith(".")} == {"w.bin", "w.json"}


def test_a_download_is_told_to_the_listener_around_it(index, tmp_path):
    """At its start, about once in a megabyte, and at its end; in the block only."""
    content = wheel(tmp_path, {"parts/w.bin": random.Random(1).randbytes(3_000_000), "parts/x.bin": b""})
    publish(index, content)
    heard: list[tuple[int, int | None, str]] = []
    with heard_by(lambda done, total, label: heard.append((done, total, label))):
        archives.member("pypi:parts==1.0/parts/w.bin")
    assert heard[0] == (0, len(content), "bytes of parts==1.0")
    assert heard[-1] == (len(content), len(content), "bytes of parts==1.0")
    assert 3 <= len(heard) <= 5
    shutil.rmtree(tmp_path / "cache")
    archives.member("pypi:parts==1.0/parts/x.bin")
    assert len(heard) <= 5


def test_a_download_that_was_cut_goes_on_where_it_stopped(index, tmp_path):
    """Cut three times within one run: each request asks for what is missing, the file is whole and right."""
    content = wheel(tmp_path, {"parts/w.bin": os.urandom(300_000)})
    publish(index, content)
    index.cuts = [100_000, 50_000, 1]
    with zipfile.ZipFile(_buffer(content)) as archive:
        wanted = archive.read("parts/w.bin")
    assert archives.member("pypi:parts==1.0/parts/w.bin").read_bytes() == wanted
    assert index.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_killed_run_leaves_what_came_in_and_the_next_goes_on(index, tmp_path, monkeypatch):
    content = wheel(tmp_path, {"parts/w.bin": os.urandom(4_000_000)})
    publish(index, content)
    with monkeypatch.context() as killed:
        killed.setattr(downloads, "_continue", _killed_after(1_500_000, downloads._continue))
        with pytest.raises(KeyboardInterrupt):
            archives.member("pypi:parts==1.0/parts/w.bin")
    part = tmp_path / "cache" / "archives" / "parts==1.0" / "archive" / "parts-1.0-py3-none-any.whl.part"
    done = part.stat().st_size
    assert 0 < done < len(content)
    archives.member("pypi:parts==1.0/parts/w.bin")
    assert index.ranges[-1] == f"bytes={done}-"


def _killed_after(limit: int, real):
    def fetch(url, part, label, progress):
        def watch(done, total, label):
            if done > limit:
                raise KeyboardInterrupt

        return real(url, part, label, watch)

    return fetch


@pytest.mark.parametrize("left", [b"not the beginning of this file", b"x" * 2_000_000])
def test_a_rest_of_another_file_is_found_out_and_fetched_anew(index, tmp_path, left):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    folder = tmp_path / "cache" / "archives" / "parts==1.0" / "archive"
    folder.mkdir(parents=True)
    (folder / "parts-1.0-py3-none-any.whl.part").write_bytes(left)
    assert archives.member(reference()).read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_from_the_start(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    index.knows_ranges, index.cuts = False, [1000]
    assert archives.member(reference()).read_bytes() == CONTENT


def test_a_connection_that_never_holds_is_one_error(pip_index, tmp_path, monkeypatch):
    publish(pip_index, wheel(tmp_path, {"parts/w.bin": os.urandom(50_000)}))
    pip_index.cuts = [10] * 50
    monkeypatch.setattr(downloads, "TIMEOUT_S", 5)
    said = refused("pypi:parts==1.0/parts/w.bin")
    assert said.startswith(
        "fetch-failed  the package parts==1.0 could not be fetched: the download was cut: the connection was closed early 5 times"
    )


def test_an_archive_that_is_not_what_the_index_says_is_not_kept(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT}), sha256="0" * 64)
    said = refused(reference())
    assert said.startswith("hash-mismatch  parts-1.0-py3-none-any.whl has sha256 ")
    assert f"the index says {'0' * 64}" in said
    assert not list((tmp_path / "cache").rglob("*.whl*"))


def test_a_member_with_another_hash_is_refused_and_not_kept(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    found = hashlib.sha256(CONTENT).hexdigest()
    assert refused(reference(content=b"other")).startswith(
        f"hash-mismatch  parts/w.bin of the package parts==1.0 has sha256 {found}, wanted {hashlib.sha256(b'other').hexdigest()}"
    )
    assert not list((tmp_path / "cache").rglob("w.bin*"))


def test_a_damaged_copy_in_the_cache_is_unpacked_again(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    path = archives.member(reference())
    path.write_bytes(b"damaged")
    assert archives.member(reference(), offline=True).read_bytes() == CONTENT


def test_a_member_that_is_not_there_names_the_nearest(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/weights.bin": CONTENT}))
    said = "the package parts==1.0 has no file parts/wieghts.bin; it has: parts/weights.bin\n    Did you mean 'parts/weights.bin'?"
    assert refused("pypi:parts==1.0/parts/wieghts.bin") == f"source-not-found  {said}"


def test_an_unknown_package_says_what_pip_said(pip_index):
    said = refused("pypi:nothing==1.0/x")
    assert said.startswith("fetch-failed  the package nothing==1.0 could not be fetched: No matching distribution found for nothing==1.0")


@pytest.mark.parametrize(
    ("told", "way"),
    [
        (f"Could not install packages due to an OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}", "make room in "),
        ("No matching distribution found for parts==1.0", "check name, version and network"),
    ],
)
def test_the_way_out_is_that_of_what_pip_said(told, way, tmp_path, monkeypatch):
    """A full disk is none of the network's faults, nor one of the cache: pip works in another folder."""
    monkeypatch.setattr(downloads, "_run", lambda *_, **__: CompletedProcess([], 1, stdout="", stderr=f"ERROR: {told}\n"))
    monkeypatch.setattr(downloads.tempfile, "gettempdir", lambda: str(tmp_path))
    said = refused("pypi:parts==1.0/parts/w.bin")
    assert said.startswith(f"fetch-failed  the package parts==1.0 could not be fetched: {told}\n    {way}")
    assert (str(tmp_path) in said) is ("room" in way)


def test_settings_about_installing_do_not_stand_in_the_way(pip_index, tmp_path, monkeypatch):
    """Constraints, hashes and places are about what is installed; an archive is only read."""
    publish(pip_index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    (tmp_path / "constraints.txt").write_text("parts==2.0")
    settings = {
        "PIP_CONSTRAINT": str(tmp_path / "constraints.txt"),
        "PIP_REQUIRE_HASHES": "1",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_USER": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert archives.member(reference()).read_bytes() == CONTENT


def test_offline_uses_the_cache_alone(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    assert refused(reference(), offline=True) == (
        f"not-cached  parts/w.bin of the package parts==1.0 is not in the cache ({tmp_path}/cache/archives/parts==1.0), "
        "and this run is offline\n"
        "    give it to a run once, with a network and without offline=True"
    )
    assert index.ranges == []


def test_a_cache_that_cannot_be_written_is_one_error(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "file"))
    assert refused(reference()) == (
        f"cache-failed  the cache {tmp_path}/file cannot be used: Not a directory\n"
        "    make room there, or set MODELGRAFT_CACHE to another folder"
    )


def test_a_member_that_would_fill_the_disk_is_refused(index, tmp_path):
    publish(index, wheel(tmp_path, {"parts/w.bin": bytes(50_000_000)}))
    assert "would unpack parts/w.bin to 50000000 bytes; at most" in refused("pypi:parts==1.0/parts/w.bin")


def test_a_package_that_is_no_archive_is_named(index, tmp_path):
    content = wheel(tmp_path, {"parts/w.bin": CONTENT})
    publish(index, content)
    index.files["/files/parts-1.0-py3-none-any.whl"] = content[:-100]
    index.files["/simple/parts/"] = index.files["/simple/parts/"].replace(
        hashlib.sha256(content).hexdigest().encode(), hashlib.sha256(content[:-100]).hexdigest().encode()
    )
    assert "parts-1.0-py3-none-any.whl: is no package archive or is cut" in refused(reference())


def test_members_are_joined_and_checked_as_one(index, tmp_path):
    first, second = CONTENT[:300_001], CONTENT[300_001:]
    publish(index, wheel(tmp_path, {"parts/1.bin": first, "parts/2.bin": second}))
    texts = [reference("parts/1.bin", first), reference("parts/2.bin", second)]
    path = archives.join(texts, sha256=hashlib.sha256(CONTENT).hexdigest(), name="whole.onnx")
    assert (path.name, path.read_bytes()) == ("whole.onnx", CONTENT)
    assert archives.join(texts, sha256=hashlib.sha256(CONTENT).hexdigest(), name="whole.onnx", offline=True) == path
    with pytest.raises(SourceError, match=r"hash-mismatch  2 files joined to whole\.onnx has sha256"):
        archives.join(texts, sha256="0" * 64, name="whole.onnx")


def test_two_processes_at_once_fetch_once(pip_index, tmp_path):
    publish(pip_index, wheel(tmp_path, {"parts/w.bin": CONTENT}))
    code = f"from modelgraft.sources import archives; print(archives.member({reference()!r}))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert [process.returncode for process in running] == [0, 0]
    assert pip_index.ranges == [None]


def test_without_pip_another_client_is_taken_or_its_lack_is_said(monkeypatch):
    monkeypatch.setattr(downloads.PathFinder, "find_spec", lambda name: None)
    monkeypatch.setattr(downloads.shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    assert downloads._pip() == ["/bin/uv", "tool", "run", "pip"]
    monkeypatch.setattr(downloads.shutil, "which", lambda name: None)
    with pytest.raises(SourceError, match="packages are fetched with pip, and there is none"):
        downloads._pip()


@pytest.mark.network
def test_a_real_package_gives_a_real_picture():
    """The cat of scikit-image, by its published hash; kept in the cache of the machine."""
    from PIL import Image

    wanted = "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
    path = archives.member(f"pypi:scikit-image==0.26.0/skimage/data/chelsea.png#sha256={wanted}")
    with Image.open(path) as picture:
        assert picture.size == (451, 300)


@pytest.mark.parametrize("what", ["member", "package", "both", "beside"])
def test_a_bit_that_turned_in_what_is_kept_is_noticed_and_mended(index, tmp_path, what):
    """A member is unpacked again, a package is fetched again; that is said once, and only what is needed is touched."""
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT, "parts/w.json": b"{}"}))
    path = archives.member(reference(), beside=(".json",))
    archive = next((tmp_path / "cache" / "archives" / "parts==1.0" / "archive").glob("*.whl"))
    harmed = {"member": [path], "package": [archive], "both": [path, archive], "beside": [path.with_name("w.json")]}[what]
    for file in harmed:
        stat, content = file.stat(), bytearray(file.read_bytes())
        content[len(content) // 2] ^= 16
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    fetched = len(index.ranges)
    with kept.loading() as said:
        assert archives.member(reference(), beside=(".json",)).read_bytes() == CONTENT
    assert path.with_name("w.json").read_bytes() == b"{}"
    assert len(said) == {"member": 1, "package": 0, "both": 2, "beside": 1}[what]
    assert all("was kept and is broken (" in text for text in said)
    assert len(index.ranges) - fetched == (what == "both")
    with kept.loading() as said:
        archives.member(reference(), beside=(".json",))
    assert said == []


def test_what_an_older_version_has_kept_is_sealed_and_not_fetched_again(index, tmp_path):
    """Its package holds together by checksums of its own."""
    publish(index, wheel(tmp_path, {"parts/w.bin": CONTENT, "parts/w.json": b"{}"}))
    path = archives.member(reference())
    for seal in (tmp_path / "cache" / "archives").rglob(".*.seal"):
        seal.unlink()
    index.files.clear()
    with kept.loading() as said:
        assert archives.member(reference(), offline=True) == path
        assert archives.member("pypi:parts==1.0/parts/w.json", offline=True).read_bytes() == b"{}"
    assert said == []
    for seal in (tmp_path / "cache" / "archives").rglob(".*.whl.seal"):
        seal.unlink()
    keeping = Keeping(discover(only=()))
    assert [broken for item in keeping.items(["downloads"]) for broken in keeping.verify(item)] == []


def test_looking_for_pip_asks_no_hooks_of_other_packages(monkeypatch):
    """Those of setuptools warn where a module named distutils is loaded already."""

    class Hook:
        def find_spec(self, name, path=None, target=None):
            raise AssertionError(f"asked for {name}")

    monkeypatch.setattr(sys, "meta_path", [Hook(), *sys.meta_path])
    assert downloads._pip()[1:] == ["-m", "pip"]


def test_weights_in_a_package_with_their_config_beside_them_are_a_folder(index, tmp_path):
    """What is called model.safetensors brings its neighbours, and is unpacked again when it was harmed; any other is a file alone."""
    import torch
    from safetensors.torch import save

    from modelgraft.sources import views, weights

    content = save({"a.weight": torch.arange(6.0).reshape(2, 3)})
    files = {"parts/m/model.safetensors": content, "parts/m/config.json": b'{"model_type": "odd"}', "parts/m/tokenizer.json": b"{}"}
    publish(index, wheel(tmp_path, {**files, "parts/m/lone.safetensors": content}))

    def look(name: str):
        return views.find(reference(f"parts/m/{name}", content), registry=discover(), folder=None, trusted=False, offline=False)

    opened = weights.open(look("model.safetensors"), offline=False)
    view = look("model.safetensors")
    assert opened.view.folder == view.folder
    assert (view.config["model_type"], list(view.keys), view.path("tokenizer.json").name) == ("odd", ["a.weight"], "tokenizer.json")
    assert weights.open(view, offline=True).view.folder == view.folder
    file = view.folder / "model.safetensors"
    stat, harmed = file.stat(), bytearray(file.read_bytes())
    harmed[-2] ^= 16
    file.write_bytes(harmed)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with kept.loading() as said:
        assert torch.equal(weights.open(view, offline=True).tensor("a.weight"), torch.arange(6.0).reshape(2, 3))
    assert ["was kept and is broken (" in text for text in said] == [True]
    lone = weights.open(look("lone.safetensors"), offline=False)
    assert lone.view.folder is None
