"""Jumps: exact laws of Merton's and Kou's, variance taken out of the forecast, common and own sources."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from pmvar.errors import InputError
from pmvar.models import build
from pmvar.models.jumps import most_jumps, poisson
from pmvar.models.specification import Factor
from tests.laws import Inverted, N, assert_mean, marginal, mixture_cdf, normals, total, walk
from tests.markets import specification

H = 10.0
YEARS = H / 365
MERTON = {"intensity": 40.0, "mean": -0.03, "deviation": 0.04}
KOU = {"intensity": 40.0, "up_probability": 0.3, "up_rate": 50.0, "down_rate": 25.0}
MORE = {
    "loading": {"B:spot": -0.7, "A:vol": 1.5},
    "scatter": {"A:vol": 0.03},
    "own": {"B:spot": {"intensity": 25.0, "mean": 0.02, "deviation": 0.03}},
}
SIGMA = {"A:spot": 0.04, "B:spot": 0.05, "A:vol": 0.06}


def jumping(model: str, jumps: Any, *, nu: float | None = None, sigma: dict[str, float] | None = None, **more: Any):
    """A specification with jumps, uncorrelated."""
    law = specification(sigma or SIGMA, model=model, degrees_of_freedom=nu)
    return replace(law, parameters={"jumps": jumps}, **more)


# ---- exact laws ----------------------------------------------------------------------------------------------------


def test_mertons_law():
    """Kolmogorov–Smirnov against Poisson mixtures written out: plain; loaded, with jumps of its own; with scatter."""
    x = total(build(jumping("merton", MERTON | MORE), H), steps=H)
    lam, m, d = (MERTON[key] for key in ("intensity", "mean", "deviation"))
    n = np.arange(40.0)
    common = stats.poisson.pmf(n, lam * YEARS)
    own = stats.poisson.pmf(n, 25.0 * YEARS)
    share = {
        "A:spot": lam * (m**2 + d**2) / 365,
        "B:spot": (lam * 0.49 * (m**2 + d**2) + 25.0 * (0.02**2 + 0.03**2)) / 365,
        "A:vol": lam * (2.25 * (m**2 + d**2) + 0.03**2) / 365,
    }
    rest = {f: H * (SIGMA[f] ** 2 - share[f]) for f in SIGMA}
    i, j = (a.ravel() for a in np.meshgrid(n, n))
    laws = {
        "A:spot": (n * m, rest["A:spot"] + n * d**2, common),
        "B:spot": (-0.7 * i * m + j * 0.02, rest["B:spot"] + i * (0.7 * d) ** 2 + j * 0.03**2,
                   np.outer(own, common).ravel()),
        "A:vol": (1.5 * n * m, rest["A:vol"] + n * ((1.5 * d) ** 2 + 0.03**2), common),
    }  # fmt: skip
    for column, (mean, variance, weight) in zip(x.T, laws.values(), strict=True):
        sample = column[: 1 << 15]
        cdf = mixture_cdf(mean, np.sqrt(variance), weight, np.sort(sample))
        assert stats.kstest(cdf, stats.uniform.cdf).pvalue > 1e-3


def test_kous_law():
    """Kolmogorov–Smirnov against the inverted characteristic function; the same for a loading of −½ and jumps of its
    own."""
    own = {"intensity": 30.0, "up_probability": 0.6, "up_rate": 40.0, "down_rate": 60.0}
    model = jumping("kou", KOU | {"loading": {"B:spot": -0.5}, "own": {"B:spot": own}})
    x = total(build(model, H), steps=H)

    def jump(u: Any, lam: float, p: float, up: float, down: float) -> Any:
        """Exponent of a year of jumps."""
        return lam * (p * up / (up - 1j * u) + (1 - p) * down / (down + 1j * u) - 1)

    def second(lam: float, p: float, up: float, down: float) -> float:
        return 2 * lam * (p / up**2 + (1 - p) / down**2)

    def phi(beta: float, sigma: float, alone: float):
        rest = H * sigma**2 - YEARS * (beta**2 * second(*KOU.values()) + alone * second(*own.values()))
        return lambda u: np.exp(
            -0.5 * rest * u**2 + YEARS * (jump(beta * u, *KOU.values()) + alone * jump(u, *own.values()))
        )

    for column, beta, sigma, alone in ((x[:, 0], 1.0, 0.04, 0.0), (x[:, 1], -0.5, 0.05, 1.0)):
        law = Inverted(phi(beta, sigma, alone), most=9 / (sigma * np.sqrt(H)) * 2)
        assert stats.kstest(column, law.cdf).pvalue > 1e-3


def t_with_jumps(jumps: Any, *, nu: float, variance: float, beta: float, own: Any, days: float) -> Any:
    """Characteristic function of x over `days` of one t draw with jumps: Student's by a Bessel function (Hurst 1995),
    the compound Poisson sums' by their exponent."""
    if "mean" in jumps:
        m, d = jumps["mean"], jumps["deviation"]
        second = m**2 + d**2

        def size(u: np.ndarray) -> np.ndarray:
            return np.exp(1j * u * m - 0.5 * (d * u) ** 2)

    else:
        p, up, down = (jumps[key] for key in ("up_probability", "up_rate", "down_rate"))
        second = 2 * p / up**2 + 2 * (1 - p) / down**2

        def size(u: np.ndarray) -> np.ndarray:
            return p * up / (up - 1j * u) + (1 - p) * down / (down + 1j * u)

    rest = variance - (jumps["intensity"] * beta**2 * second
                       + own["intensity"] * (own["mean"] ** 2 + own["deviation"] ** 2)) / 365  # fmt: skip

    def phi(u: np.ndarray) -> np.ndarray:
        z = np.sqrt((nu - 2) * rest * days) * u
        student = special.kv(nu / 2, z) * z ** (nu / 2) / special.gamma(nu / 2) / 2 ** (nu / 2 - 1)
        alone = np.exp(1j * u * own["mean"] - 0.5 * (own["deviation"] * u) ** 2)
        return student * np.exp(
            days / 365 * (jumps["intensity"] * (size(beta * u) - 1) + own["intensity"] * (alone - 1))
        )

    return phi


STILL = {"omega": 0.04**2, "alpha": 0.0, "beta": 0.0}
MOVING = {"omega": 4e-5, "alpha": 0.1, "beta": 0.85, "variance": 2e-3}


@pytest.mark.parametrize(
    ("jumps", "filtered", "steps", "n"),
    [(MERTON, None, 1.0, 1 << 15), (MERTON, None, 10.0, N), (KOU, None, 1.5, 1 << 15), (KOU, STILL, 10.0, N),
     (MERTON, MOVING, 1.0, 1 << 15)],
)  # fmt: skip
def test_the_law_of_a_t_with_jumps(jumps, filtered, steps, n):
    """Kolmogorov–Smirnov of x at the horizon, which days of their own mixing variables make up: the characteristic
    function of one step to the power of their number. One day and a half are two steps of 18 hours. Under a filter that
    stands still, and one step under one that moves, the law is the same with the filter's variance."""
    nu = 5.0
    state: Any = {} if filtered is None else {"filter": {"A:spot": filtered}}
    model = jumping("t-jump" if filtered is None else "t-garch-jump", jumps | MORE, nu=nu, state=state)
    law: Any = build(model, steps)
    days = {1.0: 1, 1.5: 2, 10.0: 10}[steps]
    assert law.n_steps(steps) == days
    x = total(law, steps=steps, n=n)
    none = {"intensity": 0.0, "mean": 0.0, "deviation": 0.0}
    for f, beta in (("A:spot", 1.0), ("B:spot", -0.7)):
        variance = filtered.get("variance", 0.04**2) if filtered and f == "A:spot" else SIGMA[f] ** 2
        one = t_with_jumps(jumps, nu=nu, variance=variance, beta=beta, own=MORE["own"].get(f, none), days=steps / days)
        exact = Inverted(lambda u, one=one: one(u) ** days, most=40 / np.sqrt(variance * steps))
        assert stats.kstest(x[:, list(SIGMA).index(f)], exact.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("model", "jumps", "nu"),
    [("merton", MERTON, None), ("kou", KOU, None), ("t-jump", MERTON, 8.0), ("t-jump", KOU, 12.0)],
)
def test_variance_and_mean(model, jumps, nu):
    """All sources together have the variance of the volatility, inside four standard errors, and the jumps' mean."""
    law: Any = build(jumping(model, jumps | MORE, nu=nu), H)
    x = total(law, steps=H)
    j = law.jumps.size
    drift = float(j.mean()) * jumps["intensity"] * YEARS
    mean = np.array([drift, -0.7 * drift + 25.0 * YEARS * 0.02, 1.5 * drift])
    assert_mean(x, mean)
    assert_mean((x - mean) ** 2, H * np.array(list(SIGMA.values())) ** 2)


@pytest.mark.parametrize("share", [0.3, 0.995, 1.0])
def test_variance_by_law_is_exact(share):
    """The mixture's variance is volatility² for jumps of any share of it, up to all."""
    lam, m, d = MERTON.values()
    sigma = float(np.sqrt(lam * (m**2 + d**2) / 365 / share)) * (1 + 1e-15)
    law = marginal(build(jumping("merton", MERTON, sigma={"A:spot": sigma}), H), H)
    mean, deviation, weight = (part[0] for part in law)
    centre = weight @ mean
    assert centre == pytest.approx(lam * YEARS * m, rel=1e-8)
    assert weight @ ((mean - centre) ** 2 + deviation**2) == pytest.approx(sigma**2 * H, rel=1e-7)


def test_factors_jump_together():
    """The covariance of the jumps of two factors is λβ₁β₂·E J²; scatter and own jumps add none."""
    path = walk(law := build(jumping("merton", MERTON | MORE), H), normals(law, steps=H), steps=H)
    jump = path.jump[:, 0]
    second = MERTON["intensity"] * YEARS * (MERTON["mean"] ** 2 + MERTON["deviation"] ** 2)
    for i, j, expected in ((0, 1, -0.7), (0, 2, 1.5), (1, 2, -1.05)):
        product = (jump[:, i] - jump[:, i].mean()) * (jump[:, j] - jump[:, j].mean())
        assert_mean(product, expected * second)
    for n in (1, 2, 3):
        scattered = jump[path.count[:, 0] == n][:, 2] - n * 1.5 * MERTON["mean"]
        assert_mean(scattered**2, n * ((1.5 * MERTON["deviation"]) ** 2 + 0.03**2))
    still = path.count[:, 0] == 0
    assert np.all(jump[still][:, [0, 2]] == 0) and np.any(jump[still][:, 1] != 0)
    assert path.count.shape == (N, 4) and np.all(path.count[:, [1, 3]] == 0)


# ---- counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [1e-4, 0.055, 1.3, 20.0, 100.0])
def test_poisson_counts(mean):
    """The quantile of SciPy at every z, and a χ² test of 131,072 counts."""
    most = most_jumps(mean)
    draw = jax.jit(jax.vmap(lambda z: poisson(z, jnp.float64(mean), most)))
    z = np.linspace(-6, 6, 997)
    u, upper = stats.norm.cdf(z), stats.norm.sf(z)
    exact = np.where(z < 0, stats.poisson.ppf(u, mean), stats.poisson.isf(upper, mean))
    np.testing.assert_array_equal(draw(jnp.asarray(z)), exact)
    count = np.asarray(draw(jnp.asarray(np.random.default_rng(3).standard_normal(N)))).astype(int)
    expected = N * stats.poisson.pmf(np.arange(most + 1), mean)
    often = expected >= 10
    seen = np.bincount(count, minlength=most + 1)
    found, wanted = np.append(seen[often], seen[~often].sum()), np.append(expected[often], N - expected[often].sum())
    kept = wanted >= 10
    chi = np.sum((found[kept] - wanted[kept]) ** 2 / wanted[kept])
    assert stats.chi2(max(kept.sum() - 1, 1)).sf(chi) > 1e-3
    assert stats.poisson.sf(most, mean) < 1e-10


@pytest.mark.parametrize(("model", "plain"), [("merton", "gaussian"), ("kou", "gaussian"), ("t-jump", "t-multi")])
def test_no_jumps_are_no_jumps(model, plain):
    """λ = 0 gives the path of the same model without jumps to the bit."""
    jumps = (KOU if model == "kou" else MERTON) | {"intensity": 0.0}
    law, without = (
        build(jumping(model, jumps, nu=5.0)),
        build(specification(SIGMA, model=plain, degrees_of_freedom=5.0)),
    )
    z = normals(law, n=256)
    path, same = walk(law, z), walk(without, z[:, :, : without.dimension()])
    np.testing.assert_array_equal(path.diffusion + path.jump, same.diffusion)
    np.testing.assert_array_equal(path.deviation, same.deviation)


def test_a_side_that_never_jumps():
    """p = 1 and p = 0: all jumps up, all down, exponential."""
    for p, sign, rate in ((1.0, 1, 50.0), (0.0, -1, 25.0)):
        law = build(jumping("kou", KOU | {"up_probability": p}), H)
        path = walk(law, normals(law, steps=H, n=1 << 15), steps=H)
        single = sign * path.jump[path.count[:, 0] == 1][:, 0, 0]
        assert stats.kstest(single, stats.expon(scale=1 / rate).cdf).pvalue > 1e-3


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "jumps", "rule"),
    [
        ("merton", None, "model merton needs parameters.jumps with deviation, intensity"),
        ("merton", {"intensity": 1.0, "mean": 0.1}, "deviation.* must be a finite number"),
        ("merton", MERTON | {"mean": np.nan}, "mean.*must be a finite number"),
        ("merton", MERTON | {"mean": True}, "mean.*must be a finite number"),
        ("merton", MERTON | {"up_rate": 1.0}, "model merton needs parameters.jumps with"),
        ("merton", MERTON | {"intensity": -1.0}, "must be ≥ 0"),
        ("merton", MERTON | {"deviation": -0.1}, "must be ≥ 0"),
        ("merton", MERTON | {"intensity": 1e6}, "so many are a diffusion"),
        ("merton", MERTON | {"intensity": 400.0}, "the jumps of A:spot alone have a deviation of"),
        ("merton", MERTON | {"loading": {"C:spot": 1.0}}, "loading is by factor of the model"),
        ("merton", MERTON | {"loading": {"A:spot": np.nan}}, "loading is by factor of the model"),
        ("merton", MERTON | {"loading": 1.0}, "loading is by factor of the model"),
        ("merton", MERTON | {"scatter": {"A:spot": -1.0}}, "must be ≥ 0"),
        ("merton", MERTON | {"own": {"A:spot": 1.0}}, "own is by factor of the model"),
        ("merton", MERTON | {"own": {"A:spot": {"intensity": 1.0}}}, "mean.*must be a finite number"),
        ("merton", MERTON | {"own": {"A:spot": {**MERTON, "rate": 1.0}}}, "own jumps have intensity, mean, deviation"),
        ("merton", MERTON | {"own": {"A:spot": {**MERTON, "intensity": -1.0}}}, "must be ≥ 0"),
        ("merton", MERTON | {"own": {"A:spot": {**MERTON, "intensity": 1e7}}}, "so many are a diffusion"),
        ("kou", KOU | {"own": {"A:spot": {**KOU, "mean": 0.0}}}, "own jumps have intensity, up_probability"),
        ("kou", KOU | {"own": {"A:spot": KOU, "B:spot": MERTON}}, "own jumps of all factors are of one kind"),
        ("kou", KOU | {"own": {"A:spot": KOU | {"up_probability": -0.1}}}, "own.up_probability.*must be a probability"),
        ("kou", KOU | {"own": {"A:spot": KOU | {"down_rate": 0.0}}}, "own.down_rate.*must be positive"),
        ("kou", MERTON, "model kou needs parameters.jumps with down_rate"),
        ("kou", KOU | {"up_probability": 1.1}, "must be a probability"),
        ("kou", KOU | {"up_rate": 0.0}, "must be positive"),
        ("kou", KOU | {"down_rate": -1.0}, "must be positive"),
        ("t-jump", 5, "needs parameters.jumps"),
        ("t", MERTON, "model t has no parameters but skew"),
        ("gaussian", MERTON, "model gaussian has no parameters"),
    ],
)
def test_bad_jumps_name_the_rule(model, jumps, rule):
    parameters = {} if jumps is None else {"jumps": jumps}
    with pytest.raises(InputError, match=rule):
        build(replace(specification(SIGMA, model=model, degrees_of_freedom=5.0), parameters=parameters))


def test_a_factor_that_does_not_jump_may_stand_still():
    """A vol has loading 0 unless listed, so that a volatility of 0 holds no jumps."""
    model = replace(
        jumping("merton", MERTON), factors=(Factor("A:spot", 0.04), Factor("A:vol", 0.0)), correlation=np.eye(2)
    )
    assert np.all(total(build(model), n=1024)[:, 1] == 0)
