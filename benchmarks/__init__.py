"""Benchmarks of exported students: latency, memory and accuracy through the runtime that ships."""
