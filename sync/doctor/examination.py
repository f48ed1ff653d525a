"""All checks in their order, and one run of them."""

from collections.abc import Callable, Generator, Sequence
from typing import Final

from mad_backend.errors import LabelStudioError
from mad_backend.settings import Secrets, Settings
from sync.doctor.callbacks import ml_backend, serving, webhook_block, webhook_delivery
from sync.doctor.connections import connections
from sync.doctor.findings import Check, Line, from_error, run_checks
from sync.doctor.pictures import pictures
from sync.doctor.rounds import frozen_labels, overlap, starting_points
from sync.doctor.server import clock, reachability, upload_limits, version
from sync.doctor.situation import Situation
from sync.doctor.tokens import enter_keys, people, token

_UP: Final = ("reachability",)
_IN: Final = ("reachability", "token")

CHECKS: Final = (
    Check("reachability", "asking Label Studio for an answer", reachability),
    Check("version", "asking for the release", version, _UP),
    Check("token", "showing our token", token, _UP),
    Check("clock", "comparing clocks", clock, _IN),
    Check("people", "listing the people", people, _IN),
    Check("Enter key", "looking at the keys of raters", enter_keys, _IN),
    Check(
        "label configuration", "comparing the projects of rounds with what was recorded", frozen_labels, _IN
    ),
    Check("overlap", "looking how many people a task goes to", overlap, _IN),
    Check("model_version", "looking what annotators start from", starting_points, _IN),
    Check("pictures", "placing a picture and fetching it as a browser does", pictures, _IN),
    Check("upload limits", "sending a request as large as the largest of a push", upload_limits, _IN),
    Check("mad serve", "calling mad serve", serving),
    Check("webhook address", "showing Label Studio our address for webhooks", webhook_block, _IN),
    Check(
        "webhook delivery",
        "annotating a task and waiting for word of it",
        webhook_delivery,
        (*_IN, "webhook address"),
    ),
    Check("ML backend", "letting Label Studio call mad serve", ml_backend, _IN),
    Check("connected projects", "looking at the projects that ask mad serve", connections, _IN),
)


def examine(
    settings: Settings,
    secrets: Secrets,
    report: Callable[[str], None],
    checks: Sequence[Check] = CHECKS,
) -> Generator[Line, None, None]:
    """Runs the checks against the server of `settings` and gives each line as soon as it is known.

    Whatever happens, the probe project is deleted at the end; where that fails, the last line says so.
    """
    situation = Situation(settings, secrets)
    trouble = None
    try:
        yield from run_checks(checks, situation, report)
    finally:
        report("deleting the probe project")
        try:
            situation.close()
        except LabelStudioError as error:
            trouble = error
    if trouble is not None:
        yield Line("probe project", from_error(trouble))
