"""Who is answered what, by owner and by interface; both implementations of the port keep theirs in it."""

from __future__ import annotations

from corral_drivers.dhcp import names
from corral_drivers.dhcp.model import Answer, Service


class Table:
    """The services of a host, of which no two have an interface in common."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._by_interface: dict[str, tuple[str, Answer]] = {}

    def put(self, service: Service) -> None:
        """In place of the owner's service before. Raises `errors.Rejected` where an interface is another owner's."""
        for answer in service.answers:
            if self._by_interface.get(answer.interface, (service.owner,))[0] != service.owner:
                raise names.taken(service.owner, answer.interface)
        self.drop(service.owner)
        self._services[service.owner] = service
        self._by_interface |= {answer.interface: (service.owner, answer) for answer in service.answers}

    def drop(self, owner: str) -> None:
        """Have nothing of this owner."""
        if gone := self._services.pop(owner, None):
            for answer in gone.answers:
                del self._by_interface[answer.interface]

    def service(self, owner: str) -> Service | None:
        """What the owner's guest is answered."""
        return self._services.get(owner)

    def answer(self, interface: str) -> Answer | None:
        """What the guest on this interface is answered."""
        found = self._by_interface.get(interface)
        return None if found is None else found[1]

    def owners(self) -> frozenset[str]:
        """Everyone who is answered."""
        return frozenset(self._services)
