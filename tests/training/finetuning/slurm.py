"""A stand-in for Slurm on one machine: srun starts each task here, told its place as Slurm tells it."""

import os
import sys
from pathlib import Path

SRUN = f"""#!{sys.executable}
import os, subprocess, sys

given = sys.argv[1:]
command = given[next(n for n, one in enumerate(given) if not one.startswith("--")) :]
options = dict(one[2:].partition("=")[::2] for one in given[: len(given) - len(command)])
with open(os.environ["SRUN_RECORD"], "a") as record:
    record.write(" ".join(given[: len(options)]) + "\\n")
tasks = []
for number in range(int(options["ntasks"])):
    place = {{"SLURM_PROCID": number, "SLURM_LOCALID": number, "SLURM_NTASKS": options["ntasks"]}}
    place |= {{"SLURM_NODELIST": "localhost", "SLURM_JOB_ID": 1}}
    environment = {{**os.environ, **{{name: str(value) for name, value in place.items()}}}}
    tasks.append(subprocess.Popen(command, env=environment))
# --kill-on-bad-exit=1
while any(task.poll() is None for task in tasks):
    for task in tasks:
        try:
            task.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        if task.returncode:
            for other in tasks:
                other.kill()
sys.exit(max(abs(task.wait()) for task in tasks))
"""


def install(folder: Path) -> dict[str, str]:
    """Writes srun into `folder`; returns the environment in which it is found. Its options go to folder/record."""
    folder.mkdir()
    program = folder / "srun"
    program.write_text(SRUN)
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SRUN_RECORD": str(folder / "record")}
