"""Cases of matplotlib and Pillow."""

from __future__ import annotations

import io
from typing import Any

from tests.science import Case, Cases, Refused

__all__ = ["PIL", "matplotlib"]


def matplotlib() -> Cases:
    import matplotlib as mpl
    import numpy as np
    from matplotlib import colors, transforms, tri

    def viridis(alpha: float | None = None, **extremes: Any) -> Any:
        found = mpl.colormaps["viridis"].with_extremes(**extremes)
        if alpha is not None:
            found(0.5)
            found._lut[:, -1] = alpha
        return found

    def listed(*names: str) -> Any:
        return colors.ListedColormap(names)

    def blended(*names: str, **options: Any) -> Any:
        return colors.LinearSegmentedColormap.from_list("own", names, **options)

    def patch(value: float) -> Any:
        return colors.SegmentedBivarColormap(np.full((2, 2, 3), value), name="own")

    def mesh(height: float = 1.0, triangles: Any = None) -> Any:
        return tri.Triangulation([0, 1, 0, 1, 0.5], [0, 0, height, height, 0.5], triangles)

    def interpolate(value: Any) -> None:
        tri.LinearTriInterpolator(value, [1, 2, 3, 4, 5])(0.3, 0.4)

    cases = {
        "colormap": Case(
            viridis,
            [
                lambda: mpl.colormaps["magma"],
                lambda: mpl.colormaps["viridis_r"],
                lambda: mpl.colormaps["viridis"].resampled(7),
                lambda: viridis(bad="red"),
                lambda: viridis(alpha=0.5),
            ],
            use=lambda value: value(0.5),
        ),
        "colormap that is a list": Case(
            lambda: listed("r", "g"), [lambda: listed("g", "r")], use=lambda value: value([0, 1])
        ),
        "colormap between colours": Case(
            lambda: blended("r", "g"),
            [lambda: blended("r", "b"), lambda: blended("r", "g", gamma=2.0)],
            use=lambda value: value(0.1),
        ),
        "colormap by functions": Case(
            lambda: mpl.colormaps["gnuplot"],
            [lambda: mpl.colormaps["gnuplot2"]],
            use=lambda value: value(0.1),
        ),
        "norm": Case(
            lambda: colors.Normalize(0, 1),
            [
                lambda: colors.Normalize(0, 2),
                lambda: colors.Normalize(0, 1, clip=True),
                lambda: colors.LogNorm(1, 2),
                lambda: colors.SymLogNorm(1, vmin=1, vmax=2),
                lambda: colors.PowerNorm(2, 0, 1),
                lambda: colors.BoundaryNorm([0, 1], 1),
            ],
            use=lambda value: (value(0.5), value.callbacks.connect("changed", print)),
        ),
        "norm on a scale": Case(
            lambda: colors.LogNorm(1, 10),
            [lambda: colors.LogNorm(1, 9)],
            use=lambda value: value(2),
        ),
        "norm without a range": Case(colors.Normalize, [lambda: colors.Normalize(0)]),
        "triangulation": Case(
            mesh,
            [lambda: mesh(2.0), lambda: mesh(triangles=[[0, 1, 4], [1, 3, 4]])],
            use=lambda value: (value.edges, value.neighbors, interpolate(value)),
            copies=("copy", "parcel"),
        ),
        "transform": Case(
            lambda: transforms.Affine2D().rotate(1),
            [lambda: transforms.Affine2D().rotate(2)],
            use=lambda value: (value.inverted(), value.transform((1, 2))),
            copies=("deepcopy", "parcel"),
        ),
        "box": Case(
            lambda: transforms.Bbox([[0, 0], [1, 1]]),
            [lambda: transforms.Bbox([[0, 0], [1, 2]])],
            use=lambda value: (value.width, value.padded(1)),
            copies=("deepcopy", "parcel"),
        ),
    }
    if hasattr(colors, "SegmentedBivarColormap"):  # since 3.10
        cases["colormap of two values"] = Case(
            lambda: patch(0.5), [lambda: patch(0.6)], use=lambda value: value([[0.1], [0.2]])
        )
    return cases


def PIL() -> Cases:
    import numpy as np
    from PIL import Image, ImageOps

    def gray(*values: int, mode: str = "L") -> Any:
        return Image.fromarray(np.array([values], "u1")).convert(mode)

    def opened(form: str, *images: Any, **options: Any) -> Any:
        file = io.BytesIO()
        images[0].save(file, form, append_images=images[1:], save_all=len(images) > 1, **options)
        return Image.open(file)

    def stack(form: str) -> Any:
        return opened(form, gray(1, 2), gray(3, 4), gray(5, 6))

    def with_exif(value: Any, tag: int = 270, text: Any = "text") -> Any:
        value.getexif()[tag] = text
        return value

    def coloured(*colors: int, mode: str = "RGB", form: str = "P") -> Any:
        found = Image.new(form, (2, 1))
        found.putpalette(colors, mode)
        return found

    def exif(comment: str) -> Any:
        found = Image.Exif()
        found[270] = "text"
        found[0x8769] = {0x9286: comment}
        found[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
        return found

    def noted(value: Any) -> Any:
        value.note = "mine"
        return value

    def used(value: Any) -> object:
        value.load()
        value.getexif().get_ifd(0x8769)
        dict(value.getexif())
        dict(getattr(value, "tag_v2", {}))
        return (value.getpalette(), value.getbbox(), value.convert("RGBA"), np.array(value).sum())

    def tiff(text: str = "text", **options: Any) -> Any:
        return opened("TIFF", gray(1, 2), tiffinfo={270: text}, **options)

    def png(value: Any = None, **options: Any) -> Any:
        return opened("PNG", gray(1, 2) if value is None else value, **options)

    pixels = {"tiff": tiff, "tiff, packed": lambda: tiff(compression="tiff_lzw"), "png": png}
    pixels["gif"] = lambda: opened("GIF", gray(1, 2))
    pixels["jpeg"] = lambda: opened("JPEG", gray(1, 2), exif=exif("a"), quality=80)
    modes = ("1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "P")
    return {
        "image": Case(
            lambda: gray(1, 2),
            [
                lambda: gray(1, 3),
                lambda: gray(1, 2).transpose(Image.Transpose.ROTATE_90),
                *((lambda mode=mode: gray(1, 2, mode=mode)) for mode in modes if mode != "L"),
                lambda: with_exif(gray(1, 2)),
                lambda: with_exif(gray(1, 2), text="other"),
                lambda: with_exif(gray(1, 2), 271),
                lambda: noted(gray(1, 2)),
                *(lambda: png(), tiff),
            ],
            use=used,
            equal=[lambda: gray(1, 2, 3).crop((0, 0, 2, 1)), lambda: gray(1, 2).copy()],
        ),
        "palette": Case(
            lambda: coloured(10, 20, 30, 40, 50, 60),
            [
                lambda: coloured(10, 20, 30, 40, 50, 61),
                lambda: coloured(10, 20, 30, 4, 40, 50, 60, 4, mode="RGBA"),
                lambda: coloured(10, 20, 30, 5, 40, 50, 60, 4, mode="RGBA"),
                lambda: coloured(10, 20, 30, 40, 50, 60, form="PA"),
                lambda: png(coloured(10, 20, 30, 40, 50, 60)),
                lambda: png(coloured(10, 20, 30, 40, 50, 60), transparency=1),
                lambda: Image.new("P", (2, 1)),
            ],
            use=used,
        ),
        "what comes back": Case(
            lambda: [
                *(with_exif(gray(1, 2)), noted(gray(1, 2)), Image.new("L", (0, 2))),
                *(coloured(10, 20, 30, a, 40, 50, 60, a, mode="RGBA") for a in (4, 5)),
                *(gray(1, 2, mode=mode) for mode in modes),
                *(make() for make in pixels.values()),
                *(ImageOps.exif_transpose(tiff(exif=exif("a"))), Image.new("I;16", (1, 2), 3)),
            ],
            use=lambda images: list(map(used, images)),
            copies=("parcel",),
        ),
        "tiff": Case(
            tiff,
            [
                lambda: tiff("other"),
                lambda: tiff(dpi=(3, 3)),
                lambda: with_exif(tiff(), text="other"),
            ],
            use=used,
            copies=("parcel",),
        ),
        "jpeg": Case(
            lambda: opened("JPEG", gray(1, 1), exif=exif("a")),
            [
                lambda: opened("JPEG", gray(1, 1), exif=exif("b")),
                lambda: opened("JPEG", gray(1, 1), exif=exif("a"), quality=50),
                lambda: opened("JPEG", gray(1, 1)),
            ],
            use=used,
            copies=("parcel",),
        ),
        **{
            f"stack, {form}": Refused(lambda form=form: stack(form), "Content[Path]")
            for form in ("TIFF", "GIF", "PNG")
        },
        "one of a stack": Case(lambda: stack("TIFF").copy(), [lambda: gray(1, 3)], use=used),
    }
