"""The gate: whether f(i) may take the place of f(i-1) (method.md section 7)."""

from dataclasses import dataclass

from mad_backend.settings import PromotionSettings


@dataclass(frozen=True)
class Decision:
    """Whether to serve the new version, and why in one sentence."""

    promote: bool
    reason: str


def decide(
    before: dict[str, float], after: dict[str, float], settings: PromotionSettings, t0: str = "T(0)"
) -> Decision:
    """Compares dataset mIoUs of f(i-1) and f(i) by image set.

    f(i) is served if it lost at most `max_t0_loss` on T(0) and did not lose on T(1..i) taken together (mean).
    """
    tests = sorted(name for name in after if name != t0)
    loss = before[t0] - after[t0]
    gain = sum(after[name] - before[name] for name in tests) / len(tests) if tests else 0.0
    facts = f"{t0} {before[t0]:.4f} -> {after[t0]:.4f}" + "".join(
        f", {name} {before[name]:.4f} -> {after[name]:.4f}" for name in tests
    )
    if loss > settings.max_t0_loss:
        return Decision(False, f"kept: {t0} fell by {loss:.4f}, more than {settings.max_t0_loss:g} ({facts})")
    if gain < 0:
        return Decision(False, f"kept: the mean over {', '.join(tests)} fell by {-gain:.4f} ({facts})")
    return Decision(True, f"promoted: {facts}")
