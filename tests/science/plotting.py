"""Cases of matplotlib."""

from __future__ import annotations

from typing import Any

from tests.science import Case, Cases

__all__ = ["matplotlib"]


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
