"""Run the online wiki stream: `python run.py --config configs/online/wiki/month/smollm2_vannila.json`."""

import os
import sys
from pathlib import Path

from taalm import processes
from taalm.checkpoint import write_text
from taalm.config import IS_CHECKOUT, ROOT, parse
from taalm.errors import UserError
from taalm.models.precision import keep_freed_memory
from taalm.online import OnlineStream
from taalm.online_config import OnlineConfig, check
from taalm.online_run import Run, as_csv
from taalm.plots.streams import stream_curves
from taalm.plots.style import write
from taalm.results import save_result
from taalm.run_folder import claim
from taalm.tracking import KEPT, start


def start_processes(config: OnlineConfig, arguments: list[str]) -> None:
    """With ngpu > 1 and no launcher: begin again under torchrun, so many processes on this machine.

    Raises UserError where a launcher started another number of processes.
    """
    started = os.environ.get("WORLD_SIZE")
    if started is None and config.ngpu > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(config.ngpu)]
        program = [str(ROOT / "run.py")] if IS_CHECKOUT else ["-m", "taalm", "run_online"]
        os.execv(sys.executable, [sys.executable, *launcher, *program, *arguments])
    if started is not None and int(started) != max(1, config.ngpu):
        raise UserError(f"the launcher started {started} processes: pass --ngpu {started}, texts of an update count so")


def config_file(arguments: list[str]) -> list[str]:
    """The arguments with --config's file name as it lies there: vanilla may be typed for vannila."""
    found = []
    for place, argument in enumerate(arguments):
        name = argument.removeprefix("--config=")
        given = name != argument or (place and arguments[place - 1] == "--config")
        other = name.replace("smollm2_vanilla", "smollm2_vannila").replace("t5_vanilla", "t5_vannila")
        known = given and not Path(name).exists() and Path(other).is_file()
        found.append(argument.removesuffix(name) + other if known else argument)
    return found


def main(arguments: list[str]) -> None:
    arguments = config_file(arguments)
    config = parse(OnlineConfig, None, arguments, "python run.py")
    check(config)
    start_processes(config, arguments)
    processes.start("cpu" if config.ngpu == 0 else config.device)
    keep_freed_memory()
    stream = OnlineStream(config)
    out = Path(config.output_dir)
    if config.check_validation:
        rows = Run(config, stream).validate()
        if processes.is_main():
            write_text(out / "validation.csv", as_csv(rows))
        print(as_csv(rows), end="")
        return
    claim(out, config, keep=("quiet", "keep_checkpoints", "num_workers", "output_log", *KEPT))
    stream.cell.log = start(config.track, out.name, out, config)
    result = Run(config, stream).run()
    if processes.is_main():
        save_result(out / "result.pkl", result)
        write(stream_curves({config.method: result}), out / "stream.png")
    print(f"{len(stream.dates)} dates of {stream.folder}")
    print("  ".join(f"{name} {value:.3f}" for name, value in result["summary"].items() if value is not None))
    print(f"result in {out / 'result.pkl'}, picture in {out / 'stream.png'}")
