TITLE = "intervals of 12 models: score over models and noise (256 samples), every assignment of labels (6 + 6)"
PEER = "a loop in numpy"
CASES = ("jackknife", "permutation")
GOALS = {"": 30}
TOLERANCE = 1e-9
NOTE = (
    "14 levels, and three metrics for the permutation. The loop leaves out a model and a sample at a time and takes the means of what is "
    "left, and goes through the assignments one by one. A loop that takes the means over pairs but once a model is slower by 22 times. The "
    "jackknife is compared by its bounds, the permutation by its p of every cell."
)
_AGAIN = 20  # times that a permutation is repeated: one takes half a millisecond


def ours(case):
    if case == "jackknife":
        from consistency_lab.similarity.statistics import family_score

        distance, null = _distances()
        return lambda: {"interval": list(family_score(distance, null, 12))}
    from consistency_lab.similarity.permutation import label_permutation

    square = _square()

    def work():
        for _ in range(_AGAIN):
            found = label_permutation(square, 6, 6)
        return {"statistic": found.statistic, "p": found.p}

    return work


def theirs(case):
    return _jackknife if case == "jackknife" else _permutation


def _distances():
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.gamma(2, 1, (66, 256, 14)), rng.gamma(20, 0.2, (66, 256, 14))


def _square():
    import numpy as np

    values = np.random.default_rng(0).gamma(2, 1, (12, 12, 14, 3))
    return values + values.swapaxes(0, 1)


def _jackknife():
    from itertools import combinations

    import numpy as np
    from scipy import stats

    distance, null = _distances()
    pairs, n = list(combinations(range(12), 2)), 256
    left = np.empty((12, n, 14))
    for model in range(12):
        kept = [p for p, pair in enumerate(pairs) if model not in pair]
        for sample in range(n):
            others = np.arange(n) != sample
            # The null of every other row holds this sample once in n - 1.
            u = (null[kept][:, others].sum(1) - null[kept, sample]).mean(0) / (n - 2)
            left[model, sample] = 1 - distance[kept][:, others].mean((0, 1)) / u
    units, others = left.mean(1), left.mean(0)
    models = 11 / 12 * ((units - units.mean(0)) ** 2).sum(0)
    both = left - units[:, None] - others + units.mean(0)
    crossed = 11 / 12 * (n - 1) / n * (both**2).sum((0, 1))
    noise = np.maximum((n - 1) / n * ((others - others.mean(0)) ** 2).sum(0) - crossed, 0)
    half = np.sqrt(stats.t.ppf(0.975, 11) ** 2 * models + stats.t.ppf(0.975, n - 1) ** 2 * noise)
    ratio = distance.mean((0, 1)) / null.mean((0, 1))
    return {"interval": [1 - ratio, 1 - ratio * np.exp(half / ratio), 1 - ratio * np.exp(-half / ratio)]}


def _permutation():
    from itertools import combinations

    import numpy as np

    square = _square()
    rows, columns = np.triu_indices(12, 1)
    pairs = square[rows, columns]
    for _ in range(_AGAIN):
        statistics = []
        for members in combinations(range(12), 6):
            if 0 in members:
                inside = np.isin(np.arange(12), members)
                between = inside[rows] != inside[columns]
                statistics.append(pairs[between].mean(0) - pairs[~between].mean(0))
        standard = (statistics - np.mean(statistics, 0)) / np.std(statistics, 0)
        p = (standard.max((1, 2))[:, None, None] >= standard[0] - 1e-9).mean(0)
    return {"statistic": statistics[0], "p": p}
