"""Attribution as a process: a JSON request on standard input, progress and the record as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from awqbench.executors.child import serve


def attribute_request(request: dict[str, Any], progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """See `awqbench.attribution.pipeline.attribute`."""
    from awqbench.attribution.pipeline import attribute
    from awqbench.backends.device import pick_device
    from awqbench.cores import use_threads

    use_threads(request["threads"])
    return attribute({**request, "device": str(pick_device(request["device"]))}, progress).model_dump(mode="json")


if __name__ == "__main__":
    sys.exit(serve(attribute_request))
