"""Digests: one name for one value, in every process, on every machine, under every Python version.

:func:`digest` maps an object to its :class:`Digest`. Objects of different type or value have
different digests; objects that differ only in how they lie in memory have the same. What has no
value that can be told from outside (an open file, an iterator, a lock) is
:class:`~fleche.errors.Indigestible`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from fleche._util import imported_when_asked
from fleche.digest._assignments import (
    WITH,
    SettingStatement,
    calling_statements,
    changing_statements,
    defining_statements,
    defining_syntax,
    dump_statements,
    expressions_of,
    full_name,
    imported_as,
    names_beside,
    names_bound_in,
    origin_of,
    passing_statements,
    setting_statements,
    setting_statements_of,
    settings_and_calls,
    statements_setting,
    text_at,
)
from fleche.digest._classes import made_by_clock, members_of, told_to, types_in
from fleche.digest._clock import CLOCK_CALLS, is_from_clock, is_simple
from fleche.digest._code import attributes_of_function, bytecode_of, captured_by, defaults_of
from fleche.digest._content import ContentError, FileContent, read_content
from fleche.digest._digest import Address, D, Digest, short_key, shown_digest
from fleche.digest._instances import attributes_of, keep_attributes
from fleche.digest._keys import (
    CallKeys,
    call_key,
    code_digest,
    digest,
    digest_arguments,
    digest_with_buffers,
    steady,
)
from fleche.digest._names import (
    HEAP,
    array_of,
    find_name,
    is_made_up,
    look_up,
    name_of_bare,
    own_module,
)
from fleche.digest._objects import registered_reducer
from fleche.digest._plain import (
    ENDS_AS_TOLD,
    PlainMarker,  # noqa: F401 - the encoding of plain data calls it by this name
    ends_otherwise,
)
from fleche.digest._registry import add_hook
from fleche.digest._source import (
    Definition,
    find_definition,
    interactive_sources,
    keeping_trees,
    marks_of_execution,
    remember_file,
    take_code,
    told_of_code,
)
from fleche.digest._syntax import (
    blocks_of,
    chain_of,
    dump_syntax,
    inner_nodes,
    is_type_checking,
)
from fleche.digest._tokens import SCHEME, BufferDigests, buffer_digest, hash_threads
from fleche.digest.science import find_reducer, register_rows

if TYPE_CHECKING:
    from fleche.digest._ahead import hashed_ahead
    from fleche.digest._difference import Difference, find_difference
    from fleche.digest._numpy import attributes_of_masked

__all__ = [
    "CLOCK_CALLS",
    "ENDS_AS_TOLD",
    "HEAP",
    "SCHEME",
    "WITH",
    "Address",
    "BufferDigests",
    "CallKeys",
    "ContentError",
    "D",
    "Definition",
    "Difference",
    "Digest",
    "FileContent",
    "SettingStatement",
    "add_hook",
    "array_of",
    "attributes_of",
    "attributes_of_function",
    "attributes_of_masked",
    "blocks_of",
    "buffer_digest",
    "bytecode_of",
    "call_key",
    "calling_statements",
    "captured_by",
    "chain_of",
    "changing_statements",
    "code_digest",
    "defaults_of",
    "defining_statements",
    "defining_syntax",
    "digest",
    "digest_arguments",
    "digest_with_buffers",
    "dump_statements",
    "dump_syntax",
    "ends_otherwise",
    "expressions_of",
    "find_definition",
    "find_difference",
    "find_name",
    "find_reducer",
    "full_name",
    "hash_threads",
    "hashed_ahead",
    "imported_as",
    "inner_nodes",
    "interactive_sources",
    "is_from_clock",
    "is_made_up",
    "is_simple",
    "is_type_checking",
    "keep_attributes",
    "keeping_trees",
    "look_up",
    "made_by_clock",
    "marks_of_execution",
    "members_of",
    "name_of_bare",
    "names_beside",
    "names_bound_in",
    "origin_of",
    "own_module",
    "passing_statements",
    "read_content",
    "registered_reducer",
    "remember_file",
    "setting_statements",
    "setting_statements_of",
    "settings_and_calls",
    "short_key",
    "shown_digest",
    "statements_setting",
    "steady",
    "take_code",
    "text_at",
    "told_of_code",
    "told_to",
    "types_in",
]


# what only large results, warnings and some arrays need
__getattr__ = imported_when_asked(
    __name__,
    {
        "._ahead": ("hashed_ahead",),
        "._difference": ("Difference", "find_difference"),
        "._numpy": ("attributes_of_masked",),
    },
)


class _CallablePackage(ModuleType):
    """This package, which is also the function that ``from fleche import digest`` gives.

    Importing any module of it makes it the attribute ``digest`` of ``fleche``, so that no function
    could keep that place.
    """

    def __call__(self, obj: object) -> Digest:
        """Return the digest of a value; see :func:`fleche.digest.digest`."""
        return digest(obj)


sys.modules[__name__].__class__ = _CallablePackage
register_rows()
