"""No secret leaves with a configuration."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleche.config import redact

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"values": {"secret_key": "s"}}, {"values": {"secret_key": "***"}}),
        ({"values": {"secret_key": ["s", "t"]}}, {"values": {"secret_key": ["***", "***"]}}),
        ([{"secret_key": "s"}, {"type": "x"}], [{"secret_key": "***"}, {"type": "x"}]),
        ({"pool": [[{"secret_key": "s"}], "x"]}, {"pool": [[{"secret_key": "***"}], "x"]}),
        ({"cache": {"password": "s"}}, {"cache": {"password": "***"}}),
        ({"env": {"PATH": "/bin", "N": "1"}}, {"env": {"PATH": "***", "N": "***"}}),
        (
            {"options": {"key": "a", "secret": "b", "token": {"id": 1, "x": [2]}, "anon": False}},
            {"options": {"key": "***", "secret": "***", "token": {"id": "***", "x": ["***"]},
                         "anon": False}},
        ),
        (
            {"options": {"client_kwargs": {"aws_secret_access_key": "a", "region": "eu"}}},
            {"options": {"client_kwargs": {"aws_secret_access_key": "***", "region": "eu"}}},
        ),
        ({"options": {"connection_string": "a=b"}}, {"options": {"connection_string": "***"}}),
        ({"options": {"use_token": True}}, {"options": {"use_token": True}}),
        ({"max_size": 3, "root": "/data/key=5/x"}, {"max_size": 3, "root": "/data/key=5/x"}),
    ],
)  # fmt: skip
def test_tables(config: Any, expected: Any) -> None:
    assert redact(config) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:pw@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://me:p%40ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@s/s?w#d@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:my pass@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=pw", "postgresql://host/db?user=me&password=***"),
        ("postgresql://host/db?pass%77ord=pw", "postgresql://host/db?pass%77ord=***"),
        ("postgresql://host/db?sslmode=require", "postgresql://host/db?sslmode=require"),
        ("mssql:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dpw%3B", "mssql:///?odbc_connect=***"),
        ("https://ghp_abcdef@example.org/x", "https://***@example.org/x"),
        ("https://token:x@example.org/x", "https://***:***@example.org/x"),
        ("https://h/x?X-Amz-Signature=1&a=2", "https://h/x?X-Amz-Signature=***&a=2"),
        ("https://h/x?sig=1", "https://h/x?sig=***"),
        ("https://h/cb#access_token=1", "https://h/cb#access_token=***"),
        ("https://h/?next=https%3A%2F%2Fme%3Apw%40h", "https://h/?next=***"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("s3://key:secret@bucket/path", "s3://key:***@bucket/path"),
        ("simplecache::s3://key:secret@bucket", "simplecache::s3://key:***@bucket"),
        ("sqlite:////data/calls.db", "sqlite:////data/calls.db"),
        ("sqlite:///~/.fleche/calls.db", "sqlite:///~/.fleche/calls.db"),
        ("memory://", "memory://"),
        ("marvin@bigpc.example.com", "marvin@bigpc.example.com"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert redact({"url": url}) == {"url": expected}
    assert redact({"options": {"proxy": url}}) == {"options": {"proxy": expected}}


@pytest.mark.parametrize(
    "command",
    [
        "module load python/3.11",
        "export GITHUB_PAT=hunter2",
        "sshpass -p hunter2 ssh gateway true",
        "curl -H 'Authorization: Bearer hunter2' host",
        "export TOKEN hunter2",
        "PASSWORD=$'hunter2'",
    ],
)
def test_commands(command: str) -> None:
    """Any word of a command may be a secret, and none is told to others."""
    told = {"type": "ssh", "host": "h", "setup_commands": [command, "x"]}
    assert redact(told) == {"type": "ssh", "host": "h", "setup_commands": ["***", "***"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-o", "ControlPath=~/.ssh/cm-%r@%h:%p"], ["-o", "ControlPath=~/.ssh/cm-%r@%h:%p"]),
        (["-v", "-p", "2222", "-i", "~/.ssh/key"], ["-v", "-p", "2222", "-i", "~/.ssh/key"]),
        (["-o", "ProxyCommand=sshpass -p hunter2 nc"], ["-o", "ProxyCommand=***"]),
        (["-o", "ProxyCommand = a\nhunter2"], ["-o", "ProxyCommand ***"]),
        (["-oproxycommand sshpass -p hunter2 nc"], ["-oproxycommand ***"]),
        (["-vo", "KnownHostsCommand=x hunter2"], ["-vo", "KnownHostsCommand=***"]),
        (["-voLocalCommand=x hunter2"], ["-voLocalCommand=***"]),
        (["-o", "RemoteCommand=none"], ["-o", "RemoteCommand=***"]),
        (["-o", "SetEnv=ANY=hunter2 OTHER=x"], ["-o", "SetEnv=***"]),
        (["-o", "PermitLocalCommand=yes"], ["-o", "PermitLocalCommand=yes"]),
        (["-o", "ProxyJump=me@gateway"], ["-o", "ProxyJump=me@gateway"]),
    ],
)
def test_options_of_ssh(options: list[str], expected: list[str]) -> None:
    """Options that hold a command or variables are hidden; what the others say helps to mend."""
    hidden = redact({"ssh_options": options})
    assert hidden == {"ssh_options": expected}
    assert redact(hidden) == hidden


def test_the_original_stays() -> None:
    config = {"values": {"secret_key": SECRET}}
    redact(config)
    assert config == {"values": {"secret_key": SECRET}}


PLACES: list[Any] = [
    lambda s: {"secret_key": s},
    lambda s: {"env": {"ANY": s}},
    lambda s: {"options": {"password": s}},
    lambda s: {"url": f"postgresql://me:{s}@host/db"},
    lambda s: {"url": f"postgresql://me:{quote(s, safe='')}@host/db"},
    lambda s: {"url": f"postgresql://host/db?password={quote(s, safe='')}"},
    lambda s: {"url": f"mssql:///?odbc_connect={quote(f'UID=me;PWD={s};', safe='')}"},
]
WRAPPERS: list[Any] = [
    lambda c: {"values": c},
    lambda c: [c],
    lambda c: {"pool": [c, "other"]},
    lambda c: {"cache": c, "read_only": True},
]
# long and odd enough not to stand in a configuration by accident
secrets = st.text(min_size=1, max_size=9).map(lambda text: f"hunter2{text}")


@given(
    secret=secrets,
    place=st.sampled_from(PLACES),
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=4),
)
def test_no_secret_survives_anywhere(secret: str, place: Any, wrappers: list[Any]) -> None:
    config = place(secret)
    for wrap in wrappers:
        config = wrap(config)
    hidden = redact(config)
    assert SECRET not in repr(hidden)
    assert redact(hidden) == hidden
