"""Predictions for devices that are not here: the table, the fit, and what a prediction says of itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bridge_edge.benchmarks import decode_fit, devices, predict
from bridge_edge.benchmarks.capacity import Shape
from bridge_edge.benchmarks.decode_fit import Load
from bridge_edge.benchmarks.devices import Device, Figure, contradictions, device, machines, table
from bridge_edge.errors import UserError

SHAPE = Shape("gguf", 24, 896, 4864, 14, 2, 64, 2, 151936, 32768, 1_000_000_000, 1_000_000_000)


def test_the_table_is_whole() -> None:
    profiles, figures, sources = table()
    assert len(figures) > 250
    assert {"pi5", "phone-mid"} <= set(profiles)
    assert set(profiles) < set(machines())
    for f in figures:
        assert f.device in machines()
        assert sources[f.source].startswith("https://"), f
        assert 0 <= f.looked_up_bytes < f.bytes / 2
        assert 0.4 < 8 * f.streamed / f.parameters / 4.0 < 10  # from some four bits a weight to floats of 32
        # No figure may be faster than the memory: a slip of a digit would show here.
        assert f.tokens_per_s < decode_fit.roofline(Load(f.streamed, 1, 1), machines()[f.device]), f
    for d in machines().values():
        assert 0 < d.app_memory_gb <= d.memory_gb
    assert set(sources) == {f.source for f in figures}
    assert set(machines()) - {"phone-mid"} == {f.device for f in figures}


def test_what_is_left_out_has_a_source_and_a_reason() -> None:
    for what, source, reason in json.loads(devices.TABLE.read_text())["excluded"]:
        assert source.startswith("https://"), what
        assert len(reason) > 20, what


def test_no_source_contradicts_itself() -> None:
    assert contradictions(table()[1]) == []
    # An iPhone 15 as published by optimum-executorch: why its figures are left out.
    large = Figure("iphone-15-pro", "r", "gemma3-1b", "8da4w", 26, 10**9, 562_500_000, 0, 21.51, "s")
    small = replace(large, model="smollm2-135m", layers=30, parameters=135 * 10**6, bytes=75_900_000, tokens_per_s=7.47)
    assert contradictions([large, small]) == [(large, small)]
    assert contradictions([large, replace(small, tokens_per_s=11.0)]) == []
    assert contradictions([large, replace(small, format="bf16")]) == []


def made_up(eta: float, layer_ms: float, per_parameter: float, noise: float = 0.0) -> list[Figure]:
    """Figures that follow the model exactly, or with a factor of each device's own."""
    rng, found = np.random.default_rng(3), []
    for name, d in table()[0].items():
        own = math.exp(rng.normal(0, noise))
        for layers, parameters in ((12, 10**8), (24, 5 * 10**8), (28, 3 * 10**9)):
            for width in (0.6, 2.0):
                load = Load(int(parameters * width), layers, parameters)
                terms = decode_fit.clock_terms(load, d)
                seconds = own * (terms[0] / eta + layer_ms * terms[1] + per_parameter * terms[2])
                found.append(
                    Figure(name, "r", f"m{layers}", str(width), layers, parameters, load.streamed, 0, 1 / seconds, "s")
                )
    return found


def test_a_fit_finds_the_coefficients_that_made_the_figures() -> None:
    np.testing.assert_allclose(decode_fit.fit(made_up(0.7, 0.2, 0.5)), [1 / 0.7, 0.2, 0.5], rtol=1e-5)
    np.testing.assert_allclose(decode_fit.fit(made_up(0.5, 0.0, 0.3)), [2.0, 0.0, 0.3], atol=1e-5)


def test_one_odd_figure_does_not_bend_a_fit_and_many_figures_of_a_device_count_as_one_device() -> None:
    figures = made_up(0.7, 0.2, 0.5)
    odd = [replace(figures[0], tokens_per_s=figures[0].tokens_per_s / 20), *figures[1:]]
    np.testing.assert_allclose(decode_fit.fit(odd), decode_fit.fit(figures), rtol=0.1)
    uneven = made_up(0.7, 0.2, 0.5, noise=0.5)
    often = [f for f in uneven for _ in range(50 if f.device == uneven[0].device else 1)]
    np.testing.assert_allclose(decode_fit.fit(often), decode_fit.fit(uneven), rtol=1e-4)


def test_coefficients_are_never_negative() -> None:
    rows = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert decode_fit.not_negative(rows, np.array([3.0, 2.0, 1.0])).tolist() == pytest.approx([2.0, 0.0])
    assert decode_fit.not_negative(rows, np.array([-1.0, -1.0, -1.0])).tolist() == [0.0, 0.0]


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
    assert not phone["kind_unseen"]
    assert [e["fitted_on"] for e in phone["second_estimates"]] == ["executorch"]
    assert slow["second_estimates"] == []
    tiny = predict.predict(replace(SHAPE, weight_bytes=2_000_000, streamed_bytes=2_000_000), 1_500_000, small)
    assert tiny["extrapolated"]
    huge = predict.predict(replace(SHAPE, weight_bytes=10**11), 10**10, small)
    assert predict.estimate("executorch", Load(10**9, 24, 494_000_000), small)["kind_unseen"]
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
    assert [device(n).cores for n in ("pi4", "pi5", "n150", "ryzen-340")] == ["plain", "dotprod", "avx", "avx"]


def test_a_device_with_a_figure_is_predicted_closer_than_its_like_without() -> None:
    load = Load(1_069_000_000, 26, 1_000_000_000)
    published = next(f.tokens_per_s for f in table()[1] if (f.device, f.runtime) == ("galaxy-s23", "llama.cpp"))
    known = predict.estimate("llama.cpp", load, device("galaxy-s23"))["decode_tps"]
    unknown = predict.estimate("llama.cpp", load, replace(device("galaxy-s23"), name="another"))["decode_tps"]
    assert abs(known - published) < abs(unknown - published)


def test_an_unknown_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'pi5'"):
        device("pi-5")
