"""Which pictures belong to a folder of results."""

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from taalm.plots.lama_ckl import gains_and_losses, learning_curves, plane
from taalm.plots.streams import period_bars, stream_curves
from taalm.results import Result, is_stream

Draw = Callable[[Mapping[str, Result]], Figure]


def pictures(results: Mapping[str, Result]) -> dict[str, Draw]:
    """What can be drawn of these results, by name, the main picture first: of one benchmark, the first result's."""
    first = next(iter(results.values()))
    if is_stream(first):
        return {"stream": stream_curves}
    if "period" in first:
        return {"periods": period_bars}
    return {"curves": learning_curves, "plane": plane, "gains": gains_and_losses}
