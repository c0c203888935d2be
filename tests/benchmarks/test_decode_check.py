"""How wrong predictions are on devices left out: that these are left out, that intervals cover, and the aims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bridge_edge.benchmarks import decode_check, decode_fit, predict
from bridge_edge.benchmarks.decode_fit import FORMS, Terms, clock_terms, load_of, speed
from bridge_edge.benchmarks.devices import Figure, device, machines
from tests.benchmarks.test_predict import made_up


def test_a_left_out_device_is_really_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def spy(figures: Sequence[Figure], terms: Terms = clock_terms) -> np.ndarray:
        seen.append({f.device for f in figures})
        return decode_fit.fit(figures, terms)

    monkeypatch.setattr(decode_check, "fit", spy)
    figures = made_up(0.7, 0.2, 0.5)[:18]
    names = decode_check.names(figures)
    assert decode_check.errors(decode_check.held_out(figures))["median"] < 1e-5
    assert seen == [set(names) - {name} for name in names]
    seen.clear()
    decode_check.held_out_anew(figures)  # each device: every form without it and one more, then once without it
    per_device = len(FORMS) * (len(names) - 1) + 1
    assert len(seen) == len(names) * per_device
    for i, name in enumerate(names):
        assert all(name not in used for used in seen[i * per_device : (i + 1) * per_device])
    seen.clear()
    decode_check.coverage(figures)  # each device: once without it and one more for its interval, then once without it
    for i, name in enumerate(names):
        assert all(name not in used for used in seen[i * len(names) : (i + 1) * len(names)])


def test_figures_of_the_left_out_device_change_nothing_in_its_prediction() -> None:
    figures = predict.figures_of("llama.cpp")
    changed = [replace(f, tokens_per_s=f.tokens_per_s * 1.9) if f.device == "pi4" else f for f in figures]
    before, after = (decode_check.left_out(found, "pi4", clock_terms) for found in (figures, changed))
    assert [p for _, p in before] == [p for _, p in after]


def test_a_devices_own_factor_is_learnt_from_other_models() -> None:
    figures = made_up(0.7, 0.2, 0.5, noise=0.5)
    unknown = decode_check.errors(decode_check.held_out(figures))["median"]
    assert decode_check.errors(decode_check.held_out_models(figures))["median"] < unknown / 2


def pairs_of(errors: dict[str, list[float]]) -> list[tuple[Figure, float]]:
    like = predict.figures_of("llama.cpp")[0]
    return [
        (replace(like, device=name, tokens_per_s=1.0), math.exp(off)) for name, row in errors.items() for off in row
    ]


def test_the_spread_counts_devices_and_figures_and_one_more_beyond_all() -> None:
    even = {f"d{i}": [i / 100, -i / 100] for i in range(1, 21)}  # 20 devices, 21 with the new one: nine tenths are 18.9
    assert decode_check.spread(pairs_of(even)) == pytest.approx(math.exp(0.19))
    few = {f"d{i}": [i / 100] for i in range(1, 9)}  # 8 of 9 are less than nine tenths: the greatest
    assert decode_check.spread(pairs_of(few)) == pytest.approx(math.exp(0.08))
    often = {**even, "d20": [0.2] * 2, "phone": [0.5] * 300}  # one device of 22, but most of the figures
    assert decode_check.spread(pairs_of(often)) == pytest.approx(math.exp(0.5))


def test_intervals_cover_new_devices_of_the_same_urn() -> None:
    """Made-up devices with factors of their own: nine in ten of the new ones lie within."""
    rng, inside = np.random.default_rng(5), []
    for _ in range(60):
        off = rng.normal(0, 0.4, 25)
        factor = decode_check.spread(pairs_of({f"d{i}": [o + rng.normal(0, 0.1)] for i, o in enumerate(off)}))
        inside += [abs(o) <= math.log(factor) for o in rng.normal(0, 0.4, 20) + rng.normal(0, 0.1, 20)]
    assert 0.9 <= np.mean(inside) < 0.97


def test_an_interval_is_wider_for_cores_that_nobody_has_measured() -> None:
    figures = predict.figures_of("llama.cpp")
    assert decode_check.widened(1.5, figures, device("pi4")) == 1.5
    without = [f for f in figures if f.device != "pi4"]
    assert decode_check.widened(1.5, without, device("pi4")) == pytest.approx(2.25)
    assert decode_check.widened(1.5, without, device("pi5")) == 1.5


def test_floors_are_the_gaps_between_equal_inputs() -> None:
    like = predict.figures_of("llama.cpp")[0]
    first = replace(like, device="galaxy-s23", tokens_per_s=30.0)
    twin, again = replace(first, device="xiaomi-13", tokens_per_s=20.0), replace(first, format="F", tokens_per_s=10.0)
    other = replace(first, device="pi5", model="another")
    found = decode_check.floors([first, twin, again, other])
    assert (found["twins"], found["twin_pairs"]) == (pytest.approx(0.2), 1)
    assert (found["repeats"], found["worst_repeat"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert decode_check.floors([first, other])["twin_pairs"] == 0


def test_the_aims_on_devices_left_out() -> None:
    """What benchmarks/README.md says, with a little slack. It may get better, not worse."""
    found = predict.validation()
    for v in found.values():
        assert v["held_out"]["median_of_devices"] <= 0.26
        assert v["held_out_anew"]["median_of_devices"] <= 0.27
        assert v["held_out"]["median"] < v["roofline"]["median"] / 3
        assert v["coverage90"]["devices"] >= 0.9
        assert v["coverage90"]["figures"] >= 0.9
        assert 0 < v["eta"] < 1
    llama, executorch = found["llama.cpp"], found["executorch"]
    assert llama["held_out"]["median"] <= 0.26
    assert llama["interval_factor"] < 2.4
    assert executorch["held_out"]["median"] <= 0.45  # beyond the aim of 0.25, and why:
    assert executorch["floors"]["twins"] > 0.2
    assert executorch["interval_factor"] < 4.2


def test_the_command_says_which_aims_are_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main() == 0
    text = capsys.readouterr().out
    for runtime, v in predict.validation().items():
        medians = (v["held_out"]["median_of_devices"], v["held_out"]["median"])
        line = text.split(f"{runtime}: {v['figures']} figures")[1].splitlines()[1]
        assert [word in line for word in ("devices (met)", "figures (met)")] == [m <= 0.25 for m in medians]


def test_a_speed_is_what_the_formula_says() -> None:
    f = predict.figures_of("llama.cpp")[0]
    where, load = machines()[f.device], load_of(f)
    seconds = float(np.dot([2.0, 1.0, 0.0], clock_terms(load, where)))
    assert speed(np.array([2.0, 1.0, 0.0]), load, where) == pytest.approx(1 / seconds)
    assert seconds == pytest.approx(2 * load.streamed / where.bandwidth_gb_s / 1e9 + load.layers / where.ghz / 1e3)
