"""Why a partition stands still. Loud, with the remedy, and tried again: never an exception that ends the process."""


class PartitionBlockedError(Exception):
    """The record at hand cannot be decided now, and no later one of its partition may overtake it.

    `transient`: what is missing (a registry, a broker) comes back by itself.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient
