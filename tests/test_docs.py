"""Every example of the documentation is true: it runs, loads, or names what exists."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import msgspec
import pytest

import fleche
from fleche.cli import main
from fleche.config import _schema
from fleche.remote import SshOptions, SubprocessOptions
from fleche.storage import storage_class, storage_names
from tests.helpers.pages import (
    DOCS,
    LANGUAGES,
    Block,
    Page,
    config_file,
    environment,
    hexadecimal,
    pages,
)
from tests.helpers.reader import Reader
from tests.helpers.sweeps import swept

PAGES = pages()
LONG = ("howto/commands.md", "howto/executors.md", "howto/extend.md", "howto/workers.md")
BLOCKS = [block for page in PAGES for block in page.blocks]

needs_bash = pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="the pages use bash")


def by_name(page: Page) -> str:
    return page.name


def by_where(block: Block) -> str:
    return block.where


@pytest.fixture
def reader(tmp_home: Path) -> Iterator[Reader]:
    made = Reader(tmp_home / "work", environment(tmp_home))
    yield made
    made.close()


@needs_bash
@pytest.mark.timeout(300)  # some pages run a dozen programs
@pytest.mark.parametrize(
    "page",
    swept(map(pytest.param, PAGES), lambda case: case.values[0].name not in LONG),
    ids=by_name,
)
def test_what_a_page_says_is_what_happens(page: Page, reader: Reader) -> None:
    """A reader who follows a page from its top to its end sees what it shows."""
    if lacking := reader.read(page):
        pytest.skip(f"all was run but what needs {', '.join(lacking)}")


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "toml" and block.note("skip") is None],
    ids=by_where,
)
def test_configurations_load(block: Block, tmp_home: Path) -> None:
    """Every configuration that is shown can be used as it is."""
    from fleche.config import load_cache_config, load_config

    config_file(block.code).write_text(block.code)
    for name in load_config().tables:
        load_cache_config(name).close()
    load_cache_config().close()


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.note("bytes") or block.note("line")],
    ids=by_where,
)
def test_bytes_are_those_of_the_code(block: Block) -> None:
    """What is shown of the wire is what the code writes there."""
    text = block.note("line")
    expression = text or block.note("bytes") or ""
    expected = eval(expression, wire_names())
    if text is not None:
        assert block.code.encode() == expected.lstrip(b"\n")
    else:
        assert hexadecimal(block.code) == expected, expected.hex(" ")


def wire_names() -> dict[str, object]:
    """What the expressions in the comments may use."""
    import struct

    from fleche import call, parcel
    from fleche.digest import Digest
    from fleche.remote import _frames, _handshake, _messages

    modules = (call, parcel, _messages, _handshake, _frames)
    names = {name: getattr(module, name) for module in modules for name in module.__all__}
    asked = _handshake.ClientGreeting((1, 1), ("zlib", "compress="), "0.1.0").opening
    token = asked.split()[1]
    return {**names, "Digest": Digest, "struct": struct, "ASKED": asked.replace(token, b"0" * 32)}


def test_the_protocol_lists_every_message() -> None:
    """A table of the page names each request, answer and task, with all of its fields."""
    text = next(page.text for page in PAGES if page.name == "protocol.md")
    from fleche.caches import Task
    from fleche.call import CallRecord, QueryCall, ValueRef
    from fleche.remote import _messages

    rows = dict(re.findall(r"^\| `([\w-]+)`(?:, `[\w-]+`)* \| (.*) \|$", text, re.MULTILINE))
    failure = {"failure"}  # has a table of its own
    for kind in (*get_args(_messages.Request), *get_args(_messages.Answer), *get_args(Task)):
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        assert info.tag in rows
        for field in info.fields if info.tag not in failure else ():
            assert f"`{field.encode_name}`" in rows[str(info.tag)], (info.tag, field.name)
    for each in (_messages.Failure, CallRecord, QueryCall, ValueRef):
        for name in msgspec.structs.fields(each):
            row = rf"^\| (`\w+`, )*`{name.encode_name}`(, `\w+`)* \|"
            assert re.search(row, text, re.MULTILINE), (each, name.encode_name)


_COMMAND = re.compile(r"(?:-m |`|^\$ |^)fleche ((?:remote(?= )|--)[^\"'`\n<]*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of fleche that a page mentions anywhere is one, with the options it is given."""
    monkeypatch.setattr("fleche.cli.remote.serve_standard_streams", lambda *_, **__: 0)
    for words in _COMMAND.findall(page.text):
        given = shlex.split(words.replace("[", " ").replace("]", " ").rstrip(".,;:"))
        assert exit_status(given) == 0, f"{page.name}: fleche {words}"


def exit_status(words: list[str]) -> object:
    try:
        return main(words)
    except SystemExit as ended:  # as --version and --help end
        return ended.code


def output_of(*words: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        assert exit_status(list(words)) == 0
    return out.getvalue()


COMMANDS = re.findall(r"^  ([a-z][\w-]+) +[A-Z].*[.?]$", output_of("--help"), re.MULTILINE)


def options_of(name: str) -> set[str]:
    """Every option of a command, as its --help shows it; those of ``remote`` are argparse's."""
    text = output_of(name, "--help")
    return set(re.findall(r"^  +(?:-\w, )?(--[a-z][\w-]*)", text, re.MULTILINE)) - {"--help"}


assert {"log", "status", "remote"} <= set(COMMANDS)

SECTIONS = dict(
    re.findall(
        r"^## `fleche ([\w-]+)`\n(.*?)(?=^## |\Z)",
        next(page.text for page in PAGES if page.name == "reference/command-line.md"),
        re.MULTILINE | re.DOTALL,
    )
)
CHOOSING = {"--name", "--version", "--since", "--before", "--user", "--host", "--tag", "--where"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_the_command_line_is_complete(name: str) -> None:
    """Each command has a section, with each of its options, and with no other."""
    section = SECTIONS[name]
    told = set(re.findall(r"`(?:-\w`, `)?(--[a-z][\w-]*)", section))
    defined = set(re.findall(r"^(?:`-\w`, )?`(--[a-z][\w-]*)", section, re.MULTILINE))
    defined |= set(re.findall(r"(?<=, )`(--[a-z][\w-]*) [A-Z|]+`$", section, re.MULTILINE))
    defined |= set(re.findall(r"(?<=, )`(--[a-z][\w-]*) [A-Z|]+`(?=,|$)", section, re.MULTILINE))
    options = options_of(name)
    everywhere = {"--cache"} | (CHOOSING if options >= CHOOSING else set())
    assert told >= options - everywhere - {"--serve"}, "the page leaves something out"
    assert options >= defined - everywhere, "the page defines an option that there is not"
    assert name == "remote" or "--json" in options


_MENTIONED = re.compile(r"(?:-m |[`'$( ]|^)fleche ([a-z][a-z-]+)((?: [^`'\n|>)]*)?)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Page) -> None:
    """A command that a page mentions with options takes them."""
    for name, rest in _MENTIONED.findall(page.text):
        if name in COMMANDS:
            given = set(re.findall(r"(?<= )(--[a-z][\w-]*)", rest))
            assert given - {"--help"} <= options_of(name), f"{page.name}: fleche {name}{rest}"


def reference(directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The pages of the reference by name, as Sphinx gets them."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS))
    import_module("_reference").write(directory)
    return {path.stem: path.read_text(encoding="utf-8") for path in directory.glob("*.rst")}


def test_the_front_page_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says of each name in a sentence what it is, and leads to where the rest stands."""
    written = reference(tmp_path / "api", monkeypatch)
    entries = re.findall(r"^\* :py:obj:`(\w+) <([\w.]+)>`: (.*)$", written["fleche"], re.MULTILINE)
    assert {name for name, _, _ in entries} == {*fleche.__all__, "open"} - {"__version__"}
    for name, target, sentence in entries:
        assert sentence.endswith("."), name
        home = target.removesuffix(f".{name}")
        ways = (f":: {target}\n", f".. py:data:: {name}\n   :module: {home}\n")
        assert any(map(written[home].__contains__, ways))


def test_constants_and_markers_are_in_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands below an assignment in a private module is read, too; autodoc leaves it out."""
    written = reference(tmp_path / "api", monkeypatch)
    for module, name, text in (
        ("fleche.function", "Ignored", "``Ignored[T]`` is ``T`` to a type checker"),
        ("fleche.call", "MISSING", "Stands where a call has no result yet"),
    ):
        assert f".. py:data:: {name}\n   :module: {module}\n\n   {text}" in written[module]


def test_the_reference_is_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page mentions, and what that takes and returns; not what packages only share."""
    written = reference(tmp_path / "api", monkeypatch)
    for module, names in (
        ("fleche.caches", ["BaseCache", "Local", "GcReport", "QueryIterator"]),
        ("fleche.decorator", ["fleche", "Wrapper"]),
        ("fleche.function", ["Dependencies", "Dependency"]),
        ("fleche.parcel", ["pack", "unpack"]),
        ("fleche.storage", ["ValueFile", "Sql"]),
    ):
        assert [name for name in names if not re.search(rf"\b{name}\b", written[module])] == []
    assert not re.search("HEAP|CLOCK_CALLS|attributes_of", written["fleche.digest"])
    for module, name in (("decorator", "fleche"), ("caches", "Cache")):
        each = re.findall(r"\n\.\. auto(?!module)\w+:: (.*)\n", written[f"fleche.{module}"])
        assert each[0] == f"fleche.{module}.{name}"


def test_the_page_of_the_configuration_is_complete() -> None:
    """Every key that a table of ``fleche.toml`` takes stands in a table of the page."""
    text = next(page.text for page in PAGES if page.name == "configuration.md")
    rows = re.findall(r"^\| (`.*?) \|(.*)$", text, re.MULTILINE)
    told = {name for first, _ in rows for name in re.findall(r"`(\w+)`", first)}
    sections = set(re.findall(r"^###? .*", text, re.MULTILINE))
    told |= {name for heading in sections for name in re.findall(r"`(\w+)`", heading)} | {"type"}
    tables = [getattr(_schema, name) for name in _schema.__all__ if name.endswith("Table")]
    for struct in (*tables, SshOptions, SubprocessOptions):
        keys = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert keys - {"options"} <= told, struct.__name__
    for kind in ("values", "calls"):
        for name in storage_names(kind):
            options = storage_class(name, kind).Options
            keys = {field.encode_name for field in msgspec.structs.fields(options)}
            said = [set(re.findall(r"`(\w+)`", rest)) for first, rest in rows if name in first]
            assert any(keys <= words for words in said), (kind, name)


def test_languages_are_known() -> None:
    """A block of a language that is not known would not be checked at all."""
    odd = [block.where for block in BLOCKS if block.language not in {*LANGUAGES, "run", "restart"}]
    assert odd == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_types_that_are_mentioned_are_those_of_caches(page: Page) -> None:
    """What stands as ``type = "hdf5"`` in a sentence is ``values.type``, or refused."""
    mentioned = set(re.findall(r"`type = \"(\w+)\"`", page.text))
    assert not mentioned & {*storage_names("values"), *storage_names("calls")} - {"local"}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_lines_fit_a_screen(page: Page) -> None:
    """What is no code, output or row of a table has at most 150 characters in a line."""
    prose = re.sub(
        r"^```.*?^```|^<!--.*?-->|^\|.*?$", "", page.text, flags=re.MULTILINE | re.DOTALL
    )
    assert [line for line in prose.splitlines() if len(line) > 150] == []


def test_what_is_skipped_says_why() -> None:
    """A block that is not run has its reason beside it."""
    bare = [
        b.where for b in BLOCKS if b.note("skip") is not None and len(b.note("skip") or "") < 12
    ]
    assert bare == []


def pictures() -> list[tuple[str, str, str]]:
    """Page, text in place of the picture, and file of every picture."""
    return [(page.name, *found) for page in PAGES for found in _PICTURE.findall(page.text)]


_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


@pytest.mark.parametrize(("page", "text", "file"), pictures())
def test_pictures_are_there(page: str, text: str, file: str) -> None:
    """A picture exists, says in words what it shows, and needs nothing from elsewhere."""
    path = (DOCS / page).parent / file
    assert len(text) > 20, f"{page}: {file}"
    content = path.read_bytes()
    if path.suffix == ".svg":
        svg = ET.fromstring(content)
        assert svg.tag.endswith("}svg")
        assert b"url(http" not in content
        assert not [each for each in svg.iter() if each.tag.endswith(("}script", "}image"))]


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_from_the_checkout_lead_somewhere(name: str) -> None:
    """Sphinx checks the links of the pages, and none of these."""
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (DOCS.parent / target).is_file(), target


def test_every_page_is_in_a_table_of_contents() -> None:
    """Sphinx would only warn, and no reader would find the page."""
    linked: set[str] = {"index.md"}
    for page in PAGES:
        base = os.path.dirname(page.name)
        for block in page.blocks:
            if block.language == "{toctree}":
                entries = [line for line in block.code.split() if not line.startswith(":")]
                for entry in entries:
                    linked.add(f"{os.path.normpath(os.path.join(base, entry))}.md")
    assert {page.name for page in PAGES} <= linked
