"""`bridge-edge serve`: a student behind the routes of OpenAI's API, for programs that speak it, on loopback.

One thin server serves every format through our runtimes, so it says what `bridge-edge run` says and holds a reasoning
budget (`reasoning_budget`). llama-cpp-python's own server was looked at first: it takes GGUF alone, knows no budget,
aborts the answer in progress when a request comes in (or queues without a bound), and brings fastapi, uvicorn,
starlette-context, sse-starlette and pydantic-settings. aiohttp is here anyway, as a dependency of datasets.

`wire.py` has bodies and replies, `desk.py` the queue before the one worker, `app.py` routes, limits and shutdown.
Not covered: TLS (put a proxy before it), several models, batches of requests.
"""
