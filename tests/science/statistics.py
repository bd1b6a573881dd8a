"""Cases of statsmodels."""

from __future__ import annotations

from typing import Any

from tests.science import Case, Cases

__all__ = ["statsmodels"]


def statsmodels() -> Cases:
    import numpy as np
    import pandas as pd
    from statsmodels import api
    from statsmodels.formula import api as formula

    def data(slope: float = 2.0) -> Any:
        x = np.linspace(0.0, 1.0, 30)
        y = slope * x + np.sin(40 * x)
        return pd.DataFrame({"x": x, "y": y, "g": list("abc") * 10, "c": (y > 1).astype(int)})

    def line(equation: str = "y ~ x + C(g)", slope: float = 2.0, **options: Any) -> Any:
        return formula.ols(equation, data(slope)).fit(**options)

    def scaled(scale: float) -> Any:
        found = line()
        found._results.scale = scale
        return found

    def plain(slope: float = 2.0) -> Any:
        frame = data(slope)
        return api.OLS(frame["y"], api.add_constant(frame[["x"]])).fit()

    def binomial(slope: float = 2.0) -> Any:
        family = api.families.Binomial()
        return formula.glm("c ~ x", data(slope), family=family).fit()

    def logit(slope: float = 2.0) -> Any:
        return formula.logit("c ~ x", data(slope)).fit(disp=False)

    def series(slope: float = 2.0) -> Any:
        return data(slope)["y"].to_numpy()

    def arima(slope: float = 2.0, lags: int = 1) -> Any:
        return api.tsa.ARIMA(series(slope), order=(lags, 0, 0)).fit()

    def smoothing(slope: float = 2.0) -> Any:
        return api.tsa.ExponentialSmoothing(series(slope), trend="add").fit()

    def vectors(slope: float = 2.0) -> Any:
        return api.tsa.VAR(data(slope)[["x", "y"]].to_numpy()[::-1]).fit(1)

    def groups(slope: float = 2.0) -> Any:
        return formula.gee("y ~ x", "g", data(slope)).fit()

    def use(value: Any) -> None:
        value.summary()
        value.predict(data())

    def look_ahead(value: Any) -> None:
        value.summary()
        value.forecast(2)
        value.predict(1, 3)

    return {
        "least squares by a formula": Case(
            line,
            [
                lambda: line(slope=3.0),
                lambda: line("y ~ x"),
                lambda: line(cov_type="HC1"),
                lambda: scaled(7.0),
            ],
            use,
            copies=("deepcopy", "parcel"),
        ),
        "least squares": Case(
            plain,
            [lambda: plain(3.0)],
            lambda value: (value.summary(), value.predict()),
            copies=("deepcopy", "parcel"),
        ),
        "generalized linear model": Case(
            binomial, [lambda: binomial(0.5)], use, copies=("deepcopy", "parcel")
        ),
        "robust linear model": Case(
            lambda: formula.rlm("y ~ x", data()).fit(),
            [lambda: formula.rlm("y ~ x", data(3.0)).fit()],
            use,
            copies=("deepcopy", "parcel"),
        ),
        "autoregression": Case(
            lambda: api.tsa.AutoReg(data()["y"].to_numpy(), 1).fit(),
            [lambda: api.tsa.AutoReg(data()["y"].to_numpy(), 2).fit()],
            lambda value: value.summary(),
            copies=("deepcopy", "parcel"),
        ),
        "logistic regression": Case(
            logit, [lambda: logit(3.0)], use, copies=("deepcopy", "parcel")
        ),
        "state space": Case(
            arima, [lambda: arima(3.0), lambda: arima(lags=2)], look_ahead, copies=("parcel",)
        ),
        "exponential smoothing": Case(
            smoothing, [lambda: smoothing(3.0)], look_ahead, copies=("parcel",)
        ),
        "vector autoregression": Case(
            vectors,
            [lambda: vectors(3.0)],
            lambda value: value.summary(),
            copies=("deepcopy", "parcel"),
        ),
        "estimating equations": Case(
            groups, [lambda: groups(3.0)], lambda value: value.summary(), copies=("parcel",)
        ),
    }
