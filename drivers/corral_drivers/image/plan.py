"""Which images to fetch. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.image.model import Held, Image, shown


@dataclass(frozen=True, slots=True, order=True)
class Fetch:
    """Bring this image into the cache."""

    image: Image

    def __str__(self) -> str:
        return f"fetch {self.image.sha256[:12]} from {shown(self.image.url)}"


Step = Fetch


Plan = steps.Plan[Step]


def plan(desired: Iterable[Image], observed: Iterable[Held]) -> Plan:
    """Fetch what is wanted and not held; what is held and not wanted stays for the next guest."""
    held = {(image.sha256, image.format) for image in observed}
    missing = {image for image in desired if (image.sha256, image.format) not in held}
    return Plan(steps=tuple(Fetch(image) for image in sorted(missing)))
