"""A key-value cache of a fixed length, written in place.

The library's own cache grows by copying at each token; a batch whose longest row is known beforehand needs no more than
one buffer a layer. Layers with sliding windows keep the library's kinds. Not covered: recurrent states.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from bridge_edge.errors import UserError


class FixedLayer(DynamicLayer):
    """Keys and values of one layer in buffers of a fixed length, written in place and returned as views."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.used = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, groups, new, width = key_states.shape
        if self.used == 0:
            self.key_buffer = key_states.new_empty(batch, groups, self.length, width)
            self.value_buffer = value_states.new_empty(batch, groups, self.length, width)
            self.is_initialized = True
        end = self.used + new
        self.key_buffer[:, :, self.used : end] = key_states
        self.value_buffer[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]
        return self.keys, self.values

    def keep(self, rows: torch.Tensor) -> None:
        """Keep only the given rows of the batch."""
        self.key_buffer, self.value_buffer = self.key_buffer[rows], self.value_buffer[rows]

    def get_seq_length(self) -> int:
        return self.used


class FixedCache(Cache):
    """The whole cache in fixed buffers, for models whose every layer keeps keys and values of all positions."""

    def __init__(self, layers: int, length: int) -> None:
        self.fixed = [FixedLayer(length) for _ in range(layers)]
        super().__init__(layers=[*self.fixed])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for layer in self.fixed:
            layer.keep(indices)


def new_cache(model: PreTrainedModel, length: int) -> Cache:
    """A cache for `length` positions: fixed buffers where all layers are plain, the library's own kinds otherwise."""
    config = model.config.get_text_config()
    cache = DynamicCache(config=config)
    if all(type(layer) is DynamicLayer for layer in cache.layers):
        return FixedCache(config.num_hidden_layers, length)
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        raise UserError(
            f"cannot generate with a model of type {config.model_type!r}: it keeps recurrent states",
            "choose a model with attention layers only",
        )
    return cache  # windowed layers keep the last keys and values alone
