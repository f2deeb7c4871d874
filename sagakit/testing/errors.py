"""The errors of the servers and processes that `sagakit.testing` runs."""

from __future__ import annotations


class ServerError(Exception):
    """A server or process that `sagakit.testing` runs could not do what was asked; the text says what to do next."""


class ServerUnavailableError(ServerError):
    """This machine lacks what the server needs (Java, Maven, the network); nothing was started.

    Fixtures turn this one error into a skip, and the run's summary says what was therefore not proven.
    """


class JavaMissingError(ServerUnavailableError):
    """No Java of a sufficient version was found."""


class MavenMissingError(ServerUnavailableError):
    """The jars are not in the cache and there is no Maven to fetch them."""


class DownloadFailedError(ServerUnavailableError):
    """Maven is there but could not fetch the jars."""


class ServerFailedError(ServerError):
    """The server was started and did not come up, or died; the text ends with the tail of its log."""


class PortsUnavailableError(ServerError):
    """No free loopback port was found, or a port that was asked for is in use."""


class ProcessError(ServerError):
    """A child process ended, or did not get where it was waited for; the text ends with the tail of its log."""
