"""Cases of astropy, pint, lmfit and uncertainties."""

from __future__ import annotations

from typing import Any

from tests.science import Case, Cases, Refused

__all__ = ["astropy", "lmfit", "pint", "uncertainties"]


def astropy() -> Cases:
    import astropy.units as u
    import numpy as np
    from astropy import constants, coordinates, cosmology, modeling, nddata, table, time, wcs
    from astropy.io import fits
    from astropy.uncertainty import Distribution
    from astropy.utils.masked import Masked

    def named(name: str) -> Any:
        value = [1.0, 2.0] * u.m
        value.info.description = name
        return value

    def sky(*, distance: Any = None, **options: Any) -> Any:
        given = {} if distance is None else {"distance": [distance] * u.pc}
        return coordinates.SkyCoord([10.0] * u.deg, [20.0] * u.deg, **given, **options)

    def plain(**options: Any) -> Any:
        return table.Table({"a": [1, 2], "b": [1.5, 2.5]}, **options)

    def described(text: str) -> Any:
        value = plain()
        value["a"].description = text
        return value

    def masked(*mask: bool) -> Any:
        return table.Table({"a": np.ma.array([1, 2], mask=mask)})

    def moment(text: str = "2020-01-01T00:00:00", **options: Any) -> Any:
        return time.Time(text, **options)

    def corrected(offset: float) -> Any:
        value = moment()
        value.delta_ut1_utc = offset
        return value

    def gauss(fixed: bool = False, mean: float = 2.0) -> Any:
        return modeling.models.Gaussian1D(1.0, mean, 3.0, fixed={"mean": fixed})

    def projected(value: float) -> Any:
        found = wcs.WCS(naxis=2)
        found.wcs.crval = [value, 0]
        found.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        return found

    def image(value: float, keyword: str = "x") -> Any:
        found = fits.PrimaryHDU(np.full((2, 2), value))
        found.header["OBJECT"] = keyword
        return found

    place = coordinates.EarthLocation.from_geodetic(1.0, 2.0, 3.0)
    flat = cosmology.FlatLambdaCDM
    return {
        "quantity": Case(
            lambda: [1.0, 2.0] * u.m,
            [
                lambda: [1.0, 3.0] * u.m,
                lambda: [1.0, 2.0] * u.s,
                lambda: [1.0, 2.0] * u.km,
                lambda: np.array([1.0, 2.0], "f4") * u.m,
                lambda: named("length"),
                lambda: np.array([1.0, 2.0]),
                lambda: coordinates.Angle([1.0, 2.0], u.deg),
            ],
            use=lambda q: (q.info, q.info.name, q.to("km"), q.si, q * q, repr(q), hash(q.unit)),
        ),
        "scalar": Case(lambda: 1.5 * u.m, [lambda: 1.5 * u.s, lambda: [1.5] * u.m], use=repr),
        "unit": Case(
            lambda: u.m,
            [lambda: u.s, lambda: u.km, lambda: u.m**2, lambda: u.Unit("m/s"), lambda: u.mag],
            use=lambda x: (x.to("km"), x.physical_type, hash(x), x.decompose(), str(x), x.si),
        ),
        "composite unit": Case(
            lambda: u.km / u.s,
            [lambda: u.m / u.s, lambda: u.s / u.km, lambda: 1000 * u.Unit("m/s")],
            use=lambda x: (x.to("m/s"), x.physical_type, hash(x), x.decompose(), str(x), x.si),
            equal=[lambda: u.Unit("km/s"), lambda: u.Unit("km s-1")],
        ),
        "magnitude": Case(
            lambda: 3 * u.mag(u.ct), [lambda: 4 * u.mag(u.ct)], use=lambda q: (q.physical, repr(q))
        ),
        "constant": Case(
            lambda: constants.c, [lambda: constants.G], use=lambda c: (c.cgs, c.si, c * 2)
        ),
        "masked": Case(
            lambda: Masked([1.0, 2.0] * u.m, mask=[True, False]),
            [
                lambda: Masked([1.0, 2.0] * u.m, mask=[False, False]),
                lambda: Masked([1.0, 2.0], mask=[True, False]),
            ],
            use=lambda q: (q.sum(), q.info, repr(q)),
        ),
        "samples": Case(
            lambda: Distribution([[1.0, 2.0]] * u.m),
            [lambda: Distribution([[1.0, 3.0]] * u.m), lambda: Distribution([[1.0, 2.0]])],
            use=lambda d: (d.pdf_mean(), repr(d), d + 1 * u.m),
        ),
        "angle": Case(
            lambda: coordinates.Longitude("200d"),
            [
                lambda: coordinates.Longitude("200d", wrap_angle="180d"),
                lambda: coordinates.Angle("200d"),
            ],
            use=lambda q: (q.hms, q.wrap_at("180d"), repr(q), q.info),
        ),
        "sky": Case(
            sky,
            [
                lambda: sky(frame="galactic"),
                lambda: sky(distance=3),
                lambda: sky(frame="fk5", equinox="J1980"),
                lambda: sky(obstime="J2010"),
                lambda: sky().icrs.frame,
            ],
            use=lambda c: (
                repr(c),
                c.galactic,
                c.separation(c),
                c.cartesian,
                c.ra.hms,
                c.info,
                len(c),
            ),
        ),
        "frame": Case(
            lambda: sky().frame,
            [lambda: sky(distance=3).frame],
            use=lambda f: (repr(f), f.cartesian, f.spherical, f.transform_to(coordinates.FK5())),
        ),
        "place": Case(
            lambda: coordinates.EarthLocation.from_geodetic(1.0, 2.0, 3.0),
            [lambda: coordinates.EarthLocation.from_geodetic(1.0, 2.0, 4.0)],
            use=lambda p: (p.lon, p.geodetic, p.info, repr(p)),
        ),
        "time": Case(
            moment,
            [
                lambda: moment("2020-01-01T00:00:01"),
                lambda: moment(scale="tai"),
                lambda: moment(precision=6),
                lambda: moment(location=place),
                lambda: time.Time(2458849.5, format="jd"),
                lambda: corrected(0.25),
            ],
            use=lambda t: (
                t.jd,
                t.tai,
                t.tdb,
                t.ut1,
                t.iso,
                t.info,
                repr(t),
                t + 1 * u.s,
                t.datetime,
            ),
        ),
        "times": Case(
            lambda: time.Time([50000.0, 50001.0], format="mjd"),
            [lambda: time.Time([50000.0, 50002.0], format="mjd")],
            use=lambda t: (t.ut1, t[0], t.min(), t.sidereal_time("mean", "greenwich"), t.jyear),
        ),
        "duration": Case(
            lambda: time.TimeDelta(1.0, format="jd"),
            [
                lambda: time.TimeDelta(2.0, format="jd"),
                lambda: time.TimeDelta(86400.0, format="sec"),
            ],
            use=lambda t: (t.sec, t.to("h"), repr(t)),
        ),
        "table": Case(
            plain,
            [
                lambda: plain(meta={"x": 1}),
                lambda: described("a column"),
                lambda: plain()["b", "a"],
                lambda: plain(units={"a": "m"}),
                lambda: table.QTable(plain()),
                lambda: table.QTable(plain(units={"a": "m"})),
                lambda: masked(True, False),
                lambda: masked(False, False),
                lambda: plain()[:1],
                lambda: table.Table({"a": [1, 2], "c": [1.5, 2.5]}),
            ],
            use=lambda t: (
                repr(t),
                t.info,
                t["a"].info,
                t[0],
                t.group_by("a"),
                t.meta,
                t.to_pandas(),
            ),
        ),
        "quantity table": Case(
            lambda: table.QTable({"a": [1.0, 2.0] * u.m, "t": moment() + [0, 1] * u.s}),
            [lambda: table.QTable({"a": [1.0, 2.0] * u.s, "t": moment() + [0, 1] * u.s})],
            use=lambda t: (repr(t), t["a"].info, t[0], t["t"].jd),
        ),
        "column": Case(
            lambda: table.Column([1, 2], name="a"),
            [lambda: table.Column([1, 2], name="b"), lambda: table.Column([1, 2], "a", unit="m")],
            use=lambda c: (c.info, repr(c), c.quantity, c.meta),
        ),
        "cosmology": Case(
            lambda: flat(70.0, 0.3),
            [
                lambda: flat(71.0, 0.3),
                lambda: flat(70.0, 0.3, Tcmb0=2.7),
                lambda: flat(70.0, 0.3, name="mine"),
                lambda: cosmology.LambdaCDM(70.0, 0.3, 0.7),
                lambda: cosmology.Planck18,
                lambda: cosmology.wCDM(70.0, 0.3, 0.7, w0=-0.9),
            ],
            use=lambda c: (
                c.age(1),
                c.hubble_time,
                c.comoving_distance(2.0),
                repr(c),
                c.critical_density0,
            ),
        ),
        "massive neutrinos": Case(
            lambda: flat(70.0, 0.3, Tcmb0=2.7, m_nu=[0.0, 0.0, 0.06] * u.eV),
            [lambda: flat(70.0, 0.3, Tcmb0=2.7, m_nu=[0.0, 0.0, 0.07] * u.eV)],
            use=lambda c: (c.age(1), c.Tnu0, c.has_massive_nu),
        ),
        "model": Case(
            gauss,
            [
                lambda: gauss(fixed=True),
                lambda: gauss(mean=2.5),
                lambda: modeling.models.Lorentz1D(1.0, 2.0, 3.0),
                lambda: gauss() + gauss(),
                lambda: gauss() * gauss(),
            ],
            use=lambda m: (
                m(1.0),
                m.parameters,
                m.fixed,
                m.bounds,
                repr(m),
                m.param_names,
                m.mean.value,
            ),
        ),
        "compound model": Case(
            lambda: gauss() + modeling.models.Const1D(1.0),
            [lambda: gauss() + modeling.models.Const1D(2.0)],
            use=lambda m: (m(1.0), m.parameters, repr(m), m.param_names, m[0]),
        ),
        "polynomial": Case(
            lambda: modeling.models.Polynomial1D(2, c0=1.0),
            [
                lambda: modeling.models.Polynomial1D(3, c0=1.0),
                lambda: modeling.models.Polynomial1D(2, c1=1.0),
            ],
            use=lambda m: (m(1.0), m.parameters),
        ),
        "projection": Case(
            lambda: projected(1.0),
            [lambda: projected(2.0)],
            use=lambda w: (w.pixel_to_world(0, 0), w.to_header(), repr(w)),
        ),
        "image": Case(
            lambda: nddata.CCDData(np.ones((2, 2)), unit="m"),
            [
                lambda: nddata.CCDData(np.ones((2, 2)), unit="s"),
                lambda: nddata.CCDData(np.ones((2, 3)), unit="m"),
            ],
            use=lambda i: (i.header, repr(i), i.shape, i.meta),
        ),
        "fits": Case(
            lambda: image(1.0),
            [lambda: image(2.0), lambda: image(1.0, "y")],
            use=lambda h: (h.header, h.data, h.header["NAXIS"], h.shape, repr(h.header)),
            copies=("copy",),
        ),
        "fits table": Case(
            lambda: fits.BinTableHDU(plain()),
            [lambda: fits.BinTableHDU(plain()[:1]), lambda: fits.BinTableHDU(plain()["a",])],
            use=lambda h: (h.columns, h.data["a"], h.header["NAXIS"], repr(h.data)),
            copies=("copy",),
        ),
        "fits file": Case(
            lambda: fits.HDUList([image(1.0), fits.BinTableHDU(plain())]),
            [
                lambda: fits.HDUList([image(2.0), fits.BinTableHDU(plain())]),
                lambda: fits.HDUList([]),
            ],
            use=lambda hdus: (hdus[0].data, hdus[1].columns, len(hdus)),
            copies=("copy",),
        ),
        "header": Case(
            lambda: fits.Header([("A", 1, "one")]),
            [lambda: fits.Header([("A", 2, "one")]), lambda: fits.Header([("A", 1, "two")])],
            use=lambda h: (h["A"], repr(h), list(h.cards)),
        ),
    }


def pint() -> Cases:
    import numpy as np
    import pint

    def registry(text: str = "") -> Any:
        found = pint.UnitRegistry()
        if text:
            found.define(text)
        return found

    def set_up(change: Any = None, **options: Any) -> Any:
        found = pint.UnitRegistry(**options)
        if change is not None:
            change(found)
        return found.Quantity(3.0, "degC")

    def written(form: str) -> Any:
        def change(registry: Any) -> None:
            getattr(registry, "formatter", registry).default_format = form

        return change

    def in_smoots(length: float) -> Any:
        return 3 * registry(f"smoot = {length} meter").smoot

    ureg = registry()
    return {
        "settings": Case(
            set_up,
            [
                lambda: set_up(autoconvert_offset_to_baseunit=True),
                lambda: set_up(default_as_delta=False),
                lambda: set_up(auto_reduce_dimensions=True),
                lambda: set_up(written("~P")),
                lambda: set_up(lambda found: found.enable_contexts("spectroscopy")),
                lambda: set_up(lambda found: found.enable_contexts("sp", n=2)),
            ],
            use=lambda q: (str(q), q.to("kelvin"), f"{q:~P}", q.dimensionality),
            equal=[lambda: set_up(autoconvert_offset_to_baseunit=False)],
        ),
        "quantity": Case(
            lambda: 3 * ureg.meter,
            [
                lambda: 4 * ureg.meter,
                lambda: 3.0 * ureg.meter,
                lambda: 3 * ureg.km,
                lambda: 3 * ureg.meter**2,
                lambda: 3 * ureg.meter / ureg.second,
                lambda: in_smoots(1.7),
                lambda: in_smoots(1.8),
                lambda: ureg.Quantity(3, "degC"),
                lambda: ureg.Quantity(3, "delta_degC"),
                lambda: 3,
            ],
            use=lambda q: (
                q.to("km"),
                q.dimensionality,
                hash(q),
                repr(q),
                f"{q:~P}",
                q.to_base_units(),
            ),
            equal=[lambda: 3 * registry().meter, lambda: registry().Quantity(3, "m")],
        ),
        "array": Case(
            lambda: np.ones(3) * ureg.meter / ureg.second,
            [lambda: np.zeros(3) * ureg.meter / ureg.second],
            use=lambda q: (q.to("km/h"), q.sum(), q.dimensionality, repr(q), q[0]),
            equal=[lambda: 1 / ureg.second * (np.ones(3) * ureg.meter)],
        ),
        "unit": Case(
            lambda: ureg.meter,
            [lambda: ureg.km, lambda: ureg.Unit(""), lambda: 1 * ureg.meter],
            use=lambda x: (x.dimensionality, hash(x), repr(x), 2 * x),
        ),
        "container": Case(
            lambda: (ureg.meter / ureg.second)._units,
            [lambda: (ureg.meter * ureg.second)._units],
            use=hash,
        ),
        "registry": Refused(registry, "pass quantities"),
        "measurement": Refused(lambda: (3 * ureg.meter).plus_minus(0.1), "identity"),
    }


def lmfit() -> Cases:
    import lmfit
    import numpy as np

    x = np.linspace(-2, 2, 20)

    def parameters(value: float = 1.0, **options: Any) -> Any:
        found = lmfit.Parameters()
        found.add("x", value, **options)
        found.add("y", expr="2 * x")
        return found

    def double(a: float) -> float:
        return 2 * a

    def triple(a: float) -> float:
        return 3 * a

    def with_symbol(function: Any) -> Any:
        found = lmfit.Parameters(usersyms={"f": function})
        found.add("x", 1)
        found.add("y", expr="f(x)")
        return found

    def turned() -> Any:
        found = lmfit.Parameters()
        found.add("y", 2.0)
        found.add("x", 1.0)
        return found

    def fitted(width: float = 1.0) -> Any:
        model = lmfit.models.GaussianModel()
        data = np.exp(-((x / width) ** 2))
        return model.fit(data, model.guess(data, x=x), x=x)

    def hinted() -> Any:
        found = lmfit.models.GaussianModel()
        found.set_param_hint("sigma", min=1)
        return found

    def minimized(value: float) -> Any:
        return lmfit.minimize(lambda p: np.array([p["x"].value - value, 1.0]), parameters())

    return {
        "whole numbers": Case(
            lambda: lmfit.create_params(a=1, b={"expr": "2*a"}),
            [lambda: lmfit.create_params(a=2, b={"expr": "2*a"})],
            use=lambda p: (p["b"].value, p.valuesdict(), p.update_constraints(), p.dumps()),
        ),
        "parameters": Case(
            parameters,
            [
                lambda: parameters(2.0),
                lambda: parameters(min=0),
                lambda: parameters(vary=False),
                lambda: parameters(user_data="note"),
                lambda: with_symbol(double),
                lambda: with_symbol(triple),
                turned,
            ],
            use=lambda p: (
                p.valuesdict(),
                p["y"].value,
                repr(p),
                p.pretty_repr(),
                p.dumps(),
                p.eval("x"),
            ),
        ),
        "parameter": Case(
            lambda: parameters()["x"],
            [lambda: parameters(2.0)["x"], lambda: parameters()["y"]],
            use=lambda p: (p.value, repr(p), p + 1),
        ),
        "model": Case(
            lmfit.models.GaussianModel,
            [
                lambda: lmfit.models.GaussianModel(prefix="g"),
                lmfit.models.LorentzianModel,
                hinted,
                lambda: lmfit.Model(np.polyval, independent_vars=["x"]),
                lambda: lmfit.models.GaussianModel() + lmfit.models.ConstantModel(),
                lambda: lmfit.models.GaussianModel() * lmfit.models.ConstantModel(),
                lambda: lmfit.models.ExpressionModel("a * x"),
                lambda: lmfit.models.ExpressionModel("b * x"),
            ],
            use=lambda m: (m.make_params(), m.param_names, repr(m), m.fit(np.exp(-x * x), x=x)),
        ),
        "fit": Case(
            fitted,
            [lambda: fitted(1.5)],
            use=lambda r: (r.best_values, r.fit_report(), r.eval(x=x), repr(r)),
            copies=("copy",),
        ),
        "minimum": Case(
            lambda: minimized(3.0),
            [lambda: minimized(4.0)],
            use=lambda r: (lmfit.fit_report(r), repr(r)),
        ),
    }


def uncertainties() -> Cases:
    from uncertainties import ufloat, unumpy

    return {
        "number": Refused(lambda: ufloat(1, 0.1), "std_dev"),
        "sum": Refused(lambda: ufloat(1, 0.1) + 1, "std_dev"),
        "list": Refused(lambda: [ufloat(1, 0.1)], "object[0]"),
        "array": Refused(lambda: unumpy.uarray([1, 2], [0.1, 0.2]), "std_dev"),
    }
