"""The page on scale says what the results say."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_that_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    assert scale.PAGE.read_text() == scale.page(), "run `python benchmarks/scale.py --page`"


def test_one_gpu_exchanges_nothing_and_the_network_limits_small_batches(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    alone = scale.steps(1, 1024, 4000.0, 1e8)
    assert alone == {"compute": 0.256, "exchange": 0.0, "best": 0.256}
    many = scale.steps(64, 1024, 4000.0, 1e8)
    assert many["best"] == many["exchange"] == 2 * 63 / 64 * 1e8 / scale.NETWORK
