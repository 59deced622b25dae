"""Gates of a posterior: whether its chains may be believed, and whether the law fits the tail of its own data.

ArviZ, whose versions 0.23 and 1.x differ, is met in the functions at the end and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from pmvar.calibration.posterior import Draws, VolatilityPosterior, seen
from pmvar.errors import QualityGate, UsageError

PIT_CELLS = (0.0, 0.01, 0.025, 0.05, 0.1, 0.9, 0.95, 0.975, 0.99, 1.0)
"""A decile of each tail in cells that grow inwards, and the middle as one."""
PIT_LEVEL = 0.01
"""Chance that a true law fails, over all assets together."""


class GateName(StrEnum):
    """What is judged."""

    R_HAT = "r-hat"
    BULK_ESS = "bulk-ess"
    TAIL_ESS = "tail-ess"
    DIVERGENCES = "divergences"
    BFMI = "bfmi"
    PARETO_K = "pareto-k"
    TAIL_PIT = "tail-pit"

    @property
    def wants_more(self) -> bool:
        """Whether a value must reach its bound, not stay under it."""
        return self in (GateName.BULK_ESS, GateName.TAIL_ESS, GateName.BFMI, GateName.TAIL_PIT)


_BOUNDS = {
    GateName.R_HAT: 1.01,
    GateName.BULK_ESS: 400.0,
    GateName.TAIL_ESS: 400.0,
    GateName.DIVERGENCES: 1.0,
    GateName.BFMI: 0.3,
    GateName.PARETO_K: 0.7,
}
_REMEDIES = {
    GateName.R_HAT: "the chains disagree: sample longer, with more warm-up",
    GateName.BULK_ESS: "too few independent draws: sample longer",
    GateName.TAIL_ESS: "too few independent draws in the tails: sample longer",
    GateName.DIVERGENCES: "the sampler left its path: raise the acceptance to .98, or lengthen the history",
    GateName.BFMI: "energy moves too slowly: raise the warm-up, or lengthen the history",
    GateName.PARETO_K: "a single day decides the posterior: look for an outlier or a wrong price on that day",
    GateName.TAIL_PIT: "the law misses the tail of its own history: choose another model, or another window",
}


@dataclass(frozen=True)
class Gate:
    """One verdict: the worst value over all assets and parameters."""

    name: GateName
    value: float
    bound: float
    at: str
    """Where it was found."""

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side; NaN is not."""
        return self.value >= self.bound if self.name.wants_more else self.value < self.bound

    @property
    def message(self) -> str:
        """The figures, and where it failed, what to do."""
        compare = ("≥" if self.name.wants_more else "<") if self.passed else ("<" if self.name.wants_more else "≥")
        text = f"{self.name} {self.value:.4g} {compare} {self.bound:.4g} ({self.at})"
        return text if self.passed else f"{text}: {_REMEDIES[self.name]}"

    def document(self) -> dict[str, Any]:
        """JSON-ready; null for a value that is not finite."""
        value = self.value if np.isfinite(self.value) else None
        return {"value": value, "bound": self.bound, "passed": self.passed, "at": self.at}


@dataclass(frozen=True)
class Gates:
    """All verdicts on a posterior, and which failures somebody has taken on."""

    gates: tuple[Gate, ...]
    overrides: tuple[GateName, ...] = ()

    @property
    def failed(self) -> tuple[Gate, ...]:
        """Those that failed, overridden or not."""
        return tuple(g for g in self.gates if not g.passed)

    def overridden(self, names: Iterable[str]) -> Gates:
        """The same with the failures `names` taken on; raises UsageError for a name that no gate has."""
        names = list(names)
        unknown = sorted(set(names) - set(GateName))
        if unknown:
            raise UsageError(f"there is no gate {unknown[0]!r}; the gates are {', '.join(GateName)}")
        return replace(self, overrides=tuple(dict.fromkeys(map(GateName, names))))

    def require(self) -> None:
        """Raise QualityGate, which says what to do, if a gate failed that is not overridden."""
        left = [g for g in self.failed if g.name not in self.overrides]
        if left:
            reasons = "\n".join(g.message for g in left)
            override = f"To publish it all the same: {' '.join(f'--override {g.name}' for g in left)}"
            raise QualityGate(f"the posterior fails its gates and is not published:\n{reasons}\n{override}")

    def document(self) -> dict[str, Any]:
        """`gates` and `overrides` of model.json."""
        return {
            "gates": {str(g.name): g.document() for g in self.gates},
            "overrides": [str(name) for name in self.overrides],
        }


def gates(
    posterior: VolatilityPosterior, returns: Float[np.ndarray, "day asset"], *, names: Sequence[str], every: int = 4
) -> Gates:
    """The verdicts on the posterior of `returns`, whose assets are called `names`.

    Rank-normalised R̂ and effective sizes (Vehtari et al. 2021, Bayesian Analysis 16), divergent transitions, the
    fraction of missing information in energy (Betancourt 2016, arXiv:1604.00695), the Pareto shape of each day's
    leave-one-out weights (Vehtari, Simpson, Gelman, Yao and Gabry 2024, JMLR 25), and the uniformity of P(return ≤ the
    one that came) in the tails. Days are judged under every `every`-th draw. Assets that could not be fitted are passed
    over. Raises UsageError where there is none left.
    """
    usable = np.flatnonzero(posterior.usable).tolist()
    if not len(usable):
        raise UsageError("no asset has a posterior to judge: look at their statuses")
    found: list[Gate] = []
    for i in usable:
        view = seen(posterior, returns, asset=i, every=every)
        draws = Draws(*(part[i] for part in posterior.draws))
        course = posterior.course
        found += judge(
            names[i],
            draws._asdict(),
            energy=course.energy[i],
            diverging=course.diverging[i],
            log_likelihood=view.log_likelihood,
            pit=view.pit,
            pit_level=PIT_LEVEL / len(usable),
        )
    return worst(found)


def judge(
    asset: str,
    draws: Mapping[str, Float[np.ndarray, "chain draw"]],
    *,
    energy: Float[np.ndarray, "chain draw"],
    diverging: Bool[np.ndarray, "chain draw"],
    log_likelihood: Float[np.ndarray, "chain thinned day"],
    pit: Float[np.ndarray, " day"],
    pit_level: float = PIT_LEVEL,
) -> list[Gate]:
    """Every verdict on one asset; a quantity that never varies has none."""
    out = mixing(asset, draws)
    for gate, value, what in (
        (GateName.DIVERGENCES, float(diverging.sum()), "transitions"),
        (GateName.BFMI, float(np.min(_information(energy))), "energy"),
    ):
        out.append(Gate(gate, value, _BOUNDS[gate], f"{asset}, {what}"))
    shape = _pareto_shapes(log_likelihood)
    day = int(np.argmax(np.where(np.isnan(shape), np.inf, shape)))
    out.append(Gate(GateName.PARETO_K, float(shape[day]), _BOUNDS[GateName.PARETO_K], f"{asset}, day {day + 1}"))
    return [*out, tail_fit(asset, pit, level=pit_level)]


def mixing(asset: str, draws: Mapping[str, Float[np.ndarray, "chain draw"]]) -> list[Gate]:
    """Whether the chains of each quantity agree, and how many independent draws they hold."""
    out = []
    for name, x in draws.items():
        if np.ptp(x) > 0 or not np.all(np.isfinite(x)):
            found = {
                GateName.R_HAT: r_hat(x),
                GateName.BULK_ESS: effective_size(x, "bulk"),
                GateName.TAIL_ESS: effective_size(x, "tail"),
            }
            out += [Gate(gate, value, _BOUNDS[gate], f"{asset}, {name}") for gate, value in found.items()]
    return out


def tail_fit(asset: str, pit: Float[np.ndarray, " day"], *, level: float = PIT_LEVEL) -> Gate:
    """Whether an asset's returns are uniform in the tails of their law, to `level`."""
    return Gate(GateName.TAIL_PIT, tail_uniformity(pit), level, f"{asset}, p-value")


def worst(found: Sequence[Gate]) -> Gates:
    """Of each gate that was judged, the value nearest to failing, or farthest into it."""
    by_name = {name: [g for g in found if g.name is name] for name in GateName}
    return Gates(tuple(_worst(own) for own in by_name.values() if own))


def tail_uniformity(pit: Float[np.ndarray, " day"]) -> float:
    """p-value of Pearson's χ² test that `pit` is uniform, over `PIT_CELLS`: four cells in the decile of each tail.

    Cautious where the law was fitted to the same days: its parameters take up to as many degrees of freedom.
    """
    observed = np.histogram(pit, PIT_CELLS)[0]
    return float(stats.chisquare(observed, np.diff(PIT_CELLS) * len(pit)).pvalue) if np.all(pit >= 0) else np.nan


def _worst(gates: list[Gate]) -> Gate:
    """The one nearest to failing, or farthest into it."""
    sign = -1 if gates[0].name.wants_more else 1
    return max(gates, key=lambda g: np.inf if np.isnan(g.value) else sign * g.value)


def _arviz() -> ModuleType:
    try:
        import arviz
    except ImportError as error:
        raise UsageError("diagnostics of a posterior need ArviZ: pip install arviz") from error
    return arviz


def inference_data(groups: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """ArviZ's own object of groups of variables, chain and draw first."""
    arviz = _arviz()
    return arviz.from_dict(groups) if int(arviz.__version__.split(".")[0]) >= 1 else arviz.from_dict(**groups)


def r_hat(x: Float[np.ndarray, "chain draw"]) -> float:
    """Rank-normalised R̂."""
    return float(_arviz().rhat(x, method="rank"))


def effective_size(x: Float[np.ndarray, "chain draw"], kind: str) -> float:
    """Independent draws that the draws are worth, for the middle (`bulk`) or the 5% tails (`tail`)."""
    quantiles = {"prob": (0.05, 0.95)} if kind == "tail" else {}
    return float(_arviz().ess(x, method=kind, **quantiles))


def _information(energy: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, " chain"]:
    found = _arviz().bfmi(inference_data({"sample_stats": {"energy": energy}}))
    return np.asarray(found if isinstance(found, np.ndarray) else found["energy"])


def _pareto_shapes(log_likelihood: Float[np.ndarray, "chain thinned day"]) -> Float[np.ndarray, " day"]:
    import warnings

    # Its posterior is asked for and only counted.
    draws = {"draw": np.arange(log_likelihood[..., 0].size, dtype=float).reshape(log_likelihood.shape[:2])}
    data = inference_data({"posterior": draws, "log_likelihood": {"returns": log_likelihood}})
    with warnings.catch_warnings():
        # What it warns of is the value of the gate.
        warnings.simplefilter("ignore")
        return np.asarray(_arviz().loo(data, pointwise=True, reff=1.0).pareto_k)
