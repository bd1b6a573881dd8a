"""Cases of numpy, numba, scipy, sympy and mpmath."""

from __future__ import annotations

from typing import Any

from tests.science import Case, Cases, Refused

__all__ = ["numba", "numpy", "scipy", "sympy"]

UNCOPIED = ("copy",)


def double(x: Any) -> Any:
    return 2 * x


def triple(x: Any) -> Any:
    return 3 * x


def numpy() -> Cases:
    import numpy as np

    rows = np.ones((3, 2))
    unit = {"unit": "eV"}
    return {
        "ufunc": Case(
            lambda: np.sin,
            [lambda: np.cos, lambda: np.add.reduce, lambda: np.add],
            copies=("parcel",),
        ),
        "made ufunc": Case(
            lambda: np.frompyfunc(double, 1, 1),
            [
                lambda: np.frompyfunc(triple, 1, 1),
                lambda: np.frompyfunc(lambda x, y: x, 2, 1),
                lambda: np.frompyfunc(lambda x, y: x, 2, 1, identity=0),
            ],
            use=lambda value: value(rows),
            copies=("parcel",),
        ),
        "vectorize": Case(
            lambda: np.vectorize(double),
            [
                lambda: np.vectorize(triple),
                lambda: np.vectorize(double, otypes="d"),
                lambda: np.vectorize(double, excluded={0}),
                lambda: np.vectorize(double, signature="(n)->(n)"),
            ],
            use=lambda value: value(rows),
        ),
        "vectorize with types": Case(
            lambda: np.vectorize(double, otypes="d"),
            [lambda: np.vectorize(double, otypes="f")],
            use=lambda value: value(rows),
        ),
        "dtype metadata": Case(
            lambda: np.dtype("f8", metadata=unit),
            [lambda: np.dtype("f8"), lambda: np.dtype("f8", metadata={"unit": "K"})],
        ),
        "array with metadata": Case(
            lambda: np.ones(2, np.dtype("f8", metadata=unit)),
            [lambda: np.ones(2), lambda: np.ones(2, np.dtype("f8", metadata={"unit": "K"}))],
        ),
        "structure with metadata": Case(
            lambda: np.dtype([("x", np.dtype("f8", metadata=unit))]),
            [lambda: np.dtype([("x", "f8")])],
        ),
        "polynomial": Case(
            lambda: np.polynomial.Polynomial([1, 2]),
            [lambda: np.polynomial.Chebyshev([1, 2]), lambda: np.polynomial.Polynomial([1, 3])],
            use=lambda value: (value(2), value.roots(), repr(value)),
        ),
    }


def numba() -> Cases:
    import numba
    import numpy as np

    def jit(function: Any, *signatures: Any, **options: Any) -> Any:
        return lambda: numba.njit(*signatures, **options)(function)

    def stencil(shift: int) -> Any:
        def first(a: Any) -> Any:
            return a[0] + a[1]

        def second(a: Any) -> Any:
            return a[0] + a[2]

        return numba.stencil(first if shift == 1 else second)

    def reflected(*items: float) -> Any:
        found = numba.typed.List.empty_list(numba.float64)
        for item in items:
            found.append(item)
        return found

    def table(**items: float) -> Any:
        found = numba.typed.Dict.empty(numba.types.unicode_type, numba.float64)
        for name, value in items.items():
            found[name] = value
        return found

    def box() -> Any:
        class Box:
            def __init__(self, size: float) -> None:
                self.size = size

        return numba.experimental.jitclass([("size", numba.float64)])(Box)(1.0)

    vector = np.ones(3)
    return {
        "function": Case(
            jit(double),
            [
                jit(triple),
                jit(double, fastmath=True),
                jit(double, "float32(float32)"),
                jit(double, "float64(float64)"),
                lambda: double,
            ],
            use=lambda value: (value(1), value(1.5), value(vector)),
        ),
        "ufunc": Case(
            lambda: numba.vectorize(double),
            [
                lambda: numba.vectorize(triple),
                lambda: numba.vectorize(["float32(float32)"])(double),
                lambda: numba.vectorize(["float64(float64)"])(double),
            ],
            use=lambda value: (value(1), value(vector)),
            copies=UNCOPIED,
        ),
        "gufunc": Case(
            lambda: numba.guvectorize(["(f8[:],f8[:])"], "(n)->(n)")(lambda x, y: None),
            [lambda: numba.guvectorize(["(f4[:],f4[:])"], "(n)->(n)")(lambda x, y: None)],
            use=lambda value: value(vector),
            copies=UNCOPIED,
        ),
        "callback": Case(
            lambda: numba.cfunc("float64(float64)")(double),
            [
                lambda: numba.cfunc("float64(float64)")(triple),
                lambda: numba.cfunc("i8(i8)")(double),
            ],
            use=lambda value: (value.ctypes, value.address),
            copies=UNCOPIED,
        ),
        "stencil": Case(
            lambda: stencil(1), [lambda: stencil(2)], use=lambda value: value(vector), copies=()
        ),
        "list": Case(
            lambda: reflected(1.0, 2.0),
            [lambda: reflected(2.0, 1.0), lambda: numba.typed.List([1, 2]), lambda: [1.0, 2.0]],
            use=lambda value: (len(value), value[0], str(value)),
            copies=("copy", "parcel"),
        ),
        "dict": Case(
            lambda: table(a=1.0),
            [lambda: table(a=2.0), lambda: table(b=1.0)],
            use=lambda value: (len(value), value["a"]),
            copies=("copy", "parcel"),
        ),
        "type": Case(lambda: numba.float64[:], [lambda: numba.float64, lambda: numba.float32[:]]),
        "instance": Refused(box, "__digest__"),
    }


def scipy() -> Cases:
    import numpy as np
    from scipy import integrate, interpolate, optimize, signal, sparse, spatial, special, stats
    from scipy.sparse import linalg

    random = np.random.RandomState(0)
    points, more = random.rand(20, 2), random.rand(20, 2)
    height = points.sum(1)
    x = np.arange(8.0)
    y = np.sin(x)

    def noisy(make: Any) -> Any:
        """Make something in memory that others have written to."""

        def made() -> Any:
            junk = [np.random.random(64 + size) for size in range(300)]
            del junk
            return make()

        return made

    def drawing(value: Any) -> None:
        value.rvs(size=3)

    def own_generator(seed: int) -> Any:
        value = stats.norm(0, 1)
        value.random_state = np.random.RandomState(seed)
        return value

    def smoothed(amount: float) -> Any:
        value = interpolate.UnivariateSpline(x, y)
        value.set_smoothing_factor(amount)
        return value

    def curve(cls: Any, use: Any = lambda value: value(1.5), **options: Any) -> Case:
        return Case(
            noisy(lambda: cls(x, y, **options)),
            [lambda: cls(x, y + 1, **options), lambda: cls(x + 1, y, **options)],
            use=use,
        )

    def surface(cls: Any) -> Case:
        return Case(
            noisy(lambda: cls(points, height)),
            [lambda: cls(points, height + 1), lambda: cls(more, height)],
            use=lambda value: value([[0.5, 0.5]]),
        )

    def hull(cls: Any) -> Case:
        return Case(
            lambda: cls(points),
            [lambda: cls(more), lambda: cls(points, incremental=True)],
            use=lambda value: [getattr(value, name, None) for name in dir(type(value))],
        )

    class Slope(stats.rv_continuous):  # type: ignore[misc]
        def _pdf(self, x: Any) -> Any:
            return 2 * x

    eye = np.diag([1.0, 2.0, 3.0])
    normal = stats.multivariate_normal
    return {
        "ufunc": Case(
            lambda: special.erfc, [lambda: special.erf, lambda: np.sin, lambda: special.jv]
        ),
        "frozen": Case(
            lambda: stats.norm(0, 1),
            [
                lambda: stats.norm(0, 2),
                lambda: stats.cauchy(0, 1),
                lambda: own_generator(1),
                lambda: own_generator(2),
                lambda: stats.norm(loc=0, scale=2),
            ],
            use=lambda value: (drawing(value), value.cdf(1), value.stats(), value.expect()),
        ),
        "frozen discrete": Case(
            lambda: stats.poisson(3),
            [lambda: stats.poisson(4)],
            use=lambda value: (drawing(value), value.pmf(2), value.expect()),
        ),
        "sampled": Case(
            lambda: stats.rv_discrete(values=([1, 2], [0.5, 0.5])),
            [lambda: stats.rv_discrete(values=([1, 2], [0.25, 0.75]))],
            use=lambda value: (drawing(value), value.pmf(2), value.expect()),
        ),
        "histogram": Case(
            lambda: stats.rv_histogram((np.array([1, 2]), np.array([0.0, 1, 2]))),
            [lambda: stats.rv_histogram((np.array([1, 3]), np.array([0.0, 1, 2])))],
            use=lambda value: (drawing(value), value.cdf(0.5)),
        ),
        "family": Case(
            lambda: stats.gamma, [lambda: stats.beta], use=lambda value: value.cdf(1, 2)
        ),
        "own family": Case(
            lambda: Slope(a=0, b=1, name="slope"),
            [lambda: Slope(a=0, b=0.5, name="slope")],
            use=lambda value: (value.cdf(0.5), value.mean()),
            copies=("copy", "deepcopy"),
        ),
        "multivariate": Case(
            lambda: normal([0, 0], np.eye(2)),
            [lambda: normal([0, 1], np.eye(2)), lambda: normal([0, 0], 2 * np.eye(2))],
            use=lambda value: (drawing(value), value.pdf([0, 0]), value.cdf([0, 0])),
        ),
        "wishart": Case(
            lambda: stats.wishart(3, np.eye(2)),
            [lambda: stats.wishart(4, np.eye(2))],
            use=lambda value: (drawing(value), value.mean()),
        ),
        "density": Case(
            lambda: stats.gaussian_kde(x),
            [lambda: stats.gaussian_kde(y), lambda: stats.gaussian_kde(x, "silverman")],
            use=lambda value: (value(1.0), value.inv_cov, value.resample(2)),
        ),
        "random variable": Case(
            lambda: stats.Normal(mu=0.0, sigma=1.0),
            [lambda: stats.Normal(mu=0.0, sigma=2.0), lambda: stats.Uniform(a=0.0, b=1.0)],
            use=lambda value: (value.mean(), value.cdf(0.1), value.entropy(), value.sample(2)),
            copies=("parcel",),
        ),
        "sobol": Case(
            lambda: stats.qmc.Sobol(2, rng=1),
            [lambda: stats.qmc.Sobol(2, rng=2), lambda: stats.qmc.Sobol(3, rng=1)],
        ),
        "result": Case(
            lambda: stats.linregress(x, y),
            [lambda: stats.linregress(x, x)],
            use=repr,
        ),
        "tree": Case(
            lambda: spatial.KDTree(points),
            [
                lambda: spatial.KDTree(more),
                lambda: spatial.KDTree(points, leafsize=2),
                lambda: spatial.KDTree(points, boxsize=2),
                lambda: spatial.cKDTree(points),
            ],
            use=lambda value: (
                value.query([0, 0]),
                value.tree,
                value.sparse_distance_matrix(value, 1),
            ),
        ),
        "old tree": Case(
            lambda: spatial.cKDTree(points),
            [lambda: spatial.cKDTree(more)],
            use=lambda value: (value.query([0, 0]), value.tree),
        ),
        "hull": hull(spatial.ConvexHull),
        "triangles": hull(spatial.Delaunay),
        "cells": hull(spatial.Voronoi),
        "rotation": Case(
            lambda: spatial.transform.Rotation.from_euler("x", 1.0),
            [
                lambda: spatial.transform.Rotation.from_euler("y", 1.0),
                lambda: spatial.transform.Rotation.from_euler("x", [[1.0]]),
            ],
            use=lambda value: (value.as_matrix(), value.inv(), value * value, repr(value)),
        ),
        "slerp": Case(
            lambda: spatial.transform.Slerp(
                [0, 1], spatial.transform.Rotation.from_euler("x", [[0.0], [1.0]])
            ),
            [
                lambda: spatial.transform.Slerp(
                    [0, 2], spatial.transform.Rotation.from_euler("x", [[0.0], [1.0]])
                )
            ],
            use=lambda value: value(0.5),
        ),
        "spline": curve(
            interpolate.UnivariateSpline,
            lambda value: (value(1.5), value.derivative(), value.integral(0, 1), value.get_knots()),
        ),
        "smoothed spline": Case(
            noisy(lambda: smoothed(0.5)),
            [lambda: smoothed(0.0), lambda: interpolate.UnivariateSpline(x, y, ext=1)],
            use=lambda value: value(1.5),
        ),
        "interpolating spline": curve(interpolate.InterpolatedUnivariateSpline),
        "spline of knots": Case(
            noisy(lambda: interpolate.LSQUnivariateSpline(x, y, [3.5])),
            [lambda: interpolate.LSQUnivariateSpline(x, y, [4.5])],
            use=lambda value: value(1.5),
        ),
        "derivative": Case(
            noisy(lambda: interpolate.UnivariateSpline(x, y).derivative()),
            [lambda: interpolate.UnivariateSpline(x, y).derivative(2)],
            use=lambda value: value(1.5),
        ),
        "cubic": curve(interpolate.CubicSpline),
        "pchip": curve(interpolate.PchipInterpolator),
        "akima": curve(interpolate.Akima1DInterpolator),
        "b-spline": curve(
            interpolate.make_interp_spline, lambda value: (value(1.5), value.integrate(0, 1))
        ),
        "barycentric": curve(
            interpolate.BarycentricInterpolator,
            lambda value: (value(1.5), value.derivative(1.5)),
        ),
        "krogh": curve(
            interpolate.KroghInterpolator, lambda value: (value(1.5), value.derivative(1.5))
        ),
        "linear": curve(interpolate.interp1d),
        "rational": curve(interpolate.AAA, lambda value: (value(1.5), value.poles())),
        "rational without poles": curve(
            interpolate.FloaterHormannInterpolator, lambda value: (value(1.5), value.poles())
        ),
        "grid": Case(
            lambda: interpolate.RegularGridInterpolator((x, x), np.outer(y, y), method="cubic"),
            [
                lambda: interpolate.RegularGridInterpolator((x, x), np.outer(y, y)),
                lambda: interpolate.RegularGridInterpolator((x, x + 1), np.outer(y, y)),
            ],
            use=lambda value: value([1.5, 1.5]),
        ),
        "patches": Case(
            noisy(lambda: interpolate.RectBivariateSpline(x, x, np.outer(y, y))),
            [lambda: interpolate.RectBivariateSpline(x, x, np.outer(y, x))],
            use=lambda value: (value(1, 1), value.integral(0, 1, 0, 1)),
        ),
        "smooth patches": Case(
            noisy(lambda: interpolate.SmoothBivariateSpline(*points.T, height, kx=1, ky=1)),
            [lambda: interpolate.SmoothBivariateSpline(*more.T, height, kx=1, ky=1)],
            use=lambda value: value(1, 1),
        ),
        "triangulated": surface(interpolate.LinearNDInterpolator),
        "nearest": surface(interpolate.NearestNDInterpolator),
        "smooth triangles": surface(interpolate.CloughTocher2DInterpolator),
        "radial": surface(interpolate.RBFInterpolator),
        "sparse": Case(
            lambda: sparse.csr_array(eye),
            [
                lambda: sparse.csr_matrix(eye),
                lambda: sparse.csc_array(eye),
                lambda: sparse.csr_array(2 * eye),
                lambda: sparse.csr_array(eye.astype("f4")),
            ],
            use=lambda value: (value @ value, value.has_sorted_indices, value.has_canonical_format),
        ),
        "sparse dict": Case(
            lambda: sparse.dok_array(eye),
            [lambda: sparse.dok_array(2 * eye)],
            use=lambda value: (value[0, 0], value.tocsr()),
        ),
        "operator": Case(
            lambda: linalg.aslinearoperator(eye),
            [lambda: linalg.aslinearoperator(2 * eye)],
            use=lambda value: (value.T, value.H, value @ np.ones(3)),
        ),
        "system": Case(
            lambda: signal.TransferFunction([1.0], [1.0, 2.0]),
            [lambda: signal.TransferFunction([1.0], [1.0, 3.0])],
            use=lambda value: (value.bode(), value.poles),
        ),
        "spectrum": Case(
            lambda: signal.ShortTimeFFT(np.ones(8), 4, 1.0),
            [
                lambda: signal.ShortTimeFFT(np.ones(8), 4, 2.0),
                lambda: signal.ShortTimeFFT(np.ones(8), 4, 1.0, dual_win=np.ones(8) / 3),
            ],
            use=lambda value: (value.dual_win, value.stft(np.ones(50)), value.t(50), value.f),
        ),
        "optimum": Case(
            lambda: optimize.minimize(lambda p: float(p @ p), [1.0, 2.0]),
            [lambda: optimize.minimize(lambda p: float(p @ p) + 1, [1.0, 2.0])],
            use=lambda value: (value.x, repr(value)),
        ),
        "solution": Case(
            lambda: integrate.solve_ivp(lambda t, y: -y, (0, 1), [1.0], dense_output=True),
            [lambda: integrate.solve_ivp(lambda t, y: -y, (0, 1), [2.0], dense_output=True)],
            use=lambda value: value.sol(0.5),
        ),
    }


def is_even(value: Any) -> bool:
    return bool(value.is_even)


def sympy() -> Cases:
    import mpmath
    import sympy as s
    from sympy.liealgebras.cartan_type import CartanType
    from sympy.physics import mechanics, units

    def measured(name: str, factor: int, reference: Any) -> Any:
        unit = units.Quantity(name)
        unit.set_global_relative_scale_factor(factor, reference)
        return unit

    x, y = s.symbols("x y")
    f = s.Function("f")

    def used(value: Any) -> object:
        return (
            hash(value),
            value.diff(x),
            s.simplify(value),
            value.evalf(),
            value.is_real,
            str(value),
        )

    def in_context(digits: int) -> Any:
        with mpmath.workdps(digits):
            return mpmath.mpf(1) / 3

    def implemented(function: Any) -> Any:
        from sympy.utilities.lambdify import implemented_function

        return implemented_function("g", function)(x)

    def unevaluated() -> list[Any]:
        """Make what the classes of sympy would make something else of."""
        return [
            *(s.factor(2 * x + 2 * y), s.factor_terms(3 * x + 6 * y), s.gcd_terms(4 * x + 6 * y)),
            *(s.together(x / 2 + y / 2), s.sympify("2*(x+x)/4", evaluate=False)),
            *(s.Pow(2, 3, evaluate=False), s.Pow(10, 10**20, evaluate=False)),
            *(s.Add(y, x, evaluate=False), s.Mul(y, x, 1, evaluate=False)),
            *(s.Eq(x, x, evaluate=False), s.sin(s.pi, evaluate=False)),
            *(s.Max(1, 2, evaluate=False), s.binomial(4, 2, evaluate=False)),
            *(s.And(x > 1, x < 0, evaluate=False), s.Not(s.true, evaluate=False)),
            s.Piecewise((x, x > 1), (y, x > 1), (1, True), evaluate=False),
            s.Union(s.FiniteSet(1), s.FiniteSet(2), evaluate=False),
            s.Derivative(x**2, x, evaluate=False).subs(x, y),
            *(s.Point(0.5, 1, evaluate=False), s.Lambda(x, s.Pow(2, 3, evaluate=False))),
            *(f(s.Add(1, 1, evaluate=False)), s.IndexedBase("A", real=True)[s.Idx("i")]),
            *(kind([[s.factor(2 * x + 2 * y)]]) for kind in (s.Matrix, s.ImmutableMatrix, s.Array)),
        ]

    def noted(value: Any) -> Any:
        value.note = "mine"
        return value

    def indexed(**options: Any) -> Any:
        return s.IndexedBase("A", **options)

    def field(symmetric: bool) -> Any:
        return s.GF(5, symmetric=symmetric)

    def basis(*polynomials: Any, **options: Any) -> Any:
        return s.groebner(polynomials, x, y, **options)

    return {
        "wild": Case(
            lambda: s.Wild("w"),
            [
                lambda: s.Wild("w", exclude=[x]),
                lambda: s.Wild("w", exclude=[y]),
                lambda: s.Wild("w", properties=[is_even]),
                lambda: s.Wild("w", real=True),
                lambda: s.WildFunction("w"),
                lambda: s.WildFunction("w", nargs=2),
            ],
            use=lambda value: (x.match(value), hash(value), value.is_real),
        ),
        "parts of wilds": Case(
            lambda: [s.Wild("w", exclude=[x], real=True), s.Wild("w", properties=[is_even])],
            use=lambda values: [x.match(value) for value in values],
            copies=("parcel",),
        ),
        "indexed": Case(
            indexed,
            [
                lambda: indexed(offset=1),
                lambda: indexed(shape=(2, 3)),
                lambda: indexed(shape=(2, 3), strides=(1, 2)),
                lambda: indexed(shape=(2, 3), strides="F"),
                lambda: indexed(real=True),
            ],
            use=lambda value: (str(value[1, 2]), hash(value), value.free_symbols),
        ),
        "parts beyond the content": Case(
            lambda: [
                *(indexed(offset=1), indexed(shape=(2, 3), strides=(1, 2), real=True)[1, 2]),
                s.Quaternion(1, x, 0, 0, real_field=False),
                s.Quaternion(1, x, 0, 0, norm=2),
                *(units.Dimension("d", "e"), units.Dimension("d", "f")),
                *(basis(x**2 + y, x * y), basis(x**2 + y, x * y, order="grlex")),
                *(s.WildFunction("w", nargs=2), CartanType("B3")),
            ],
            copies=("parcel",),
        ),
        "quaternion": Case(
            lambda: s.Quaternion(1, x, 0, 0),
            [
                lambda: s.Quaternion(1, x, 0, 0, real_field=False),
                lambda: s.Quaternion(1, x, 0, 0, norm=2),
            ],
            use=lambda value: (value.norm(), value.inverse(), hash(value)),
        ),
        "basis": Case(
            lambda: basis(x**2 + y, x * y),
            [
                lambda: basis(x**2 - y, x * y),
                lambda: basis(x**2 + y, x * y, order="grlex"),
                lambda: CartanType("A3"),
                lambda: CartanType("A4"),
            ],
            use=lambda value: (
                list(value),
                value.is_zero_dimensional,
                value.contains(x),
                hash(value),
            ),
            copies=("parcel",),
        ),
        "unevaluated": Case(
            unevaluated,
            use=lambda values: (str(values), [value.is_commutative for value in values[:9]]),
            copies=("parcel",),
        ),
        "expression": Case(
            lambda: s.sin(x) ** 2 + y / 3,
            [
                lambda: s.sin(x) ** 2 + y / 4,
                lambda: s.cos(x) ** 2 + y / 3,
                lambda: s.sin(s.Symbol("x", positive=True)) ** 2 + y / 3,
                lambda: s.Integral(s.sin(x), x),
                lambda: s.Integral(s.sin(x), (x, 0, 1)),
                lambda: s.Eq(x, y),
                lambda: s.Piecewise((x, x > 1), (y, True)),
                lambda: s.Sum(x, (x, 1, 3)),
                lambda: s.Lambda(x, x + 1),
                lambda: s.MatrixSymbol("A", 2, 2) * 2,
                lambda: s.FiniteSet(x, y, 1),
            ],
            use=used,
        ),
        "symbol": Case(
            lambda: s.Symbol("x"),
            [
                lambda: s.Symbol("y"),
                lambda: s.Symbol("x", real=True),
                lambda: s.Symbol("x", positive=True),
                lambda: s.Symbol("x", commutative=False),
                lambda: s.Wild("x"),
                lambda: s.Idx("x"),
                lambda: "x",
            ],
            use=used,
        ),
        "assumptions": Case(
            lambda: s.Symbol("x", positive=True),
            equal=[lambda: s.Symbol("x", real=True, positive=True)],
            use=lambda value: (value.is_prime, value.is_even, (value > 0), s.sqrt(value**2)),
        ),
        "dummy": Refused(lambda: s.Dummy("x") + 1, "Symbol"),
        "function": Case(
            lambda: s.Function("f"),
            [
                lambda: s.Function("g"),
                lambda: s.Function("f", real=True),
                lambda: s.Function("f", nargs=2),
                lambda: s.sin,
                lambda: s.Symbol("f"),
            ],
            use=lambda value: (value(x), hash(value), value(x).diff(x)),
            copies=("copy", "deepcopy"),
        ),
        "applied": Case(
            lambda: f(x),
            [
                lambda: f(y),
                lambda: s.Function("g")(x),
                lambda: f(x).diff(x),
                lambda: s.Function("f", real=True)(x),
                lambda: implemented(double),
                lambda: implemented(triple),
            ],
            use=used,
        ),
        "numbers": Case(
            lambda: s.Integer(1),
            [
                lambda: s.Float(1),
                lambda: s.Float(1, 30),
                lambda: s.Rational(1, 3),
                lambda: 1,
                lambda: s.pi,
                lambda: s.I,
                lambda: s.oo,
                lambda: s.nan,
                lambda: s.true,
            ],
            use=lambda value: (value + 1, value.evalf(), value.is_prime),
        ),
        "matrix": Case(
            lambda: s.Matrix([[1, x], [0, 2]]),
            [
                lambda: s.Matrix([[1, y], [0, 2]]),
                lambda: s.Matrix([[1, x, 0, 2]]),
                lambda: s.ImmutableMatrix([[1, x], [0, 2]]),
                lambda: s.SparseMatrix([[1, x], [0, 2]]),
                lambda: noted(s.Matrix([[1, x], [0, 2]])),
                lambda: noted(s.ImmutableMatrix([[1, x], [0, 2]])),
                lambda: noted(s.Array([[1, x], [0, 2]])),
                lambda: s.Array([[1, x], [0, 2]]),
                lambda: s.MutableDenseNDimArray([[1, x], [0, 2]]),
            ],
            use=lambda value: (
                value.det(),
                value.inv(),
                value.eigenvals(),
                value.rref(),
                value * 0.5,
            ),
        ),
        "noted": Case(
            lambda: [noted(kind([[1, x]])) for kind in (s.Matrix, s.ImmutableMatrix, s.Array)],
            copies=("parcel",),
        ),
        "polynomial": Case(
            lambda: s.Poly(x**2 + y, x, y),
            [
                lambda: s.Poly(x**2 + y, y, x),
                lambda: s.Poly(x**2 + y, x),
                lambda: s.Poly(x**2 + y, x, y, domain="QQ"),
            ],
            use=lambda value: (value.factor_list(), value.diff(x), hash(value)),
        ),
        "polynomial of a field": Case(
            lambda: s.Poly(x**2 + 1, x, modulus=5),
            [
                lambda: s.Poly(x**2 + 1, x, modulus=7),
                lambda: s.Poly(x**2 + 1, x, modulus=5, symmetric=False),
                lambda: s.Poly(x**2 + 1, x),
            ],
            use=lambda value: value.factor_list(),
            copies=("parcel",),
        ),
        "domain": Case(
            lambda: s.RR,
            [
                *(lambda: s.QQ, lambda: field(True), lambda: field(False)),
                *(
                    lambda: field(True)[x],
                    lambda: field(False)[x],
                    lambda: s.QQ[x],
                    lambda: s.QQ[y],
                ),
                *(lambda: s.QQ.frac_field(x), lambda: s.QQ.algebraic_field(s.sqrt(2))),
                lambda: s.QQ[s.Symbol("x", positive=True)],
                lambda: s.QQ.poly_ring(x, y, order="grlex"),
                lambda: s.ring("x", field(False))[0],
            ],
            use=lambda value: value(1.5),
            copies=("copy",),
        ),
        "finite field": Case(
            lambda: [field(True), field(False), s.Poly(3 * x, x, modulus=5, symmetric=False)],
            use=lambda values: values[2].all_coeffs(),
            copies=("parcel",),
        ),
        "frame": Refused(lambda: mechanics.ReferenceFrame("N").x, "components"),
        "unit": Case(
            lambda: measured("foo", 2, units.meter),
            [
                lambda: measured("foo", 5, units.meter),
                lambda: measured("foo", 2, units.second),
                lambda: measured("foo", 2, measured("bar", 3, units.meter)),
                lambda: measured("foo", 2, measured("bar", 4, units.meter)),
                lambda: measured("bar", 2, units.meter),
                lambda: units.Quantity("baz"),
            ],
            use=lambda value: (value.scale_factor, value.dimension, hash(value)),
        ),
        "units": Case(
            lambda: 3 * units.meter,
            [lambda: 3 * units.second, lambda: 3 * s.Symbol("meter")],
            use=lambda value: units.convert_to(value, units.km),
        ),
        "ring": Case(
            lambda: s.ring("a,b", s.ZZ)[1] ** 2 + 1,
            [lambda: s.ring("a,b", s.ZZ)[2] ** 2 + 1, lambda: s.ring("a,c", s.ZZ)[1] ** 2 + 1],
            use=lambda value: (value * value, value.degree(), hash(value)),
            copies=("copy",),
        ),
        "mpf": Case(
            lambda: mpmath.mpf(1) / 3,
            [
                lambda: in_context(40),
                lambda: mpmath.mpc(1) / 3,
                lambda: mpmath.iv.mpf(1),
                lambda: 1 / 3,
            ],
            use=lambda value: (value + 1, str(value)),
        ),
        "mpmath matrix": Case(
            lambda: mpmath.matrix([[1, 2], [3, 4]]),
            [lambda: mpmath.matrix([[1, 2], [3, 5]])],
            use=lambda value: (mpmath.lu_solve(value, [1, 2]), value.T),
            copies=("copy", "deepcopy"),
        ),
        "context": Refused(lambda: mpmath.mp, "dps"),
    }
