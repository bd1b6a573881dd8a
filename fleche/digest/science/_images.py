"""Images of Pillow."""

from __future__ import annotations

import copy
from typing import Any

from fleche.digest.science._parts import Parts, parts, refuse, without

__all__ = ["image", "kept_of_file", "parts_of_image"]

EXIF, GPS, INTEROP, FIRST = 0x8769, 0x8825, 0xA005, 1
"""Tags of EXIF under which there are more tags."""

IN_IMAGES = (
    *("_im", "im", "_mode", "mode", "_size", "size", "palette", "info", "_exif", "pyaccess"),
    *("readonly", "_readonly", "_category"),
)
OF_FILES = (
    *("fp", "tile", "map", "decoderconfig", "decodermaxblock", "png", "ico", "icns", "ole"),
    *("dispose", "tag", "tag_v2", "ifd", "is_animated"),
)
"""Attributes of an opened file with which Pillow reads it, or that are told in another way."""


@parts
def image(obj: Any) -> Parts:
    """Describe an image by its pixels and by what is written about them.

    What Pillow reads on demand is read first; the EXIF tags are read from a copy, which notes what
    has been looked at.
    """
    return parts_of_image(obj)


def parts_of_image(obj: Any) -> Parts:
    """Return what is in an image.

    Raises:
        Indigestible: if it has several frames, or if its file cannot be read.
    """
    try:
        obj.load()
        is_stack = getattr(obj, "is_animated", False) or getattr(obj, "n_frames", 1) > 1
    except Exception as error:
        why = f"its file cannot be read ({type(error).__name__}: {error})"
        raise refuse(obj, why, "pass an image that is loaded") from error
    if is_stack:
        raise refuse(
            obj,
            "it shows one frame of several that lie in its file",
            "pass the path as Content[Path], and open it inside the function, or the frames as "
            "arrays, [numpy.array(frame) for frame in PIL.ImageSequence.Iterator(image)]",
        )
    colors = obj.getpalette(None)
    return {
        "mode": obj.mode,
        "size": tuple(obj.size),
        "pixels": obj.tobytes(),
        "palette": None if colors is None else (mode_of_palette(obj), bytes(colors)),
        "info": obj.info,
        "exif": exif_of(obj),
        "tags": tags_of(obj),
        "attributes": attributes_of_image(obj),
    }


def mode_of_palette(obj: Any) -> str:
    return "RGB" if obj.palette is None else str(obj.palette.mode)


def exif_of(obj: Any) -> tuple[dict[int, Any], dict[int, dict[int, Any]]]:
    """Return the EXIF tags of an image, and those under some of them."""
    exif = copy.copy(obj.getexif())
    for name in ("_data", "_hidden_data", "_ifds", "_info"):
        setattr(exif, name, copy.deepcopy(getattr(exif, name, None)))
    tags = {int(tag): exif[tag] for tag in sorted(exif)}
    found = {tag: dict(exif.get_ifd(tag)) for tag in (EXIF, GPS, FIRST)}
    if INTEROP in found[EXIF]:
        found[INTEROP] = dict(exif.get_ifd(INTEROP))
    below = {tag: in_order(part) for tag, part in found.items() if part or tag in tags}
    return tags, below


def tags_of(obj: Any) -> tuple[dict[int, Any], dict[int, Any]] | None:
    """Return the tags of an opened TIFF file with their types."""
    tags = getattr(obj, "tag_v2", None)
    return None if tags is None else (in_order(dict(tags)), in_order(tags.tagtype))


def in_order(tags: dict[Any, Any]) -> dict[int, Any]:
    return {int(tag): tags[tag] for tag in sorted(tags)}


def is_file(obj: Any) -> bool:
    """Whether an image was opened, rather than made."""
    return hasattr(obj, "tile")


def kept_of_file(obj: Any) -> Parts:
    """Return what does not count, but without which the methods of an opened file fail.

    These are numbers of frames, and the tags of a TIFF file, which are read as they are asked for.
    """
    if not is_file(obj):
        return {}
    return {
        name: value
        for name, value in without(obj, *IN_IMAGES).items()
        if name in ("ifd", "tag", "tag_v2", "is_animated")
        or (name.startswith("_") and type(value) in (int, bool, type(None)))
    } | {"fp": None, "tile": []}


def attributes_of_image(obj: Any) -> Parts:
    """Return the other attributes: what a program has hung on it, and what its file tells."""
    held = without(obj, *IN_IMAGES)
    if not is_file(obj):
        return held
    return {
        name: value
        for name, value in held.items()
        if name not in OF_FILES and (not name.startswith("_") or name == "_text")
    }
