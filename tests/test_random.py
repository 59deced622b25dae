"""The generator: pinned bits against Threefry written in plain integers, uniforms without 0 and 1, paths that do not
depend on how many there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pmvar.errors import UsageError
from pmvar.kernels.random import Stream, normals, run_key, stream, uniforms
from pmvar.scenarios import simulate
from pmvar.types import PATH_TILE, Sampling
from tests.markets import carry_curve, snapshot, specification


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32, 20 rounds: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3"."""
    mask = 0xFFFFFFFF
    keys = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = ((c + k) & mask for c, k in zip(counter, key, strict=True))
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = (x + y) & mask
            y = ((y << turn) | (y >> (32 - turn))) & mask ^ x
        x = (x + keys[(group + 1) % 3]) & mask
        y = (y + keys[(group + 2) % 3] + group + 1) & mask
    return x, y


def words(seed: int, *labels: int, n: int) -> list[int]:
    """The first words of a sub-stream from the definition: a key folds in (0, label), word i is the counter (0, i)."""
    key = (0, seed)
    for label in labels:
        key = threefry(key, (0, label))
    return [a ^ b for a, b in (threefry(key, (0, i)) for i in range(n))]


def bits(u: jax.Array) -> list[int]:
    """The 32-bit words that uniforms were made of; exact."""
    return [int(x) for x in np.asarray(u) * 2.0**32 - 0.5]


# ---- bits --------------------------------------------------------------------------------------------------------


def test_the_reference_generator_gives_the_published_words():
    # Known answers of Random123, threefry2x32 with 20 rounds.
    assert threefry((0, 0), (0, 0)) == (0x6B200159, 0x99BA4EFE)
    assert threefry((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)) == (0x1CB996FC, 0xBB002BE7)
    assert threefry((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3)) == (0xC4923A9C, 0x483DF7A0)


@pytest.mark.parametrize(
    ("seed", "label", "golden"),
    [
        (0, Stream.PATH, [582578238, 3782583461, 4128846730]),
        (0, Stream.BRIDGE, [61429024, 4215545592, 3119924811]),
        (1, Stream.PATH, [680684471, 182633239, 1627187003]),
        (1, Stream.BRIDGE, [62805559, 2797068894, 2185225146]),
        (2**32 - 1, Stream.PATH, [3972823909, 529140960, 1456827579]),
    ],
)
def test_first_words_are_pinned(seed, label, golden):
    """Path 7 of a seed gives these words for ever, and they are those of the published algorithm."""
    assert bits(uniforms(stream(run_key(seed), label, 7), 3)) == golden == words(seed, label, 7, n=3)


def test_words_of_any_path_match_the_reference_generator():
    for path in (0, 1, 4095, 4096, 2**31, 2**32 - 1):
        assert bits(uniforms(stream(run_key(11), Stream.PATH, jnp.uint32(path)), 5)) == words(11, 0, path, n=5)


@pytest.mark.parametrize("partitionable", [False, True])
def test_a_setting_of_jax_does_not_change_the_draws(partitionable):
    """JAX_THREEFRY_PARTITIONABLE selects another layout of counters; the package pins its own."""
    key = stream(run_key(1), Stream.PATH, 7)
    with jax.threefry_partitionable(partitionable):
        assert bits(uniforms(key, 3)) == words(1, 0, 7, n=3)
        assert bits(jax.jit(lambda k: uniforms(k, 3))(key)) == words(1, 0, 7, n=3)


def test_the_generator_is_named():
    """A change of JAX's default generator must not change a run."""
    assert str(jax.random.key_impl(run_key(3))) == "threefry2x32"


def test_a_dimension_does_not_depend_on_how_many_are_drawn():
    key = run_key(5)
    np.testing.assert_array_equal(uniforms(key, 3), uniforms(key, 50)[:3])


def test_streams_and_seeds_do_not_collide():
    labels = [(seed, s, path) for seed in (0, 1, 2) for s in Stream for path in range(200)]
    first = {tuple(bits(uniforms(stream(run_key(a), b, c), 2))) for a, b, c in labels}
    assert len(first) == len(labels)


# ---- uniforms ----------------------------------------------------------------------------------------------------


def test_uniforms_are_symmetric_and_never_0_or_1(monkeypatch):
    """The extreme words 0 and 2³² − 1 give ½·2⁻³² and its mirror image; normals stay within 6.34."""
    extremes = jnp.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], jnp.uint32)
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: extremes)
    u, z = np.asarray(uniforms(run_key(0), 6)), np.asarray(normals(run_key(0), 6))
    np.testing.assert_array_equal(u, 1 - u[::-1])
    assert u[0] == 2.0**-33 and u[-1] == 1 - 2.0**-33
    np.testing.assert_allclose(z, stats.norm.ppf(u), rtol=1e-13)
    # Φ⁻¹ by two branches: symmetric to rounding, which 1 − u carries magnified by 1/φ(z).
    np.testing.assert_allclose(z, -z[::-1], rtol=1e-7)
    assert np.all(np.abs(z) < 6.34)


def test_uniforms_are_uniform_across_paths_and_across_dimensions():
    """Kolmogorov–Smirnov at a fixed seed, both along one stream and along the first word of many streams."""
    along = np.asarray(uniforms(run_key(2), 1 << 18))
    keys = jax.vmap(lambda i: stream(run_key(2), Stream.PATH, i))(jnp.arange(1 << 17, dtype=jnp.uint32))
    across = np.asarray(jax.vmap(lambda k: uniforms(k, 2))(keys))
    for u in (along, across[:, 0], across[:, 1]):
        assert stats.kstest(u, "uniform").pvalue > 1e-3
    # Independence of the first two dimensions, and of neighbouring paths: correlations are N(0, 1/n).
    n = len(across)
    assert abs(np.corrcoef(across.T)[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(across[:-1, 0], across[1:, 0])[0, 1]) < 4 / np.sqrt(n)
    counts = np.histogram2d(*across.T, bins=32)[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


# ---- paths -------------------------------------------------------------------------------------------------------

MARKET = snapshot({"A": (100.0, "USD"), "B": (10.0, "USD")}, forwards={"A": carry_curve(100.0, 0.05)})
MODEL = specification(
    {"A:spot": 0.03, "A:vol": 0.05, "B:spot": 0.04},
    model="t",
    degrees_of_freedom=4.0,
    correlation=np.array([[1, -0.3, 0.6], [-0.3, 1, 0], [0.6, 0, 1]]),
)


def test_a_smaller_set_is_a_prefix_of_a_larger_one():
    """Equality to the bit, for sizes inside, at and across the tile, and inside the horizon too."""
    large = simulate(MODEL, MARKET, seed=9, n_scenarios=3 * PATH_TILE + 17, sampling=Sampling.MC)
    for n in (1024, PATH_TILE, PATH_TILE + 1, 2 * PATH_TILE + 500):
        small = simulate(MODEL, MARKET, seed=9, n_scenarios=n, sampling=Sampling.MC)
        np.testing.assert_array_equal(small.shock, large.shock[:n])
        last = small.n_tiles - 1
        real = n - last * PATH_TILE
        time = MARKET.as_of + 100_000.0
        np.testing.assert_array_equal(small.at(last, time)[:real], large.at(last, time)[:real])
        assert not np.any(np.asarray(small.at(last, time))[real:])


@pytest.mark.parametrize("sampling", [Sampling.SOBOL, Sampling.SOBOL_IS])
def test_sobol_sets_are_prefixes_too(sampling):
    """Shocks and weights, at the horizon and inside it; weights average 1 and keep their bound."""
    large, small = (
        simulate(MODEL, MARKET, seed=9, n_scenarios=n, sampling=sampling) for n in (4 * PATH_TILE, 2 * PATH_TILE)
    )
    np.testing.assert_array_equal(small.shock, large.shock[: 2 * PATH_TILE])
    np.testing.assert_array_equal(small.weight, large.weight[: 2 * PATH_TILE])
    time = MARKET.as_of + 100_000.0
    np.testing.assert_array_equal(small.at(1, time), large.at(1, time))
    by_replicate = large.weight.reshape(-1, large.n_replicates).mean(axis=0)
    assert abs(large.weight.mean() - 1) <= 4 * by_replicate.std(ddof=1) / 4 + 1e-12
    if sampling is Sampling.SOBOL_IS:
        assert 1 < large.weight.max() <= large.provenance["importance"]["weight_bound"]
    else:
        np.testing.assert_array_equal(large.weight, 1.0)


@pytest.mark.parametrize(("n", "near"), [(1024, "2,048"), (3000, "2,048 or 4,096"), (4097, "4,096 or 8,192")])
def test_a_number_that_is_no_net_is_refused_with_its_neighbours(n, near):
    with pytest.raises(UsageError, match=near):
        simulate(MODEL, MARKET, seed=9, n_scenarios=n)


def test_a_hundred_million_uniforms():
    """χ² over 4,096 cells of the whole interval and of its lowest 1/256, the mean, and the ends; 25 draws of 4 million
    in turn, so that memory stays small."""
    draw = jax.jit(lambda k: uniforms(k, 4_000_000))
    whole, low, total = np.zeros(4096), np.zeros(4096), 0.0
    for i in range(25):
        u = np.asarray(draw(stream(run_key(11), i)))
        assert u.min() > 0 and u.max() < 1
        whole += np.bincount((u * 4096).astype(np.int64), minlength=4096)
        small = u[u < 1 / 256]
        low += np.bincount((small * 4096 * 256).astype(np.int64), minlength=4096)
        total += u.sum()
    for count in (whole, low):
        assert stats.chisquare(count).pvalue > 1e-3
    assert abs(total / 1e8 - 0.5) <= 4 / np.sqrt(12e8)


def test_tiles_do_not_depend_on_the_order_they_are_asked_for():
    whole = simulate(MODEL, MARKET, seed=9, n_scenarios=3 * PATH_TILE, sampling=Sampling.MC)
    time = MARKET.as_of + 50_000.0
    late_first = {i: np.asarray(whole.at(i, time)) for i in (2, 0, 1)}
    for i in range(3):
        np.testing.assert_array_equal(late_first[i], whole.at(i, time))
        np.testing.assert_array_equal(whole.tile(i).shock, whole.shock[i * PATH_TILE : (i + 1) * PATH_TILE, 0])


def test_another_seed_gives_other_paths():
    a, b = (np.asarray(simulate(MODEL, MARKET, seed=s, n_scenarios=4096).shock) for s in (1, 2))
    assert not np.any(a == b)
    assert abs(np.corrcoef(a[:, 0, 0], b[:, 0, 0])[0, 1]) < 4 / np.sqrt(4096)
