"""Predictions for devices that are not here: the fit, what it leaves out, and what a prediction says of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bridge_edge.benchmarks import decode_fit, predict
from bridge_edge.benchmarks.capacity import Shape
from bridge_edge.benchmarks.decode_fit import Load, Terms
from bridge_edge.benchmarks.devices import Device, Figure, device, table
from bridge_edge.errors import UserError

SHAPE = Shape("gguf", 24, 896, 4864, 14, 2, 64, 2, 151936, 32768, 1_000_000_000, 1_000_000_000)


def test_the_table_is_whole() -> None:
    devices, figures, sources = table()
    assert len(figures) > 100
    assert {"pi5", "phone-mid"} <= set(devices)
    for f in figures:
        assert f.device in devices
        assert sources[f.source].startswith("https://")
        assert 0 <= f.looked_up_bytes < f.bytes / 2
        # No figure may be faster than the memory: a slip of a digit would show here.
        assert f.tokens_per_s < decode_fit.roofline(Load(f.streamed, 1, 1), devices[f.device]), f
    for d in devices.values():
        assert 0 < d.app_memory_gb <= d.memory_gb


def made_up(eta: float, layer_ms: float, per_parameter: float, noise: float = 0.0) -> list[Figure]:
    """Figures that follow the model exactly, or with a factor of each device's own."""
    rng, found = np.random.default_rng(3), []
    for name, d in table()[0].items():
        own = math.exp(rng.normal(0, noise))
        for layers, parameters in ((12, 10**8), (24, 5 * 10**8), (28, 3 * 10**9)):
            for width in (0.6, 2.0):
                load = Load(int(parameters * width), layers, parameters)
                terms = decode_fit.compute_terms(load, d)
                seconds = own * (terms[0] / eta + layer_ms * terms[1] + per_parameter * terms[2])
                found.append(
                    Figure(name, "r", f"m{layers}", str(width), layers, parameters, load.streamed, 0, 1 / seconds, "s")
                )
    return found


def test_a_fit_finds_the_coefficients_that_made_the_figures() -> None:
    figures = made_up(0.7, 0.2, 0.5)
    np.testing.assert_allclose(decode_fit.fit(figures), [1 / 0.7, 0.2, 0.5], rtol=1e-6)
    assert decode_fit.errors(decode_fit.held_out(figures))["median"] < 1e-6
    np.testing.assert_allclose(decode_fit.fit(made_up(0.5, 0.0, 0.3)), [2.0, 0.0, 0.3], atol=1e-6)


def test_coefficients_are_never_negative() -> None:
    rows = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert decode_fit.not_negative(rows, np.array([3.0, 2.0, 1.0])).tolist() == pytest.approx([2.0, 0.0])
    assert decode_fit.not_negative(rows, np.array([-1.0, -1.0, -1.0])).tolist() == [0.0, 0.0]


def test_a_left_out_device_is_really_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    real = decode_fit.fit

    def spy(figures: Sequence[Figure], terms: Terms = decode_fit.compute_terms) -> np.ndarray:
        seen.append({f.device for f in figures})
        return real(figures, terms)

    monkeypatch.setattr(decode_fit, "fit", spy)
    figures = made_up(0.7, 0.2, 0.5)[:18]
    decode_fit.held_out(figures)
    names = list(dict.fromkeys(f.device for f in figures))
    assert seen == [set(names) - {name} for name in names]


def test_a_devices_own_factor_is_learnt_from_other_models() -> None:
    figures = made_up(0.7, 0.2, 0.5, noise=0.5)
    unknown_device = decode_fit.errors(decode_fit.held_out(figures))["median"]
    known = [pair for name in {f.device for f in figures} for pair in decode_fit.held_out_models(figures, name)]
    assert decode_fit.errors(known)["median"] < unknown_device / 2
    assert decode_fit.coverage(figures) > 0.6


def test_the_quantile_is_a_factor_both_ways() -> None:
    assert decode_fit.quantile([1.0] * 9 + [0.5]) == pytest.approx(2.0)
    assert decode_fit.quantile([1.1] * 100) == pytest.approx(1.1)


def test_the_published_figures_are_predicted_better_than_by_bandwidth_alone() -> None:
    found = predict.validation()
    for v in found.values():
        assert v["held_out"]["median"] < v["roofline"]["median"] / 2
        assert 0 < v["eta"] < 1
        assert 0 <= v["coverage90"] <= 1
    # What the README says. It may get better, not worse.
    assert found["llama.cpp"]["held_out"]["median"] <= 0.25
    assert predict.main() == 0


def test_a_prediction_says_what_it_rests_on() -> None:
    small, large = device("pi4"), device("ryzen-340")
    slow, fast = (predict.predict(SHAPE, 494_000_000, d) for d in (small, large))
    assert slow["label"] == "predicted"
    assert slow["interval90"][0] < slow["decode_tps"] < slow["interval90"][1]
    assert slow["decode_tps"] < slow["roofline_tps"]
    assert slow["decode_tps"] < fast["decode_tps"]
    assert predict.predict(SHAPE, 494_000_000, small, depth=8192)["decode_tps"] < slow["decode_tps"]
    assert (slow["fits"], slow["extrapolated"], slow["kind_unseen"]) == (True, False, False)
    phone = predict.predict(SHAPE, 494_000_000, device("phone-mid"))
    assert phone["kind_unseen"]
    assert [e["fitted_on"] for e in phone["second_estimates"]] == ["executorch"]
    assert slow["second_estimates"] == []
    tiny = predict.predict(replace(SHAPE, weight_bytes=2_000_000, streamed_bytes=2_000_000), 1_500_000, small)
    assert tiny["extrapolated"]
    huge = predict.predict(replace(SHAPE, weight_bytes=10**11), 10**10, small)
    text = predict.prediction_table([{**p, "artifact": "a"} for p in (slow, tiny, huge, phone)])
    assert "predicted" in text
    assert "TOO LARGE" in text
    assert "rough bound" in text
    assert "as executorch" in text


def test_a_device_without_dot_products_has_less_arithmetic() -> None:
    pi4, pi5 = device("pi4"), device("pi5")
    assert pi4.arithmetic == pytest.approx(7.2)
    assert pi5.arithmetic == pytest.approx(19.2)
    assert isinstance(pi4, Device)


def test_an_unknown_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'pi5'"):
        device("pi-5")
